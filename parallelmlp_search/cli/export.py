"""Command ``pmlp export``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from parallelmlp_search.cli.completion import choices
from parallelmlp_search.cli.options import RunPath, output_option

OUTPUTS = {
    "onnx": "model.onnx",
    "torch": "model.pt2",
    "numpy": "model-numpy",
    "safetensors": "model.safetensors",
}


def export(
    run: RunPath,
    format: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="onnx: one file from columns to probabilities. torch: a program of torch.export. "
            "numpy: a folder that needs NumPy alone. safetensors: weights and metadata.",
            autocompletion=choices("format"),
        ),
    ] = "onnx",
    output: Annotated[
        Path | None,
        output_option(
            metavar="PATH",
            help="File to write, or a new folder for numpy. Default: model.onnx, model.pt2, "
            "model-numpy or model.safetensors in the run.",
        ),
    ] = None,
    quiet: Annotated[
        bool, output_option("--quiet", "-q", help="Print only the path of what is written.")
    ] = False,
) -> None:
    """Write the model of a run as one file that other programs can read."""
    from parallelmlp_search._checks import check_choice
    from parallelmlp_search.cli.terminal import terminal
    from parallelmlp_search.runs import Run

    opened, screen = Run(run), terminal()
    check_choice("format", format, tuple(OUTPUTS))
    path = opened.export(opened.directory.path / OUTPUTS[format] if output is None else output, format=format)
    if quiet:
        screen.line(str(path))
        return
    files = path.iterdir() if path.is_dir() else [path]
    size = sum(file.stat().st_size for file in files)
    screen.note(f"export: {path} ({size / 1e6:.1f} MB)")
