"""Calls of an application without a server, and of a server in a process."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Reply:
    """Status, headers by lower-case name, and body of an answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        """Sentence of an error."""
        text: str = self.content["detail"]
        return text


class Client:
    """Calls an ASGI application in an event loop of its own."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def get(self, path: str) -> Reply:
        return asyncio.run(self.send("GET", path))

    def post(self, body: Any, *, parts: int = 1, path: str = "/predict", **headers: str) -> Reply:
        """Post bytes, or a value as JSON; names of headers have underscores."""
        return asyncio.run(self.send("POST", path, body, parts=parts, **headers))

    async def send(self, method: str, path: str, body: Any = b"", *, parts: int = 1, **headers: str) -> Reply:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        step = max(1, -(-len(content) // parts))
        pieces = [content[start : start + step] for start in range(0, len(content), step)] or [b""]
        pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": pairs, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        sent: list[Any] = []

        async def receive() -> Any:
            if not pieces:
                return {"type": "http.disconnect"}
            return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

        async def collect(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, collect)
        found = {name.decode().lower(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], found, b"".join(message.get("body", b"") for message in sent[1:]))


@contextmanager
def running_server(run: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start ``pmlp serve`` on a free port, and yield the process and the URL."""
    server = subprocess.Popen(
        [sys.executable, "-m", "parallelmlp_search", "serve", str(run), "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert server.stdout is not None
        yield server, server.stdout.readline().strip()
    finally:
        if server.poll() is None:
            server.kill()
        server.communicate(timeout=60)


def connect(url: str) -> http.client.HTTPConnection:
    address = urlsplit(url)
    return http.client.HTTPConnection(str(address.hostname), address.port, timeout=60)


def ask(connection: http.client.HTTPConnection, body: Any, path: str = "/predict") -> Reply:
    """Post bytes or a value as JSON over a connection that stays open."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("POST", path, content, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    return Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def fetch(url: str, path: str) -> Reply:
    connection = connect(url)
    connection.request("GET", path)
    answer = connection.getresponse()
    reply = Reply(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
    connection.close()
    return reply


def rows_of(frame: Any) -> Sequence[dict[str, Any]]:
    """Rows of a frame as JSON holds them."""
    rows: list[dict[str, Any]] = json.loads(frame.to_json(orient="records", date_format="iso"))
    return rows
