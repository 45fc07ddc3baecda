"""Objectives on tables: rows, weights and targets are read as by the estimators."""

from __future__ import annotations

import numpy as np
import optuna
import pandas as pd
import pytest

from parallelmlp_search.exceptions import DataError, InvalidParameterError
from parallelmlp_search.integrations.optuna import PackedObjective, optimize
from parallelmlp_search.space import MLPConfig
from tests.integrations.conftest import SPACE, Table


def _value(objective: PackedObjective) -> float:
    direction = "maximize" if objective.metric.greater_is_better else "minimize"
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.RandomSampler(seed=0))
    optimize(study, objective, n_trials=1)
    return study.best_value


def test_rows_of_weight_zero_are_left_out(table: Table) -> None:
    X, y = table
    noise = np.concatenate([X, -X]), np.concatenate([y, 1 - y])
    weight = np.repeat([1.0, 0.0], len(y))
    weighted = PackedObjective(*noise, SPACE, sample_weight=weight, max_epochs=1)
    plain = PackedObjective(*table, SPACE, max_epochs=1)
    assert weighted.data.n_rows == plain.data.n_rows
    assert _value(weighted) == _value(plain)
    assert _value(PackedObjective(*noise, SPACE, max_epochs=1)) != _value(plain)


def test_the_target_can_be_a_column(table: Table) -> None:
    frame = pd.DataFrame(table[0], columns=list("abcde"))
    by_value = PackedObjective(frame, table[1], SPACE, max_epochs=1)
    by_name = PackedObjective(frame.assign(y=table[1], w=1.0), "y", SPACE, sample_weight="w", max_epochs=1)
    assert by_name.data.n_inputs == by_value.data.n_inputs
    assert _value(by_name) == _value(by_value)


def test_a_loss_changes_the_metric_as_in_a_search(table: Table) -> None:
    quantile = PackedObjective(
        table[0], table[0][:, 0], SPACE, task="regression", loss="quantile:0.9", max_epochs=1
    )
    assert quantile.metric.name.startswith("pinball")
    assert np.isfinite(_value(quantile))


def test_trials_keep_monotone_columns(table: Table) -> None:
    frame, target = pd.DataFrame(table[0], columns=list("abcde")), table[0][:, 0]
    signs = {"a": -1}  # against the target
    objective = PackedObjective(frame, target, "small", monotonic=signs, task="regression", max_epochs=2)
    assert objective.data.columns.signs
    free = PackedObjective(frame, target, "small", task="regression", max_epochs=2)
    assert _value(objective) > 1.1 * _value(free)
    with pytest.raises(InvalidParameterError, match="activation must be one of"):
        optuna.create_study().optimize(
            PackedObjective(
                frame, target, lambda _: MLPConfig(activation="silu"), monotonic=signs, task="regression"
            ),
            n_trials=1,
        )


def test_unusable_tables_are_refused(table: Table) -> None:
    with pytest.raises(DataError, match="a value for each of the 240 rows"):
        PackedObjective(table[0], table[1][:100], SPACE)
    with pytest.raises(DataError, match="sample_weight must hold numbers >= 0"):
        PackedObjective(*table, SPACE, sample_weight=-np.ones(240))
    with pytest.raises(InvalidParameterError, match="only one of groups and time"):
        PackedObjective(*table, SPACE, groups=table[1], time=table[1])
