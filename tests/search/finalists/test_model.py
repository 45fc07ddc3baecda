"""Fitted model of a search."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from parallelmlp_search.data import TablePreprocessor
from parallelmlp_search.distribute import ShardData, ShardTask
from parallelmlp_search.distribute.shards import train_shard
from parallelmlp_search.engine import Head, TrainingRows
from parallelmlp_search.engine.heads import head_predictions
from parallelmlp_search.exceptions import DataError, RunDirectoryError
from parallelmlp_search.packing import Architecture, DataShape
from parallelmlp_search.packing.pack import extract, select_columns
from parallelmlp_search.search import Problem, SearchResult, TrainedModel, run
from parallelmlp_search.search.finalists.model import fold_model
from parallelmlp_search.selection import get_metric
from parallelmlp_search.space import CATEGORY_EMBEDDINGS, Categorical, Float, MLPConfig, SearchSpace

Make = Callable[..., Any]

VARIED = SearchSpace(
    {
        "depth": Categorical((1, 2, 3)),
        "width": Categorical((3, 7, 16)),
        "activation": Categorical(("relu", "silu", "sine", "selu")),
        "learning_rate": Float(1e-3, 3e-2, log=True),
        "dropout": Categorical((0.0, 0.2)),
        "normalization": Categorical(("none", "layer")),
        "residual": Categorical((False, True)),
        "bias": Categorical((True, False)),
        "batch_size": Categorical((32,)),
        "numeric_embedding": Categorical(("none", "piecewise", "periodic")),
    }
)


@pytest.fixture(scope="module", params=["spambase", "satimage", "diamonds"])
def trained(
    request: pytest.FixtureRequest, make_problem: Make, make_settings: Make
) -> tuple[Problem, TrainedModel]:
    problem = make_problem(request.param, 400)
    settings = make_settings(search_space=VARIED, n_trials=24, n_finalists=8, max_epochs=10)
    return problem, run(problem, settings, n_jobs=1).model


def _one_by_one(model: TrainedModel, problem: Problem, weights: list[float]) -> np.ndarray[Any, Any]:
    """Weighted mean over separate plain networks, averaged over folds, at the model's temperature."""
    total: Any = 0.0
    for fold in model.folds:
        inputs = torch.from_numpy(fold.encoder.encode(problem.frame))
        for member, weight in enumerate(weights):
            network = extract(torch.from_numpy(fold.parameters), fold.layout, member).eval()
            columns = fold.architecture(model.configs[member]).columns
            with torch.no_grad():
                outputs = network(select_columns(inputs, columns)).T[None]
            total = total + weight * head_predictions(fold.head, outputs)[0].double()
    mean = total / len(model.folds)
    if model.classes is not None:
        mean = mean ** (1.0 / model.temperature)
        mean = mean / mean.sum(0)
    return mean.numpy()


def test_predictions_are_the_weighted_mean_of_plain_networks(trained: tuple[Problem, TrainedModel]) -> None:
    problem, model = trained
    assert model.n_members > 1
    weights = model.weights.tolist()
    predictions = model.predictions(problem.frame)
    scale = np.abs(predictions).max()
    assert np.allclose(predictions, _one_by_one(model, problem, weights), atol=2e-6 * scale, rtol=1e-5)
    # other weights give other predictions
    others = weights[1:] + weights[:1]
    if others != weights:
        assert not np.allclose(predictions, _one_by_one(model, problem, others), atol=1e-4 * scale)
    assert not np.allclose(predictions, _one_by_one(model, problem, [1.0] + [0.0] * (len(weights) - 1)))


def test_a_saved_model_predicts_the_same_bits(trained: tuple[Problem, TrainedModel], tmp_path: Path) -> None:
    problem, model = trained
    model.save(tmp_path / "model")
    loaded = TrainedModel.load(tmp_path / "model")
    assert np.array_equal(loaded.predictions(problem.frame), model.predictions(problem.frame))
    assert np.array_equal(loaded.predict(problem.frame), model.predict(problem.frame))
    assert loaded.feature_names == model.feature_names
    assert (loaded.configs, loaded.trials) == (model.configs, model.trials)
    assert loaded.target_name == model.target_name
    # other weights give other predictions
    first, *others = loaded.folds
    changed = replace(loaded, folds=[replace(first, parameters=1.5 * first.parameters), *others])
    assert not np.array_equal(changed.predictions(problem.frame), model.predictions(problem.frame))


def test_columns_may_be_in_any_order_and_have_extra_ones(found: SearchResult, spam: Problem) -> None:
    shuffled = spam.frame.iloc[:, ::-1].assign(another="x")
    assert np.array_equal(found.model.predictions(shuffled), found.model.predictions(spam.frame))


def test_a_missing_column_is_an_error(found: SearchResult, spam: Problem) -> None:
    column = str(spam.frame.columns[3])
    with pytest.raises(DataError, match=column):
        found.model.predictions(spam.frame.drop(columns=column))


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_few_rows(n_rows: int, found: SearchResult, spam: Problem) -> None:
    frame = spam.frame.iloc[:n_rows]
    assert found.model.predictions(frame).shape == (2, n_rows)
    assert found.model.predict(frame).shape == (n_rows,)
    if n_rows:
        expected = found.model.predictions(spam.frame)[:, :n_rows]
        assert np.allclose(found.model.predictions(frame), expected, atol=1e-5)


def test_many_rows_are_predicted_in_windows(found: SearchResult, spam: Problem) -> None:
    import pandas as pd

    many = pd.concat([spam.frame] * 24, ignore_index=True)  # 9,600 rows: more than one window
    assert np.allclose(
        found.model.predictions(many)[:, -400:], found.model.predictions(spam.frame), atol=1e-5
    )


def test_a_model_of_another_format_or_without_files_is_an_error(found: SearchResult, tmp_path: Path) -> None:
    found.model.save(tmp_path / "model")
    text = json.loads((tmp_path / "model" / "model.json").read_text())
    (tmp_path / "model" / "model.json").write_text(json.dumps(text | {"format": 99}))
    with pytest.raises(RunDirectoryError, match="format 99"):
        TrainedModel.load(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text("{")
    with pytest.raises(RunDirectoryError, match=r"model\.json"):
        TrainedModel.load(tmp_path / "model")
    (tmp_path / "model" / "model.json").write_text(json.dumps(text))
    (tmp_path / "model" / "weights.safetensors").unlink()
    with pytest.raises(RunDirectoryError, match=r"weights\.safetensors"):
        TrainedModel.load(tmp_path / "model")
    with pytest.raises(RunDirectoryError, match="there is no file"):
        TrainedModel.load(tmp_path / "nowhere")


@pytest.mark.parametrize(("rate", "stored_rate"), [(2.0, 2.0), (1e-30, 0.0)])
def test_models_of_version_0_1_0(spam: Problem, tmp_path: Path, rate: float, stored_rate: float) -> None:
    """Networks with a share of their inputs are readable: the scales of the other inputs are zero."""
    preprocessor = TablePreprocessor().fit(spam.frame)
    head = Head("regression", 1, location=(0.0,), scale=(1.0,), lower=(-9.0,), upper=(9.0,))
    config = MLPConfig(widths=(5,), input_scale_rate=rate)
    n_inputs = preprocessor.n_features_out_
    architecture = Architecture.of(config, DataShape(n_inputs, 1, columns=preprocessor.columns_))
    vector = torch.linspace(-0.1, 0.1, architecture.n_parameters)
    vector[: n_inputs // 2] = 0.0  # scales come first
    fold = fold_model(preprocessor.encoder_, head, [config], [vector])
    names = list(spam.frame.columns)
    model = TrainedModel("regression", None, (config,), (0,), np.ones(1), [fold], names)
    model.save(tmp_path)
    stored = json.loads((tmp_path / "model.json").read_text())
    removed = {"feature_share": 0.5, "input_scale_rate": stored_rate, "parametric_rate": 0.0}
    old = [{**stored["configs"][0], **removed}]
    (tmp_path / "model.json").write_text(json.dumps({**stored, "configs": old}))
    again = TrainedModel.load(tmp_path)
    assert again.configs == (config,)
    assert np.array_equal(again.predict(spam.frame), model.predict(spam.frame))
    old[0]["parametric_rate"] = 0.1
    (tmp_path / "model.json").write_text(json.dumps({**stored, "configs": old}))
    with pytest.raises(RunDirectoryError, match=r"parametric_rate .* but got 0\.1: use .* 0\.1\.0"):
        TrainedModel.load(tmp_path)


def test_predictions_of_a_fold_equal_those_of_its_shard(make_problem: Make) -> None:
    """Each embedding uses its own columns in training, in prediction and after loading."""
    frame = make_problem("diamonds", 120).frame
    frame.loc[::7, "depth"] = np.nan  # one more column, not a number
    frame["town"] = [f"town {number % 13}" for number in range(len(frame))]
    preprocessor = TablePreprocessor(numeric_bins=4, quantiles=True).fit(frame)
    inputs = torch.from_numpy(preprocessor.transform(frame))
    groups = preprocessor.columns_
    assert (groups.n_quantiles, groups.n_pieces, groups.n_numbers) == (6, 4 * 6, 6)
    head = Head("regression", 1, location=(0.0,), scale=(1.0,), lower=(-9.0,), upper=(9.0,))
    target = inputs[:, :1].T.contiguous()
    data = ShardData(
        rows=TrainingRows(inputs, target),
        validation_inputs=inputs,
        validation_target=target[0],
        validation_weight=None,
        prediction_inputs=inputs,
        head=head,
        loss="squared_error",
        metric=get_metric("rmse", "regression"),
        seed=0,
        columns=groups,
    )
    configs = [
        MLPConfig(
            widths=(5,),
            numeric_embedding=embedding,
            numeric_scaling=scaling,
            category_embedding=CATEGORY_EMBEDDINGS[seed % 2],
            batch_size=32,
            learning_rate=0.01,
            seed=seed,
        )
        for seed, embedding in enumerate(("none", "piecewise", "periodic", "periodic"))
        for scaling in ("common", "quantile")
    ]
    configs[3] = configs[3].replace(submembers=3, sharing="full")
    # the number of columns before the categories differs between the embeddings
    ends = [data.architecture(config) for config in (configs[2], configs[7])]
    assert [len(a.categories) for a in ends] == [1, 1]
    assert ends[0].categories[0][0] - ends[1].categories[0][0] == 4 * 6
    vectors, predictions = [], []
    for config in configs:
        task = ShardTask("one", (0,), (config,), (None,), data, 3.0, 3.0, keep=("best",))
        (member,) = train_shard(task).members
        assert member.state is not None
        vectors.append(member.state.vectors["best"])
        predictions.append(member.prediction)
    model = TrainedModel(
        "regression", None, tuple(configs), tuple(range(8)), np.full(8, 0.125),
        [fold_model(preprocessor.encoder_, head, configs, vectors)],
        list(frame.columns),
    )  # fmt: skip
    for number, prediction in enumerate(predictions):
        alone = replace(model, weights=np.eye(8)[number])
        np.testing.assert_allclose(alone.predictions(frame), prediction, rtol=1e-4, atol=1e-5)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        again = TrainedModel.load(Path(folder))
    assert np.array_equal(again.predict(frame), model.predict(frame))
