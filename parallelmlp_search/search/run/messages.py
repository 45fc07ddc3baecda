"""The logger of searches. Stages and rungs are at the level INFO, shards at the level DEBUG."""

from __future__ import annotations

import logging

LOGGER = logging.getLogger("parallelmlp_search")
"""Without a handler of the user, nothing is printed."""


def counted(number: int, noun: str) -> str:
    """Return a number of things in words.

    >>> counted(1, "trial"), counted(2000, "trial")
    ('1 trial', '2,000 trials')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"
