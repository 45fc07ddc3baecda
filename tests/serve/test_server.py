"""The server in processes: load, malformed requests, signals, workers."""

from __future__ import annotations

import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parallelmlp_search import load
from tests.serve.client import ROOT, ask, connect, fetch, rows_of, running_server
from tests.serve.conftest import people
from tests.test_bounds import bounds

pytestmark = pytest.mark.alone

IMPORT_NAMES = {"scikit-learn": "sklearn"}


def run_threads(n_threads: int, function: Any) -> None:
    """Call a function with the number of each thread, and raise the first error."""
    errors: list[BaseException] = []

    def call(number: int) -> None:
        try:
            function(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(n_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_is_lost_among_a_thousand_malformed_ones(workers: int, people_run: Path) -> None:
    frame = people()
    rows, expected = rows_of(frame), load(people_run).predict_proba(frame)
    found = np.full_like(expected, np.nan)
    bad = [b"{", b"[[1]]", b"\xff", b"{}", b"[]", b'{"age": 3}', b"nul", b"1e999"]
    n_refused = [0] * 4

    with running_server(people_run, "--workers", str(workers)) as (server, url):

        def client(number: int) -> None:
            connection, choice = connect(url), random.Random(number)
            for row in range(number, len(rows), 4):
                for _ in range(choice.randrange(6)):
                    n_refused[number] += ask(connection, choice.choice(bad)).status in (400, 422)
                reply = ask(connection, rows[row])
                assert reply.status == 200
                found[row] = list(reply.content["probabilities"][0].values())
            while n_refused[number] < 250:
                n_refused[number] += ask(connection, choice.choice(bad)).status in (400, 422)
            connection.close()

        run_threads(4, client)
        counters = fetch(url, "/metrics").body.decode()
        server.send_signal(signal.SIGTERM)
        _, errors = server.communicate(timeout=30)
    np.testing.assert_allclose(found, expected, atol=2e-6)  # of batches of other sizes
    assert f'pmlp_requests_total{{status="200"}} {len(rows)}\n' in counters
    refused = [int(line.split()[1]) for line in counters.splitlines() if line.startswith("pmlp_errors_total")]
    assert sum(refused) == sum(n_refused) >= 1000
    assert server.returncode == 0
    assert errors.splitlines()[-1] == "stopped"
    assert "Traceback" not in errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_after_the_requests_in_progress(
    number: signal.Signals, people_run: Path
) -> None:
    frame = people()
    many = rows_of(frame) * 20
    with running_server(people_run) as (server, url):
        connection = connect(url)
        connection.request("POST", "/predict", json.dumps(many), {"Content-Type": "application/json"})
        time.sleep(0.05)
        server.send_signal(number)
        answer = connection.getresponse()
        assert answer.status == 200
        assert len(json.loads(answer.read())["predictions"]) == len(many)
        _, errors = server.communicate(timeout=30)
    connection.close()
    assert server.returncode == 0
    assert errors.splitlines()[-1] == "stopped"
    with pytest.raises(OSError, match="refused"):
        fetch(url, "/health")


def test_requests_that_are_no_http_do_not_disturb(people_run: Path) -> None:
    with running_server(people_run) as (_, url):
        host, port = url.removeprefix("http://").split(":")
        for data in (
            b"\x16\x03\x01\x02\x00",
            b"POST /predict HTTP/1.1\r\nContent-Length: x\r\n\r\n",
            b"\r\n\r\n",
        ):
            with socket.create_connection((host, int(port))) as raw:
                raw.sendall(data)
        with socket.create_connection((host, int(port))) as raw:  # ends in the middle of its body
            raw.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert fetch(url, "/health").content == {"status": "ok"}
        connection = connect(url)
        assert ask(connection, rows_of(people().head(1))[0]).status == 200
        connection.close()


def test_the_image_has_what_predicting_imports(offers_run: Path) -> None:
    lines = (ROOT / "docker" / "requirements.txt").read_text(encoding="utf-8").splitlines()
    installed = {line for line in lines if not line.startswith("#")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = bounds(project["dependencies"]).keys()
    extra = bounds(project["optional-dependencies"]["serve"]).keys()
    assert extra <= installed <= declared | extra
    absent = [IMPORT_NAMES.get(name, name) for name in declared - installed]
    assert "torch" in absent
    code = f"""
import sys, tempfile
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {absent!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Absent())
import parallelmlp_search.cli.app
from parallelmlp_search.serve.server import ServerSettings
from tests.serve.client import Client
client = Client(ServerSettings({str(offers_run)!r}, 10**6, 100, tempfile.mkdtemp(), 0).app())
row = client.get("/openapi.json").content["components"]["schemas"]["Row"]["examples"][0]
print(client.post(row).status, client.post([row] * 40).status)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "200 200\n", done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "{port}"], "--port must be one that can be opened, but got {port}"),
        (["--host", "no.such.host.invalid"], "--host must be a name or an address, but got"),
        (["--max-body", "huge"], "--max-body must be bytes > 0 or a size such as"),
        (["--workers", "0"], "'--workers'"),
    ],
)
def test_mistakes_in_options_are_one_sentence(options: list[str], message: str, people_run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [option.format(port=port) for option in options]
        done = subprocess.run(
            [sys.executable, "-m", "parallelmlp_search", "serve", str(people_run), *words],
            capture_output=True, text=True, cwd=ROOT, check=False,
        )  # fmt: skip
    assert done.returncode == 2
    assert message.format(port=port) in done.stderr
    assert done.stderr.count("\n") == 1
