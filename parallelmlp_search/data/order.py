"""Order of categories: words of a scale, ranges of numbers, and grades."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import NamedTuple

import pandas as pd

from parallelmlp_search.data.coercion import category_key

MIN_LEVELS, MAX_LEVELS = 3, 60
"""Least and most categories of a column whose order is recognised."""

MAX_LISTED = 7
"""Categories up to which all are named in the reason of a column."""

MAX_OTHERS = 1
"""Most categories without a place in the order, such as "none" or "unknown"."""


class CategoryOrder(NamedTuple):
    """Order of the categories of a column.

    Attributes
    ----------
    ranks
        Place of each category, from 0; categories without a place are left out.
    reason
        Evidence for the order, in words.
    """

    ranks: Mapping[str, int]
    reason: str

    @property
    def levels(self) -> list[str]:
        """Categories in their order."""
        return sorted(self.ranks, key=self.ranks.__getitem__)

    def describe(self, present: Container[str]) -> str:
        """Return the evidence and the order of the categories that are present."""
        return f"{self.reason}: {listed_levels([key for key in self.levels if key in present])}"


_SCALES: Mapping[str, Sequence[str]] = {
    # one rank per item; synonyms are separated by |
    "words of quality": (
        "worst|terrible|awful|very poor|very bad", "poor|po|bad", "fair|fa", "below average",
        "ta|typical|average|acceptable|ok|okay|medium|mediocre|satisfactory|regular|normal",
        "above average", "good|gd", "very good|great|better", "premium",
        "excellent|ex|ideal|outstanding|superb|best", "very excellent|perfect",
    ),
    "words of size": (
        "xxs|extra extra small", "xs|extra small|very small|tiny", "s|small|little",
        "m|medium|mid|middle|midsize",
        "l|large|big", "xl|extra large|very large|huge", "xxl|extra extra large", "xxxl",
    ),
    "words of degree": (
        "none|zero|absent", "very low|lowest|minimal|negligible", "low|lo|minor|slight|light",
        "low medium|medium low|moderately low",
        "medium|med|mid|middle|moderate|average|avg|normal|intermediate",
        "medium high|moderately high|elevated", "high|hi|major|strong|heavy",
        "very high|highest|severe", "extreme|extremely high|critical",
    ),
    "words of severity": (
        "none|absent", "trivial|minimal", "mild|minor|slight|low", "moderate|medium",
        "severe|serious|major|high",
        "critical|extreme|fatal",
    ),
    "words of frequency": (
        "never", "almost never|very rarely", "rarely|seldom|rare", "occasionally|sometimes|travel rarely",
        "often|frequently|usually|frequent", "very often|almost always|mostly", "always|daily",
    ),
    "words of agreement": (
        "strongly disagree|completely disagree", "disagree|somewhat disagree",
        "neutral|neither agree nor disagree|undecided", "agree|somewhat agree",
        "strongly agree|completely agree",
    ),
    "words of satisfaction": (
        "very dissatisfied|very unsatisfied", "dissatisfied|unsatisfied", "neutral", "satisfied",
        "very satisfied",
    ),
    "words of temperature": ("freezing|very cold", "cold", "cool", "mild", "warm", "hot", "very hot"),
    "words of speed": ("very slow", "slow", "medium|normal|moderate", "fast|quick", "very fast"),
    "words of rank": (
        "intern|trainee", "junior|entry|beginner|novice|entry level", "mid|middle|intermediate|mid level",
        "senior|advanced", "lead|expert|principal|executive|master",
    ),
    "words of value": (
        "free", "basic|economy|bronze|budget", "standard|silver|plus", "premium|gold|business|pro",
        "platinum|deluxe|first|enterprise", "diamond",
    ),
    "words of education": (
        "none|no schooling|uneducated", "preschool|kindergarten", "primary|elementary|primary school",
        "middle school|lower secondary|some high school",
        "secondary|high school|hs grad|upper secondary|secondary school", "some college|vocational",
        "associate|associates|associate degree",
        "bachelor|bachelors|undergraduate|graduation|college|graduate",
        "master|masters|postgraduate", "doctorate|phd|doctoral",
    ),
    "age groups": (
        "infant|baby|newborn", "toddler", "child|kid|children", "teen|teenager|adolescent|youth",
        "young|young adult", "adult|middle aged|middle age", "senior|elderly|old",
    ),
    "months": (
        "january|jan", "february|feb", "march|mar", "april|apr", "may", "june|jun", "july|jul", "august|aug",
        "september|sep|sept", "october|oct", "november|nov", "december|dec",
    ),
    "weekdays": (
        "monday|mon", "tuesday|tue|tues", "wednesday|wed", "thursday|thu|thur|thurs", "friday|fri",
        "saturday|sat", "sunday|sun",
    ),
    "ordinal numbers": (
        "first|1st|primary", "second|2nd|secondary", "third|3rd|tertiary", "fourth|4th", "fifth|5th",
        "sixth|6th", "seventh|7th", "eighth|8th", "ninth|9th", "tenth|10th", "11th", "12th",
    ),
}  # fmt: skip
_RANKS = {
    reason: {word: float(rank) for rank, words in enumerate(levels) for word in words.split("|")}
    for reason, levels in _SCALES.items()
}

_NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_DIGITS = r"(?:\d{1,3}(?:[.,]\d{3})+(?:[.,]\d+)?|\d+(?:[.,]\d+)?)"
_N = rf"[$€£]?\s?({_DIGITS}\s?(?:k|m|%)?)(?![a-z0-9])"
_UNIT = r"(?:\s*[a-z]+(?: [a-z]+)?)?"
_BETWEEN = r"(?:-|\u2013|\u2014|~|\.\.+|to|and|<=?\s*[a-z]+\s*<=?)"
_RANGE = re.compile(rf"(?:from |between )?{_N}{_UNIT}\s*{_BETWEEN}\s*{_N}{_UNIT}")
_INTERVAL = re.compile(rf"[\[(]\s*(-?){_N}\s*[,;]\s*(-?){_N}\s*[\])]")
_BELOW = re.compile(
    rf"(?:<=?|≤|under|below|less than|fewer than|up to|at most|until|[a-z]\s*<=?)\s*{_N}{_UNIT}"
    rf"|{_N}{_UNIT} (?:or|and) (?:less|fewer|under|below|younger)"
)
_ABOVE = re.compile(
    rf"(?:>=?|≥|over|above|more than|greater than|at least|from|[a-z]\s*>=?)\s*{_N}{_UNIT}"
    rf"|{_N}{_UNIT}\s*\+{_UNIT}|{_N}{_UNIT} (?:or|and) (?:more|over|above|older|up|greater)"
)
_EXACT = re.compile(rf"{_N}{_UNIT}")
_GRADE = re.compile(r"([a-z])([+-]{1,2})?")
_CODE = re.compile(r"([a-z]*)\s?(\d+)|([a-z])([+-]?)")
_GRADE_NAME = re.compile(r"grade|rating|rank|level|class|tier|quality|band|score|condition", re.IGNORECASE)


def find_order(keys: Sequence[str], name: str = "") -> CategoryOrder | None:
    """Return the order of the categories of a column, or None if nothing proves one.

    All categories but one must have a place in the same scale of words, ranges of numbers or grades.

    Parameters
    ----------
    keys
        Categories.
    name
        Name of the column. Single letters are grades if they have signs, or if the name says so.

    Returns
    -------
    CategoryOrder or None

    Examples
    --------
    >>> find_order(["Gd", "TA", "Fa", "Ex", "Po"]).levels
    ['Po', 'Fa', 'TA', 'Gd', 'Ex']
    >>> find_order(["20+ years", "<10", "10-20 years", "unknown"]).levels
    ['<10', '10-20 years', '20+ years']
    >>> find_order(["red", "green", "blue"]) is None
    True
    """
    if not MIN_LEVELS <= len(keys) <= MAX_LEVELS:
        return None
    for reason, places in _candidates(keys, name):
        order = _order(places, reason)
        if max(order.ranks.values(), default=0) + 1 >= MIN_LEVELS and len(keys) - len(places) <= MAX_OTHERS:
            return order
    return None


def set_order(keys: Sequence[str]) -> CategoryOrder | None:
    """Return the order of categories that a user has said to be ordered; None if it cannot be told.

    Half of the categories must have a place. Letters and codes such as ``A1`` are ordered too.
    """
    best: CategoryOrder | None = None
    for reason, places in _candidates(keys, None):
        if len(places) > (len(keys) // 2 if best is None else len(best.ranks)):
            best = _order(places, reason)
    return best


def order_of_column(column: pd.Series, keys: Sequence[str]) -> CategoryOrder | None:
    """Return the order of a column of kind ``ordinal``: that of its dtype, or that of its categories."""
    return dtype_order(column.dtype) or set_order(keys)


def dtype_order(dtype: object) -> CategoryOrder | None:
    """Return the order of an ordered categorical dtype of pandas, or None for another one."""
    if not (isinstance(dtype, pd.CategoricalDtype) and dtype.ordered):
        return None
    return CategoryOrder(
        {category_key(value): place for place, value in enumerate(dtype.categories)}, "ordered in the table"
    )


def _order(places: Mapping[str, float], reason: str) -> CategoryOrder:
    """Order by places, of which equal ones share a rank."""
    rank = {place: number for number, place in enumerate(sorted(set(places.values())))}
    return CategoryOrder({key: rank[place] for key, place in places.items()}, reason)


def _candidates(keys: Iterable[str], name: str | None) -> Iterable[tuple[str, dict[str, float]]]:
    """Places of the categories in each scale; without a name, letters are grades, and codes count."""
    words = {key: re.sub(r"[\s_]+", " ", key).strip().lower() for key in keys}
    for reason, ranks in _RANKS.items():
        yield reason, {key: ranks[found] for key, word in words.items() if (found := _plain(word)) in ranks}
    yield "ranges of numbers", _ranges(words)
    yield "grades", _placed(words, _grade) if _are_grades(words.values(), name) else {}
    if name is None:
        yield "codes", _placed(words, _code)


def _plain(word: str) -> str:
    return word.replace("-", " ").strip(" .")


def _placed(words: Mapping[str, str], place: Callable[[str], float | None]) -> dict[str, float]:
    found = ((key, place(word)) for key, word in words.items())
    return {key: value for key, value in found if value is not None}


def _ranges(words: Mapping[str, str]) -> dict[str, float]:
    """Places of ranges such as ``10-20``, ``<10`` and ``20+``; none if they overlap."""
    found = {key: one for key, word in words.items() if (one := _range(word)) is not None}
    inner = sorted(one for one in found.values() if -inf < one[0] < one[1] < inf)
    if any(after[0] < before[1] for before, after in pairwise(inner)):
        return {}
    if all(low == high for low, high in found.values()):
        return {}
    return {key: _middle(*one) for key, one in found.items()}


def _middle(low: float, high: float) -> float:
    """Place of a range; one without an end is just beyond its bound."""
    if low == -inf:
        return high - 1e-9 * max(1.0, abs(high))
    return low + 1e-9 * max(1.0, abs(low)) if high == inf else 0.5 * (low + high)


def _range(word: str) -> tuple[float, float] | None:
    """Ends of a range, which are equal for a single number."""
    for number, text in enumerate(_NUMBER_WORDS):
        word = re.sub(rf"\b{text}\b", str(number), word)
    if match := _INTERVAL.fullmatch(word):
        first, low, second, high = match.groups()
        ends = _number(low) * (-1.0 if first else 1.0), _number(high) * (-1.0 if second else 1.0)
        return ends if ends[0] < ends[1] else None
    if match := _RANGE.fullmatch(word):
        low, high = match.groups()
        return (_number(low), _number(high)) if _number(low) < _number(high) else None
    for pattern in (_BELOW, _ABOVE, _EXACT):
        if match := pattern.fullmatch(word):
            value = _number(next(text for text in match.groups() if text))
            return -inf if pattern is _BELOW else value, inf if pattern is _ABOVE else value
    return None


def _number(text: str) -> float:
    """Value of a number with grouped digits, a decimal sign, thousands or millions."""
    factor = {"k": 1e3, "m": 1e6}.get(text[-1], 1.0)
    digits = re.sub(r"[.,](?=\d{3}(?:\D|$))", "", text.strip(" km%"))
    return factor * float(re.sub(r",", ".", digits, count=1).replace(",", ""))


def _are_grades(words: Iterable[str], name: str | None) -> bool:
    """Return True for letters with signs, and for the first letters in a column that is named like grades."""
    grades = [match for word in words if (match := _GRADE.fullmatch(word))]
    letters = {match[1] for match in grades}
    if any(match[2] for match in grades):
        return letters <= set("abcdef")
    is_run = len(letters) == 1 + ord(max(letters, default="a")) - ord(min(letters, default="a"))
    return is_run and (name is None or bool(_GRADE_NAME.search(name)))


def _grade(word: str) -> float | None:
    """Place of a letter grade; ``A+`` comes before ``A``, so the best grade has the highest place."""
    match = _GRADE.fullmatch(word)
    if match is None:
        return None
    sign = match[2] or ""
    return -float(ord(match[1])) + 0.2 * sign.count("+") - 0.2 * (len(sign) - sign.count("+"))


def _code(word: str) -> float | None:
    """Place of a letter, a number, or letters and a number."""
    match = _CODE.fullmatch(word)
    if match is None:
        return None
    letters = match[1] or match[3] or ""
    place = 0.0
    for letter in letters[:4]:
        place = 27.0 * place + ord(letter) - ord("a") + 1
    return place * 1e9 + float(match[2] or 0)


def listed_levels(levels: Sequence[str]) -> str:
    """Return ordered categories in words, without those in the middle of many.

    >>> listed_levels(["low", "medium", "high"])
    'low < medium < high'
    """
    shown = levels if len(levels) <= MAX_LISTED else [*levels[: MAX_LISTED - 2], "…", levels[-1]]
    return " < ".join(shown)
