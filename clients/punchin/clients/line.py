"""One connection to one life of the daemon: sockets, deadlines, and the certainty of its end.

Whether the daemon lives is read from its lock and its connection file, never guessed from silence alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import msgspec
import zmq

from punchin.protocol import codec, connection, lock, messages, version
from punchin.protocol.codec import Reader, Unreadable
from punchin.protocol.connection import Connection
from punchin.protocol.errors import Refused, Unreachable
from punchin.protocol.messages import DAEMON_TOPIC, MAGIC, DataReply, DataRequest, Failure, Notice, Reply, Request

REPLY_S: Final = 5.0  # then the request is sent again
TRIES: Final = 3
LOOK_S: Final = 0.25  # how often to look whether the daemon lives, while it says nothing

_R = TypeVar("_R", bound=Reply)
_D = TypeVar("_D", bound=DataReply)


class Lost(Unreachable):
    """One life of the daemon is over, or it does not answer."""


class Line:
    """Control and data sockets to one daemon. Not for two threads at once."""

    def __init__(self, found: Connection, name: str) -> None:
        self.found, self._name = found, name
        self._context: zmq.Context[Any] = zmq.Context()
        self._control = self._dealer(found.control)
        self._data: zmq.Socket[bytes] | None = None
        self._asked = 0
        self.received_pieces = 0  # on the data socket, for credit
        self._replies, self._data_replies = codec.control_replies(), codec.data_replies()
        self.welcome: messages.Welcome | None = None

    def close(self) -> None:
        """Close all sockets; what is not sent yet is dropped."""
        self._context.destroy(linger=0)

    def is_over(self) -> bool:
        """Whether this life of the daemon has ended, for certain."""
        if not lock.is_held(connection.daemon_lock()):
            return True
        now = connection.read()
        return now is not None and now.instance != self.found.instance

    def hello(self, wait_s: float) -> messages.Welcome:
        """Say who we are. Raises Lost, and Refused (`version`)."""
        self.welcome = self._ask(self._hello(), messages.Welcome, wait_s, tries=1)
        return self.welcome

    def _hello(self) -> messages.Hello:
        return messages.Hello(
            ask=0, lowest=version.PROTOCOL, highest=version.PROTOCOL, client=self._name, version=version.PACKAGE
        )

    def ask(self, request: Request, kind: type[_R]) -> _R:
        """The reply to a request. Raises Lost, and Refused with the daemon's reason."""
        try:
            return self._ask(request, kind, REPLY_S, TRIES)
        except Refused as error:
            if error.code != "hello_first":  # it forgot us: too many clients since
                raise
            self.hello(REPLY_S)
            return self._ask(request, kind, REPLY_S, TRIES)

    def _ask(self, request: Request, kind: type[_R], wait_s: float, tries: int) -> _R:
        self._asked += 1
        body = codec.encode(msgspec.structs.replace(request, ask=self._asked))
        most = self.welcome.limits.max_message_bytes if self.welcome is not None else len(body)
        if len(body) > most:
            hint = "ask for fewer regions or tracks at once, or with shorter lyrics"
            raise Refused(f"the request has {len(body):,} bytes, allowed is {most:,}", hint, code="too_big")
        for _ in range(tries):
            self._wait_for_room(self._control)
            self._control.send_multipart([MAGIC, body])
            until_s = time.monotonic() + wait_s
            while time.monotonic() < until_s:
                if not self._control.poll(int(1000 * min(LOOK_S, max(0.001, until_s - time.monotonic())))):
                    if self.is_over():
                        raise Lost("the daemon has ended")
                    continue
                reply = self._receive(self._control, self._replies, self._asked)
                if reply is not None:
                    return _expect(reply[0], kind)
        raise Lost(f"the daemon (pid {self.found.pid}) did not answer within {wait_s * tries:g} s", "punchin doctor")

    def _wait_for_room(self, socket: zmq.Socket[bytes]) -> None:
        """Until a socket takes more. Raises Lost where the daemon has ended: to send would wait for ever."""
        while not socket.poll(int(1000 * LOOK_S), zmq.POLLOUT):
            if self.is_over():
                raise Lost("the daemon has ended")

    # ---- data ----

    def send_data(self, request: DataRequest, body: memoryview | None = None) -> None:
        """Send on the data socket; answers come in the same order."""
        if self._data is None:
            self._data = self._dealer(self.found.data)
        self._wait_for_room(self._data)
        frames: list[bytes | memoryview] = [MAGIC, codec.encode(request)]
        self._data.send_multipart(frames if body is None else [*frames, body], copy=False)

    def receive_data(self, ask: int, kind: type[_D]) -> tuple[_D, memoryview]:
        """The answer to request number `ask`, and the bytes with it. Raises Lost, Refused."""
        assert self._data is not None
        until_s = time.monotonic() + REPLY_S * TRIES
        while time.monotonic() < until_s:
            if not self._data.poll(int(1000 * LOOK_S)):
                if self.is_over():
                    raise Lost("the daemon has ended")
                continue
            reply = self._receive(self._data, self._data_replies, ask)
            if reply is not None:
                return _expect(reply[0], kind), reply[1]
        raise Lost(f"the daemon (pid {self.found.pid}) sent nothing for {REPLY_S * TRIES:g} s", "punchin doctor")

    def drop_data(self) -> None:
        """Close the data socket: what is under way on it is of no interest any more."""
        if self._data is not None:
            self._data.close(0)
            self._data, self.received_pieces = None, 0

    # ---- events ----

    @contextmanager
    def feed(self, job: str) -> Iterator[zmq.Socket[bytes]]:
        """A socket that has a job's notices and the daemon's beat; the subscription is live. Raises Lost."""
        socket = self._socket(zmq.SUB)
        try:
            socket.subscribe(DAEMON_TOPIC.encode())
            socket.subscribe(job.encode())
            socket.connect(self.found.events)
            reader = codec.notices()
            until_s = time.monotonic() + REPLY_S * TRIES
            while True:
                notice = read_notice(socket, reader, LOOK_S)
                if isinstance(notice, messages.Subscribed) and notice.topic == job:
                    break
                if notice is None and self.is_over():
                    raise Lost("the daemon has ended")
                if time.monotonic() > until_s:
                    raise Lost("the daemon publishes nothing", "punchin doctor")
            yield socket
        finally:
            socket.close(0)

    # ---- sockets ----

    def _dealer(self, endpoint: str) -> zmq.Socket[bytes]:
        socket = self._socket(zmq.DEALER)
        socket.connect(endpoint)
        return socket

    def _socket(self, kind: int) -> zmq.Socket[bytes]:
        socket: zmq.Socket[bytes] = self._context.socket(kind)
        socket.linger = 0
        socket.reconnect_ivl = 50
        if self.found.server_key:
            public, secret = zmq.curve_keypair()
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.curve_serverkey = self.found.server_key.encode()
        return socket

    def _receive(self, socket: zmq.Socket[bytes], reader: Reader[Any], ask: int) -> tuple[Any, memoryview] | None:
        frames = cast("list[zmq.Frame]", socket.recv_multipart(copy=False))
        if len(frames) < 2:
            raise Unreadable(f"the daemon sent {len(frames)} frames")
        reply = reader.read(frames[0].bytes, frames[1].bytes)
        if reply.ask != ask:
            return None  # of a request that was given up
        return reply, frames[2].buffer if len(frames) > 2 else memoryview(b"")


def read_notice(socket: zmq.Socket[bytes], reader: Reader[Notice], wait_s: float) -> Notice | None:
    """The next notice, or None if there is none within `wait_s` seconds."""
    if not socket.poll(int(1000 * wait_s)):
        return None
    _, magic, body = socket.recv_multipart()
    return reader.read(magic, body)


def _expect(reply: object, kind: type[Any]) -> Any:
    if isinstance(reply, Failure):
        raise Refused(reply.text, reply.hint, reply.code)
    if not isinstance(reply, kind):
        raise Unreadable(f"the daemon answered {type(reply).__name__}, expected {kind.__name__}")
    return reply
