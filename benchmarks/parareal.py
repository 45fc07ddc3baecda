"""Parareal networks: accuracy and step times against rivals and the cost model.

``python -m benchmarks.parareal`` trains deep networks serially and in slices for the same number of epochs,
times steps of two ranks against one process, data parallelism and pipelines, and compares them with the cost
model. It writes ``benchmarks/results/parareal.json`` and a plot. ``--quick`` takes less than three minutes
and writes nothing. ``--only accuracy|speed|images`` repeats one part and keeps the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.parareal_plot import scaling_plot
from benchmarks.publishing import ROOT, describe_machine
from parallelmlp_search.data import holdout, infer_task, read_table, split_target
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.parareal import Communicator, DistributedParareal, Recipe
from parallelmlp_search.parareal.ranks.jobs import build_network
from parallelmlp_search.parareal.ranks.training import member_outputs, train_network
from parallelmlp_search.search import Problem, SearchSettings
from parallelmlp_search.search.problem.preparation import Preparation
from parallelmlp_search.space import MLPConfig

RESULTS = ROOT / "benchmarks" / "results" / "parareal.json"
PLOT = RESULTS.with_name("parareal_scaling.svg")
TARGETS = {"letter": "lettr", "satimage": "classes", "mnist5k": "target"}
EPOCHS = {"letter": 8, "satimage": 20, "mnist5k": 20}
DEPTH, WIDTH, BATCH = 32, 96, 128
SEEDS = 6
"""Three are too few: on satimage, accuracy differs by 0.6 points between seeds."""
NETWORKS = ((64, 96), (64, 128), (128, 96), (256, 64))
"""Depths and widths of the networks whose steps are timed."""


def accuracy(quick: bool) -> list[dict[str, Any]]:
    """Measure the accuracy on held-out rows of the serial network and of 2 and 4 slices, at equal epochs."""
    found = []
    for name in ("satimage",) if quick else TARGETS:
        for seed in range(3 if quick else SEEDS):
            for slices in (1, 2, 4):
                row = trained(name, slices, seed, EPOCHS[name] if not quick else 6)
                print(f"{name:9s} seed {seed}, {slices} slices: {100 * row['accuracy']:.2f} %", flush=True)
                found.append(row)
    return found


def trained(name: str, slices: int, seed: int, epochs: int) -> dict[str, Any]:
    """Train a network on three quarters of the rows, epoch included, and score it on the last quarter.

    Parameters
    ----------
    name
        Table.
    slices
        Slices of depth; 1 for the serial network.
    seed
        Seed of the split and of the network.
    epochs
        Epochs of training.

    Returns
    -------
    dict
        Row of the results file.
    """
    frame = read_table(ROOT / "datasets" / f"{name}.csv.gz")
    features, target = split_target(frame, TARGETS[name])
    labels = target.to_numpy()
    task = infer_task(target, None)
    split = holdout(labels, fraction=0.25, task=task, seed=seed)
    problem = Problem(features.iloc[split.train].reset_index(drop=True), labels[split.train], task)
    preparation = Preparation(problem, SearchSettings(seed=seed, metric="accuracy"))
    part = preparation.screening()
    classes = preparation.classes
    assert classes is not None
    held_back = torch.from_numpy(part.preprocessor.transform(features.iloc[split.test]))
    data = replace(part.data, prediction_inputs=held_back)
    config = MLPConfig(
        widths=(WIDTH,) * DEPTH, residual=True, normalization="layer", learning_rate=1e-3, weight_decay=1e-2,
        schedule="cosine", batch_size=BATCH, seed=seed,
    )  # fmt: skip
    network = build_network(config, slices, n_inputs=data.n_inputs, n_outputs=data.head.n_outputs)
    steps = -(-epochs * len(data.rows.inputs) // BATCH)
    engine = DistributedParareal(network, Communicator(), Recipe.of(config, steps), data.rows.inputs[:2])
    began = time.monotonic()
    run = train_network(engine, data, batch_size=BATCH, epochs=epochs)
    with engine.weights(run.weights):
        outputs = engine.predict(held_back)
    assert outputs is not None
    predictions = head_predictions(data.head, member_outputs(outputs))[0]
    guesses = classes.classes_[predictions.argmax(dim=0).numpy()]
    return {
        "data": name,
        "seed": seed,
        "slices": slices,
        "depth": DEPTH,
        "epochs": epochs,
        "accuracy": float((guesses == labels[split.test]).mean()),
        "parameters": sum(p.numel() for p in network.parameters()),
        "seconds": time.monotonic() - began,
    }


def ranks(kind: str, spec: dict[str, Any], n_ranks: int) -> dict[str, Any]:
    """Run a part of :mod:`benchmarks.parareal_ranks` with torchrun.

    Parameters
    ----------
    kind
        ``"steps"`` or ``"images"``.
    spec
        Settings of the part.
    n_ranks
        Ranks of one thread each.

    Returns
    -------
    dict
        Figures of the first rank.

    Raises
    ------
    SystemExit
        If a rank fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        command = [
            sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n_ranks),
            "-m", "benchmarks.parareal_ranks", kind, str(output), json.dumps(spec),
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(done.stderr[-3000:])
        return dict(json.loads(output.read_text()))


def speed(quick: bool, networks: tuple[tuple[int, int], ...] = NETWORKS) -> list[dict[str, Any]]:
    """Time the steps of networks of growing depth, with rivals and predictions."""
    found = []
    for depth, width in networks[:1] if quick else networks:
        spec = {"depth": depth, "width": width, "rows": BATCH, "repeats": 20, "rounds": 2 if quick else 5}
        row = ranks("steps", spec, 2)
        row["summary"] = summary(row)
        found.append(row)
        print(f"depth {depth}, width {width}: {json.dumps(row['summary'])}", flush=True)
    return found


def summary(row: dict[str, Any]) -> dict[str, Any]:
    """Return the ratios of one network as medians over rounds, each of which has all sides."""
    rounds = row["rounds"]

    def ratio(name: str) -> float:
        return statistics.median(r["serial"] / r[name] for r in rounds)

    pipelines = [name for name in rounds[0] if name.startswith("pipeline")]
    step = statistics.median(r["parareal"] for r in rounds)
    busy = {p["slices"]: p for p in row["predictions"]["busy"]}
    quiet = {p["slices"]: p for p in row["predictions"]["quiet"]}
    by_rank = {int(k): v for k, v in row["rank_by_rank"].items()}
    serial = statistics.median(r["serial"] for r in rounds)
    return {
        "serial_ms": 1e3 * serial,
        "parareal_2_ms": 1e3 * step,
        "speedup_2": ratio("parareal"),
        "data_parallel": ratio("data parallel"),
        "pipeline": max(ratio(name) for name in pipelines),
        "disturbed": row["disturbed"],
        "crowding": statistics.median(r["serial, both cores busy"] / r["serial"] for r in rounds),
        "predicted_2_ms": 1e3 * quiet[2]["step"],
        "predicted_2_busy_ms": 1e3 * busy[2]["step"],
        "predicted_over_measured_2": busy[2]["step"] / step,
        "predicted_speedup_4": quiet[4]["speedup"],
        "rank_by_rank_speedup_4": serial / by_rank[4]["step"],
        "predicted_over_rank_by_rank_4": quiet[4]["step"] / by_rank[4]["step"],
    }


def images(quick: bool) -> list[dict[str, Any]]:
    """Train VGG-16 and ResNet-1001 for a few steps over four ranks."""
    specs = [{"network": "vgg16", "rows": 32, "steps": 4 if quick else 12, "rate": 1e-4}]
    if not quick:
        specs.append({"network": "resnet1001", "rows": 8, "steps": 8, "rate": 1e-4})
    found = []
    for spec in specs:
        row = ranks("images", spec, 4)
        losses = ", ".join(f"{loss:.2f}" for loss in row["losses"])
        print(f"{spec['network']}: {row['step_seconds']:.2f} s per step, losses {losses}", flush=True)
        found.append(row)
    return found


def overview(results: dict[str, Any]) -> dict[str, Any]:
    """Return the gains in accuracy and the summaries of step times, rounded."""
    gained = {}
    rows = results.get("accuracy", [])
    points = {(row["data"], row["slices"], row["seed"]): 100 * row["accuracy"] for row in rows}
    for name in sorted({row["data"] for row in rows}):
        seeds = sorted({row["seed"] for row in rows if row["data"] == name})
        for slices in (2, 4):
            gains = [points[name, slices, seed] - points[name, 1, seed] for seed in seeds]
            spread = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else float("nan")
            gained[f"{name}, {slices} slices"] = {
                "mean": round(statistics.mean(gains), 2),
                "standard_error": round(spread, 2),
                "first_three": round(statistics.mean(gains[:3]), 2),
            }
    found: dict[str, Any] = {"accuracy_points_against_serial": gained}
    for row in results.get("speed", []):
        spec = row["spec"]
        found[f"depth {spec['depth']}, width {spec['width']}"] = {
            name: round(value, 2) for name, value in row["summary"].items()
        }
    return found


def main() -> None:
    """Measure the selected parts, print an overview and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="under three minutes; writes nothing")
    parser.add_argument("--only", choices=("accuracy", "speed", "images"), help="repeat one part")
    parser.add_argument("--depth", type=int, help="with --only speed, only networks of this depth")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    if arguments.only and RESULTS.is_file() and not arguments.quick:
        results = json.loads(RESULTS.read_text())
    measures: dict[str, Any] = {"accuracy": accuracy, "speed": speed, "images": images}
    if arguments.depth:
        chosen = tuple(network for network in NETWORKS if network[0] == arguments.depth)
        kept = [row for row in results.get("speed", []) if row["spec"]["depth"] != arguments.depth]
        measures["speed"] = lambda quick: sorted(
            [*kept, *speed(quick, chosen)], key=lambda row: (row["spec"]["depth"], row["spec"]["width"])
        )
    for name, measure in measures.items():
        if arguments.only in (None, name):
            results[name] = measure(arguments.quick)
            results.setdefault("machine", {})[name] = describe_machine()
            if not arguments.quick:  # keep finished parts
                RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if not arguments.quick and "speed" in results:
        PLOT.write_text(scaling_plot(results["speed"]), encoding="utf-8")
    print(json.dumps(overview(results)))


if __name__ == "__main__":
    main()
