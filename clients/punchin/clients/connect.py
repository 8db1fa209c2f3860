"""Find the daemon, or start it."""

from __future__ import annotations

from punchin.clients.client import Client


def connect(start: bool = True, name: str = "client", wait_s: float = 15.0) -> Client:
    """A client of this user's daemon, which is started first if there is none and `start` says so.

    name: who asks, for the daemon's log. Raises Unreachable: no daemon and not `start`; or it was not ready within
    `wait_s` seconds, then the text holds the last line of its log. Raises Refused (`version`) if the two speak no
    common protocol version.
    """
    raise NotImplementedError


def restart(when_idle: bool = True, wait_s: float = 15.0) -> Client:
    """Stop the daemon (when it is idle) and start one of this client's version."""
    raise NotImplementedError
