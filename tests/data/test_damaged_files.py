"""Damaged, hostile and oversized tables: one sentence each, and no crash of the process."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import feather

from parallelmlp_search.data import read_table, reading
from parallelmlp_search.exceptions import DataError

TEXT = b"a,b\n" + b"1,x\n" * 500
MEGABYTE = 1_000_000


def refusal(path: Path) -> str:
    """Message of the error that a table is refused with, which is one line."""
    with pytest.raises(DataError) as caught:
        read_table(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "available_bytes", lambda: 8 * MEGABYTE)


def zip_of(content: bytes, name: str = "t.csv") -> bytearray:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(name, content)
    return bytearray(archive.getvalue())


def test_offsets_outside_of_a_feather_column(tmp_path: Path) -> None:
    """Arrow reads such a file without an error and crashes when the column is converted."""
    words = ["north", "south", "east"] * 40
    table = pa.table({"word": words, "y": list(range(len(words)))})
    path = tmp_path / "t.feather"
    feather.write_feather(table, path, compression="uncompressed")
    content = bytearray(path.read_bytes())
    offsets = np.array([0, 5, 10, 14], dtype="<i4").tobytes()
    place = content.find(offsets)
    assert place > 0
    content[place + 4 : place + 8] = (2**31 - 2).to_bytes(4, "little")
    path.write_bytes(content)
    script = f"from parallelmlp_search.data import read_table\nread_table({str(path)!r})"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == 1, found.stderr
    assert "DataError" in found.stderr.splitlines()[-1]
    assert "is damaged" in refusal(path)


@pytest.mark.parametrize("suffix", [".feather", ".parquet"])
def test_flipped_bytes_in_columnar_files(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"n": range(200), "word": ["north", "south"] * 100})
    path = tmp_path / f"t{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_feather(path, compression="uncompressed")
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refusals = []
    for _ in range(60):
        content = bytearray(whole)
        for place in generator.integers(len(whole), size=4):
            content[place] = generator.integers(256)
        path.write_bytes(content)
        try:
            read_table(path)
        except DataError as error:
            refusals.append(str(error))
    assert len(refusals) > 10
    assert not any("\n" in message for message in refusals)


def test_encrypted_zip(tmp_path: Path) -> None:
    content = zip_of(TEXT)
    content[6] |= 1
    content[content.rfind(b"PK\x01\x02") + 8] |= 1
    path = tmp_path / "t.zip"
    path.write_bytes(content)
    assert refusal(path) == f"{str(path)!r} cannot be read: 't.csv' in it is encrypted, so decrypt it first"


def test_unknown_compression_in_a_zip(tmp_path: Path) -> None:
    content = zip_of(TEXT)
    content[8] = content[content.rfind(b"PK\x01\x02") + 10] = 97
    path = tmp_path / "t.zip"
    path.write_bytes(content)
    assert "'t.csv' in it is compressed by a method that Python does not know" in refusal(path)


@pytest.mark.skipif(sys.platform == "win32", reason="symbolic links need rights on Windows")
def test_symbolic_links_that_lead_nowhere(tmp_path: Path) -> None:
    loop, dangling = tmp_path / "loop.csv", tmp_path / "dangling.csv"
    os.symlink("loop.csv", loop)
    os.symlink("nothing.csv", dangling)
    assert "is a symbolic link that leads back to itself" in refusal(loop)
    message = refusal(dangling)
    assert "is a symbolic link to 'nothing.csv', which does not exist" in message
    assert "did you mean" not in message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_zero_bytes_after_the_sample(tmp_path: Path, encoding: str, compress: object) -> None:
    path = tmp_path / "t.csv"
    text = "a,b\n" + "1,x\n" * 100_000 + "2,\0y\n"
    path.write_bytes(compress(text.encode(encoding)))  # type: ignore[operator]
    assert "holds zero bytes" in refusal(path)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zip_of])
@pytest.mark.usefixtures("little_memory")
def test_compressed_text_that_expands_beyond_half_of_the_memory(tmp_path: Path, compress: object) -> None:
    path = tmp_path / "t.zip"
    path.write_bytes(compress(b"a,b\n" + b"1,x\n" * 200_000))  # type: ignore[operator]
    assert refusal(path).endswith(
        "reading it takes more than half of the 8 MB of memory that are available: give fewer rows or columns"
    )
    path.write_bytes(compress(TEXT))  # type: ignore[operator]
    assert read_table(path).shape == (500, 2)


@pytest.mark.usefixtures("little_memory")
def test_standard_input_beyond_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a,b\n" + "1,x\n" * 2 * MEGABYTE))
    with pytest.raises(DataError, match="'standard input' cannot be read: reading it takes more than half"):
        read_table("-")


@pytest.mark.parametrize("suffix", [".feather", ".parquet"])
@pytest.mark.usefixtures("little_memory")
def test_columnar_files_that_expand_beyond_half_of_the_memory(tmp_path: Path, suffix: str) -> None:
    frame = pd.DataFrame({"a": np.zeros(600_000)})
    path = tmp_path / f"t{suffix}"
    write = frame.to_parquet if suffix == ".parquet" else frame.to_feather
    write(path)
    assert path.stat().st_size < 100_000
    assert "takes more than half of the 8 MB of memory" in refusal(path)
