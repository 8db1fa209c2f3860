"""What daemon and engine worker say on their pipe: msgpack of these Structs, each after its length (u32, big-endian).

The worker is `python -m punchin.engine.worker`: it reads commands on stdin, writes replies on stdout, logs on stderr,
and ends when stdin ends. Audio passes as files of raw float32 in the daemon's store: the daemon names the input files,
the worker writes each take into `out_dir` (fsynced) and the daemon adopts it.
"""

from __future__ import annotations

from typing import BinaryIO

import msgspec
from msgspec import Struct

from punchin.protocol import frames
from punchin.protocol.order import Channels, Frames, JobId, Order, Provenance


class Run(Struct, tag="run", frozen=True, kw_only=True):
    """Make the takes of one order. One at a time; the next one may come after done, failed or cancelled."""

    job: JobId
    attempt: int
    order: Order  # `model` is filled in
    files: dict[str, str]  # sha256 of each blob in the order -> absolute path of its bytes
    out_dir: str
    rung: int = 0  # how many rungs lower on the memory plan than the best


class Cancel(Struct, tag="cancel", frozen=True, kw_only=True):
    """Stop this job at the next step or tile. A job that is not running is ignored."""

    job: JobId


class Unload(Struct, tag="unload", frozen=True, kw_only=True):
    """End the process: the only way that surely returns the memory."""


class Ready(Struct, tag="ready", frozen=True, kw_only=True):
    """Said when commands are read, and again with the plan once a model is loaded.

    Memory in bytes, free as it was at the start; `device` like `cpu` or `cuda:0 RTX 4070`. weight_bytes: what a number
    of a large model takes there, 2 in bfloat16, 4 on a CPU that does not multiply it itself.
    """

    pid: int
    device: str
    total_bytes: int = 0
    free_bytes: int = 0
    weight_bytes: int = 2
    plan: str = ""  # where the model's parts are, in words; "" before one is loaded


class Progress(Struct, tag="progress", frozen=True, kw_only=True):
    """How far a phase is. Also the heartbeat: a worker that works says so at least each step."""

    job: JobId
    phase: str
    done: int
    total: int


class MadeTake(Struct, frozen=True, kw_only=True):
    """A take in a file: interleaved little-endian float32 at 48 kHz. passage: which of the order's."""

    seed: int
    path: str
    channels: Channels
    frames: Frames
    passage: int = 0


class Part(Struct, tag="part", frozen=True, kw_only=True):
    """A stretch of a take that is decoded already, for those who want to listen ahead. May be said or not.

    The file lies in `out_dir`, is complete, and is the daemon's from now on. `index` counts from 0 within the passage's
    seed; `start_frame` is counted in the take's (`wanted`) frames; the stretches of a seed adjoin.
    """

    job: JobId
    seed: int
    index: int
    start_frame: int
    path: str
    channels: int
    frames: int
    passage: int = 0


class Made(Struct, tag="made", frozen=True, kw_only=True):
    """The job is finished; all files are complete and fsynced."""

    job: JobId
    takes: tuple[MadeTake, ...]
    provenance: Provenance


class Stopped(Struct, tag="stopped", frozen=True, kw_only=True):
    """The job was cancelled in time; nothing of it remains."""

    job: JobId


class Failed(Struct, tag="failed", frozen=True, kw_only=True):
    """The job cannot be made. `code`: refused, oom, not_finite, unknown_model, model_missing, disk, disk_full, bug.

    After `oom` the worker ends. After `disk_full` the job waits, as does the queue, for `punchin resume`.
    """

    job: JobId
    code: str
    text: str
    hint: str = ""
    next_rung: int | None = None  # oom: what to try


Command = Run | Cancel | Unload
Reply = Ready | Progress | Part | Made | Stopped | Failed

_encoder = msgspec.msgpack.Encoder()
_commands = msgspec.msgpack.Decoder(Command)
_replies = msgspec.msgpack.Decoder(Reply)


def write(pipe: BinaryIO, message: Command | Reply) -> None:
    """Send one message, whole. Raises OSError when the other side is gone."""
    frames.write(pipe, _encoder.encode(message))


def read_command(pipe: BinaryIO) -> Command | None:
    """The next command, or None when the daemon is gone. Raises ValueError on bytes that are none."""
    body = frames.read(pipe)
    return None if body is None else _commands.decode(body)


def read_reply(pipe: BinaryIO) -> Reply | None:
    """The next reply, or None when the worker is gone. Raises ValueError on bytes that are none."""
    body = frames.read(pipe)
    return None if body is None else _replies.decode(body)
