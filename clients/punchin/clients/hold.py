"""The daemon's device, held for a process beside it: asked for, kept by asking again, and given back.

Whoever wants it waits for the job that runs. From then on a daemon that ends stops nothing, but it is told.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from punchin.clients.client import Client, new_job_id
from punchin.clients.connect import connect
from punchin.protocol.errors import PunchinError

KEEP_S: Final = 2.0  # how often to ask again; the daemon waits LEASE_S


class Hold:
    """One lease of the device, for process `pid`, which `holder` names. `say` gets what people should know."""

    def __init__(self, holder: str, pid: int, say: Callable[[str], None]) -> None:
        self._holder, self._pid, self._say = holder, pid, say
        self._us = f"the {holder.removeprefix('a ')}"
        self._id = new_job_id()
        self._client: Client | None = None
        self._said: str | None = None

    def take(self, client: Client) -> bool:
        """Ask for the device; whether it is ours. Ask again every KEEP_S until it is. Raises as `Client.lease`."""
        lease = client.lease(self._id, self._holder, self._pid)
        self._tell("" if lease.granted else f"waiting for the device until {_ended(lease.waits_for)}")
        return lease.granted

    def keep(self) -> bool:
        """Say that the device is still needed; whether it is ours. A daemon that has ended is not started again.

        Whatever is wrong is said once, and the next call asks anew, also a daemon that was started meanwhile.
        """
        try:
            if self._client is None:
                self._client = connect(start=False, name=self._holder, wait_s=1.0)
            lease = self._client.lease(self._id, self._holder, self._pid)
        except PunchinError as error:
            self._drop()
            self._tell(f"{error}; {self._us} goes on, and nothing keeps jobs off the device")
            return False
        beside = f"the daemon works beside {self._us} until {_ended(lease.waits_for)}"
        self._tell("" if lease.granted else beside)
        return lease.granted

    def release(self) -> None:
        """Give the device back. A daemon that does not answer forgets the lease by itself."""
        with contextlib.suppress(PunchinError):
            client = self._client or connect(start=False, name=self._holder, wait_s=1.0)
            self._client = client
            client.release(self._id)
        self._drop()

    def _drop(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _tell(self, text: str) -> None:
        """Say what has changed; "" is well."""
        if text != self._said:
            self._say(text or f"{self._us} has the device; jobs wait in the daemon's queue")
        self._said = text


def _ended(what: str) -> str:
    return f"{what.removesuffix(' to end')} has ended"
