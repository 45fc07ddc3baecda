"""Generated tables as plain values, and the files that hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st
from openpyxl.utils.exceptions import IllegalCharacterError

from parallelmlp_search.data.cells.recognition import COLUMN_TYPES
from parallelmlp_search.selection import METRICS

Case = Mapping[str, Any]

words = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)

PLAIN = (
    "numbers", "integers", "huge", "tiny", "constant", "missing", "one value", "booleans", "categories",
    "many categories", "texts", "dates", "mixed", "infinite", "numbers as texts", "identifier",
)  # fmt: skip

READ = (
    "money", "euros", "accounting", "percent", "weights with units", "durations", "clock times",
    "dates with points", "dates in words", "sentences", "lists", "JSON lists", "JSON objects",
    "nested objects", "spelled missing", "grouped digits", "long texts", "two readings",
)  # fmt: skip
"""Kinds whose cells need a reader."""

TYPED = ("nullable integers", "zoned dates", "time spans", "decimals", "a categorical", "objects")
"""Kinds of typed files; other files hold their texts."""

columns = st.fixed_dictionaries(
    {
        "name": st.one_of(
            st.sampled_from(["a", "b", "id", "x y", "", "1", "\x1b[31m", "ä", "a", "target ", "a" * 300]),
            words,
        ),
        "kind": st.sampled_from([*PLAIN, *READ, *TYPED]),
        "missing": st.sampled_from([0.0, 0.0, 0.1, 0.9]),
    }
)
"""Name, kind of values, and share of missing ones."""

targets = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(
            [
                "two classes", "two classes", "three classes", "numbers", "numbers", "rare class",
                "one class", "many classes", "missing", "texts", "huge", "tiny", "booleans", "dates",
                "infinite", "money", "percent", "counts", "codes", "lists", "nullable integers",
            ]
        ),
        "missing": st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.1, 1.0]),
    }
)  # fmt: skip

options = st.one_of(
    st.tuples(st.just("--metric"), st.sampled_from([*METRICS, "pinball:0.9"])),
    st.tuples(st.just("--metric"), st.sampled_from([*METRICS, "pinball:0.9"])),
    st.tuples(
        st.just("--task"), st.sampled_from(["binary", "multiclass", "classification", "regression"])
    ),
    st.tuples(
        st.just("--loss"),
        st.sampled_from(["squared_error", "huber", "quantile:0.9", "poisson", "gamma", "tweedie:1.7"]),
    ),
    st.tuples(st.just("--sampler"), st.sampled_from(["qmc", "grid", "tpe"])),
    st.tuples(st.just("--space"), st.sampled_from(["default", "deep", "paper"])),
    st.sampled_from(
        [
            ("--class-weight", "balanced"), ("--refit",), ("--folds", "3"), ("--calibration", "none"),
            ("--trials", "1"), ("--finalists", "1"), ("--memory-limit", "1GB"), ("--no-tune-thresholds",),
            ("--max-epochs", "1"), ("--jobs", "2"), ("--baselines",), ("--seed", "7"),
            ("--ordinal", "auto"), ("--costs", "a:b=5,b:a=2"),
        ]
    ),
).map(list)  # fmt: skip

roles = st.one_of(
    st.sampled_from(["--groups", "--weights", "--time-column"]),
    st.sampled_from(COLUMN_TYPES).map(lambda kind: f"--columns {kind}="),
)

FILES = (
    "csv", "csv", "tsv", "parquet", "feather", "csv.gz", "csv.zip", "txt", "jsonl", "jsonl.gz", "orc",
    "parts", "semicolons", "utf-16", "xlsx",
)  # fmt: skip

COMMANDS = (
    "leaderboard", "show", "resume", "inspect", "explain", "study", "dry run", "json", "other table",
    "report",
)  # fmt: skip
"""Commands on a finished run besides predictions and their score."""

table_cases = st.fixed_dictionaries(
    {
        # 60 rows and a column of numbers are where shrinking ends, not where drawing begins
        "rows": st.sampled_from([60, 60, 40, 90, 120, 150, 25, 12, 5, 2, 1, 0]),
        "columns": st.lists(columns, min_size=1, max_size=5),
        "target": targets,
        "file": st.sampled_from(FILES),
        "options": st.lists(options, max_size=2),
        # a role, and which column has it
        "roles": st.lists(st.tuples(roles, st.integers(0, 4)).map(list), max_size=2),
        "commands": st.lists(st.sampled_from(COMMANDS), max_size=2, unique=True),
        "seed": st.integers(0, 3),
    }
)


def _texts(made: Any) -> Any:
    return np.array(list(made), dtype=object)


def values(kind: str, n: int, rng: np.random.Generator) -> Any:
    """Values of a kind, of shape (n,)."""
    normal = rng.normal(size=n)
    words = np.array(["red", "green", "blue", "violet"], dtype=object)
    drawn = words[rng.integers(0, 4, (n, 3))]
    days = pd.date_range("1999-12-25", periods=n, freq="37h")
    known: dict[str, Any] = {
        "numbers": normal,
        "integers": rng.integers(-5, 50, n),
        "huge": normal * 1e200,
        "tiny": normal * 1e-200,
        "constant": np.full(n, 7.5),
        "one value": np.where(np.arange(n) == n // 2, 1.0, 0.0),
        "missing": np.full(n, np.nan),
        "booleans": normal > 0,
        "categories": words[rng.integers(0, 4, n)],
        "many categories": _texts(f"c{i}" for i in rng.integers(0, 40, n)),
        "texts": _texts(f"text {i} \x1b[1m" for i in range(n)),
        "dates": days.astype(str).to_numpy(object),
        "mixed": np.array([(1, "one", 2.5, "")[i % 4] for i in range(n)], dtype=object).astype(str),
        "infinite": np.where(normal > 1, np.inf, np.where(normal < -1, -np.inf, normal)),
        "numbers as texts": _texts(f"{x:.3f}" for x in normal),
        "identifier": np.arange(n),
        "two classes": np.where(normal > 0, "yes", "no").astype(object),
        "three classes": words[rng.integers(0, 3, n)],
        "rare class": np.where(np.arange(n) == 0, "rare", "usual").astype(object),
        "one class": np.full(n, "only", dtype=object),
        "many classes": _texts(f"k{i}" for i in rng.integers(0, max(2, n // 3), n)),
        "counts": rng.poisson(3, n),
        "codes": rng.integers(1, 4, n),
        "money": _texts(f"${1e4 * abs(x):,.2f}" for x in normal),
        "euros": _texts(f"{1e4 * x:,.2f} €".translate(str.maketrans(",.", ".,")) for x in normal),
        "accounting": _texts(f"({-x:.2f})" if x < 0 else f"USD {x:.2f}" for x in 100 * normal),
        "percent": _texts(f"{30 * x:.1f}%" for x in normal),
        "weights with units": _texts(f"{1e3 * abs(x):.0f} g" if x < 0.5 else f"{x:.2f} kg" for x in normal),
        "durations": _texts(f"{i}h {5 * i % 60}m" for i in rng.integers(0, 30, n)),
        "clock times": _texts(f"{i // 60:02d}:{i % 60:02d}:30" for i in rng.integers(0, 2000, n)),
        "dates with points": days.strftime("%d.%m.%Y").to_numpy(object),
        "dates in words": days.strftime("%b %d, %Y %I:%M %p").to_numpy(object),
        "sentences": _texts(f"The {a} house, no. {i}, is {b}" for i, (a, b, _) in enumerate(drawn)),
        "lists": _texts(";".join(row[: 1 + i % 3]) for i, row in enumerate(drawn)),
        "JSON lists": _texts(json.dumps(list(row[: i % 4])) for i, row in enumerate(drawn)),
        "JSON objects": _texts(
            json.dumps({"a": round(x, 2), "b": str(row[0])}) for x, row in zip(normal, drawn, strict=True)
        ),
        "nested objects": _texts(
            json.dumps({"a": {"b": [i, {"c": None}]}, "d" * (i % 3): "$5"}) for i in range(n)
        ),
        "spelled missing": _texts(
            ("n/a", "-", "?", "unknown")[i % 4] if i % 3 == 0 else f"{x:.2f}" for i, x in enumerate(normal)
        ),
        "grouped digits": _texts(f"{1e6 * x:,.0f}" for x in normal),
        "long texts": _texts("word " * (1 + 200 * (i % 7)) + str(i) for i in range(n)),
        "two readings": _texts(("1,234", "1.234", "12/11/10", "5 %")[i % 4] for i in range(n)),
        "nullable integers": pd.array(rng.integers(0, 9, n), dtype="Int64"),
        "zoned dates": days.tz_localize("Europe/Vienna", ambiguous=True, nonexistent="shift_forward"),
        "time spans": pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
        "decimals": _decimals(normal),
        "a categorical": pd.Categorical(words[rng.integers(0, 4, n)], categories=[*words, "unused"]),
        "objects": _objects([{"a": i, "b": [i, "x"]} if i % 2 else None for i in range(n)]),
    }
    return known[kind]


def _objects(given: list[Any]) -> Any:
    made = np.empty(len(given), dtype=object)
    made[:] = given
    return made


def _decimals(numbers: Any) -> Any:
    return _objects([Decimal(f"{number:.4f}") for number in numbers])


def table(case: Case, *, turn: int = 0) -> pd.DataFrame:
    """Table of a case; its target is called ``target``. A turn gives each column the kind of a later one."""
    rng = np.random.default_rng(case["seed"] + turn)
    n = case["rows"]
    drawn = case["columns"]
    kinds = [column["kind"] for column in drawn]
    kinds = kinds[turn % len(kinds) :] + kinds[: turn % len(kinds)]
    if turn and len(kinds) == 1:
        kinds = ["sentences"]
    parts = [(column["name"], kind, column["missing"]) for column, kind in zip(drawn, kinds, strict=True)]
    parts.append(("target", case["target"]["kind"], case["target"]["missing"]))
    series = []
    for name, kind, missing in parts:
        column = pd.Series(values(kind, n, rng), name=name)
        series.append(column.where(rng.random(n) >= missing, None) if missing else column)
    return pd.concat(series, axis=1)


def write_table(case: Case, folder: Path, *, turn: int = 0) -> Path:
    """Write the table of a case and return its path, or the pattern of its parts."""
    folder.mkdir(exist_ok=True)
    frame, suffix = table(case, turn=turn), case["file"]
    path = folder / f"table.{suffix}"
    try:
        if suffix == "parquet":
            frame.to_parquet(path)
        elif suffix == "feather":
            frame.to_feather(path)
        elif suffix == "xlsx":
            frame.to_excel(path, index=False)
        elif suffix == "orc":
            frame.to_orc(path)
        elif suffix.startswith("jsonl"):
            frame.to_json(path, orient="records", lines=True, date_format="iso")
        elif suffix == "semicolons":
            path = folder / "table.csv"
            frame.to_csv(path, index=False, sep=";", decimal=",")
        elif suffix == "utf-16":
            path = folder / "table.csv"
            frame.to_csv(path, index=False, encoding="utf-16")
        elif suffix == "parts":
            for number, part in enumerate((frame.iloc[: len(frame) // 2], frame.iloc[len(frame) // 2 :])):
                part.to_csv(folder / f"part-{number}.csv", index=False)
            path = folder / "part-*.csv"
        else:
            frame.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    except (ValueError, TypeError, NotImplementedError, OverflowError, IllegalCharacterError):
        # typed files take no mixed columns and no equal names, and workbooks no control characters
        path = folder / "table.csv"
        frame.to_csv(path, index=False)
    return path


def search_options(case: Case) -> list[str]:
    """Words of the command line for the options and roles of a case."""
    found = [word for option in case["options"] for word in option]
    names = [column["name"] for column in case["columns"]]
    for role, number in case["roles"]:
        name = names[number % len(names)]
        option, _, kind = role.partition(" ")
        found += [option, kind + name] if kind else [option, name]
    return found
