"""HTML for notebooks: escaped, self-contained, numbers on the right."""

from __future__ import annotations

import doctest
from html.parser import HTMLParser

import pandas as pd
import pytest

from parallelmlp_search import _html
from parallelmlp_search._html import card, cell, facts, folded, table, text

EVIL = "<script>alert(1)</script>&\"'"


class Balanced(HTMLParser):
    """Parser that checks that all elements are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parsed(html: str) -> Balanced:
    parser = Balanced()
    parser.feed(html)
    assert not parser.open
    return parser


def test_texts_are_escaped_everywhere() -> None:
    page = card(text(EVIL, "t"), facts([(EVIL, text(EVIL))]), folded(EVIL, table([EVIL], [[EVIL]], ["rest"])))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 6
    assert {"div", "table", "details", "summary"} <= set(parsed(page).seen)
    assert "http" not in page
    assert "url(" not in page


def test_columns_of_numbers_are_on_the_right() -> None:
    html = table(["name", "count", "empty"], [["relu", 12345, None], ["silu", 0.5, None]])
    assert html.count('<td class="n">') == 2
    assert '<td class="n">12,345</td>' in html
    assert "<th>name</th>" in html
    assert "<th>empty</th>" in html


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.746, "0.7460"), (12.0, "12"), (1234.56, "1,234.6"), (pd.NA, ""), (float("nan"), ""), (True, "True")],
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_examples() -> None:
    assert doctest.testmod(_html).failed == 0
