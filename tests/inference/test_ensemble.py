"""Ensembles in NumPy: shares of members and folds, windows, threads."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from threadpoolctl import threadpool_info, threadpool_limits

from parallelmlp_search.data import TablePreprocessor
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.inference import TrainedModel, ensemble
from parallelmlp_search.inference.fold_model import architecture_of
from parallelmlp_search.inference.threads import for_each
from parallelmlp_search.packing import Head
from parallelmlp_search.packing.pack import extract, select_columns
from parallelmlp_search.search.finalists.model import fold_model
from parallelmlp_search.space import MLPConfig

CONFIGS = (
    MLPConfig(widths=(6, 5), activation="mish", numeric_embedding="none"),
    MLPConfig(widths=(4,), submembers=3, category_embedding="learned", numeric_scaling="quantile"),
    MLPConfig(widths=(7, 7), residual=True, numeric_embedding="periodic", input_scale_rate=1.0),
)
WEIGHTS = np.array([0.5, 0.2, 0.3])


def table(n_rows: int = 300) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.normal(size=n_rows),
            "y": rng.normal(size=n_rows),
            "town": rng.choice([f"town {number}" for number in range(12)], n_rows),
        }
    )


def model_of(task: Any, n_folds: int = 3, *, kinds: Any = None, refitted: bool = False) -> TrainedModel:
    """A model of random networks."""
    frame, generator = table(), torch.Generator().manual_seed(0)
    head = Head(task, {"binary": 2, "multiclass": 3, "regression": 2}[task])
    folds: list[Any] = []
    for fold in range(n_folds):
        if task == "regression":
            head = Head(task, 2, (1.0, 2.0), (1.0 + fold, 2.0), (-3.0, -3.0), (4.0, 4.0 + fold))
        rows = slice(fold * 40, fold * 40 + 200)
        preprocessor = TablePreprocessor(quantiles=True, numeric_bins=4, column_kinds=kinds and kinds[fold])
        encoder = folds[0].encoder if refitted and folds else preprocessor.fit(frame.iloc[rows]).encoder_
        sizes = [architecture_of(config, encoder, head).n_parameters for config in CONFIGS]
        vectors = [0.5 * torch.randn(size, generator=generator) for size in sizes]
        folds.append(fold_model(encoder, head, CONFIGS, vectors))
    classes = None if task == "regression" else np.array(["a", "b", "c"][: head.n_predictions])
    return TrainedModel(
        task, classes, CONFIGS, (0, 1, 2), WEIGHTS, folds, list(frame.columns),
        flat_target=False, temperature=1.0 if task == "regression" else 1.3,
    )  # fmt: skip


def one_by_one(model: TrainedModel, frame: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Predictions of plain networks in torch, without postprocessing."""
    total: Any = 0.0
    for fold in model.folds:
        rows = torch.from_numpy(fold.encoder.encode(frame))
        for member, weight in enumerate(model.weights):
            module = extract(torch.from_numpy(fold.parameters), fold.layout, member).eval()
            columns = fold.architecture(model.configs[member]).columns
            with torch.no_grad():
                outputs = module(select_columns(rows, columns)).T[None]
            total = total + weight * head_predictions(fold.head, outputs.double())[0]
    return (total / len(model.folds)).numpy()


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("refitted", [False, True])
def test_predictions_are_those_of_plain_networks(task: str, refitted: bool) -> None:
    model, frame = model_of(task, refitted=refitted), table()
    (group,) = model.ensemble.groups
    assert len(group.encoder.places) == (1 if refitted else 3)
    expected = one_by_one(model, frame)
    np.testing.assert_allclose(model.ensemble.predictions(frame), expected, rtol=1e-5, atol=1e-6)
    for row in (0, 7):
        alone = model.ensemble.predictions(frame.iloc[[row]])
        np.testing.assert_allclose(alone, expected[:, [row]], rtol=1e-5, atol=1e-6)
    others = replace(model, weights=WEIGHTS[::-1].copy()).ensemble.predictions(frame)
    assert np.abs(others - expected).max() > 1e-3
    if task != "regression":
        tempered = expected ** (1 / 1.3) / (expected ** (1 / 1.3)).sum(axis=0)
        np.testing.assert_allclose(model.predictions(frame), tempered, rtol=1e-5, atol=1e-6)


def test_members_without_weight_are_not_computed() -> None:
    model = replace(model_of("binary"), weights=np.array([0.0, 1.0, 0.0]))
    (group,) = model.ensemble.groups
    assert len(group.networks) == 1
    np.testing.assert_allclose(
        model.ensemble.predictions(table()), one_by_one(model, table()), rtol=1e-5, atol=1e-6
    )


def test_folds_that_use_other_columns_are_computed_apart() -> None:
    kinds = [{"y": "numeric"}, {"y": "identifier"}, {"y": "numeric"}]
    model = model_of("binary", kinds=kinds)
    assert [len(group.heads) for group in model.ensemble.groups] == [2, 1]
    for frame in (table(), table().head(1)):
        expected = one_by_one(model, frame)
        np.testing.assert_allclose(model.ensemble.predictions(frame), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_rows", [0, 1, 15, 16, 17, 64, 300])
def test_windows_cover_all_rows(n_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "MAX_WINDOW_ROWS", 16)
    model, frame = model_of("multiclass"), table().head(n_rows)
    found = model.ensemble.predictions(frame)
    assert found.shape == (3, n_rows)
    np.testing.assert_allclose(found, one_by_one(model, frame).reshape(3, n_rows), rtol=1e-5, atol=1e-6)


def test_a_model_is_pickled_without_its_plain_layers() -> None:
    model, frame = model_of("binary"), table()
    expected = model.predictions(frame)
    assert "ensemble" in vars(model)
    again = pickle.loads(pickle.dumps(model))
    assert "ensemble" not in vars(again)
    np.testing.assert_allclose(again.predictions(frame), expected, rtol=1e-12)


def blas_threads() -> list[int]:
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


@pytest.fixture
def two_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="blas"):
        yield


@pytest.mark.usefixtures("two_threads")
def test_products_have_one_thread_while_rows_are_predicted() -> None:
    before = blas_threads()
    assert set(before) == {2}
    seen: list[list[int]] = []
    for items in ([0], [1, 2, 3]):
        for_each(lambda _: seen.append(blas_threads()), items)
        assert blas_threads() == before
    assert seen == [[1] * len(before)] * 4


@pytest.mark.usefixtures("two_threads")
def test_windows_are_computed_in_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensemble, "MAX_WINDOW_ROWS", 16)
    model, names = model_of("binary"), set()
    (group,) = model.ensemble.groups
    encode = group.encoder.encode

    def recording(used: Any) -> Any:
        names.add(threading.current_thread().name)
        return encode(used)

    monkeypatch.setattr(group.encoder, "encode", recording)
    found = model.ensemble.predictions(table())
    assert len(names) > 0
    assert threading.current_thread().name not in names
    np.testing.assert_allclose(found, one_by_one(model, table()), rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("two_threads")
def test_an_error_in_a_thread_is_raised() -> None:
    def fail(number: int) -> None:
        if number == 3:
            raise ValueError("number 3")

    before = blas_threads()
    with pytest.raises(ValueError, match="number 3"):
        for_each(fail, list(range(8)))
    assert blas_threads() == before
