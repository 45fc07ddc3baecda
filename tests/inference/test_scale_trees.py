"""Trees in NumPy: equal to those of scikit-learn, and checked when they are read."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor

from parallelmlp_search.inference import scale_trees
from parallelmlp_search.inference.scale_trees import ScaleTrees
from parallelmlp_search.search.finalists.uncertainty import joined_trees

Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def table() -> tuple[Array, Array]:
    """Columns with ties, and two outputs that depend on them."""
    rng = np.random.default_rng(0)
    features = rng.integers(-8, 8, (300, 3)).astype(np.float32)
    target = np.stack([features[:, 0] * (features[:, 1] > 0), np.abs(features[:, 2])], axis=1)
    return features, target + rng.normal(size=(300, 2))


@pytest.fixture(scope="module")
def forests(table: tuple[Array, Array]) -> list[ExtraTreesRegressor]:
    return [
        ExtraTreesRegressor(5, min_samples_leaf=leaf, random_state=leaf).fit(*table) for leaf in (1, 20, 160)
    ]


@pytest.fixture(scope="module")
def trees(forests: list[ExtraTreesRegressor]) -> ScaleTrees:
    return joined_trees(
        [[(one.tree_, one.tree_.value[:, :, 0]) for one in forest.estimators_] for forest in forests]
    )


@pytest.mark.parametrize("window", [1, 64, 1 << 16])
def test_each_group_predicts_as_its_forest(
    table: tuple[Array, Array],
    forests: list[ExtraTreesRegressor],
    trees: ScaleTrees,
    window: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scale_trees, "WINDOW_CELLS", window)
    features, _ = table
    for group, forest in enumerate(forests):
        found = trees.log_scales(group, features)
        # values are stored in single precision
        np.testing.assert_allclose(found, forest.predict(features).T, rtol=1e-5, atol=1e-6)
    assert not np.allclose(trees.log_scales(0, features), trees.log_scales(1, features), atol=0.1)
    assert (np.ptp(trees.log_scales(2, features), axis=1) == 0.0).all()  # trees of one leaf


def test_pooled_trees_predict_the_mean(table: tuple[Array, Array], trees: ScaleTrees) -> None:
    features, _ = table
    means = np.mean([trees.log_scales(group, features) for group in range(3)], axis=0)
    np.testing.assert_allclose(trees.pooled().log_scales(0, features), means, rtol=1e-12)


def test_stored_trees_are_the_same(table: tuple[Array, Array], trees: ScaleTrees) -> None:
    again = ScaleTrees.from_arrays(trees.to_arrays(), 3, 2, 3)
    assert np.array_equal(again.log_scales(0, table[0]), trees.log_scales(0, table[0]))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("feature", lambda one: one + 3),
        ("left", lambda one: np.zeros_like(one)),  # a loop
        ("right", lambda one: one + len(one)),
        ("roots", lambda one: one - 1),
        ("value", lambda one: np.full_like(one, np.nan)),
        ("threshold", lambda one: one.astype(np.float64)),
        ("roots", lambda one: one[:2]),
        ("value", None),
    ],
)
def test_damaged_trees_are_refused(trees: ScaleTrees, name: str, change: Any) -> None:
    arrays = trees.to_arrays()
    damaged = {key: value for key, value in arrays.items() if key != name}
    if change is not None:
        damaged[name] = change(arrays[name])
    with pytest.raises(ValueError, match=r"tensor|damaged"):
        ScaleTrees.from_arrays(damaged, 3, 2, 3)
