"""Which candidates a search over parameters tries: drawn, listed, or asked of an Optuna study."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from parallelmlp_search.estimators.param_distributions import Distribution
from parallelmlp_search.exceptions import InvalidParameterError, PMLPWarning
from parallelmlp_search.integrations.optuna.study.study_session import ask
from parallelmlp_search.integrations.optuna.study.suggest import suggest
from parallelmlp_search.search.problem.settings import FRESH_SAMPLERS, check_sampler
from parallelmlp_search.search.proposals.optuna_sampler import named_sampler, quiet
from parallelmlp_search.search.proposals.samplers import draw_fresh
from parallelmlp_search.space import MLPConfig, SearchSpace
from parallelmlp_search.space.config import FIELD_NAMES

__all__ = ["Candidate", "Candidates", "ListedCandidates", "StudyCandidates", "drawn", "listed", "study_for"]


@dataclass(frozen=True)
class Candidate:
    """One choice of parameters.

    Attributes
    ----------
    params
        Values under the names that were given, ``depth`` for example.
    fields
        The fields of a configuration that they decide, ``widths`` for example.
    trial
        The trial of a study that asks about it.
    """

    params: dict[str, Any]
    fields: dict[str, Any]
    trial: Trial | None = None


class Candidates(Protocol):
    """Where candidates come from, batch after batch."""

    def ask(self, count: int) -> list[Candidate]:
        """Up to ``count`` more; none where there are no more."""
        ...

    def report(self, candidate: Candidate, score: float, epochs: int) -> None:
        """Score of a candidate at a rung that is not the last."""
        ...

    def tell(self, candidate: Candidate, score: float, *, pruned: bool) -> None:
        """What became of a candidate: its last score, not finite if it failed."""
        ...

    def close(self) -> None:
        """Leave nothing running."""
        ...


def drawn(spaces: Sequence[SearchSpace], sampler: str, n: int, rng: np.random.Generator) -> list[Candidate]:
    """``n`` different candidates, each from one of the spaces; fewer where they hold no more.

    ``sampler`` is ``"random"`` or ``"qmc"``.
    """
    counts = np.bincount(rng.integers(len(spaces), size=n), minlength=len(spaces))
    found = [
        _candidate(space, config)
        for space, count in zip(spaces, counts, strict=True)
        for config in draw_fresh(space, sampler, int(count), rng, known=())
    ]
    if len(found) < n:
        warnings.warn(
            f"n_trials is {n}, but there are only {len(found)} different candidates: all of them are tried",
            PMLPWarning,
            stacklevel=3,
        )
    return [found[place] for place in rng.permutation(len(found))]


def listed(spaces: Sequence[SearchSpace]) -> list[Candidate]:
    """All candidates, in the order of scikit-learn's ``ParameterGrid``."""
    for space in spaces:
        for name, domain in space.domains.items():
            if not math.isfinite(domain.n_values):
                raise InvalidParameterError(
                    f"sampler 'grid' needs finitely many values of {name!r}, but got {domain!r}: "
                    "give a list, or draw at random"
                )
    return [_candidate(space, config) for space in spaces for config in space.grid()]


def _candidate(space: SearchSpace, config: MLPConfig, trial: Trial | None = None) -> Candidate:
    params = space.to_values(config)
    # what builds the widths are names of the space alone
    fields = {name if name in FIELD_NAMES else "widths" for name in params}
    return Candidate(params, {name: getattr(config, name) for name in sorted(fields)}, trial)


class ListedCandidates:
    """Candidates that are known from the start."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self._left = list(candidates)

    def ask(self, count: int) -> list[Candidate]:
        """The next ones."""
        batch, self._left = self._left[:count], self._left[count:]
        return batch

    def report(self, candidate: Candidate, score: float, epochs: int) -> None:
        """Nobody asks."""

    def tell(self, candidate: Candidate, score: float, *, pruned: bool) -> None:
        """Nobody asks."""

    def close(self) -> None:
        """Nothing runs."""


class StudyCandidates:
    """Candidates that are asked of a study in batches, and told to it.

    Parameters
    ----------
    study
        A study that maximises.
    spaces
        The one space.
    n_trials
        How many to ask for in all.
    """

    def __init__(self, study: optuna.Study, spaces: Sequence[SearchSpace], n_trials: int) -> None:
        if len(spaces) > 1:
            raise InvalidParameterError(
                "an Optuna sampler takes a single mapping of distributions, but got more"
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
                "the study must maximize, since scikit-learn's scores are higher where better, but its "
                f"directions are {', '.join(one.name.lower() for one in study.directions)}"
            )
        self.study = study
        self._left = n_trials
        self._running: dict[int, Trial] = {}

    def ask(self, count: int) -> list[Candidate]:
        """Ask the study's own sampler, enqueued trials first."""
        batch = []
        for _ in range(min(count, self._left)):
            trial = ask(self.study)
            self._running[trial.number] = trial
            self._left -= 1
            batch.append(_candidate(self.space, suggest(trial, self.space, seed=0), trial))
        return batch

    def report(self, candidate: Candidate, score: float, epochs: int) -> None:
        """Report the score of a rung."""
        if candidate.trial is not None and math.isfinite(score):
            candidate.trial.report(score, epochs)

    def tell(self, candidate: Candidate, score: float, *, pruned: bool) -> None:
        """Tell the study; a score that is not finite makes a failed trial."""
        if candidate.trial is None:
            return
        if not math.isfinite(score):
            self.study.tell(candidate.trial, state=TrialState.FAIL)
        elif pruned:
            self.study.tell(candidate.trial, state=TrialState.PRUNED)
        else:
            self.study.tell(candidate.trial, score)
        del self._running[candidate.trial.number]

    def close(self) -> None:
        """Whatever ended the search, no trial is left running."""
        for trial in self._running.values():
            self.study.tell(trial, state=TrialState.FAIL)
        self._running.clear()


def study_for(
    sampler: str | BaseSampler | None, study: optuna.Study | None, seed: int
) -> optuna.Study | None:
    """The study to ask, None where candidates are drawn or listed without one.

    ``seed`` is for samplers that are given by name.

    Raises
    ------
    InvalidParameterError
        If there is no such sampler, or a study and a sampler are both given.
    """
    if study is not None:
        if sampler is not None:
            raise InvalidParameterError(
                f"sampler must be left out where a study is given, which has its own, but got {sampler!r}"
            )
        return study
    if sampler is None or (isinstance(sampler, str) and sampler in FRESH_SAMPLERS):
        return None
    check_sampler(sampler)
    with quiet():
        chosen = named_sampler(sampler, seed) if isinstance(sampler, str) else sampler
        return optuna.create_study(direction="maximize", sampler=chosen)
