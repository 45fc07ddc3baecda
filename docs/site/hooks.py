"""Hooks of mkdocs: pages from outside of docs/, links that leave it, diagrams, and the command reference."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

sys.path.insert(0, str(Path(__file__).parents[2]))

from docs.site.commands import command_reference
from docs.site.links import DIAGRAM, OUTSIDE, ROLE, ROOT, inline_diagram, role_name, site_links
from docs.site.notebooks import notebook_page

COMMANDS = "[commands]"
"""Line of the page of commands that is replaced by their reference."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside of docs/, the images that pages show, and all pages to the navigation."""
    for source, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / source).read_text(encoding="utf-8")))
    for path in sorted((ROOT / "examples").glob("*.ipynb")):
        files.append(File.generated(config, f"examples/{path.stem}.md", content=notebook_page(path)))
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.svg")):
        files.append(File.generated(config, f"results/{path.name}", abs_src_path=str(path)))
    listed = set(_pages(config.nav))
    rest = [file.src_uri for file in files.documentation_pages() if file.src_uri not in listed]
    decisions = [name for name in rest if name.startswith("decisions/")]
    # the index comes first, then the decisions in their order
    config.nav.append(
        {"Decisions": sorted(decisions, key=lambda name: (not name.endswith("README.md"), name))}
    )
    if others := sorted(set(rest) - set(decisions)):
        config.nav.append({"More": others})
    return files


def _pages(nav: Any) -> list[str]:
    """Return the pages of a navigation."""
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [page for part in parts for page in _pages(part)]


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put diagrams into the page, where they follow its colours, and show roles of docstrings as code."""
    html = ROLE.sub(lambda match: f"<code>{role_name(match[1])}</code>", html)
    return DIAGRAM.sub(lambda match: inline_diagram(match[1]), html)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links and names of documents lead to pages of the site, and write the command reference."""
    if page.file.src_uri.startswith("decisions/"):
        page.meta["search"] = {"boost": 0.3}  # a search finds what holds now before what was measured once
    text = site_links(markdown, page.file.src_uri).replace("```console\n", "```shell\n")
    return text.replace(COMMANDS, command_reference()) if COMMANDS in text else text
