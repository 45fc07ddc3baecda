"""Packages whose names are imported on first use (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module

Hooks = tuple[Callable[[str], object], Callable[[], list[str]]]


def lazy_names(package: str, modules: Mapping[str, str], *, shadowed: Sequence[str] = ()) -> Hooks:
    """Return ``__getattr__`` and ``__dir__`` of a package that imports its names on first use.

    Importing the package, or a module below it, then imports nothing else. Type checkers read the imports in
    the block ``if TYPE_CHECKING`` of the package.

    Parameters
    ----------
    package
        ``__name__`` of the package.
    modules
        Modules relative to the package, each with the names, separated by spaces, that the package exports
        from it.
    shadowed
        Names that are also modules below the package. Importing such a module later would put it in the place
        of the name, so it is imported now.

    Returns
    -------
    (function, function)
    """
    for name in shadowed:
        import_module(f"{package}.{name}")
        vars(sys.modules[package]).pop(name)
    homes = {name: f".{module}" for module, names in modules.items() for name in names.split()}

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(homes[name], package), name)
        vars(sys.modules[package])[name] = value  # so that the next access does not call this function
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return get, names
