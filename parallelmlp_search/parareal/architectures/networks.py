"""Deep networks as a Sequential of blocks: residual MLPs from a configuration, VGG-16, ResNet-1001."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.packing import Architecture
from parallelmlp_search.packing.pack import build_module
from parallelmlp_search.packing.periodic import Periodic
from parallelmlp_search.space import ColumnGroups, MLPConfig

__all__ = ["Bottleneck", "deep_config", "deep_mlp", "resnet", "resnet1001", "vgg16"]

DEEPEST = 1000


def deep_config(config: MLPConfig, depth_factor: int) -> MLPConfig:
    """A configuration made ``depth_factor`` times as deep, residual and normalised.

    Every hidden layer is repeated; widths stay as they are. Without residual connections and layer
    normalisation networks of such depths do not train, so both are switched on, unless the factor is 1.

    Normalised layers need no help to begin with, so a deep network has no scales and no
    data-driven start; no submembers, since one network is cut into slices, and no embedded categories; and
    one rate for all layers: that of the neural tangent parametrisation becomes the one it stands for at the
    network's width, at the same pace of decay.

    Raises
    ------
    InvalidParameterError
        If the factor is not in [1, 1000], or the configuration has no hidden layer to repeat.
    """
    if (
        isinstance(depth_factor, bool)
        or not isinstance(depth_factor, int)
        or not 1 <= depth_factor <= DEEPEST
    ):
        raise InvalidParameterError(
            f"depth_factor must be an integer in [1, {DEEPEST}], but got {depth_factor!r}"
        )
    if not config.widths:
        raise InvalidParameterError("config must have a hidden layer to deepen, but is a linear model")
    config = _with_one_rate(config)
    if depth_factor == 1:
        return config
    widths = tuple(width for width in config.widths for _ in range(depth_factor))
    return config.replace(widths=widths, residual=True, normalization="layer")


def _with_one_rate(config: MLPConfig) -> MLPConfig:
    """The same network by a recipe without what only shallow ones are trained with."""
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
        initialization="kaiming_uniform" if data_driven else config.initialization,
    )


def deep_mlp(
    config: MLPConfig, *, n_inputs: int, n_outputs: int, n_numbers: int = 0, vector: Tensor | None = None
) -> nn.Sequential:
    """The network of a configuration as a Sequential of one block a hidden layer, and the head.

    The same function as :func:`parallelmlp_search.packing.pack.build_module`, with a layer's modules grouped,
    so that cuts fall between layers. An embedding belongs to the first block.

    Parameters
    ----------
    n_inputs, n_outputs
        Inputs ``D`` and outputs ``C``.
    n_numbers
        How many of the inputs, the first ones, are numbers.
    vector
        Canonical vector of its weights; fresh ones of torch's own generator by default.
    """
    columns = ColumnGroups(n_numbers=n_numbers)
    architecture = Architecture.of(config, n_inputs=n_inputs, n_outputs=n_outputs, columns=columns)
    flat = list(build_module(architecture, vector, dropout=config.dropout))
    blocks: list[nn.Module] = []
    group: list[nn.Module] = []
    for module in flat:
        starts = isinstance(module, nn.Linear | nn.Sequential)
        if starts and group and not isinstance(group[-1], Periodic):
            blocks.append(group[0] if len(group) == 1 else nn.Sequential(*group))
            group = []
        group.append(module)
    return nn.Sequential(*blocks, *group)


class Bottleneck(nn.Module):
    """Pre-activation bottleneck (He, Zhang, Ren and Sun, "Identity mappings in deep residual networks",
    2016).

    BN-ReLU-conv 1x1, BN-ReLU-conv 3x3, BN-ReLU-conv 1x1, added to the input, or to its 1x1 projection where
    shapes differ.
    """

    def __init__(self, channels: int, between: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(channels, between, 1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(),
            nn.Conv2d(between, between, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(between),
            nn.ReLU(),
            nn.Conv2d(between, outputs, 1, bias=False),
        )
        same = stride == 1 and channels == outputs
        self.projection = None if same else nn.Conv2d(channels, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Rows ``(N, channels, h, w)`` to ``(N, outputs, h / stride, w / stride)``."""
        activated = self.first(x)
        bypass = x if self.projection is None else self.projection(activated)
        result: Tensor = bypass + self.block(activated)
        return result


def resnet(depth: int, *, n_classes: int, channels: int = 3, width: int = 16) -> nn.Sequential:
    """Pre-activation ResNet of bottlenecks for small images, ``9 n + 2`` layers deep.

    Parameters
    ----------
    depth
        Layers: 11, 20, ..., 164, 1001.
    n_classes, channels
        Outputs, and channels of the images.
    width
        Channels of the stem; bottlenecks have ``4 width``, ``8 width`` and ``16 width`` outputs.

    Returns
    -------
    Sequential
        The stem, one block a bottleneck, and the head (normalisation, pooling, linear) as one block.
    """
    count, rest = divmod(depth - 2, 9)
    if rest or count < 1:
        raise InvalidParameterError(
            f"depth must be 9 n + 2 with n >= 1, such as 164 or 1001, but got {depth}"
        )
    blocks: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1, bias=False)]
    before = width
    for stage in range(3):
        between = width * 2**stage
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            blocks.append(Bottleneck(before, between, 4 * between, stride))
            before = 4 * between
    head = nn.Sequential(
        nn.BatchNorm2d(before),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(before, n_classes),
    )
    return _initialised(nn.Sequential(*blocks, head))


def resnet1001(*, n_classes: int, channels: int = 3) -> nn.Sequential:
    """ResNet-1001: 333 bottlenecks of 64, 128 and 256 channels."""
    return resnet(1001, n_classes=n_classes, channels=channels)


VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 13 convolutions; pooling halves the image after each group."""


def vgg16(*, n_classes: int, channels: int = 3, size: int = 32, width: int = 64) -> nn.Sequential:
    """VGG-16 (Simonyan and Zisserman 2015) with batch normalisation, for small images.

    Thirteen convolutions, each a block with its normalisation and ReLU, pooling where the image still has two
    rows, and three linear layers as the head.

    Parameters
    ----------
    size
        Height and width of the images.
    width
        Channels of the first convolutions, 64 in the paper; all others in proportion.
    """
    blocks: list[nn.Module] = []
    before, resolution = channels, size
    for group in VGG16:
        for number, full in enumerate(group):
            after = full * width // 64
            block: list[nn.Module] = [
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
            if number == len(group) - 1 and resolution >= 2:
                block.append(nn.MaxPool2d(2))
                resolution //= 2
            blocks.append(nn.Sequential(*block))
            before = after
    features = before * resolution * resolution
    hidden = 8 * width
    head = nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )
    return _initialised(nn.Sequential(*blocks, head))


def _initialised(network: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
