"""Retries of calls that a database may refuse for a moment."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

MAX_ATTEMPTS = 5

MAX_PAUSE_SECONDS = 1.0
"""Longest pause between attempts; pauses are random, so that workers do not collide again."""

Result = TypeVar("Result")


def call_with_retry(call: Callable[[], Result], is_transient: Callable[[Exception], bool]) -> Result:
    """Return ``call()``, repeated as long as it raises a transient error, at most five times."""
    for _ in range(MAX_ATTEMPTS - 1):
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(MAX_PAUSE_SECONDS * random.random())
    return call()
