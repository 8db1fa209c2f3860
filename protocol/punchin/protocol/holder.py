"""The process that holds the device for this one: `punchin train` or `bench`, which has a lease of the daemon's.

PUNCHIN_HOLDER says that there is one. It is asked by the line ASK on standard output and answers by the line ANSWER on
standard input. When that ends, so has the holder, and soon its lease: this process stops then, or is ended. Without a
holder the device is there for the taking.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from punchin.protocol import limits
from punchin.protocol.errors import Cancelled

ASK: Final = b"device\n"
ANSWER: Final = b"yours\n"
GRACE_S: Final = limits.LEASE_S - 2  # for the step under way, once the holder is gone; then a worker may start
_LOOK_S: Final = 0.1


class Holder:
    """What this process knows of its holder. Make one before any thread or child process."""

    def __init__(self, told: Callable[[], bool]) -> None:
        """told: whether the user wants an end."""
        self._told = told
        self._there = bool(os.environ.pop("PUNCHIN_HOLDER", ""))  # not for processes that this one starts
        self._given, self._gone = threading.Event(), threading.Event()

    def stop(self) -> bool:
        """Whether to come to an end: asked to, or the holder is gone."""
        return self._told() or self._gone.is_set()

    def device(self) -> None:
        """Wait until the device is ours. Raises Cancelled."""
        if not self._there:
            return
        sys.stdout.write(ASK.decode())
        sys.stdout.flush()
        threading.Thread(target=self._listen, name="holder", daemon=True).start()
        while not self._given.wait(_LOOK_S):
            if self.stop():
                raise Cancelled("stopped before it had the device; nothing was written")

    def _listen(self) -> None:
        while byte := os.read(0, 1):  # not sys.stdin: a thread that waits there breaks the interpreter's end
            if byte == b"\n":
                self._given.set()
        self._gone.set()
        time.sleep(GRACE_S)
        os._exit(Cancelled.exit_code)
