"""Run by two ranks: they disagree, and then one falls silent. ``trouble.py OUTPUT SOCKETS``"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from parallelmlp_search.exceptions import PMLPError
from parallelmlp_search.parareal import (
    DistributedParareal,
    PararealNetwork,
    Recipe,
    decompose,
    deep_mlp,
    end_rank,
    join,
    output_gradient,
)
from parallelmlp_search.space import MLPConfig

os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks that torchrun has not started
arguments = globals().get("ARGUMENTS", sys.argv[1:])
output = Path(arguments[0])
world = join(2, device="cpu", timeout=8, sockets=arguments[1] == "True")
rows = torch.randn(8, 6)
heard: dict[str, object] = {}


def network(width: int) -> PararealNetwork:
    config = MLPConfig(widths=(width,) * 6, residual=True, normalization="layer")
    return decompose(deep_mlp(config, n_inputs=6, n_outputs=3), 2, rows)


def hear(name: str, act: Callable[[], object]) -> None:
    try:
        act()
    except PMLPError as error:
        heard[name] = str(error)


def engine(width: int = 8, **recipe: object) -> DistributedParareal:
    how = Recipe(total_steps=9, **recipe)  # type: ignore[arg-type]
    return DistributedParareal(network(width), world, how, rows)


def step(trained: DistributedParareal, n_rows: int) -> None:
    target = torch.zeros(n_rows, dtype=torch.int64)
    trained.step(rows[:n_rows], output_gradient("cross_entropy", target))


hear("shapes", lambda: engine(8 + world.rank))
hear("recipe", lambda: engine(learning_rate=0.1 + world.rank))
hear("rows", lambda: step(engine(), 8 - world.rank))
trained = engine()
step(trained, 6)
hear("rows, later", lambda: step(trained, 8 - world.rank))
hear("prediction", lambda: trained.predict(rows[: 4 + world.rank]))
step(trained, 6)
if world.rank == 1:
    until = time.monotonic() + 60
    while not output.is_file() and time.monotonic() < until:
        time.sleep(0.1)  # neither dead nor alive
    end_rank()
started = time.monotonic()
hear("silence", lambda: step(trained, 6))
heard["seconds"] = time.monotonic() - started
output.write_text(json.dumps(heard))
end_rank()
