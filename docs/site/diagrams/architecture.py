"""Diagram of the packages that a search passes through."""

from __future__ import annotations

import importlib

from docs.site.diagrams.svg import Drawing

Box = tuple[str, str, float, float]

BOXES: dict[str, Box] = {
    "interfaces": ("estimators, cli", "a table and a target", 20, 50),
    "problem": ("search.problem", "Problem, SearchSettings", 285, 50),
    "preparation": ("search.problem", "columns, splits, tensors", 550, 50),
    "proposals": ("search.proposals", "configurations to try", 20, 135),
    "screening": ("search.screening", "rungs of shards", 285, 135),
    "plan": ("search.planning", "budget, rungs, folds", 550, 135),
    "shards": ("distribute", "shards over workers", 20, 220),
    "finalists": ("search.finalists", "cross-fitting", 285, 220),
    "journal": ("search.run", "journal, run directory", 550, 220),
    "training": ("engine, kernels, packing", "training", 20, 305),
    "selection": ("selection", "ensemble, honest score", 285, 305),
    "result": ("inference", "model, leaderboard", 550, 305),
}
"""Package, content, left and top of each box."""

ARROWS = (
    ("interfaces", "problem"), ("problem", "preparation"), ("preparation", "plan"), ("plan", "screening"),
    ("proposals", "screening"), ("screening", "finalists"), ("screening", "shards"), ("shards", "training"),
    ("finalists", "selection"), ("selection", "result"), ("finalists", "shards"),
)  # fmt: skip
WIDTH, HEIGHT = 196, 48


def packages() -> list[str]:
    """Return the packages that are shown, which must exist."""
    names = {name for names, *_ in BOXES.values() for name in names.split(", ")}
    for name in names:
        importlib.import_module(f"parallelmlp_search.{name}")
    return sorted(names)


def architecture() -> Drawing:
    """Return the packages and what passes between them."""
    packages()
    drawing = Drawing("architecture", "Packages that a search passes through, from table to model", 760, 370)
    drawing.text(20, 28, "From the table to the model", "bold")
    for name, (package, content, x, y) in BOXES.items():
        drawing.box(x, y, WIDTH, HEIGHT, "c5" if name == "journal" else "paper", rx=6)
        drawing.text(x + 12, y + 20, package, "bold")
        drawing.text(x + 12, y + 37, content, "small faint")
    for begin, end in ARROWS:
        drawing.arrow(_path(BOXES[begin], BOXES[end]))
    # the journal is written and read by both stages
    drawing.line([(481, 244), (550, 244)], stroke_dasharray="2 4")
    drawing.line([(481, 173), (516, 173), (516, 244)], stroke_dasharray="2 4")
    return drawing


def _path(begin: Box, end: Box) -> list[tuple[float, float]]:
    """Return the points of an arrow between the sides of two boxes that face each other."""
    x0, y0, x1, y1 = begin[2], begin[3], end[2], end[3]
    if x0 == x1:
        return [(x0 + WIDTH / 2, y0 + HEIGHT), (x0 + WIDTH / 2, y1 - 3)]
    side0, side1 = (x0 + WIDTH, x1 - 3) if x0 < x1 else (x0, x1 + WIDTH + 3)
    if y0 == y1:
        return [(side0, y0 + HEIGHT / 2), (side1, y1 + HEIGHT / 2)]
    middle = (side0 + side1) / 2
    return [(side0, y0 + 38), (middle, y0 + 38), (middle, y1 + 12), (side1, y1 + 12)]
