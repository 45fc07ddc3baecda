"""Validation of the names and domains of a search space.

A space may name every field of `MLPConfig`. It may also name ``depth``, ``width`` (of all hidden layers) and
``width_1``, ``width_2``, ... (of one layer each), which together build ``widths``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space.config import FIELD_NAMES, MLPConfig
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.domains import Float

_WIDTH = re.compile(r"width_([1-9][0-9]*)")
_INTEGERS = ("widths", "depth", "width", "batch_size", "submembers", "seed")
_MAX_DEPTH = 10_000


def layer_of(name: str) -> int | None:
    """Return the hidden layer that ``width_3`` belongs to, counted from 1; None for any other name."""
    match = _WIDTH.fullmatch(name)
    return int(match.group(1)) if match else None


def check_domains(domains: Mapping[str, Domain]) -> None:
    """Check that every name and value can occur in a configuration.

    Raises
    ------
    InvalidParameterError
        If a name is unknown, a value breaks the rule of its field, or names of widths contradict each other.
    """
    for name, domain in domains.items():
        if not isinstance(domain, Domain):
            raise InvalidParameterError(
                f"the domain of {name!r} must be a Float, Int or Categorical, but got {domain!r}"
            )
        if name not in (*FIELD_NAMES, "depth", "width") and layer_of(name) is None:
            hint = near_miss(name, (*FIELD_NAMES, "depth", "width", "width_1"))
            raise InvalidParameterError(f"a search space has no name {name!r}{hint}")
        _check_values(name, domain)
    _check_widths(domains)


def _check_values(name: str, domain: Domain) -> None:
    is_layer_width = layer_of(name) is not None
    if isinstance(domain, Float) and (name in _INTEGERS or is_layer_width):
        raise InvalidParameterError(
            f"the domain of {name!r} must be an Int or Categorical, but got {domain!r}"
        )
    # an interval is valid if both its ends are; the grid of a categorical holds all choices
    for value in domain.grid(2):
        try:
            if name == "depth":
                if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_DEPTH:
                    raise InvalidParameterError(
                        f"depth must be an integer from 0 to {_MAX_DEPTH}, but got {value!r}"
                    )
            elif name == "width" or is_layer_width:
                MLPConfig(widths=(value,))
            else:
                MLPConfig(**{name: value})
        except InvalidParameterError as error:
            raise InvalidParameterError(
                f"the domain of {name!r} holds a value that is not allowed: {error}"
            ) from None


def _check_widths(domains: Mapping[str, Domain]) -> None:
    layers = sorted(layer for layer in map(layer_of, domains) if layer is not None)
    structural = [name for name in domains if name in ("depth", "width") or layer_of(name) is not None]
    if "widths" in domains and structural:
        raise InvalidParameterError(f"a search space may name either widths or {structural[0]}, but got both")
    if not layers:
        return
    if "width" in domains:
        raise InvalidParameterError(
            f"a search space may name either width or width_{layers[0]}, but got both"
        )
    max_depth = int(max(domains["depth"].grid())) if "depth" in domains else layers[-1]
    for layer in range(1, max(max_depth, layers[-1]) + 1):
        if layer not in layers:
            raise InvalidParameterError(
                f"a space of depth {max_depth} must name width_{layer}, but it is missing"
            )
        if layer > max_depth:
            raise InvalidParameterError(f"width_{layer} is never used, since depth is at most {max_depth}")
