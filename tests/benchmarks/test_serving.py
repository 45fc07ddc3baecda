"""Benchmark of the server: its client notices what is wrong, and its table."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from benchmarks.serving import Load, _send, missed, published, table


class _Answers(BaseHTTPRequestHandler):
    """Answers rows with their number as probability, and every fifth wrongly."""

    protocol_version = "HTTP/1.1"
    n_requests = 0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).n_requests += 1
        try:
            value = json.loads(body)["value"] + 0.1 * (self.n_requests % 5 == 0)
            status, content = 200, {"probabilities": [{"no": 1 - value, "yes": value}]}
        except (ValueError, TypeError, KeyError):
            status, content = 400, {}
        answer = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def url() -> Iterator[str]:
    _Answers.n_requests = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("rate", [None, 200.0])
def test_wrong_answers_are_lost(rate: float | None, url: str) -> None:
    bodies = [json.dumps({"value": number / 4}).encode() for number in range(3)]
    load = Load(url, bodies, [[0.0], [0.25], [0.5]], 0.3, n_connections=2, rate=rate, n_malformed=9)
    found = asyncio.run(_send(load))
    assert found["requests"] + found["malformed"] == _Answers.n_requests
    assert 0 < found["lost"] <= _Answers.n_requests // 5
    assert found["malformed_lost"] == 0
    assert 0 < found["p50"] <= found["p99"] <= found["max"]
    if rate is not None:
        assert found["per_second"] < 1.1 * rate


def test_a_server_that_hangs_up_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        load = Load(f"http://127.0.0.1:{listener.getsockname()[1]}", [b"{}"], [[0.0]], 0.2, n_connections=1)

        def hang_up() -> None:
            connection, _ = listener.accept()
            connection.recv(100)
            connection.close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(ConnectionError):
            asyncio.run(_send(load))


def rows(per_second: float, p99: float, lost: int) -> list[dict[str, Any]]:
    times = {"p50": 0.001, "p99": p99, "max": 0.03, "lost": lost, "malformed_lost": 0}
    common = {"workers": 1, "rows": 1, "members": 5, "folds": 8, "per_second": per_second} | times
    return [{"case": "as many as possible"} | common, {"case": "2,000 per second"} | common]


def test_targets_and_table() -> None:
    good = rows(2500.0, 0.01, 0)
    assert missed(good) == []
    assert missed(rows(1500.0, 0.03, 2)) == [
        "1,500 requests per second, the target is 2,000",
        "99 % within 30.0 ms, the target is 20 ms",
        "4 requests were lost",
    ]
    assert table(good).splitlines()[2] == (
        "| as many as possible | 1 | 2,500 | 2,500 | 1.0 ms | 10.0 ms | 30.0 ms | 0 |"
    )
    machine = {"cores": 2, "load_before": 1.4}
    assert "Other programs were running: the load before was 1.4." in published(
        {"machine": machine, "rows": good}
    )
