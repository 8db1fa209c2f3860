"""Waiting for a job, and being told how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from punchin.protocol.errors import Cancelled
from punchin.protocol.order import Event, JobRecord

if TYPE_CHECKING:
    from punchin.clients.client import Client


class Listener(Protocol):
    """Who is told how it goes: a terminal, a DAW, a test."""

    def say(self, text: str) -> None:
        """A line of talk."""
        ...

    def warn(self, text: str) -> None:
        """Something that the user should know, though the work goes on."""
        ...

    def watch(self, event: Event) -> None:
        """How far the job is."""
        ...


def tell_version(client: Client, listener: Listener) -> None:
    """Offer a restart where the daemon is of another version than this client. They can work together all the same."""
    if client.skew:
        listener.warn(client.skew)


def wait(client: Client, job: str, listener: Listener) -> JobRecord:
    """Follow a job to its end and give its record. Ctrl-C cancels it, a second one does not wait for that."""
    try:
        for event in client.follow(job):
            listener.watch(event)
    except KeyboardInterrupt:
        _cancel(client, job, listener)
    return client.result(job)


def _cancel(client: Client, job: str, listener: Listener) -> None:
    asked = False
    try:
        listener.say("cancelling ... (ctrl-C again: do not wait for it)")
        client.cancel(job)
        asked = True
        last = [event for event in client.follow(job) if event.seq][-1]
    except KeyboardInterrupt:
        if asked:
            raise Cancelled(f"job {job} is being cancelled; nothing was written", f"punchin show {job}") from None
        raise Cancelled(f"job {job} goes on in the daemon; nothing was written yet", f"punchin land {job}") from None
    if last.state == "done":
        raise Cancelled(f"job {job} was done before it could be cancelled; nothing was written", f"punchin land {job}")
    raise Cancelled(f"job {job} cancelled; nothing was written")
