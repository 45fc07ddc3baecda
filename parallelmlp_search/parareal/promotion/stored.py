"""Description of the promoted networks of a run, read without torch."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from parallelmlp_search._checks import check_non_negative
from parallelmlp_search._reading import read_json
from parallelmlp_search._schema import Count, Positive
from parallelmlp_search.search import RunDirectory

FOLDER = "promoted"
FORMAT = 1


class StoredMember(TypedDict):
    """Network in ``promoted.json``."""

    trial: Count
    config: dict[str, Any]
    slices: Positive
    cuts: list[Count]
    weight: Annotated[float, check_non_negative]


class StoredPromotion(TypedDict):
    """Content of ``promoted.json``."""

    format: Positive
    weights: NotRequired[str]  # name of the file; before version 0.2.0 always weights.safetensors
    members: list[StoredMember]


def stored_promotion(directory: RunDirectory) -> dict[str, Any] | None:
    """Return what the last promotion of a run has stored; None without one.

    Raises
    ------
    RunDirectoryError
        If the file is damaged or of a newer format.
    """
    path = directory.path / FOLDER / "promoted.json"
    if not path.is_file():
        return None
    return dict(read_json(path, StoredPromotion, newest=FORMAT))
