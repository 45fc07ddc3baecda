"""Every example runs without a warning and prints its result."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

OUTPUTS = {
    "classifier": "honest score 0.",
    "custom_space": "custom   ROC-AUC 0.",
    "deep_slices": "recommended slices:",
    "optuna_dashboard": "with 32 trials",
    "optuna_pipeline": "held-out rows: ROC-AUC 0.",
    "optuna_study": "of 60 pruned",
    "packed_networks": "all backends agree",
    "regression_pipeline": "RMSE",
    "search_cv": "best trial ",
}


def test_every_example_runs() -> None:
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted(OUTPUTS)


@pytest.mark.parametrize("name", sorted(OUTPUTS))
def test_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert OUTPUTS[name] in capsys.readouterr().out
