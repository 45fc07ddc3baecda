"""Mean targets of categories, against the target encoder of scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import TargetEncoder

from parallelmlp_search.data import TablePreprocessor
from parallelmlp_search.data.means import SMOOTHING, CategoryMeans, MeanStatistics

N, N_LEVELS, N_BLOCKS = 900, 40, 5
RNG = np.random.default_rng(0)
CODES = np.minimum(RNG.geometric(0.07, N) - 1, N_LEVELS - 1)
BLOCKS = RNG.permutation(N) % N_BLOCKS
TARGETS: dict[str, Any] = {
    "continuous": RNG.normal(size=N) + 0.1 * CODES,
    "binary": (RNG.random(N) < 1 / (1 + np.exp(0.1 * CODES - 1))).astype(int),
    "multiclass": RNG.integers(0, 3, N),
}


def outputs_of(kind: str) -> np.ndarray:
    target = TARGETS[kind]
    if kind == "continuous":
        return target[:, None]
    return target[:, None] == (np.array([1]) if kind == "binary" else np.arange(3))


def statistics(kind: str, **values: Any) -> MeanStatistics:
    return MeanStatistics.of(CODES, N_LEVELS, outputs_of(kind), BLOCKS, **values)


@pytest.mark.parametrize("kind", TARGETS)
def test_means_are_those_of_scikit_learn(kind: str) -> None:
    found = statistics(kind)
    encoder = TargetEncoder(smooth=SMOOTHING, target_type=kind)
    encoder.fit(CODES[:, None], TARGETS[kind])
    own, _ = found.means()
    np.testing.assert_allclose(own[CODES], encoder.transform(CODES[:, None]), rtol=1e-12)


@pytest.mark.parametrize("kind", TARGETS)
def test_cross_fitted_rows_are_those_of_encoders_of_the_other_blocks(kind: str) -> None:
    found = statistics(kind)
    others, _ = found.means(without=True)
    for block in range(N_BLOCKS):
        held = block == BLOCKS
        encoder = TargetEncoder(smooth=SMOOTHING, target_type=kind).fit(
            CODES[~held, None], TARGETS[kind][~held]
        )
        np.testing.assert_allclose(
            others[block, CODES[held]], encoder.transform(CODES[held, None]), rtol=1e-9
        )
    own, crossed = found.fitted()
    assert not np.allclose(crossed[BLOCKS, CODES], own[CODES], atol=1e-2)


@pytest.mark.parametrize("kind", TARGETS)
def test_no_row_sees_its_own_block(kind: str) -> None:
    row = int(np.argmax(CODES == 3))
    outputs = outputs_of(kind).copy()
    before = statistics(kind).scores(without=True)
    outputs[row] = ~outputs[row] if outputs.dtype == bool else outputs[row] + 5.0
    after = MeanStatistics.of(CODES, N_LEVELS, outputs, BLOCKS).scores(without=True)
    mine = BLOCKS[row]
    np.testing.assert_allclose(after[mine], before[mine], atol=1e-12)
    assert not np.allclose(after[(mine + 1) % N_BLOCKS, 3], before[(mine + 1) % N_BLOCKS, 3])


def test_weights_count_as_repeated_rows() -> None:
    weight = RNG.integers(1, 4, N).astype(float)
    times = weight.astype(int)
    outputs = outputs_of("binary")
    weighted = MeanStatistics.of(CODES, N_LEVELS, outputs, BLOCKS, weight).fitted()
    repeated = MeanStatistics.of(
        CODES.repeat(times), N_LEVELS, outputs.repeat(times, axis=0), BLOCKS.repeat(times)
    ).fitted()
    for one, other in zip(weighted, repeated, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_numbers_are_of_moderate_size_and_finite() -> None:
    for outputs in (
        np.ones((N, 1), dtype=bool),
        np.zeros((N, 2)),
        np.eye(N, 3, dtype=bool),
        1e30 * RNG.random((N, 1)),
    ):
        own, others = MeanStatistics.of(CODES, N_LEVELS, outputs, BLOCKS).fitted()
        assert np.isfinite(own).all()
        assert np.isfinite(others).all()
        assert np.abs(own).max() <= 3.0


def test_missing_and_unseen_categories_are_zero_and_files_keep_every_bit() -> None:
    codes = np.where(CODES == 0, -1, CODES)
    own, _ = MeanStatistics.of(codes, N_LEVELS, outputs_of("multiclass"), BLOCKS).fitted()
    means = CategoryMeans(tuple(f"c{code}" for code in range(N_LEVELS)), own)
    frame = pd.DataFrame({"c": [f"c{code}" for code in CODES], "x": RNG.normal(size=N)})
    preprocessor = TablePreprocessor().fit(frame).with_means({"c": means})
    assert list(preprocessor.get_feature_names_out()[-3:]) == ["c__mean", "c__mean1", "c__mean2"]
    new = frame.head(30).assign(c=[None, "unseen", *frame["c"][2:30]])
    encoded = preprocessor.transform(new)
    assert not encoded[:2, -3:].any()
    np.testing.assert_array_equal(encoded[2:, -3:], own[CODES[2:30]])
    again = TablePreprocessor.from_dict(json.loads(json.dumps(preprocessor.to_dict())))
    np.testing.assert_array_equal(again.transform(new), encoded)
    assert again.columns_.n_means == 3
