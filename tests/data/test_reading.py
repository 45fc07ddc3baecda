"""Reading of files: dialects, encodings, compression, errors."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parallelmlp_search.data import fingerprint, read_table, reading
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError

DATASETS = Path(__file__).resolve().parents[2] / "datasets"


def write(folder: Path, text: str, name: str = "table.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_found_if_quoted_fields_hold_others(tmp_path: Path, delimiter: str) -> None:
    rows = [f'"a{delimiter}, ; | b"', "1.5", "x"]
    text = delimiter.join(["text", "number", "class"]) + "\n" + (delimiter.join(rows) + "\n") * 3
    frame = read_table(write(tmp_path, text))
    assert list(frame.columns) == ["text", "number", "class"]
    assert frame["text"][0] == f"a{delimiter}, ; | b"
    assert frame["number"].tolist() == [1.5] * 3


def test_given_delimiter_is_used(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b c\n1,2 3\n")
    assert list(read_table(path).columns) == ["a", "b c"]
    assert list(read_table(path, delimiter=" ").columns) == ["a,b", "c"]


def test_semicolons_with_decimal_commas(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "a;b\n1,5;2,25\n-3;4,0\n"))
    assert frame["a"].tolist() == [1.5, -3.0]
    mixed = read_table(
        write(tmp_path, "a;b\n1,5;2.25\n-3;4.0\n")
    )  # decimal points elsewhere: commas are no decimals
    assert mixed["a"].tolist() == ["1,5", "-3"]
    assert mixed["b"].tolist() == [2.25, 4.0]


def test_semicolons_with_commas_in_texts(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "id;text\n1;a, b, c\n2;d, e, f\n"))
    assert frame.shape == (2, 2)
    assert frame["text"].tolist() == ["a, b, c", "d, e, f"]


def test_a_single_column_is_a_table(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "x\n1\n2\n"))
    assert frame["x"].tolist() == [1, 2]


def test_line_breaks_inside_quotes_and_windows_line_ends(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, 'a,b\r\n"one\ntwo",1\r\n"say ""hi""",2\r\n'))
    assert frame["a"].tolist() == ["one\ntwo", 'say "hi"']
    assert frame["b"].tolist() == [1, 2]


def test_spaces_after_delimiters_are_dropped(tmp_path: Path) -> None:
    frame = read_table(write(tmp_path, "age, job\n39, State-gov\n40, ?\n"))
    assert list(frame.columns) == ["age", "job"]
    assert frame["job"][0] == "State-gov"
    assert frame["job"].isna().tolist() == [False, True]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1", "utf-16"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    frame = read_table(write(tmp_path, "größe,stadt\n1,Köln\n2,Málaga\n", encoding=encoding))
    assert list(frame.columns) == ["größe", "stadt"]
    assert frame["stadt"].tolist() == ["Köln", "Málaga"]


def test_latin_1_after_the_sample(tmp_path: Path) -> None:
    text = "number,city\n" + "1,Bonn\n" * 60_000 + "2,Köln\n"
    assert read_table(write(tmp_path, text, encoding="latin-1"))["city"].iloc[-1] == "Köln"
    assert read_table(write(tmp_path, text, encoding="utf-8"))["city"].iloc[-1] == "Köln"


def test_sample_ends_inside_a_character(tmp_path: Path) -> None:
    for pad in range(3):
        text = "a,b\n" + "x" * pad + "ü,1\n" * 70_000
        assert read_table(write(tmp_path, text))["a"].iloc[-1] == "ü"


def test_given_encoding_is_used_and_checked(tmp_path: Path) -> None:
    path = write(tmp_path, "a,b\nŁódź,1\n", encoding="cp1250")
    assert read_table(path, encoding="cp1250")["a"][0] == "Łódź"
    with pytest.raises(DataError, match="cannot be read as 'utf-8' text"):
        read_table(path, encoding="utf-8")
    with pytest.raises(
        InvalidParameterError, match="encoding must be one that Python knows, but got 'utf-9'"
    ):
        read_table(path, encoding="utf-9")


def test_only_the_listed_texts_are_missing(tmp_path: Path) -> None:
    missing = ["", '""', "NA", "NaN", "nan", "null", "NULL", "N/A", "?"]
    kept = ["None", "none", "n/a", "-", "nil", "#N/A", "<NA>", "inf "]
    text = "a,b\n" + "".join(f"{value},1\n" for value in missing + kept)
    frame = read_table(write(tmp_path, text))
    assert frame["a"].isna().tolist() == [True] * len(missing) + [False] * len(kept)
    assert frame["a"].tolist()[len(missing)] == "None"


def test_repeated_names_are_numbered_with_a_warning(tmp_path: Path) -> None:
    path = write(tmp_path, "a,a,b,a.1,a\n1,2,3,4,5\n")
    with pytest.warns(DataWarning, match=r"column names repeat in .*'a' as 'a.2', 'a' as 'a.3'"):
        frame = read_table(path)
    assert list(frame.columns) == ["a", "a.2", "b", "a.1", "a.3"]
    assert frame.iloc[0].tolist() == [1, 2, 3, 4, 5]


def test_row_names_without_a_header_and_trailing_delimiters(tmp_path: Path) -> None:
    named = read_table(write(tmp_path, '"a","b"\n"r1",1,2\n"r2",3,4\n'))  # as R writes it
    assert list(named.columns) == ["index", "a", "b"]
    assert named["b"].tolist() == [2, 4]
    trailing = read_table(write(tmp_path, "a,b\n1,2,\n3,4,\n"))
    assert list(trailing.columns) == ["a", "b"]
    assert trailing["a"].tolist() == [1, 3]
    unnamed = read_table(write(tmp_path, '"",a\n1,2\n'))
    assert list(unnamed.columns) == ["Unnamed: 0", "a"]


def test_uneven_rows_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="row 2 has 3 fields, but the header has 2"):
        read_table(write(tmp_path, "a,b\n1,2\n3,4,5\n"))
    late = "a,b\n" + "1,2\n" * 500 + "3,4,5\n"
    with pytest.raises(DataError, match=r"cannot be read: Error tokenizing data.*line 502"):
        read_table(write(tmp_path, late))
    short = read_table(write(tmp_path, "a,b\n1\n2,3\n"))
    assert np.isnan(short["b"][0])


TEXT = "a,b\n1,x\n2,y\n"


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("t.csv.gz", gzip.compress),
        ("t.csv.bz2", bz2.compress),
        ("t.tsv.xz", lzma.compress),
        ("t.gz", gzip.compress),  # no inner suffix
        ("t.csv", gzip.compress),  # the suffix hides the compression
        ("T.CSV", bytes),
        ("my.data.2024.txt", bytes),
    ],
)
def test_compressed_text(tmp_path: Path, name: str, compress: object) -> None:
    text = TEXT.replace(",", "\t") if "tsv" in name else TEXT
    (tmp_path / name).write_bytes(compress(text.encode()))  # type: ignore[operator]
    frame = read_table(tmp_path / name)
    assert frame["a"].tolist() == [1, 2]
    assert frame["b"].tolist() == ["x", "y"]


def test_zip_holds_one_table(tmp_path: Path) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("t.csv", TEXT)
    assert read_table(path)["b"].tolist() == ["x", "y"]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("u.csv", TEXT)
    with pytest.raises(DataError, match="must hold exactly one table, but holds 2 files"):
        read_table(path)


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        buffer = io.BytesIO(TEXT.encode())

    monkeypatch.setattr(sys, "stdin", Stream())
    assert read_table("-")["b"].tolist() == ["x", "y"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(TEXT))
    assert read_table("-")["b"].tolist() == ["x", "y"]
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    with pytest.raises(DataError, match="'standard input' is empty"):
        read_table("-")


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.feather", "t.arrow"])
def test_columnar_files(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame(
        {"n": [1.5, None], "c": ["x", None], "t": pd.to_datetime(["2024-01-01", None]), "b": [True, False]}
    )
    path = tmp_path / name
    frame.to_parquet(path) if name.endswith(("parquet", "pq")) else frame.to_feather(path)
    back = read_table(path)
    pd.testing.assert_frame_equal(back, frame, check_dtype=False)


def test_named_index_of_parquet_becomes_a_column(tmp_path: Path) -> None:
    frame = pd.DataFrame({"n": [1, 2]}, index=pd.Index(["a", "b"], name="key"))
    frame.to_parquet(tmp_path / "t.parquet")
    assert list(read_table(tmp_path / "t.parquet").columns) == ["key", "n"]
    frame.rename_axis(None).to_parquet(tmp_path / "u.parquet")
    assert list(read_table(tmp_path / "u.parquet").columns) == ["n"]


def test_errors_name_the_file_the_rule_and_the_near_miss(tmp_path: Path) -> None:
    write(tmp_path, TEXT, "train.csv")
    with pytest.raises(DataError, match=r"no file '.*trian.csv'; did you mean 'train.csv'\?"):
        read_table(tmp_path / "trian.csv")
    with pytest.raises(DataError, match="no file"):
        read_table(tmp_path / "no" / "such" / "folder.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)
    with pytest.raises(DataError, match=r"'.*empty.csv' is empty"):
        read_table(write(tmp_path, "", "empty.csv"))
    with pytest.raises(DataError, match=r"'.*blank.csv' is empty"):
        read_table(write(tmp_path, "\n \n", "blank.csv"))
    with pytest.raises(DataError, match="has a header, but no rows"):
        read_table(write(tmp_path, "a,b\n", "header.csv"))
    with pytest.raises(DataError, match=r"unknown suffix '.cvs'; did you mean '.csv'\?; a table must end in"):
        read_table(write(tmp_path, TEXT, "t.cvs"))
    with pytest.raises(DataError, match="has no suffix"):
        read_table(write(tmp_path, TEXT, "table"))
    with pytest.raises(DataError, match=r"bad.parquet' cannot be read"):
        read_table(write(tmp_path, TEXT, "bad.parquet"))
    with pytest.raises(DataError, match=r"bad.feather' cannot be read"):
        read_table(write(tmp_path, TEXT, "bad.feather"))
    with pytest.raises(DataError, match="holds zero bytes"):
        read_table(write(tmp_path, "a,b\n\x00\x01,2\n", "binary.csv"))
    with pytest.raises(InvalidParameterError, match="delimiter must be a single character, but got ', '"):
        read_table(tmp_path / "train.csv", delimiter=", ")
    cut = gzip.compress(TEXT.encode() * 1000)[:-20]
    (tmp_path / "cut.csv.gz").write_bytes(cut)
    with pytest.raises(DataError, match=r"cut.csv.gz' cannot be read"):
        read_table(tmp_path / "cut.csv.gz")


@pytest.mark.parametrize(
    ("name", "shape", "missing"),
    [
        ("adult", (48842, 15), 6465),
        ("credit_g", (1000, 21), 0),
        ("diamonds", (53940, 10), 0),
        ("letter", (20000, 17), 0),
        ("mnist5k", (5000, 785), 0),
        ("satimage", (6435, 37), 0),
        ("spambase", (4601, 58), 0),
        ("wine_quality", (6497, 13), 0),
    ],
)
def test_real_tables(name: str, shape: tuple[int, int], missing: int) -> None:
    frame = read_table(DATASETS / f"{name}.csv.gz")
    assert frame.shape == shape
    assert int(frame.isna().sum().sum()) == missing


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=6).map(str.strip)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(WORDS, st.integers(-9, 9), WORDS), min_size=3, max_size=20),
    delimiter=st.sampled_from([",", ";", "\t", "|"]),
)
def test_quoted_tables_of_pandas_round_trip(
    tmp_path: Path, rows: list[tuple[str, int, str]], delimiter: str
) -> None:
    frame = pd.DataFrame(rows, columns=["first", "number", "last"])
    path = tmp_path / "t.csv"
    frame.to_csv(path, sep=delimiter, index=False, quoting=1)
    back = read_table(path)
    assert list(back.columns) == list(frame.columns)
    assert back["number"].tolist() == frame["number"].tolist()
    assert len(back) == len(frame)


def test_json_lines_keep_types_lists_and_objects(tmp_path: Path) -> None:
    lines = ['{"a": 1, "b": "007", "c": [1, 2]}', '{"a": 2.5, "b": null, "d": {"e": "x"}}']
    expected = [1.0, 2.5]
    for name, pack in {"t.jsonl": bytes, "t.ndjson.gz": gzip.compress}.items():
        (tmp_path / name).write_bytes(pack("\n".join(lines).encode()))
        frame = read_table(tmp_path / name)
        assert frame["a"].tolist() == expected
        assert frame["b"][0] == "007"
        assert (frame["c"][0], frame["d"][1]) == ([1, 2], {"e": "x"})
    for text in ("[1, 2]\n[3, 4]", "{", "nonsense"):
        with pytest.raises(DataError, match="cannot be read"):
            read_table(write(tmp_path, text, "bad.jsonl"))


def test_orc(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2], "b": ["x", None]})
    frame.to_orc(tmp_path / "t.orc")
    assert read_table(tmp_path / "t.orc")["a"].tolist() == [1, 2]
    (tmp_path / "t.orc").write_bytes(b"ORC and nothing else")
    with pytest.raises(DataError, match="cannot be read"):
        read_table(tmp_path / "t.orc")


def test_files_that_match_a_pattern_are_joined(tmp_path: Path) -> None:
    write(tmp_path, "a,b\n1,x\n", "part-1.csv")
    write(tmp_path, "b,a\ny,2\n", "part-2.csv")
    frame = read_table(str(tmp_path / "part-*.csv"))
    assert frame.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
    write(tmp_path, "a,c\n3,z\n", "part-3.csv")
    with pytest.raises(DataError, match=r"'.*part-3.csv' has no column 'b', but '.*part-1.csv' has one"):
        read_table(str(tmp_path / "part-*.csv"))
    with pytest.raises(DataError, match="no file matches"):
        read_table(str(tmp_path / "other-*.csv"))


# ---------------------------------------------------------------------------- JSON arrays


RECORDS = [
    {"n": 1, "name": "x", "date": "2024-01-01", "tags": ["a", "b"], "of": {"k": 1}},
    {"n": None, "name": "y", "tags": [], "more": True},
]


@pytest.mark.parametrize("name", ["t.json", "t.json.gz", "t.jsonl"])
def test_an_array_of_records_is_the_table_of_its_lines(tmp_path: Path, name: str) -> None:
    compress = gzip.compress if name.endswith("gz") else bytes
    (tmp_path / name).write_bytes(compress(b"\xef\xbb\xbf \n" + json.dumps(RECORDS, indent=1).encode()))
    lines = tmp_path / "lines.jsonl"
    lines.write_text("\n".join(map(json.dumps, RECORDS)))
    found, wanted = read_table(tmp_path / name), read_table(lines)
    pd.testing.assert_frame_equal(found, wanted)
    assert fingerprint(found) == fingerprint(wanted)
    assert found["tags"][0] == ["a", "b"]
    # lines in a file of the other suffix
    (tmp_path / "lines.json").write_text(lines.read_text())
    pd.testing.assert_frame_equal(read_table(tmp_path / "lines.json"), wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "has no rows"),
        ("[{}]", "has no rows"),
        ("[1, 2]", "each element must be a JSON object"),
        ('[{"a": 1}, 3]', "each element must be a JSON object"),
        ('[3, {"a": 1}]', "each element must be a JSON object"),
        ('[{"a": 1}, {"a": 2', "cannot be read: "),
        ('[{"a": 1}] x', "cannot be read: "),
        ("[" * 100_000, "cannot be read: "),
    ],
)
def test_what_is_no_array_of_records(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_table(tmp_path / "t.json")
    assert "\n" not in str(caught.value)


def test_a_large_array_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t.json").write_text(json.dumps([{"a": row} for row in range(100_000)]))
    assert len(read_table(tmp_path / "t.json")) == 100_000
    monkeypatch.setattr(reading, "available_bytes", lambda: 40_000_000)
    with pytest.raises(DataError, match="takes more than half of the 40 MB of memory"):
        read_table(tmp_path / "t.json")
