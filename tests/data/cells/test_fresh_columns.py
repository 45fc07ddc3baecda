"""Thirty columns in the forms of real exports, which were written down before they were tried.

One is ambiguous: durations below a day, written as a clock shows them, are read as times of day.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from parallelmlp_search.data.cells.recognition import read_columns

N = 200
RNG = np.random.default_rng(7)
PRICES = RNG.gamma(2.0, 400.0, N)
COUNTS = RNG.integers(0, 90_000, N)
SHARES = RNG.uniform(0.0, 100.0, N)
DAYS = pd.date_range("2019-05-04", periods=N, freq="9D")
SECONDS = RNG.integers(30, 40_000, N)
TAGS = np.array(["new", "sale", "garden", "kids", "outlet", "bio"])
COMMENT = "the door works well but paint came off after one week so we sent it back and got money"


def german(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}".translate(str.maketrans(",.", ".,"))


COLUMNS: dict[str, tuple[Callable[[int], Any], str]] = {
    "list price": (lambda r: f"$ {PRICES[r]:,.2f}", "currency"),
    "accounting": (lambda r: f"({PRICES[r]:,.2f})" if r % 3 else f"{PRICES[r]:,.2f}", "numeric"),
    "pounds": (lambda r: f"£{PRICES[r]:,.0f}", "currency"),
    "yen": (lambda r: f"¥{COUNTS[r]:,}", "currency"),
    "code behind": (lambda r: f"{PRICES[r]:.2f} EUR", "currency"),
    "german euros": (lambda r: f"{german(PRICES[r], 2)} €", "currency"),
    "reais": (lambda r: f"R$ {german(PRICES[r], 2)}", "currency"),
    "swiss": (lambda r: f"{PRICES[r]:,.2f}".replace(",", "\u2019"), "numeric"),
    "thousands of dollars": (lambda r: f"${PRICES[r] / 10:.1f}K", "currency"),
    "signed percent": (lambda r: f"{SHARES[r] - 50:+.2f}%", "percent"),
    "whole percent": (lambda r: f"{SHARES[r]:.0f} %", "percent"),
    "comma percent": (lambda r: f"{german(SHARES[r], 1)}%", "percent"),
    "grouped counts": (lambda r: f"{COUNTS[r]:,}", "numeric"),
    "french numbers": (lambda r: german(COUNTS[r] + 0.5, 1).replace(".", "\u00a0"), "numeric"),
    "comma decimals": (lambda r: german(SHARES[r] / 7, 3), "numeric"),
    "with gaps": (lambda r: "N/A" if r % 9 == 0 else f"{SHARES[r]:.3f}", "numeric"),
    "scientific": (lambda r: f"{PRICES[r]:.3e}", "numeric"),
    "centimetres": (lambda r: f"{SHARES[r] + 100:.0f} cm", "quantity"),
    "litres": (lambda r: f"{SHARES[r]:.1f}L", "quantity"),
    "engine": (lambda r: f"{COUNTS[r] % 3000 + 900} cc", "quantity"),
    "memory": (lambda r: f"{2 ** (r % 6)} GB" if r % 4 else f"{512 * (1 + r % 2)} MB", "quantity"),
    "ago": (lambda r: f"{COUNTS[r] % 40} days", "duration"),
    "clock": (
        lambda r: f"{SECONDS[r] // 3600}:{SECONDS[r] % 3600 // 60:02}:{SECONDS[r] % 60:02}",
        "duration",
    ),
    "minutes": (lambda r: f"{SECONDS[r] // 60} min", "duration"),
    "dotted days": (lambda r: f"{DAYS[r]:%d.%m.%y}", "datetime"),
    "slashes": (lambda r: f"{DAYS[r]:%m/%d/%Y %H:%M:%S}", "datetime"),
    "long days": (lambda r: f"{DAYS[r]:%d %B %Y}", "datetime"),
    "labels": (lambda r: ", ".join(np.random.default_rng(r).permutation(TAGS)[: 1 + r % 4]), "list"),
    "payload": (lambda r: f'{{"id": {r % 40}, "kind": "{TAGS[r % 6]}"}}', "json"),
    "comment": (lambda r: " ".join(np.random.default_rng(r).choice(COMMENT.split(), 11)) + ".", "text"),
}


def test_at_least_29_of_30_columns_are_recognised() -> None:
    assert len(COLUMNS) == 30
    frame = pd.DataFrame({name: [write(row) for row in range(N)] for name, (write, _) in COLUMNS.items()})
    found = {column.name: column.kind for column in read_columns(frame).reader.columns}
    wrong = {name: found[name] for name, (_, kind) in COLUMNS.items() if found[name] != kind}
    assert len(wrong) <= 1, wrong
    # numbers are read, not only named
    read = read_columns(frame).frame
    np.testing.assert_allclose(read["german euros"], PRICES.round(2), atol=0.006)
    np.testing.assert_allclose(read["comma percent"], SHARES / 100, atol=6e-4)
    np.testing.assert_allclose(read["grouped counts"], COUNTS)
