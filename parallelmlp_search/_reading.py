"""Validated reading of JSON, Parquet and safetensors files.

A file that cannot be read is an error that names the file, the problem and the remedy.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

from safetensors import safe_open

from parallelmlp_search._checks import check_integer
from parallelmlp_search._schema import conform
from parallelmlp_search.exceptions import PMLPError, RunDirectoryError, one_line

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

RESTORE = "restore it from a copy, or search again"
"""Remedy for a damaged file."""

MAX_DEPTH = 64
"""Most levels of a JSON file. The deepest file of this package, the model, has ten."""


class Versioned(TypedDict):
    """JSON file with a format."""

    format: NotRequired[Annotated[int, partial(check_integer, minimum=1)]]


def unreadable(path: Path, reason: object, remedy: str = RESTORE) -> RunDirectoryError:
    """Error of a file that cannot be read.

    Parameters
    ----------
    path, reason
        The file, and an error or a text that says why.
    remedy
        Advice to the user.

    Returns
    -------
    RunDirectoryError
    """
    return RunDirectoryError(f"could not read {str(path)!r} ({one_line(reason)}): {remedy}")


@contextlib.contextmanager
def reading(path: Path, remedy: str = RESTORE) -> Iterator[None]:
    """Replace errors inside the context, which reads a file, by one that names the file and the remedy.

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged.
    """
    try:
        yield
    except FileNotFoundError:
        raise RunDirectoryError(f"there is no file {str(path)!r}: {remedy}") from None
    except PermissionError as error:
        raise unreadable(path, error, "make it readable and run again") from error
    except RunDirectoryError:
        raise
    except KeyError as error:
        raise unreadable(path, f"it lacks {error}", remedy) from error
    # RuntimeError: of torch, and of a recursion that is too deep
    except (
        PMLPError, OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError,
        AssertionError, MemoryError,
    ) as error:  # fmt: skip
        raise unreadable(path, error, remedy) from error


def read_json(path: Path, schema: Any = Any, *, newest: int | None = None, remedy: str = RESTORE) -> Any:
    """Return the content of a JSON file.

    Parameters
    ----------
    path
        The file.
    schema
        Type annotation of the content, see `parallelmlp_search._schema`.
    newest
        Newest format that this version reads, for a file with an entry ``format``; a file without one has
        format 1. None for files without formats.
    remedy
        Advice if the file is damaged.

    Returns
    -------
    Any
        The content, of the type of the schema.

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged, its content does not conform to the schema, or its format is newer.
    """
    with reading(path, remedy):
        text = path.read_text(encoding="utf-8")
        value = json.loads(text)
        if "\\ud" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half a character cannot be shown or written
        _check_depth(value)
        if newest is not None:
            conform(value, Versioned)
            if value.get("format", 1) > newest:
                raise RunDirectoryError(newer_format(path, value["format"], newest))
        conform(value, schema)
    return value


def newer_format(path: Path, found: object, newest: int) -> str:
    """Message about a file of a newer version.

    Parameters
    ----------
    path, found, newest
        The file, its format, and the newest format that this version reads.

    Returns
    -------
    str
    """
    return (
        f"{str(path)!r} has format {found}, but this version of parallelmlp-search reads formats up to "
        f"{newest}: install a newer version"
    )


def _check_depth(value: Any) -> None:
    """Refuse nesting at which recursive functions would fail."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for one in level
            if isinstance(one, dict | list)
            for item in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")


def read_frame(path: Path, columns: Mapping[str, str], remedy: str = RESTORE) -> pd.DataFrame:
    """Return the table of a Parquet file.

    Parameters
    ----------
    path
        The file.
    columns
        Columns that the table must have, with the kinds of dtype that each may have: ``"iu"`` for integers,
        ``"iuf"`` for numbers, ``"O"`` for texts.
    remedy
        Advice if the file is damaged.

    Returns
    -------
    pandas.DataFrame

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged, or lacks a column.
    """
    import pandas as pd

    with reading(path, remedy):
        frame = pd.read_parquet(path)
        for name, kinds in columns.items():
            if name not in frame.columns:
                raise ValueError(f"it has no column {name!r}")
            dtype = frame[name].dtype
            kind = "O" if pd.api.types.is_string_dtype(dtype) else dtype.kind
            if kind not in kinds:
                raise ValueError(f"its column {name!r} has the type {dtype}")
    return frame


def load_tensors(path: Path, schema: Any = Any, remedy: str = RESTORE) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the metadata that `save_tensors` wrote.

    Parameters
    ----------
    path
        The file.
    schema
        Type annotation of the metadata.
    remedy
        Advice if the file is damaged.

    Returns
    -------
    dict of Tensor by name, and metadata

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged, or its metadata do not conform to the schema.
    """
    with _opened(path, remedy) as file:
        metadata = _metadata(file, schema)
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118


def load_arrays(
    path: Path, remedy: str = RESTORE, *, names: Sequence[str] | None = None
) -> dict[str, NDArray[Any]]:
    """Return the tensors of a safetensors file as NumPy arrays, without torch.

    Parameters
    ----------
    path, remedy
        As of `load_tensors`.
    names
        Names of the tensors to read, if the file has them; None for all.

    Returns
    -------
    dict of array by name

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged.
    """
    with _opened(path, remedy, "np") as file:
        found = [name for name in file.keys() if names is None or name in names]  # noqa: SIM118
        return {name: file.get_tensor(name) for name in found}


def load_metadata(path: Path, schema: Any = Any, remedy: str = RESTORE) -> Any:
    """Return the metadata that `save_tensors` wrote, without reading the tensors.

    Parameters
    ----------
    path, schema, remedy
        As of `load_tensors`.

    Returns
    -------
    Any
    """
    with _opened(path, remedy, "np") as file:  # without torch
        return _metadata(file, schema)


@contextlib.contextmanager
def _opened(path: Path, remedy: str, framework: str = "pt") -> Iterator[Any]:
    with reading(path, remedy):
        try:
            file = safe_open(path, framework=framework)
        except OSError:
            raise
        except Exception as error:  # safetensors has no public class of errors
            raise ValueError(str(error)) from error
        with file:
            yield file


def _metadata(file: Any, schema: Any) -> Any:
    metadata = json.loads((file.metadata() or {}).get("metadata", "null"))
    _check_depth(metadata)
    conform(metadata, schema)
    return metadata
