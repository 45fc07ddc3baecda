"""HTML page of a run: one file that needs neither other files nor a network."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parallelmlp_search import __version__
from parallelmlp_search._optional import require
from parallelmlp_search.report.page.content import ReportContent
from parallelmlp_search.report.page.reproduce import facts, peak_memory, search_command
from parallelmlp_search.report.page.sections import Panel, Section, panel_of, sections_of
from parallelmlp_search.report.plots.search import BASELINES, baselines
from parallelmlp_search.report.plots.theme import template
from parallelmlp_search.report.wording import (
    describe_interval,
    describe_metric,
    describe_postprocessing,
    describe_search,
    describe_task,
    format_duration,
    format_score,
    format_with_error,
    is_finite,
)

TEMPLATES = Path(__file__).parent / "templates"

PURPOSE = "to write a report"


def render(content: ReportContent) -> str:
    """Return the page of a run.

    Raises
    ------
    MissingDependencyError
        If plotly or jinja2 is not installed.
    """
    offline = require("plotly.offline", extra="plots", purpose=PURPOSE)
    jinja2 = require("jinja2", extra="plots", purpose=PURPOSE)
    markup = require("markupsafe", extra="plots", purpose=PURPOSE).Markup
    sections = sections_of(content)
    summary = panel_of("baselines", baselines(content.search))
    scripts = {"plotly": str(offline.get_plotlyjs()), "script": _source("report.js")}
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    values: dict[str, Any] = {
        "content": content,
        "version": __version__,
        "headline": _headline(content),
        "cards": _cards(content),
        "summary": summary,
        "sections": sections,
        "findings": content.findings,
        "postprocessing": describe_postprocessing(content.search.result),
        "left_out": content.search.result.get("left_out") or [],
        "commands": _commands(content),
        "facts": facts(content.info),
        "hashes": " ".join(f"'sha256-{_digest(text)}'" for text in scripts.values()),
    }
    # texts of this program, which are not escaped; `_json` escapes what comes from data
    trusted = {**scripts, "style": _source("report.css"), "data": _json(_data([summary], sections))}
    values |= {name: markup(text) for name, text in trusted.items()}
    return str(environment.get_template("report.html").render(values))


def _source(name: str) -> str:
    return (TEMPLATES / name).read_text(encoding="utf-8")


def _digest(script: str) -> str:
    """Hash of a script, by which the page allows it and no other."""
    normal = re.sub(r"\r\n?", "\n", script)
    return base64.b64encode(hashlib.sha256(normal.encode()).digest()).decode()


def _json(value: Any) -> str:
    """Return JSON that cannot end the script element that holds it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _data(first: Sequence[Panel], sections: Sequence[Section]) -> dict[str, Any]:
    """Figures and tables of all panels for the script of the page."""
    panels = [*first, *(panel for section in sections for panel in section.panels)]
    return {
        "template": template(),
        "figures": {panel.name: figure_data(panel.figure) for panel in panels if panel.figure is not None},
        "tables": {panel.name: panel.table for panel in panels if panel.table is not None},
    }


def figure_data(figure: Any) -> dict[str, Any]:
    """Return data and layout of a figure; title and template are those of the page."""
    found: dict[str, Any] = json.loads(figure.to_json(validate=False))
    layout = found["layout"]
    for name in ("title", "template", "meta", "height"):
        layout.pop(name, None)
    return {"data": found["data"], "layout": layout}


def _headline(content: ReportContent) -> dict[str, Any]:
    """Score in large digits, its interval, and a sentence on it."""
    result = content.search.result
    honest, metric = result.get("honest") or {}, content.search.metric
    head: dict[str, Any] = {
        "metric": metric,
        "meaning": describe_metric(metric),
        "task": describe_task(str(result["task"])),
        "interval": "",
        "corrections": "",
        "sentence": "",
        "score": "-",
        "is_weak": result.get("beats_prior") is False,
        "better": _better_baselines(content),
    }
    if is_finite(honest.get("score")):
        head["score"] = format_with_error(float(honest["score"]), honest.get("standard_error"))
        head["interval"], _, head["corrections"] = describe_interval(honest).partition(", ")
        head["sentence"] = (
            "Expected score on new rows, corrected for the selection of the best of "
            f"{int(result['n_trials']):,} trials."
        )
    elif is_finite(honest.get("naive")):
        head["score"] = format_score(float(honest["naive"]))
        head["sentence"] = "Score without correction for the selection."
    else:
        head["sentence"] = "The table is too small to hold rows back, so the score on new rows is not known."
    return head


def _better_baselines(content: ReportContent) -> str:
    """Names and scores of simple models that score better than this one."""
    search = content.search
    score = (search.result.get("honest") or {}).get("score")
    if not is_finite(score):
        return ""
    sign = 1.0 if search.greater_is_better else -1.0
    found = [
        f"{BASELINES.get(one['name'], one['name'])} {format_score(one['score'])}"
        for one in search.result.get("baselines") or ()
        if is_finite(one["score"]) and sign * (one["score"] - score) > 0
    ]
    return ", ".join(found)


def _cards(content: ReportContent) -> list[tuple[str, str, str]]:
    """Name, value and remark of the most important numbers."""
    result, splits = content.search.result, content.info.get("splits") or {}
    found = []
    if splits.get("rows"):
        n_columns = len(content.model.feature_names)
        n_used = len(content.model.column_parts)
        remark = f"{n_columns:,} columns, {'all' if n_used == n_columns else f'{n_used:,}'} used"
        found.append(("rows", f"{int(splits['rows']):,}", remark))
    found.append(("trials", f"{int(result['n_trials']):,}", describe_search(result).partition(", ")[2]))
    n_folds = len(content.model.folds)
    found.append(("networks", f"{content.model.n_members:,}", f"each trained {n_folds} times"))
    peak = peak_memory(content.info)
    found.append(
        ("search", format_duration(float(result["elapsed_seconds"])), f"peak memory {peak}" if peak else "")
    )
    if content.timings:
        (_, first), *others = content.timings.items()
        texts = [f"{count:,} rows in {_short(seconds)}" for count, seconds in others]
        found.append(("prediction of a row", _short(first), ", ".join(texts)))
    return found


def _short(seconds: float) -> str:
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else format_duration(seconds)


def _commands(content: ReportContent) -> list[tuple[str, str]]:
    """Purpose and text of the commands that repeat and use the run."""
    run = shlex.quote(content.run)
    found = [("Predict new rows", f"pmlp predict {run} NEW.csv --output predictions.csv")]
    found.append(("Score other rows", f"pmlp evaluate {run} OTHER.csv"))
    command = search_command(content.info, content.run)
    if command is not None:
        first = "Repeat the search"
        if (content.info.get("settings") or {}).get("initial"):
            first += ", which began with the configurations in run.json"
        found.insert(0, (first, command))
    return found
