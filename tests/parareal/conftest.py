"""A finished run on a small table, to promote from."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest

from parallelmlp_search.search import Problem, RunDirectory, SearchSettings, run
from parallelmlp_search.space import Categorical, Float, SearchSpace

DATASETS = Path(__file__).parents[2] / "datasets"


def satimage(n_rows: int = 500) -> pd.DataFrame:
    frame = pd.read_csv(DATASETS / "satimage.csv.gz")
    return frame.sample(n_rows, random_state=0).reset_index(drop=True)


@pytest.fixture(scope="session")
def problem() -> Problem:
    frame = satimage()
    target = frame.pop("classes").to_numpy(dtype=object)
    return Problem(frame, target, "multiclass", target_name="classes")


@pytest.fixture(scope="session")
def finished(problem: Problem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    space = SearchSpace(
        {
            "depth": Categorical((1, 2)),
            "width": Categorical((8, 12)),
            "learning_rate": Float(2e-3, 1e-2, log=True),
            "batch_size": Categorical((32,)),
            "clip_norm": Categorical((1.0, None)),
            "numeric_embedding": Categorical(("piecewise", "periodic")),
        }
    )
    settings = SearchSettings(search_space=space, n_trials=8, max_epochs=4, n_folds=2, n_finalists=4)
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(problem, settings, directory=RunDirectory.create(folder), n_jobs=1)
    return folder


@pytest.fixture
def run_folder(finished: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))
