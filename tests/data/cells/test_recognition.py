"""Recognition of columns whose cells need a reader; each column is one form, with the values read by hand."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from parallelmlp_search.data import read_table
from parallelmlp_search.data.cells.recognition import read_columns, read_target
from parallelmlp_search.data.cells.table import TableReader
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError

DATASETS = Path(__file__).resolve().parents[3] / "datasets"
N = 120
RNG = np.random.default_rng(0)
CENTS = np.round(RNG.gamma(1.5, 2500.0, N), 2)
WHOLE = np.floor(RNG.gamma(1.5, 40_000.0, N))
SMALL = np.round(RNG.uniform(0.0, 40.0, N), 1)
SIGNED = np.round(RNG.normal(0.0, 3000.0, N), 2)
DAYS = pd.date_range("2023-03-28", periods=N, freq="31h")


def swapped(text: str) -> str:
    """Exchange points and commas."""
    return text.translate(str.maketrans(",.", ".,"))


def texts(values: Sequence[Any] | np.ndarray, write: Callable[[Any], str]) -> list[str | None]:
    """Write values as texts; every 17th is missing, with varying spellings."""
    spellings = ["n/a", "-", "", "N.A.", "unknown", None, "#N/A"]
    return [spellings[row // 17 % 7] if row % 17 == 16 else write(value) for row, value in enumerate(values)]


NUMBERS = {
    # name: (texts, kind, values read by hand)
    "dollars": (texts(CENTS, lambda v: f"${v:,.2f}"), "currency", CENTS),
    "dollars, negative in parentheses": (
        texts(SIGNED, lambda v: f"(${-v:,.2f})" if v < 0 else f"${v:,.2f}"), "currency", SIGNED),
    "dollars, minus before": (
        texts(SIGNED, lambda v: f"-${-v:,.2f}" if v < 0 else f"${v:,.2f}"), "currency", SIGNED),
    "euros": (texts(CENTS, lambda v: swapped(f"{v:,.2f}") + " €"), "currency", CENTS),
    "euros without cents": (texts(WHOLE, lambda v: swapped(f"{v:,.0f}") + " €"), "currency", WHOLE),
    "codes": (texts(CENTS, lambda v: f"USD {v:,.2f}"), "currency", CENTS),
    "francs": (texts(CENTS, lambda v: "CHF " + f"{v:,.2f}".replace(",", "'")), "currency", CENTS),
    "rupees": (texts(WHOLE, lambda v: f"Rs. {v:,.0f}"), "currency", WHOLE),
    "millions": (texts(SMALL, lambda v: f"${v:.1f}M"), "currency", SMALL * 1e6),
    "no-break spaces": (
        texts(CENTS, lambda v: f"{v:,.2f}".replace(",", "\u202f") + "\u00a0zł"), "currency", CENTS),
    "percent": (texts(SMALL, lambda v: f"{v:.1f}%"), "percent", SMALL / 100),
    "percent with a comma": (texts(SMALL, lambda v: swapped(f"{v:.1f} %")), "percent", SMALL / 100),
    "thousands": (texts(WHOLE, lambda v: f"{v:,.0f}"), "numeric", WHOLE),
    "thousands with points": (texts(CENTS, lambda v: swapped(f"{v:,.2f}")), "numeric", CENTS),
    "thousands with spaces": (
        texts(CENTS, lambda v: swapped(f"{v:,.2f}").replace(".", " ")), "numeric", CENTS),
    "decimal comma": (texts(SMALL, lambda v: swapped(f"{v:.1f}")), "numeric", SMALL),
    "missing values spelled out": (texts(CENTS, lambda v: f"{v:.2f}"), "numeric", CENTS),
    "multipliers": (texts(WHOLE, lambda v: f"{v / 1000:.3f}k" if v > 5000 else f"{v:.0f}"), "numeric", WHOLE),
    "real minus": (texts(SIGNED, lambda v: f"{v:,.2f}".replace("-", "\u2212")), "numeric", SIGNED),
    "kilograms": (texts(SMALL, lambda v: f"{v:.1f} kg"), "quantity", SMALL),
    "mixed units": (
        texts(SMALL, lambda v: f"{v:.1f}kg" if v > 5 else f"{v * 1000:.0f} g"), "quantity", SMALL),
    "speed": (texts(SMALL, lambda v: f"{v:.1f} km/h"), "quantity", SMALL),
    "degrees": (texts(SMALL, lambda v: f"{v:.1f} °C"), "quantity", SMALL),
    "unknown unit": (texts(SMALL, lambda v: f"{v:.1f} widgets"), "quantity", SMALL),
    "hours and minutes": (
        texts(WHOLE, lambda v: f"{int(v) // 3600}h {int(v) % 3600 // 60}m"), "duration", WHOLE // 60 * 60),
    "clock": (
        texts(WHOLE, lambda v: f"{int(v) // 3600}:{int(v) % 3600 // 60:02d}:{int(v) % 60:02d}"),
        "duration", WHOLE),
    "months": (texts(SMALL, lambda v: f"{v:.1f} months"), "duration", SMALL * 30.4375 * 86400),
    "ISO durations": (texts(WHOLE, lambda v: f"PT{int(v)}S"), "duration", WHOLE),
}  # fmt: skip

DATES = {
    "german dates": (texts(DAYS, lambda d: f"{d:%d.%m.%Y}"), DAYS.normalize()),
    "american dates": (texts(DAYS, lambda d: f"{d:%m/%d/%Y}"), DAYS.normalize()),
    "british dates": (texts(DAYS, lambda d: f"{d:%d/%m/%y}"), DAYS.normalize()),
    "named months": (texts(DAYS, lambda d: f"{d:%b %d, %Y}"), DAYS.normalize()),
    "dates and times": (texts(DAYS, lambda d: f"{d:%d-%b-%Y %I:%M %p}"), DAYS.floor("min")),
    "times": (
        texts(DAYS, lambda d: f"{d:%H:%M}"), pd.Timestamp(0) + (DAYS.floor("min") - DAYS.normalize())),
    "quarters": (texts(DAYS, lambda d: f"{d.year}-Q{d.quarter}"), DAYS.to_period("Q").start_time),
}  # fmt: skip

SENTENCE = (
    "fresh fast slow broken great arrived package delivery seller box color price cheap quality never again "
    "recommend happy sad loud quiet warm cold tiny huge battery screen button light heavy"
)
WORDS = SENTENCE.split()
GENRES = np.array(["Action", "Comedy", "Drama", "Horror", "War"])
OTHERS = {
    "reviews": (texts(range(N), lambda _: " ".join(RNG.choice(WORDS, 9))), "text", 17),
    "genres": (
        texts(range(N), lambda row: "|".join(RNG.choice(GENRES, 1 + row % 3, replace=False))), "list", 6),
    "tags": (
        texts(range(N), lambda _: json.dumps(RNG.choice(GENRES, 2, replace=False).tolist())), "list", 6),
    "vectors": (texts(range(N), lambda _: str(RNG.normal(size=3).round(3).tolist())), "list", 3),
    "objects": (
        texts(range(N), lambda row: json.dumps({"size": row % 9, "shop": {"town": GENRES[row % 4]}})),
        "json", 2),
}  # fmt: skip


def kinds_of(frame: pd.DataFrame) -> dict[str, str]:
    return {column.name: column.kind for column in read_columns(frame).reader.columns}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_read_as_by_hand(name: str) -> None:
    cells, kind, expected = NUMBERS[name]
    read = read_columns(pd.DataFrame({"x": cells}))
    assert kinds_of(pd.DataFrame({"x": cells})) == {"x": kind}
    wanted = np.where(np.arange(N) % 17 == 16, np.nan, expected)
    np.testing.assert_allclose(read.frame["x"], wanted, rtol=1e-12)
    assert read.schema.kinds == {"x": "numeric"}


@pytest.mark.parametrize("name", DATES)
def test_dates_are_read_as_by_hand(name: str) -> None:
    cells, expected = DATES[name]
    read = read_columns(pd.DataFrame({"x": cells}))
    assert read.reader.columns[0].kind == "datetime"
    wanted = pd.Series(expected).astype("datetime64[s]").where(np.arange(N) % 17 != 16)
    pd.testing.assert_series_equal(read.frame["x"], wanted, check_names=False)


@pytest.mark.parametrize("name", OTHERS)
def test_texts_lists_and_objects_become_several_columns(name: str) -> None:
    cells, kind, n_columns = OTHERS[name]
    read = read_columns(pd.DataFrame({"x": cells}))
    assert read.reader.columns[0].kind == kind
    assert read.frame.shape == (N, n_columns)
    assert all(column.startswith("x") and column != "x" for column in read.frame)
    missing = read.frame.iloc[np.arange(N) % 17 == 16]
    assert missing.isna().any(axis=1).all()  # a missing cell is marked


def test_all_forms_in_one_table_survive_a_file() -> None:
    columns = {name: row[0] for table in (NUMBERS, DATES, OTHERS) for name, row in table.items()}
    frame = pd.DataFrame(columns)
    read = read_columns(frame)
    restored = TableReader.from_dict(json.loads(json.dumps(read.reader.to_dict())))
    pd.testing.assert_frame_equal(restored.read(frame), read.frame)
    pd.testing.assert_frame_equal(restored.read(frame[::-1])[::-1], read.frame)


def test_objects_and_lists_of_parquet_are_read() -> None:
    frame = pd.DataFrame(
        {
            "tags": [GENRES[: row % 3 + 1].tolist() for row in range(N)],
            "arrays": [np.arange(4.0) + row for row in range(N)],
            "record": [{"a": row % 5, "b": GENRES[row % 2]} for row in range(N)],
            "spans": pd.to_timedelta(np.arange(N) % 7, unit="h"),
        }
    )
    read = read_columns(frame)
    assert [column.kind for column in read.reader.columns] == ["list", "list", "json", "numeric"]
    assert read.frame["record.a"].tolist() == [row % 5 for row in range(N)]
    assert read.frame["arrays__3"].tolist() == [3.0 + row for row in range(N)]
    assert read.frame["tags__Drama"].tolist() == [float(row % 3 == 2) for row in range(N)]


NO_READER = {
    "classes of income": ["<=50K", ">50K"] * (N // 2),
    "school years": ["10th", "11th", "1st-4th"] * (N // 3),
    "ranges": ["0<=X<200 DM", ">=200 DM", "<0 DM"] * (N // 3),
    "drive": ["4WD", "2WD"] * (N // 2),
    "codes": [f"A{row % 40}" for row in range(N)],
    "codes with letters behind": [f"{row % 40}{'ABC'[row % 3]}" for row in range(N)],
    "addresses of machines": [f"192.168.{row % 7}.{row}" for row in range(N)],
    "versions": [f"1.{row % 9}.{row % 4}" for row in range(N)],
    "hexadecimal": [f"{int(value):x}" for value in RNG.integers(1 << 40, 1 << 60, N)],
    "surnames and first names": [f"{['Miller', 'Smith', 'Jones'][row % 3]}, {row % 40}" for row in range(N)],
    "numbered names": [f"visit at the store {row}" for row in range(N)],
    "weekdays": ["Monday", "Tuesday", "Sunday"] * (N // 3),
    "months alone": ["may", "june", "march"] * (N // 3),
    "yes or no": ["yes", "no"] * (N // 2),
    "towns": [f"Town {chr(65 + row % 20)}, State {row % 3}" for row in range(N)],
    "None is a class": ["None", "Some"] * (N // 2),
    "ratings": ["5 stars", "4 stars", "1 star"] * (N // 3),
}


@pytest.mark.parametrize("name", NO_READER)
def test_categories_and_identifiers_are_left_alone(name: str) -> None:
    read = read_columns(pd.DataFrame({"x": NO_READER[name]}))
    assert read.reader.is_plain
    assert [column.note for column in read.reader.columns] == [None]


@pytest.mark.parametrize("path", sorted(DATASETS.glob("*.csv.gz")), ids=lambda path: path.name.split(".")[0])
def test_bundled_tables_are_read_as_before(path: Path) -> None:
    frame = read_table(path)
    read = read_columns(frame)
    assert read.frame is frame
    assert [column.note for column in read.reader.columns if column.note] == []


def test_decimal_commas_of_other_columns_settle_ambiguous_ones() -> None:
    ambiguous = pd.Series(["1,234", "5,678", "9,125"] * 40)
    assert read_columns(pd.DataFrame({"x": ambiguous})).frame["x"].max() == 9125.0
    both = pd.DataFrame({"x": ambiguous, "y": ["1,5", "2,25", "12,75"] * 40})
    assert read_columns(both).frame["x"].max() == 9.125
    dates = pd.Series(["02/03/2024", "05/06/2024"] * 60)
    (column,) = read_columns(pd.DataFrame({"d": dates})).reader.columns
    assert column.note is not None
    assert "month first" in column.note
    assert read_columns(pd.DataFrame({"d": dates, "y": both["y"]})).frame["d"].dt.month.max() == 6


def test_a_column_of_two_currencies_gets_a_category() -> None:
    read = read_columns(pd.DataFrame({"x": ["$1.50", "€2", "$3"] * 40}))
    assert read.frame["x"].tolist()[:3] == [1.5, 2.0, 3.0]
    assert read.frame["x__currency"].tolist()[:3] == ["$", "€", "$"]


def test_half_readable_columns_are_reported() -> None:
    cells = [f"${row}.50" if row % 4 else "call us" for row in range(N)]
    (column,) = read_columns(pd.DataFrame({"x": cells})).reader.columns
    assert column.kind == "categorical"
    assert column.note is not None
    assert "75 % of the cells of column 'x' are money such as '$1.50'" in column.note
    assert "'call us'" in column.note
    read = read_columns(pd.DataFrame({"x": cells}), {"x": "currency"})
    assert read.frame["x"].isna().mean() == 0.25


def test_kinds_set_by_the_user() -> None:
    frame = pd.DataFrame(
        {
            "price": [f"${row % 50}" for row in range(N)],
            "name": [f"item {row % 30} of {row % 7}" for row in range(N)],
            "tags": ["a, b", "c, d", "e"] * (N // 3),
            "zip": np.arange(N) % 9,
            "when": ["01.02.2024"] * (N // 2) + ["05.02.2024"] * (N // 2),
        }
    )
    types = {"price": "categorical", "name": "text", "tags": "list", "zip": "categorical", "when": "ignore"}
    read = read_columns(frame, types)
    kinds = {column.name: column.kind for column in read.reader.columns}
    assert kinds == types | {"when": "identifier"}
    assert read.schema.kinds["zip"] == "categorical"
    assert "name__1" in read.frame
    assert "tags__a" in read.frame


def test_wrong_kinds_are_refused() -> None:
    frame = pd.DataFrame({"price": ["red", "green", "blue"] * 40})
    with pytest.raises(DataError, match=r"column 'prize' cannot be set: .*; did you mean 'price'\?"):
        read_columns(frame, {"prize": "currency"})
    with pytest.raises(InvalidParameterError, match=r"got 'currrency'; did you mean 'currency'\?"):
        read_columns(frame, {"price": "currrency"})
    with pytest.raises(DataError, match=r"column 'price' cannot be currency: .* 'red', 'green', 'blue'"):
        read_columns(frame, {"price": "currency"})


def test_names_of_new_columns_do_not_collide() -> None:
    frame = pd.DataFrame({"x": ["$1.50", "€2", "$3"] * 40, "x__currency": np.arange(N) % 7})
    read = read_columns(frame)
    assert list(read.frame) == ["x", "x__currency_", "x__currency"]
    assert read.frame["x__currency"].tolist() == frame["x__currency"].tolist()


def test_missing_columns_are_named() -> None:
    reader = read_columns(pd.DataFrame({"price": [f"${row}" for row in range(N)]})).reader
    with pytest.raises(DataError, match=r"no column 'price' in the table; did you mean 'prize'\?"):
        reader.read(pd.DataFrame({"prize": ["$1"]}))


def test_columns_whose_kind_changes_are_reported_with_the_share() -> None:
    cells = [f"${row}" for row in range(N)]
    reader = read_columns(pd.DataFrame({"price": cells})).reader
    reader.read(pd.DataFrame({"price": ["$1", "n/a", None, "7", 3.5]}))  # no warning
    with pytest.warns(match=r"'price' was currency in training, but 50 % of its cells here, such as 'ask'"):
        read = reader.read(pd.DataFrame({"price": ["$1", "ask", "-"]}))
    assert read["price"].tolist()[:1] == [1.0]


CHANGING = {
    name: row[0]
    for table in (NUMBERS, DATES, OTHERS)
    for name, row in table.items()
    if name not in ("reviews", "genres")
}


@pytest.mark.parametrize("name", CHANGING)
def test_every_kind_but_text_is_reported_when_it_changes(name: str, recwarn: pytest.WarningsRecorder) -> None:
    read = read_columns(pd.DataFrame({"x": CHANGING[name]})).reader
    read.read(pd.DataFrame({"x": CHANGING[name]}))
    read.read(pd.DataFrame({"x": pd.Series([None, "", "n/a"] * 30, dtype=object)}))
    assert not recwarn.list
    kept = [cell for cell in CHANGING[name] if cell not in ("n/a", "-", "", "N.A.", "unknown", None, "#N/A")][
        :30
    ]
    for strange in ("see the note below", "?!"):
        with pytest.warns(
            DataWarning, match=rf"'x' was {read.columns[0].kind} in training, but 50 % of its cells"
        ):
            read.read(pd.DataFrame({"x": kept + [strange] * 30}))


def test_lists_of_other_items_are_reported(recwarn: pytest.WarningsRecorder) -> None:
    cells = OTHERS["genres"][0]
    reader = read_columns(pd.DataFrame({"x": cells})).reader
    reader.read(pd.DataFrame({"x": ["Western|Musical", *cells]}))
    reader.read(pd.DataFrame({"x": ["Western|Musical"] * 20}))  # few rows can have rare items
    assert not recwarn.list
    with pytest.warns(
        DataWarning, match="none has an item that is frequent in training, such as 'Western|Musical'"
    ):
        reader.read(pd.DataFrame({"x": ["Western|Musical"] * 150}))


def test_target_of_money_is_read_and_coded_classes_are_not() -> None:
    assert read_target(pd.Series(["$1,200.50", "$3", "n/a"])) is not None
    assert read_target(pd.Series(["1.5", "2.5"])) is not None
    for classes in (["1", "2"], ["<=50K", ">50K"], ["yes", "no"], ["4 stars", "5 stars"]):
        assert read_target(pd.Series(classes * 50)) is None
    assert read_target(pd.Series([1.0, 2.0])) is None
