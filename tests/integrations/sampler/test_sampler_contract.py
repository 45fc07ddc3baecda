"""Optuna's own test suite for samplers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from optuna.samplers import BaseSampler

from parallelmlp_search.integrations.optuna import RefinementSampler

suites = pytest.importorskip("optuna.testing.pytest_samplers", reason="Optuna 4.8 ships the suite first")


class _Contract:
    """The sampler in its random phase, in its refinement phase, and at the change."""

    @pytest.fixture(params=[100, 0, 3])
    def sampler(self, request: pytest.FixtureRequest) -> Callable[[], BaseSampler]:
        return lambda: RefinementSampler(n_startup_trials=request.param, seed=0)


class TestBasicContract(_Contract, suites.BasicSamplerTestCase):  # type: ignore[misc, name-defined]
    pass


class TestMultiObjectiveContract(_Contract, suites.MultiObjectiveSamplerTestCase):  # type: ignore[misc, name-defined]
    pass
