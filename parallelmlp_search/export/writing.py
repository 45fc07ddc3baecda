"""Writing of exported models."""

from __future__ import annotations

import importlib.resources
import io
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from parallelmlp_search import __version__
from parallelmlp_search._checks import check_choice
from parallelmlp_search._files import save_arrays, write_atomic, write_folder, write_json
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.export.columns import check_model
from parallelmlp_search.export.parts import ModelParts, model_parts

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "numpy": "", "safetensors": ".safetensors"}
"""Suffix of the file of each format; the NumPy format is a folder."""

FORMATS = tuple(SUFFIXES)
"""Formats of export."""


def export_model(
    model: Any, path: str | os.PathLike[str], format: str = "onnx", facts: Mapping[str, Any] | None = None
) -> Path:
    """Write a trained model to a file or folder that does not need this package.

    Parameters
    ----------
    model
        Trained model.
    path
        File to write, or for ``numpy`` a folder that does not exist.
    format
        ``onnx``, ``torch``, ``numpy`` or ``safetensors``.
    facts
        Further facts for the metadata, such as ``metric`` and ``honest_score``.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    InvalidParameterError
        If the format is unknown or does not suit the path, or the model has no networks that can be exported.
    DataError
        If a column or class cannot be represented.
    RunDirectoryError
        If the file cannot be written.
    """
    check_choice("format", format, FORMATS)
    path = Path(path)
    _check_path(path, format)
    check_model(model)
    parts = model_parts(
        model, {"version": __version__, "metric": None, "honest_score": None, **(facts or {})}
    )
    _WRITERS[format](parts, path)
    return path


def _check_path(path: Path, format: str) -> None:
    """Check the path of an export.

    Raises
    ------
    InvalidParameterError
        If its folder does not exist, its suffix belongs to another format, or a folder to write exists.
    """
    suffix = SUFFIXES[format]
    if not path.absolute().parent.is_dir():
        raise InvalidParameterError(f"output must be in a folder that exists, but got {str(path)!r}")
    if suffix and path.suffix != suffix:
        others = [name for name, other in SUFFIXES.items() if other == path.suffix]
        hint = f"; did you mean the format {others[0]}?" if others else ""
        raise InvalidParameterError(
            f"output must end in {suffix} for the format {format}, but got {str(path)!r}{hint}"
        )
    if not suffix and path.exists():
        raise InvalidParameterError(
            f"output must be a new folder for the format {format}, but {str(path)!r} exists"
        )
    if suffix and path.is_dir():
        raise InvalidParameterError(f"output must be a file, but {str(path)!r} is a folder")


def _write_onnx(parts: ModelParts, path: Path) -> None:
    from parallelmlp_search.export.onnx_model import onnx_model

    content = onnx_model(parts).SerializeToString()
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _write_torch(parts: ModelParts, path: Path) -> None:
    from parallelmlp_search.export.torch_module import program_bytes

    content = program_bytes(parts)
    write_atomic(path, lambda temporary: temporary.write_bytes(content))


def _write_numpy(parts: ModelParts, path: Path) -> None:
    program = importlib.resources.files(__package__).joinpath("standalone.py").read_text(encoding="utf-8")

    def write(folder: Path) -> None:
        write_atomic(folder / "model.npz", lambda temporary: temporary.write_bytes(_npz(parts)))
        write_json(folder / "model.json", parts.description)
        write_atomic(folder / "predict.py", lambda temporary: temporary.write_text(program, encoding="utf-8"))

    write_folder(path, write)


def _npz(parts: ModelParts) -> bytes:
    content, arrays = io.BytesIO(), dict[str, Any](parts.arrays)
    np.savez(content, **arrays)
    return content.getvalue()


def _write_safetensors(parts: ModelParts, path: Path) -> None:
    save_arrays(path, parts.arrays, parts.description)


_WRITERS: dict[str, Callable[[ModelParts, Path], None]] = {
    "onnx": _write_onnx,
    "torch": _write_torch,
    "numpy": _write_numpy,
    "safetensors": _write_safetensors,
}
