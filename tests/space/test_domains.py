"""Domains: values stay inside, `quantile` and `unit` are inverse, and files round-trip."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import Categorical, Domain, Float, Int, When, domain_from_dict

UNIT = st.floats(0.0, 1.0, exclude_max=True)
SEEDS = st.integers(0, 2**32 - 1)
CONDITIONS = st.none() | st.builds(When, st.just("depth"), at_least=st.integers(0, 5))


@st.composite
def floats(draw: st.DrawFn) -> Float:
    log = draw(st.booleans())
    low = draw(st.floats(1e-8, 1e3) if log else st.floats(-1e3, 1e3))
    high = low + draw(st.floats(0.0, 1e3))
    step = None if log else draw(st.none() | st.floats(1e-2, 10.0))
    return Float(low, high, log=log, step=step, when=draw(CONDITIONS))


@st.composite
def ints(draw: st.DrawFn) -> Int:
    log = draw(st.booleans())
    low = draw(st.integers(1, 50) if log else st.integers(-50, 50))
    return Int(
        low,
        low + draw(st.integers(0, 200)),
        log=log,
        step=1 if log else draw(st.integers(1, 7)),
        when=draw(CONDITIONS),
    )


SCALARS = (
    st.text(max_size=3)
    | st.integers(-9, 9)
    | st.floats(-5, 5)
    | st.none()
    | st.lists(st.integers(1, 9)).map(tuple)
)
CATEGORICALS = st.builds(Categorical, st.lists(SCALARS, min_size=1, max_size=8, unique=True), when=CONDITIONS)
DOMAINS = floats() | ints() | CATEGORICALS


@given(DOMAINS, UNIT)
def test_quantiles_are_inside_and_unit_is_the_inverse(domain: Domain, u: float) -> None:
    value = domain.quantile(u)
    assert domain.contains(value)
    back = domain.unit(value)
    assert 0.0 <= back < 1.0
    again = domain.quantile(back)
    if math.isinf(domain.n_values):
        assert again == pytest.approx(value, rel=1e-9, abs=1e-9)
    else:
        assert again == value


@given(DOMAINS, SEEDS)
def test_samples_and_neighbours_stay_inside(domain: Domain, seed: int) -> None:
    rng = np.random.default_rng(seed)
    value = domain.sample(rng)
    assert domain.contains(value)
    for scale in (1e-3, 0.2, 5.0):
        other = domain.neighbour(value, rng, scale)
        assert domain.contains(other)
        if 1 < domain.n_values < math.inf:
            assert other != value


@given(DOMAINS, st.integers(1, 12))
def test_grids_are_inside_distinct_and_at_most_n_long(domain: Domain, n: int) -> None:
    grid = domain.grid(n)
    assert grid
    assert all(domain.contains(value) for value in grid)
    assert len(set(grid)) == len(grid)
    if isinstance(domain, Categorical):
        assert tuple(grid) == domain.choices
    else:
        assert len(grid) <= n
        if n > 1:
            assert isinstance(domain, Float | Int)
            assert grid[0] == domain.low


@given(DOMAINS)
def test_full_grids_have_as_many_values_as_the_domain(domain: Domain) -> None:
    assume(domain.n_values < 1_000)
    grid = domain.grid()
    assert len(grid) == len(set(grid)) == domain.n_values
    assert all(domain.contains(value) for value in grid)


@given(DOMAINS)
def test_dicts_round_trip(domain: Domain) -> None:
    assert domain_from_dict(json.loads(json.dumps(domain.to_dict()))) == domain
    assert hash(domain_from_dict(domain.to_dict())) == hash(domain)


@given(DOMAINS)
def test_the_representation_evaluates_to_the_domain(domain: Domain) -> None:
    names: dict[str, Any] = {"Float": Float, "Int": Int, "Categorical": Categorical, "When": When}
    assert eval(repr(domain), names) == domain


@given(ints(), st.integers(-100, 300))
def test_an_integer_is_inside_exactly_if_the_grid_holds_it(domain: Int, value: int) -> None:
    assert domain.contains(value) == (value in domain.grid())


def test_ends_are_reached() -> None:
    below_one = math.nextafter(1.0, 0.0)
    assert Float(0.0, 1.0).grid(3) == [0.0, 0.5, 1.0]
    assert Float(1e-4, 1e-2, log=True).grid(3) == pytest.approx([1e-4, 1e-3, 1e-2])
    assert Float(0.0, 0.3, step=0.1).grid() == [0.0, 0.1, 0.2, 0.3]
    assert len(set(Float(1e9, 1e9 + 0.0105, step=1e-3).grid())) == 11  # rounding must not merge neighbours
    assert Float(0.1, 0.35, step=0.1).quantile(below_one) == 0.3
    assert Int(1, 9, step=3).grid() == [1, 4, 7]
    assert Int(1, 100).grid(2) == [1, 100]
    for domain in (Int(3, 1_000_003), Int(1, 4096, log=True)):
        assert domain.quantile(0.0) == domain.low
        assert domain.quantile(below_one) == domain.high


def test_samples_are_spread_evenly() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount([Int(0, 4).sample(rng) for _ in range(5_000)], minlength=5)
    assert counts.min() > 900  # 1000 expected, standard deviation 28
    drawn = [Float(1e-4, 1.0, log=True).sample(rng) for _ in range(4_000)]
    assert np.mean(np.array(drawn) < 1e-2) == pytest.approx(0.5, abs=0.04)
    # Without the logarithm the share is near 1 %.
    drawn = [Float(1e-4, 1.0).sample(rng) for _ in range(4_000)]
    assert np.mean(np.array(drawn) < 1e-2) < 0.03
    small = sum(Int(1, 100, log=True).sample(rng) <= 10 for _ in range(2_000)) / 2_000
    assert small == pytest.approx(math.log(21) / math.log(201), abs=0.05)


def test_the_scale_sets_the_size_of_moves() -> None:
    rng = np.random.default_rng(0)
    domain = Float(0.0, 1.0)
    near = [abs(domain.neighbour(0.5, rng, 0.01) - 0.5) for _ in range(300)]
    far = [abs(domain.neighbour(0.5, rng, 0.5) - 0.5) for _ in range(300)]
    assert max(near) < 0.05
    assert np.mean(far) > 0.15
    steps = {
        abs(Categorical((1, 2, 4, 8, 16)).index_of(v) - 2) for v in _moves(Categorical((1, 2, 4, 8, 16)), 4)
    }
    assert steps == {1}  # ordered numbers move to the next one
    assert set(_moves(Categorical(("a", "b", "c")), "b")) == {"a", "c"}


def _moves(domain: Categorical, value: object) -> list[Any]:
    rng = np.random.default_rng(0)
    return [domain.neighbour(value, rng, 1e-6) for _ in range(60)]


def test_true_and_one_differ() -> None:
    assert Categorical((1, True)).n_values == 2
    assert not Categorical((1, 2)).contains(True)
    assert not Int(0, 3).contains(True)
    assert not Float(0, 3).contains(True)
    assert Int(0, 3).contains(2.0)
    assert not Int(0, 3).contains(2.5)
    assert Categorical(([8, 8], [16])).contains([8, 8])
    assert not Float(0.0, 1.0, step=0.5).contains(math.inf)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Float(2, 1), r"low must be <= high, but got low=2\.0 and high=1\.0"),
        (lambda: Float(0, 1, log=True), r"low must be > 0 where log is True, but got 0\.0"),
        (lambda: Float(1, 2, log=True, step=0.5), "step must be left out"),
        (lambda: Float(1, 2, step=-1), r"step must be a finite number > 0, but got -1"),
        (lambda: Float(math.nan, 1), "low must be a finite number, but got nan"),
        (lambda: Float("a", 1), "low must be a finite number, but got 'a'"),  # type: ignore[arg-type]
        (lambda: Float(1, 2, log="yes"), "log must be True or False"),  # type: ignore[arg-type]
        (lambda: Int(1.5, 2), r"low must be an integer, but got 1\.5"),  # type: ignore[arg-type]
        (lambda: Int(1, 5, step=0), "step must be an integer >= 1, but got 0"),
        (lambda: Int(1, 5, log=True, step=2), "step must be left out"),
        (lambda: Categorical(()), "choices must hold at least one value"),
        (lambda: Categorical((1, 1.0)), r"choices must all differ, but got 1\.0 twice"),
        (lambda: Categorical("abc"), "choices must be a list"),  # type: ignore[arg-type]
        (lambda: Categorical((object(),)), "choices must hold strings"),
        (lambda: Float(0, 1).quantile(1.0), r"u must be in \[0, 1\), but got 1\.0"),
        (lambda: Float(0, 1).unit(2.0), r"value must belong to Float\(low=0\.0, high=1\.0\), but got 2\.0"),
        (lambda: Categorical(("a",)).unit("b"), "but got 'b'"),
        (lambda: Float(0, 1).grid(), "resolution must be given"),
        (lambda: Int(0, 1).grid(0), "resolution must be >= 1, but got 0"),
        (lambda: Int(0, 5).neighbour(1, np.random.default_rng(0), 0.0), "scale must be > 0"),
        (lambda: domain_from_dict({"type": "flot", "low": 1, "high": 2}), "did you mean 'float'"),
        (lambda: domain_from_dict({"type": "int", "lo": 1, "high": 2}), "no key 'lo'; did you mean 'low'"),
        (lambda: domain_from_dict({"type": "int", "low": 1}), "must have the key 'high'"),
        (lambda: domain_from_dict({"low": 1, "high": 2}), "type must be one of float, int, categorical"),
    ],
)
def test_each_rule_names_parameter_and_value(build: Any, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        build()


def test_short_forms() -> None:
    assert domain_from_dict(["a", None]) == Categorical(("a", None))
    assert domain_from_dict(3) == Categorical((3,))
    assert domain_from_dict({"choices": [[8], [8, 8]]}) == Categorical(((8,), (8, 8)))
