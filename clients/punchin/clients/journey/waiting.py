"""Waiting for a job, and being told how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from punchin.protocol.errors import Cancelled, PunchinError, Unreachable
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
    except Unreachable as error:
        error.hint = f"{error.hint}\njob {job} is kept: punchin land {job}".strip()
        raise
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
    except PunchinError as error:
        goes_on = f"job {job} was not cancelled and goes on: punchin cancel {job}"
        error.hint = f"{f'punchin show {job}' if asked else goes_on}\n{error.hint}".strip()
        raise
    if last.state == "done":
        raise Cancelled(f"job {job} was done before it could be cancelled; nothing was written", f"punchin land {job}")
    raise Cancelled(f"job {job} cancelled; nothing was written")
