"""Run by ranks: trains small networks over ranks, and alone, and writes how far apart the weights are.

``train.py SLICES OUTPUT SOCKETS``
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from parallelmlp_search.parareal import (
    Alone,
    DistributedParareal,
    PararealNetwork,
    Recipe,
    World,
    decompose,
    deep_mlp,
    end_rank,
    join,
    output_gradient,
    resnet,
)
from parallelmlp_search.space import MLPConfig

STEPS, ROWS = 20, 24
os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks that torchrun has not started
arguments = globals().get("ARGUMENTS", sys.argv[1:])
slices, output, sockets = int(arguments[0]), Path(arguments[1]), arguments[2] == "True"
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
world = join(slices, device="cpu", timeout=60, sockets=sockets)
assert isinstance(world, World)
assert bool(world.neighbours) is world.chained is sockets

generator = torch.Generator().manual_seed(3)
table = torch.randn(ROWS, 6, generator=generator)
images = torch.randn(ROWS, 2, 8, 8, generator=generator)
target = torch.randint(0, 3, (ROWS,), generator=generator)


def mlp(dropout: float = 0.0) -> PararealNetwork:
    torch.manual_seed(5)
    config = MLPConfig(widths=(12,) * 9, residual=True, normalization="layer", dropout=dropout)
    return decompose(deep_mlp(config, n_inputs=6, n_outputs=3), slices, table)


def unequal() -> PararealNetwork:
    """Widths that change between blocks, so that interfaces have different shapes."""
    torch.manual_seed(6)
    widths = (6, 10, 7, 12, 5, 9)
    pairs = zip(widths, (*widths[1:], 8), strict=True)
    blocks = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairs]
    return decompose(nn.Sequential(*blocks, nn.Linear(8, 3)), slices, table)


def normalised() -> PararealNetwork:
    """Batch normalisation in fine networks, preprocessors and coarse networks.

    Interfaces of 144 KiB, too long for a socket, and of 72.
    """
    torch.manual_seed(7)
    return decompose(resnet(29, n_classes=3, channels=2, width=3), slices, images)


def rounded() -> PararealNetwork:
    """Without normalisation, so that what passes between slices is in bfloat16 where products are."""
    torch.manual_seed(8)
    torch.set_default_dtype(torch.float32)
    blocks = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(6)]
    network = decompose(nn.Sequential(*blocks, nn.Linear(6, 3)), slices, table.float())
    torch.set_default_dtype(torch.float64)
    return network


def train(
    network: PararealNetwork,
    here: Alone,
    rows: Tensor,
    recipe: Recipe,
    accumulate: int,
    *,
    broadcast: bool = False,
    autocast: torch.dtype | None = None,
) -> dict[str, Tensor]:
    engine = DistributedParareal(network, here, recipe, rows, broadcast=broadcast, autocast=autocast, seed=11)
    engine.batch_rows = ROWS // here.replicas
    mine = torch.arange(ROWS).tensor_split(here.replicas)[here.replica]
    pieces = mine.tensor_split(accumulate)
    functions = [output_gradient("cross_entropy", target[p], share=len(p) / ROWS) for p in pieces]
    for _ in range(STEPS):
        hidden = broadcast and here.slice > 0
        engine.step(None if hidden else rows[mine], functions, accumulate=accumulate)
    return engine.state_dict()


def difference(
    make: Callable[[], PararealNetwork],
    rows: Tensor,
    *,
    accumulate: int = 1,
    broadcast: bool = False,
    autocast: torch.dtype | None = None,
    autocast_alone: torch.dtype | None = torch.bfloat16,
    **recipe: object,
) -> float:
    """Largest difference of weights and running statistics between this rank and a single process."""
    how = Recipe(total_steps=STEPS, learning_rate=1e-2, weight_decay=1e-2, **recipe)  # type: ignore[arg-type]
    ranked = train(make(), world, rows, how, accumulate, broadcast=broadcast, autocast=autocast)
    alone = train(make(), Alone(), rows, how, 1, autocast=autocast_alone if autocast else None)
    start = make().state_dict()
    moved = max(float((start[name] - alone[name]).abs().max()) for name in ranked)
    assert moved > 1e-3, "nothing was trained"
    assert ranked, "this rank holds nothing"
    return max(float((value - alone[name]).abs().max()) for name, value in ranked.items())


found = {
    "adamw": difference(mlp, table),
    "sgd, clipped": difference(mlp, table, optimizer="sgd", clip_norm=0.05),
    "unequal widths": difference(unequal, table),
    "broadcast": difference(mlp, table, broadcast=True),
    "batch normalisation": difference(normalised, images),
}
if world.replicas == 1:
    found["dropout"] = difference(lambda: mlp(0.3), table)
    single = table.float()
    found["autocast"] = difference(rounded, single, autocast=torch.bfloat16)
    found["autocast on ranks alone"] = difference(
        rounded, single, autocast=torch.bfloat16, autocast_alone=None
    )
    found["accumulated"] = difference(mlp, table, accumulate=3)
else:
    found["accumulated"] = difference(mlp, table, accumulate=2)
    assert world.mesh is not None
    assert world.mesh.mesh_dim_names == ("replica", "slice")
(output / f"{world.rank}.json").write_text(json.dumps(found))
world.barrier()
if world.rank == 0:
    world.leave()  # all of its connections close while others look on
end_rank()
