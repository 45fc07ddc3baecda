"""Latency of predictions, start-up of programs, and memory.

``python -m benchmarks.latency`` searches two bundled tables with a fixed number of epochs, then measures

- one row and 100,000 rows in a running program: with this package, with the same networks in torch, and with
  scikit-learn's ``HistGradientBoostingClassifier`` on the same rows, and the exported model in onnxruntime;
- whole programs in new processes: importing an estimator, loading a run and predicting one row, and the
  command ``pmlp``; with the peak of their memory.

The tools take turns, so that a slow moment of the machine meets all of them. The times are those of a clock:
they hold only if the machine is otherwise idle. It writes ``benchmarks/results/latency.json`` and the tables
in ``docs/speed.md``; ``--quick`` measures few repetitions and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
from numpy.typing import NDArray

from benchmarks.publishing import ROOT, describe_machine, fill, marks
from parallelmlp_search import ParallelMLPClassifier
from parallelmlp_search.engine.heads import stable_head_predictions
from parallelmlp_search.engine.network import PackedNetwork, window_rows
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.space import Categorical, Float, SearchSpace

__all__ = [
    "TARGETS",
    "OnnxModel",
    "TorchModel",
    "calls_table",
    "main",
    "missed",
    "processes_table",
    "published",
    "quantiles",
    "run_process",
]

RESULTS = ROOT / "benchmarks" / "results" / "latency.json"
DOCS = ROOT / "docs" / "speed.md"

MANY_ROWS = 100_000
TRAINING_ROWS = 2_000
SPACE = SearchSpace(
    {
        "depth": Categorical((2,)),
        "width": Categorical((128,)),
        "activation": Categorical(("silu", "selu", "relu")),
        "learning_rate": Float(1e-3, 1e-2, log=True),
    }
)
SEARCH: Mapping[str, Any] = {
    "search_space": SPACE, "n_trials": 9, "max_epochs": 3, "n_finalists": 3, "n_folds": 5, "random_state": 0,
}  # fmt: skip
"""Search of the ensembles: networks of a common size on few rows, since training does not change latency."""


OURS, TORCH, TREES = "parallelmlp_search", "the same networks in torch", "HistGradientBoostingClassifier"
ONNX = "the same model in onnxruntime"
ONE_ARRAY, ONE_FRAME, MANY = "one row, array", "one row, DataFrame", f"{MANY_ROWS:,} rows"
LOAD = "import, load a run, predict one row"

TARGETS = {ONE_ARRAY: 0.001, ONE_FRAME: 0.003, MANY: 1.0, LOAD: 1.5}
"""Seconds that the median should not exceed, on two cores."""

ONNX_TARGETS = {ONE_ARRAY: 0.0003, ONE_FRAME: 0.0003}
"""The same for an exported model."""

Predict = Callable[[Any], Any]


class TorchModel:
    """The networks of a model in torch, fold by fold, as they are evaluated in training.

    Parameters
    ----------
    model
        Trained model.
    """

    def __init__(self, model: TrainedModel) -> None:
        self._model = model
        self._networks: dict[tuple[int, int], PackedNetwork] = {}

    def __call__(self, X: Any) -> NDArray[np.float64]:
        """Return the probabilities ``(classes, n)`` without postprocessing."""
        total = 0.0
        for number, fold in enumerate(self._model.folds):
            rows = torch.from_numpy(fold.encoder.encode(X))
            n_rows = window_rows(len(rows), 1024)
            network = self._networks.setdefault((number, n_rows), PackedNetwork(fold.layout, n_rows))
            shares = torch.from_numpy(self._model.weights[list(fold.layout.members)])
            outputs = network.predict(torch.from_numpy(fold.parameters), rows)
            predictions = stable_head_predictions(fold.head, outputs).double()
            total += torch.einsum("p,pcn->cn", shares, predictions)
        found: NDArray[np.float64] = (total / len(self._model.folds)).numpy()  # type: ignore[attr-defined]
        return found


class OnnxModel:
    """Exported model in onnxruntime with one thread.

    Parameters
    ----------
    path
        File of the model.
    """

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(path, options)

    def __call__(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        """Return the probabilities ``(n, classes)`` of :meth:`inputs`."""
        probabilities: NDArray[Any] = self._session.run(None, inputs)[0]
        return probabilities

    def inputs(self, rows: Any) -> dict[str, NDArray[Any]]:
        """Return the inputs of rows of numbers and categories."""
        found = {}
        for one in self._session.get_inputs():
            if isinstance(rows, np.ndarray):
                found[one.name] = rows
            elif one.type == "tensor(double)":
                found[one.name] = rows[one.name].to_numpy(dtype=np.float64, na_value=np.nan).reshape(-1, 1)
            else:
                texts = ["" if pd.isna(cell) else str(cell) for cell in rows[one.name]]
                found[one.name] = np.array(texts, dtype=object).reshape(-1, 1)
        return found


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Return the median, the 95th percentile and the number of some durations."""
    p50, p95 = np.quantile(seconds, [0.5, 0.95]).tolist()
    return {"p50": p50, "p95": p95, "n": len(seconds)}


def measure_calls(what: str, tools: Mapping[str, tuple[Predict, Any]], repeats: int) -> list[dict[str, Any]]:
    """Measure the calls of tools, which take turns.

    Parameters
    ----------
    what
        Name of the case.
    tools
        Function and argument of each tool.
    repeats
        Calls of each tool, after one that does not count.

    Returns
    -------
    list of dict
        Rows of the results file.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tools}
    for repeat in range(repeats + 1):
        for name, (predict, rows) in tools.items():
            began = time.perf_counter()
            predict(rows)
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return [{"what": what, "tool": name} | quantiles(found) for name, found in seconds.items()]


_WRAPPER = """
import json, os, subprocess, sys, time
began = time.perf_counter()
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
seconds = time.perf_counter() - began
print(json.dumps([status, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024]))
"""
"""Program that starts another. The peak of a process is at least that of the process that started it."""


def run_process(command: list[str]) -> tuple[float, float, float]:
    """Run a program; return its seconds, its CPU seconds, and the peak of its memory in MB.

    Raises
    ------
    RuntimeError
        If it fails.
    """
    done = subprocess.run(
        [sys.executable, "-S", "-c", _WRAPPER, *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    status, seconds, cpu, peak = json.loads(done.stdout)
    if status:
        raise RuntimeError(f"{command} failed: {done.stderr}")
    return seconds, cpu, peak


def measure_processes(commands: Mapping[str, list[str]], repeats: int) -> list[dict[str, Any]]:
    """Measure programs in new processes, which take turns; return rows of the results file."""
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in commands}
    for repeat in range(repeats + 1):  # the first time reads files from the disk
        for name, command in commands.items():
            one = run_process(command)
            if repeat:
                found[name].append(one)
    return [
        {
            "what": name,
            **quantiles([seconds for seconds, _, _ in runs]),
            "cpu": float(np.median([cpu for _, cpu, _ in runs])),
            "peak_mb": max(peak for _, _, peak in runs),
        }
        for name, runs in found.items()
    ]


def boosting(X: Any, y: Any) -> Any:
    """Return fitted boosted trees with their default settings."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0, categorical_features="from_dtype").fit(X, y)


def as_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose texts are categories, as the trees need them."""
    texts = [name for name, dtype in frame.dtypes.items() if not pd.api.types.is_numeric_dtype(dtype)]
    return frame.astype(dict.fromkeys(texts, "category"))


def measure(folder: Path, *, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Search both tables and measure everything; runs and files are written into a folder."""
    adult = pd.read_csv(ROOT / "datasets" / "adult.csv.gz")
    frame, target = adult.drop(columns="income"), adult["income"]
    spam = pd.read_csv(ROOT / "datasets" / "spambase.csv.gz")
    array, is_spam = spam.drop(columns="type").to_numpy(np.float64), spam["type"].to_numpy()
    categories = as_categories(frame)
    many = pd.concat([frame] * 3, ignore_index=True).head(MANY_ROWS)
    first = slice(0, TRAINING_ROWS)
    ours = ParallelMLPClassifier(**SEARCH, run_directory=folder / "adult").fit(frame[first], target[first])
    ours_of_arrays = ParallelMLPClassifier(**SEARCH).fit(array[::2], is_spam[::2])
    trees, trees_of_arrays = boosting(categories[first], target[first]), boosting(array, is_spam)
    calls = []
    for what, repeats, tools in (
        (ONE_ARRAY, 300, (ours_of_arrays, trees_of_arrays, array[:1], array[:1])),
        (ONE_FRAME, 300, (ours, trees, frame.head(1), categories.head(1))),
        (MANY, 5, (ours, trees, many, as_categories(many))),
    ):
        model, boosted, rows, rows_of_trees = tools
        in_torch = pd.DataFrame(rows, columns=model.model_.feature_names)
        in_onnxruntime = OnnxModel(model.export(folder / "model.onnx"))
        functions = {
            OURS: (model.predict_proba, rows),
            ONNX: (in_onnxruntime, in_onnxruntime.inputs(rows)),
            TORCH: (TorchModel(model.model_), in_torch),
            TREES: (boosted.predict_proba, rows_of_trees),
        }
        calls += measure_calls(what, functions, 2 if quick else repeats)
    return {
        "networks": [networks_of(model.model_) for model in (ours_of_arrays, ours)],
        "calls": calls,
        "processes": measure_processes(programs(folder, frame, trees), 1 if quick else 7),
    }


def networks_of(model: TrainedModel) -> dict[str, Any]:
    """Return the size of an ensemble."""
    return {
        "folds": len(model.folds),
        "widths": [list(config.widths) for config in model.configs],
        "inputs": [fold.encoder.n_outputs for fold in model.folds],
    }


def programs(folder: Path, frame: pd.DataFrame, trees: Any) -> dict[str, list[str]]:
    """Return the programs to start, by name; files that they read are written into the folder."""
    frame.head(1).to_csv(folder / "row.csv", index=False)
    frame.head(1000).to_csv(folder / "rows.csv", index=False)
    frame.head(MANY_ROWS).to_parquet(folder / "many.parquet")
    (folder / "trees.pickle").write_bytes(pickle.dumps((trees, as_categories(frame).head(1))))
    run, pmlp = str(folder / "adult"), [sys.executable, "-m", "parallelmlp_search"]

    def code(text: str) -> list[str]:
        return [sys.executable, "-c", text]

    def predicting(rows: str) -> list[str]:
        name = str(folder / rows)
        read = f"read_parquet({name!r})" if name.endswith("parquet") else f"read_csv({name!r})"
        return code(
            f"from parallelmlp_search import Run\nmodel = Run({run!r}).model()\n"
            f"import pandas\nmodel.predict(pandas.{read})"
        )

    unpickled = f"pickle.load(open({str(folder / 'trees.pickle')!r}, 'rb'))"
    return {
        "python": code("pass"),
        "import pandas": code("import pandas"),
        "import torch": code("import torch"),
        "import an estimator": code("from parallelmlp_search import ParallelMLPClassifier"),
        LOAD: predicting("row.csv"),
        f"{TREES}: the same": code(f"import pickle\ntrees, row = {unpickled}\ntrees.predict(row)"),
        f"import, load a run, predict {len(frame):,} rows": predicting("many.parquet"),
        "pmlp --help": [*pmlp, "--help"],
        "pmlp predict, 1,000 rows": [
            *pmlp, "predict", run, str(folder / "rows.csv"), "--output", str(folder / "out.csv"),
        ],
    }  # fmt: skip


def duration(seconds: float) -> str:
    """Return a duration with its unit."""
    return f"{1e3 * seconds:.2f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


def calls_table(rows: list[dict[str, Any]]) -> str:
    """Return the calls as a Markdown table."""
    lines = ["| case | tool | median | 95 % |", "|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['tool']} | {duration(row['p50'])} | {duration(row['p95'])} |" for row in rows
    ]
    return "\n".join(lines)


def processes_table(rows: list[dict[str, Any]]) -> str:
    """Return the programs as a Markdown table."""
    lines = ["| program | median | CPU time | peak of memory |", "|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {duration(row['p50'])} | {duration(row['cpu'])} | {row['peak_mb']:.0f} MB |"
        for row in rows
    ]
    return "\n".join(lines)


def published(found: Mapping[str, Any]) -> dict[str, str]:
    """Return the tables of a results file by name, with a note if the machine was busy."""
    load, cores, note = found["machine"]["load_before"], found["machine"]["cores"], ""
    if load > 0.25 * cores:
        note = f"\n\nThe machine was busy, with a load of {load:.0f} on {cores} cores."
        note += " CPU times hold; times of the clock are too\nlong."
    return {
        "latency": calls_table(found["calls"]) + note,
        "start_up": processes_table(found["processes"]),
    }


def missed(rows: list[dict[str, Any]]) -> list[str]:
    """Return the targets that the rows miss, one sentence each."""
    targets = {OURS: TARGETS, ONNX: ONNX_TARGETS}
    found = []
    for row in rows:
        target = targets.get(row.get("tool", OURS), {}).get(row["what"], float("inf"))
        if row["p50"] > target:
            found.append(
                f"{row['what']}: the median is {duration(row['p50'])}, the target is {duration(target)}"
            )
    return found


def main() -> None:
    """Measure everything, print the tables, and publish them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions, and nothing is written")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = measure(Path(folder), quick=arguments.quick)
    machine = describe_machine() | {"day": time.strftime("%Y-%m-%d"), "load_before": load}
    results = {"machine": machine, **found}
    tables = published(results)
    print("\n\n".join(tables.values()))
    for sentence in missed([*found["calls"], *found["processes"]]):
        print(sentence)
    if not arguments.quick:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        for name, text in tables.items():
            fill(DOCS, marks(name), text)


if __name__ == "__main__":
    main()
