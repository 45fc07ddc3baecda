"""Checks of Markdown files: programs, commands, options, files and modules that a text names."""

from __future__ import annotations

import builtins
import importlib
import os
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import typer.main

from parallelmlp_search.cli.app import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "parallelmlp_search"

SKIPPED_FOLDERS = ("runs", "build", "dist", "site-packages")


def markdown_files(root: Path) -> tuple[str, ...]:
    """Return the paths of all Markdown files below a folder; caches and environments are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [
            name
            for name in folders
            if name not in SKIPPED_FOLDERS and (not name.startswith(".") or name == ".github")
        ]
        here = Path(folder).relative_to(root)
        found += [(here / file).as_posix() for file in files if file.endswith(".md")]
    return tuple(sorted(found))


DOCUMENTS = markdown_files(ROOT)

LANGUAGES = ("python", "console", "shell", "text", "toml", "yaml")
"""Languages that a code block may have; ``console`` and ``shell`` hold commands."""

OTHER_PROGRAMS = ("dask", "docker", "git", "gunzip", "head", "ray", "source", "torchrun", "uv")
"""Programs of console blocks that are not checked."""

OTHER_OPTIONS = ("--nproc-per-node",)
"""Options of programs that are not part of this project."""


OTHER_NAMES = (
    "DASK_DISTRIBUTED__SCHEDULER__ACTIVE_MEMORY_MANAGER__START", "HalvingGridSearchCV", "PYTHON", "VERSION",
    "VotingClassifier", "average_precision", "best_loss", "cross_val_score", "feature_importance",
    "intra_op_num_threads", "refit_full", "split_type", "starting_points", "wa_churn",
)  # fmt: skip
"""Names of other projects and of make variables."""


@dataclass(frozen=True)
class Block:
    """A fenced code block.

    Attributes
    ----------
    language
        Word after the opening fence; empty where there is none.
    text
        Lines between the fences.
    line
        Number of the first of them, from 1.
    """

    language: str
    text: str
    line: int


def blocks(text: str, *languages: str) -> list[Block]:
    """Return the fenced code blocks of a document, all of them or those of some languages."""
    found = [
        Block(match[1], match[2], text.count("\n", 0, match.start(2)) + 1)
        for match in re.finditer(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    ]
    return [block for block in found if not languages or block.language in languages]


def prose(text: str) -> str:
    """Return a document without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """Return the texts between backticks outside of code blocks."""
    return re.findall(r"`([^`\n]+)`", prose(text))


def commands(block: Block) -> Iterator[list[str]]:
    """Yield the commands of a block as words, without comments."""
    for line in block.text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            if words := shlex.split(part, comments=True):
                yield words


def command_problem(words: list[str]) -> str | None:
    """Return why a command would be refused, or None. Nothing is executed."""
    if "|" in words:
        place = words.index("|")
        return command_problem(words[:place]) or command_problem(words[place + 1 :])
    if ">" in words:
        words = words[: words.index(">")]
    program = Path(words[0]).name
    if program == "pmlp":
        return _pmlp_problem(words[1:])
    if program in ("python", "python3"):
        return _python_problem(words[1:])
    if program == "make":
        return _make_problem(words[1:])
    if program == "pip":
        return _pip_problem(words[1:])
    return None if program in OTHER_PROGRAMS else f"unknown program {program!r}"


def _pmlp_problem(words: list[str]) -> str | None:
    command = pmlp_commands().get(words[0])
    if len(words) == 1 and words[0].startswith("-"):
        known = [name for parameter in typer.main.get_command(app).params for name in parameter.opts]
        return None if words[0] in (*known, "--help") else f"pmlp has no option {words[0]!r}"
    if command is None:
        return f"pmlp has no command {words[0]!r}"
    try:
        command.make_context(words[0], words[1:])
    except Exception as error:  # the classes differ between versions of typer
        return f"pmlp {words[0]}: {error}"
    return None


def _python_problem(words: list[str]) -> str | None:
    if words[0] == "-m":
        return _module_problem(words[1], words[2:])
    return None if (ROOT / words[0]).is_file() else f"no file {words[0]}"


def _module_problem(module: str, words: list[str]) -> str | None:
    if module in ("venv", "pip", "pytest"):
        return None
    path = ROOT / module.replace(".", "/")
    file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    if not file.is_file():
        return f"no module {module}"
    source = file.read_text(encoding="utf-8")
    missing = [word for word in words if word.startswith("--") and f'"{word}"' not in source]
    return f"{module} has no option {missing[0]}" if missing else None


def _make_problem(words: list[str]) -> str | None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    missing = [word for word in words if "=" not in word and word not in targets]
    return f"the Makefile has no target {missing[0]!r}" if missing else None


def _pip_problem(words: list[str]) -> str | None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, extras in re.findall(r"(?<!\S)([\w.-]+)\[([\w,]+)\]", " ".join(words)):
        if name in (".", project["name"]):
            for extra in extras.split(","):
                if extra not in project["optional-dependencies"]:
                    return f"the package has no extra {extra!r}"
    return None


@cache
def pmlp_commands() -> dict[str, Any]:
    """Commands of ``pmlp`` by name, as objects of click."""
    return dict(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@cache
def options_of(command: str) -> frozenset[str]:
    """Options of a command of ``pmlp``."""
    parameters = pmlp_commands()[command].params
    return frozenset(name for one in parameters for name in (*one.opts, *one.secondary_opts)) | {"--help"}


@cache
def benchmark_sources() -> str:
    """Source text of all benchmarks."""
    return "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").rglob("*.py"))


@cache
def known_options() -> frozenset[str]:
    """Options of all commands of ``pmlp`` and of all benchmarks."""
    benchmarks = re.findall(r'add_argument\(\s*"(--[a-z-]+)"', benchmark_sources())
    return frozenset().union(*map(options_of, pmlp_commands()), benchmarks, OTHER_OPTIONS)


def span_problem(span: str) -> str | None:
    """Return why a text between backticks names something that does not exist, or None.

    It may be a command of ``pmlp`` or ``make``, a ``python -m`` of this project, an option, a file or folder,
    a module with or without a name in it, or code with names. Words in capitals after a command are
    placeholders, so only the names of options are checked.
    """
    words = span.split()
    options = re.findall(r"(?<!\S)(--[a-z][a-z-]+)", span)
    if words[0] == "pmlp" and len(words) > 1:
        if words[1].startswith("-"):
            return _pmlp_problem(words[1:])
        if words[1] not in pmlp_commands():
            return f"pmlp has no command {words[1]!r}"
        missing = [option for option in options if option not in options_of(words[1])]
        return f"pmlp {words[1]} has no option {missing[0]}" if missing else None
    if words[0] == "make" and len(words) > 1:
        return _make_problem(words[1:])
    if span.startswith("python -m"):
        return _module_problem(words[2], words[3:])
    if options and span.startswith("--"):
        missing = [option for option in options if option not in known_options()]
        return f"nothing has the option {missing[0]}" if missing else None
    if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", span):
        return _path_problem(span)
    if re.fullmatch(r"[\w-]+\.(md|toml)", span):
        return None if (ROOT / span).is_file() else f"no file {span}"
    if re.fullmatch(r"(parallelmlp_search|benchmarks)(\.\w+)+", span):
        return _name_problem(span)
    return _identifier_problem(span)


def _identifier_problem(span: str) -> str | None:
    """Check that names with capitals or underscores occur in a source or a table of this project."""
    for name in re.findall(r"(?<![\w/-])[A-Za-z_]\w*[_A-Z]\w*(?![\w/-])", span):
        if name not in source_words() and name not in OTHER_NAMES and not hasattr(builtins, name):
            return f"no source mentions {name}"
    return None


@cache
def source_words() -> frozenset[str]:
    """Words of all Python files but the tests, and of the index of tables."""
    folders = ("parallelmlp_search", "benchmarks", "examples", "optunahub")
    paths = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    texts = [path.read_text(encoding="utf-8") for path in (*paths, ROOT / "datasets" / "INDEX.json")]
    return frozenset().union(*(re.findall(r"\w+", text) for text in texts))


GENERATED = ("build", "dist", "runs")
"""Folders that commands of this project write, which a clone has or lacks."""


def _path_problem(path: str) -> str | None:
    """Check paths that begin with a folder of the repository or of the package."""
    first = path.split("/")[0]
    if not any((folder / first).is_dir() for folder in (ROOT, PACKAGE)) or first in GENERATED:
        return None
    if path.startswith("benchmarks/results/"):  # written by a benchmark, perhaps not yet
        return None if f'"{Path(path).name}"' in benchmark_sources() else f"no benchmark writes {path}"
    return None if any((folder / path).exists() for folder in (ROOT, PACKAGE)) else f"no file {path}"


def _name_problem(name: str) -> str | None:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ModuleNotFoundError:
            continue
        try:
            for part in parts[end:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return None
    return f"nothing is called {name}"


def link_problems(document: str, text: str) -> list[str]:
    """Return the relative links of a document that lead nowhere."""
    folder = (ROOT / document).parent
    targets = re.findall(r"\[[^\]]*\]\(([^)\s#]+)[^)]*\)", prose(text))
    return [
        f"{document}: no file {target}"
        for target in targets
        if not re.match(r"[a-z]+:", target) and not (folder / target).exists()
    ]
