"""Writes the diagrams of the documentation: ``python -m docs.site.diagrams``."""

from __future__ import annotations

from pathlib import Path

from docs.site.diagrams.architecture import architecture
from docs.site.diagrams.packing import modified_matmul, packing
from docs.site.diagrams.parareal import parareal
from docs.site.diagrams.search import search_drawings

FOLDER = Path(__file__).parents[2] / "images" / "diagrams"


def main() -> None:
    """Draw all diagrams; the search behind some of them takes a few seconds."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for drawing in (architecture(), packing(), modified_matmul(), parareal(), *search_drawings()):
        (FOLDER / f"{drawing.name}.svg").write_text(drawing.render(), encoding="utf-8")
        print(drawing.name)


if __name__ == "__main__":
    main()
