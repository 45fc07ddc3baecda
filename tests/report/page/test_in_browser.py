"""The page in headless Chromium: no errors, no requests, and what its controls do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from parallelmlp_search.report.page.page import render
from tests.browser import Browser
from tests.report.conftest import SmallRun, many_trials

Runs = Callable[[str], SmallRun]

pytestmark = pytest.mark.browser

TRIALS = "document.querySelector('[data-table=trials]')"
LARGE = 10_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as opened:
        opened.resize(1280, 900)
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, small_run: Runs) -> Callable[[str], Path]:
    """Function that returns the page of a task, or ``large`` for one with many trials."""
    folder, made = tmp_path_factory.mktemp("pages"), {}

    def get(name: str) -> Path:
        if name not in made:
            content = small_run("binary" if name == "large" else name).content
            if name == "large":
                content = replace(content, search=many_trials(content.search, LARGE))
            made[name] = folder / f"{name}.html"
            made[name].write_text(render(content), encoding="utf-8")
        return made[name]

    return get


def draw_everything(browser: Browser) -> int:
    """Draw all figures without scrolling to them, and return how many there are."""
    browser.run("document.querySelectorAll('.plot').forEach(draw)")
    browser.wait_for("[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))")
    return int(browser.run("document.querySelectorAll('.plot').length"))


def column(browser: Browser, number: int) -> list[str]:
    """Texts of a column of the leaderboard."""
    cells = f"[...{TRIALS}.querySelectorAll('tbody tr')].map(row => row.cells[{number}].textContent)"
    return list(browser.run(cells))


def number_of(browser: Browser, label: str) -> int:
    """Number of the column of the leaderboard with a label."""
    labels = browser.run(f"[...{TRIALS}.querySelectorAll('th')].map(head => head.textContent)")
    return int(labels.index(label))


def click_head(browser: Browser, label: str) -> Any:
    """Click on the head of a column of the leaderboard and return its sorting."""
    number = number_of(browser, label)
    browser.run(f"{TRIALS}.querySelectorAll('th button')[{number}].click()")
    return browser.run(f"{TRIALS}.querySelectorAll('th')[{number}].getAttribute('aria-sort')")


def filter_rows(browser: Browser, text: str) -> str:
    """Type a filter of the leaderboard and return the number of rows as it is shown."""
    browser.run(f"{TRIALS}.querySelector('input').value = {text!r}")
    browser.run(f"{TRIALS}.querySelector('input').dispatchEvent(new Event('input'))")
    return str(browser.run(f"{TRIALS}.querySelector('.count').textContent"))


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression", "large"])
def test_every_figure_is_drawn_without_errors_requests_or_foreign_scripts(
    browser: Browser, pages: Callable[[str], Path], task: str
) -> None:
    browser.open(pages(task))
    assert draw_everything(browser) > 10
    assert browser.errors() == []
    assert browser.requests() == [pages(task).resolve().as_uri()]
    assert browser.run("window.hacked === undefined")


def test_errors_and_requests_of_a_page_are_noticed(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "wrong.html"
    page.write_text("<script>console.error('a'); missing()</script><img src='file:///absent.png'>")
    browser.open(page)
    assert len(browser.errors()) >= 2
    assert len(browser.requests()) == 2


@pytest.mark.alone
def test_the_largest_page_loads_within_two_seconds(browser: Browser, pages: Callable[[str], Path]) -> None:
    browser.open(pages("large"))
    assert min(browser.open(pages("large")) for _ in range(3)) < 2.0


def test_a_click_sorts_and_another_one_reverses(browser: Browser, pages: Callable[[str], Path]) -> None:
    browser.open(pages("large"))
    place = number_of(browser, "parameters")
    assert click_head(browser, "parameters") == "ascending"
    first = [int(text.replace(",", "")) for text in column(browser, place)]
    assert first == sorted(first)
    assert click_head(browser, "parameters") == "descending"
    last = [int(text.replace(",", "")) for text in column(browser, place)]
    assert last == sorted(last, reverse=True)
    assert last[-1] > first[0]
    sorted_heads = browser.run(f"{TRIALS}.querySelectorAll('[aria-sort]').length")
    click_head(browser, "trial")
    assert browser.run(f"{TRIALS}.querySelectorAll('[aria-sort]').length") == sorted_heads == 1
    assert column(browser, number_of(browser, "trial"))[:3] == ["0", "1", "2"]


def test_words_and_comparisons_filter(
    browser: Browser, pages: Callable[[str], Path], small_run: Runs
) -> None:
    board = many_trials(small_run("binary").content.search, LARGE).leaderboard
    browser.open(pages("large"))
    expected = int((board["config_dropout"] < 0.2).sum())
    assert filter_rows(browser, "dropout<0.2") == f"{expected:,} of 10,000 trials"
    dropped = {float(text) for text in column(browser, number_of(browser, "dropout"))}
    assert max(dropped) < 0.2
    both = int(((board["config_dropout"] >= 0.2) & (board["config_activation"] == "tanh")).sum())
    assert filter_rows(browser, "dropout>=0.2 tanh") == f"{both:,} of 10,000 trials"
    assert filter_rows(browser, "no such text") == "0 of 10,000 trials"
    assert column(browser, 0) == []
    assert filter_rows(browser, "") == "10,000 trials"
    browser.run(f"{TRIALS}.querySelector('select').value = 'complete'")
    browser.run(f"{TRIALS}.querySelector('select').dispatchEvent(new Event('change'))")
    assert browser.run(f"{TRIALS}.querySelector('.count').textContent") == "30 of 10,000 trials"
    assert set(column(browser, number_of(browser, "state"))) == {"complete"}


def test_pages_turn_to_the_end(browser: Browser, pages: Callable[[str], Path]) -> None:
    browser.open(pages("large"))
    buttons = f"{TRIALS}.querySelectorAll('.pages button')"
    assert browser.run(f"[...{buttons}].map(button => button.disabled)") == [True, False]
    first = column(browser, 0)
    browser.run(f"{buttons}[1].click()")
    assert column(browser, 0) != first
    browser.run(f"for (let page = 0; page < {LARGE // 25 - 2}; page++) {buttons}[1].click()")
    assert browser.run(f"[...{buttons}].map(button => button.disabled)") == [False, True]
    assert column(browser, 0)[-1] == "10,000"


def test_colours_follow_the_system_and_the_button(browser: Browser, pages: Callable[[str], Path]) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    axis = "getComputedStyle(document.querySelector('.plot .xtick text')).fill"
    found = {}
    for scheme in ("light", "dark"):
        browser.prefer(scheme)
        browser.open(pages("binary"))
        draw_everything(browser)
        found[scheme] = (browser.run(background), browser.run(axis))
    assert found["light"][0] == "rgb(246, 247, 250)"
    assert found["dark"][0] != found["light"][0]
    assert found["dark"][1] != found["light"][1]
    button = "document.getElementById('theme')"
    assert browser.run(f"{button}.getAttribute('aria-pressed')") == "true"
    browser.run(f"{button}.click()")
    assert (browser.run(background), browser.run(axis)) == found["light"]
    assert browser.run(f"{button}.getAttribute('aria-pressed')") == "false"
    browser.run("try { localStorage.clear() } catch {}")
    browser.prefer("light")


@pytest.mark.parametrize("width", [320, 800])
def test_no_width_needs_sideways_scrolling(
    browser: Browser, pages: Callable[[str], Path], width: int
) -> None:
    browser.resize(width, 800, phone=width < 500)
    try:
        browser.open(pages("multiclass"))
        draw_everything(browser)
        assert browser.run("document.documentElement.scrollWidth") <= width
        wide = "[...document.querySelectorAll('.main-svg')].map(svg => svg.getBoundingClientRect().right)"
        assert max(browser.run(wide)) <= width
    finally:
        browser.resize(1280, 900)


def test_the_keyboard_reaches_and_works_the_controls(browser: Browser, pages: Callable[[str], Path]) -> None:
    browser.open(pages("large"))
    reached = []
    for _ in range(20):
        browser.press("Tab")
        reached.append(browser.run("document.activeElement.textContent.trim()"))
    assert reached[0] == "Skip to the content"
    assert "Leaderboard" in reached
    assert any("Theme" in text for text in reached)
    # the focus is visible
    browser.run(f"{TRIALS}.querySelectorAll('th button')[1].focus()")
    browser.press("Tab")
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter", text="\r")
    assert browser.run("document.activeElement.parentElement.getAttribute('aria-sort')") == "descending"


def test_print_shows_figures_in_light_colours_without_controls(
    browser: Browser, pages: Callable[[str], Path]
) -> None:
    browser.prefer("dark")
    browser.open(pages("binary"))
    browser.run("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.run("document.querySelector('.wide .main-svg').getBoundingClientRect().width") == 660
    browser.call("Emulation.setEmulatedMedia", media="print")
    try:
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run("getComputedStyle(document.querySelector('.bar')).display") == "none"
        assert browser.run("document.querySelectorAll('.main-svg').length") > 10
        printed = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"]
        assert len(printed) > 50_000
        browser.run("window.dispatchEvent(new Event('afterprint'))")
        assert browser.run("document.querySelector('.wide .main-svg').getBoundingClientRect().width") > 900
    finally:
        browser.call("Emulation.setEmulatedMedia", media="")
        browser.prefer("light")
