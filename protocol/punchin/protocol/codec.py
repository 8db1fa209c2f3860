"""Bytes to messages and back. Whatever is wrong with foreign bytes comes out as one error: Unreadable.

Decoding is the one place where foreign bytes become values: size is checked before it, and type, bounds, UTF-8 and
nesting in it. Nothing here reads a file or runs anything.
"""

from __future__ import annotations

from typing import Final, Generic, TypeVar, cast, get_args

import msgspec
from msgspec import Struct

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.protocol.messages import MAGIC, DataReply, DataRequest, Failure, Notice, Reply, Request

MAX_REPLY_BYTES: Final = 4 * 1024 * 1024  # what a client takes from the daemon in one message

T = TypeVar("T")


class Unreadable(Refused):
    """Bytes that are no message, or a message that could never be obeyed. `ask` is its number, 0 if unknown.

    code: `bad_message`, `unknown_kind`, `too_big`, or that of the Refused which a message's own check raised.
    """

    def __init__(self, text: str, *, ask: int = 0, code: str = "bad_message", hint: str = "") -> None:
        super().__init__(text, hint, code)
        self.ask = ask

    def failure(self) -> Failure:
        """The one reply that such bytes get."""
        return Failure(ask=self.ask, code=self.code, text=str(self), hint=self.hint)


class _Head(Struct, frozen=True):
    type: str = ""
    ask: int = 0


_encoder = msgspec.msgpack.Encoder()
_sorting_encoder = msgspec.msgpack.Encoder(order="sorted")
_head = msgspec.msgpack.Decoder(_Head)


def encode(message: Request | Reply | Notice | DataRequest | DataReply) -> bytes:
    """The message as msgpack; the frame that follows MAGIC."""
    return _encoder.encode(message)


def canonical(value: object) -> bytes:
    """Msgpack with sorted maps: equal values give equal bytes, so that their digests can be compared."""
    return _sorting_encoder.encode(value)


class Reader(Generic[T]):
    """Reads one direction of one socket: a union of message types, each at most `most_bytes`."""

    def __init__(self, union: object, most_bytes: int) -> None:
        self._decoder = msgspec.msgpack.Decoder(cast("type[T]", union))
        self._types = {kind.__struct_config__.tag for kind in get_args(union)}
        self._most_bytes = most_bytes

    def read(self, magic: bytes, body: bytes) -> T:
        """The message in a pair of frames. Raises Unreadable, and nothing else."""
        if magic != MAGIC:
            raise Unreadable(f"the first frame is {magic[:20]!r}, expected {MAGIC!r}")
        if len(body) > self._most_bytes:
            raise Unreadable(f"a message of {len(body)} bytes, allowed is {self._most_bytes}", code="too_big")
        try:
            head = _head.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(_reason(error)) from error
        ask = head.ask if 0 <= head.ask < 2**53 else 0
        if head.type not in self._types:
            raise Unreadable(f"unknown message type {head.type[:40]!r}", ask=ask, code="unknown_kind")
        try:
            return self._decoder.decode(body)
        except Refused as error:  # the check of an Order: its text is the answer
            raise Unreadable(str(error), ask=ask, code=error.code, hint=error.hint) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(_reason(error), ask=ask) from error


def _reason(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "the message is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "the message holds text that is not UTF-8"
    return f"the message does not fit: {error}"[:500]


def control_requests() -> Reader[Request]:
    """What the daemon reads on control."""
    return Reader(Request, limits.MAX_MESSAGE_BYTES)


def control_replies() -> Reader[Reply]:
    """What a client reads on control."""
    return Reader(Reply, MAX_REPLY_BYTES)


def notices() -> Reader[Notice]:
    """What a client reads on events."""
    return Reader(Notice, MAX_REPLY_BYTES)


def data_requests() -> Reader[DataRequest]:
    """What the daemon reads on data."""
    return Reader(DataRequest, limits.MAX_MESSAGE_BYTES)


def data_replies() -> Reader[DataReply]:
    """What a client reads on data."""
    return Reader(DataReply, MAX_REPLY_BYTES)


def all_messages() -> dict[str, type[Struct]]:
    """Every message by its tag, for docs, vectors and tests."""
    unions = (Request, Reply, Notice, DataRequest, DataReply)
    return {kind.__struct_config__.tag: kind for union in unions for kind in get_args(union)}
