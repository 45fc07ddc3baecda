"""Which names and values a search space may hold.

A space may name every field of `MLPConfig`, and the structural names ``depth``, ``width`` (all hidden layers
that width) and ``width_1``, ``width_2``, ... (each layer its own), which together build ``widths``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.config import FIELD_NAMES, MLPConfig
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.domains import Float

__all__ = ["check_domains", "width_index"]

_WIDTH = re.compile(r"width_([1-9][0-9]*)")
_WHOLE = ("widths", "depth", "width", "batch_size", "submembers", "seed")
_MAX_DEPTH = 10_000


def width_index(name: str) -> int | None:
    """Layer that ``width_3`` stands for, counted from 1; None for any other name."""
    match = _WIDTH.fullmatch(name)
    return int(match.group(1)) if match else None


def check_domains(domains: Mapping[str, Domain]) -> None:
    """Refuse names and values that no configuration could take.

    Raises
    ------
    InvalidParameterError
        Naming the domain and what is wrong with it.
    """
    for name, domain in domains.items():
        if not isinstance(domain, Domain):
            raise InvalidParameterError(
                f"the domain of {name!r} must be a Float, Int or Categorical, but got {domain!r}"
            )
        if name not in (*FIELD_NAMES, "depth", "width") and width_index(name) is None:
            hint = near_miss(name, (*FIELD_NAMES, "depth", "width", "width_1"))
            raise InvalidParameterError(f"a search space has no name {name!r}{hint}")
        _check_values(name, domain)
    _check_widths(domains)


def _check_values(name: str, domain: Domain) -> None:
    whole = name in _WHOLE or width_index(name) is not None
    if whole and isinstance(domain, Float):
        raise InvalidParameterError(
            f"the domain of {name!r} must be an Int or Categorical, but got {domain!r}"
        )
    # An interval is valid where both its ends are; a categorical shows all of its choices.
    for value in domain.grid(2):
        try:
            if name == "depth":
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_DEPTH:
                    raise InvalidParameterError(
                        f"depth must be an integer from 0 to {_MAX_DEPTH}, but got {value!r}"
                    )
            elif name == "width" or width_index(name) is not None:
                MLPConfig(widths=(value,))
            else:
                MLPConfig(**{name: value})
        except InvalidParameterError as error:
            raise InvalidParameterError(
                f"the domain of {name!r} holds a value that is not allowed: {error}"
            ) from None


def _check_widths(domains: Mapping[str, Domain]) -> None:
    numbered = sorted(index for index in map(width_index, domains) if index is not None)
    structural = [name for name in domains if name in ("depth", "width") or width_index(name) is not None]
    if "widths" in domains and structural:
        raise InvalidParameterError(f"a search space may name either widths or {structural[0]}, but got both")
    if numbered and "width" in domains:
        raise InvalidParameterError(
            f"a search space may name either width or width_{numbered[0]}, but got both"
        )
    if not numbered:
        return
    deepest = int(max(domains["depth"].grid())) if "depth" in domains else numbered[-1]
    for index in range(1, max(deepest, numbered[-1]) + 1):
        if index not in numbered:
            raise InvalidParameterError(
                f"a space of depth {deepest} must name width_{index}, but it is missing"
            )
        if index > deepest:
            raise InvalidParameterError(f"width_{index} is never used, since depth is at most {deepest}")
