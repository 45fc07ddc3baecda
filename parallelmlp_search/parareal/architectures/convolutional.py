"""Convolutional networks for small images as a Sequential of blocks: VGG-16, ResNet-1001."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from parallelmlp_search.exceptions import InvalidParameterError

VGG16_CHANNELS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the 13 convolutions; pooling halves the image after each group."""


class _Bottleneck(nn.Module):
    """Pre-activation bottleneck.

    BN-ReLU-conv 1x1, BN-ReLU-conv 3x3, BN-ReLU-conv 1x1, added to the input, or to its 1x1 projection if
    shapes differ. Source: He, Zhang, Ren and Sun, "Identity mappings in deep residual networks", 2016.
    """

    def __init__(self, channels: int, between: int, outputs: int, stride: int) -> None:
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
        """Map ``(N, channels, h, w)`` to ``(N, outputs, h / stride, w / stride)``."""
        activated = self.first(x)
        bypass = x if self.projection is None else self.projection(activated)
        result: Tensor = bypass + self.block(activated)
        return result


def resnet(depth: int, *, n_classes: int, channels: int = 3, width: int = 16) -> nn.Sequential:
    """Build a pre-activation ResNet of bottlenecks for small images, ``9 n + 2`` layers deep.

    Parameters
    ----------
    depth
        Number of layers: 11, 20, ..., 164, 1001.
    n_classes, channels
        Number of outputs, and of image channels.
    width
        Channels of the stem; bottlenecks have ``4 width``, ``8 width`` and ``16 width`` outputs.

    Returns
    -------
    Sequential
        The stem, one block per bottleneck, and the head (normalization, pooling, linear) as one block.

    Raises
    ------
    InvalidParameterError
        If there is no such depth.
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
            blocks.append(_Bottleneck(before, between, 4 * between, stride))
            before = 4 * between
    head = nn.Sequential(
        nn.BatchNorm2d(before),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(before, n_classes),
    )
    return _initialize(nn.Sequential(*blocks, head))


def resnet1001(*, n_classes: int, channels: int = 3) -> nn.Sequential:
    """Build ResNet-1001: 333 bottlenecks of 64, 128 and 256 channels."""
    return resnet(1001, n_classes=n_classes, channels=channels)


def vgg16(*, n_classes: int, channels: int = 3, size: int = 32, width: int = 64) -> nn.Sequential:
    """Build VGG-16 with batch normalization for small images (Simonyan and Zisserman 2015).

    Parameters
    ----------
    n_classes, channels
        Number of outputs, and of image channels.
    size
        Height and width of the images. Pooling stops at one pixel.
    width
        Channels of the first convolutions, 64 in the paper; all others in proportion.

    Returns
    -------
    Sequential
        One block per convolution, with its normalization, ReLU and pooling, and three linear layers as the
        head.
    """
    blocks: list[nn.Module] = []
    before, resolution = channels, size
    for group in VGG16_CHANNELS:
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
    hidden = 8 * width
    head = nn.Sequential(
        nn.Flatten(),
        nn.Linear(before * resolution * resolution, hidden),
        nn.ReLU(),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Linear(hidden, n_classes),
    )
    return _initialize(nn.Sequential(*blocks, head))


@torch.no_grad()
def _initialize(network: nn.Sequential) -> nn.Sequential:
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network
