"""Candidates of a parameter search: sampled, listed as a grid, or asked from an Optuna study."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState
from sklearn.model_selection import ParameterGrid

from parallelmlp_search.estimators.param_distributions import Distribution, search_spaces
from parallelmlp_search.exceptions import InvalidParameterError, PMLPWarning
from parallelmlp_search.integrations.optuna.study.study_session import ask
from parallelmlp_search.integrations.optuna.study.suggest import suggest
from parallelmlp_search.search.proposals.samplers import propose_fresh
from parallelmlp_search.space import MLPConfig, SearchSpace
from parallelmlp_search.space.config import FIELD_NAMES


@dataclass(frozen=True)
class SearchCandidate:
    """One combination of parameters.

    Attributes
    ----------
    params
        Values by the names in the search space, for example ``depth``.
    fields
        Values of the configuration fields that they determine, for example ``widths``.
    trial
        Trial of the study, if there is one.
    """

    params: dict[str, Any]
    fields: dict[str, Any]
    trial: Trial | None = None

    def report(self, score: float, epochs: int) -> None:
        """Report the score of a rung to the trial."""
        if self.trial is not None and math.isfinite(score):
            self.trial.report(score, epochs)


def _candidate(space: SearchSpace, config: MLPConfig, trial: Trial | None = None) -> SearchCandidate:
    params = space.to_values(config)
    # names such as ``depth`` and ``width_1`` are not fields: together they build ``widths``
    fields = {name if name in FIELD_NAMES else "widths" for name in params}
    return SearchCandidate(params, {name: getattr(config, name) for name in sorted(fields)}, trial)


class ListedCandidates:
    """Candidates that are known in advance. Results do not influence them."""

    def __init__(self, candidates: Sequence[SearchCandidate] = ()) -> None:
        self._remaining = list(candidates)

    def ask(self, count: int) -> list[SearchCandidate]:
        """Return at most ``count`` more candidates; an empty list ends the search."""
        batch, self._remaining = self._remaining[:count], self._remaining[count:]
        return batch

    def tell(self, candidate: SearchCandidate, score: float) -> None:
        """Take the final score of a candidate; it is not finite if the candidate failed."""

    def prune(self, candidate: SearchCandidate) -> None:
        """Take the end of a candidate that does not advance to the next rung."""

    def close(self) -> None:
        """End the search."""


class StudyCandidates(ListedCandidates):
    """Candidates that the sampler of a study proposes in batches.

    Parameters
    ----------
    study
        A study that maximizes.
    spaces
        The search space, as a list of one.
    n_trials
        Number of trials in total.

    Raises
    ------
    InvalidParameterError
        If there are several spaces, the space has a distribution that Optuna does not know, or the study does
        not maximize.
    """

    def __init__(self, study: optuna.Study, spaces: Sequence[SearchSpace], n_trials: int) -> None:
        super().__init__()
        if len(spaces) > 1:
            raise InvalidParameterError(
                f"an Optuna sampler takes a single mapping of distributions, but got {len(spaces)}"
            )
        (self.space,) = spaces
        for name, domain in self.space.domains.items():
            if isinstance(domain, Distribution):
                raise InvalidParameterError(
                    f"an Optuna sampler cannot draw {name!r} from {domain!r}: "
                    "give scipy's uniform, loguniform or randint, or a distribution of Optuna"
                )
        if study.directions != [StudyDirection.MAXIMIZE]:
            raise InvalidParameterError(
                "the study must maximize, because scikit-learn's scores are higher for better models, but "
                f"its directions are {', '.join(one.name.lower() for one in study.directions)}"
            )
        self.study = study
        self._n_left = n_trials
        self._running: dict[int, Trial] = {}

    def ask(self, count: int) -> list[SearchCandidate]:
        """Return at most ``count`` trials of the study as candidates, enqueued trials first."""
        batch = []
        for _ in range(min(count, self._n_left)):
            trial = ask(self.study)
            self._running[trial.number] = trial
            self._n_left -= 1
            batch.append(_candidate(self.space, suggest(trial, self.space, seed=0), trial))
        return batch

    def tell(self, candidate: SearchCandidate, score: float) -> None:
        """Complete the trial, or fail it if the score is not finite."""
        if math.isfinite(score):
            self.study.tell(self._end(candidate), score)
        else:
            self.study.tell(self._end(candidate), state=TrialState.FAIL)

    def prune(self, candidate: SearchCandidate) -> None:
        """Prune the trial."""
        self.study.tell(self._end(candidate), state=TrialState.PRUNED)

    def _end(self, candidate: SearchCandidate) -> Trial:
        assert candidate.trial is not None
        return self._running.pop(candidate.trial.number)

    def close(self) -> None:
        """Fail all trials that are still running, so that an interrupted search leaves none behind."""
        for trial in self._running.values():
            self.study.tell(trial, state=TrialState.FAIL)
        self._running.clear()


def sampled_candidates(
    spaces: Sequence[SearchSpace], sampler: str, n: int, rng: np.random.Generator
) -> list[SearchCandidate]:
    """Return different candidates, each from one of the spaces, and warn if the spaces hold too few.

    Parameters
    ----------
    spaces
        Search spaces; each candidate comes from a random one.
    sampler
        ``"random"`` or ``"qmc"``.
    n
        Number of candidates.
    rng
        Source of random numbers.

    Returns
    -------
    list of SearchCandidate
        In random order; fewer than ``n`` if the spaces hold fewer.
    """
    counts = np.bincount(rng.integers(len(spaces), size=n), minlength=len(spaces))
    found = [
        _candidate(space, config)
        for space, count in zip(spaces, counts, strict=True)
        for config in propose_fresh(space, sampler, int(count), rng, known=())
    ]
    if len(found) < n:
        warnings.warn(
            f"n_trials is {n}, but there are only {len(found)} different candidates: all of them are tried",
            PMLPWarning,
            stacklevel=3,
        )
    return [found[place] for place in rng.permutation(len(found))]


def grid_candidates(spaces: Sequence[SearchSpace]) -> list[SearchCandidate]:
    """Return all candidates, in the order of scikit-learn's ``ParameterGrid``.

    Raises
    ------
    InvalidParameterError
        If a name has infinitely many values.
    """
    for space in spaces:
        for name, domain in space.domains.items():
            if not math.isfinite(domain.n_values):
                raise InvalidParameterError(
                    f"sampler 'grid' needs finitely many values of {name!r}, but got {domain!r}: "
                    "give a list, or use sampler 'random'"
                )
    return [_candidate(space, config) for space in spaces for config in space.grid()]


def listed_candidates(grid: Any, prefix: str) -> list[SearchCandidate]:
    """Return the candidates of ``param_grid``: those of scikit-learn's ``ParameterGrid``, repeats included.

    ``prefix`` is the start of each name, see :func:`~.param_distributions.search_spaces`.

    Raises
    ------
    InvalidParameterError
        If the grid is no mapping of lists or list of these, a name is not a field of a configuration, or a
        value is not valid for it.
    """
    try:
        combinations = list(ParameterGrid(grid))
    except (TypeError, ValueError) as error:
        raise InvalidParameterError(
            f"param_grid must be a mapping from names to lists of values, or a list of these: {error}"
        ) from None
    found = []
    for params in combinations:
        values = {name: [value] for name, value in params.items()}
        (space,) = search_spaces(values, prefix=prefix, parameter="param_grid")
        candidate = _candidate(space, next(iter(space.grid())))
        given = {name.removeprefix(prefix): value for name, value in params.items()}
        found.append(replace(candidate, params=given))
    return found
