"""The documentation site: links between documents, the command reference, and the built pages."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site.commands import command_reference
from docs.site.links import REPOSITORY, site_links
from tests.documents import ROOT, options_of, pmlp_commands


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("optuna.md", "[a](speed.md#figures)", "[a](speed.md#figures)"),
        ("guides/gpu.md", "[a](../kernels.md)", "[a](../kernels.md)"),
        ("architecture.md", "[a](decisions/README.md)", "[a](decisions/README.md)"),
        ("architecture.md", "[a](../CONTRIBUTING.md#language)", "[a](contributing.md#language)"),
        ("contributing.md", "[a](docs/decisions)", "[a](decisions/README.md)"),
        ("guides/gpu.md", "[a](../../examples/classifier.py)", f"[a]({REPOSITORY}examples/classifier.py)"),
        ("speed.md", "![a](../benchmarks/results/x.svg)", "![a](results/x.svg)"),
        ("guides/gpu.md", "see `docs/optuna.md`", "see [Optuna: trials in packed batches](../optuna.md)"),
        ("faq.md", "[a](https://example.org/b.md)", "[a](https://example.org/b.md)"),
        ("faq.md", "```text\n[a](../CONTRIBUTING.md)\n```", "```text\n[a](../CONTRIBUTING.md)\n```"),
    ],
)
def test_links_of_documents_become_links_of_the_site(page: str, markdown: str, expected: str) -> None:
    assert site_links(markdown, page) == expected


def test_the_command_reference_has_every_command_and_option() -> None:
    sections = dict(re.findall(r"^## pmlp (\w+)\n(.*?)(?=^## |\Z)", command_reference(), re.M | re.S))
    assert list(sections) == list(pmlp_commands())
    for command, section in sections.items():
        named = set(re.findall(r"`(-[\w-]+)", section)) | {"--help", "-h"}
        options = {name for name in options_of(command) if name.startswith("-")}
        assert named == options | {"-h"}, command
        rows = [line for line in section.splitlines() if line.startswith("|")]
        widths = {re.sub(r"\\\|", "", row).count("|") for row in rows}
        assert widths <= {3, 4}, command


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="needs the extra docs")
def test_the_site_builds_without_a_broken_link_and_loads_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    documents = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    missing = {name.replace("README.md", "index.md").replace(".md", ".html") for name in documents} - set(
        pages
    )
    assert missing == set()
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\s\">]+)", text)
        loaded += re.findall(r"<link[^>]* href=\"?([^\s\">]+)[^>]* rel=\"?(?:stylesheet|preconnect)", text)
        assert [link for link in loaded if link.startswith(("http:", "https:", "//"))] == [], name
        assert 'class="mermaid"' not in text  # the theme would load it from a server
