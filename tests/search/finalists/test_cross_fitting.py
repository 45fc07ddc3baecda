"""Groups of finalists in cross-fitting, and the predictions of selected snapshots."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from parallelmlp_search.distribute import predict_network
from parallelmlp_search.distribute.shards import train_shard
from parallelmlp_search.search import Problem
from parallelmlp_search.search.finalists.fold_tasks import _tasks, _timed_groups
from parallelmlp_search.search.run.trial import Trial
from parallelmlp_search.space import MLPConfig

Make = Callable[..., Any]


def test_finalists_with_equal_batches_share_a_group(
    make_context: Make, spam: Problem, make_settings: Make
) -> None:
    context = make_context(spam, make_settings(time_limit=100.0))
    batches = [32, 64, 32, 64, 32, 128, 32, 64, 64, 32]
    trials = [
        Trial(number, MLPConfig(widths=(8,), batch_size=batch), "random", 0)
        for number, batch in enumerate(batches)
    ]

    def groups(required: int, size: int) -> list[list[int]]:
        found = _timed_groups(trials, required, size, context.data)
        return [[trial.number for trial in group] for group in found]

    # the last two are extra ones
    assert groups(8, 4) == [[0, 2], [1, 3], [4, 6], [5], [7], [8, 9]]
    assert groups(8, 1) == [[number] for number in range(10)]
    # larger groups where there are many
    many = [replace(trial, number=10 * copy + trial.number) for copy in range(4) for trial in trials]
    sizes = [len(group) for group in _timed_groups(many, 40, 4, context.data)]
    assert max(sizes) == 4
    assert sum(sizes) == 40


def test_a_network_predicts_alone_what_it_predicted_in_its_shard(
    make_context: Make, spam: Problem, make_settings: Make
) -> None:
    """The rows that select a snapshot are among those that are predicted with the selected one."""
    preparation = make_context(spam, make_settings()).preparation
    part = preparation.folds(3, hold_out_validation=False)[1]
    configs = [
        MLPConfig(widths=(8, 4), seed=1),
        MLPConfig(widths=(5,), seed=2, submembers=4),
        MLPConfig(widths=(5,), seed=3, numeric_embedding="periodic"),
    ]
    trials = [Trial(number, config, "random", 0) for number, config in enumerate(configs)]
    places = torch.from_numpy(np.isin(part.predicted_rows, preparation.validation_rows))
    assert 0 < int(places.sum()) < len(places)
    for task in _tasks(0, trials, [part], 2):
        for member, config in zip(train_shard(task).members, task.configs, strict=True):
            kept = member.snapshots
            assert kept is not None
            assert len(kept.epochs) == 2
            first, last = (predict_network(part.data, config, weights) for weights in kept.weights)
            torch.testing.assert_close(last[:, places], kept.predictions[1])
            assert not torch.allclose(first[:, places], kept.predictions[1])
