"""Settings that are known to do well on tables, to begin a search with."""

from __future__ import annotations

from parallelmlp_search.space.config import MLPConfig
from parallelmlp_search.space.search_space import SearchSpace

__all__ = ["KNOWN", "known_configs"]

# What RealMLP's authors arrived at (Holzmueller et al. 2024), at half the width and with what did better
# here: a head that starts like the others, biases at full rate, one cosine,
# half of them with a rise before it, which helps most where a network could still learn when time ends.
_REAL = MLPConfig(
    widths=(128,) * 2, activation="silu", parametrization="neural_tangent", initialization="data_driven",
    learning_rate=0.04, weight_decay=0.02, weight_decay_schedule="flat_cosine", dropout=0.2,
    dropout_schedule="flat_cosine", beta2=0.95, schedule="cosine", batch_size=256, input_scale_rate=6.0,
    numeric_embedding="periodic",
)  # fmt: skip

_RISING = _REAL.replace(schedule="one_cycle")

KNOWN: tuple[MLPConfig, ...] = (
    _RISING,
    # scales of inputs help most tables and harm some
    _REAL.replace(input_scale_rate=0.0, dropout=0.3),
    # gentler, for tables that are soon learned by heart
    _RISING.replace(learning_rate=0.01, weight_decay=0.1, numeric_embedding="none", dropout=0.3),
    # pieces where they do better than waves
    _REAL.replace(numeric_embedding="piecewise"),
    # eight submembers that share their weights
    _RISING.replace(submembers=8),
    _REAL.replace(widths=(256,) * 3, activation="mish", learning_rate=0.03),
    _RISING.replace(widths=(96,), activation="relu", frequency_scale=0.3),
    _REAL.replace(batch_size=128, activation="mish", weight_decay=0.06),
    _RISING.replace(learning_rate=0.1, activation="mish", embedding_rate=1.0),
    _REAL.replace(submembers=8, sharing="full", numeric_embedding="piecewise", learning_rate=0.02),
)


def known_configs(space: SearchSpace) -> tuple[MLPConfig, ...]:
    """Those of :data:`KNOWN` that a space holds."""
    return tuple(config for config in KNOWN if space.contains(config))
