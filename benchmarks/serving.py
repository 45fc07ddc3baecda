"""Requests per second and latency of ``pmlp serve``, also with malformed requests among the others.

``python -m benchmarks.serving`` searches the table adult as ``benchmarks.latency`` does, for networks of a
common size, starts the server on a free port of this machine, and sends requests from a second process over
connections that stay open:

- *as many as possible*: each connection sends the next request when its answer has come;
- *2,000 per second*: requests begin at times that do not depend on the answers, so that one that waits makes
  the next ones late, and latency is counted from the time at which a request was due.

Each answer is compared with the prediction of the estimator; an answer that is missing or wrong is lost. The
client and the server share the cores of the machine. Results are written to
``benchmarks/results/serving.json`` and the table of ``docs/serve.md``; ``--quick`` takes a few seconds and
writes nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pandas as pd

from benchmarks.latency import SEARCH, TRAINING_ROWS
from benchmarks.publishing import ROOT, describe_machine, fill, marks

__all__ = ["RESULTS", "Load", "main", "missed", "published", "send_load", "table"]

RESULTS = ROOT / "benchmarks" / "results" / "serving.json"
DOCS = ROOT / "docs" / "serve.md"

N_CONNECTIONS = 32
RATE = 2000
N_MALFORMED = 1000
MALFORMED = (b"{", b"[[1]]", b"\xff\xfe", b"{}", b"[]", b'{"age": 3}', b"null", b'["', b"1e999")

MIN_RATE, MAX_P99 = 2000.0, 0.020
"""Requests per second of single rows, and seconds of the slowest percent at that rate, on two cores."""

TOLERANCE = 2e-6
"""Difference of probabilities in single precision that are computed in batches of other sizes."""


@dataclass(frozen=True)
class Load:
    """Requests to send.

    Attributes
    ----------
    url
        Address of the server.
    bodies, expected
        Bodies that are sent in turns, and the probability of the last class of the rows of each.
    seconds
        Duration.
    n_connections
        Connections that stay open.
    rate
        Requests per second, or None for as many as possible.
    n_malformed
        Malformed requests among them.
    """

    url: str
    bodies: Sequence[bytes]
    expected: Sequence[Sequence[float]]
    seconds: float
    n_connections: int = N_CONNECTIONS
    rate: float | None = None
    n_malformed: int = 0


class _Connection(asyncio.Protocol):
    """Connection that sends one request at a time and waits for its answer."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, _: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("closed"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        start = head.lower().index(b"content-length:") + 15
        size = int(head[start : start + 20].split(b"\r", 1)[0])
        if len(body) >= size and self._answer is not None:
            self._buffer = body[size:]
            self._answer.set_result((int(head[9:12]), body[:size]))

    async def ask(self, body: bytes) -> tuple[int, bytes]:
        """Send a body and return status and body of the answer."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()


async def _send(load: Load) -> dict[str, Any]:
    address, loop = urlsplit(load.url), asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(_Connection, address.hostname, address.port))[1]
        for _ in range(load.n_connections)
    ]
    choice, numbers = random.Random(0), iter(range(1 << 60))
    latencies: list[float] = []
    answers: list[tuple[int, int, bytes]] = []
    n_requests = load.rate * load.seconds if load.rate is not None else None
    share = load.n_malformed / (n_requests or 4000 * load.seconds)
    refused = {"sent": 0, "answered": 0}
    began = loop.time() + 0.1

    async def client(connection: _Connection) -> None:
        for number in numbers:
            due = began if load.rate is None else began + number / load.rate
            if (due if load.rate is not None else loop.time()) >= began + load.seconds:
                return
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            if refused["sent"] < load.n_malformed and choice.random() < share:
                refused["sent"] += 1
                status, _ = await connection.ask(choice.choice(MALFORMED))
                refused["answered"] += status in (400, 422)
                continue
            start = max(due, began) if load.rate is not None else loop.time()
            place = number % len(load.bodies)
            status, body = await connection.ask(load.bodies[place])
            latencies.append(loop.time() - start)
            answers.append((place, status, body))

    await asyncio.gather(*map(client, connections))
    seconds = loop.time() - began
    for connection in connections:
        connection.close()
    lost = sum(not _is_right(load.expected[place], status, body) for place, status, body in answers)
    p50, p99 = np.quantile(latencies, [0.5, 0.99]).tolist()
    return {
        "requests": len(answers), "per_second": len(answers) / seconds, "p50": p50, "p99": p99,
        "max": max(latencies), "lost": lost, "malformed": refused["sent"],
        "malformed_lost": refused["sent"] - refused["answered"],
    }  # fmt: skip


def _is_right(expected: Sequence[float], status: int, body: bytes) -> bool:
    if status != 200:
        return False
    found = [list(row.values())[-1] for row in json.loads(body)["probabilities"]]
    return bool(np.allclose(found, expected, rtol=0.0, atol=TOLERANCE))


def send_load(load: Load) -> dict[str, Any]:
    """Send requests from a process of its own; return their number, rate, latency and losses."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: dict[str, Any] = pool.apply(_run, (load,))
    return found


def _run(load: Load) -> dict[str, Any]:
    return asyncio.run(_send(load))


@contextmanager
def running_server(run: Path, workers: int) -> Iterator[str]:
    """Start ``pmlp serve`` on a free port, and yield its URL."""
    command = [sys.executable, "-m", "parallelmlp_search", "serve", str(run), "--port", "0"]
    server = subprocess.Popen(
        [*command, "--workers", str(workers)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    try:
        assert server.stdout is not None
        yield server.stdout.readline().strip()
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)


def measure(folder: Path, *, quick: bool) -> list[dict[str, Any]]:
    """Search the table, serve the run, and return one row for each load."""
    from parallelmlp_search import ParallelMLPClassifier

    adult = pd.read_csv(ROOT / "datasets" / "adult.csv.gz")
    frame, target = adult.drop(columns="income"), adult["income"]
    first = slice(0, TRAINING_ROWS)
    model = ParallelMLPClassifier(**SEARCH, run_directory=folder / "adult").fit(frame[first], target[first])
    rows = frame.tail(2000).reset_index(drop=True)
    expected = model.predict_proba(rows)[:, -1]
    records = json.loads(rows.to_json(orient="records"))
    single = [json.dumps(row).encode() for row in records]
    batches = [json.dumps(records[start : start + 100]).encode() for start in range(0, 2000, 100)]
    of_single = [[one] for one in expected.tolist()]
    of_batches = [part.tolist() for part in expected.reshape(20, 100)]
    seconds = 2.0 if quick else 5.0
    widths = [list(config.widths) for config in model.model_.configs]
    networks = {"members": len(widths), "folds": len(model.model_.folds), "widths": widths}
    found = []
    for workers in (1, 2):
        with running_server(folder / "adult", workers) as url:
            send_load(Load(url, single, of_single, 1.0))  # the first requests do not count
            loads = {
                f"as many as possible, {N_CONNECTIONS} connections": Load(url, single, of_single, seconds),
                f"{RATE:,} per second": Load(url, single, of_single, seconds, rate=RATE),
                f"{RATE:,} per second, {N_MALFORMED:,} malformed": Load(
                    url, single, of_single, seconds, rate=RATE, n_malformed=N_MALFORMED
                ),
                "100 rows each, 4 connections": Load(url, batches, of_batches, seconds, n_connections=4),
            }
            for name, load in loads.items():
                row = {"case": name, "workers": workers, "rows": len(load.expected[0])}
                found.append(row | networks | send_load(load))
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = [
        "| requests | workers | requests/s | rows/s | median | 99 % | slowest | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        rate, workers = row["per_second"], row["workers"]
        times = " | ".join(f"{1e3 * row[name]:.1f} ms" for name in ("p50", "p99", "max"))
        lost = row["lost"] + row["malformed_lost"]
        lines.append(
            f"| {row['case']} | {workers} | {rate:,.0f} | {rate * row['rows']:,.0f} | {times} | {lost} |"
        )
    return "\n".join(lines)


def published(results: Mapping[str, Any]) -> str:
    """Return the table of a results file, with a note if the machine was busy."""
    machine, first = results["machine"], results["rows"][0]
    note = (
        f"\n\nOne row of the table adult, an ensemble of {first['members']} configurations with "
        f"{first['folds']} networks each, all of two hidden layers of 128 neurons, "
        f"{machine['cores']} cores for the server and the client."
    )
    if machine["load_before"] > 0.25 * machine["cores"]:
        note += f" Other programs were running: the load before was {machine['load_before']:.1f}."
    return table(results["rows"]) + note


def missed(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the targets that no number of workers reaches, one sentence each."""
    found = []
    most = max(row["per_second"] for row in rows if row["case"].startswith("as many"))
    if most < MIN_RATE:
        found.append(f"{most:,.0f} requests per second, the target is {MIN_RATE:,.0f}")
    fastest = min(row["p99"] for row in rows if row["case"].startswith(f"{RATE:,} per second"))
    if fastest > MAX_P99:
        found.append(f"99 % within {1e3 * fastest:.1f} ms, the target is {1e3 * MAX_P99:.0f} ms")
    if lost := sum(row["lost"] + row["malformed_lost"] for row in rows):
        found.append(f"{lost} requests were lost")
    return found


def main() -> None:
    """Measure everything, print the table, and publish it."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few seconds, and nothing is written")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rows = measure(Path(folder), quick=arguments.quick)
    machine = describe_machine() | {"day": time.strftime("%Y-%m-%d"), "load_before": load}
    results = {"machine": machine, "rows": rows}
    print(published(results))
    for sentence in missed(rows):
        print(sentence)
    if not arguments.quick:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        fill(DOCS, marks("serving"), published(results))


if __name__ == "__main__":
    main()
