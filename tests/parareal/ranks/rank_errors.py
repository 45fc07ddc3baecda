"""Program of two ranks that disagree, and of which one stops responding. ``rank_errors.py OUTPUT SOCKETS``"""

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
    exit_rank,
    init_communicator,
    output_gradient,
)
from parallelmlp_search.space import MLPConfig

os.environ.update(globals().get("ENVIRONMENT", {}))  # of ranks without torchrun
arguments = globals().get("ARGUMENTS", sys.argv[1:])
output = Path(arguments[0])
communicator = init_communicator(2, device="cpu", timeout=8, sockets=arguments[1] == "True")
rows = torch.randn(8, 6)
errors: dict[str, object] = {}


def network(width: int) -> PararealNetwork:
    config = MLPConfig(widths=(width,) * 6, residual=True, normalization="layer")
    return decompose(deep_mlp(config, n_inputs=6, n_outputs=3), 2, rows)


def record_error(name: str, act: Callable[[], object]) -> None:
    try:
        act()
    except PMLPError as error:
        errors[name] = str(error)


def engine(width: int = 8, **recipe: object) -> DistributedParareal:
    how = Recipe(total_steps=9, **recipe)  # type: ignore[arg-type]
    return DistributedParareal(network(width), communicator, how, rows)


def step(trained: DistributedParareal, n_rows: int) -> None:
    target = torch.zeros(n_rows, dtype=torch.int64)
    trained.step(rows[:n_rows], output_gradient("cross_entropy", target))


record_error("shapes", lambda: engine(8 + communicator.rank))
record_error("recipe", lambda: engine(learning_rate=0.1 + communicator.rank))
record_error("rows", lambda: step(engine(), 8 - communicator.rank))
trained = engine()
step(trained, 6)
record_error("rows, later", lambda: step(trained, 8 - communicator.rank))
record_error("prediction", lambda: trained.predict(rows[: 4 + communicator.rank]))
step(trained, 6)
if communicator.rank == 1:
    until = time.monotonic() + 60
    while not output.is_file() and time.monotonic() < until:
        time.sleep(0.1)  # alive without responding
    exit_rank()
started = time.monotonic()
record_error("silence", lambda: step(trained, 6))
errors["seconds"] = time.monotonic() - started
output.write_text(json.dumps(errors))
exit_rank()
