"""Refusals of requests, each with a status, a kind for the metrics, and one sentence."""

from __future__ import annotations

from typing import Literal, get_args

Kind = Literal[
    "body_size", "row_count", "content_type", "accept", "malformed", "rows", "disconnected", "internal"
]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""Kinds of failed requests in the metrics."""

STATUSES: dict[Kind, int] = {
    "body_size": 413,
    "row_count": 413,
    "content_type": 415,
    "accept": 406,
    "malformed": 400,
    "rows": 422,
    "disconnected": 499,
    "internal": 500,
}
"""HTTP status of each kind; 499, which nobody receives, is that of a client that has gone."""


class RequestError(Exception):
    """A request that cannot be answered.

    Parameters
    ----------
    kind
        One of :data:`KINDS`.
    message
        One sentence: the rule, the value and the remedy.
    """

    def __init__(self, kind: Kind, message: str) -> None:
        super().__init__(message)
        self.kind: Kind = kind

    @property
    def status(self) -> int:
        """HTTP status of the answer."""
        return STATUSES[self.kind]
