"""Imports of optional dependencies."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from parallelmlp_search.exceptions import MissingDependencyError


def is_installed(module: str) -> bool:
    """Return True if a module can be imported. A folder of this name without a module does not count."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional module. If it is missing, the error says how to install it.

    Parameters
    ----------
    module
        Dotted name to import, for example ``"yaml"``.
    extra
        Extra of this distribution that installs the module.
    purpose
        Purpose of the module in the error message: ``"to read a YAML search space"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingDependencyError
        If the module or a parent of it is not installed. An installed module that lacks a dependency of its
        own raises its own error.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module != missing and not module.startswith(f"{missing}."):
            raise
        raise MissingDependencyError(
            f"{module} is needed {purpose} but is not installed; "
            f"install it with: pip install 'parallelmlp-search[{extra}]'"
        ) from error
