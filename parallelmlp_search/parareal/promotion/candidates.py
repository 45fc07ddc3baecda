"""Selection of the finalists to promote, and predictions of their training over devices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import joblib
import torch

from parallelmlp_search.distribute import ShardData
from parallelmlp_search.exceptions import RunDirectoryError
from parallelmlp_search.parareal.architectures.residual_mlp import deep_config, deep_mlp
from parallelmlp_search.parareal.method.cost import StepPrediction, predict_steps, recommended_slices
from parallelmlp_search.parareal.method.optimizer import Recipe
from parallelmlp_search.parareal.method.profiling import DeviceSpeed, measure_device_speed
from parallelmlp_search.parareal.promotion.settings import PromotionSettings
from parallelmlp_search.parareal.ranks.training import output_gradient
from parallelmlp_search.search import RunDirectory
from parallelmlp_search.search.run.trial import config_of_row
from parallelmlp_search.space import MLPConfig

DEFAULT_DEPTH = 32
"""Hidden layers to which shallower networks are deepened by default."""

DEFAULT_SLICES = (2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)


@dataclass(frozen=True)
class PromotionCandidate:
    """Trial of a finalist, and its deepened configuration."""

    trial: int
    config: MLPConfig


@dataclass(frozen=True)
class Forecast:
    """Predictions for one candidate."""

    candidate: PromotionCandidate
    predictions: tuple[StepPrediction, ...]  # one per number of slices
    recommended: int  # slices on the devices that there are; 1 if none gains

    def step_seconds(self, slices: int) -> float | None:
        """Return the predicted step for a number of slices, 1 for the serial network, or None."""
        known = {1: self.predictions[0].serial} | {p.slices: p.step for p in self.predictions}
        return known.get(slices)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form, with speed-up and efficiency."""
        rows = [asdict(p) | {"speedup": p.speedup, "efficiency": p.efficiency} for p in self.predictions]
        return {
            "trial": self.candidate.trial,
            "depth": self.candidate.config.depth,
            "recommended": self.recommended,
            "predictions": rows,
        }


def select_candidates(directory: RunDirectory, settings: PromotionSettings) -> list[PromotionCandidate]:
    """Select finalists of a run and deepen them: first those with 32 hidden layers or more, then by rank.

    Raises
    ------
    InvalidParameterError
        If ``depth_factor`` is too large.
    RunDirectoryError
        If no finalist has a hidden layer.
    """
    board = directory.leaderboard()
    finalists = board[(board["state"] == "complete") & board["rank"].notna()].sort_values("rank")
    rows = finalists.to_dict("records")
    configs = [(int(row["trial"]), config_of_row(row)) for row in rows if len(row["config_widths"])]
    if not configs:
        raise RunDirectoryError(
            f"no finalist of the run in {str(directory.path)!r} has a hidden layer to deepen: "
            "search a space with hidden layers, such as --space deep"
        )
    configs.sort(key=lambda pair: pair[1].depth < DEFAULT_DEPTH)
    found = []
    for trial, config in configs[: settings.top]:
        factor = settings.depth_factor or max(1, math.ceil(DEFAULT_DEPTH / config.depth))
        found.append(PromotionCandidate(trial, deep_config(config, factor)))
    return found


def forecast(
    candidates: Sequence[PromotionCandidate],
    data: ShardData,
    settings: PromotionSettings,
    *,
    device_flops: float | None = None,
) -> list[Forecast]:
    """Predict step times of candidates on several devices.

    Parameters
    ----------
    candidates
        Networks.
    data
        Rows of a fold, of which one minibatch is used.
    settings
        Link, and a number of slices to predict beside the default ones. If ranks are launched, at most as
        many slices are recommended as this host has GPUs or cores.
    device_flops
        Operations per second of each device; by default one core is measured.

    Returns
    -------
    list of Forecast
    """
    n_devices = _local_device_count() if settings.launch else max(DEFAULT_SLICES)
    counts = sorted({*DEFAULT_SLICES, settings.slices or DEFAULT_SLICES[0]})
    found = []
    for candidate in candidates:
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
            speed = measure_device_speed(model, example, loss, recipe=Recipe.of(config, 1000))
        else:
            speed = DeviceSpeed.of_device(device_flops)
        clipped = config.clip_norm is not None
        rows = predict_steps(model, example, counts, speed=speed, link=settings.link, clipped=clipped)
        best = recommended_slices([row for row in rows if row.slices <= n_devices])
        found.append(Forecast(candidate, tuple(rows), best))
    return found


def _local_device_count() -> int:
    """Number of GPUs of this host, or of cores that this program may use."""
    return torch.cuda.device_count() if torch.cuda.device_count() > 1 else int(joblib.cpu_count())
