"""The page as a text: escaping, sizes, content, commands."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from parallelmlp_search.report.page.page import TEMPLATES, _json, render
from parallelmlp_search.report.page.reproduce import search_command
from parallelmlp_search.report.page.tables import leaderboard_table, make_table
from parallelmlp_search.space import SearchSpace, monotone_space
from tests.report.conftest import HOSTILE, SmallRun, many_trials

Runs = Callable[[str], SmallRun]
MAX_BYTES = 8_000_000


@pytest.fixture(autouse=True)
def short_plotly(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the 5 MB of plotly by a short script, except where sizes are measured."""
    if "alone" not in request.keywords:
        monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "/* plotly */")


class Page(HTMLParser):
    """Elements, scripts and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.texts.append(data)

    @property
    def data(self) -> Any:
        """Data of the figures and tables."""
        return json.loads(self.scripts[0])

    @property
    def text(self) -> str:
        """All texts."""
        return " ".join(" ".join(self.texts).split())


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_names_and_cells_cannot_add_elements(small_run: Runs, task: str) -> None:
    page = Page(render(small_run(task).content))
    assert len(page.scripts) == 3
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"img", "b", "i", "u", "iframe", "object"}
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert "<u>y</u>" in page.text  # the target, as a text
    cells = json.dumps(page.data["tables"])
    assert json.dumps(HOSTILE)[1:-1] in cells


def test_the_page_refers_to_nothing_outside(small_run: Runs) -> None:
    page = Page(render(small_run("binary").content))
    for tag, attributes in page.elements:
        for name in ("src", "href", "srcset", "action", "poster"):
            address = attributes.get(name) or ""
            assert not address or address.startswith(("#", "data:")), (tag, address)
    policy = next(a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    for script in page.scripts[1:]:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy


def test_data_cannot_end_their_element() -> None:
    hostile = {"a": "</script><!--", "b": "\u2028&"}
    text = _json(hostile)
    assert json.loads(text) == hostile
    assert not set("<>&\u2028") & set(text)


def test_the_page_shows_score_interval_baselines_and_warnings(small_run: Runs) -> None:
    content = small_run("binary").content
    page = Page(render(content))
    assert content.search.result["beats_prior"] is True
    honest = content.search.result["honest"]
    assert f"{honest['score']:.3f}" in page.text
    assert "95 % interval" in page.text
    assert "Expected score on new rows, corrected for the selection of the best of 8 trials." in page.text
    weak = replace(
        content, search=replace(content.search, result={**content.search.result, "beats_prior": False})
    )
    assert "No better than the prior." in Page(render(weak)).text
    assert "No better than the prior." not in page.text
    stored = [{"name": "linear", "score": 0.99, "share": 1.0, "left_out": None}]
    result = {**content.search.result, "baselines": stored}
    beaten = replace(content, search=replace(content.search, result=result))
    assert "Better on the same rows: linear model 0.9900." in Page(render(beaten)).text
    stored[0]["score"] = 0.51
    assert "Better on the same rows" not in Page(render(beaten)).text


def test_a_run_without_its_table_has_a_smaller_page_with_the_reason(small_run: Runs) -> None:
    content = replace(
        small_run("binary").content,
        rows=None,
        explanation=None,
        columns=None,
        timings={},
        notes=("It is gone.",),
    )
    page = Page(render(content))
    assert "It is gone." in page.text
    assert {"roc", "importance", "column-report"}.isdisjoint({*page.data["figures"], *page.data["tables"]})
    assert {"learning-curves", "ensemble", "size"} <= set(page.data["figures"])


def test_a_table_too_small_for_a_score_says_so(small_run: Runs) -> None:
    content = small_run("binary").content
    result = {**content.search.result, "honest": None, "baselines": [], "beats_prior": None}
    page = Page(render(replace(content, search=replace(content.search, result=result))))
    assert "The table is too small to hold rows back" in page.text


def test_the_leaderboard_has_every_trial_and_every_field_that_differs(small_run: Runs) -> None:
    done = small_run("binary").content.search
    table = leaderboard_table(done)
    cells = dict(zip([column["key"] for column in table["columns"]], table["values"], strict=True))
    assert cells["trial"] == done.leaderboard["trial"].tolist()
    assert cells["score"] == pytest.approx(done.leaderboard["score"].tolist(), rel=1e-5)
    assert cells["learning_rate"] == pytest.approx(
        done.leaderboard["config_learning_rate"].tolist(), rel=1e-5
    )
    assert "optimizer" not in cells  # the same for all
    assert {"8", "16"} >= {layers.split("-")[0] for layers in cells["layers"]}


def test_tables_hold_plain_values() -> None:
    table = make_table([("a", "a", "number")], [[float("nan"), float("inf"), 1 / 3, None, True]])
    assert table["values"] == [[None, None, 0.333333, None, True]]


@pytest.mark.alone
def test_ten_thousand_trials_are_small_and_fast(small_run: Runs) -> None:
    content = small_run("binary").content
    content = replace(content, search=many_trials(content.search, 10_000))
    started = time.process_time()
    page = render(content)
    seconds = time.process_time() - started
    assert len(page.encode()) < MAX_BYTES
    assert len(Page(page).data["tables"]["trials"]["values"][0]) == 10_000
    assert seconds < 15  # 4 s on an AMD EPYC


def test_the_command_of_a_run_gives_the_same_settings(small_run: Runs) -> None:
    run = small_run("binary")
    words = shlex.split(search_command(run.directory.info(), "runs/r") or "")
    assert words[:5] == ["pmlp", "search", str(run.table), "--target", "<u>y</u>"]
    assert words[words.index("--space") + 1] == "SPACE.json"
    assert words[words.index("--trials") + 1] == "8"
    assert words[words.index("--seed") + 1] == "0"


def test_commands_leave_out_defaults_and_know_presets() -> None:
    settings = {"search_space": SearchSpace.preset("small").to_dict(), "time_limit": 60.0, "seed": 3}
    settings |= {"sampler": "random", "device": "auto", "calibration": "auto", "baselines": False}
    settings |= {"precision": "ieee"}
    source = {"data": "/d/a b.xlsx", "target": "y", "weights": "w", "sheet": "one"}
    source["columns"] = json.dumps({"price in $": "currency", "id": "ignore"})
    assert search_command({"source": source, "settings": settings}, "runs/r") == (
        "pmlp search '/d/a b.xlsx' --target y --sheet one --weights w --columns 'currency=price in $' "
        "--columns ignore=id --space small --time-limit 60 --no-baselines --seed 3"
    )
    assert search_command({"settings": settings}, "runs/r") is None
    settings["precision"] = "tf32"
    assert "--precision tf32" in (search_command({"source": source, "settings": settings}, "runs/r") or "")
    settings = {"search_space": monotone_space(SearchSpace.preset("small")).to_dict()}
    settings["monotonic"] = {"my age": 1, "price": -1}
    command = search_command({"source": {"data": "/d", "target": "y"}, "settings": settings}, "runs/r")
    assert command == (
        "pmlp search /d --target y --monotonic 'my age=+1' --monotonic price=-1 --space small --seed 0"
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"query": "sales", "database": "/d/shop.db"}, "sales --target y --from /d/shop.db"),
        ({"query": "SELECT * FROM t"}, "'SELECT * FROM t' --target y"),
        ({}, "'my runs/r/data.parquet' --target y"),  # standard input: only the run has the table
    ],
)
def test_the_command_of_a_copied_table_names_its_origin(source: dict[str, str], words: str) -> None:
    info = {"source": {"data": "data.parquet", "target": "y", **source}}
    info["settings"] = {"search_space": SearchSpace.preset("default").to_dict()}
    assert search_command(info, "my runs/r") == f"pmlp search {words} --seed 0"


def test_a_distribution_holds_the_templates() -> None:
    settings = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = settings["tool"]["setuptools"]["package-data"]["parallelmlp_search"]
    package = TEMPLATES.parents[2]
    held = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for path in TEMPLATES.iterdir() if path.is_file()} <= held


def test_titles_of_figures_are_those_of_the_page(small_run: Runs) -> None:
    page = render(small_run("regression").content)
    assert re.search(r"<h3>Residuals of &lt;u&gt;y&lt;/u&gt;</h3>", page)
    assert "&amp;lt;" not in page
