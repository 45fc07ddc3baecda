"""Cases of a soak as plain values: searches and other commands with faults. Tables are in ``tables``.

A case is a mapping that JSON can hold, so that a failure is kept as a regression. Hypothesis draws cases and
shrinks those that fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from tests.faults.injection.injector import ERRORS, SIGNALS
from tests.faults.small import SEARCH, small_table

Case = Mapping[str, Any]

# ---------------------------------------------------------------------- searches with faults

SHORT = ("--space", "small", "--trials", "3", "--max-epochs", "3", "--folds", "2", "--seed", "1")

SEARCHES: Mapping[str, tuple[str, ...]] = {
    "classes": SEARCH,
    "thresholds and refit": ("--target", "sold", "--metric", "f1", "--refit", "--jobs", "1", *SHORT),
    "numbers": ("--target", "price", "--groups", "site", "--weights", "weight", "--jobs", "2", *SHORT),
    "three classes": ("--target", "grade", "--sampler", "tpe", "--time-column", "day", "--jobs", "1", *SHORT),
    "standard input": ("--target", "sold", "--jobs", "1", *SHORT),
}
"""Options of searches by name; each takes a fraction of a second."""


def wide_table() -> pd.DataFrame:
    """Targets of all tasks, and columns with roles."""
    rng = np.random.default_rng(1)
    frame = small_table(90)
    n = len(frame)
    quantity = frame["a"] + (frame["colour"] == "red")
    frame["site"] = rng.integers(0, 12, n)
    frame["weight"] = rng.integers(1, 4, n)
    frame["price"] = (100 + 10 * quantity + rng.normal(size=n)).round(2)
    frame["grade"] = np.select([quantity > 1, quantity > 0], ["high", "middle"], "low")
    return frame


place = st.floats(0, 0.999)

faults = st.one_of(
    st.fixed_dictionaries({"kind": st.just("signal"), "name": st.sampled_from(SIGNALS), "at": place}),
    st.fixed_dictionaries({"kind": st.just("two signals"), "name": st.just("SIGINT"), "at": place}),
    st.fixed_dictionaries(
        {"kind": st.just("error"), "name": st.sampled_from(ERRORS), "lasting": st.booleans(), "at": place}
    ),
    st.fixed_dictionaries(
        {"kind": st.sampled_from(["short write", "torn file", "delete folder"]), "at": place}
    ),
    st.fixed_dictionaries(
        {
            "kind": st.sampled_from(["file limit", "memory limit", "delete file", "clock"]),
            "size": place,
            "at": place,
        }
    ),
    # from outside, at a share of the duration
    st.fixed_dictionaries({"kind": st.just("moment"), "name": st.sampled_from(SIGNALS), "at": place}),
    st.fixed_dictionaries({"kind": st.just("rival"), "at": place}),
)
"""One fault; ``at`` is its place as a share of the operations of a search, or of its duration."""

fault_cases = st.fixed_dictionaries(
    {"search": st.sampled_from(sorted(SEARCHES)), "faults": st.lists(faults, min_size=1, max_size=3)}
)
"""A search, and the faults that happen one after the other."""

worker_cases = st.fixed_dictionaries(
    {
        "search": st.just("numbers"),
        "faults": st.fixed_dictionaries({"kind": st.just("worker"), "at": place}).map(lambda fault: [fault]),
    }
)
"""A search that trains in processes, of which one is killed. They take seconds to start."""

COMMANDS: Mapping[str, tuple[str, ...]] = {
    "predict": ("predict", "RUN", "TABLE", "--output", "FOLDER/predictions.csv", "--proba"),
    "predict parquet": ("predict", "RUN", "TABLE", "--output", "FOLDER/predictions.parquet"),
    "evaluate": ("evaluate", "RUN", "TABLE", "--json"),
    "explain": ("explain", "RUN", "--output", "FOLDER/explained", "--quiet"),
    "explain in the run": ("explain", "RUN", "--quiet"),
    "report": ("report", "RUN", "--output", "FOLDER/report.html", "--quiet"),
    "inspect": ("inspect", "TABLE", "--target", "sold", "--json"),
    "study": ("study", "RUN", "--storage", "journal:FOLDER/journal", "--name", "copy"),
    "promote": (
        "promote", "RUN", "--top", "1", "--depth-factor", "2", "--slices", "2", "--epochs", "1", "--quiet",
    ),
}  # fmt: skip
"""Commands on a finished run by name, with placeholders for the run, its table and a folder."""

command_cases = st.fixed_dictionaries(
    {"command": st.sampled_from(sorted(COMMANDS)), "faults": st.lists(faults, min_size=1, max_size=2)}
)

# ---------------------------------------------------------------------- regressions

REGRESSIONS = Path(__file__).with_name("regressions.json")


def regressions() -> dict[str, list[Case]]:
    """Cases that failed once: ``faults``, ``commands`` and ``tables``."""
    found: dict[str, list[Case]] = json.loads(REGRESSIONS.read_text(encoding="utf-8"))
    return found


def keep_regression(kind: str, case: Case) -> None:
    """Keep a case that failed, for the tests of all later versions."""
    known = regressions()
    if case not in known[kind]:
        known[kind].append(case)
        REGRESSIONS.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
