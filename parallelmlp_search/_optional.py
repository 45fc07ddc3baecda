"""Optional dependencies, asked for by name together with the extra that brings them."""

from __future__ import annotations

import importlib
from typing import Any

from parallelmlp_search.exceptions import MissingDependencyError

__all__ = ["require"]


def require(module: str, *, extra: str, purpose: str) -> Any:
    """Import an optional module, or say how to install it.

    Parameters
    ----------
    module
        Dotted name to import, for example ``"yaml"``.
    extra
        Extra of this distribution that brings the module.
    purpose
        What needs it, in words that fit after the module's name: ``"to read a YAML search space"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingDependencyError
        If the module, or a parent of it, is not installed. A module that is installed but whose own import
        fails for want of something else raises its own error, which names what is really missing.
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
