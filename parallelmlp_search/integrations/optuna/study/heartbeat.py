"""Several workers on one study: who is alive, and what becomes of the trials of those who are not.

A worker writes a number on the study that grows while it lives, and its name on every trial that it takes.
Whoever sees a number stand still for long takes that worker for dead: its running trials are enqueued again,
with the same parameters and seed, and fail. Several may see it at once, or be killed while they enqueue: of
the repetitions of a trial only the first counts, and whoever takes another lets it fail. Clocks of different
machines need not agree.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from types import TracebackType
from typing import Any, Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

__all__ = ["FIRST", "RETRY_OF", "SEED", "WORKER", "Attendance", "retried", "superfluous", "surplus"]

WORKER, RETRY_OF, FIRST, RETRIES, SEED = "worker", "retry_of", "first_try", "retries", "seed"
"""User attributes of trials: who trains it; the trial that it repeats, the first of that line, and how many
came before; the seed of its network."""

MISSED_BEATS = 6
"""A worker is taken for dead when it has missed so many signs of life."""

MAX_RETRIES = 2
"""A trial that has ended so many workers more is not tried again."""

LEFT = -1


def retried(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of trials that were left behind and have been enqueued again."""
    return {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}


def superfluous(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of trials that repeat what an earlier one repeats, or what has been finished after all."""
    first: dict[int, int] = {}
    found = set()
    for trial in trials:
        lost = trial.user_attrs.get(RETRY_OF)
        if lost is not None:
            done = trials[lost].state in (TrialState.COMPLETE, TrialState.PRUNED)
            if done or first.setdefault(lost, trial.number) != trial.number:
                found.add(trial.number)
    return found


def surplus(trials: list[FrozenTrial], wanted: float) -> set[int]:
    """Numbers of trials beyond the ``wanted`` first, those that repeat others not counted.

    Workers that ask at the same time begin more than is left; by the numbers all of them see the same ones as
    too many.
    """
    own = [trial.number for trial in trials if RETRY_OF not in trial.user_attrs]
    return set(own[int(wanted) :]) if wanted < len(own) else set()


class Attendance:
    """Presence of this worker on a study, and a watch over the others.

    Does nothing for a study in memory, which nobody else can work on.

    Parameters
    ----------
    study
        The study.
    heartbeat
        Seconds between signs of life.
    alone_with_ours
        Whether all workers of the study keep attendance, so that a running trial without a name has been left
        behind by one that was killed before it could sign.
    """

    def __init__(self, study: optuna.Study, heartbeat: float, *, alone_with_ours: bool = False) -> None:
        self.study = study
        self.heartbeat = heartbeat
        self.alone_with_ours = alone_with_ours
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.active = not isinstance(study._storage, InMemoryStorage)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="attendance", daemon=True)
        self._seen: dict[str, tuple[Any, float]] = {}

    @property
    def marks(self) -> dict[str, str]:
        """What this worker writes on its trials."""
        return {WORKER: self.worker} if self.active else {}

    def __enter__(self) -> Self:
        if self.active:
            self._sign(0)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.active:
            self._end.set()
            self._thread.join()
            with contextlib.suppress(Exception):  # the storage may be what went wrong
                self._sign(LEFT)

    def _sign(self, beat: int) -> None:
        # not among a user's attributes, where hundreds of workers would be in the way
        self.study._storage.set_study_system_attr(self.study._study_id, f"{WORKER}:{self.worker}", beat)

    def _beat(self) -> None:
        beat = 0
        while not self._end.wait(self.heartbeat):
            beat += 1
            with contextlib.suppress(Exception):  # a locked database: the next sign may get through
                self._sign(beat)

    def others(self) -> int:
        """Other workers that have not left and whose sign of life has not stood still for long."""
        if not self.active:
            return 0
        beats = self._beats()
        return sum(not self._dead(worker, beats) for worker in beats if worker != self.worker)

    def _beats(self) -> dict[str, Any]:
        prefix = f"{WORKER}:"
        attributes = self.study._storage.get_study_system_attrs(self.study._study_id)
        return {name.removeprefix(prefix): attributes[name] for name in attributes if name.startswith(prefix)}

    def _dead(self, worker: str, beats: dict[str, Any]) -> bool:
        beat = beats.get(worker)
        return beat == LEFT or self._still(f"worker {worker}", beat)

    def _still(self, name: str, sign: Any) -> bool:
        """Whether a sign has not changed for too long since this worker first saw it."""
        now = time.monotonic()
        last, since = self._seen.setdefault(name, (sign, now))
        if last != sign:
            self._seen[name] = (sign, now)
            return False
        return now - since > MISSED_BEATS * self.heartbeat

    def sweep(self) -> list[int]:
        """Enqueue again what dead workers have left running; the numbers of those trials."""
        if not self.active:
            return []
        trials = self.study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        beats = self._beats() if running else {}
        again = retried(trials)
        swept = []
        for trial in running:
            worker = trial.user_attrs.get(WORKER)
            if worker == self.worker:
                continue
            if worker is None:
                dead = self.alone_with_ours and self._still(f"trial {trial.number}", None)
            else:
                dead = self._dead(worker, beats)
            if dead:
                if trial.number not in again:
                    self._enqueue_again(trial)
                if self._end_trial(trial.number):
                    swept.append(trial.number)
        return swept

    def _enqueue_again(self, trial: FrozenTrial) -> None:
        """Let somebody repeat a trial; before it ends, so that it is not lost if this worker dies too."""
        attributes = trial.user_attrs
        retries = attributes.get(RETRIES, 0)
        if retries >= MAX_RETRIES:
            return
        again = {RETRY_OF: trial.number, FIRST: attributes.get(FIRST, trial.number), RETRIES: retries + 1}
        again |= {name: attributes[name] for name in (SEED,) if name in attributes}
        # one that had been enqueued, and has not yet been asked, has parameters all the same
        params = trial.system_attrs.get("fixed_params", {}) | trial.params
        self.study.enqueue_trial(params, user_attrs=again)

    def _end_trial(self, number: int) -> bool:
        """Whether a trial that runs has been made to fail by this worker, and by no other."""
        try:
            self.study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):  # whoever comes second finds it finished
            return False
        return True

    def admits(self, trial: Trial) -> bool:
        """Whether a trial that has been taken is to be trained.

        One that repeats another is not if there is an earlier repetition, since two workers have found the
        same one dead; nor if the other has come to its end after all.
        """
        lost = trial.user_attrs.get(RETRY_OF) if self.active else None
        if lost is None:
            return True
        if trial.number in superfluous(trial.study.get_trials(deepcopy=False)):
            return False
        self._end_trial(lost)  # whoever enqueued this one may have died before it did
        return self.study.get_trials(deepcopy=False)[lost].state is TrialState.FAIL
