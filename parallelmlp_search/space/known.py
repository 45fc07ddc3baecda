"""Settings that are known to do well on tables, to begin a search with."""

from __future__ import annotations

from parallelmlp_search.space.config import MLPConfig
from parallelmlp_search.space.search_space import SearchSpace

__all__ = ["KNOWN", "known_configs"]

KNOWN: tuple[MLPConfig, ...] = (
    # RealMLP's defaults for classes and for numbers (Holzmueller et al. 2024): their learning rates 0.04 and
    # 0.2 belong to weights of unit variance, which under ours of 1 / fan in are rates of 0.0025 and 0.0125
    MLPConfig(
        widths=(256,) * 3, activation="selu", learning_rate=0.0025, weight_decay=0.02, dropout=0.1,
        beta2=0.95, schedule="cosine_log", batch_size=256,
    ),
    MLPConfig(
        widths=(256,) * 3, activation="mish", learning_rate=0.0125, weight_decay=0.02, dropout=0.1,
        beta2=0.95, schedule="cosine_log", batch_size=256,
    ),
    # the MLP that TabM makes its ensembles of (Gorishniy et al. 2024), half as wide
    MLPConfig(
        widths=(256,) * 3, activation="relu", learning_rate=0.002, weight_decay=3e-4, dropout=0.1,
        beta2=0.999, schedule="flat_cosine", batch_size=256,
    ),
    # smaller ones with more regularisation, the best of eight on most tables here
    MLPConfig(
        widths=(128,) * 2, activation="silu", learning_rate=0.004, weight_decay=0.02, dropout=0.1,
        beta2=0.95, schedule="cosine", batch_size=256,
    ),
    MLPConfig(
        widths=(128,) * 2, activation="silu", learning_rate=0.004, weight_decay=0.02, dropout=0.1,
        beta2=0.95, schedule="cosine", batch_size=256, numeric_embedding="none",
    ),
    MLPConfig(
        widths=(96,), activation="silu", learning_rate=0.008, weight_decay=0.05, dropout=0.3,
        beta2=0.95, schedule="cosine", batch_size=256,
    ),
)  # fmt: skip


def known_configs(space: SearchSpace) -> tuple[MLPConfig, ...]:
    """Those of :data:`KNOWN` that a space holds."""
    return tuple(config for config in KNOWN if space.contains(config))
