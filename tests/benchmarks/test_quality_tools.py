from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
from sklearn.metrics import log_loss

from benchmarks.quality.boosters import Categories
from benchmarks.quality.errors import METRICS, error_of, error_of_score
from benchmarks.quality.ours import split_settings, with_known, with_space
from benchmarks.quality.sets import BUNDLED, SETS, load, split
from benchmarks.quality.tools import QUICK_PEERS, TOOLS, VARIANTS, find_tool, variant_tools
from parallelmlp_search.search import SearchSettings
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import tuned_defaults, tuned_defaults_in


@pytest.mark.parametrize("name", ["vowel", "communities", "iris", "diabetes"])
def test_a_table_is_complete_and_split_once(name: str) -> None:
    table = load(name)
    train, test = split(table, 0)
    assert len(table.features) == len(table.target) == len(train) + len(test)
    assert not set(train) & set(test)
    again = split(table, 0)
    np.testing.assert_array_equal(train, again[0])
    assert not np.array_equal(train, split(table, 1)[0])
    if table.task != "regression":
        assert set(table.target[train]) == set(table.target[test]) == set(range(table.target.max() + 1))


def test_large_tables_are_sampled() -> None:
    train, test = split(load("letter"), 0)
    assert (len(train), len(test)) == (9000, 3000)


def test_categories_are_texts_and_the_target_is_not_a_feature() -> None:
    table = load("credit_g")
    assert len(table.categorical) == 13
    assert table.features[list(table.categorical)].map(lambda cell: isinstance(cell, str)).to_numpy().all()
    assert "class" not in table.features
    assert len(BUNDLED) == 12
    assert len(set(SETS)) == len(SETS) == 17


def test_an_unseen_category_is_a_missing_value() -> None:
    features = load("vowel").features
    prepare = Categories(features.head(50), ("V1",))
    prepared = prepare(features)["V1"]
    assert prepared.head(50).notna().all()
    assert prepared[~features["V1"].isin(features["V1"].head(50))].isna().all()


def test_errors_equal_our_metrics() -> None:
    random = np.random.default_rng(0)
    target = random.integers(3, size=60)
    probabilities = random.dirichlet(np.ones(3), size=60)
    ours = get_metric("log_loss", "multiclass", n_classes=3)
    import torch

    values = torch.from_numpy(np.ascontiguousarray(probabilities.T))[None]
    expected = float(ours.error(values, torch.from_numpy(target), None)[0])
    assert error_of("multiclass", target, probabilities) == pytest.approx(expected, rel=1e-6)
    assert error_of("multiclass", target, probabilities[:, ::-1]) != pytest.approx(expected, rel=1e-3)
    assert error_of("multiclass", target, probabilities) == pytest.approx(log_loss(target, probabilities))


def test_errors_by_hand() -> None:
    assert error_of("regression", np.array([1.0, 2.0]), np.array([1.0, 5.0])) == pytest.approx(4.5**0.5)
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    assert error_of("binary", np.array([0, 1, 1, 0]), probabilities) == pytest.approx(0.25)
    assert error_of_score("binary", 0.75) == 0.25
    assert error_of_score("regression", 0.75) == 0.75
    with pytest.raises(ValueError, match="finite"):
        error_of("regression", np.zeros(2), np.array([0.0, np.nan]))


def test_zero_probability_of_the_true_class_gives_a_finite_error() -> None:
    error = error_of("multiclass", np.array([0, 1, 2]), np.eye(3)[[1, 1, 2]])
    assert 5.0 < error < 50.0


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_variants_change_something_that_exists(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fields, constants = split_settings(VARIANTS[name])
    assert fields or constants
    known = fields.pop("known", None)
    changed = SearchSettings(**with_space(fields))
    if fields:
        assert changed != SearchSettings()
    if known is not None:
        before = tuned_defaults.TUNED_DEFAULTS
        monkeypatch.setattr(tuned_defaults, "TUNED_DEFAULTS", before)  # restored afterwards
        with_known(known)
        assert len(tuned_defaults.TUNED_DEFAULTS) == len(before)
        assert before != tuned_defaults.TUNED_DEFAULTS
        assert len(tuned_defaults_in(changed.space)) == len(before)
    for (module, constant), value in constants.items():
        assert getattr(importlib.import_module(module), constant) != value


@pytest.mark.parametrize("name", sorted(TOOLS))
def test_the_functions_of_tools_exist(name: str) -> None:
    """Importing the module of a tool needs no optional package."""
    module, _, function = TOOLS[name].fit.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert dataclasses.is_dataclass(TOOLS[name])


def test_tools_by_name() -> None:
    assert set(QUICK_PEERS) <= set(TOOLS)
    assert set(METRICS) == {"binary", "multiclass", "regression"}
    assert not set(variant_tools()) & set(TOOLS)
    assert find_tool("ours, sampler tpe").settings == {"sampler": "tpe"}
    with pytest.raises(SystemExit, match="lightgbm"):
        find_tool("lightbgm")
