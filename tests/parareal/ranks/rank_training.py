"""Program of ranks: trains small networks over ranks and in one process, and writes the difference.

``rank_training.py SLICES OUTPUT SOCKETS``
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
    Communicator,
    DistributedParareal,
    PararealNetwork,
    Recipe,
    decompose,
    deep_mlp,
    exit_rank,
    init_communicator,
    output_gradient,
    resnet,
)
from parallelmlp_search.space import MLPConfig

STEPS, ROWS = 20, 24
os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks without torchrun
arguments = globals().get("ARGUMENTS", sys.argv[1:])
slices, output, sockets = int(arguments[0]), Path(arguments[1]), arguments[2] == "True"
torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
communicator = init_communicator(slices, device="cpu", timeout=60, sockets=sockets)
assert bool(communicator.peers) is communicator.all_connected is sockets

generator = torch.Generator().manual_seed(3)
table = torch.randn(ROWS, 6, generator=generator)
images = torch.randn(ROWS, 2, 8, 8, generator=generator)
target = torch.randint(0, 3, (ROWS,), generator=generator)


def mlp(dropout: float = 0.0) -> PararealNetwork:
    torch.manual_seed(5)
    config = MLPConfig(widths=(12,) * 9, residual=True, normalization="layer", dropout=dropout)
    return decompose(deep_mlp(config, n_inputs=6, n_outputs=3), slices, table)


def unequal() -> PararealNetwork:
    """Widths differ between blocks, and so do the shapes of interfaces."""
    torch.manual_seed(6)
    widths = (6, 10, 7, 12, 5, 9)
    pairs = zip(widths, (*widths[1:], 8), strict=True)
    blocks = [nn.Sequential(nn.Linear(a, b), nn.Tanh()) for a, b in pairs]
    return decompose(nn.Sequential(*blocks, nn.Linear(8, 3)), slices, table)


def normalized() -> PararealNetwork:
    """Batch normalization in fine networks, preprocessors and coarse networks.

    Interfaces have 144 KiB, too long for a socket, and 72.
    """
    torch.manual_seed(7)
    return decompose(resnet(29, n_classes=3, channels=2, width=3), slices, images)


def rounded() -> PararealNetwork:
    """Without normalization, so that messages are computed in bfloat16."""
    torch.manual_seed(8)
    torch.set_default_dtype(torch.float32)
    blocks = [nn.Sequential(nn.Linear(6, 6), nn.ReLU()) for _ in range(6)]
    network = decompose(nn.Sequential(*blocks, nn.Linear(6, 3)), slices, table.float())
    torch.set_default_dtype(torch.float64)
    return network


def train(
    network: PararealNetwork,
    here: Communicator,
    rows: Tensor,
    recipe: Recipe,
    n_pieces: int,
    *,
    broadcast: bool = False,
    autocast: torch.dtype | None = None,
) -> dict[str, Tensor]:
    engine = DistributedParareal(network, here, recipe, rows, broadcast=broadcast, autocast=autocast, seed=11)
    engine.batch_rows = ROWS // here.n_replicas
    mine = torch.arange(ROWS).tensor_split(here.n_replicas)[here.replica_index]
    pieces = mine.tensor_split(n_pieces)
    functions = [output_gradient("cross_entropy", target[p], share=len(p) / ROWS) for p in pieces]
    for _ in range(STEPS):
        hidden = broadcast and here.slice_index > 0
        engine.step(None if hidden else rows[mine], functions)
    return engine.state_dict()


def difference(
    make: Callable[[], PararealNetwork],
    rows: Tensor,
    *,
    n_pieces: int = 1,
    broadcast: bool = False,
    autocast: torch.dtype | None = None,
    autocast_alone: torch.dtype | None = torch.bfloat16,
    **recipe: object,
) -> float:
    """Largest difference of weights and running statistics between this rank and a single process."""
    how = Recipe(total_steps=STEPS, learning_rate=1e-2, weight_decay=1e-2, **recipe)  # type: ignore[arg-type]
    ranked = train(make(), communicator, rows, how, n_pieces, broadcast=broadcast, autocast=autocast)
    alone = train(make(), Communicator(), rows, how, 1, autocast=autocast_alone if autocast else None)
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
    "batch normalization": difference(normalized, images),
}
if communicator.n_replicas == 1:
    found["dropout"] = difference(lambda: mlp(0.3), table)
    single = table.float()
    found["autocast"] = difference(rounded, single, autocast=torch.bfloat16)
    found["autocast on ranks alone"] = difference(
        rounded, single, autocast=torch.bfloat16, autocast_alone=None
    )
    found["n_piecesd"] = difference(mlp, table, n_pieces=3)
else:
    found["n_piecesd"] = difference(mlp, table, n_pieces=2)
    assert communicator.mesh is not None
    assert communicator.mesh.mesh_dim_names == ("replica", "slice")
(output / f"{communicator.rank}.json").write_text(json.dumps(found))
communicator.barrier()
if communicator.rank == 0:
    communicator.close()  # while the other ranks are running
exit_rank()
