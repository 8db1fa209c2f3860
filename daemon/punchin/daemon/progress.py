"""How far the job is that runs: published at most ten times a second, a new phase at once. Not journaled."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from punchin.protocol import link
from punchin.protocol.messages import Happened, Notice
from punchin.protocol.order import Event

APART_S: Final = 0.1


class Progress:
    """The newest word of the worker on its job. Times are seconds of the monotonic clock."""

    def __init__(self, publish: Callable[[str, Notice], None]) -> None:
        self.newest: Event | None = None
        self.due_s: float | None = None  # when one that is held back is to be sent
        self._publish, self._sent_s = publish, 0.0

    def add(self, said: link.Progress) -> None:
        """Something that the worker said; it is published now, or is due."""
        before, now_s = self.newest, time.monotonic()
        self.newest = Event(
            job=said.job,
            seq=0,
            at_ns=time.time_ns(),
            state="running",
            phase=said.phase,
            done=said.done,
            total=said.total,
        )
        if before is None or before.phase != said.phase or now_s - self._sent_s >= APART_S:
            self._send(now_s)
        elif self.due_s is None:
            self.due_s = self._sent_s + APART_S

    def send_due(self, now_s: float) -> None:
        """Publish what was held back, if it is due."""
        if self.due_s is not None and now_s >= self.due_s:
            self._send(now_s)

    def forget(self, job: str) -> None:
        """A job runs no longer: nothing more is told of it."""
        if self.newest is not None and self.newest.job == job:
            self.newest = None

    def _send(self, now_s: float) -> None:
        self.due_s, self._sent_s = None, now_s
        if self.newest is not None:
            self._publish(self.newest.job, Happened(event=self.newest))
