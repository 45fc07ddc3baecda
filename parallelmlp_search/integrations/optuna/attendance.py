"""Several workers on one study: who is alive, and what becomes of the trials of those who are not.

A worker writes a number on the study that grows while it lives, and its name on every trial that it takes.
Whoever sees a number stand still for long takes that worker for dead: its running trials fail, once, since
only one worker can finish a trial, and are enqueued again with the same parameters. Clocks of different
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
from optuna.trial import FrozenTrial, TrialState

__all__ = ["FIRST", "RETRY_OF", "WORKER", "Attendance", "retried", "surplus"]

WORKER, RETRY_OF, FIRST, RETRIES = "worker", "retry_of", "first_try", "retries"
"""User attributes of trials: who trains it; the trial that it repeats, the first of that line, and how many
came before."""

MISSED_BEATS = 6
"""A worker is taken for dead when it has missed so many signs of life."""

MOST_RETRIES = 2
"""A trial that has ended so many workers more is not tried again."""

LEFT = -1


def retried(trials: list[FrozenTrial]) -> set[int]:
    """Numbers of trials that were left behind and have been enqueued again."""
    return {trial.user_attrs[RETRY_OF] for trial in trials if RETRY_OF in trial.user_attrs}


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
        self.study.set_user_attr(f"{WORKER}:{self.worker}", beat)

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
        attributes = self.study.user_attrs
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
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        beats = self._beats() if running else {}
        swept = []
        for trial in running:
            worker = trial.user_attrs.get(WORKER)
            if worker == self.worker:
                continue
            if worker is None:
                dead = self.alone_with_ours and self._still(f"trial {trial.number}", None)
            else:
                dead = self._dead(worker, beats)
            if dead and self._retry(trial):
                swept.append(trial.number)
        return swept

    def _retry(self, trial: FrozenTrial) -> bool:
        try:
            # whoever comes second finds the trial finished
            self.study.tell(trial.number, state=TrialState.FAIL)
        except (UpdateFinishedTrialError, ValueError):
            return False
        retries = trial.user_attrs.get(RETRIES, 0)
        if retries < MOST_RETRIES:
            first = trial.user_attrs.get(FIRST, trial.number)
            again = {RETRY_OF: trial.number, FIRST: first, RETRIES: retries + 1}
            self.study.enqueue_trial(trial.params, user_attrs=again)
        return True
