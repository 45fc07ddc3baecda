"""What a search is asked to do, as plain values that land in ``run.json``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from parallelmlp_search.data import Scaling
from parallelmlp_search.exceptions import InvalidParameterError, near_miss
from parallelmlp_search.space import MLPConfig, SearchSpace

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

__all__ = ["FRESH_SAMPLERS", "SAMPLERS", "SearchSettings", "check_sampler"]

SAMPLERS = ("random", "qmc", "grid", "tpe", "cmaes", "gp")
"""Samplers by name: the first three draw afresh and leave learning to refinement near the leaders, the others
are Optuna's and learn themselves."""

FRESH_SAMPLERS = SAMPLERS[:3]

CALIBRATIONS = ("auto", "temperature", "none")
"""Ways to make probabilities mean what they say; by default a temperature, where there are any."""


def check_sampler(sampler: object) -> None:
    """Refuse what is neither one of :data:`SAMPLERS` nor a sampler of Optuna, told without importing it.

    Raises
    ------
    InvalidParameterError
        If it is neither.
    """
    hint = ""
    if isinstance(sampler, str):
        known = sampler in SAMPLERS
        hint = near_miss(sampler, SAMPLERS)
    else:
        known = not isinstance(sampler, type) and callable(getattr(sampler, "sample_independent", None))
    if not known:
        raise InvalidParameterError(
            f"sampler must be one of {', '.join(SAMPLERS)} or a sampler of Optuna, but got {sampler!r}{hint}"
        )


@dataclass(frozen=True)
class SearchSettings:
    """Everything that decides the outcome of a search, but for the data.

    Parameters
    ----------
    search_space
        What may be tried: a :class:`~parallelmlp_search.space.SearchSpace` or the name of a preset.
    n_trials
        Configurations to train; None lets the time limit or the size of the table decide.
    time_limit
        Seconds for everything, from reading to saving; None for no limit. A search without one is
        deterministic.
    max_epochs
        Epochs of full training; None chooses them from the size of the table and the time limit.
    metric
        What counts; None takes the task's default.
    loss
        What training minimises; None takes the task's default.
    n_folds
        Folds of the finalists' cross-fitting; None chooses 3 to 8.
    n_finalists
        Configurations that are cross-fitted; None chooses 2 to 32.
    reduction_factor
        One in this many trials is promoted from a rung to the next.
    sampler
        Where configurations come from. ``random``, ``qmc`` (scrambled Sobol points) and ``grid`` draw afresh,
        and draws near the leaders follow. ``tpe``, ``cmaes`` and ``gp`` begin with random draws, and Optuna's
        sampler of that name follows. A sampler of Optuna, given as an object, draws everything; in
        ``run.json`` its class stands for it.
    refinement
        Share of the trials that are drawn with what the others have taught, in [0, 1].
    initial
        Configurations to try first, each of the space.
    scaling
        How numeric columns are scaled: ``robust``, ``quantile`` or ``standard``.
    numeric_bins
        Bins of the piecewise linear encoding of numeric columns, 0 for none; None chooses 48, or fewer where
        numeric columns are many or rows few.
    tune_decision
        Whether the classes' weights in naming one are tuned for a metric that looks at labels (accuracy,
        balanced_accuracy, f1, f1_macro, mcc); with other metrics the most probable class is named.
    calibration
        ``temperature`` to fit one temperature to all probabilities, as far as the choosing rows give evidence
        for it, or ``none``; ``auto`` is the first for classes and the second for numbers.
    refit
        Whether the networks of the ensemble are trained anew on all rows, to predict instead of those of the
        folds.
    seed
        Seed of everything random.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    memory_limit
        Bytes that the search may add to the memory of its process; None for no limit.
    """

    search_space: SearchSpace | str = "default"
    n_trials: int | None = None
    time_limit: float | None = None
    max_epochs: int | None = None
    metric: str | None = None
    loss: str | None = None
    n_folds: int | None = None
    n_finalists: int | None = None
    reduction_factor: int = 3
    sampler: str | BaseSampler = "random"
    refinement: float = 0.7
    initial: tuple[MLPConfig, ...] = ()
    scaling: Scaling = "robust"
    numeric_bins: int | None = None
    tune_decision: bool = True
    calibration: str = "auto"
    refit: bool = False
    seed: int = 0
    device: str = "auto"
    memory_limit: int | None = None
    space: SearchSpace = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        space = self.search_space
        if isinstance(space, str):
            space = SearchSpace.preset(space)
        if not isinstance(space, SearchSpace):
            raise InvalidParameterError(
                f"search_space must be a SearchSpace or the name of a preset, but got {space!r}"
            )
        object.__setattr__(self, "space", space)
        for name, lowest in (
            ("n_trials", 1),
            ("max_epochs", 1),
            ("n_folds", 2),
            ("n_finalists", 1),
            ("numeric_bins", 0),
        ):
            value = getattr(self, name)
            whole = isinstance(value, Integral) and not isinstance(value, bool)
            if value is not None and not (whole and value >= lowest):
                raise InvalidParameterError(f"{name} must be an integer >= {lowest}, but got {value!r}")
        for name, unit in (("time_limit", "seconds"), ("memory_limit", "bytes")):
            value = getattr(self, name)
            known = isinstance(value, Real) and not isinstance(value, bool)
            if value is not None and not (known and value > 0 and math.isfinite(value)):
                raise InvalidParameterError(f"{name} must be > 0 {unit}, but got {value!r}")
        for name in ("tune_decision", "refit"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidParameterError(f"{name} must be True or False, but got {getattr(self, name)!r}")
        if self.calibration not in CALIBRATIONS:
            raise InvalidParameterError(
                f"calibration must be one of {', '.join(CALIBRATIONS)}, but got {self.calibration!r}"
                f"{near_miss(str(self.calibration), CALIBRATIONS)}"
            )
        if self.reduction_factor < 2:
            raise InvalidParameterError(f"reduction_factor must be >= 2, but got {self.reduction_factor!r}")
        if not 0 <= self.refinement <= 1:
            raise InvalidParameterError(f"refinement must lie in [0, 1], but got {self.refinement!r}")
        # a dotted name is what remains of an object on disk
        if not (isinstance(self.sampler, str) and "." in self.sampler):
            check_sampler(self.sampler)
        object.__setattr__(self, "initial", tuple(self.initial))
        for config in self.initial:
            if not isinstance(config, MLPConfig):
                raise InvalidParameterError(f"initial must hold configurations, but got {config!r}")
            space.to_values(config)  # says what is not of the space
        if self.seed < 0:
            raise InvalidParameterError(f"seed must be >= 0, but got {self.seed!r}")

    @property
    def sampler_name(self) -> str:
        """The sampler's name, or the dotted name of its class."""
        if isinstance(self.sampler, str):
            return self.sampler
        kind = type(self.sampler)
        return f"{kind.__module__}.{kind.__qualname__}"

    @property
    def refined_share(self) -> float:
        """Share of the trials that are drawn near the leaders: none of a grid's."""
        return 0.0 if self.sampler == "grid" else self.refinement

    def check_task(self, task: str) -> None:
        """Refuse what does not fit the task.

        Raises
        ------
        InvalidParameterError
            If a regression is to be calibrated.
        """
        if self.calibration == "temperature" and task == "regression":
            raise InvalidParameterError(
                f"calibration needs classes, but got {self.calibration!r} for a regression: leave it out"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; the space is written out in full."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.init}
        return values | {
            "search_space": self.space.to_dict(),
            "sampler": self.sampler_name,
            "initial": [config.to_dict() for config in self.initial],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchSettings:
        """The settings that :meth:`to_dict` wrote."""
        known = {f.name for f in fields(cls) if f.init}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InvalidParameterError(
                f"settings have no field {unknown[0]!r}{near_miss(unknown[0], sorted(known))}"
            )
        space = SearchSpace.from_dict(values["search_space"])
        initial = tuple(MLPConfig.from_dict(config) for config in values.get("initial", ()))
        return cls(**{**values, "search_space": space, "initial": initial})
