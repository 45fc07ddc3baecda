"""Constructor parameters of estimators: storage, fields of a configuration, and documentation."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from inspect import Parameter
from typing import Any, TypeVar

from parallelmlp_search.exceptions import near_miss
from parallelmlp_search.space import MLPConfig

Kind = TypeVar("Kind", bound=type)

_SECTION = re.compile(r"Parameters\n-{10}\n(.*?)(?=\n\n|\Z)", re.DOTALL)


def stores_parameters(kind: Kind) -> Kind:
    """Let the constructor of an estimator store every parameter under its name, as scikit-learn asks."""
    declared = vars(kind)["__init__"]
    return _with_constructor(kind, declared, inspect.signature(declared))


def with_config_fields(kind: Kind) -> Kind:
    """Add the fields of :class:`MLPConfig` to the constructor of an estimator, which stores its parameters.

    The fields take the place of ``**config`` in the signature. A parameter that the constructor declares
    itself replaces the field of the same name.
    """
    declared = vars(kind)["__init__"]
    parameters = inspect.signature(declared).parameters.values()
    own = {one.name: one for one in parameters if one.kind is not Parameter.VAR_KEYWORD}
    fields = [one for one in inspect.signature(MLPConfig).parameters.values() if one.name not in own]
    positional = [one for one in own.values() if one.kind is not Parameter.KEYWORD_ONLY]
    keywords = [one for one in own.values() if one.kind is Parameter.KEYWORD_ONLY]
    return _with_constructor(kind, declared, inspect.Signature([*positional, *fields, *keywords]))


def _with_constructor(kind: Kind, declared: Any, signature: inspect.Signature) -> Kind:
    @functools.wraps(declared)
    def __init__(self: Any, *args: Any, **parameters: Any) -> None:
        for name in parameters.keys() - signature.parameters.keys():
            hint = near_miss(name, signature.parameters)
            raise TypeError(f"{kind.__name__} has no parameter {name!r}{hint}")
        bound = signature.bind(self, *args, **parameters)
        bound.apply_defaults()
        for name, value in list(bound.arguments.items())[1:]:
            setattr(self, name, value)

    __init__.__signature__ = signature  # type: ignore[attr-defined]
    kind.__init__ = __init__  # type: ignore[misc]
    return kind


def documented_by(source: type) -> Callable[[Kind], Kind]:
    """Complete the section Parameters of a class with the entries of another class."""

    def complete(kind: Kind) -> Kind:
        if kind.__doc__ is not None:  # there are no docstrings under ``python -OO``
            entries = _entries(source) | _entries(kind)
            names = inspect.signature(kind).parameters
            text = "\n".join(dict.fromkeys(entries[name] for name in names if name in entries))
            doc = inspect.cleandoc(kind.__doc__)
            kind.__doc__ = _SECTION.sub(lambda _: f"Parameters\n----------\n{text}", doc)
        return kind

    return complete


def _entries(kind: type) -> dict[str, str]:
    """Entries of the section Parameters by the name of the parameter."""
    found = _SECTION.search(inspect.cleandoc(kind.__doc__ or ""))
    entries = re.split(r"\n(?=\S)", found[1]) if found else []
    return {
        name.strip(): entry for entry in entries for name in entry.split("\n")[0].split(" : ")[0].split(",")
    }
