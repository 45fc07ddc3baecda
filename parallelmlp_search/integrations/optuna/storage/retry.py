"""Another try where a database refuses for the moment: it is locked, or another worker makes its tables."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["insist"]

TRIES = 5
"""How often a database is asked."""

PAUSE_SECONDS = 1.0
"""Longest wait in between; by chance, so that workers who met do not meet again."""

Result = TypeVar("Result")


def insist(work: Callable[[], Result], refused: Callable[[Exception], bool]) -> Result:
    """What ``work()`` returns, done again where it has ``refused`` with an error that may not come again."""
    for _ in range(TRIES - 1):
        try:
            return work()
        except Exception as error:
            if not refused(error):
                raise
        time.sleep(PAUSE_SECONDS * random.random())
    return work()
