"""Work on a study: trials are asked, pruned and told on a copy in memory and written in batches.

Every parameter and every report costs a transaction or an append: 90 ms per trial of the default space in a
journal and 180 ms in SQLite, while packed training takes 15 ms. So a stage of work happens on a copy in
memory, and its changes are written when it ends. Studies in memory are worked on directly.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.samplers import RandomSampler
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from parallelmlp_search.integrations.optuna.compatibility import clear_trial_cache
from parallelmlp_search.integrations.optuna.storage.storage_writers import get_writer
from parallelmlp_search.integrations.optuna.storage.write_back_storage import WriteBackStorage
from parallelmlp_search.search.proposals.optuna_sampler import quiet


def ask(study: optuna.Study) -> Trial:
    """Return ``study.ask()``; if the sampler fails, the new trial fails instead of running forever."""
    clear_trial_cache(study)
    storage = study._storage
    trial_id = _claim_waiting_trial(study)
    if trial_id is None:
        trial_id = storage.create_new_trial(study._study_id)
    try:
        return Trial(study, trial_id)
    except BaseException:
        storage.set_trial_state_values(trial_id, TrialState.FAIL)
        raise


def _claim_waiting_trial(study: optuna.Study) -> int | None:
    storage = study._storage
    for trial in storage.get_all_trials(study._study_id, deepcopy=False, states=(TrialState.WAITING,)):
        try:
            if storage.set_trial_state_values(trial._trial_id, TrialState.RUNNING):
                return trial._trial_id
        except UpdateFinishedTrialError:  # another worker was faster
            continue
    return None


def reopen_trial(study: optuna.Study, number: int) -> Trial:
    """Return a trial that was asked before, to report to it; nothing is sampled for it."""
    # the constructor of a trial tells the sampler that a trial begins
    reporting = optuna.load_study(
        study_name=study.study_name, storage=study._storage, sampler=RandomSampler(), pruner=study.pruner
    )
    return Trial(reporting, study._storage.get_trial_id_from_study_id_trial_number(study._study_id, number))


class _WorkingStudy(optuna.Study):
    """Copy of a study in memory; ``stop`` stops the original."""

    def __init__(self, original: optuna.Study) -> None:
        self.original = original
        self.copy = WriteBackStorage(original)
        super().__init__(original.study_name, self.copy)

    def stop(self) -> None:
        self.original.stop()


class StudySession:
    """Work on a study in stages, whose changes are written at once.

    Parameters
    ----------
    study
        Study to work on.
    owner_attrs
        User attributes that mark this worker's trials, unless the study is in memory.

    Attributes
    ----------
    in_memory
        True if the study is in memory, so that it is worked on directly.
    """

    def __init__(self, study: optuna.Study, owner_attrs: Mapping[str, Any]) -> None:
        self.study = study
        self.owner_attrs = dict(owner_attrs)
        self.in_memory = isinstance(study._storage, InMemoryStorage)
        self._writer = get_writer(study._storage)
        self._working: _WorkingStudy | None = None

    @contextmanager
    def stage(self) -> Iterator[tuple[optuna.Study, dict[int, int | None]]]:
        """Work on the current study; changes are written when the context ends.

        Yields
        ------
        tuple of (optuna.Study, dict)
            The study to work on, and a mapping that is filled when the context ends: the number in the
            storage of each trial that was asked, claimed or changed, by its number in the stage. None stands
            for a trial that another worker has claimed or finished. It stays empty for a study in memory.
        """
        numbers: dict[int, int | None] = {}
        if self.in_memory:
            yield self.study, numbers
            return
        working = self._refresh()
        try:
            yield working, numbers
        finally:
            self._working = None  # if writing fails, the copy holds what the storage does not
            numbers |= self._write(working)
            if all(number == real for number, real in numbers.items()):
                self._working = working  # else other workers have added trials in between

    def running_trials(self, study: optuna.Study, known: Collection[int]) -> list[int]:
        """Return the numbers of this worker's running trials; of a study in memory, the ``known`` ones."""
        if self.in_memory:
            return list(known)
        trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in trials if self._is_own(trial)]

    def _refresh(self) -> _WorkingStudy:
        """Return the working copy, up to date."""
        if self._working is None:
            with quiet():
                self._working = _WorkingStudy(self.study)
        else:
            self._working.copy.refresh()
        working = self._working
        working.sampler, working.pruner = self.study.sampler, self.study.pruner  # a callback may change them
        clear_trial_cache(working)
        return working

    def _write(self, working: _WorkingStudy) -> dict[int, int | None]:
        """Write all changes; returns the numbers of the trials, by their numbers in the copy."""
        study, storage = self.study, self.study._storage
        user_attrs, system_attrs = working.copy.changed_study_attrs()
        for name, value in user_attrs.items():
            storage.set_study_user_attr(study._study_id, name, value)
        for name, value in system_attrs.items():
            storage.set_study_system_attr(study._study_id, name, value)
        updates = working.copy.updates()
        for update in updates.values():
            if update.claimed:
                update.user_attrs |= self.owner_attrs
        ids = working.copy.original_ids
        lost = self._writer.write({ids[number]: update for number, update in updates.items()})
        numbers = {number: None if ids[number] in lost else number for number in updates}
        new = working.copy.new_trials()
        if new:
            self._writer.create(study._study_id, [self._with_owner(trial) for trial in new])
            added = study.get_trials(deepcopy=False)[len(ids) :]
            own = [trial.number for trial in added if self._is_own(trial)]
            numbers |= dict(zip((trial.number for trial in new), own, strict=True))
        return numbers

    def _with_owner(self, trial: FrozenTrial) -> FrozenTrial:
        marked = copy.copy(trial)
        marked.user_attrs = trial.user_attrs | self.owner_attrs
        return marked

    def _is_own(self, trial: FrozenTrial) -> bool:
        return self.owner_attrs.items() <= trial.user_attrs.items()
