"""Presets: search spaces by name."""

from __future__ import annotations

from collections.abc import Mapping

from parallelmlp_search.space.conditions import When
from parallelmlp_search.space.config import ACTIVATIONS, NUMERIC_SCALINGS, SHARINGS
from parallelmlp_search.space.domain_base import Domain
from parallelmlp_search.space.domains import Categorical, Float, Int

_DEEPER = When("depth", at_least=2)
_PERIODIC = When("numeric_embedding", equals="periodic")
_SHARING = When("submembers", at_least=2)

PRESETS: Mapping[str, Mapping[str, Domain]] = {
    # The 10,000 networks of the ParallelMLPs benchmark (Farias, Ludermir, Bastos-Filho; arXiv 2206.08369):
    # widths 1..100, ten activations, ten repetitions, one hidden layer.
    "paper": {
        "width": Int(1, 100),
        "activation": Categorical(ACTIVATIONS[:10]),
        "seed": Int(0, 9),
    },
    # For first trials and tests: a search takes seconds on a laptop.
    "small": {
        "depth": Int(1, 2),
        "width": Categorical((16, 24, 32, 48, 64)),
        "activation": Categorical(("relu", "silu", "tanh")),
        "learning_rate": Float(1e-3, 3e-2, log=True),
        "weight_decay": Float(1e-5, 1e-2, log=True),
        "dropout": Categorical((0.0, 0.1, 0.2)),
        "schedule": Categorical(("cosine",)),
        "batch_size": Categorical((128,)),
    },
    # Around the defaults of RealMLP (Holzmueller et al. 2024), whose parts were tested one by one
    # (docs/quality.md). All layers of a network have the same width: such networks fill their buckets, and
    # different widths did not pay on tables. Label smoothing is left out, since it increases the log loss.
    "default": {
        "depth": Int(1, 3),
        "width": Categorical((64, 96, 128, 192, 256)),
        "activation": Categorical(("relu", "silu", "gelu", "selu", "mish", "tanh")),
        "parametrization": Categorical(("neural_tangent",)),
        "initialization": Categorical(("data_driven",)),
        "learning_rate": Float(5e-3, 0.2, log=True),
        "weight_decay": Float(1e-3, 0.2, log=True),
        "weight_decay_schedule": Categorical(("flat_cosine",)),
        "dropout": Categorical((0.0, 0.05, 0.1, 0.2, 0.3, 0.4)),
        "dropout_schedule": Categorical(("flat_cosine",)),
        "optimizer": Categorical(("adamw",)),
        "beta2": Categorical((0.95, 0.99)),
        "schedule": Categorical(("cosine", "flat_cosine", "cosine_log", "one_cycle")),
        "batch_size": Categorical((128, 256)),
        "normalization": Categorical(("none", "layer"), when=_DEEPER),
        "residual": Categorical((False, True), when=_DEEPER),
        "input_scale_rate": Categorical((0.0, 2.0, 6.0)),
        "numeric_embedding": Categorical(("none", "piecewise", "periodic")),
        "numeric_scaling": Categorical(NUMERIC_SCALINGS),
        "target_encoding": Categorical((False, True)),
        "frequency_scale": Float(0.03, 0.5, log=True, when=_PERIODIC),
        "embedding_rate": Categorical((0.1, 0.3, 1.0), when=_PERIODIC),
        "submembers": Categorical((1, 8)),
        "sharing": Categorical(SHARINGS, when=_SHARING),
    },
    # Candidates for layer-parallel training. Networks of these depths train only with residual connections
    # and normalization.
    "deep": {
        "depth": Int(4, 12),
        "width": Categorical((48, 64, 96, 128)),
        "activation": Categorical(("relu", "silu", "gelu", "mish")),
        "learning_rate": Float(2e-4, 5e-3, log=True),
        "weight_decay": Float(1e-5, 1e-1, log=True),
        "dropout": Categorical((0.0, 0.05, 0.1, 0.2)),
        "optimizer": Categorical(("adamw",)),
        "beta2": Categorical((0.95, 0.99, 0.999)),
        "schedule": Categorical(("cosine", "flat_cosine")),
        "batch_size": Categorical((128, 256)),
        "normalization": Categorical(("layer",)),
        "residual": Categorical((True,)),
        "clip_norm": Categorical((1.0, None)),
    },
}
