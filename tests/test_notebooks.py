"""Notebooks of examples/: their cells run, and the outputs in the files are those of a complete run."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import plotly.io as pio
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.stem for path in EXAMPLES.glob("*.ipynb"))
MAX_BYTES = 120_000


def notebook(name: str) -> dict[str, Any]:
    """Return a notebook as it is on file."""
    found: dict[str, Any] = json.loads((EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8"))
    return found


def code_cells(name: str) -> list[dict[str, Any]]:
    """Return the cells that hold a program."""
    return [cell for cell in notebook(name)["cells"] if cell["cell_type"] == "code"]


def shown_value(source: str, names: dict[str, object]) -> object:
    """Run a cell as a notebook does and return the value of its last line, or None if that is a statement."""
    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_there_are_three_notebooks() -> None:
    assert NOTEBOOKS == ["explain_and_report", "first_search", "spaces_and_optuna"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_was_run_from_top_to_bottom_and_shows_no_machine(name: str) -> None:
    cells = code_cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert {output["output_type"] for cell in cells for output in cell["outputs"]} <= {
        "display_data", "execute_result", "stream",
    }  # fmt: skip
    assert sum(bool(cell["outputs"]) for cell in cells) >= len(cells) - 2
    text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
    assert len(text) < MAX_BYTES
    assert re.findall(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users)/\S*", text) == []


@pytest.fixture
def settings_restored() -> Iterator[None]:
    """Restore the settings of other packages that notebooks change."""
    renderer, verbosity = pio.renderers.default, optuna.logging.get_verbosity()
    yield
    pio.renderers.default = renderer
    optuna.logging.set_verbosity(verbosity)


SLOW = ("explain_and_report",)  # it writes a report in a process of its own: 10 s of CPU time


@pytest.mark.usefixtures("settings_restored")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in NOTEBOOKS]
)
def test_the_cells_of_a_notebook_run_and_show_what_is_on_file(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(EXAMPLES)
    names: dict[str, object] = {"__name__": "__main__"}
    for cell in code_cells(name):
        value = shown_value("".join(cell["source"]), names)
        kinds = {output["output_type"] for output in cell["outputs"]}
        assert bool(capsys.readouterr().out) == ("stream" in kinds)
        assert (value is not None) == bool(kinds & {"execute_result", "display_data"})
        for output in cell["outputs"]:
            if "text/html" in output.get("data", {}):
                assert value._repr_html_()  # type: ignore[attr-defined]
