"""Depths and sizes of VGG-16 and ResNet."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.parareal import resnet, resnet1001, vgg16


def test_depths_and_sizes_are_those_of_the_papers() -> None:
    with torch.device("meta"):
        deep = resnet1001(n_classes=10)
        wide = vgg16(n_classes=10)
    on_path = [m for m in deep.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    projections = sum(getattr(block, "projection", None) is not None for block in deep)
    assert len(on_path) - projections == 1001
    assert sum(isinstance(m, nn.Conv2d | nn.Linear) for m in wide.modules()) == 16
    assert 10.2e6 < sum(p.numel() for p in deep.parameters()) < 10.4e6  # 10.3 million in the paper


@pytest.mark.parametrize("depth", [10, 12, 2])
def test_resnet_rejects_other_depths(depth: int) -> None:
    with pytest.raises(InvalidParameterError, match="9 n"):
        resnet(depth, n_classes=2)
