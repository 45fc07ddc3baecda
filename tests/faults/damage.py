"""Random damage to the files of a run directory."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import safe_open
from safetensors.torch import save_file

JSON_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 3, 1e308, -0.5, float("nan"), float("inf"), "", "x", "\x1b[31mred", "\ud800", "nul\0",
    [], {}, [[]], [1, "x"], {"a": {}}, "y" * 5000,
)  # fmt: skip
"""Values that replace another one in a JSON file."""

TEXTS = ("", "{", "[1, 2", "null", "[" * 100_000, '{"a":' * 3000, "1" * 5000, "no JSON at all", "\ufeff{}")
"""Contents that replace a whole text file."""

Damage = Callable[[Path, random.Random], str]


def damage(path: Path, rng: random.Random) -> str:
    """Damage a file and return a sentence about it."""
    kinds: list[Damage] = [truncate, change_byte, replace_by_text, replace_kind]
    special = {".json": change_json, ".parquet": change_table, ".safetensors": change_tensors}
    kinds += [special[path.suffix]] * 5 if path.suffix in special else []
    return rng.choice(kinds)(path, rng)


def truncate(path: Path, rng: random.Random) -> str:
    size = rng.choice([0, rng.randrange(path.stat().st_size + 1)])
    os.truncate(path, size)
    return f"truncated to {size} bytes"


def change_byte(path: Path, rng: random.Random) -> str:
    """Change a byte at the start or the end, where the structure of binary files is."""
    content = bytearray(path.read_bytes())
    places = [*range(min(len(content), 400)), *range(max(0, len(content) - 400), len(content))]
    if path.suffix == ".json" or not places:
        return replace_by_text(path, rng)
    place, value = rng.choice(places), rng.randrange(256)
    content[place] = value
    path.write_bytes(content)
    return f"byte {place} became {value}"


def replace_by_text(path: Path, rng: random.Random) -> str:
    text = rng.choice(TEXTS)
    path.write_text(text, encoding="utf-8")
    return f"replaced by {text[:20]!r}"


def replace_kind(path: Path, rng: random.Random) -> str:
    kind = rng.choice(["nothing", "a folder", "a link out", "a pipe"])
    content = path.read_bytes()
    path.unlink()
    if kind == "a folder":
        path.mkdir()
    elif kind == "a link out":
        outside = path.parents[3] / f"outside{path.suffix}"
        outside.write_bytes(content)
        path.symlink_to(outside)
    elif kind == "a pipe":
        os.mkfifo(path)
    return f"replaced by {kind}"


def change_value(value: Any, rng: random.Random, name: str = "") -> tuple[Any, str]:
    """Replace or remove one value at a random depth; return the new value and the name of the place."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        inner = f"{name}.{key}"
        copy = value.copy()
        if rng.random() < 0.2:
            del copy[key]
            return copy, f"without {inner}"
        copy[key], words = change_value(value[key], rng, inner)
        return copy, words
    new = rng.choice(JSON_VALUES)
    return new, f"{name} = {str(new)[:20]!r}"


def change_json(path: Path, rng: random.Random) -> str:
    value, words = change_value(json.loads(path.read_text(encoding="utf-8")), rng)
    path.write_text(json.dumps(value), encoding="utf-8")
    return words


def change_table(path: Path, rng: random.Random) -> str:
    frame = pd.read_parquet(path)
    name = rng.choice(list(frame.columns))
    kind = rng.choice(["dropped", "texts", "missing", "no rows", "foreign", "doubled", "objects"])
    if kind == "dropped":
        frame = frame.drop(columns=name)
    elif kind == "texts":
        frame[name] = "\x1b[31mred"
    elif kind == "missing":
        frame[name] = None
    elif kind == "no rows":
        frame = frame.head(0)
    elif kind == "foreign":
        frame = pd.DataFrame({"a": [1, 2]})
    elif kind == "doubled":
        frame = pd.concat([frame, frame])
    else:
        frame[name] = [[1.5, 2.5]] * len(frame)
    frame.to_parquet(path)
    return f"{name} {kind}"


def change_tensors(path: Path, rng: random.Random) -> str:
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    name = rng.choice(sorted(tensors))
    tensor = tensors[name]
    kind = rng.choice(["dropped", "longer", "flat", "double", "integer", "nan", "infinite", "metadata"])
    if kind == "dropped":
        del tensors[name]
        tensors["other"] = torch.zeros(2)
    elif kind == "longer":
        tensors[name] = torch.zeros(3 + tensor.numel())
    elif kind == "flat":
        tensors[name] = tensor.reshape(1, -1)
    elif kind == "double":
        tensors[name] = tensor.double()
    elif kind == "integer":
        tensors[name] = torch.zeros(tensor.shape, dtype=torch.int64)
    elif kind in ("nan", "infinite"):
        tensors[name] = torch.full(tensor.shape, float(kind[:3]))
    else:
        value, words = change_value(json.loads(metadata.get("metadata", "null")), rng)
        save_file(tensors, path, {"metadata": json.dumps(value)})
        return f"metadata {words}"
    save_file(tensors, path, metadata)
    return f"{name} {kind}"
