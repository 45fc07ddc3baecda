"""Schemas of JSON values: a schema is a type annotation, checked by `conform`.

Supported are ``bool``, ``int``, ``float``, ``str``, ``None``, ``Any``, ``list``, ``dict``, ``Literal``,
unions, typed dictionaries whose optional fields are marked with ``NotRequired``, and ``Annotated`` with a
check of `parallelmlp_search._checks` as in ``Annotated[float, check_positive]``.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, partial
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from parallelmlp_search._checks import check_boolean, check_choice, check_integer, is_number, refuse
from parallelmlp_search.exceptions import InvalidParameterError

Count = Annotated[int, partial(check_integer, minimum=0)]
Positive = Annotated[int, partial(check_integer, minimum=1)]

CONTENT = "the content"

_NAMES: Mapping[type, str] = {list: "a list", dict: "a mapping", str: "a text", NoneType: "null"}


def conform(value: Any, schema: Any, name: str = CONTENT) -> None:
    """Check a value of a JSON file against a schema. A typed dictionary may have further keys.

    Parameters
    ----------
    value
        Value as `json.loads` returns it.
    schema
        Type annotation.
    name
        Name of the value in the message.

    Raises
    ------
    InvalidParameterError
        If the value, or a value inside it, is of another type.
    """
    kind, options = get_origin(schema), get_args(schema)
    if kind is Annotated:
        for check in options[1:]:
            check(name, value)
    elif is_typeddict(schema):
        _conform_fields(value, schema, name)
    elif kind is list:
        for place, item in enumerate(_checked(value, list, name)):
            conform(item, options[0], f"{name}[{place}]")
    elif kind is dict:
        for key, item in _checked(value, dict, name).items():
            conform(item, options[1], f"{name}.{key}")
    elif kind is Literal:
        check_choice(name, value, options)
    elif kind in (Union, UnionType):
        _conform_any(value, options, name)
    elif schema is int:
        check_integer(name, value)
    elif schema is bool:
        check_boolean(name, value)
    elif schema is float:
        if not is_number(value):
            refuse(name, "a number", value)
    elif schema is not Any:
        _checked(value, schema, name)


def _checked(value: Any, kind: type, name: str) -> Any:
    if not isinstance(value, kind):
        refuse(name, _NAMES[kind], value)
    return value


@cache
def _hints(schema: Any) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


def _conform_fields(value: Any, schema: Any, name: str) -> None:
    fields: Mapping[str, Any] = _checked(value, dict, name)
    for field, inner in _hints(schema).items():
        is_optional = get_origin(inner) is NotRequired
        if field in fields:
            inner = get_args(inner)[0] if is_optional else inner
            conform(fields[field], inner, field if name == CONTENT else f"{name}.{field}")
        elif not is_optional:
            raise InvalidParameterError(f"{name} must have {field!r}, but lacks it")


def _conform_any(value: Any, options: tuple[Any, ...], name: str) -> None:
    """Check that a value is of one of several types; the error is that of the last."""
    if value is None and NoneType in options:
        return
    others = [option for option in options if option is not NoneType]
    for option in others[:-1]:
        try:
            return conform(value, option, name)
        except InvalidParameterError:
            continue
    return conform(value, others[-1], name)
