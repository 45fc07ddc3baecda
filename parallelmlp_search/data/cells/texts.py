"""Free text in cells: hashed n-grams of characters, weighted by rarity and reduced to a few numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from parallelmlp_search._checks import check_array
from parallelmlp_search.data.cells.base import Candidate, Cells, example
from parallelmlp_search.data.cells.units import is_missing
from parallelmlp_search.data.coercion import Floats, as_codes, category_key

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

N_HASHES = 1 << 11
"""Number of hashed n-grams."""

N_NUMBERS = 16
"""Numbers that a text becomes, apart from its length."""

MIN_WORDS = 3.0
"""Minimum mean number of words of a column of texts."""

MIN_DISTINCT_SHARE = 0.2
"""Minimum share of distinct values of a column of texts; below, they are categories."""

MIN_DISTINCT = 30
"""Minimum number of distinct texts."""

MIN_NAMED_SHARE = 0.5
"""Minimum share of texts that are distinct without their numbers."""

FIT_TEXTS = 20_000
"""Most distinct texts to which the reduction is fitted."""

MAX_CHARACTERS = 2000
"""Characters of a text that are read."""

_DECIMALS = 6  # of what is stored, so that a model that is read again predicts the same
_NO_LETTERS = re.compile(r"[\W\d_]+")
_WORDS = re.compile(r"[^\W\d_]{2,}")
_IDEOGRAPHS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


@dataclass(frozen=True, eq=False)
class TextCells:
    """Reader of texts.

    N-grams of three to five characters are hashed, weighted by tf-idf, and reduced by a truncated singular
    value decomposition (latent semantic analysis).

    Parameters
    ----------
    rarity
        Weight of each hash, of shape (N_HASHES,).
    components
        Directions of the reduction, of shape (k, N_HASHES).
    """

    rarity: Floats
    components: Floats
    form: ClassVar[str] = "texts"

    @property
    def kind(self) -> str:
        """Kind of the column."""
        return "text"

    @property
    def treatment(self) -> str:
        """Short description of the result."""
        return f"length, {len(self.components)} numbers of n-grams"

    def read(self, column: pd.Series) -> dict[str, Any]:
        """Return the length of each text and its place in the reduced space; NaN for a missing text."""
        codes, values = as_codes(column)
        texts = [category_key(value) for value in values]
        numbers = np.full((len(texts) + 1, 1 + len(self.components)), np.nan)
        present = [place for place, text in enumerate(texts) if not is_missing(text)]
        if present:
            chosen = [texts[place] for place in present]
            numbers[present, 0] = [np.log1p(len(text)) for text in chosen]
            numbers[present, 1:] = self._reduced(_counts(chosen))
        rows = numbers[codes]
        # texts that are missing are marked once, by their length
        rows[:, 1:] = np.nan_to_num(rows[:, 1:])
        return {"length": rows[:, 0], **{str(k): rows[:, k] for k in range(1, rows.shape[1])}}

    def unreadable(self, column: pd.Series) -> npt.NDArray[np.bool_]:
        """Return no row: every value can be read as a text."""
        return np.zeros(len(column), dtype=bool)

    def _reduced(self, counts: csr_matrix) -> Floats:
        reduced: Floats = _weighted(counts, self.rarity) @ self._directions
        return reduced

    @cached_property
    def _directions(self) -> Floats:
        return np.ascontiguousarray(self.components.T)

    def to_dict(self) -> dict[str, Any]:
        """Return a form that JSON can hold."""
        return {"rarity": self.rarity.tolist(), "components": self.components.tolist()}

    @classmethod
    def from_dict(cls, state: Mapping[str, Any]) -> TextCells:
        """Inverse of `to_dict`."""
        return cls(
            check_array("rarity", state["rarity"], (N_HASHES,)),
            check_array("components", state["components"], (None, N_HASHES)),
        )

    @classmethod
    def fit(cls, texts: Sequence[str]) -> TextCells:
        """Fit to distinct texts."""
        from sklearn.decomposition import TruncatedSVD

        step = max(1, -(-len(texts) // FIT_TEXTS))
        counts = _counts(texts[::step])
        n_texts = counts.shape[0]
        holding = np.bincount(counts.indices, minlength=N_HASHES)
        rarity = np.round(np.log((1 + n_texts) / (1 + holding)) + 1.0, _DECIMALS)
        n_numbers = min(N_NUMBERS, n_texts - 1)
        reduction = TruncatedSVD(n_numbers, n_iter=4, random_state=0).fit(_weighted(counts, rarity))
        return cls(rarity, np.round(reduction.components_, _DECIMALS))


def fit_texts(cells: Cells) -> Candidate | None:
    """Return a reader of texts if most values are sentences and differ, else None."""
    if len(cells.values) < MIN_DISTINCT or len(cells.values) < MIN_DISTINCT_SHARE * cells.n_present:
        return None
    sample = cells.sample()
    if not all(isinstance(value, str) for value in sample.values):
        return None
    words = float(np.mean([_n_words(value) for value in sample.texts]))
    # numbered names such as "visit at store 17" differ by their numbers alone
    without_numbers = {_NO_LETTERS.sub("", value) for value in sample.texts}
    if words < MIN_WORDS or len(without_numbers) < MIN_NAMED_SHARE * len(sample.values):
        return None
    return force_texts(cells)


def force_texts(cells: Cells) -> Candidate | None:
    """Return a reader of texts for any column with at least two values."""
    if len(cells.values) < 2:
        return None
    every = np.ones(len(cells.values), dtype=bool)
    reason = f"texts such as {example(cells.values, every)}"
    return Candidate(TextCells.fit([category_key(value) for value in cells.values]), 1.0, reason)


def _n_words(text: str) -> float:
    return max(len(_WORDS.findall(text)), len(_IDEOGRAPHS.findall(text)) / 2)


def _counts(texts: Sequence[str]) -> csr_matrix:
    """Count the hashed n-grams of texts, of shape (texts, N_HASHES)."""
    from sklearn.feature_extraction.text import HashingVectorizer

    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(3, 5), n_features=N_HASHES, alternate_sign=False, norm=None
    )
    return vectorizer.transform([text[:MAX_CHARACTERS] for text in texts])


def _weighted(counts: csr_matrix, rarity: Floats) -> csr_matrix:
    """Weight counts by rarity; each row has the length 1."""
    from scipy.sparse import diags_array
    from sklearn.preprocessing import normalize

    logarithms = counts.copy()
    logarithms.data = 1.0 + np.log(logarithms.data)
    return normalize(logarithms @ diags_array(rarity))
