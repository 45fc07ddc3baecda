"""Small finished runs, some with hostile names, and what a report shows of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.cli.report import collect
from parallelmlp_search.cli.source import Source
from parallelmlp_search.report.page.content import ReportContent
from parallelmlp_search.report.results.finished import FinishedSearch
from parallelmlp_search.search import RunDirectory, SearchSettings, run
from parallelmlp_search.space import Categorical, Float, SearchSpace

SPACE = SearchSpace(
    {
        "width": Categorical((8, 16)),
        "activation": Categorical(("relu", "tanh")),
        "learning_rate": Float(5e-3, 3e-2, log=True),
        "batch_size": Categorical((32,)),
    }
)

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror=window.hacked=1>"
BOLD = "<b>size</b> & %{x} 'q' \"q\""


@dataclass(frozen=True)
class SmallRun:
    """Finished run with the content of its report."""

    directory: RunDirectory
    table: Path
    content: ReportContent


def _table(task: str, n_rows: int = 400) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({BOLD: rng.normal(size=n_rows), "noise": rng.normal(size=n_rows)})
    frame[HOSTILE] = rng.choice(["red", HOSTILE, "blue & <i>green</i>"], n_rows)
    signal = 2.0 * frame[BOLD] + 1.5 * (frame[HOSTILE] == "red") + rng.logistic(size=n_rows)
    if task == "regression":
        frame["<u>y</u>"] = 100.0 + 20.0 * signal
    elif task == "binary":
        frame["<u>y</u>"] = np.where(signal > 0.5, "<i>yes</i>", "no")
    else:
        names = np.array(["low", "<i>mid</i>", "high"])
        frame["<u>y</u>"] = names[np.digitize(signal, [-0.7, 1.5])]
    return frame


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], SmallRun]:
    """Function that returns the finished run of a task; each is trained once."""
    made: dict[str, SmallRun] = {}

    def get(task: str) -> SmallRun:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            table = folder / "table.csv"
            _table(task).to_csv(table, index=False)
            source = Source(str(table), "<u>y</u>")
            directory = RunDirectory.create(folder / "run", source=source.to_dict())
            settings = SearchSettings(
                search_space=SPACE, n_trials=8, max_epochs=6, n_folds=3, n_finalists=3, time_limit=None
            )
            run(source.problem(pd.read_csv(table)), settings, directory=directory, n_jobs=1)
            made[task] = SmallRun(directory, table, collect(directory, None, shown_path="runs/<run>"))
        return made[task]

    return get


def many_trials(search: FinishedSearch, count: int) -> FinishedSearch:
    """Return a search with many trials, made from those of a small one."""
    rng = np.random.default_rng(0)
    picked = rng.integers(0, len(search.leaderboard), count)
    board = search.leaderboard.iloc[picked].reset_index(drop=True)
    pruned = np.arange(count) >= 30
    score = rng.normal(0.8, 0.02, count)
    learning_rate = np.exp(rng.normal(-4, 1, count))
    board = board.assign(
        trial=rng.permutation(count),
        score=score,
        error=1.0 - score,
        n_parameters=rng.integers(100, 100_000, count),
        train_seconds=rng.random(count),
        config_learning_rate=learning_rate,
        config_widths=[[w] * d for w, d in rng.integers((8, 1), (256, 4), (count, 2)).tolist()],
        config_dropout=rng.choice([0.0, 0.1, 0.2, 0.3], count),
        state=np.where(pruned, "pruned", "complete"),
        ensemble_weight=np.where(np.arange(count) < 10, 0.1, 0.0),
        rung=np.where(pruned, rng.integers(0, 3, count), 4),
    )
    board = board.sort_values(["rung", "error"], ascending=[False, True]).reset_index(drop=True)
    board["rank"] = pd.array(np.arange(1, count + 1), dtype="Int64")
    repeats = np.minimum(board["rung"].to_numpy(), 3) + 1
    trials = board.loc[np.repeat(np.arange(count), repeats)].reset_index(drop=True)
    trials["rung"] = np.concatenate([np.arange(n) for n in repeats])
    trials["epochs"] = 3.0 ** trials["rung"]
    trials["origin"] = "random"
    result = {**search.result, "n_trials": count, "best_trial": int(board["trial"].iloc[0])}
    return replace(search, result=result, leaderboard=board, trials=trials)
