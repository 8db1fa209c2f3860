"""The daemon's sockets: where they are bound, and a ROUTER that never drops a reply in silence."""

from __future__ import annotations

import os
import secrets
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import zmq

from punchin.protocol import connection

SUN_PATH_BYTES: Final = 100  # a Unix socket's name has 108 at most on Linux, 104 on macOS
OUTBOX_MESSAGES: Final = 64  # of one peer that does not read, past what ZeroMQ holds; more, and it is dropped

Frame = bytes | memoryview | zmq.Frame


@dataclass(frozen=True, slots=True)
class Keys:
    """CURVE keys of the server, Z85. Whoever knows `public` may connect: it stands in the 0600 file alone."""

    public: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where the sockets are to be bound: ipc in the private folder, or loopback tcp with CURVE."""

    folder: Path | None
    keys: Keys | None

    def sweep(self) -> None:
        """Remove the names of sockets: of a daemon that was killed, or of this one at its end. The lock is held."""
        for left in self.folder.glob("*.sock") if self.folder is not None else ():
            left.unlink(missing_ok=True)

    @property
    def transport(self) -> str:
        """In words, for `status`."""
        return "ipc" if self.folder is not None else "tcp+curve"


def choose_place() -> Place:
    """Where to bind: ipc if the system has it and the folder leaves room in a name, else (or if asked) tcp."""
    folder = connection.folder()
    room = len(os.fsencode(folder)) + 24 <= SUN_PATH_BYTES
    if room and zmq.has("ipc") and sys.platform != "win32" and os.environ.get("PUNCHIN_TRANSPORT") != "tcp":
        place = Place(folder, None)
        place.sweep()
        return place
    return Place(None, Keys(*zmq.curve_keypair()))


def bind(socket: zmq.Socket[bytes], place: Place, name: str) -> str:
    """Bind a socket in its place; returns the endpoint for clients."""
    if place.folder is not None:
        endpoint = f"ipc://{place.folder}/{name}-{secrets.token_hex(4)}.sock"
        socket.bind(endpoint)
        return endpoint
    assert place.keys is not None
    socket.curve_server = True
    socket.curve_publickey, socket.curve_secretkey = place.keys.public, place.keys.secret
    return f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"


class Router:
    """A ROUTER socket. A send that ZeroMQ cannot take waits in the peer's bounded outbox; a gone peer loses its own.

    Without ROUTER_MANDATORY, ZeroMQ throws a reply away when the peer's pipe counts as full, and reports success.
    """

    def __init__(self, context: zmq.Context[Any], max_frame_bytes: int) -> None:
        self.socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
        self.socket.router_mandatory = 1
        self.socket.linger = 0
        self.socket.maxmsgsize = max_frame_bytes  # a fuse: ZeroMQ hangs up on more
        self._outboxes: dict[bytes, deque[Sequence[Frame]]] = {}
        self.dropped = 0

    def receive(self) -> tuple[bytes, list[zmq.Frame]] | None:
        """A peer and its frames, or None when nothing is there."""
        try:
            peer, *frames = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return None
        return peer.bytes, frames

    def send(self, peer: bytes, frames: Sequence[Frame]) -> None:
        """Send, now or from the outbox."""
        outbox = self._outboxes.get(peer)
        if outbox is None and self._try(peer, frames):
            return
        outbox = self._outboxes.setdefault(peer, deque())
        if len(outbox) >= OUTBOX_MESSAGES:
            self.dropped += len(outbox)
            del self._outboxes[peer]  # it will ask again: every request is safe to repeat
            return
        outbox.append(frames)

    @property
    def waiting(self) -> bool:
        """Whether an outbox holds something; then call `flush` every few milliseconds."""
        return bool(self._outboxes)

    def flush(self) -> None:
        """Send what the outboxes hold, as far as it goes."""
        for peer, outbox in list(self._outboxes.items()):
            while outbox and self._try(peer, outbox[0]):
                outbox.popleft()
            if not outbox:
                self._outboxes.pop(peer, None)

    def _try(self, peer: bytes, frames: Sequence[Frame]) -> bool:
        """Whether the frames are dealt with: sent, or their peer is gone."""
        try:
            self.socket.send_multipart([peer, *frames], zmq.DONTWAIT, copy=False)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._outboxes.pop(peer, None)
        return True
