"""Layering: a file imports only from packages above its own, and importing costs what it should.

The rules are functions of source text, so that each is also shown to catch a violation.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import parallelmlp_search

PACKAGE = "parallelmlp_search"
ROOT = Path(parallelmlp_search.__file__).parent
ORDER = (
    "exceptions", "_html", "_lazy", "_checks", "_memory", "_schema", "_optional", "_files", "_reading",
    "_signals", "_worker", "space", "data", "packing", "inference", "kernels", "engine", "selection",
    "distribute", "search", "explain", "distill", "export", "parareal", "integrations", "report", "runs",
    "estimators", "serve", "cli", "__main__",
)  # fmt: skip
"""Packages and files of the top level, from the bottom up."""

SUB_PACKAGES = {
    "data": ("cells", "profile"),
    "kernels": ("numba", "triton"),
    "engine": ("device",),
    "search": ("problem", "run", "proposals", "screening", "finalists"),
    "parareal": ("architectures", "method", "ranks", "promotion"),
    "integrations": ("optuna",),
    "integrations/optuna": ("sampler", "storage", "study"),
    "report": ("results", "plots", "page", "terminal", "notebook"),
}
"""Sub-packages of a package, from the bottom up."""

LOWER_HALF = ORDER[: ORDER.index("search")]
# scikit-learn brings scipy and joblib along
LOWER_HALF_IMPORTS = (
    "joblib",
    "numpy",
    "pandas",
    "pyarrow",
    "safetensors",
    "scipy",
    "sklearn",
    "threadpoolctl",
    "torch",
)
# files that are imported only where their compiler is there
COMPILERS = {"kernels/triton/": {"triton"}, "kernels/numba/": {"filelock", "llvmlite", "numba"}}
TORCH_FILES = ("packing/modules.py", "packing/pack.py", "packing/periodic.py", "packing/submembers.py")
LAZY = "__getattr__, __dir__ = lazy_names(__name__"
MAX_LINES = 400
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
SOURCES = {file: (ROOT / file).read_text(encoding="utf-8") for file in FILES}


def imported_modules(source: str, file: str) -> Iterator[str]:
    """Dotted names of everything a file imports, wherever in it: ``from a.b import c`` gives ``a.b.c``."""
    package = [PACKAGE, *file.split("/")[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            parts += node.module.split(".") if node.module else []
            yield from (".".join([*parts, alias.name]) for alias in node.names)


def layer(file: str) -> str:
    """Top-level package or file that a path belongs to: ``space`` for ``space/config.py``."""
    return file.split("/")[0].removesuffix(".py")


def order_violations(source: str, file: str) -> list[str]:
    """Imports of a layer above the file's own, or of one that is not in the order at all."""
    if file == "__init__.py":
        return []
    if layer(file) not in ORDER:
        return [f"{file}: {layer(file)} has no place in the order"]
    found = []
    for module in imported_modules(source, file):
        parts = module.split(".")
        if parts[0] != PACKAGE:
            continue
        other = parts[1] if len(parts) > 1 else ""
        if other == "__version__":
            continue
        if other not in ORDER or ORDER.index(other) > ORDER.index(layer(file)):
            found.append(f"{file} imports {module}")
    return found


def resolved(module: str, files: Mapping[str, str]) -> str | None:
    """File that a dotted name of this package comes from, or None."""
    parts = module.split(".")
    if parts[0] != PACKAGE:
        return None
    for end in range(len(parts), 1, -1):
        path = "/".join(parts[1:end])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            if file in files:
                return file
    return None


def child(file: str, package: str) -> str | None:
    """Direct child of a package that holds a file: ``run`` for ``search/run/trial.py``."""
    if not file.startswith(f"{package}/"):
        return None
    return file.removeprefix(f"{package}/").split("/")[0].removesuffix(".py")


def imports_inside(package: str, files: Mapping[str, str]) -> dict[str, set[str]]:
    """Direct children of a package, each with the children that it imports."""
    found: dict[str, set[str]] = {}
    for file, source in files.items():
        name = child(file, package)
        if name is None or name == "__init__":
            continue
        targets = {resolved(module, files) for module in imported_modules(source, file)}
        others = {child(target, package) for target in targets if target is not None}
        found.setdefault(name, set()).update(
            other for other in others if other not in (None, name, "__init__")
        )
    return found


def cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Names that import each other in a circle; empty where there is none."""
    left = {name: set(others) for name, others in graph.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def sub_package_violations(package: str, files: Mapping[str, str]) -> list[str]:
    """Imports of a sub-package above the importing one, by the order in :data:`SUB_PACKAGES`."""
    order = SUB_PACKAGES.get(package, ())
    graph = imports_inside(package, files)
    folders = {child(file, package) for file in files if file.endswith("/__init__.py")} - {None, "__init__"}
    found = [f"{package}/{name} has no place in the order" for name in sorted(folders - set(order), key=str)]
    for position, name in enumerate(order):
        above = graph.get(name, set()) & set(order[position + 1 :])
        found += [f"{package}/{name} imports {package}/{other}" for other in sorted(above)]
    return found


def is_torch_free(file: str) -> bool:
    """True for files that must not import torch."""
    private = ("_checks", "_lazy", "_optional", "_signals")
    plain = layer(file) in ("exceptions", *private, "space", "data", "packing", "inference", "__init__")
    return plain and file not in TORCH_FILES


def torch_violations(source: str, file: str) -> list[str]:
    """Imports of torch in a file that must do without."""
    if not is_torch_free(file):
        return []
    return [f"{file} imports {m}" for m in imported_modules(source, file) if m.split(".")[0] == "torch"]


def reexport_violations(source: str, file: str) -> list[str]:
    """Statements of an ``__init__`` that do more than name what lies below it."""
    found = []
    for node in ast.parse(source).body:
        is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        is_all = (
            isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and node.targets[0].id == "__all__"
        )
        is_lazy = isinstance(node, ast.Assign) and ast.unparse(node).startswith(LAZY)
        is_types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        is_import = isinstance(node, ast.Import | ast.ImportFrom)
        if not (is_text or is_all or is_lazy or is_types or is_import):
            found.append(f"{file}:{node.lineno}: {type(node).__name__}")
    return found


def stranger_violations(source: str, file: str) -> list[str]:
    """Third-party imports that a file of the lower half of the layers may not have.

    Training, on a GPU above all, must do with what an image with PyTorch usually holds. Optional ones are
    asked for through ``_optional`` and stand in no import statement, but for a compiler in what it compiles.
    """
    if layer(file) not in LOWER_HALF:
        return []
    allowed = {*sys.stdlib_module_names, PACKAGE, *LOWER_HALF_IMPORTS}
    for start, compilers in COMPILERS.items():
        if file.startswith(start):
            allowed |= compilers
    roots = {module.split(".")[0] for module in absolute_imports(source)}
    return [f"{file} imports {root}" for root in sorted(roots - allowed)]


def absolute_imports(source: str) -> Iterator[str]:
    """Dotted names of what a file imports from outside its own package."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module or ""


@pytest.mark.parametrize("file", FILES)
def test_file_keeps_to_the_layers(file: str) -> None:
    source = SOURCES[file]
    assert order_violations(source, file) == []
    assert torch_violations(source, file) == []
    assert stranger_violations(source, file) == []
    if file.endswith("/__init__.py"):
        assert reexport_violations(source, file) == []
    assert len(source.splitlines()) <= MAX_LINES, f"{file} has more than one idea"


@pytest.mark.parametrize("package", sorted({str(Path(file).parent) for file in FILES} - {"."}))
def test_packages_have_no_cycle_and_keep_their_order(package: str) -> None:
    assert cycle(imports_inside(package, SOURCES)) == []
    assert sub_package_violations(package, SOURCES) == []


def test_the_rules_on_sub_packages_catch_what_they_should() -> None:
    files = {
        "search/__init__.py": "",
        "search/run/__init__.py": "",
        "search/run/trial.py": "from parallelmlp_search.search.finalists.model import Model",
        "search/finalists/__init__.py": "",
        "search/finalists/model.py": "",
        "search/rest/__init__.py": "",
        "search/runner.py": "from parallelmlp_search.search.run.trial import Trial",
    }
    assert sub_package_violations("search", files) == [
        "search/rest has no place in the order",
        "search/run imports search/finalists",
    ]
    assert cycle(imports_inside("search", files)) == []
    files["search/finalists/model.py"] = "from parallelmlp_search.search.runner import run"
    assert cycle(imports_inside("search", files)) == ["finalists", "run", "runner"]


def test_the_layers_are_there() -> None:
    assert "space/config.py" in FILES
    assert "exceptions.py" in FILES
    assert all((path / "__init__.py").exists() for path in ROOT.iterdir() if any(path.glob("*.py")))


@pytest.mark.parametrize(
    ("source", "file", "caught"),
    [
        ("import parallelmlp_search.engine.trainer", "space/config.py", True),
        ("from parallelmlp_search.engine import trainer", "space/config.py", True),
        ("from parallelmlp_search import engine", "space/config.py", True),
        ("from ..engine.trainer import train", "space/config.py", True),
        ("from .. import engine", "space/config.py", True),
        (
            "def f():\n    from parallelmlp_search.cli.app import main",
            "estimators/single_mlp.py",
            True,
        ),
        (
            "from parallelmlp_search import SearchSpace",
            "estimators/single_mlp.py",
            True,
        ),  # through the front door
        ("import json", "attic/config.py", True),
        ("from parallelmlp_search.space import config", "engine/trainer.py", False),
        ("from .config import MLPConfig", "space/domains.py", False),
        ("from ..exceptions import DataError", "space/config.py", False),
        ("from parallelmlp_search import __version__", "search/run/run_directory.py", False),
        ("import torch, numpy", "engine/trainer.py", False),
    ],
)
def test_the_order_rule_catches_what_it_should(source: str, file: str, caught: bool) -> None:
    assert bool(order_violations(source, file)) is caught


@pytest.mark.parametrize(
    ("source", "file", "caught"),
    [
        ("import torch", "space/config.py", True),
        ("from torch.nn import functional", "data/targets.py", True),
        ("def f():\n    import torch.cuda", "packing/layout.py", True),
        ("import torch", "packing/pack.py", False),
        ("import torch", "engine/trainer.py", False),
        ("import torchless", "space/config.py", False),
    ],
)
def test_the_torch_rule_catches_what_it_should(source: str, file: str, caught: bool) -> None:
    assert bool(torch_violations(source, file)) is caught


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ('"""Words."""\nfrom a import b\n__all__ = ["b"]\n', False),
        ("def f():\n    return 1\n", True),
        ("from a import b\nb.setup()\n", True),
        ("LIMIT = 3\n", True),
    ],
)
def test_the_reexport_rule_catches_what_it_should(source: str, caught: bool) -> None:
    assert bool(reexport_violations(source, "space/__init__.py")) is caught


@pytest.mark.parametrize(
    ("source", "file", "caught"),
    [
        ("import optuna", "engine/trainer.py", True),
        ("from typer import Typer", "distribute/executor.py", True),
        ("def f():\n    import rich.table", "selection/metrics.py", True),
        ("import triton", "engine/trainer.py", True),
        ("import triton.language as tl", "kernels/triton/ragged.py", False),
        ("import json, numpy, torch", "engine/trainer.py", False),
        ("from .population import Population", "engine/trainer.py", False),
        ("import optuna", "integrations/optuna/study/run_study.py", False),
    ],
)
def test_the_rule_on_strangers_catches_what_it_should(source: str, file: str, caught: bool) -> None:
    assert bool(stranger_violations(source, file)) is caught


def test_training_works_where_the_rest_is_not_installed() -> None:
    code = """
import sys
for name in ("optuna", "typer", "rich", "triton", "numba", "llvmlite", "yaml", "polars"):
    sys.modules[name] = None
import torch
from parallelmlp_search.engine import BatchStream, Population, TrainingRows, TrainingSettings, train
from parallelmlp_search import distribute, selection, kernels
from parallelmlp_search.packing import DataShape
from parallelmlp_search.space import MLPConfig
population = Population.create([MLPConfig(widths=(4,))], DataShape(3, 1))
rows = TrainingRows(torch.randn(20, 3), torch.randint(0, 2, (20,)))
stream = BatchStream(20, 10, 0)
settings = TrainingSettings(stream=stream, loss="binary_logits", until_epoch=1, total_epochs=1)
train(population, rows, settings)
print(population.step)
"""
    assert run_python(code).strip() == "2"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.alone
def test_the_front_door_is_light() -> None:
    heavy = ("torch", "pandas", "sklearn", "numpy", "optuna", "rich", "typer", "pyarrow")
    code = f"""
import sys, time
start = time.perf_counter()
import parallelmlp_search
print(time.perf_counter() - start)
print([name for name in {heavy!r} if name in sys.modules])
"""
    runs = [run_python(code).splitlines() for _ in range(2)]
    assert all(loaded == "[]" for _, loaded in runs)
    assert min(float(seconds) for seconds, _ in runs) < 0.3


def test_spaces_do_without_torch_pandas_and_scikit_learn() -> None:
    code = """
import sys
from parallelmlp_search import SearchSpace, MLPConfig
SearchSpace.preset("default")
print([name for name in ("torch", "pandas", "sklearn", "yaml") if name in sys.modules])
"""
    assert run_python(code).strip() == "[]"


def test_public_names() -> None:
    from parallelmlp_search.space import MLPConfig, SearchSpace

    assert parallelmlp_search.MLPConfig is MLPConfig
    assert parallelmlp_search.SearchSpace is SearchSpace
    assert set(parallelmlp_search.__all__) <= set(dir(parallelmlp_search))
    assert parallelmlp_search.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="no attribute 'SearchSpaces'"):
        _ = parallelmlp_search.SearchSpaces
