"""Recovery from real memory exhaustion under a limit of the process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import gc, json, resource
from pathlib import Path
import torch
from parallelmlp_search.distribute import ShardData, ShardTask, shards
from parallelmlp_search.distribute.memory import return_free_memory
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import MLPConfig

def task(configs, n_inputs):
    inputs = torch.randn(40, n_inputs, generator=torch.Generator().manual_seed(0))
    target = (inputs[:, 0] > 0).long()
    data = ShardData(
        rows=TrainingRows(inputs, target), validation_inputs=inputs[:9], validation_target=target[:9],
        validation_weight=None, prediction_inputs=None, head=Head("binary", 2), loss="binary_logits",
        metric=get_metric("log_loss", "binary", n_classes=2), seed=0,
    )
    n = len(configs)
    return ShardTask("shard", tuple(range(n)), tuple(configs), (None,) * n, data, 1.0, 1.0, keep=())

sizes, train = [], shards._train_whole

def recording(task):
    sizes.append(len(task.configs))
    return train(task)

shards._train_whole = recording
def virtual(name):
    # memory of this process: now, VmSize, or the most so far, VmPeak
    gc.collect()
    return_free_memory()
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))

# six copies of 320,000 weights: 8 MiB a member
configs = [MLPConfig(widths=(400, 400), batch_size=8, seed=seed) for seed in range(16)]
shards.train_shard(task(configs[:1], 400))  # everything is loaded
before = virtual("VmSize")
whole = shards.train_shard(task(configs, 400)).members
needed = virtual("VmPeak") - before
limit = virtual("VmSize") + int(0.7 * needed)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
sizes.clear()
halved = shards.train_shard(task(configs, 400)).members
print(json.dumps({
    "needed": needed,
    "sizes": sizes,
    "failures": [member.failure for member in halved],
    "errors": [[member.error for member in members] for members in (whole, halved)],
}))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory limit and memory use are read from Linux")
def test_a_shard_that_runs_out_of_memory_is_halved() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert found["needed"] > 16 * (8 << 20)
    assert found["sizes"][:2] == [16, 8]  # which may be halved again, if memory is in pieces
    assert found["failures"] == [None] * 16
    whole, halved = found["errors"]
    assert halved == whole
    assert len(set(whole)) > 8
