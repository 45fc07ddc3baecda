"""A study in a database, worked on in memory: batches are asked and judged on a copy, and written at once.

Every value that a trial suggests is a transaction of its own, and every look at a study reads its unfinished
trials again; with SQLite a trial of our default space takes 40 to 300 ms to ask for, and 20 to 50 ms to judge
(64 trials at once). A batch is therefore asked on a copy in memory and each trial written with all its
parameters in one transaction, 11 ms; and judged on another copy. Studies in memory and in journals, which
answer from memory anyway, are worked on directly.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.storages import InMemoryStorage, JournalStorage
from optuna.trial import Trial, TrialState

__all__ = ["Desk"]


class Desk:
    """Where a batch is asked and judged.

    Parameters
    ----------
    study
        The study.
    marks
        User attributes that each asked trial gets, together with its parameters.
    """

    def __init__(self, study: optuna.Study, marks: Mapping[str, Any]) -> None:
        self.study = study
        self.marks = dict(marks)
        self._storage = study._storage
        self._direct = isinstance(self._storage, InMemoryStorage | JournalStorage)
        self._copy: optuna.Study | None = None

    def open(self) -> None:
        """Begin a batch: from here on, what others do is not seen until the next."""
        self._copy = None if self._direct else self._copied()

    def ask(self) -> Trial:
        """A trial that may suggest; :meth:`keep` makes it one of the study."""
        if self._copy is not None:
            return self._copy.ask()
        trial = self.study.ask()
        for name, value in self.marks.items():
            trial.set_user_attr(name, value)
        return trial

    def keep(self, trial: Trial) -> Trial | None:
        """The trial as the study knows it, running; None if another worker has taken it meanwhile."""
        if self._copy is None:
            return trial
        asked = self._copy.get_trials(deepcopy=False)[trial.number]
        attributes = asked.user_attrs | self.marks
        known = self._waiting.get(trial.number)
        if known is None:
            template = copy.copy(asked)
            template.user_attrs = attributes
            made = self._storage.create_new_trial(self.study._study_id, template_trial=template)
            return Trial(self.study, made)
        if not self._storage.set_trial_state_values(known, TrialState.RUNNING):
            return None
        for name, value in attributes.items():
            self._storage.set_trial_user_attr(known, name, value)
        for name, distribution in asked.distributions.items():
            value = distribution.to_internal_repr(asked.params[name])
            self._storage.set_trial_param(known, name, value, distribution)
        return Trial(self.study, known)

    def close(self) -> None:
        """End asking: what the sampler has written on the study is kept."""
        if self._copy is None:
            return
        written = self._copy._storage.get_study_system_attrs(self._copy._study_id)
        before = self._storage.get_study_system_attrs(self.study._study_id)
        for name, value in written.items():
            if before.get(name) != value:
                self._storage.set_study_system_attr(self.study._study_id, name, value)
        self._copy = None

    def prunes(self, trials: Sequence[Trial]) -> list[bool]:
        """What the study's pruner says about each trial, all of which have reported."""
        if self._direct:
            return [trial.should_prune() for trial in trials]
        study = self._copied()
        copies = study.get_trials(deepcopy=False)
        verdicts = []
        for trial in trials:
            judged = Trial(study, copies[trial.number]._trial_id)
            before = dict(copies[trial.number].system_attrs)
            verdicts.append(judged.should_prune())
            after = study.get_trials(deepcopy=False)[trial.number].system_attrs
            for name, value in after.items():  # successive halving notes the rung that a trial has reached
                if name not in before or before[name] != value:
                    self._storage.set_trial_system_attr(trial._trial_id, name, value)
        return verdicts

    def _copied(self) -> optuna.Study:
        """The study in memory, with the same numbers of trials."""
        study, memory = self.study, InMemoryStorage()
        # samplers remember the study that they know by its id
        memory._max_study_id = study._study_id - 1
        made = optuna.create_study(
            storage=memory,
            study_name=study.study_name,
            directions=study.directions,
            sampler=study.sampler,
            pruner=study.pruner,
        )
        for name, value in study.user_attrs.items():
            made.set_user_attr(name, value)
        for name, value in self._storage.get_study_system_attrs(study._study_id).items():
            memory.set_study_system_attr(made._study_id, name, value)
        trials = study.get_trials(deepcopy=False)
        self._waiting = {t.number: t._trial_id for t in trials if t.state is TrialState.WAITING}
        made.add_trials(trials)
        return made
