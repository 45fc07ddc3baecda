"""Signs of columns in the option ``--monotonic``."""

from __future__ import annotations

import pytest

from parallelmlp_search.cli.column_types import parse_monotonic
from parallelmlp_search.exceptions import InvalidParameterError


def test_signs_of_columns() -> None:
    assert parse_monotonic(None) is None
    assert parse_monotonic(["age=+1,price=-1", '"a, b=c"=-', "x=0"]) == {
        "age": 1,
        "price": -1,
        "a, b=c": -1,
        "x": 0,
    }


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("age", "monotonic must be NAME=SIGN,... with the signs .1, -1 or 0, but got 'age'"),
        ("age=2", "but got 'age=2'"),
        ("=1", "but got '=1'"),
        ("age=1,age=-1", "monotonic sets two signs of 'age'"),
    ],
)
def test_other_texts_are_refused(option: str, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        parse_monotonic([option])
