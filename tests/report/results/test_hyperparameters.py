"""Importance of hyperparameters on leaderboards whose ranks follow from known ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.report.results.hyperparameters import (
    MIN_TRIALS,
    hyperparameter_importance,
    importance_in_search,
)
from tests.report.conftest import SmallRun, many_trials


def table(n_trials: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "learning_rate": np.exp(rng.normal(-4, 1, n_trials)),
            "dropout": rng.choice([0.0, 0.1, 0.3], n_trials),
            "activation": rng.choice(["relu", "tanh", "mish"], n_trials),
            "residual": rng.random(n_trials) < 0.5,
        }
    )
    frame["scale"] = rng.random(n_trials)
    frame.loc[rng.random(n_trials) < 0.5, "scale"] = None
    return frame


def ordered(frame: pd.DataFrame, error: pd.Series) -> pd.DataFrame:
    return frame.loc[error.sort_values(kind="stable").index].reset_index(drop=True)


def test_the_hyperparameters_that_decide_the_rank_come_first() -> None:
    frame = table()
    error = (np.log(frame["learning_rate"]) + 4).abs() + 0.8 * (frame["activation"] == "tanh")
    found = hyperparameter_importance(ordered(frame, error))
    assert found is not None
    assert set(found.names[:2]) == {"learning_rate", "activation"}
    assert found.explained > 0.8
    assert max(found.values[2:]) < 0.03


def test_nothing_is_important_where_ranks_are_random() -> None:
    found = hyperparameter_importance(table())
    assert found is not None
    assert found.explained < 0.05


def test_a_field_that_is_only_sometimes_used_can_be_important() -> None:
    frame = table()
    found = hyperparameter_importance(ordered(frame, frame["scale"].fillna(2.0)))
    assert found is not None
    assert found.names[0] == "scale"


def test_refined_trials_are_left_out_where_random_ones_suffice(small_run: Callable[[str], SmallRun]) -> None:
    done = many_trials(small_run("binary").content.search, 200)
    everything = importance_in_search(done)
    assert everything is not None
    origin = done.trials["trial"].map(lambda trial: "random" if trial % 2 else "refined")
    some = importance_in_search(replace(done, trials=done.trials.assign(origin=origin)))
    assert some is not None
    assert (some.n_trials, some.at_random) == (100, True)
    few = done.trials["trial"].map(lambda trial: "random" if trial < 20 else "refined")
    found = importance_in_search(replace(done, trials=done.trials.assign(origin=few)))
    assert found is not None
    assert (found.n_trials, found.at_random) == (200, False)


@pytest.mark.parametrize("frame", [table(MIN_TRIALS - 1), table()[[]]])
def test_too_few_trials_or_fields_have_no_importance(frame: pd.DataFrame) -> None:
    assert hyperparameter_importance(frame) is None
