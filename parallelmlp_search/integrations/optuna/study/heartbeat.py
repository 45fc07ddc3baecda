"""Heartbeats of several workers on one study, and retries of the trials of dead workers.

A worker writes a growing counter on the study, and its name on every trial that it claims. A worker whose
counter stands still for long is taken for dead: its running trials are enqueued again, with the same
parameters and seed, and fail. Two workers may do so at the same time, or die in between. So only the first
retry of a trial counts, and a worker that claims another one lets it fail. Clocks need not agree.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from typing import Any, Self

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

# User attributes of trials. Studies keep these names, so they do not change.
WORKER_ATTR = "worker"  # the worker that trains it; also the prefix of the counters on the study
RETRY_OF_ATTR = "retry_of"  # number of the trial that it retries
FIRST_TRY_ATTR = "first_try"  # first number in a chain of retries
RETRIES_ATTR = "retries"  # number of retries before it
SEED_ATTR = "seed"  # seed of its network

MAX_MISSED_BEATS = 6
"""A worker is taken for dead after this many missed heartbeats."""

MAX_RETRIES = 2

STOPPED = -1  # counter of a worker that has left


def retried_trials(trials: list[FrozenTrial]) -> set[int]:
    """Return the numbers of trials that were enqueued again."""
    return {trial.user_attrs[RETRY_OF_ATTR] for trial in trials if RETRY_OF_ATTR in trial.user_attrs}


def duplicate_retries(trials: list[FrozenTrial]) -> set[int]:
    """Return the numbers of retries that come after another one, or whose original was finished after all."""
    first: dict[int, int] = {}
    found = set()
    for trial in trials:
        lost = trial.user_attrs.get(RETRY_OF_ATTR)
        if lost is not None:
            done = trials[lost].state in (TrialState.COMPLETE, TrialState.PRUNED)
            if done or first.setdefault(lost, trial.number) != trial.number:
                found.add(trial.number)
    return found


def excess_trials(trials: list[FrozenTrial], n_trials: float) -> set[int]:
    """Return the numbers of trials beyond the first ``n_trials``, retries not counted.

    Workers that ask at the same time begin too many trials; by the numbers, all agree on the excess ones.
    """
    own = [trial.number for trial in trials if RETRY_OF_ATTR not in trial.user_attrs]
    return set(own[int(n_trials) :]) if n_trials < len(own) else set()


class Heartbeat:
    """Heartbeat of this worker on a study, and a watch over the other workers.

    Does nothing for a study in memory, which no other worker can reach.

    Parameters
    ----------
    study
        The study.
    interval
        Seconds between heartbeats.
    all_workers_beat
        True if all workers of the study have a heartbeat. Then a running trial without a worker's name is
        also taken for lost: its worker died before it could write the name.
    """

    def __init__(self, study: optuna.Study, interval: float, *, all_workers_beat: bool = False) -> None:
        self.study = study
        self.interval = interval
        self.all_workers_beat = all_workers_beat
        self.worker = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self.active = not isinstance(study._storage, InMemoryStorage)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._seen: dict[str, tuple[Any, float]] = {}

    @property
    def owner_attrs(self) -> dict[str, str]:
        """User attributes that mark the trials of this worker."""
        return {WORKER_ATTR: self.worker} if self.active else {}

    def __enter__(self) -> Self:
        if self.active:
            self._write(0)
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.active:
            self._stopped.set()
            self._thread.join()
            with contextlib.suppress(Exception):  # the storage may be the cause of an error
                self._write(STOPPED)

    def _write(self, count: int) -> None:
        # a system attribute, because user attributes are shown to the user
        name = f"{WORKER_ATTR}:{self.worker}"
        self.study._storage.set_study_system_attr(self.study._study_id, name, count)

    def _run(self) -> None:
        count = 0
        while not self._stopped.wait(self.interval):
            count += 1
            with contextlib.suppress(Exception):  # a locked database: the next heartbeat may get through
                self._write(count)

    def n_other_workers(self) -> int:
        """Return the number of other workers that are alive."""
        if not self.active:
            return 0
        counts = self._counts()
        return sum(not self._is_dead(worker, counts) for worker in counts if worker != self.worker)

    def _counts(self) -> dict[str, Any]:
        prefix = f"{WORKER_ATTR}:"
        attributes = self.study._storage.get_study_system_attrs(self.study._study_id)
        return {name.removeprefix(prefix): attributes[name] for name in attributes if name.startswith(prefix)}

    def _is_dead(self, worker: str, counts: dict[str, Any]) -> bool:
        count = counts.get(worker)
        return count == STOPPED or self._is_stale(f"worker {worker}", count)

    def _is_stale(self, name: str, value: Any) -> bool:
        """Return True if a value has not changed for too long since this worker first saw it."""
        now = time.monotonic()
        last, since = self._seen.setdefault(name, (value, now))
        if last != value:
            self._seen[name] = (value, now)
            return False
        return now - since > MAX_MISSED_BEATS * self.interval

    def retry_lost_trials(self) -> list[int]:
        """Enqueue the running trials of dead workers again and return their numbers."""
        if not self.active:
            return []
        trials = self.study.get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        counts = self._counts() if running else {}
        retried = retried_trials(trials)
        ended = []
        for trial in running:
            worker = trial.user_attrs.get(WORKER_ATTR)
            if worker == self.worker:
                continue
            if worker is None:
                is_lost = self.all_workers_beat and self._is_stale(f"trial {trial.number}", None)
            else:
                is_lost = self._is_dead(worker, counts)
            if is_lost:
                if trial.number not in retried:
                    self._enqueue_retry(trial)
                if self._end_trial(trial.number):
                    ended.append(trial.number)
        return ended

    def _enqueue_retry(self, trial: FrozenTrial) -> None:
        """Enqueue a trial again, before it ends, so that it is not lost if this worker dies in between."""
        attributes = trial.user_attrs
        retries = attributes.get(RETRIES_ATTR, 0)
        if retries >= MAX_RETRIES:
            return
        user_attrs = {
            RETRY_OF_ATTR: trial.number,
            FIRST_TRY_ATTR: attributes.get(FIRST_TRY_ATTR, trial.number),
            RETRIES_ATTR: retries + 1,
        }
        if SEED_ATTR in attributes:
            user_attrs[SEED_ATTR] = attributes[SEED_ATTR]
        # the parameters of an enqueued trial are fixed before they are asked
        params = trial.system_attrs.get("fixed_params", {}) | trial.params
        self.study.enqueue_trial(params, user_attrs=user_attrs)

    def _end_trial(self, number: int) -> bool:
        """Let a running trial fail; returns False if another worker has finished it."""
        try:
            self.study.tell(number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        return True

    def should_train(self, trial: Trial) -> bool:
        """Return False for a duplicate retry, or a retry of a trial that was finished after all."""
        lost = trial.user_attrs.get(RETRY_OF_ATTR) if self.active else None
        if lost is None:
            return True
        if trial.number in duplicate_retries(trial.study.get_trials(deepcopy=False)):
            return False
        self._end_trial(lost)  # the worker that enqueued the retry may have died before it did
        return self.study.get_trials(deepcopy=False)[lost].state is TrialState.FAIL
