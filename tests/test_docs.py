"""Markdown files: their programs run, their commands and names exist, their tables are those on file."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optunahub
import pytest

from benchmarks import (
    averaging,
    distillation,
    end_to_end,
    export_size,
    extremes,
    ingredients,
    latency,
    limits,
    optuna_bridge,
    optuna_storages,
    packed_training,
    postprocessing,
    refinement_sampler,
    search_efficiency,
    serving,
    shipping,
)
from benchmarks.packed.profile import profile_table
from benchmarks.packed.report import published, scaling_table, short_table
from benchmarks.publishing import between, marks
from benchmarks.quality import publishing as quality
from parallelmlp_search.engine.acceleration import ACCELERATIONS
from parallelmlp_search.kernels.matmul import BACKENDS
from tests.documents import (
    DOCUMENTS,
    LANGUAGES,
    ROOT,
    Block,
    blocks,
    command_problem,
    commands,
    link_problems,
    markdown_files,
    span_problem,
    spans,
)

TEXTS = {document: (ROOT / document).read_text(encoding="utf-8") for document in DOCUMENTS}
HISTORY = tuple(name for name in DOCUMENTS if name.startswith("docs/decisions/") or name == "CHANGELOG.md")
"""Documents that may name files and options of the past."""

CURRENT = tuple(name for name in DOCUMENTS if name not in HISTORY)


def _anything(output: str) -> None:
    assert output is not None


def _readme_estimator(output: str) -> None:
    lines = output.splitlines()
    assert 0.6 < float(lines[0]) < 0.9  # seven in ten credits are good
    assert lines[-1].startswith("MLPConfig(")


def _readme_study(output: str) -> None:
    value, _, params = output.partition(" ")
    assert 0.6 < float(value) < 0.9
    assert "learning_rate" in params


def _contains(words: str) -> Callable[[str], None]:
    def check(output: str) -> None:
        assert words in output

    return check


def _below(limit: float) -> Callable[[str], None]:
    def check(output: str) -> None:
        assert float(output) < limit

    return check


def _patients_are_harder(output: str) -> None:
    apart, together = map(float, re.findall(r"-?0\.\d+", output))
    assert together + 0.1 < apart


def _tuned_is_better(output: str) -> None:
    tuned, probable = (float(line.split()[-1]) for line in output.splitlines()[1:])
    assert tuned > probable + 0.2


def _poisson_is_better(output: str) -> None:
    squared, poisson = (float(line.split()[-1]) for line in output.splitlines())
    assert poisson < squared


def _least_cost_is_better(output: str) -> None:
    least, probable = (float(line.split()[-1]) for line in output.splitlines())
    assert least < probable


def _covers_nine_of_ten(output: str) -> None:
    assert 0.83 < float(output.splitlines()[-1]) <= 1.0


OUTPUTS: dict[str, tuple[Callable[[str], None], ...]] = {
    "README.md": (_readme_estimator, _readme_study),
    "datasets/README.md": (_anything,),
    "docs/export.md": (_contains("True\nroc_auc 0."), _contains("True\n"), _contains("True\n")),
    "docs/explain.md": (_contains("importance  standard_error"), _anything),
    "docs/columns.md": (_anything,),
    "docs/getting-started.md": tuple(map(_contains, ("0.", "honest score", "MLPConfig(", "True"))),
    "docs/guides/deploy.md": (
        _anything,
        _contains("['model.json', 'uncertainty.safetensors', 'weights.safetensors']"),
        _below(1.0),
    ),
    "docs/guides/groups-and-time.md": (_patients_are_harder, _contains("True")),
    "docs/guides/imbalance.md": (_tuned_is_better, _contains(" of 600")),
    "docs/guides/several-targets.md": (_contains("(2, 3) f1_macro\n"),),
    "docs/guides/migration.md": (_contains("learning_rate"), _contains("16 ["), _anything),
    "docs/guides/targets.md": (_poisson_is_better, _least_cost_is_better),
    "docs/guides/monotone.md": (_contains("True\n"),),
    "docs/guides/update.md": (_contains("networks were updated: rmse"),),
    "docs/how-it-works.md": (_contains("True"),),
    # 200 rows in batches of 32, twice
    "docs/kernels.md": (_contains("(7, 32) (55,)\n"), _contains("13 39\n")),
    "docs/optuna.md": (_contains("learning_rate"),),
    "docs/parareal.md": (_contains("torch.Size([5, 3])"),),
    "docs/python.md": (
        _anything,
        _contains("standard_error"),
        _anything,
        _contains("MLPConfig("),
        _anything,
        _contains("profit_score"),
    ),
    "docs/refinement_sampler.md": (_below(0.1),),
    "docs/uncertainty.md": (_covers_nine_of_ten,),
    "docs/several-machines.md": (_contains("rank  trial"),),
    "docs/report.md": (_contains("Learning curves\n"),),
    "docs/search_cv.md": (_contains("rank_test_score"), _anything, _contains("MLPConfig(")),
    "docs/serve.md": (
        _contains("\nTrue\n"),
        _contains("class,bad,good\n"),
        _contains("'a while' cannot be read as such; it counts as missing\"]\n0\n"),
    ),
    "optunahub/package/samplers/parallelmlp_refinement/README.md": (_below(0.01),),
}
"""Checks of the output of each Python block; blocks of a document run one after the other."""


@pytest.mark.parametrize("document", [name for name in DOCUMENTS if blocks(TEXTS[name], "python")])
def test_programs_run(
    document: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs = blocks(TEXTS[document], "python")
    monkeypatch.chdir(ROOT)
    # the hub would download the folder that lies here
    registry = str(ROOT / "optunahub" / "package")
    monkeypatch.setattr(
        optunahub, "load_module", lambda package: optunahub.load_local_module(package, registry_root=registry)
    )
    names: dict[str, object] = {"__name__": document}
    for program, check in zip(programs, OUTPUTS[document], strict=True):
        # empty lines before it, so that a traceback shows lines of the document
        exec(compile("\n" * (program.line - 1) + program.text, document, "exec"), names)
        check(capsys.readouterr().out)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_block_has_a_language(document: str) -> None:
    assert [block.line for block in blocks(TEXTS[document]) if block.language not in LANGUAGES] == []
    fences = [line for line in TEXTS[document].splitlines() if line.startswith("```")]
    assert len(fences) == 2 * len(blocks(TEXTS[document]))


CONSOLE = [
    (document, block.line, words)
    for document in CURRENT
    for block in blocks(TEXTS[document], "console", "shell")
    for words in commands(block)
]


@pytest.mark.parametrize(
    ("document", "line", "words"),
    CONSOLE,
    ids=[f"{name}:{line}: {words[0]}" for name, line, words in CONSOLE],
)
def test_commands_exist_and_are_complete(document: str, line: int, words: list[str]) -> None:
    assert command_problem(words) is None


@pytest.mark.parametrize("document", CURRENT)
def test_names_between_backticks_exist(document: str) -> None:
    problems = [problem for span in spans(TEXTS[document]) if (problem := span_problem(span))]
    assert problems == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    assert link_problems(document, TEXTS[document]) == []


def test_the_options_of_promote_are_documented() -> None:
    rows = re.findall(r"^\| `(--[a-z-]+)", TEXTS["docs/parareal.md"], flags=re.MULTILINE)
    assert len(rows) > 5
    assert {command_problem(["pmlp", "promote", "RUN", option, "1"]) for option in ("--slices", "--top")} == {
        None
    }
    assert [row for row in rows if span_problem(f"pmlp promote {row}")] == []


def test_backends_and_accelerations_are_documented() -> None:
    text = TEXTS["docs/kernels.md"]
    rows = re.findall(r"^\| `(\w+)` \|", text, flags=re.MULTILINE)
    assert sorted(rows) == sorted(set(BACKENDS) - {"auto"})
    assert all(f'"{name}"' in text for name in ACCELERATIONS)


def _on_file(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _packed_rows(*names: str) -> list[dict[str, Any]]:
    rows = {row["case"]: row for row in _on_file(packed_training.RESULTS)["rows"]}
    return packed_training.ordered(rows, names)


def _readme_quality() -> str:
    rows = _on_file(quality.RESULTS)["rows"]
    return quality.ranking(rows, max(row["budget"] for row in rows if row["budget"] is not None))


TABLES: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "end_to_end"): lambda: end_to_end.table(_on_file(end_to_end.RESULTS)["rows"]),
    ("README.md", "packed_training"): lambda: short_table(_packed_rows(*packed_training.SHORT)),
    ("README.md", "quality"): _readme_quality,
    ("docs/export.md", "size"): lambda: export_size.summary(_on_file(export_size.RESULTS)),
    ("docs/guides/deploy.md", "distillation"): lambda: distillation.table_of(
        _on_file(distillation.RESULTS)["rows"]
    ),
    ("docs/optuna.md", "optuna_bridge"): lambda: optuna_bridge.table(_on_file(optuna_bridge.RESULTS)),
    ("docs/optuna.md", "optuna_storages"): lambda: optuna_storages.table(_on_file(optuna_storages.RESULTS)),
    ("docs/quality.md", "ablation"): lambda: quality.variant_sections(_on_file(quality.ABLATION)["rows"]),
    ("docs/quality.md", "averaging"): lambda: averaging.table_of(_on_file(averaging.RESULTS)["rows"]),
    ("docs/quality.md", "postprocessing"): lambda: postprocessing.tables(
        _on_file(postprocessing.RESULTS)["rows"]
    ),
    ("docs/quality.md", "extremes"): lambda: extremes.table(_on_file(extremes.RESULTS)["rows"]),
    ("docs/quality.md", "ingredients"): lambda: ingredients.table(_on_file(ingredients.RESULTS)["rows"]),
    ("docs/quality.md", "quality"): lambda: quality.sections(_on_file(quality.RESULTS)["rows"]),
    ("docs/refinement_sampler.md", "refinement_sampler"): lambda: refinement_sampler.table(
        _on_file(refinement_sampler.RESULTS)["rows"]
    ),
    ("docs/reliability.md", "limits"): lambda: limits.summary(_on_file(limits.RESULTS)["rows"]),
    ("docs/serve.md", "serving"): lambda: serving.published(_on_file(serving.RESULTS)),
    ("docs/uncertainty.md", "coverage"): lambda: shipping.summary(_on_file(shipping.RESULTS)["rows"]),
    ("docs/speed.md", "latency"): lambda: latency.published(_on_file(latency.RESULTS))["latency"],
    ("docs/speed.md", "start_up"): lambda: latency.published(_on_file(latency.RESULTS))["start_up"],
    ("docs/speed.md", "packed_training"): lambda: published(_packed_rows()),
    ("docs/speed.md", "profile"): lambda: "\n\n".join(
        map(profile_table, _on_file(packed_training.PROFILE)["rows"])
    ),
    ("docs/speed.md", "search_efficiency"): lambda: search_efficiency.table(
        _on_file(search_efficiency.RESULTS)["rows"]
    ),
    ("docs/speed.md", "scaling"): lambda: scaling_table(_on_file(packed_training.SCALING)["rows"]),
}
"""Generated tables of the documents, each made again from its file of results."""


def test_the_architecture_is_short_and_all_decisions_are_listed() -> None:
    assert len(TEXTS["docs/architecture.md"].splitlines()) <= 150
    files = sorted(path.name for path in (ROOT / "docs" / "decisions").glob("[0-9]*.md"))
    rows = re.findall(
        r"^\| \[(\d+)\]\((\S+)\) \| (.*) \|$", TEXTS["docs/decisions/README.md"], flags=re.MULTILINE
    )
    assert [name for _, name, _ in rows] == files
    for place, (number, name, title) in enumerate(rows, start=1):
        lines = TEXTS[f"docs/decisions/{name}"].splitlines()
        assert lines[0] == f"# {number}: {title}"
        assert int(number) == place
        sections = [line for line in lines if line.startswith("## ")]
        assert sections == ["## Context", "## Measurement", "## Decision"], name


def test_all_documents_are_found(tmp_path: Path) -> None:
    for name in (
        "README.md",
        "docs/a.md",
        ".github/b.md",
        "runs/c.md",
        ".venv/d.md",
        "peers/site-packages/e.md",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert markdown_files(tmp_path) == (".github/b.md", "README.md", "docs/a.md")


def test_every_generated_table_is_known() -> None:
    found = {
        (document, name)
        for document, text in TEXTS.items()
        for name in re.findall(r"^<!-- (\w+) -->$", text, flags=re.MULTILINE)
    }
    assert found == set(TABLES)


@pytest.mark.parametrize(("document", "name"), sorted(TABLES))
def test_generated_tables_are_those_on_file(document: str, name: str) -> None:
    assert between(TEXTS[document], marks(name)) == TABLES[document, name]().rstrip("\n") + "\n"


def test_the_end_to_end_table_has_all_cases() -> None:
    assert [row["case"] for row in _on_file(end_to_end.RESULTS)["rows"]] == [
        case.name for case in end_to_end.CASES
    ]


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("pmlp search table.csv --target y --trials 10", None),
        ("pmlp search table.csv --targets y", "No such option"),
        ("pmlp search table.csv", "target"),
        ("pmlp search table.csv --target y --trials many", "pmlp search"),
        ("pmlp predict run table.csv more.csv --output x.csv", "unexpected"),
        ("pmlp find table.csv", "no command 'find'"),
        ("python -m benchmarks.quality --quick", None),
        ("python -m benchmarks.quality --quickly", "no option --quickly"),
        ("python -m benchmarks.equality", "no module"),
        ("python examples/classifier.py", None),
        ("python examples/classifiers.py", "no file"),
        ("make test", None),
        ("make tests", "no target 'tests'"),
        ("pip install 'parallelmlp-search[plots]'", None),
        ("pip install 'parallelmlp-search[compiler]'", "no extra 'compiler'"),
        ("pip install 'autogluon.tabular[lightgbm]'", None),
        ("pmpl search", "unknown program"),
    ],
)
def test_the_rule_on_commands_catches_what_it_should(command: str, problem: str | None) -> None:
    (words,) = commands(Block("console", f"{command}  # a comment\n", 1))
    found = command_problem(words)
    assert (found is None) == (problem is None)
    assert problem is None or (found is not None and problem in found)


@pytest.mark.parametrize(
    ("span", "caught"),
    [
        ("pmlp search --sampler NAME", False),
        ("pmlp search --samplers NAME", True),
        ("pmlp", False),
        ("--no-tune-thresholds", False),
        ("--no-tuned-decision", True),
        ("python -m benchmarks.gpu --card", False),
        ("python -m benchmarks.gpus", True),
        ("make gpu PYTHON=python3", False),
        ("make gpus", True),
        ("engine/optimizer.py", False),
        ("engine/optimiser.py", True),
        ("docs/speed.md", False),
        ("benchmarks/results/none.json", True),
        ("CHANGELOG.md", False),
        ("CHANGES.md", True),
        ("FutureWarning", False),
        ("parallelmlp_search.selection", False),
        ("parallelmlp_search.selection.get_metric", False),
        ("parallelmlp_search.selection.get_metrics", True),
        ("runs/adult", False),
        ("PackedSearchCV", False),
        ("PackedSearchCv", True),
        ("study.optimize(PackedObjective(X, y, space))", False),
        ("max_epochs=9", False),
        ("max_epoch=9", True),
    ],
)
def test_the_rule_on_spans_catches_what_it_should(span: str, caught: bool) -> None:
    assert bool(span_problem(span)) is caught


def test_the_rule_on_links_catches_what_it_should() -> None:
    text = "[a](speed.md#figures) [b](https://example.org) ![c](../benchmarks/results/none.svg) [d](none.md)"
    assert link_problems("docs/optuna.md", text) == [
        "docs/optuna.md: no file ../benchmarks/results/none.svg",
        "docs/optuna.md: no file none.md",
    ]
