"""Texts that all reports share: numbers, durations, configurations, and sentences about a result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from parallelmlp_search._checks import duration_text
from parallelmlp_search.search.run.trial import config_of_row, summarise

Record = Mapping[str, Any]

MAX_LISTED = 8
"""Maximum number of ensemble members, and of decision weights, that are listed."""

SHOWN_COVERAGE = 0.9
"""Coverage of the intervals or sets that are described."""

_SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


_PATHS = {
    "persistent": "in persistent kernels",
    "graph": "in CUDA graphs",
    "compiled": "in compiled loops",
    "plain": "by tensor operations",
}
_TASKS = {
    "binary": "binary classification",
    "multiclass": "classification",
    "multilabel": "multilabel classification",
    "regression": "regression",
}
_METRICS = {
    "accuracy": "share of correct classes",
    "balanced_accuracy": "mean recall of the classes",
    "log_loss": "mean negative logarithm of the probability of the class, lower is better",
    "roc_auc": "area under the ROC curve",
    "f1": "harmonic mean of precision and recall",
    "f1_macro": "mean F1 score of the classes or labels",
    "f1_micro": "F1 score of all labels of all rows together",
    "f1_samples": "mean F1 score of the labels of a row",
    "hamming_loss": "share of wrong labels, lower is better",
    "subset_accuracy": "share of rows whose labels are all right",
    "mcc": "Matthews correlation coefficient",
    "brier": "mean squared error of the probabilities, lower is better",
    "expected_cost": "mean cost of the predicted class, lower is better",
    "ordinal_mae": "mean number of steps between predicted and true class, lower is better",
    "quadratic_kappa": "agreement of ordered classes, weighted by squared steps",
    "rmse": "root mean squared error, lower is better",
    "mae": "mean absolute error, lower is better",
    "r2": "share of explained variance",
    "pinball": "pinball loss of a quantile, lower is better",
    "poisson_deviance": "mean Poisson deviance, lower is better",
    "gamma_deviance": "mean gamma deviance, lower is better",
    "tweedie_deviance": "mean Tweedie deviance, lower is better",
    "d2_poisson": "share of explained Poisson deviance",
    "d2_gamma": "share of explained gamma deviance",
    "d2_tweedie": "share of explained Tweedie deviance",
}


def describe_task(task: str) -> str:
    """Return a task in words."""
    return _TASKS[task]


def describe_metric(name: str) -> str:
    """Return a metric with its meaning, such as ``roc_auc (area under the ROC curve)``."""
    meaning = _METRICS.get(name.partition(":")[0])
    return name if meaning is None else f"{name} ({meaning})"


def describe_transforms(names: Sequence[str]) -> str:
    """Return the transformations of the target that networks of a search can learn.

    >>> describe_transforms(["log", "quantile"])
    'networks learn the target as it is or transformed: log, quantile'
    """
    return f"networks learn the target as it is or transformed: {', '.join(names)}"


def is_finite(value: float | None) -> bool:
    """True for a number that is neither missing nor infinite."""
    return value is not None and math.isfinite(value)


def format_score(score: float | None) -> str:
    """Format a score with 3 to 5 significant digits.

    >>> format_score(0.91), format_score(543.21), format_score(0.00123), format_score(None)
    ('0.9100', '543.2', '0.00123', '-')
    """
    if score is None or math.isnan(score):
        return "-"
    size = abs(score)
    if math.isinf(score) or size >= 1e9 or 0 < size < 1e-4:
        return f"{score:.4g}"
    if size >= 100:
        return f"{score:,.1f}"
    if size >= 10:
        return f"{score:.3f}"
    if size >= 0.01 or size == 0:
        return f"{score:.4f}"
    return f"{score:.5f}"


def format_with_error(score: float | None, standard_error: float | None) -> str:
    """Format a score and its standard error, both to the second digit of the error.

    >>> format_with_error(0.912345, 0.00213), format_with_error(3.21e-201, 4.5e-203)
    ('0.9123 ± 0.0021', '3.21e-201 ± 4.5e-203')
    """
    if score is None or not standard_error or not is_finite(standard_error):
        return format_score(score)
    style = _style(standard_error)
    return f"{score:{style}} ± {standard_error:{style}}"


def _style(standard_error: float | None) -> str:
    """Format of numbers down to the second digit of a standard error; four decimals if it is not known."""
    if not standard_error or not is_finite(standard_error):
        return ",.4f"
    place = math.floor(math.log10(standard_error))
    return f",.{max(0, 1 - place)}f" if -7 <= place < 9 else ".4g"


def format_count(number: float) -> str:
    """Format a count in at most five characters.

    >>> format_count(950), format_count(18_400), format_count(2_500_000)
    ('950', '18.4k', '2.5M')
    """
    for size, suffix in _SUFFIXES:
        if number >= size * 0.99995:
            scaled = number / size
            return f"{scaled:.0f}{suffix}" if scaled >= 99.95 else f"{scaled:.1f}{suffix}"
    return f"{number:.0f}"


def format_clock(seconds: float) -> str:
    """Format a running time.

    >>> format_clock(7.9), format_clock(83), format_clock(7384)
    ('0:07', '1:23', '2:03:04')
    """
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def format_epochs(epochs: float | None) -> str:
    """Format a number of epochs, the last of which may be incomplete.

    >>> format_epochs(27.0), format_epochs(14.7438), format_epochs(None)
    ('27', '14.7', '0')
    """
    epochs = epochs or 0
    return f"{epochs:.0f}" if float(epochs).is_integer() else f"{epochs:.1f}"


def format_duration(seconds: float) -> str:
    """Format the duration of something that has ended.

    >>> format_duration(0.012), format_duration(58.21), format_duration(754)
    ('0.01 s', '58.2 s', '12 min 34 s')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def describe_config(record: Mapping[Any, Any]) -> str:
    """Describe the configuration of a leaderboard row, such as ``128-128 silu lr 0.004``."""
    return summarise(config_of_row(record, to_show=True))


def describe_interval(honest: Record) -> str:
    """Describe the interval of an honest score and its corrections."""
    style = _style(honest.get("standard_error"))
    facts = []
    if is_finite(honest.get("low")) and is_finite(honest.get("high")):
        facts.append(f"95 % interval {honest['low']:{style}} to {honest['high']:{style}}")
    if is_finite(honest.get("naive")):
        facts.append(f"{honest['naive']:{style}} without bias correction")
    if is_finite(honest.get("averaging")) and honest["averaging"]:
        facts.append(f"{honest['averaging']:+{style}} for averaging folds")
    return ", ".join(facts)


def describe_latency(latency: Record) -> str:
    """Describe the latency of a model that was selected under a limit.

    >>> describe_latency({"seconds_per_row": 1.23e-5, "batch": 1000, "limit": 2e-5, "n_folds": 1})
    '12.3us per row in batches of 1,000 (limit 20us), networks of 1 fold'
    """
    took, limit = duration_text(latency["seconds_per_row"]), duration_text(latency["limit"])
    folds = f"networks of {latency['n_folds']} fold{'s' * (latency['n_folds'] > 1)}"
    return f"{took} per row in batches of {latency['batch']:,} (limit {limit}), {folds}"


def describe_distillation(distilled: Record) -> str:
    """Describe the ensemble that a network was distilled from.

    >>> facts = {"teacher_seconds": 1e-4, "student_seconds": 1e-5, "batch": 1000}
    >>> describe_distillation({"teacher_honest": {"score": 0.92}} | facts)
    'ensemble with score 0.9200; 10us per row in batches of 1,000, not 100us: 10.0 times as fast'
    """
    honest = (distilled.get("teacher_honest") or {}).get("score")
    score = f"score {format_score(honest)}" if is_finite(honest) else "no score"
    before, after = distilled["teacher_seconds"], distilled["student_seconds"]
    return (
        f"ensemble with {score}; {duration_text(after)} per row in batches of {distilled['batch']:,}, "
        f"not {duration_text(before)}: {before / after:.1f} times as fast"
    )


def describe_postprocessing(result: Record) -> list[tuple[str, str]]:
    """Describe the postprocessing of predictions as pairs of a name and a text; empty without any."""
    found = []
    temperature = result.get("temperature") or 1.0
    if temperature != 1.0:
        found.append(("calibration", f"temperature {temperature:.3g}"))
    weights = result.get("decision_weights")
    if weights and len(weights) == 2:
        (first, low), (second, high) = weights.items()
        threshold = low / (low + high)
        found.append(("threshold", f"{second} if its probability exceeds {threshold:.3g}, else {first}"))
    elif weights:
        ordered = sorted(weights.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{label} {weight:.2f}" for label, weight in ordered[:MAX_LISTED])
        rest = f", and {len(ordered) - MAX_LISTED} more" if len(ordered) > MAX_LISTED else ""
        found.append(("decision weights", f"the largest product of probability and weight: {shown}{rest}"))
    if costs := result.get("costs"):
        found.append(("decision", _describe_costs(costs)))
    if thresholds := result.get("thresholds"):
        shown = ", ".join(f"{label} {value:.3g}" for label, value in [*thresholds.items()][:MAX_LISTED])
        rest = f", and {len(thresholds) - MAX_LISTED} more" if len(thresholds) > MAX_LISTED else ""
        found.append(("thresholds", f"a label is predicted above its probability: {shown}{rest}"))
    if result.get("refitted"):
        count = int(result["refitted"])
        found.append(("refit", f"on all rows, {count} network{'s' * (count > 1)} per configuration"))
    if text := describe_uncertainty(result.get("uncertainty")):
        found.append(("coverage", text))
    return found


def _describe_costs(costs: Mapping[str, Mapping[str, float]]) -> str:
    """Describe the decision of least expected cost; of two classes with the threshold that it is.

    >>> _describe_costs({"no": {"no": 0, "yes": 1}, "yes": {"no": 9, "yes": 0}})
    'the class of least expected cost: yes if its probability exceeds 0.1, else no'
    """
    text = "the class of least expected cost"
    if len(costs) != 2:
        return f"{text}, out of {len(costs)}"
    first, second = costs
    alarm, miss = (
        costs[true][other] - costs[true][true] for true, other in ((first, second), (second, first))
    )
    if min(alarm, miss) <= 0:
        return text
    return f"{text}: {second} if its probability exceeds {alarm / (alarm + miss):.3g}, else {first}"


def describe_uncertainty(uncertainty: Record | None) -> str:
    """Describe the measured coverage of 90 % intervals or sets; empty if there is none.

    >>> describe_uncertainty({"levels": [{"coverage": 0.9, "measured": 0.904, "size": 1.22}]})
    '90 % sets hold the class of 90.4 % of out-of-fold rows, with 1.22 classes on average'
    """
    found = uncertainty or {}
    levels, rows = found.get("levels") or (), found.get("measured_on", "out-of-fold rows")
    level = next((one for one in levels if one["coverage"] == SHOWN_COVERAGE), None)
    if level is None:
        return ""
    shares = f"{100 * level['coverage']:g} %", f"{100 * level['measured']:.1f} % of {rows}"
    if "size" in level:
        return f"{shares[0]} sets hold the class of {shares[1]}, with {level['size']:.2f} classes on average"
    widths = [format_score(width) for width in level["width"][:MAX_LISTED]]
    return f"{shares[0]} intervals hold {shares[1]}, mean width {', '.join(widths)}"


def describe_baselines(baselines: Sequence[Record]) -> str:
    """Describe the scores of baselines, the prior last, and the reason for which one has none.

    >>> describe_baselines([{"name": "prior", "score": 0.5, "share": 1.0, "left_out": None}])
    'prior 0.5000'
    """
    texts = []
    for one in reversed(baselines):
        name = str(one["name"]).replace("_", " ")
        if not is_finite(one["score"]):
            texts.append(f"{name} left out ({one['left_out']})" if one["left_out"] else f"{name} -")
            continue
        rows = f" (on {100 * one['share']:.0f} % of the rows)" if one["share"] < 0.995 else ""
        texts.append(f"{name} {format_score(one['score'])}{rows}")
    return ", ".join(texts)


def _path(name: str) -> str:
    return _PATHS.get(name, name)


def _describe_paths(result: Record) -> str:
    """Describe which code took the member-steps; empty for runs of older versions."""
    shares = result.get("path_shares") or {}
    if len(shares) == 1:
        return f" {_path(next(iter(shares)))}"
    texts = [
        f"{'under 1' if share < 0.005 else f'{100 * share:.0f}'} % {_path(path)}"
        for path, share in shares.items()
    ]
    return f" ({', '.join(texts)})" if texts else ""


def describe_search(result: Record) -> str:
    """Describe the effort of a search: trials, epochs, folds and steps."""
    epochs = format_epochs(result["max_epochs"])
    facts = [f"{int(result['n_trials']):,} trials", f"up to {epochs} epoch{'' if epochs == '1' else 's'}"]
    if result.get("n_folds"):
        facts.append(f"{result['n_folds']} folds")
    if result.get("member_steps"):
        facts.append(f"{format_count(float(result['member_steps']))} member-steps{_describe_paths(result)}")
    return ", ".join(facts)
