"""Reading and writing of search spaces as YAML, TOML and JSON."""

from __future__ import annotations

import json
import os
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parallelmlp_search._checks import check_integer
from parallelmlp_search._files import write_atomic
from parallelmlp_search._optional import require
from parallelmlp_search._reading import newer_format
from parallelmlp_search.exceptions import InvalidParameterError, near_miss

SUFFIXES: tuple[str, ...] = (".yaml", ".yml", ".toml", ".json")
_MAX_BYTES, _MAX_VALUES, _MAX_DEPTH, _MAX_BITS = 1_000_000, 10_000, 16, 64
FORMAT_KEY, FORMAT = "format", 1
"""Entry of a file with the version of its format, and the newest version. Files by hand may leave it out."""

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
# YAML 1.1 reads 1e-3 as a string, since it has no dot; TOML and JSON read it as a number
_YAML_FLOAT = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+")


def read_mapping(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the mapping in a file; its suffix, one of `SUFFIXES`, names the format.

    Raises
    ------
    InvalidParameterError
        If the file is missing, cannot be parsed, or does not hold a mapping.
    MissingDependencyError
        If the file is YAML and PyYAML is not installed.
    """
    file = Path(path)
    suffix = _suffix(file)
    text = _read(file)
    if suffix == ".json":
        content = _parse(file, json.loads, text, ValueError)
    elif suffix == ".toml":
        content = _parse(file, tomllib.loads, text, ValueError)
    else:
        yaml = require("yaml", extra="yaml", purpose="to read a YAML search space")
        loader = _loader(yaml)
        content = _parse(file, lambda source: yaml.load(source, Loader=loader), text, yaml.YAMLError)
    if not isinstance(content, dict):
        raise InvalidParameterError(
            f"search space file {str(file)!r} must hold a mapping, but holds a {type(content).__name__}"
        )
    _check_size(file, content)
    _check_format(file, content.pop(FORMAT_KEY, FORMAT))
    return content


def _read(file: Path) -> str:
    try:
        if file.exists() and not file.is_file():
            raise InvalidParameterError(f"search space file {str(file)!r} must be a file, but is none")
        size = file.stat().st_size
        if size > _MAX_BYTES:
            raise InvalidParameterError(
                f"search space file {str(file)!r} may have at most 1 MB, but has {size / 1e6:.1f} MB"
            )
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidParameterError(f"search space file {str(file)!r} cannot be read: {error}") from error


def _check_size(file: Path, content: dict[Any, Any]) -> None:
    """Check depth, number of values and integers. In YAML an alias can repeat or contain itself."""
    n_values, values = 0, [(0, content)]
    while values:
        depth, value = values.pop()
        n_values += 1
        problem = None
        if depth > _MAX_DEPTH:
            problem = "is nested too deeply"
        elif n_values > _MAX_VALUES:
            problem = f"holds more than {_MAX_VALUES} values"
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            problem = f"holds an integer of {value.bit_length()} bits, but integers must fit into 64 bits"
        if problem:
            raise InvalidParameterError(f"search space file {str(file)!r} {problem}")
        if isinstance(value, dict):
            values += [(depth + 1, inner) for pair in value.items() for inner in pair]
        elif isinstance(value, (list, tuple, set)):
            values += [(depth + 1, inner) for inner in value]


def write_mapping(path: str | os.PathLike[str], content: Mapping[str, Any]) -> None:
    """Write a mapping of mappings in the format of the file's suffix; `read_mapping` is the inverse.

    The entry ``format`` of the file is the version of the format.
    """
    file = Path(path)
    suffix = _suffix(file)
    content = {FORMAT_KEY: FORMAT, **content}
    if suffix == ".json":
        text = json.dumps(content, indent=2) + "\n"
    elif suffix == ".toml":
        text = _to_toml(content)
    else:
        yaml = require("yaml", extra="yaml", purpose="to write a YAML search space")
        text = yaml.safe_dump(dict(content), sort_keys=False, default_flow_style=None)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _check_format(file: Path, found: object) -> None:
    if check_integer(f"the format of the search space file {str(file)!r}", found, 1) > FORMAT:
        raise InvalidParameterError(newer_format(file, found, FORMAT))


def _suffix(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix not in SUFFIXES:
        hint = near_miss(suffix, SUFFIXES)
        raise InvalidParameterError(
            f"a search space file must end in one of {', '.join(SUFFIXES)}, but got {str(file)!r}{hint}"
        )
    return suffix


def _parse(file: Path, parse: Any, text: str, failure: type[Exception]) -> Any:
    try:
        return parse(text)
    except RecursionError:
        reason = "is nested too deeply"
    except (failure, ValueError) as error:
        # Python limits the digits of an integer, since reading many takes quadratic time
        digits = f"an integer has more than {sys.get_int_max_str_digits()} digits"
        found = digits if "integer string conversion" in str(error) else " ".join(str(error).split())
        reason = f"cannot be parsed: {found}"
    raise InvalidParameterError(f"search space file {str(file)!r} {reason}")


def _loader(yaml: Any) -> Any:
    """PyYAML's safe loader that also reads ``1e-3`` as a number."""
    loader: Any = type("_SpaceLoader", (yaml.SafeLoader,), {})
    loader.add_implicit_resolver("tag:yaml.org,2002:float", _YAML_FLOAT, list("-+.0123456789"))
    return loader


def _to_toml(content: Mapping[str, Any]) -> str:
    blocks = []
    for name, table in content.items():
        if not isinstance(table, Mapping):
            blocks.append(f"{_toml_key(name)} = {_toml_value(name, table)}\n")
            continue
        lines = [f"[{_toml_key(name)}]"]
        lines += [f"{_toml_key(key)} = {_toml_value(name, value)}" for key, value in table.items()]
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _toml_key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else json.dumps(key)


def _toml_value(name: str, value: Any) -> str:
    if value is None:
        raise InvalidParameterError(
            f"the domain of {name!r} holds None, which TOML cannot express: use YAML or JSON"
        )
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_toml_key(key)} = {_toml_value(name, item)}" for key, item in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(name, item) for item in value)}]"
    return json.dumps(value)  # strings, numbers and booleans look as in JSON
