"""Headless Chromium, driven over the pipe of its DevTools protocol; needs no package and no network.

``Browser`` starts the program that ``PMLP_BROWSER`` or the path names. It reports errors of the console and
requests, and evaluates JavaScript.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
    "--force-color-profile=srgb", "--remote-debugging-pipe",
)  # fmt: skip

LAUNCHER = """
import os, sys
for file, place in zip(sys.argv[1:3], (3, 4)):
    os.dup2(int(file), place)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_browser() -> str | None:
    """Return the program of a browser, or None."""
    return os.environ.get("PMLP_BROWSER") or next(filter(None, map(shutil.which, PROGRAMS)), None)


class Browser:
    """One page in a new browser without a profile.

    Parameters
    ----------
    folder
        Empty folder for the data of the browser.
    timeout
        Seconds after which an answer that has not come is an error.
    """

    def __init__(self, folder: Path, timeout: float = 60.0) -> None:
        program = find_browser()
        assert program is not None
        self.timeout = timeout
        self.events: list[dict[str, Any]] = []
        self._number, self._buffer = 0, b""
        self._process, self._to_browser, self._from_browser = _start(program, folder)
        self._session: str | None = None

    def __enter__(self) -> Self:
        try:
            target = self.call("Target.createTarget", url="about:blank")["targetId"]
            self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            for domain in ("Page", "Runtime", "Network", "Log"):
                self.call(f"{domain}.enable")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self._session = None
        try:
            self.call("Browser.close")
            self._process.wait(10)
        except Exception:
            self._process.kill()
            self._process.wait()
        os.close(self._to_browser)
        os.close(self._from_browser)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])
            self.events.append(answer)

    def _receive(self) -> dict[str, Any]:
        deadline = time.monotonic() + self.timeout
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._from_browser], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise TimeoutError(f"the browser has not answered for {self.timeout} s")
            piece = os.read(self._from_browser, 1 << 20)
            if not piece:
                raise EOFError("the browser has ended")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def open(self, path: Path) -> float:
        """Open a file and wait until it is loaded; return the seconds from the request to the load event."""
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("document.readyState === 'complete'")
        self.wait_for("performance.timing.loadEventEnd > 0")
        return float(self.run("performance.timing.loadEventEnd - performance.timing.navigationStart")) / 1000

    def run(self, script: str) -> Any:
        """Return the value of an expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true."""
        wait_until(lambda: bool(self.run(condition)), self.timeout, condition)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Set the size of the page in pixels."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )

    def prefer(self, scheme: str) -> None:
        """Prefer light or dark colours."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def press(self, key: str, code: str = "", text: str = "") -> None:
        """Press a key."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=code or key, text=text)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Save what is visible, or the whole page, as PNG or WebP."""
        kind = path.suffix.removeprefix(".")
        found = self.call("Page.captureScreenshot", format=kind, captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def errors(self) -> list[str]:
        """Errors and warnings of the console, and exceptions, since the page was opened."""
        self.run("0")  # receives what has been sent
        found = []
        for event in self.events:
            values = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(str(values["exceptionDetails"].get("exception", values["exceptionDetails"])))
            elif event["method"] == "Runtime.consoleAPICalled" and values["type"] in ("error", "warning"):
                found.append(str(values["args"]))
            elif event["method"] == "Log.entryAdded" and values["entry"]["level"] in ("error", "warning"):
                found.append(str(values["entry"]["text"]))
        return found

    def requests(self) -> list[str]:
        """Addresses that the page has asked for since it was opened, data addresses left out."""
        self.run("0")
        sent = [
            e["params"]["request"]["url"] for e in self.events if e["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in sent if not address.startswith("data:")]


def _start(program: str, folder: Path) -> tuple[subprocess.Popen[bytes], int, int]:
    """Start a browser; return its process and the files to write to it and to read from it."""
    import fcntl

    read, to_browser = os.pipe()
    from_browser, write = os.pipe()
    # above 10: the protocol reads from file 3 and writes to file 4, which the launcher fills
    given = [fcntl.fcntl(file, fcntl.F_DUPFD, 10) for file in (read, write)]
    os.close(read)
    os.close(write)
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *map(str, given), program, *FLAGS, f"--user-data-dir={folder}"],
        pass_fds=given,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for file in given:
        os.close(file)
    return process, to_browser, from_browser


def wait_until(condition: Callable[[], bool], seconds: float, name: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{name} has not become true in {seconds} s")
        time.sleep(0.05)
