"""The table of embeddings in the document is that of the figures."""

from __future__ import annotations

import json

from benchmarks.embeddings import CASES, CHOICES, DOCUMENT, RESULTS, table
from benchmarks.publishing import between, marks


def test_the_document_shows_the_figures() -> None:
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]
    assert {(row["set"], row["seed"], row["choice"]) for row in rows} == {
        (*case, choice) for case in CASES for choice in CHOICES
    }
    text = between(DOCUMENT.read_text(encoding="utf-8"), marks("embeddings"))
    assert text.strip() == table(rows)
    assert text.strip() != table(rows[1:])
    # where one embedding alone was allowed, networks have it
    assert all(set(row["members"]) <= set(CHOICES[row["choice"]]) for row in rows)
