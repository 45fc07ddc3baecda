"""The parameter ``monotonic`` of estimators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from parallelmlp_search.exceptions import InvalidParameterError


def has_signs(monotonic: Any) -> bool:
    """Return True if a parameter ``monotonic`` has a sign other than 0."""
    if monotonic is None:
        return False
    values = monotonic.values() if isinstance(monotonic, Mapping) else monotonic
    return any(bool(np.any(sign)) for sign in values)


def named_signs(monotonic: Any, names: Sequence[str]) -> dict[str, Any] | None:
    """Return signs by the name of the column.

    Parameters
    ----------
    monotonic
        Signs by name, one sign for each column, or None.
    names
        Names of the columns.

    Returns
    -------
    dict or None

    Raises
    ------
    InvalidParameterError
        If there are as many signs as columns neither by name nor by position.
    """
    if monotonic is None or isinstance(monotonic, Mapping):
        return None if monotonic is None else dict(monotonic)
    signs = np.asarray(monotonic)
    if signs.shape != (len(names),):
        raise InvalidParameterError(
            f"monotonic must have one sign for each of the {len(names)} columns, or be a mapping from names "
            f"to signs, but has the shape {signs.shape}"
        )
    return dict(zip(names, signs.tolist(), strict=True))
