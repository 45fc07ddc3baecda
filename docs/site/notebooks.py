"""Notebooks of examples/ as pages: their texts, programs and stored outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MAX_HTML = 10_000
"""Characters up to which an output is shown as HTML; the summary of an estimator has styles of its own."""


def notebook_page(path: Path) -> str:
    """Return a notebook as Markdown."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return "\n\n".join(part for cell in cells for part in _cell(cell)) + "\n"


def _cell(cell: dict[str, Any]) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {})
        html = "".join(data.get("text/html", ""))
        text = "".join(output.get("text", data.get("text/plain", "")))
        if html and len(html) < MAX_HTML:
            yield _table(html)
        elif text:
            yield f"```text\n{text.rstrip()}\n```"


def _table(html: str) -> str:
    """Return the table of a frame, in the style of the page and in one block."""
    html = re.sub(r"<style.*?</style>|<div>|</div>", "", html, flags=re.DOTALL)
    html = re.sub(r'<table border="1" class="dataframe">', "<table>", html)
    return " ".join(html.split())
