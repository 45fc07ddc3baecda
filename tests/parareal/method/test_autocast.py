"""Products in bfloat16, weights and messages in float32."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from parallelmlp_search.parareal import Communicator, DistributedParareal, Recipe, output_gradient
from parallelmlp_search.parareal.ranks.jobs import build_network
from parallelmlp_search.space import MLPConfig

CONFIG = MLPConfig(widths=(16,) * 8, residual=True, normalization="layer")


def train(slices: int, autocast: torch.dtype | None) -> tuple[list[float], Tensor]:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(64, 6, generator=generator)
    function = output_gradient("cross_entropy", (rows[:, 0] > 0).long())
    network = build_network(CONFIG, slices, n_inputs=6, n_outputs=2)
    recipe = Recipe(total_steps=60, learning_rate=3e-3)
    engine = DistributedParareal(network, Communicator(), recipe, rows, autocast=autocast)
    losses = [engine.step(rows, function) for _ in range(60)]
    outputs = engine.predict(rows)
    assert outputs is not None
    assert outputs.dtype == engine.flat.values.dtype == torch.float32
    return [float(loss) for loss in losses if loss is not None], outputs


@pytest.mark.parametrize("slices", [1, 3])
def test_autocast_trains_nearly_the_same(slices: int) -> None:
    exact, rounded = train(slices, None), train(slices, torch.bfloat16)
    assert exact[0][0] == pytest.approx(rounded[0][0], rel=0.02)
    assert exact[0][0] != rounded[0][0]  # it was used
    for losses, _ in (exact, rounded):
        assert losses[-1] < 0.2 * losses[0]
