"""Decompression of text tables: gzip, bzip2, xz, and zip archives of one file."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from parallelmlp_search.exceptions import DataError

SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".zip"})

DAMAGED = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)
"""Errors of a damaged file, beside `OSError` and `ValueError`."""

_OPENERS: dict[bytes, Any] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_ZIP = b"PK\x03\x04"
_ENCRYPTED = 0x1


@contextmanager
def decompressed(stream: IO[bytes], label: str) -> Iterator[IO[bytes]]:
    """Open the text in a stream from its start; the first bytes, not the name, tell the compression.

    Raises
    ------
    DataError
        If a zip archive does not hold exactly one readable file.
    """
    stream.seek(0)
    start = stream.read(6)
    stream.seek(0)
    if start.startswith(_ZIP):
        with _zip_archive(stream, label) as archive, _only_member(archive, label) as member:
            yield member
        return
    opener = next((opener for first, opener in _OPENERS.items() if start.startswith(first)), None)
    yield stream if opener is None else opener(stream)


def _zip_archive(stream: IO[bytes], label: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(stream)
    except NotImplementedError as error:
        raise DataError(
            f"{label!r} cannot be read: Python does not know this {error}, so extract it first"
        ) from None


def _only_member(archive: zipfile.ZipFile, label: str) -> IO[bytes]:
    members = [member for member in archive.infolist() if not member.filename.endswith("/")]
    if len(members) != 1:
        raise DataError(f"{label!r} must hold exactly one table, but holds {len(members)} files")
    (member,) = members
    if member.flag_bits & _ENCRYPTED:
        raise DataError(
            f"{label!r} cannot be read: {member.filename!r} in it is encrypted, so decrypt it first"
        )
    try:
        return archive.open(member)
    except NotImplementedError:
        raise DataError(
            f"{label!r} cannot be read: {member.filename!r} in it is compressed by a method that Python "
            "does not know, so extract it first"
        ) from None
