"""Versions of Optuna: tested bounds, and fallbacks for private names that another version may lack."""

from __future__ import annotations

import re
from pathlib import Path

import optuna
import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.integrations.optuna import constraints_of
from parallelmlp_search.integrations.optuna.compatibility import (
    NEWEST_TESTED,
    OLDEST_TESTED,
    clear_trial_cache,
    is_tested_version,
    stoppable,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("file", "pattern", "bound"),
    [
        ("pyproject.toml", r'"optuna>=(\d+)\.(\d+)"', OLDEST_TESTED),
        ("constraints.txt", r"^optuna==(\d+)\.(\d+)\.", NEWEST_TESTED),
    ],
)
def test_the_tested_versions_are_those_of_the_requirements(
    file: str, pattern: str, bound: tuple[int, int]
) -> None:
    found = re.search(pattern, (ROOT / file).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found is not None
    assert (int(found[1]), int(found[2])) == bound


@pytest.mark.parametrize(
    ("version", "is_tested"),
    [
        ("4.2.1", False),
        ("4.3.0", True),
        ("4.10.0", True),
        ("5.0.0", True),
        ("5.0.3.dev", True),
        ("5.1.0", False),
    ],
)
def test_versions_are_compared_by_number(
    monkeypatch: pytest.MonkeyPatch, version: str, is_tested: bool
) -> None:
    monkeypatch.setattr(optuna, "__version__", version)
    assert is_tested_version() is is_tested


def test_a_study_is_stoppable_inside_the_context_only() -> None:
    study = optuna.create_study()
    with stoppable(study) as is_stopped:
        assert not is_stopped()
        with pytest.raises(InvalidParameterError, match="another optimize"), stoppable(study):
            pass
        study.stop()
        assert is_stopped()
    with pytest.raises(RuntimeError):
        study.stop()
    with stoppable(study) as is_stopped:
        assert not is_stopped()


class _StudyWithoutPrivateNames(optuna.Study):
    """Study of an Optuna that keeps its trial cache and its stop flag elsewhere."""

    def __getattribute__(self, name: str) -> object:
        if name in ("_thread_local", "_stop_flag"):
            raise AttributeError(name)
        return super().__getattribute__(name)


def test_private_names_can_be_missing() -> None:
    storage = optuna.storages.InMemoryStorage()
    optuna.create_study(storage=storage, study_name="s")
    study = _StudyWithoutPrivateNames("s", storage)
    clear_trial_cache(study)
    with stoppable(study) as is_stopped:
        assert not is_stopped()


def test_constraints_of_optuna_4_are_read() -> None:
    """Optuna 4 keeps constraints as a list, which Optuna 5 still reads."""
    trial = optuna.trial.create_trial(value=1.0, system_attrs={"constraints": [0.5, -1.0]})
    assert constraints_of(trial) == [0.5, -1.0]
    assert constraints_of(optuna.trial.create_trial(value=1.0)) == []
