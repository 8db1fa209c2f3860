"""What a client and the plugin host say on their pipe: msgpack of these Structs in `frames`.

The host is `python -m punchin.plugin_host`: it reads requests on stdin, writes replies on stdout, logs on stderr, and
ends when stdin ends. Audio passes as files of raw little-endian float32, one channel after the other.
"""

from __future__ import annotations

from typing import Annotated, BinaryIO, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from punchin.protocol import frames

EFFECT_TIMEOUT_S = 120.0  # a big plug-in may take over a minute to load
MAX_EFFECTS = 32  # in one chain
MAX_CHAIN_BYTES = 64 * 1024  # of TOML
NO_ROOM = "free some space in the temporary folder"  # where the audio passes


class Check(Struct, tag="check", frozen=True, kw_only=True):
    """Read a chain and load its effects, without audio. `folder`: where relative paths in it begin.

    rate_hz: of the audio that is to come; None where it is not known, and corner frequencies are not looked at.
    """

    chain: Annotated[str, Meta(max_length=MAX_CHAIN_BYTES)]
    folder: str
    rate_hz: Annotated[int, Meta(ge=1)] | None = None


class Apply(Struct, tag="apply", frozen=True, kw_only=True):
    """Send audio through a chain: from the file `source` to the file `target`."""

    chain: Annotated[str, Meta(max_length=MAX_CHAIN_BYTES)]
    folder: str
    source: str
    target: str
    channels: Annotated[int, Meta(ge=1)]
    frames: Annotated[int, Meta(ge=1)]
    rate_hz: Annotated[int, Meta(ge=1)]


class Ready(Struct, tag="ready", frozen=True, kw_only=True):
    """Said once, when requests are read."""

    pid: int


class Working(Struct, tag="working", frozen=True, kw_only=True):
    """Said before each effect is loaded and before it is used: if nothing follows, it was this one."""

    effect: str  # as people call it: `Reverb (1 of 2)`
    doing: Literal["load", "process"]


class Done(Struct, tag="done", frozen=True, kw_only=True):
    """The request is finished; `target` is complete. `effects`: the chain, in order."""

    effects: tuple[str, ...]


class Refused(Struct, tag="refused", frozen=True, kw_only=True):
    """The chain is wrong, and nothing was done."""

    text: str
    hint: str = ""


class Failed(Struct, tag="failed", frozen=True, kw_only=True):
    """An effect could not do its work; or, where `effect` is empty, the host."""

    effect: str
    text: str
    hint: str = ""


Request = Check | Apply
Reply = Ready | Working | Done | Refused | Failed

_Message = TypeVar("_Message")
_encoder = msgspec.msgpack.Encoder()
_requests = msgspec.msgpack.Decoder(Request)
_replies = msgspec.msgpack.Decoder(Reply)


def write(pipe: BinaryIO, message: Request | Reply) -> None:
    """Send one message, whole. Raises OSError when the other side is gone."""
    frames.write(pipe, _encoder.encode(message))


def read_request(pipe: BinaryIO) -> Request | None:
    """The next request, or None when the client is gone. Raises ValueError on bytes that are none."""
    return _read(pipe, _requests)


def read_reply(pipe: BinaryIO) -> Reply | None:
    """The next reply, or None when the host is gone. Raises ValueError on bytes that are none."""
    return _read(pipe, _replies)


def _read(pipe: BinaryIO, decoder: msgspec.msgpack.Decoder[_Message]) -> _Message | None:
    body = frames.read(pipe)
    try:
        return None if body is None else decoder.decode(body)
    except RecursionError as error:
        raise ValueError("a message nested too deep") from error
