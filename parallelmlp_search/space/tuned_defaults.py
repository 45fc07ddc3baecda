"""Tuned default configurations for tables, with which a search begins."""

from __future__ import annotations

from parallelmlp_search.space.config import TARGET_TRANSFORMS, MLPConfig
from parallelmlp_search.space.search_space import SearchSpace

# RealMLP-TD (Holzmueller et al. 2024) at half the width, with what did better here: a head initialized like
# the other layers, biases at the full learning rate, and one cosine cycle. Half of the configurations warm up
# first, which helps most where time ends while the network still improves.
_BASE = MLPConfig(
    widths=(128,) * 2, activation="silu", parametrization="neural_tangent", initialization="data_driven",
    learning_rate=0.04, weight_decay=0.02, weight_decay_schedule="flat_cosine", dropout=0.2,
    dropout_schedule="flat_cosine", beta2=0.95, schedule="cosine", batch_size=256, input_scale_rate=6.0,
    numeric_embedding="periodic",
)  # fmt: skip

_WARM_UP = _BASE.replace(schedule="one_cycle")

TUNED_DEFAULTS: tuple[MLPConfig, ...] = (
    _WARM_UP,
    # without input scales, which help most tables and harm some
    _BASE.replace(input_scale_rate=0.0, dropout=0.3),
    # stronger regularization, for tables that overfit early
    _WARM_UP.replace(learning_rate=0.01, weight_decay=0.1, numeric_embedding="none", dropout=0.3),
    # for tables on which piecewise embeddings beat periodic ones
    _BASE.replace(numeric_embedding="piecewise"),
    # ensembles of eight submembers with shared weights
    _WARM_UP.replace(submembers=8),
    _BASE.replace(widths=(256,) * 3, activation="mish", learning_rate=0.03),
    _WARM_UP.replace(widths=(96,), activation="relu", frequency_scale=0.3),
    _BASE.replace(batch_size=128, activation="mish", weight_decay=0.06),
    _WARM_UP.replace(learning_rate=0.1, activation="mish", embedding_rate=1.0),
    _BASE.replace(submembers=8, sharing="full", numeric_embedding="piecewise", learning_rate=0.02),
)


# the next best activations of the default space, and the other embedding
_MONOTONE = {"silu": "selu", "mish": "tanh", "periodic": "piecewise"}

MONOTONE_DEFAULTS: tuple[MLPConfig, ...] = tuple(
    config.replace(
        activation=_MONOTONE.get(config.activation, config.activation),
        numeric_embedding=_MONOTONE.get(config.numeric_embedding, config.numeric_embedding),
        frequency_scale=MLPConfig().frequency_scale,
        embedding_rate=MLPConfig().embedding_rate,
    )
    for config in TUNED_DEFAULTS
)
"""The same for networks with monotone columns, see :mod:`parallelmlp_search.space.monotone`."""


def tuned_defaults_in(space: SearchSpace, *, monotone: bool = False) -> tuple[MLPConfig, ...]:
    """Return the configurations of :data:`TUNED_DEFAULTS` that a space holds.

    They take turns with the target transformations of the space. With ``monotone``, they are those of
    :data:`MONOTONE_DEFAULTS`.
    """
    domain = space.domains.get("target_transform")
    transforms = ("none",) if domain is None else domain.grid(len(TARGET_TRANSFORMS))
    known, n = MONOTONE_DEFAULTS if monotone else TUNED_DEFAULTS, len(transforms)
    found = (one.replace(target_transform=transforms[k % n]) for k, one in enumerate(known))
    return tuple(config for config in found if space.contains(config))
