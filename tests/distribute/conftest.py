"""Shards of a small synthetic table."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from parallelmlp_search.distribute import ShardData, ShardTask
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig

N_ROWS, N_INPUTS = 96, 5


def _data(n_rows: int = N_ROWS, *, predict: bool = False) -> ShardData:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n_rows + 40, N_INPUTS, generator=generator)
    target = (inputs[:, 0] * inputs[:, 1] + 0.3 * inputs[:, 2] > 0).long()
    return ShardData(
        rows=TrainingRows(inputs[:n_rows], target[:n_rows]),
        validation_inputs=inputs[n_rows:],
        validation_target=target[n_rows:],
        validation_weight=None,
        prediction_inputs=inputs[n_rows : n_rows + 7] if predict else None,
        head=Head("binary", 2),
        loss="binary_logits",
        metric=get_metric("log_loss", "binary", n_classes=2),
        seed=3,
    )


def _configs(n: int, **values: Any) -> tuple[MLPConfig, ...]:
    """Members that differ in width, activation, learning rate and dropout."""
    return tuple(
        MLPConfig(
            **{
                "widths": (3 + member % 5,) * (1 + member % 2),
                "activation": ("relu", "tanh", "silu")[member % 3],
                "learning_rate": 0.003 * (1 + member % 4),
                "dropout": 0.1 * (member % 2),
                "batch_size": 16,
                "seed": member,
            }
            | values
        )
        for member in range(n)
    )


def _task(configs: tuple[MLPConfig, ...], data: ShardData, *, first: int = 0, **values: Any) -> ShardTask:
    return ShardTask(
        **{
            "key": f"shard-{first}",
            "trials": tuple(range(first, first + len(configs))),
            "configs": configs,
            "states": (None,) * len(configs),
            "data": data,
            "until_epoch": 2,
            "total_epochs": 4,
        }
        | values
    )


@pytest.fixture(scope="session")
def make_data() -> Callable[..., ShardData]:
    return _data


@pytest.fixture(scope="session")
def make_configs() -> Callable[..., tuple[MLPConfig, ...]]:
    return _configs


@pytest.fixture(scope="session")
def make_task() -> Callable[..., ShardTask]:
    return _task
