"""Style of the package: sizes of files and functions, parameters, docstrings, terms.

Each rule is a function of source text, so that each is also shown to catch a violation.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import parallelmlp_search

ROOT = Path(parallelmlp_search.__file__).parent
REPOSITORY = ROOT.parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
DOCUMENTS = sorted(
    [path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md")]
    + ["README.md", "CONTRIBUTING.md"]
)

MAX_FILE_LINES = 400
MAX_BODY_LINES = 60
MAX_PARAMETERS = 7
DOCUMENTED_FROM = 3
"""Parameters from which a public function documents them."""

KERNELS = ("kernels/numba/", "kernels/triton/")
"""Compiled kernels: no objects to pass, so parameters are many and bodies long."""

COMMANDS = "cli/"
"""Typer reads a command's parameters as options and its docstring as help."""

VAGUE = re.compile(r"(What|Who|Whoever|Which|Whether|Where|How|Those)\b")

FORBIDDEN_TERMS = (
    "choosing row", "reporting row", "verdict", "attendance", "insistence", "honesty",
)  # fmt: skip
"""Terms that the glossary of CONTRIBUTING.md replaces."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(source: str) -> Iterator[tuple[str, Function, bool]]:
    """Every function with its dotted name, and True if the name and all its parents are public."""

    def visit(
        node: ast.AST, parents: tuple[str, ...], inside_function: bool
    ) -> Iterator[tuple[str, Function, bool]]:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, Function):
                names = (*parents, inner.name)
                public = not inside_function and all(
                    not name.startswith("_") or name == "__init__" for name in names
                )
                yield ".".join(names), inner, public
                yield from visit(inner, names, True)
            elif isinstance(inner, ast.ClassDef):
                yield from visit(inner, (*parents, inner.name), inside_function)
            else:
                yield from visit(inner, parents, inside_function)

    yield from visit(ast.parse(source), (), False)


def parameters(node: Function) -> int:
    """Number of parameters, without ``self`` and ``cls``."""
    names = [argument.arg for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
    extra = (node.args.vararg is not None) + (node.args.kwarg is not None)
    return len(names) + extra - (bool(names) and names[0] in ("self", "cls"))


def body_lines(node: Function) -> int:
    """Lines of a function after its signature and docstring."""
    body = node.body
    if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant) and len(body) > 1:
        body = body[1:]
    return (node.end_lineno or 0) - body[0].lineno + 1


def size_violations(source: str, file: str) -> list[str]:
    """Files and functions that are too long, and functions with too many parameters."""
    found = []
    lines = len(source.splitlines())
    if lines > MAX_FILE_LINES:
        found.append(f"{file} has {lines} lines")
    for name, node, public in functions(source):
        if file.startswith((*KERNELS, COMMANDS)):
            continue
        if body_lines(node) > MAX_BODY_LINES:
            found.append(f"{file}: {name} has a body of {body_lines(node)} lines")
        is_constructor = name.endswith("__init__") and public
        if parameters(node) > MAX_PARAMETERS and not is_constructor:
            found.append(f"{file}: {name} has {parameters(node)} parameters")
    return found


def vague_docstrings(source: str, file: str) -> list[str]:
    """Docstrings that begin with a question word instead of naming the object or saying what it does."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        f"{file}: {text.splitlines()[0]}"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, documented) and VAGUE.match(text := ast.get_docstring(node) or "")
    ]


def raises(node: Function) -> bool:
    """True for a function that creates and raises an exception itself; nested functions do not count."""
    open_nodes: list[ast.AST] = list(node.body)
    while open_nodes:
        inner = open_nodes.pop()
        if isinstance(inner, ast.Raise) and isinstance(inner.exc, ast.Call):
            return True
        if not isinstance(inner, (*Function.__args__, ast.ClassDef, ast.Lambda)):  # type: ignore[attr-defined]
            open_nodes.extend(ast.iter_child_nodes(inner))
    return False


def has_section(text: str, *titles: str) -> bool:
    """True where a docstring has a NumPy section of one of these titles."""
    return any(re.search(rf"^{title}\n-+$", text, re.MULTILINE) for title in titles)


def returns_a_value(node: Function) -> bool:
    """True for a function whose annotation names a value."""
    empty = node.returns is None or (isinstance(node.returns, ast.Constant) and node.returns.value is None)
    return not empty and node.name != "__init__"


def section_violations(source: str, file: str) -> list[str]:
    """Public functions without the NumPy sections that they need."""
    if file.startswith((*KERNELS, COMMANDS)):
        return []
    classes = {node.name: node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)}
    found = []
    for name, node, public in functions(source):
        decorators = {ast.unparse(decorator) for decorator in node.decorator_list}
        if not public or "overload" in decorators:
            continue
        documented = classes[name.split(".")[-2]] if node.name == "__init__" else node
        text = ast.get_docstring(documented) or ""
        if parameters(node) >= DOCUMENTED_FROM:
            if not has_section(text, "Parameters"):
                found.append(f"{file}: {name} has no section Parameters")
            if returns_a_value(node) and not has_section(text, "Returns", "Yields"):
                found.append(f"{file}: {name} has no section Returns")
        if raises(node) and not has_section(text, "Raises"):
            found.append(f"{file}: {name} has no section Raises")
    return found


def term_violations(text: str, file: str) -> list[str]:
    """Lines with a term that the glossary replaces."""
    return [
        f"{file}:{number}: {term}"
        for number, line in enumerate(text.lower().splitlines(), start=1)
        for term in FORBIDDEN_TERMS
        if term in line
    ]


@pytest.mark.parametrize("file", FILES)
def test_file_keeps_the_style(file: str) -> None:
    source = (ROOT / file).read_text(encoding="utf-8")
    assert size_violations(source, file) == []
    assert vague_docstrings(source, file) == []
    assert section_violations(source, file) == []
    assert term_violations(source, file) == []


@pytest.mark.parametrize("file", DOCUMENTS)
def test_document_uses_the_terms_of_the_field(file: str) -> None:
    assert term_violations((REPOSITORY / file).read_text(encoding="utf-8"), file) == []


LONG = "def f():\n" + "    x = 1\n" * (MAX_BODY_LINES + 1)
WIDE = "def f(a, b, c, d, e, f, g, h):\n    return 1\n"
CONSTRUCTOR = "class A:\n    def __init__(self, a, b, c, d, e, f, g, h):\n        self.a = a\n"
PARAMETERS = "Parameters\n    ----------\n    a, b, c\n"


@pytest.mark.parametrize(
    ("source", "file", "caught"),
    [
        (LONG, "search/runner.py", True),
        (LONG, "kernels/numba/loops.py", False),
        (WIDE, "search/runner.py", True),
        (WIDE, "cli/app.py", False),
        (CONSTRUCTOR, "a.py", False),
        (CONSTRUCTOR.replace("A:", "_A:"), "a.py", True),
        (WIDE.replace(", h", ""), "search/runner.py", False),
        ("x = 1\n" * (MAX_FILE_LINES + 1), "search/runner.py", True),
    ],
)  # fmt: skip
def test_the_rule_on_sizes_catches_what_it_should(source: str, file: str, caught: bool) -> None:
    assert bool(size_violations(source, file)) is caught


@pytest.mark.parametrize(
    ("docstring", "caught"),
    [
        ("What a search returns.", True),
        ("Those that are left.", True),
        ("Result of a search.", False),
        ("Whoever waits.", True),
    ],
)
def test_the_rule_on_first_words_catches_what_it_should(docstring: str, caught: bool) -> None:
    assert bool(vague_docstrings(f'def f():\n    """{docstring}"""\n', "a.py")) is caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ('def f(a, b, c):\n    """Do."""\n', "Parameters"),
        (f'def f(a, b, c) -> int:\n    """Do.\n\n    {PARAMETERS}    """\n', "Returns"),
        ('def f(a):\n    """Do."""\n    raise ValueError("no")\n', "Raises"),
        ('def f(a):\n    """Do."""\n    try:\n        pass\n    except ValueError:\n        raise\n', None),
        ('def _f(a, b, c):\n    """Do."""\n', None),
        ('class A:\n    """A.\n\n    Parameters\n    ----------\n    a, b, c\n    """\n'
         '    def __init__(self, a, b, c):\n        pass\n', None),
        ('class A:\n    """A."""\n    def __init__(self, a, b, c):\n        pass\n', "Parameters"),
    ],
)  # fmt: skip
def test_the_rule_on_sections_catches_what_it_should(source: str, caught: str | None) -> None:
    found = section_violations(source, "a.py")
    assert found == [] if caught is None else found[0].endswith(caught)


def test_the_rule_on_terms_catches_what_it_should() -> None:
    assert term_violations("The choosing rows\ndecide.", "a.md") == ["a.md:1: choosing row"]
