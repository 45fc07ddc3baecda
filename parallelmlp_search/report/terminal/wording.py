"""Numbers, durations and configurations in the few characters that a terminal line has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = [
    "clock",
    "compact",
    "config_words",
    "epochs_words",
    "seconds_words",
    "widths_words",
    "with_error",
    "worded_score",
]

_SUFFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def worded_score(score: float | None) -> str:
    """A score with as many decimals as its size deserves, so that a column of them stays aligned.

    >>> worded_score(0.91), worded_score(543.21), worded_score(0.00123), worded_score(None)
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


def with_error(score: float, standard_error: float | None) -> str:
    """A score and its standard error, both to the second digit of the error.

    >>> with_error(0.912345, 0.00213)
    '0.9123 ± 0.0021'
    """
    if standard_error is None or not math.isfinite(standard_error) or standard_error <= 0:
        return worded_score(score)
    decimals = max(0, min(8, 1 - math.floor(math.log10(standard_error))))
    return f"{score:,.{decimals}f} ± {standard_error:,.{decimals}f}"


def compact(number: float) -> str:
    """A count in at most five characters.

    >>> compact(950), compact(18_400), compact(2_500_000)
    ('950', '18.4k', '2.5M')
    """
    for size, suffix in _SUFFIXES:
        if number >= size * 0.99995:
            scaled = number / size
            return f"{scaled:.0f}{suffix}" if scaled >= 99.95 else f"{scaled:.1f}{suffix}"
    return f"{number:.0f}"


def clock(seconds: float) -> str:
    """A running time as on a stop watch.

    >>> clock(7.9), clock(83), clock(7384)
    ('0:07', '1:23', '2:03:04')
    """
    whole = max(0, int(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def epochs_words(epochs: float | None) -> str:
    """Epochs, which the end of the time may have cut in the middle of one.

    >>> epochs_words(27.0), epochs_words(14.7438), epochs_words(None)
    ('27', '14.7', '0')
    """
    epochs = epochs or 0
    return f"{epochs:.0f}" if float(epochs).is_integer() else f"{epochs:.1f}"


def seconds_words(seconds: float) -> str:
    """A duration that has ended.

    >>> seconds_words(0.012), seconds_words(58.21), seconds_words(754)
    ('0.01 s', '58.2 s', '12 min 34 s')
    """
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def config_words(record: Mapping[str, Any]) -> str:
    """The configuration in a row of a leaderboard, such as ``128-128 silu lr 0.004``.

    Parameters
    ----------
    record
        Mapping with the keys ``config_widths``, ``config_activation`` and so on.
    """
    widths = widths_words(record.get("config_widths"))
    words = [widths] if widths else ["linear"]
    if widths and record.get("config_activation"):
        words.append(str(record["config_activation"]))
    if record.get("config_learning_rate") is not None:
        words.append(f"lr {float(record['config_learning_rate']):.2g}")
    if record.get("config_dropout"):
        words.append(f"drop {float(record['config_dropout']):.2g}")
    return " ".join(words)


def widths_words(widths: Any) -> str:
    """Widths as ``128-64``, from a text or a sequence of numbers; nothing for a linear model."""
    if widths is None or isinstance(widths, str):
        return widths or ""
    return "-".join(str(int(width)) for width in widths)
