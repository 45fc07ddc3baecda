"""Settings of a search, as plain values that are kept in ``run.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from parallelmlp_search._checks import check_boolean, check_choice, check_integer, check_seconds, check_size
from parallelmlp_search.data import Scaling
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.kernels.losses import get_loss, log_link_power
from parallelmlp_search.kernels.precision import PRECISIONS
from parallelmlp_search.search.problem.target_transforms import (
    TARGET_TRANSFORM,
    offered_transforms,
    transforms_of,
)
from parallelmlp_search.selection import Costs, Metric, get_metric
from parallelmlp_search.selection.deviance import Deviance, check_amounts
from parallelmlp_search.space import Categorical, MLPConfig, SearchSpace, monotone_space

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

SAMPLERS = ("random", "qmc", "grid", "tpe", "cmaes", "gp")
"""Samplers by name. The first three draw afresh and leave learning to refinement; the others are Optuna's."""

FRESH_SAMPLERS = SAMPLERS[:3]

CALIBRATIONS = ("auto", "temperature", "none")

MINIMA = {
    "n_trials": 1, "max_epochs": 1, "n_folds": 2, "n_finalists": 1, "numeric_bins": 0, "reduction_factor": 2,
    "seed": 0, "infer_batch_size": 1,
}  # fmt: skip
"""Least values of whole numbers."""

LOSSES = {
    "binary": ("binary_logits",),
    "multiclass": ("cross_entropy",),
    "multilabel": ("binary_logits",),
    "regression": ("squared_error", "huber", "quantile", "poisson", "gamma", "tweedie"),
}
"""Losses of each task."""

MAX_EPOCHS = 1_000_000
"""Most epochs of training; steps are counted in 64 bits."""

MIN_MEMORY = 1e6
"""Bytes of a memory limit below which its unit was forgotten."""


def check_sampler(sampler: object) -> None:
    """Check that a sampler is one of :data:`SAMPLERS` or a sampler of Optuna, without importing Optuna.

    Raises
    ------
    InvalidParameterError
        If it is neither.
    """
    has_method = callable(getattr(sampler, "sample_independent", None)) and not isinstance(sampler, type)
    if not has_method and sampler not in SAMPLERS:
        hint = near_miss(sampler, SAMPLERS) if isinstance(sampler, str) else ""
        raise InvalidParameterError(
            f"sampler must be one of {', '.join(SAMPLERS)} or a sampler of Optuna, but got {sampler!r}{hint}"
        )


def metric_of_loss(loss: str | None) -> str | None:
    """Return the default metric of a loss: a pinball loss or a deviance; None for that of the task."""
    kind, _, level = str(loss).partition(":")
    if kind == "quantile":
        return f"pinball:{level or '0.5'}"
    if kind == "tweedie":
        return f"tweedie_deviance:{level or '1.5'}"
    return f"{kind}_deviance" if kind in ("poisson", "gamma") else None


def loss_of_metric(metric: Metric, target: NDArray[Any]) -> str | None:
    """Return the loss of a deviance that a target ``(n, ...)`` has; None for other metrics."""
    if not isinstance(metric.formula, Deviance):
        return None
    power, least = metric.formula.power, float(np.min(target))
    if least < 0 or (power == 2 and least == 0):
        return None  # the metric is refused with a reason
    return {1.0: "poisson", 2.0: "gamma"}.get(power, f"tweedie:{power!r}")


def implied_task(task: str | None, loss: str | None, costs: Costs | None = None) -> str | None:
    """Return the task, or if none is given that of a loss or of costs.

    Parameters
    ----------
    task, loss, costs
        Task, loss and costs of errors, or None. Losses for counts and amounts are for a regression.

    Returns
    -------
    str or None
    """
    if task is None and str(loss).partition(":")[0] in ("poisson", "gamma", "tweedie"):
        return "regression"
    return "classification" if task is None and costs is not None else task


def parse_memory(limit: Any) -> int | None:
    """Bytes of a memory limit: None, a number of bytes, or a text such as ``2GB``, ``512 MiB`` or ``3e9``.

    >>> parse_memory("2GB"), parse_memory("1.5 GiB"), parse_memory(3e9)
    (2000000000, 1610612736, 3000000000)

    Raises
    ------
    InvalidParameterError
        If it is none of these, below 1 MB, or above an exabyte.
    """
    if limit is None:
        return None
    size = check_size("memory_limit", limit)
    if size < MIN_MEMORY:
        number = f"{limit}".strip().rstrip("bBkK ")
        raise InvalidParameterError(
            f"memory_limit must be at least 1 MB, but got {size} bytes: write {number}M for megabytes"
        )
    return size


@dataclass(frozen=True)
class SearchSettings:
    """Everything that determines the result of a search, except the data.

    Parameters
    ----------
    search_space
        A :class:`~parallelmlp_search.space.SearchSpace` or the name of a preset.
    n_trials
        Configurations to train; None for 200, or as many as the time limit allows.
    time_limit
        Seconds from reading to saving; None for no limit. A search without a limit is deterministic.
    max_epochs
        Epochs of full training; None derives them from the size of the table and the time limit.
    metric
        Metric as :func:`~parallelmlp_search.selection.get_metric` takes it: a name, a scorer or a function.
        None for the default of the task, or for the metric of the loss: the pinball loss of a quantile loss,
        the deviance of ``poisson``, ``gamma`` and ``tweedie``.
    loss
        Training loss by name; None for the default of the task, or for the loss of a deviance as metric.
    n_folds
        Folds of the finalists' cross-fitting; None chooses 3 to 8.
    n_finalists
        Configurations that are cross-fitted, at most the number of trials; None chooses 2 to 32, or up to
        128 in a search with a time limit.
    reduction_factor
        One in this many trials advances from a rung to the next.
    sampler
        Source of configurations. ``random``, ``qmc`` (scrambled Sobol points) and ``grid`` draw afresh;
        proposals near the elites follow. ``tpe``, ``cmaes`` and ``gp`` begin with random draws; Optuna's
        sampler of that name follows. A sampler of Optuna, given as an object, draws everything;
        ``run.json`` holds the name of its class.
    refinement
        Share of the trials that are proposed from the results of others, in [0, 1].
    initial
        Configurations to try first, each in the space.
    scaling
        How numeric columns are scaled: ``robust``, ``quantile`` or ``standard``.
    numeric_bins
        Bins of the piecewise linear encoding of numeric columns, 0 for none; None for 48, or fewer where
        there are many numeric columns or few rows.
    tune_thresholds
        True to tune decision thresholds for a metric of predicted classes or labels. Otherwise the most
        probable class is predicted, and labels of a probability above one half.
    costs
        Costs of errors between classes, which the predicted classes minimise in place of tuned thresholds; or
        None.
    calibration
        ``temperature`` to fit one temperature to all probabilities, ``none``, or ``auto``: ``temperature``
        for classes, ``none`` for a regression.
    refit
        True to train the networks of the ensemble again on all rows, and predict with them.
    monotonic
        1 or -1 by the name of a column of numbers in which predictions, or the probability of the second
        class, may only grow or fall; 0 for no constraint. The search space is then limited to networks that
        can be monotone.
    baselines
        True to score the prior, a linear model and gradient boosting on the folds of the finalists.
    seed
        Seed of everything random.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    precision
        Precision of products on a CUDA device: ``ieee`` (float32), or ``tf32``, which is faster and rounds
        factors to ten bits. It has no effect on a CPU.
    infer_limit
        Most seconds per row of predictions, or a text such as ``20us``; None for no limit. It is measured on
        this machine with one thread. Slower networks are not proposed, and the ensemble keeps to the limit.
    infer_batch_size
        Rows that are predicted at once when the latency is measured.
    memory_limit
        Most memory of the process and of those that it starts: bytes, or a text such as ``2GB``; None for no
        limit. Shards, states and finalists are sized to what is left. A limit below the minimum is refused.
    """

    search_space: SearchSpace | str = "default"
    n_trials: int | None = None
    time_limit: float | None = None
    max_epochs: int | None = None
    metric: str | Metric | Callable[..., Any] | None = None
    loss: str | None = None
    n_folds: int | None = None
    n_finalists: int | None = None
    reduction_factor: int = 3
    sampler: str | BaseSampler = "random"
    refinement: float = 0.7
    initial: tuple[MLPConfig, ...] = ()
    scaling: Scaling = "robust"
    numeric_bins: int | None = None
    tune_thresholds: bool = True
    costs: Costs | None = None
    calibration: str = "auto"
    refit: bool = False
    monotonic: Mapping[str, int] | None = None
    baselines: bool = True
    seed: int = 0
    device: str = "auto"
    precision: str = "ieee"
    memory_limit: float | str | None = None
    infer_limit: float | str | None = None
    infer_batch_size: int = 1000
    space: SearchSpace = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = self.search_space
        if isinstance(space, str):
            space = SearchSpace.preset(space)
        if not isinstance(space, SearchSpace):
            raise InvalidParameterError(
                f"search_space must be a SearchSpace or the name of a preset, but got {space!r}"
            )
        signs = _checked_signs(self.monotonic)
        space = space if signs is None else monotone_space(space)
        checked = {"space": space, "initial": tuple(self.initial), "memory_limit": self.memory_bytes}
        checked["monotonic"] = signs
        for name, minimum in MINIMA.items():
            if (value := getattr(self, name)) is not None:
                checked[name] = check_integer(name, value, minimum)
        if self.max_epochs is not None and self.max_epochs > MAX_EPOCHS:
            raise InvalidParameterError(f"max_epochs must be at most {MAX_EPOCHS}, but got {self.max_epochs}")
        if self.metric is None:
            checked["metric"] = metric_of_loss(self.loss) if self.costs is None else self.costs.metric
        for name in ("time_limit", "infer_limit"):
            if (seconds := getattr(self, name)) is not None:
                checked[name] = check_seconds(name, seconds)
        for name, value in checked.items():
            object.__setattr__(self, name, value)
        if not 0 <= self.refinement <= 1:
            raise InvalidParameterError(f"refinement must lie in [0, 1], but got {self.refinement!r}")
        check_boolean("tune_thresholds", self.tune_thresholds)
        check_boolean("refit", self.refit)
        check_boolean("baselines", self.baselines)
        check_choice("calibration", self.calibration, CALIBRATIONS)
        check_choice("precision", self.precision, PRECISIONS)
        # run.json holds the dotted name of the class of a sampler object
        if not (isinstance(self.sampler, str) and "." in self.sampler):
            check_sampler(self.sampler)
        for config in self.initial:
            if not isinstance(config, MLPConfig):
                raise InvalidParameterError(f"initial must hold configurations, but got {config!r}")
            space.to_values(config)  # raises for a configuration outside of the space

    def suited_to(self, target: NDArray[Any], task: str) -> SearchSettings:
        """Return the settings that suit a target ``(n, ...)``.

        A deviance as metric is also the loss if none is given. Otherwise the default space tries
        transformations of a skewed target.
        """
        if task != "regression" or self.has_log_link:
            return self
        metric = get_metric(self.metric, task)
        loss = None if self.loss or transforms_of(self.space) else loss_of_metric(metric, target)
        if loss is not None:
            return replace(self, loss=loss)
        default = SearchSpace.preset("default")
        if self.space != (default if self.monotonic is None else monotone_space(default)):
            return self
        offered = offered_transforms(target, task, metric)
        if not offered:
            return self
        space = SearchSpace({**self.space.domains, TARGET_TRANSFORM: Categorical(offered)})
        return replace(self, search_space=space)

    @property
    def has_log_link(self) -> bool:
        """True if networks output the logarithm of the target's mean."""
        return log_link_power(self.loss) is not None

    @property
    def memory_bytes(self) -> int | None:
        """Bytes of `memory_limit`, or None."""
        return parse_memory(self.memory_limit)

    @property
    def sampler_name(self) -> str:
        """The sampler's name, or the dotted name of its class."""
        if isinstance(self.sampler, str):
            return self.sampler
        kind = type(self.sampler)
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def metric_text(self) -> str | None:
        """Name of the metric; ``python:NAME`` for a scorer or function, which a run does not hold."""
        if self.metric is None or isinstance(self.metric, str):
            return self.metric
        from parallelmlp_search.selection.scorers import PYTHON, metric_name

        return PYTHON + (self.metric.name if isinstance(self.metric, Metric) else metric_name(self.metric))

    @property
    def refined_share(self) -> float:
        """Share of the trials that are proposed near the elites; 0 for a grid."""
        return 0.0 if self.sampler == "grid" else self.refinement

    def check_task(self, task: str, target: NDArray[Any] | None = None) -> None:
        """Check that loss, costs and calibration fit a task, and the loss a target ``(n, ...)``.

        Raises
        ------
        InvalidParameterError
            If they do not.
        """
        if self.loss is not None:
            check_choice("loss", str(self.loss).partition(":")[0], LOSSES[task])
            get_loss(self.loss)  # checks the number after the colon
            power = log_link_power(self.loss)
            if power is not None and transforms_of(self.space):
                raise InvalidParameterError(
                    f"loss {self.loss!r} has a log link, but the search space has {TARGET_TRANSFORM!r}: "
                    "leave one of them out"
                )
            if power is not None and target is not None:
                check_amounts(target, f"loss {self.loss!r}", power)
        if self.costs is not None and task in ("regression", "multilabel"):
            raise InvalidParameterError(f"cost_matrix and ordinal need classes, but got the task {task!r}")
        if self.calibration == "temperature" and task == "regression":
            raise InvalidParameterError(
                f"calibration needs classes, but got {self.calibration!r} for a regression: leave it out"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; the space is written out in full."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return values | {
            "metric": self.metric_text,
            "search_space": self.space.to_dict(),
            "sampler": self.sampler_name,
            "initial": [config.to_dict() for config in self.initial],
            "costs": None if self.costs is None else self.costs.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSettings:
        """Settings that :meth:`to_dict` wrote, also in older versions.

        Raises
        ------
        InvalidParameterError
            If a field is unknown or breaks a rule.
        """
        values = {_OLD_NAMES.get(name, name): value for name, value in values.items()}
        known = {f.name for f in fields(cls) if f.init}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidParameterError(
                f"settings have no field {unknown[0]!r}{near_miss(unknown[0], sorted(known))}"
            )
        space = SearchSpace.from_dict(values["search_space"])
        initial = tuple(MLPConfig.from_dict(config) for config in values.get("initial", ()))
        costs = None if values.get("costs") is None else Costs.from_dict(values["costs"])
        return cls(**{**values, "search_space": space, "initial": initial, "costs": costs})


def _checked_signs(monotonic: Any) -> dict[str, int] | None:
    """Signs by column, without zeros; None if there are none."""
    if monotonic is None:
        return None
    if not isinstance(monotonic, Mapping):
        raise InvalidParameterError(f"monotonic must map columns to -1, 0 or 1, but got {monotonic!r}")
    for name, sign in monotonic.items():
        if isinstance(sign, bool) or sign not in (-1, 0, 1):
            raise InvalidParameterError(f"monotonic must be -1, 0 or 1 for {name!r}, but got {sign!r}")
    return {str(name): int(sign) for name, sign in monotonic.items() if sign} or None


_OLD_NAMES = {"tune_decision": "tune_thresholds"}
"""Names of fields in ``run.json`` of older versions."""
