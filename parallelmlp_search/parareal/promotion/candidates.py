"""Which finalists of a run go deeper, and what slices over devices would do for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import torch

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.exceptions import InvalidParameterError, RunDirectoryError
from parallelmlp_search.parareal.architectures.networks import deep_config, deep_mlp
from parallelmlp_search.parareal.method.cost import LOOPBACK, Link, Prediction, predictions, recommended
from parallelmlp_search.parareal.method.profiling import Pace, measure_pace
from parallelmlp_search.parareal.method.recipe import Recipe
from parallelmlp_search.parareal.ranks.training import output_gradient
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.space import MLPConfig

__all__ = ["Candidate", "Forecast", "candidates", "devices_here", "forecast"]

DEEP = 32
"""Hidden layers from which a network counts as deep; shallower ones are deepened to as many at least."""

SLICES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class Candidate:
    """A finalist and what it is to become.

    Attributes
    ----------
    trial
        Its number.
    config
        The configuration that is trained, deepened.
    depth_factor
        How many times as deep it is as the finalist.
    """

    trial: int
    config: MLPConfig
    depth_factor: int


@dataclass(frozen=True)
class Forecast:
    """Predictions for one candidate.

    Attributes
    ----------
    trial, depth
        The finalist, and hidden layers as trained.
    predictions
        One for each number of slices.
    recommended
        Slices to use on as many devices as there are; 1 where none pays.
    """

    trial: int
    depth: int
    predictions: tuple[Prediction, ...]
    recommended: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form, with speed-up and efficiency."""
        rows = [asdict(p) | {"speedup": p.speedup, "efficiency": p.efficiency} for p in self.predictions]
        return {
            "trial": self.trial,
            "depth": self.depth,
            "recommended": self.recommended,
            "predictions": rows,
        }


def candidates(directory: RunDirectory, top: int, depth_factor: int | None) -> list[Candidate]:
    """The finalists to promote: deep ones first, then by rank; shallow ones deepened.

    Parameters
    ----------
    directory
        A finished run.
    top
        How many.
    depth_factor
        How many times as deep they become; by default as often as makes 32 hidden layers, and 1 for networks
        that are so deep already.

    Raises
    ------
    InvalidParameterError
        If ``top`` or ``depth_factor`` breaks its rule.
    RunDirectoryError
        If the run is unfinished, or none of its finalists has a hidden layer.
    """
    if isinstance(top, bool) or not isinstance(top, int) or top < 1:
        raise InvalidParameterError(f"top must be an integer >= 1, but got {top!r}")
    board = directory.leaderboard()
    finalists = board[(board["state"] == "complete") & board["rank"].notna()].sort_values("rank")
    rows = finalists.to_dict("records")
    configs = [(int(row["trial"]), config_of_row(row)) for row in rows if len(row["config_widths"])]
    if not configs:
        raise RunDirectoryError(
            f"no finalist of the run in {str(directory.path)!r} has a hidden layer to deepen: "
            "search a space with hidden layers, such as --space deep"
        )
    ordered = sorted(configs, key=lambda pair: pair[1].depth < DEEP)
    chosen = []
    for trial, config in ordered[:top]:
        factor = depth_factor if depth_factor is not None else max(1, math.ceil(DEEP / config.depth))
        chosen.append(Candidate(trial, deep_config(config, factor), factor))
    return chosen


def devices_here() -> int:
    """GPUs of this host, or the cores that this program may use."""
    return torch.cuda.device_count() if torch.cuda.device_count() > 1 else int(joblib.cpu_count())


def forecast(
    chosen: Sequence[Candidate],
    *,
    data: ShardData,
    device_flops: float | None = None,
    link: Link = LOOPBACK,
    devices: int | None = None,
    slices: int | None = None,
) -> list[Forecast]:
    """Predict step times of candidates on several devices.

    Parameters
    ----------
    data
        Rows of a fold, of which a minibatch is tried.
    device_flops
        Operations a second of each device; measured here, on one core, by default.
    link
        Connection between devices.
    devices
        Most slices to recommend; any number by default.
    slices
        A number of slices to predict besides those that are always predicted.
    """
    found = []
    for candidate in chosen:
        config = candidate.config
        seen = data.seen_by(config)
        with torch.random.fork_rng(devices=[]):
            model = deep_mlp(
                config,
                n_inputs=seen.n_inputs,
                n_outputs=seen.head.n_outputs,
                n_numbers=seen.columns.n_numbers,
            )
        example, target, weight = seen.rows.batch(torch.arange(seen.batch_rows(config)))
        if device_flops is None:
            loss = output_gradient(seen.loss, target, weight, smoothing=config.label_smoothing)
            pace = measure_pace(model, example, loss, recipe=Recipe.of(config, 1000))
        else:
            pace = Pace.of_device(device_flops)
        clipped = config.clip_norm is not None
        counts = sorted({*SLICES, slices or SLICES[0]})
        rows = predictions(model, example, counts, pace=pace, link=link, clipped=clipped)
        allowed = [row for row in rows if devices is None or row.slices <= devices]
        found.append(Forecast(candidate.trial, config.depth, tuple(rows), recommended(allowed)))
    return found
