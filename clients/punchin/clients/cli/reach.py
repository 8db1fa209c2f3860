"""The daemon, for a verb that a person typed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from punchin.clients.cli.talk import Talk
    from punchin.clients.client import Client


def reach(talk: Talk, start: bool = True) -> Client:
    """A client of the daemon, started where none runs if it may; another version is named. Raises as `connect`."""
    from punchin.clients.connect import connect

    client = connect(start=start, name="cli")
    if client.skew:
        talk.warn(client.skew)
    return client
