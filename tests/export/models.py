"""Models of random networks, and tables with every kind of column."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import torch
from numpy.typing import NDArray

from parallelmlp_search.data import TablePreprocessor, TargetCurve
from parallelmlp_search.data.categorical import CategoryEncoder
from parallelmlp_search.data.encoding import TableEncoder
from parallelmlp_search.data.means import CategoryMeans
from parallelmlp_search.inference import TrainedModel
from parallelmlp_search.inference.fold_model import architecture_of
from parallelmlp_search.packing import Head
from parallelmlp_search.search.finalists.model import fold_model
from parallelmlp_search.space import ACTIVATIONS, MLPConfig

CONFIGS = (
    MLPConfig(widths=(6, 5), activation="mish", numeric_embedding="none"),
    MLPConfig(widths=(6, 5), activation="mish", numeric_embedding="none", bias=True),
    MLPConfig(widths=(6, 5), activation="mish", numeric_embedding="none", target_transform="log"),
    MLPConfig(widths=(6, 5), activation="mish", numeric_embedding="none", target_transform="quantile"),
    MLPConfig(widths=(4,), submembers=3, target_transform="yeo_johnson"),
    MLPConfig(widths=(4,), submembers=3, category_embedding="learned", numeric_scaling="quantile"),
    MLPConfig(widths=(7, 7), residual=True, numeric_embedding="periodic", input_scale_rate=1.0),
    MLPConfig(widths=(8, 8), normalization="layer", numeric_embedding="piecewise", activation="gelu"),
    MLPConfig(widths=(8, 5), submembers=4, sharing="mini", normalization="layer", activation="silu"),
    MLPConfig(widths=(5,), submembers=2, numeric_embedding="periodic", category_embedding="learned"),
    MLPConfig(widths=(6,), target_encoding=True, category_embedding="learned", submembers=2),
    MLPConfig(widths=(6,), target_encoding=True, numeric_embedding="periodic"),
    *(MLPConfig(widths=(3,), activation=name, bias=False) for name in ACTIVATIONS),
)
"""Every kind of layer. The first two and the next two have the same shapes and are computed side by side."""

SIZES = {"binary": 2, "multiclass": 3, "multilabel": 4, "regression": 2}
"""Classes, labels or outputs of the models."""

TOLERANCE = 1e-5
"""Promised difference of a prediction, relative to the size of the predictions of a regression."""


def every_kind(n_rows: int = 240) -> pd.DataFrame:
    """Numbers, categories, booleans and dates, with missing values and infinities."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "x": rng.normal(size=n_rows),
            "offset": 1e9 + rng.integers(0, 20, n_rows),
            "ties": rng.integers(0, 3, n_rows).astype(float),
            "income": 1e3 * rng.lognormal(size=n_rows),
            "constant": 1.0,
            "town": rng.choice([f"town {number}" for number in range(12)], n_rows),
            "many": rng.choice([f"name {number}" for number in range(90)], n_rows),
            "size": rng.choice(["small", "medium", "large"], n_rows),
            "digit": pd.Categorical(rng.integers(0, 4, n_rows)),
            "flag": rng.random(n_rows) < 0.5,
            "yes": rng.choice(["no", "yes"], n_rows),
            "day": pd.Timestamp("2020-01-31")
            + pd.to_timedelta(rng.integers(-9000, 9000, n_rows), unit="D")
            + pd.to_timedelta(rng.integers(0, 86400, n_rows), unit="s"),
            "old": pd.Timestamp("1890-02-28") + pd.to_timedelta(rng.integers(0, 900, n_rows), unit="D"),
        }
    )
    frame.loc[::7, "x"] = np.nan
    frame.loc[::11, ["town", "many"]] = None
    frame.loc[::13, "day"] = pd.NaT
    frame.loc[3::50, "income"], frame.loc[4::50, "income"] = np.inf, -np.inf
    return frame


def new_rows() -> pd.DataFrame:
    """Rows of `every_kind` with unseen categories, other dates and extreme numbers."""
    frame = every_kind()
    frame.loc[5, "town"] = "unseen"
    frame.loc[6, "day"] = pd.Timestamp("1700-03-01")
    frame.loc[7, "day"] = pd.Timestamp("2096-02-29 23:59:59")
    frame.loc[8, ["offset", "x"]] = 1e200, -1e200
    frame.loc[9, ["x", "income"]] = np.inf, np.nan
    return frame


def random_means(encoder: TableEncoder, seed: int) -> dict[str, CategoryMeans]:
    """Means of the categories of some columns, two numbers each."""
    rng = np.random.default_rng(seed)
    columns = [(name, one) for name, one in encoder.columns.items() if name in ("town", "many", "size")]
    return {
        name: CategoryMeans(one.keys, rng.normal(size=(len(one.keys), 2)).astype(np.float32))
        for name, one in columns
        if isinstance(one, CategoryEncoder)
    }


def random_model(frame: pd.DataFrame, task: Any, n_folds: int = 3, **values: Any) -> TrainedModel:
    """A model of random networks whose folds were fitted on other rows; with ``shared`` on the same ones."""
    generator = torch.Generator().manual_seed(0)
    shared, kinds = values.pop("shared", False), values.pop("kinds", [None] * n_folds)
    configs: Sequence[MLPConfig] = values.pop("configs", CONFIGS)
    n_predictions = values.pop("n_predictions", SIZES[task])
    head = Head(task, n_predictions)
    folds: list[Any] = []
    for fold in range(n_folds):
        if task == "regression":
            lower, upper = [-0.5] * n_predictions, [0.5 + fold] * n_predictions
            head = Head(
                task, n_predictions, [1.0] * n_predictions, [2.0 + fold] * n_predictions, lower, upper
            )
        rows = frame.iloc[fold * 20 : len(frame) - 20 * (n_folds - fold)]
        preprocessor = TablePreprocessor(quantiles=True, numeric_bins=6, column_kinds=kinds[fold]).fit(rows)
        preprocessor = preprocessor.with_means(random_means(preprocessor.encoder_, fold))
        encoder = folds[0].encoder if shared and folds else preprocessor.encoder_
        sizes = [architecture_of(config, encoder, head).n_parameters for config in configs]
        vectors = [0.4 * torch.randn(size, generator=generator) for size in sizes]
        folds.append(fold_model(encoder, head, configs, vectors, _curves(task, configs, n_predictions, fold)))
    weights = np.random.default_rng(0).random(len(configs))
    classes = None if task == "regression" else np.array([f"class {k}" for k in range(n_predictions)])
    model = TrainedModel(
        task=task,
        classes=classes,
        configs=tuple(configs),
        trials=tuple(range(len(configs))),
        weights=weights / weights.sum(),
        folds=folds,
        feature_names=[str(name) for name in frame.columns],
        flat_target=n_predictions == 1,
        target_name="y",
    )
    return replace(model, **values)


def _curves(task: Any, configs: Sequence[MLPConfig], n_outputs: int, fold: int) -> tuple[Any, ...]:
    """Curves of the configurations whose target is transformed; those of the folds differ."""
    target = np.random.default_rng(fold).lognormal(size=(80, n_outputs))
    if task != "regression":
        return ()
    return tuple(
        None if one.target_transform == "none" else TargetCurve.fit(one.target_transform, target)
        for one in configs
    )


def with_log_link(model: TrainedModel) -> TrainedModel:
    """The model of a regression with outputs that are logarithms."""
    n_outputs = model.folds[0].head.n_predictions
    folds = [
        replace(
            fold,
            head=replace(
                fold.head, location=(0.0,) * n_outputs, lower=(0.01,) * n_outputs, upper=(9.0,) * n_outputs,
                link="log",
            ),
        )
        for fold in model.folds
    ]  # fmt: skip
    return replace(model, folds=folds)


PLAIN_CONFIGS = tuple(config for config in CONFIGS if config.target_transform == "none")
"""Configurations without a transformed target."""


def feeds(session: onnxruntime.InferenceSession, frame: pd.DataFrame) -> Mapping[str, NDArray[Any]]:
    """Inputs of an exported graph, as documented."""
    found = {}
    for one in session.get_inputs():
        column = frame[one.name]
        if one.type == "tensor(double)":
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
        elif one.type == "tensor(int64)":
            values = column.to_numpy(dtype="datetime64[s]").astype(np.int64)
        else:
            values = np.array(["" if pd.isna(cell) else str(cell) for cell in column], dtype=object)
        found[one.name] = values.reshape(-1, 1)
    return found


def session_of(path: Any) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options)
