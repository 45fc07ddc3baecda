"""Links between documents of the repository, as links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
REPOSITORY = "https://github.com/parallelmlp-search/parallelmlp-search/blob/main/"
OUTSIDE = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Files of the repository that are pages of the site, and their names there."""

LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?\)")
NAME = re.compile(r"`(docs/[\w/-]+\.md|CONTRIBUTING\.md|CHANGELOG\.md)`")
FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
DIAGRAM = re.compile(r"<img[^>]* src=\"[^\"]*images/diagrams/(\w+)\.svg\"[^>]*/?>")
ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):<code>([^<]*)</code>")
"""Reference of a docstring in the form of Sphinx, as Markdown shows it."""


def role_name(target: str) -> str:
    """Return the shown name of a role: the last part of a target that begins with a tilde."""
    return target.rpartition(".")[2] if target.startswith("~") else target


def inline_diagram(name: str) -> str:
    """Return a diagram as part of a page, in a box that scrolls on narrow screens."""
    text = (ROOT / "docs" / "images" / "diagrams" / f"{name}.svg").read_text(encoding="utf-8")
    # the page says whether it is light or dark; a file of its own asks the system
    text = text.replace("svg.diagram{color-scheme:light dark;", "svg.diagram{")
    return f'<span class="diagram-box">{" ".join(text.split())}</span>'


def site_links(markdown: str, page: str) -> str:
    """Return a page with the links of the repository turned into links of the site.

    Links to documents lead to their pages, those to other files into the repository. Names of documents
    between backticks become links with their titles. Code blocks are left alone.
    """
    source = {name: outside for outside, name in OUTSIDE.items()}.get(page, f"docs/{page}")
    folder, here = posixpath.dirname(source), posixpath.dirname(page)

    def link(match: re.Match[str]) -> str:
        before, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        return f"{before}{_target(path, here)}{anchor})"

    def name(match: re.Match[str]) -> str:
        return f"[{_title(match[1])}]({_target(match[1], here)})"

    parts = FENCE.split(markdown)
    for place in range(0, len(parts), 2):  # every second part is a code block
        parts[place] = NAME.sub(name, LINK.sub(link, parts[place]))
    return "".join(parts)


def _title(path: str) -> str:
    """Return the title of a document, without backticks."""
    found = re.search(r"^# (.*)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    return found[1].replace("`", "") if found else path


def _target(path: str, here: str) -> str:
    """Return the link from a folder of the site to a file of the repository."""
    if path in OUTSIDE:
        path = OUTSIDE[path]
    elif path.startswith("docs/"):
        path = path.removeprefix("docs/")
    elif path.startswith("examples/") and path.endswith(".ipynb"):
        path = path.replace(".ipynb", ".md")
    elif path.startswith("benchmarks/results/") and path.endswith(".svg"):
        path = path.replace("benchmarks/results/", "results/")
    else:
        return REPOSITORY + path
    if (ROOT / "docs" / path).is_dir():
        path = f"{path}/README.md"
    return posixpath.relpath(path, here or ".")
