"""Files that are either whole or not there: safetensors and JSON, written aside and renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from parallelmlp_search.exceptions import RunDirectoryError

__all__ = ["load_metadata", "load_tensors", "read_json", "save_tensors", "write_atomic", "write_json"]


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and rename the result.

    Raises
    ------
    RunDirectoryError
        If the disk is full or the folder cannot be written; what was there before stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # safetensors and pyarrow report what the system said in errors of their own
        text = str(error).lower()
        full = getattr(error, "errno", None) == errno.ENOSPC or "no space" in text
        if not (isinstance(error, OSError) or full or "os error" in text):
            raise
        cure = "free some space there" if full else "make the folder writable"
        raise RunDirectoryError(f"could not write {str(path)!r} ({error}): {cure} and resume") from error


def write_json(path: Path, value: Any) -> None:
    """Write JSON, keys in order of insertion, atomically."""
    text = json.dumps(value, indent=1, allow_nan=True, default=_plain)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a JSON file")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunDirectoryError(f"there is no file {str(path)!r}") from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(f"could not read {str(path)!r}: {error}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Any = None) -> None:
    """Write tensors with JSON-able metadata into one safetensors file, atomically."""
    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if not content:
        # the format wants at least one tensor
        content = {"empty": torch.zeros(0)}
    header = {"metadata": json.dumps(metadata, default=_plain)}
    write_atomic(path, lambda temporary: save_file(content, temporary, metadata=header))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Tensors and metadata that :func:`save_tensors` wrote.

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file)  # noqa: SIM118


def load_metadata(path: Path) -> Any:
    """The metadata alone, however large the tensors beside it; errors as of :func:`load_tensors`."""
    with _opened(path) as file:
        return _metadata(file)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise RunDirectoryError(f"there is no file {str(path)!r}") from None
    except Exception as error:
        raise RunDirectoryError(f"could not read {str(path)!r}: {error}") from error


def _metadata(file: Any) -> Any:
    return json.loads((file.metadata() or {}).get("metadata", "null"))
