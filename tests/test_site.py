"""The documentation site: links between documents, the command reference, and the built pages."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from docs.site.commands import command_reference
from docs.site.diagrams.__main__ import FOLDER
from docs.site.diagrams.architecture import architecture
from docs.site.diagrams.packing import modified_matmul, packing, population
from docs.site.diagrams.parareal import parareal, slice_times, spans
from docs.site.diagrams.search import search_drawings
from docs.site.links import DIAGRAM, REPOSITORY, ROLE, inline_diagram, role_name, site_links
from docs.site.notebooks import notebook_page
from parallelmlp_search.packing import plan
from parallelmlp_search.parareal.method.cost import simulate_step
from tests.browser import Browser
from tests.documents import ROOT, blocks, options_of, pmlp_commands


@pytest.mark.parametrize(
    ("page", "markdown", "expected"),
    [
        ("optuna.md", "[a](speed.md#figures)", "[a](speed.md#figures)"),
        ("guides/gpu.md", "[a](../kernels.md)", "[a](../kernels.md)"),
        ("architecture.md", "[a](decisions/README.md)", "[a](decisions/README.md)"),
        ("architecture.md", "[a](../CONTRIBUTING.md#language)", "[a](contributing.md#language)"),
        ("contributing.md", "[a](docs/decisions)", "[a](decisions/README.md)"),
        ("guides/gpu.md", "[a](../../examples/classifier.py)", f"[a]({REPOSITORY}examples/classifier.py)"),
        ("faq.md", "[a](../examples/first_search.ipynb)", "[a](examples/first_search.md)"),
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


def test_a_notebook_becomes_a_page_with_its_outputs() -> None:
    page = notebook_page(ROOT / "examples" / "first_search.ipynb")
    assert page.startswith("# A first search\n")
    found = blocks(page)
    assert {block.language for block in found} == {"python", "text"}
    assert any("honest score" in block.text for block in found if block.language == "text")
    assert page.count("<table>") == page.count("</table>") == 4
    assert "<style" not in page
    assert max(map(len, page.splitlines())) < 10_000


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the built site; building fails at a link or an anchor that leads nowhere."""
    if importlib.util.find_spec("material") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra docs")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    outcome = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert outcome.returncode == 0, outcome.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_all_pages_and_loads_nothing_from_elsewhere(site: Path) -> None:
    pages = {path.relative_to(site).as_posix(): path.read_text("utf-8") for path in site.rglob("*.html")}
    documents = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    expected = {name.replace("README.md", "index.md").replace(".md", ".html") for name in documents}
    assert expected - set(pages) == set()
    for name, text in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\s\">]+)", text)
        loaded += re.findall(r"<link[^>]* href=\"?([^\s\">]+)[^>]* rel=\"?(?:stylesheet|preconnect)", text)
        assert [link for link in loaded if link.startswith(("http:", "https:", "//"))] == [], name
        assert 'class="mermaid"' not in text  # the theme would load it from a server


@pytest.mark.slow
@pytest.mark.browser
def test_pages_work_as_files_with_search_and_fit_a_phone(site: Path, tmp_path: Path) -> None:
    box = "document.querySelector('[data-md-component=search-query]')"
    with Browser(tmp_path / "browser") as browser:
        browser.open(site / "guides" / "deploy.html")
        browser.run(f"{box}.value = 'calibration'; {box}.dispatchEvent(new Event('input'))")
        browser.run(f"{box}.dispatchEvent(new Event('keyup', {{bubbles: true}})); {box}.focus()")
        browser.wait_for("document.querySelectorAll('.md-search-result__item').length > 3")
        assert browser.errors() == []
        browser.resize(390, 800, phone=True)
        for name in ("index", "how-it-works", "reference/commands", "quality"):
            browser.open(site / f"{name}.html")
            width = browser.run("document.scrollingElement.scrollWidth")
            assert width <= 390, f"{name} is {width} pixels wide on a phone"
            assert browser.errors() == []
            assert {address.partition(":")[0] for address in browser.requests()} == {"file"}


def test_diagrams_of_plans_are_those_on_file() -> None:
    for drawing in (architecture(), packing(), modified_matmul(), parareal()):
        on_file = (FOLDER / f"{drawing.name}.svg").read_text(encoding="utf-8")
        assert on_file == drawing.render(), "run python -m docs.site.diagrams"


def test_the_diagram_of_a_step_agrees_with_the_cost_model() -> None:
    times, counts, serial = slice_times()
    ends = [end for pieces in spans(times) for _, _, end in pieces]
    assert max(ends) == pytest.approx(simulate_step(times, [0.0] * (len(times) - 1)))
    assert sum(counts) == 33
    assert serial > 2 * max(ends)


def test_the_diagram_of_packing_shows_every_member_once_and_all_padding() -> None:
    drawing = packing()
    layout = plan(population(), n_rows=32)
    members = [number for bucket in layout.buckets for number in bucket.members]
    assert sorted(members) == list(range(len(population())))
    padding = sum(bucket.n_members * bucket.shape.depth for bucket in layout.buckets)
    assert sum('opacity="0.35"' in part for part in drawing.parts) == padding + 1  # and the legend


@pytest.mark.slow
def test_diagrams_of_a_search_show_what_the_pages_say() -> None:
    drawn = {drawing.name: drawing.render() for drawing in search_drawings()}
    counts = [int(count) for count in re.findall(r">(\d+) trials<", drawn["rungs"])]
    assert counts[0] == 72
    assert all(0.2 < b / a < 0.45 for a, b in pairwise(counts))
    on_the_same, outside = (float(score) for score in re.findall(r">mean (0\.\d+)<", drawn["bias"]))
    honest, naive = (
        float(re.search(rf"{name} score (0\.\d+)", drawn["bias"])[1]) for name in ("honest", "naive")
    )
    assert outside < on_the_same
    assert honest < naive
    assert abs(honest - outside) < 0.01
    assert set(drawn) == {"rungs", "folds", "bias"}


@pytest.mark.parametrize(
    ("html", "shown"),
    [
        (":class:<code>~parallelmlp_search.SearchSpace</code>", "SearchSpace"),
        (":meth:<code>save</code>", "save"),
    ],
)
def test_roles_of_docstrings_are_shown_as_names(html: str, shown: str) -> None:
    assert role_name(ROLE.sub(lambda match: match[1], html)) == shown


def test_diagrams_are_inlined_without_asking_the_system_for_colours() -> None:
    page = '<p><img alt="a" src="../images/diagrams/packing.svg" /></p><p><img src="x.svg" /></p>'
    found = DIAGRAM.sub(lambda match: inline_diagram(match[1]), page)
    assert found.count("<svg") == 1
    assert 'src="x.svg"' in found
    assert "color-scheme" not in found
