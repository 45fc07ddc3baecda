"""Where the trials of a batch are asked, judged and told.

Studies in memory are worked on directly. Every value that a trial suggests to a storage, and every report, is
a transaction or an append of its own: 90 ms for a trial of our default space in a journal and 180 in SQLite,
where training it packed takes 15. So a study in a storage is worked on in a mirror of it, and what has been
changed is written at once when a stage ends: when a batch has been asked; when a rung has been reported,
judged and told.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from parallelmlp_search.integrations.optuna.storage.storage_writers import writer_of
from parallelmlp_search.integrations.optuna.storage.write_back_storage import Mirror
from parallelmlp_search.search.proposals.optuna_sampler import quiet

__all__ = ["AskedTrial", "Desk", "ask"]


class AskedTrial(Trial):
    """A trial that has been asked: it reports and is judged, and nothing is sampled for it any more.

    Parameters
    ----------
    study
        The study, or its mirror.
    number
        Number of the trial.
    """

    def __init__(self, study: optuna.Study, number: int) -> None:
        # without the constructor of Optuna, which tells the sampler that a trial begins
        self.study = study
        self.storage = study._storage
        self._trial_id = self.storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
        self._cached_frozen_trial = self.storage.get_trial(self._trial_id)


def ask(study: optuna.Study) -> Trial:
    """``study.ask()``, which leaves no trial running if the sampler fails before the trial is there."""
    study._thread_local.cached_all_trials = None
    trial_id = study._pop_waiting_trial_id()
    if trial_id is None:
        trial_id = study._storage.create_new_trial(study._study_id)
    try:
        return Trial(study, trial_id)
    except BaseException:
        study._storage.set_trial_state_values(trial_id, TrialState.FAIL)
        raise


class Desk:
    """Where the trials of a batch are asked, judged and told.

    Parameters
    ----------
    study
        The study.
    marks
        User attributes that tell this worker's trials, unless the study is in memory.

    Attributes
    ----------
    direct
        Whether the study itself is worked on.
    """

    def __init__(self, study: optuna.Study, marks: Mapping[str, Any]) -> None:
        self.study = study
        self.marks = dict(marks)
        self.direct = isinstance(study._storage, InMemoryStorage)
        self._writer = None if self.direct else writer_of(study._storage)
        self._twin: optuna.Study | None = None

    @contextmanager
    def stage(self) -> Iterator[tuple[optuna.Study, dict[int, int | None]]]:
        """Work on the study as it is now; what has been changed is written when the stage ends.

        Yields
        ------
        tuple of (optuna.Study, dict)
            The study to work on; and a mapping that at the end of the stage holds the numbers of all trials
            that were asked, taken or changed under those that they had in the stage. None stands for a trial
            that another worker has taken or finished. It stays empty where the study itself is worked on.
        """
        numbers: dict[int, int | None] = {}
        if self.direct:
            yield self.study, numbers
            return
        twin = self._look()
        try:
            yield twin, numbers
        finally:
            self._twin = None  # if writing fails, the mirror shows what is not there
            numbers |= self._write(twin)
            if all(number == real for number, real in numbers.items()):
                self._twin = twin  # else others have come in between, and it shows another order
            if twin._stop_flag:
                self.study._stop_flag = True

    def running(self, study: optuna.Study, known: Collection[int]) -> list[int]:
        """Numbers of this worker's trials that run: those that are known, or all that bear its marks."""
        if self.direct:
            return list(known)
        trials = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [trial.number for trial in trials if self._is_marked(trial)]

    def _look(self) -> optuna.Study:
        """The mirror, up to date."""
        study, storage = self.study, self.study._storage
        if self._twin is None:
            with quiet():
                mirror = Mirror(study._study_id, study.directions, study.study_name)
                self._twin = optuna.load_study(study_name=study.study_name, storage=mirror)
            self._twin._thread_local.in_optimize_loop = True  # as it is true of the study, for `stop`
        twin = self._twin
        twin.sampler, twin.pruner = study.sampler, study.pruner  # a callback may have changed them
        twin._stop_flag = False
        twin._thread_local.cached_all_trials = None
        trials = storage.get_all_trials(study._study_id, deepcopy=False)
        self._ids = {trial.number: trial._trial_id for trial in trials}
        assert isinstance(twin._storage, Mirror)
        twin._storage.look(
            trials,
            storage.get_study_user_attrs(study._study_id),
            storage.get_study_system_attrs(study._study_id),
        )
        return twin

    def _write(self, twin: optuna.Study) -> dict[int, int | None]:
        """Write what has been changed; the numbers of the trials, by those in the mirror."""
        study, storage, mirror = self.study, self.study._storage, twin._storage
        assert isinstance(mirror, Mirror)
        assert self._writer is not None
        for (by_user, name), value in mirror.study_attrs.items():
            setter = storage.set_study_user_attr if by_user else storage.set_study_system_attr
            setter(study._study_id, name, value)
        for change in mirror.changes.values():
            if change.taken:
                change.user_attrs |= self.marks
        changes = {self._ids[number]: change for number, change in mirror.changes.items()}
        lost = self._writer.write(changes)
        numbers = {number: None if self._ids[number] in lost else number for number in mirror.changes}
        made = mirror.new
        if made:
            before = set(self._ids)
            self._writer.create(study._study_id, [self._signed(trial) for trial in made])
            trials = storage.get_all_trials(study._study_id, deepcopy=False)
            mine = [t.number for t in trials if t.number not in before and self._is_marked(t)]
            numbers |= dict(zip((trial.number for trial in made), mine, strict=True))
        return numbers

    def _signed(self, trial: FrozenTrial) -> FrozenTrial:
        signed = copy.copy(trial)
        signed.user_attrs = trial.user_attrs | self.marks
        return signed

    def _is_marked(self, trial: FrozenTrial) -> bool:
        return self.marks.items() <= trial.user_attrs.items()
