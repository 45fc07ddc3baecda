"""Writing of files. All writes into a run directory go through this module.

A file is replaced as a whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelmlp_search.exceptions import RunDirectoryError, one_line

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

_LEFTOVER = re.compile(r"\..*\.part|\.tmp[A-Za-z0-9]{6}")
"""Names of files and folders that are being written: ours, and those of safetensors."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_atomic(path: Path, write: Callable[[Path], object], *, durable: bool = True) -> None:
    """Call ``write`` with a temporary path beside ``path`` and rename the result to ``path``.

    If writing fails, an existing file keeps its content.

    Parameters
    ----------
    path
        File to write, in an existing folder.
    write
        Writes the content to the path that it gets.
    durable
        True to wait until the content is on the disk, so that a power failure leaves the old or the new file.

    Raises
    ------
    RunDirectoryError
        If the disk is full, the folder is gone, or it cannot be written.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        write(temporary)
        os.chmod(temporary, mode)  # safetensors replaces the file by one that only its owner can read
        if durable:
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        _raise_unwritable(path, error)
        raise


def _temporary(path: Path) -> Path:
    """Return the path beside ``path`` that is written and then renamed to it."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def _raise_unwritable(path: Path, error: BaseException) -> None:
    """Raise an error that names the file and the remedy if a write failed for a reason of the system."""
    if isinstance(error, RunDirectoryError):
        return  # it names a file inside of a folder
    # safetensors and pyarrow raise their own errors with the system's message
    text = str(error).lower()
    code = getattr(error, "errno", None)
    if code in _FULL or "no space" in text or "file too large" in text:
        advice = "free some space there and run again"
    elif code == errno.ENOENT or "no such file" in text:
        advice = "its folder was deleted or moved; search again"
    elif code == errno.EIO or "input/output error" in text:
        advice = "check the disk and run again"
    elif isinstance(error, OSError) or "os error" in text:
        advice = "make the folder writable and run again"
    else:
        return
    raise RunDirectoryError(f"could not write {str(path)!r} ({one_line(error)}): {advice}") from error


def is_leftover(path: Path) -> bool:
    """Return True for a file or folder that is being written, which a killed process leaves behind."""
    return _LEFTOVER.fullmatch(path.name) is not None


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file atomically. NumPy scalars become numbers."""
    text = json.dumps(value, indent=1, allow_nan=True, default=_plain)
    write_atomic(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"JSON cannot hold a {type(value).__name__}")


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a table to a Parquet file atomically."""
    write_atomic(path, lambda temporary: frame.to_parquet(temporary, index=False))


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor], metadata: Any = None, *, durable: bool = True
) -> None:
    """Write tensors and metadata to a safetensors file atomically.

    Parameters
    ----------
    path
        File to write.
    tensors
        Tensors of any shape and dtype by name.
    metadata
        Anything that JSON can hold.
    durable
        As of `write_atomic`.
    """
    import torch
    from safetensors.torch import save_file

    content = {name: tensor.contiguous() for name, tensor in tensors.items()}
    if not content:
        # the format needs at least one tensor
        content = {"empty": torch.zeros(0)}
    header = {"metadata": json.dumps(metadata, default=_plain)}
    write_atomic(path, lambda temporary: save_file(content, temporary, metadata=header), durable=durable)


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Any = None) -> None:
    """Write NumPy arrays and metadata to a safetensors file atomically, without torch.

    Parameters
    ----------
    path, arrays, metadata
        As of `save_tensors`.
    """
    import numpy as np
    from safetensors.numpy import save_file

    content = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    header = {"metadata": json.dumps(metadata, default=_plain)}
    write_atomic(path, lambda temporary: save_file(content, temporary, metadata=header))


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. If a killed process left half a line, the new one begins below it.

    Raises
    ------
    RunDirectoryError
        If the file cannot be written.
    """
    try:
        with open(path, "ab+") as file:
            if file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else f"\n{line}"
            file.write(f"{line}\n".encode())
    except OSError as error:
        _raise_unwritable(path, error)


def make_folder(path: Path) -> Path:
    """Create a folder inside an existing one, if it does not exist, and return its path.

    Raises
    ------
    RunDirectoryError
        If the outer folder is gone or cannot be written.
    """
    try:
        path.mkdir(exist_ok=True)
    except OSError as error:
        _raise_unwritable(path, error)
    return path


def write_folder(path: Path, write: Callable[[Path], object]) -> None:
    """Call ``write`` with a temporary folder beside ``path`` and rename it to ``path``, which must not exist.

    Parameters
    ----------
    path
        Folder to write, in an existing folder.
    write
        Writes the files into the folder that it gets.

    Raises
    ------
    RunDirectoryError
        If it cannot be written.
    """
    temporary = _temporary(path)
    try:
        temporary.mkdir()
        write(temporary)
        os.rename(temporary, path)
    except BaseException as error:
        remove_folder(temporary)
        _raise_unwritable(path, error)
        raise


def remove(path: Path) -> None:
    """Delete a file, if it exists.

    Raises
    ------
    RunDirectoryError
        If it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _raise_unwritable(path, error)


def remove_empty_folder(path: Path) -> None:
    """Delete a folder, unless it holds something."""
    with contextlib.suppress(OSError):
        path.rmdir()


def remove_folder(path: Path) -> None:
    """Delete a folder with its content, as far as that is possible."""
    shutil.rmtree(path, ignore_errors=True)
