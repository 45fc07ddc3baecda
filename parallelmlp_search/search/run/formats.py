"""Format of a run directory: schemas of its files."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from parallelmlp_search._checks import check_finite, check_integer, check_non_negative, check_positive, refuse
from parallelmlp_search._schema import Count, Positive, conform

FORMAT = 1
"""Newest format of ``run.json``, which is that of the whole folder."""

Seconds = Annotated[float, check_non_negative]


class RunInfo(TypedDict):
    """Content of ``run.json``."""

    status: Literal["running", "interrupted", "failed", "finished"]
    versions: NotRequired[dict[str, str]]
    machine: NotRequired[dict[str, str | int]]
    source: NotRequired[dict[str, str | None]]
    settings: NotRequired[dict[str, Any]]
    fingerprint: NotRequired[str]
    splits: NotRequired[dict[str, int]]
    metric: NotRequired[str]
    task: NotRequired[str]
    spent_seconds: NotRequired[Seconds]
    memory: NotRequired[dict[str, int]]
    shared: NotRequired[dict[str, str]]


class Memory(TypedDict):
    """Memory of a plan."""

    limit: Count
    base: Count
    room: Count
    shard: Count
    estimate: Count


class Plan(TypedDict):
    """Entry ``plan`` of the journal."""

    rungs: list[Annotated[float, check_positive]]
    n_fresh: Count
    n_refined: Count
    capacity: Positive
    n_finalists: Positive
    n_folds: Annotated[int, partial(check_integer, minimum=2)]
    screening_seconds: float | None
    reserve_seconds: Seconds
    minimum_seconds: NotRequired[Seconds]
    fills_time: bool
    training_seconds: NotRequired[Seconds]
    memory: NotRequired[Memory | None]


class Finalists(TypedDict):
    """Entry ``finalists`` of the journal."""

    max_epochs: Positive
    n_finalists: Positive
    n_folds: Annotated[int, partial(check_integer, minimum=2)]
    group_size: NotRequired[Positive]
    trials: list[Count]


class Group(TypedDict):
    """Entry ``group`` of the journal: place of the next group of finalists, and its share of the epochs."""

    place: Count
    share: Seconds


class Corrected(TypedDict):
    """Entry ``corrected`` of the journal, which is NaN in parts if there is no score."""

    score: float
    standard_error: float
    low: float
    high: float
    naive: float
    n_bootstraps: Count
    averaging: float


class Baseline(TypedDict):
    """Baseline of a result."""

    name: str
    score: float | None
    share: Seconds
    left_out: str | None


class Latencies(TypedDict):
    """Measured seconds per row."""

    networks: list[Seconds]
    uses: list[list[bool]]
    encoding: dict[str, list[Seconds]]


ENTRIES: Mapping[str, Any] = {
    "plan": Plan,
    "finalists": Finalists,
    "draw": Count,
    "extend": Count,
    "ended": bool,
    "drawn": list[dict[str, Any]],
    "refit": Count,
    "folds": Positive,
    "group": Group | None,
    "late": Seconds,
    "rounds": Positive,
    "latency": Latencies,
    "took": Seconds,
    "corrected": Corrected,
    "adaptive": bool,
    "baselines": list[Baseline],
}
"""Schema of an entry of the journal, by its key without a number."""


def check_entries(name: str, entries: Any) -> None:
    """Check the entries of the journal."""
    conform(entries, dict[str, Any], name)
    for key, value in entries.items():
        conform(value, ENTRIES.get(key.partition("-")[0], Any), key)


Journal = Annotated[dict[str, Any], check_entries]
"""Content of ``journal.json``."""


class Honest(TypedDict):
    """Honest score of a result."""

    score: float | None
    standard_error: NotRequired[float | None]
    low: NotRequired[float | None]
    high: NotRequired[float | None]
    naive: NotRequired[float | None]
    averaging: NotRequired[float | None]


class Promotion(TypedDict):
    """Promotion of a result."""

    used: bool
    members: list[dict[str, Any]]
    honest_of_search: Honest | None


def check_decision_weights(name: str, weights: Any) -> None:
    """Check the decision weights of classes."""
    conform(weights, dict[str, Annotated[float, check_non_negative]], name)
    if weights and not sum(weights.values()) > 0:
        refuse(name, "positive for some class", weights)


DecisionWeights = Annotated[dict[str, float], check_decision_weights] | None


class PhaseTimes(TypedDict):
    """Phase of a search in a result."""

    seconds: Seconds


class Latency(TypedDict):
    """Latency of a result."""

    seconds_per_row: Seconds
    limit: Seconds
    batch: Positive
    n_folds: Positive


class Distilled(TypedDict):
    """Facts about a network that was distilled from an ensemble."""

    teacher_honest: Honest | None
    teacher_seconds: Seconds
    student_seconds: Seconds
    batch: Positive


class Level(TypedDict):
    """Measured coverage of intervals or sets in a result."""

    coverage: Annotated[float, check_positive]
    measured: Annotated[float, check_non_negative]
    width: NotRequired[list[Annotated[float, check_non_negative]]]
    size: NotRequired[Annotated[float, check_non_negative]]


class Uncertainty(TypedDict):
    """Intervals or sets of a result."""

    n_rows: Count
    adaptive: bool
    levels: list[Level]


class Result(TypedDict):
    """Content of ``result.json``."""

    metric: str
    task: str
    best_trial: Count
    best_config: NotRequired[dict[str, Any]]
    n_trials: Count
    max_epochs: Seconds
    n_folds: Count
    member_steps: Count
    path_shares: NotRequired[dict[str, Annotated[float, check_non_negative]]]
    elapsed_seconds: Seconds
    latency: NotRequired[Latency | None]
    distilled: NotRequired[Distilled]
    left_out: NotRequired[list[str]]
    cut: NotRequired[list[str]]  # see `RENAMED`
    temperature: NotRequired[Annotated[float, check_finite]]
    decision_weights: NotRequired[DecisionWeights]
    thresholds: NotRequired[dict[str, Annotated[float, check_positive]] | None]  # of several labels
    decision: NotRequired[DecisionWeights]  # see `RENAMED`
    costs: NotRequired[dict[str, dict[str, float]] | None]
    refitted: NotRequired[Count | None]
    honest: Honest | None
    baselines: NotRequired[list[Baseline]]
    beats_prior: NotRequired[bool | None]
    ensemble: list[dict[str, float]]
    phases: NotRequired[dict[str, PhaseTimes]]
    uncertainty: NotRequired[Uncertainty | None]
    promotion: NotRequired[Promotion | None]


RENAMED: Mapping[str, str] = {"cut": "left_out", "decision": "decision_weights"}
"""Names in ``result.json`` of version 0.1.0, and those of today."""

NUMBER = "iuf"
"""Kinds of a column of numbers; epochs are whole numbers in a search of a single rung."""

_TRIAL = {"trial": "iu", "n_parameters": "iu", "epochs": NUMBER, "score": NUMBER, "error": NUMBER}
_CONFIG = {"state": "O", "failure": "O", "config_widths": "O", "config_seed": "iu"}

LEADERBOARD_COLUMNS: Mapping[str, str] = {
    "rank": NUMBER,
    **_TRIAL,
    **_CONFIG,
    "metric": "O",
    "ensemble_weight": NUMBER,
    "train_seconds": NUMBER,
    "rung": "iu",
}
"""Columns of ``leaderboard.parquet`` and the kinds of their types."""

TRIAL_COLUMNS: Mapping[str, str] = {
    **_TRIAL,
    **_CONFIG,
    "origin": "O",
    "round": "iu",
    "rung": "iu",
    "train_loss": NUMBER,
    "train_seconds": NUMBER,
}
"""Columns of ``trials.parquet`` and the kinds of their types."""


COLUMN_COLUMNS: Mapping[str, str] = {
    **dict.fromkeys(("column", "kind", "values", "treatment", "reason"), "O"),
    **dict.fromkeys(("distinct", "missing"), "iu"),
}
"""Columns of ``columns.parquet`` and the kinds of their types."""


class State(TypedDict):
    """State of a member in a checkpoint, without its vectors."""

    step: Count
    best_error: float
    best_epoch: float
    failed_at: int


class Member(TypedDict):
    """Outcome of a member in a checkpoint, without its tensors."""

    trial: Count
    epochs: float
    error: float
    train_loss: float
    n_parameters: Count
    seconds: float
    best_epoch: float
    failure: str | None
    state: NotRequired[State]


class Checkpoint(TypedDict):
    """Metadata of a checkpoint."""

    members: list[Member]
    member_steps: Count
    seconds: Seconds
    predicted_seconds: Seconds
    cut: bool
    path_steps: NotRequired[dict[str, Count]]  # since version 0.2
