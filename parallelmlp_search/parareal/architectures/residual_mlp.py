"""Deep residual MLPs: configurations made deeper, and their networks as a Sequential of blocks."""

from __future__ import annotations

import math

from torch import Tensor, nn

from parallelmlp_search._checks import check_integer
from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.packing.periodic import Periodic
from parallelmlp_search.space import ColumnGroups, MLPConfig

MAX_DEPTH_FACTOR = 1000


def deep_config(config: MLPConfig, depth_factor: int) -> MLPConfig:
    """Return a configuration with every hidden layer repeated ``depth_factor`` times.

    Widths stay the same. Residual connections and layer normalization are switched on, unless the factor is
    1: networks of such depths do not train without them. A deep network is trained with one learning rate
    and without submembers, category embeddings, input scales, target transformations and data-driven
    initialization.

    Raises
    ------
    InvalidParameterError
        If the factor is not in [1, 1000], or the configuration has no hidden layer to repeat.
    """
    depth_factor = check_integer("depth_factor", depth_factor, 1)
    if depth_factor > MAX_DEPTH_FACTOR:
        raise InvalidParameterError(f"depth_factor must be <= {MAX_DEPTH_FACTOR}, but got {depth_factor}")
    if not config.widths:
        raise InvalidParameterError("config must have a hidden layer to deepen, but is a linear model")
    config = _with_one_rate(config)
    if depth_factor == 1:
        return config
    widths = tuple(width for width in config.widths for _ in range(depth_factor))
    return config.replace(widths=widths, residual=True, normalization="layer")


def _with_one_rate(config: MLPConfig) -> MLPConfig:
    """Reset options of shallow networks; a neural tangent rate becomes the standard rate at this width."""
    factor = 1.0
    if config.parametrization == "neural_tangent":
        factor = math.sqrt(sum(config.widths) / config.depth)
    data_driven = config.initialization == "data_driven"
    return config.replace(
        parametrization="standard",
        learning_rate=config.learning_rate / factor,
        weight_decay=config.weight_decay * factor,
        embedding_rate=config.embedding_rate * factor,
        weight_decay_schedule="constant",
        dropout_schedule="constant",
        bias_rate=1.0,
        input_scale_rate=0.0,
        submembers=1,
        category_embedding="none",
        target_transform="none",
        initialization="kaiming_uniform" if data_driven else config.initialization,
    )


def deep_mlp(
    config: MLPConfig, *, n_inputs: int, n_outputs: int, n_numbers: int = 0, vector: Tensor | None = None
) -> nn.Sequential:
    """Build the network of a configuration with one block per hidden layer, and the head as last block.

    The function is that of :func:`parallelmlp_search.packing.pack.build_module`, with the modules of a layer
    grouped, so that cuts fall between layers. An embedding belongs to the first block.

    Parameters
    ----------
    config
        Configuration of the network.
    n_inputs, n_outputs
        Inputs ``D`` and outputs ``C``.
    n_numbers
        Number of leading inputs that are numeric columns.
    vector
        Canonical vector of the weights; drawn from torch's generator by default.

    Returns
    -------
    Sequential
        Maps rows ``(N, D)`` to outputs ``(N, C)``.
    """
    columns = ColumnGroups(n_numbers=n_numbers)
    architecture = Architecture.of(config, DataShape(n_inputs, n_outputs, columns))
    blocks: list[nn.Module] = []
    group: list[nn.Module] = []
    for module in build_module(architecture, vector, dropout=config.dropout):
        starts_layer = isinstance(module, nn.Linear | nn.Sequential)
        if starts_layer and group and not isinstance(group[-1], Periodic):
            blocks.append(group[0] if len(group) == 1 else nn.Sequential(*group))
            group = []
        group.append(module)
    return nn.Sequential(*blocks, *group)
