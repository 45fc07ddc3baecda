"""Atomic writing and validated reading of JSON and safetensors files."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from parallelmlp_search.exceptions import RunDirectoryError

if TYPE_CHECKING:
    from torch import Tensor


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary path beside ``path`` and rename the result to ``path``.

    Missing folders are created. If writing fails, an existing file keeps its content.

    Raises
    ------
    RunDirectoryError
        If the disk is full or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        temporary.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # safetensors and pyarrow raise their own errors with the system's message
        text = str(error).lower()
        full = getattr(error, "errno", None) == errno.ENOSPC or "no space" in text
        if not (isinstance(error, OSError) or full or "os error" in text):
            raise
        advice = "free some space there" if full else "make the folder writable"
        raise RunDirectoryError(f"could not write {str(path)!r} ({error}): {advice} and run again") from error


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically. NumPy scalars become numbers."""
    text = json.dumps(value, indent=1, allow_nan=True, default=_plain)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

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
    """Write tensors and metadata to a safetensors file atomically.

    Parameters
    ----------
    path
        File to write.
    tensors
        Tensors of any shape and dtype by name.
    metadata
        Anything that JSON can hold.
    """
    import torch
    from safetensors.torch import save_file

    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if not content:
        # the format needs at least one tensor
        content = {"empty": torch.zeros(0)}
    header = {"metadata": json.dumps(metadata, default=_plain)}
    write_atomic(path, lambda temporary: save_file(content, temporary, metadata=header))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """Return the tensors and the metadata that `save_tensors` wrote.

    Raises
    ------
    RunDirectoryError
        If the file is missing or damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, _metadata(file)  # noqa: SIM118


def load_metadata(path: Path) -> Any:
    """Return the metadata that `save_tensors` wrote, without reading the tensors."""
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
