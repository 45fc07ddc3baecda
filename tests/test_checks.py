"""Checks of parameter values: each refuses what breaks its rule and returns plain Python objects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from parallelmlp_search._checks import (
    check_boolean,
    check_choice,
    check_finite,
    check_fraction,
    check_integer,
    check_non_negative,
    check_positive,
    check_seconds,
    is_number,
)
from parallelmlp_search.exceptions import InvalidParameterError


@pytest.mark.parametrize(
    ("checked", "expected"),
    [
        (check_choice("x", np.str_("relu"), ("relu", "tanh")), "relu"),
        (check_finite("x", np.float32(-2)), -2.0),
        (check_positive("x", 5e-324), 5e-324),
        (check_non_negative("x", 0), 0.0),
        (check_seconds("x", np.int64(90)), 90.0),
        (check_seconds("x", "1.5"), 1.5),
        (check_seconds("x", " 1H 30min "), 5400.0),
        (check_seconds("x", "1d2h3m4.5s"), 93784.5),
        (check_fraction("x", np.float64(0.0)), 0.0),
        (check_integer("x", np.int8(-3)), -3),
        (check_integer("x", 2.0, 2), 2),
        (check_integer("x", 10**400), 10**400),
        (check_boolean("x", np.bool_(False)), False),
    ],
)
def test_values_become_plain(checked: Any, expected: Any) -> None:
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("check", "value", "words"),
    [
        (
            lambda v: check_choice("x", v, ("relu", "tanh")),
            "rellu",
            "one of relu, tanh, but got 'rellu'; did",
        ),
        (lambda v: check_choice("x", v, ("relu", "tanh")), 3, "one of relu, tanh, but got 3"),
        (lambda v: check_finite("x", v), math.nan, "a finite number, but got nan"),
        (lambda v: check_finite("x", v), True, "a finite number, but got True"),
        (lambda v: check_positive("x", v), 0, "a finite number > 0, but got 0"),
        (lambda v: check_positive("x", v), math.inf, "a finite number > 0, but got inf"),
        (lambda v: check_non_negative("x", v), -1e-9, "a finite number >= 0, but got -1e-09"),
        (lambda v: check_fraction("x", v), 1.0, r"a number in \[0, 1\), but got 1\.0"),
        (lambda v: check_fraction("x", v), "0.5", r"a number in \[0, 1\), but got '0\.5'"),
        (lambda v: check_integer("x", v), 1.5, r"an integer, but got 1\.5"),
        (lambda v: check_integer("x", v), math.inf, "an integer, but got inf"),
        (lambda v: check_integer("x", v, 1), True, "an integer >= 1, but got True"),
        (lambda v: check_integer("x", v, 1), 0, "an integer >= 1, but got 0"),
        (lambda v: check_boolean("x", v), 1, "True or False, but got 1"),
    ],
)
def test_each_rule_names_parameter_and_value(check: Any, value: Any, words: str) -> None:
    with pytest.raises(InvalidParameterError, match=f"^x must be {words}"):
        check(value)


def test_booleans_are_not_numbers() -> None:
    assert is_number(np.int64(1))
    assert not any(is_number(value) for value in (True, np.bool_(True), "1", None, 1j))


@pytest.mark.parametrize(
    "value", [0, -1, "0m", "", "-5", "soon", "1h30", "30m1h", "1.2.3s", "inf", "nan", True, None, 10**400]
)
def test_what_is_no_duration(value: object) -> None:
    with pytest.raises(
        InvalidParameterError, match="x must be > 0 seconds or a duration such as '90s', '10m'"
    ):
        check_seconds("x", value)
