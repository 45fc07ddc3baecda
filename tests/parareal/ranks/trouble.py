"""Run by two ranks: they disagree, and then one falls silent. ``trouble.py OUTPUT``"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch

from parallelmlp_search.exceptions import PMLPError
from parallelmlp_search.parareal import (
    DistributedParareal,
    PararealNetwork,
    Recipe,
    decompose,
    deep_mlp,
    join,
    output_gradient,
)
from parallelmlp_search.space import MLPConfig

os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks that torchrun has not started
arguments = globals().get("ARGUMENTS", sys.argv[1:])
output = Path(arguments[0])
world = join(2, device="cpu", timeout=4)
rows = torch.randn(8, 6)
heard: dict[str, object] = {}


def network(width: int) -> PararealNetwork:
    config = MLPConfig(widths=(width,) * 6, residual=True, normalization="layer")
    return decompose(deep_mlp(config, n_inputs=6, n_outputs=3), 2, rows)


def hear(name: str, width: int, **recipe: object) -> None:
    try:
        how = Recipe(total_steps=9, **recipe)  # type: ignore[arg-type]
        DistributedParareal(network(width), world, how, rows)
    except PMLPError as error:
        heard[name] = str(error)


hear("shapes", 8 + world.rank)
hear("recipe", 8, learning_rate=0.1 + world.rank)
engine = DistributedParareal(network(8), world, Recipe(total_steps=9), rows)
function = output_gradient("cross_entropy", torch.zeros(8, dtype=torch.int64))
engine.step(rows, function)
if world.rank == 1:
    time.sleep(12)  # neither dead nor alive
    os._exit(0)
started = time.monotonic()
try:
    engine.step(rows, function)
except PMLPError as error:
    heard["silence"] = str(error)
heard["seconds"] = time.monotonic() - started
output.write_text(json.dumps(heard))
os._exit(0)
