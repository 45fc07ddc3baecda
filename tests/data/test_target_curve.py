"""Curves of transformed targets against scikit-learn, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.preprocessing import PowerTransformer, QuantileTransformer

from parallelmlp_search.data.target_curve import MAPS, N_KNOTS, TargetCurve, residual_points

TRANSFORMS = tuple(MAPS)


def lognormal(n_rows: int = 2000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).lognormal(3.0, 1.0, n_rows)


def standardized(z: np.ndarray) -> np.ndarray:
    return (z - z.mean()) / z.std()


class TestTransformations:
    def test_the_logarithm_of_a_positive_target(self) -> None:
        y = lognormal()
        found = TargetCurve.fit("log", y).encode(y[None])[0]
        np.testing.assert_allclose(found, standardized(np.log(y)), atol=2e-3)

    def test_counts_with_zeros_are_shifted_by_one(self) -> None:
        y = np.random.default_rng(0).poisson(3.0, 1000).astype(float)
        found = TargetCurve.fit("log", y).encode(y[None])[0]
        np.testing.assert_allclose(found, standardized(np.log1p(y)), atol=2e-3)

    def test_the_logarithm_of_negative_values_counts_from_the_least(self) -> None:
        y = lognormal() - 50.0
        curve = TargetCurve.fit("log", y)
        np.testing.assert_allclose(curve.decode(curve.encode(y[None]))[0], y, rtol=1e-3, atol=1e-3 * y.std())

    def test_yeo_johnson_is_that_of_scikit_learn_in_robust_units(self) -> None:
        y = np.concatenate([lognormal(), -0.2 * lognormal(500, 1)])
        lower, middle, upper = np.quantile(y, [0.25, 0.5, 0.75])
        expected = PowerTransformer().fit_transform(((y - middle) / (upper - lower))[:, None])[:, 0]
        np.testing.assert_allclose(TargetCurve.fit("yeo_johnson", y).encode(y[None])[0], expected, atol=0.01)

    def test_quantiles_are_those_of_scikit_learn_without_their_extremes(self) -> None:
        y = lognormal()
        scores = QuantileTransformer(n_quantiles=1000, output_distribution="normal").fit_transform(y[:, None])
        found = TargetCurve.fit("quantile", y).encode(y[None])[0]
        inside = np.abs(scores[:, 0]) < 2.0
        np.testing.assert_allclose(found[inside], scores[inside, 0], atol=0.02)
        assert np.abs(scores).max() > 5.0  # outliers, which the loss would follow
        assert np.abs(found).max() < 4.0

    def test_many_equal_values_get_their_mean_rank(self) -> None:
        y = np.concatenate([np.zeros(300), lognormal(700)])
        found = TargetCurve.fit("quantile", y).encode(y[None])[0]
        assert len(np.unique(found[:300])) == 1
        # the normal quantile of 0.15, standardized
        assert found[0] == pytest.approx(-1.04, abs=0.2)

    def test_each_output_has_its_own_curve(self) -> None:
        y = np.stack([lognormal(), 10.0 * lognormal(seed=1)], axis=1)
        both = TargetCurve.fit("log", y)
        for place in range(2):
            alone = TargetCurve.fit("log", y[:, place])
            np.testing.assert_array_equal(both.values[place], alone.values[0])
        assert not np.array_equal(both.values[0], both.values[1])

    def test_weights_standardize(self) -> None:
        y, weight = lognormal(), np.random.default_rng(1).integers(0, 3, 2000).astype(float)
        curve = TargetCurve.fit("log", y, weight)
        z = curve.encode(y[None])[0]
        assert np.average(z, weights=weight) == pytest.approx(0.0, abs=1e-3)
        assert np.average(np.square(z), weights=weight) == pytest.approx(1.0, abs=1e-2)


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(
        st.sampled_from(TRANSFORMS),
        arrays(np.float64, st.integers(1, 40), elements=st.floats(-1e9, 1e9, allow_subnormal=False)),
    )
    def test_any_target(self, transform: str, y: np.ndarray) -> None:
        curve = TargetCurve.fit(transform, y)
        assert curve.values.shape == (1, N_KNOTS)
        assert (curve.step > 0).all()
        assert (np.diff(curve.values[0]) >= 0).all()
        assert np.isfinite(curve.encode(y[None])).all()
        wide = np.linspace(-1e6, 1e6, 50)[None]
        decoded = curve.decode(wide)[0]
        assert decoded.min() >= y.min()
        assert decoded.max() <= y.max()
        assert (np.diff(decoded) >= 0).all()

    @pytest.mark.parametrize("transform", TRANSFORMS)
    def test_decoding_inverts_encoding(self, transform: str) -> None:
        y = lognormal()
        curve = TargetCurve.fit(transform, y)
        found = curve.decode(curve.encode(y[None]))[0]
        np.testing.assert_allclose(found, y, rtol=1e-6)
        assert np.isnan(curve.decode(np.array([[np.nan]]))).all()

    @pytest.mark.parametrize("transform", TRANSFORMS)
    def test_extreme_magnitudes(self, transform: str) -> None:
        for unit in (1e-200, 1e200):
            y = unit * lognormal(300)
            curve = TargetCurve.fit(transform, y)
            np.testing.assert_allclose(curve.decode(curve.encode(y[None]))[0], y, rtol=1e-6)

    def test_a_constant_target(self) -> None:
        curve = TargetCurve.fit("log", np.full(5, 7.0))
        assert (curve.decode(np.array([[-3.0, 0.0, 3.0]])) == 7.0).all()

    def test_arrays_restore_a_curve(self) -> None:
        curve = TargetCurve.fit("log", lognormal())
        again = TargetCurve.from_array(curve.to_array())
        outputs = np.linspace(-5, 5, 100)[None]
        np.testing.assert_array_equal(again.decode(outputs), curve.decode(outputs))
        with pytest.raises(ValueError, match="step"):
            TargetCurve.from_array(np.zeros((1, 10)))


class TestSmearing:
    def test_the_mean_of_a_log_normal_target_is_predicted_without_bias(self) -> None:
        rng = np.random.default_rng(0)
        signal, noise = rng.normal(size=20_000), 0.8 * rng.normal(size=20_000)
        curve = TargetCurve.fit("log", np.exp(signal + noise))
        deviation = (signal + noise).std()
        outputs = ((signal - (signal + noise).mean()) / deviation)[None]
        points = residual_points((noise / deviation)[None])
        truth = np.exp(signal + 0.5 * 0.8**2)
        inside = np.abs(signal) < 2
        plain, smeared = (one.decode(outputs)[0][inside] for one in (curve, curve.smeared(points)))
        assert smeared.mean() == pytest.approx(truth[inside].mean(), rel=0.02)
        assert plain.mean() < 0.8 * truth[inside].mean()

    def test_the_curve_is_the_mean_over_the_residuals(self) -> None:
        curve = TargetCurve.fit("yeo_johnson", lognormal())
        points = np.array([[-0.7, 0.0, 0.31, 55.0]])
        expected = np.mean([curve.decode(curve.knots + one) for one in points[0]], axis=0)
        np.testing.assert_allclose(curve.smeared(points).values, expected, rtol=1e-9)
        assert curve.smeared(None) is curve

    def test_residuals_of_a_network_that_diverged(self) -> None:
        curve = TargetCurve.fit("log", lognormal())
        for value in (np.nan, np.inf):
            assert np.isnan(curve.smeared(np.array([[0.0, value]])).values).all()

    def test_whole_weights_repeat_rows(self) -> None:
        rng = np.random.default_rng(0)
        residuals, weight = rng.normal(size=(2, 400)), rng.integers(0, 4, 400)
        repeated = np.repeat(residuals, weight, axis=1)
        found = residual_points(residuals, weight.astype(np.float32))
        np.testing.assert_allclose(found, residual_points(repeated), atol=0.03)
        assert not np.allclose(found, residual_points(residuals), atol=0.03)

    def test_one_residual(self) -> None:
        assert (residual_points(np.array([[0.25]])) == 0.25).all()
