"""Atomic writing and validated reading of files."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parallelmlp_search._files import append_line, save_tensors, write_atomic, write_json
from parallelmlp_search._reading import load_tensors, read_json
from parallelmlp_search.exceptions import RunDirectoryError


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tensors_and_metadata_round_trip_bit_for_bit(tmp_path: Path) -> None:
    tensors = {
        "single": torch.randn(3, 5),
        "double": torch.tensor([math.pi, float("nan"), -0.0, 5e-324], dtype=torch.float64),
        "count": torch.arange(4),
        "transposed": torch.randn(2, 3).t(),  # not contiguous
        "nothing": torch.empty(0, 7),
        "flag": torch.tensor([True, False]),
    }
    metadata = {"step": np.int64(7), "error": np.float32(0.5), "none": None, "list": [1, "é"]}
    path = tmp_path / "file.safetensors"
    save_tensors(path, tensors, metadata)
    loaded, back = load_tensors(path)
    assert set(loaded) == set(tensors)
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].shape == tensor.shape
        assert loaded[name].numpy().tobytes() == tensor.contiguous().numpy().tobytes()
    assert back == {"step": 7, "error": 0.5, "none": None, "list": [1, "é"]}
    assert _names(path.parent) == ["file.safetensors"]


def test_a_file_without_tensors(tmp_path: Path) -> None:
    save_tensors(tmp_path / "a", {}, {"kept": 1})
    assert load_tensors(tmp_path / "a")[1] == {"kept": 1}
    save_tensors(tmp_path / "b", {"x": torch.ones(1)})
    assert load_tensors(tmp_path / "b")[1] is None


def test_views_of_one_buffer_can_be_saved(tmp_path: Path) -> None:
    flat = torch.arange(10.0)
    save_tensors(tmp_path / "a", {"first": flat[:4], "second": flat[4:]})
    loaded, _ = load_tensors(tmp_path / "a")
    assert torch.equal(loaded["first"], flat[:4])
    assert torch.equal(loaded["second"], flat[4:])


def test_json_round_trip(tmp_path: Path) -> None:
    value = {"b": [1, 2.5, None, True], "a": {"name": "ü"}, "infinite": float("inf"), "numpy": np.float64(2)}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert list(json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))) == list(value)
    with pytest.raises(TypeError, match="JSON cannot hold a set"):
        write_json(tmp_path / "b.json", {1, 2})
    assert _names(tmp_path) == ["a.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.json"
    write_json(path, {"version": 1})

    def write_half(temporary: Path) -> None:
        temporary.write_text("{'half", encoding="utf-8")
        raise ZeroDivisionError("the writer broke")

    with pytest.raises(ZeroDivisionError):
        write_atomic(path, write_half)
    assert read_json(path) == {"version": 1}
    assert _names(tmp_path) == ["kept.json"]
    write_json(path, {"version": 2})
    assert read_json(path) == {"version": 2}


@pytest.mark.parametrize("durable", [True, False])
def test_the_content_is_on_the_disk_before_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    done: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda file: (done.append("sync"), sync(file)))
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("replace"), replace(*paths)))
    save_tensors(tmp_path / "a", {"x": torch.ones(2)}, durable=durable)
    assert done == (["sync", "replace"] if durable else ["replace"])


def test_lines_are_appended_below_half_a_line(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for content, expected in [("", "new\n"), ("old\n", "old\nnew\n"), ("ol", "ol\nnew\n")]:
        path.write_text(content)
        append_line(path, "new")
        assert path.read_text() == expected
    with pytest.raises(RunDirectoryError, match="its folder was deleted or moved"):
        append_line(tmp_path / "gone" / "log", "new")


def test_the_file_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    seen: list[bool] = []

    def write(temporary: Path) -> None:
        assert temporary.parent == path.parent  # a rename is atomic on one file system only
        temporary.write_text("all", encoding="utf-8")
        seen.append(path.exists())

    write_atomic(path, write)
    assert seen == [False]
    assert path.read_text(encoding="utf-8") == "all"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            r"could not write .*free some space there and run again",
        ),
        (
            RuntimeError("I/O error: No space left on device (os error 28)"),
            "free some space there and run again",
        ),
        (
            RuntimeError("I/O error: Permission denied (os error 13)"),
            "make the folder writable and run again",
        ),
        (PermissionError(errno.EACCES, "Permission denied"), "make the folder writable and run again"),
    ],
)
def test_a_failed_write_names_the_cause_and_the_advice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"old": torch.ones(2)})

    def full(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(RunDirectoryError, match=words) as caught:
        save_tensors(path, {"new": torch.ones(2)})
    assert caught.value.__cause__ is error
    assert "weights.safetensors" in str(caught.value)
    assert set(load_tensors(path)[0]) == {"old"}
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(RunDirectoryError, match=words):
        write_json(tmp_path / "a.json", {})
    assert _names(tmp_path) == ["weights.safetensors"]


def test_other_errors_of_a_writer_propagate(tmp_path: Path) -> None:
    def fail(temporary: Path) -> None:
        raise ValueError("unknown namespace")

    with pytest.raises(ValueError, match="unknown namespace"):
        write_atomic(tmp_path / "a", fail)


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("no folder")
    with pytest.raises(RunDirectoryError, match=r"could not write .*make the folder writable"):
        write_json(tmp_path / "folder" / "a.json", {})


def test_importing_the_module_does_not_import_torch() -> None:
    code = "import sys; import parallelmlp_search._files; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_missing_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"there is no file '.*gone.json'"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(RunDirectoryError, match=r"there is no file '.*gone.safetensors'"):
        load_tensors(tmp_path / "gone.safetensors")
    broken = tmp_path / "broken.json"
    for content in (b"", b'{"half": ', b"\xff\xfe\x00"):
        broken.write_bytes(content)
        with pytest.raises(RunDirectoryError, match=r"could not read '.*broken.json'"):
            read_json(broken)
    with pytest.raises(RunDirectoryError, match="could not read"):
        read_json(tmp_path)


@pytest.mark.parametrize("keep", [0, 1, 7, 40, 0.5, -1])
def test_a_truncated_tensor_file(tmp_path: Path, keep: float) -> None:
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"weights": torch.randn(100)}, {"step": 3})
    size = path.stat().st_size
    os.truncate(path, int(size * keep) if 0 < keep < 1 else int(keep) if keep >= 0 else size - 1)
    with pytest.raises(RunDirectoryError, match=r"could not read '.*weights.safetensors'"):
        load_tensors(path)


def test_a_file_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"no tensors here" * 100)
    with pytest.raises(RunDirectoryError, match="could not read"):
        load_tensors(path)
