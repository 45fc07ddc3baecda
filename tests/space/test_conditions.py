"""`When`: values that fulfil a condition, and invalid conditions."""

from __future__ import annotations

from typing import Any

import pytest

from parallelmlp_search.exceptions import InvalidParameterError
from parallelmlp_search.space import When


@pytest.mark.parametrize(
    ("condition", "holds", "fails"),
    [
        (When("depth", at_least=2), [2, 3, 2.0], [1, 0, "3", True, None]),
        (When("depth", at_most=2), [2, -1], [3, None]),
        (When("depth", at_least=2, at_most=3), [2, 3], [1, 4]),
        (When("optimizer", equals="sgd"), ["sgd"], ["adamw", None]),
        (When("clip_norm", equals=None), [None], [0, 1.0, False]),
        (When("bias", equals=True), [True], [1, False]),
        (When("widths", among=([8], [8, 8])), [(8,), (8, 8)], [(16,)]),
    ],
)
def test_holds(condition: When, holds: list[Any], fails: list[Any]) -> None:
    assert all(condition.holds(value) for value in holds)
    assert not any(condition.holds(value) for value in fails)
    assert When.from_dict(condition.to_dict()) == condition
    assert hash(When.from_dict(condition.to_dict())) == hash(condition)
    assert eval(repr(condition), {"When": When}) == condition


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: When("depth"), "exactly one of equals, among and bounds"),
        (lambda: When("depth", equals=1, at_least=1), "exactly one of"),
        (lambda: When("optimizer", among="sgd"), "among must be a list of values, but got 'sgd'"),
        (lambda: When("depth", at_least="2"), "at_least must be a number, but got '2'"),  # type: ignore[arg-type]
        (
            lambda: When.from_dict({"name": "depth", "at_leat": 2}),
            "no key 'at_leat'; did you mean 'at_least'",
        ),
        (lambda: When.from_dict({"at_least": 2}), "must be a mapping with the key 'name'"),
        (lambda: When.from_dict("depth"), "but got 'depth'"),
    ],
)
def test_each_rule_names_parameter_and_value(build: Any, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=words):
        build()
