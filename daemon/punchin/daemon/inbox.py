"""What other threads tell the loop: a queue with a socket that a poller can wait on."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from queue import Empty, SimpleQueue


class Inbox:
    """Any thread (and a signal handler) posts; the loop polls `fileno` and reads."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[object] = SimpleQueue()
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def fileno(self) -> int:
        """Readable while something is posted."""
        return self._reader.fileno()

    def post(self, item: object) -> None:
        """Add an item and wake the loop."""
        self._queue.put(item)
        with contextlib.suppress(BlockingIOError, OSError):  # full: it is awake already; closed: nobody reads
            self._writer.send(b"\0")

    def read(self) -> Iterator[object]:
        """What is there now, in order."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        with contextlib.suppress(Empty):
            while True:
                yield self._queue.get_nowait()

    def close(self) -> None:
        """Free the sockets; later posts are lost."""
        self._reader.close()
        self._writer.close()
