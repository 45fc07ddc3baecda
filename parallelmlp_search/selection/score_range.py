"""Range of a metric, and the scale on which its scores are corrected.

Additive corrections can leave the range: an AUC of 0.99 plus a gain of 0.02. Here a step of length ``h`` from
a score, towards a bound at distance ``d``, covers ``d * tanh(h / d)``, as on Fisher's z scale of
correlations. It equals ``h`` up to terms of third order, so small corrections are the additive ones, and it
is less than ``d``.
"""

from __future__ import annotations

import math
from typing import NamedTuple


class ScoreRange(NamedTuple):
    """Smallest and largest score of a metric; infinite without a bound."""

    low: float = -math.inf
    high: float = math.inf

    def shift(self, score: float, change: float) -> float:
        """Return a score after a change, in the range; a small change is added as it is."""
        return self.at(score, change / self._room(score, change))

    def at(self, score: float, distance: float) -> float:
        """Return the score at a signed distance from another. Inverse of :meth:`distance`."""
        bound = self.high if distance > 0 else self.low
        if math.isinf(bound):
            return score + distance
        # bound plus or minus a product of numbers >= 0: no rounding can leave the range
        return bound - (bound - score) * (1.0 - math.tanh(abs(distance)))

    def distance(self, score: float, end: float) -> float:
        """Return the signed distance between two scores, relative to the room up to a bound."""
        change = end - score
        share = abs(change) / self._room(score, change)
        if math.isinf(self.high if change > 0 else self.low):
            return change
        return math.copysign(math.atanh(share) if share < 1.0 else math.inf, change)

    def _room(self, score: float, change: float) -> float:
        """Distance to the bound in the direction of a change; 1 without a bound, or at it."""
        room = self.high - score if change > 0 else score - self.low
        return room if 0.0 < room < math.inf else 1.0
