"""Package for OptunaHub: it loads as in the hub, its example runs, its README follows the template."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import optunahub
import pytest
import yaml

from parallelmlp_search.integrations.optuna import RefinementSampler

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "optunahub" / "package"
PACKAGE = "samplers/parallelmlp_refinement"
README = (REGISTRY / PACKAGE / "README.md").read_text(encoding="utf-8")


def _load(package: str) -> Any:
    return optunahub.load_local_module(package, registry_root=str(REGISTRY))


def test_the_hub_loads_the_sampler() -> None:
    module = _load(PACKAGE)
    assert module.__name__ == "optunahub_registry.package.samplers.parallelmlp_refinement"
    assert module.RefinementSampler is RefinementSampler
    with pytest.raises(FileNotFoundError):
        _load("samplers/parallelmlp_refinements")


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(REGISTRY / PACKAGE / "example.py"), run_name="__main__")
    value, kind = re.findall(r"best value ([0-9.]+) with {'kind': '(\w+)'", capsys.readouterr().out)[0]
    assert kind == "plane"
    assert float(value) < 0.1


def test_the_front_matter_follows_the_template() -> None:
    front = yaml.safe_load(README.split("---\n")[1])
    assert sorted(front) == ["author", "description", "license", "optuna_versions", "tags", "title"]
    assert "sampler" in front["tags"]
    assert all(isinstance(version, str) for version in front["optuna_versions"])
    pinned = re.search(r"^optuna==(.*)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert pinned is not None
    assert pinned[1] in front["optuna_versions"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert front["license"] == "Apache License 2.0"
    assert 'license = "Apache-2.0"' in project
    assert (REGISTRY / PACKAGE / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (REGISTRY / PACKAGE / "requirements.txt").read_text().split() == ["parallelmlp-search"]
    assert 'name = "parallelmlp-search"' in project


@pytest.mark.parametrize("name", ["n_startup_trials", "n_elites", "crossover_share", "seed"])
def test_the_readme_names_the_defaults(name: str) -> None:
    default = (RefinementSampler.__init__.__kwdefaults__ or {})[name]
    assert f"{name}={default}" in README
