"""SingleMLPClassifier and SingleMLPRegressor."""

from __future__ import annotations

import inspect
import pickle
import pydoc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import train_test_split

from parallelmlp_search import MLPConfig, ParallelMLPClassifier, SingleMLPClassifier, SingleMLPRegressor
from parallelmlp_search.exceptions import DataError, DataWarning, InvalidParameterError, SearchFailedError
from parallelmlp_search.inference import network_outputs
from parallelmlp_search.inference.outputs import mean_predictions
from parallelmlp_search.packing.pack import extract, select_columns
from parallelmlp_search.search import TrainedModel
from parallelmlp_search.search.run.budget import default_epochs
from parallelmlp_search.space.config import FIELD_NAMES

Numbers = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    """Features (120, 4) and values that follow from the first two."""
    X = np.random.default_rng(0).normal(size=(120, 4))
    return X, X[:, 0] + 0.5 * X[:, 1]


def classifier(**changes: Any) -> SingleMLPClassifier:
    return SingleMLPClassifier(
        **{"widths": (8,), "max_epochs": 6, "batch_size": 32, "random_state": 0} | changes
    )


def regressor(**changes: Any) -> SingleMLPRegressor:
    return SingleMLPRegressor(
        **{"widths": (8,), "max_epochs": 6, "batch_size": 32, "random_state": 0} | changes
    )


def test_reaches_a_known_auc() -> None:
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    train, test, y_train, y_test = train_test_split(X, y, random_state=0, stratify=y)
    model = SingleMLPClassifier((32, 32), learning_rate=0.01, dropout=0.1, random_state=0).fit(train, y_train)
    assert roc_auc_score(y_test, model.predict_proba(test)[:, 1]) > 0.985


@pytest.mark.parametrize("n_classes", [2, 3])
def test_submembers_predict_the_same_after_reloading(n_classes: int, tmp_path: Path) -> None:
    X, y = load_iris(return_X_y=True)
    X, y = X[y < n_classes], y[y < n_classes]
    model = classifier(submembers=4, sharing="full", learning_rate=0.05).fit(X, y)
    said = model.predict_proba(X)
    assert np.allclose(said.sum(1), 1.0)
    assert model.score(X, y) > 0.8
    model.model_.save(tmp_path)
    again = TrainedModel.load(tmp_path)
    frame = pd.DataFrame(X, columns=again.feature_names)
    assert np.array_equal(again.predictions(frame).T, said)
    # the mean of logits differs from the mean of probabilities
    (group,) = again.ensemble.groups
    outputs = network_outputs(group.networks[0], group.encoder.encode(group.encoder.read(frame)))
    of_mean_logits = mean_predictions([again.folds[0].head], outputs.mean(axis=1, keepdims=True))
    assert np.abs(of_mean_logits - said).max() > 1e-3


def test_embedded_categories_predict_the_same_after_reloading(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    town = rng.integers(0, 12, 200)
    X = pd.DataFrame({"x": rng.normal(size=200), "town": [f"town {number}" for number in town]})
    y = (town % 3 == 0).astype(int)
    model = classifier(category_embedding="learned", learning_rate=0.02, max_epochs=60).fit(X, y)
    said = model.predict_proba(X)
    assert ((said[:, 1] > 0.5) == y).mean() > 0.95
    model.model_.save(tmp_path)
    assert np.array_equal(TrainedModel.load(tmp_path).predictions(X).T, said)
    plain = classifier(learning_rate=0.02, max_epochs=60).fit(X, y).predict_proba(X)
    assert np.abs(plain - said).max() > 1e-4
    unknown = pd.DataFrame({"x": [0.0, 0.0], "town": ["elsewhere", None]})
    np.testing.assert_allclose(*model.predict_proba(unknown), rtol=1e-6)


@pytest.mark.parametrize("kind", [SingleMLPClassifier, SingleMLPRegressor])
def test_parameters_are_the_fields_of_a_configuration(kind: type[Any]) -> None:
    parameters = inspect.signature(kind).parameters
    assert set(FIELD_NAMES) <= set(parameters)
    default = MLPConfig()
    assert all(parameters[name].default == getattr(default, name) for name in FIELD_NAMES if name != "seed")
    config = MLPConfig(widths=(5, 4), activation="silu", clip_norm=1.0, seed=7)
    assert kind.from_config(config, max_epochs=3)._config(99) == config


@pytest.mark.parametrize("kind", [SingleMLPClassifier, SingleMLPRegressor])
def test_parameters_are_stored_and_documented(kind: type[Any]) -> None:
    model = kind((5,), dropout=0.1, max_epochs=3)
    assert (model.widths, model.dropout, model.momentum, model.max_epochs) == ((5,), 0.1, 0.9, 3)
    assert model.set_params(dropout=0.2).get_params()["dropout"] == 0.2
    assert repr(model) == f"{kind.__name__}(dropout=0.2, max_epochs=3, widths=(5,))"
    shown = pydoc.render_doc(kind, renderer=pydoc.plaintext)
    for text in ("momentum\n", "Momentum of SGD", "max_epochs : int, default=None", "dropout: 'float' = 0.0"):
        assert text in shown
    with pytest.raises(TypeError, match="has no parameter 'drop_out'; did you mean 'dropout'"):
        kind(drop_out=0.1)
    with pytest.raises(TypeError, match="too many positional"):
        kind((5,), 0.1)


def test_a_subclass_can_fix_parameters(numbers: Numbers) -> None:
    class Linear(SingleMLPRegressor):
        def __init__(self, learning_rate: float = 0.01) -> None:
            super().__init__((), learning_rate=learning_rate, max_epochs=2, random_state=0)

    model = clone(Linear(0.02)).fit(*numbers)
    assert (model.get_params(), model.config_.widths, model.config_.learning_rate) == (
        {"learning_rate": 0.02},
        (),
        0.02,
    )


def test_predictions_equal_the_plain_network(numbers: Numbers) -> None:
    X, y = numbers
    model = regressor(widths=(6, 5), activation="tanh", normalization="layer", residual=True).fit(X, y)
    assert isinstance(model.model_, TrainedModel)
    (fold,) = model.model_.folds
    inputs = torch.from_numpy(fold.encoder.encode(pd.DataFrame(X, columns=model._columns)))
    plain = extract(torch.from_numpy(fold.parameters), fold.layout, 0).eval()
    seen = select_columns(inputs, fold.architecture(model.config_).columns)
    with torch.inference_mode():
        outputs = plain(seen)[:, 0] * fold.head.scale[0] + fold.head.location[0]
    values = outputs.clamp(fold.head.lower[0], fold.head.upper[0]).numpy()
    np.testing.assert_allclose(model.predict(X), values, rtol=1e-4, atol=1e-5)


def test_all_rows_are_used_for_training(numbers: Numbers) -> None:
    X, y = numbers
    model = regressor().fit(X, y)
    for row in (0, 60, 119):  # there are no validation rows
        shifted = y.copy()
        shifted[row] -= 1.0
        assert np.abs(regressor().fit(X, shifted).predict(X) - model.predict(X)).max() > 1e-5


def test_seeds(numbers: Numbers) -> None:
    X, y = numbers
    first = regressor().fit(X, y).predict(X)
    np.testing.assert_array_equal(first, regressor().fit(X, y).predict(X))
    assert np.abs(first - regressor(random_state=1).fit(X, y).predict(X)).max() > 1e-3
    # `seed` is for the weights, `random_state` for the batches
    assert np.abs(first - regressor(seed=1).fit(X, y).predict(X)).max() > 1e-3
    np.testing.assert_array_equal(first, regressor(seed=0).fit(X, y).predict(X))
    assert regressor(seed=5).fit(X, y).config_.seed == 5
    np.random.seed(0)  # noqa: NPY002 - what a random_state of None draws from
    assert (
        regressor(random_state=None).fit(X, y).config_.seed
        != regressor(random_state=None).fit(X, y).config_.seed
    )


def test_epochs(numbers: Numbers) -> None:
    X, y = numbers
    model = regressor(max_epochs=None).fit(X, y)
    assert model.n_epochs_ == default_epochs(120 / 128)
    assert regressor().fit(X, y).n_epochs_ == 6
    assert model.training_loss_ < regressor(max_epochs=1).fit(X, y).training_loss_


def test_rows_of_weight_zero_are_ignored(numbers: Numbers) -> None:
    X, y = numbers
    weight = np.tile([1.0, 0.0, 1.0, 1.0], 30)
    kept = weight > 0
    expected = regressor().fit(X[kept], y[kept]).predict(X)
    wrong = np.where(kept, y, 1000.0)
    np.testing.assert_array_equal(regressor().fit(X, wrong, sample_weight=weight).predict(X), expected)
    assert np.abs(regressor().fit(X, y).predict(X) - expected).max() > 1e-4


def test_class_weights_change_probabilities(numbers: Numbers) -> None:
    X, y = numbers
    rare = (y > 1.0).astype(int)
    plain = classifier(max_epochs=20).fit(X, rare).predict_proba(X)[:, 1].mean()
    assert (
        classifier(max_epochs=20, class_weight="balanced").fit(X, rare).predict_proba(X)[:, 1].mean()
        > plain + 0.1
    )


def test_quantile_loss(numbers: Numbers) -> None:
    X, y = numbers
    noisy = y + np.random.default_rng(1).normal(size=120)
    high = regressor(loss="quantile:0.9", max_epochs=60, learning_rate=0.01).fit(X, noisy).predict(X)
    low = regressor(loss="quantile:0.1", max_epochs=60, learning_rate=0.01).fit(X, noisy).predict(X)
    assert np.mean(low <= high) > 0.95
    assert 0.75 < np.mean(noisy <= high) < 1.0


def test_pickle_and_clone(numbers: Numbers) -> None:
    X, y = numbers
    model = classifier(widths=[6, 4]).fit(X, y > 0)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert clone(model).get_params() == model.get_params()
    assert not hasattr(clone(model), "model_")


def test_the_best_configuration_of_a_search(numbers: Numbers) -> None:
    X, y = numbers
    search = ParallelMLPClassifier("small", n_trials=4, max_epochs=9, n_folds=2, random_state=0).fit(X, y > 0)
    assert search.best_config_ is not None
    model = SingleMLPClassifier.from_config(search.best_config_, max_epochs=9, random_state=0).fit(X, y > 0)
    assert model.config_ == search.best_config_
    assert model.score(X, y > 0) > 0.7


def test_no_informative_column(numbers: Numbers) -> None:
    with pytest.warns(DataWarning, match="no informative column"):
        model = regressor().fit(np.zeros((120, 2)), numbers[1])
    assert model.predict(np.zeros((2, 2))) == pytest.approx([numbers[1].mean()] * 2)
    assert model.n_epochs_ == 0


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"max_epochs": 0}, InvalidParameterError, "max_epochs must be an integer >= 1"),
        ({"activation": "rellu"}, InvalidParameterError, "did you mean 'relu'"),
        ({"widths": 8}, InvalidParameterError, "widths must be a sequence"),
        ({"random_state": -1}, InvalidParameterError, "random_state must be in"),
        ({"device": "tpu"}, InvalidParameterError, "device must be auto"),
        ({"loss": "hubert"}, InvalidParameterError, "did you mean 'huber'"),
        ({"optimizer": "sgd", "learning_rate": 1e30}, SearchFailedError, "stopped being finite"),
    ],
)
def test_invalid_parameters(
    changes: dict[str, Any], error: type[Exception], message: str, numbers: Numbers
) -> None:
    with pytest.raises(error, match=message):
        regressor(**changes).fit(*numbers)


def test_one_class_is_refused(numbers: Numbers) -> None:
    with pytest.raises(DataError, match="at least two values or classes"):
        classifier().fit(numbers[0], np.ones(120, dtype=int))
