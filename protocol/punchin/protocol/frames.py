"""Bytes on a pipe between two processes: each message after its length (u32, big-endian)."""

from __future__ import annotations

from typing import BinaryIO

MAX_FRAME_BYTES = 4 * 1024 * 1024


def write(pipe: BinaryIO, body: bytes) -> None:
    """Send one message, whole. Raises OSError when the other side is gone."""
    pipe.write(len(body).to_bytes(4, "big") + body)
    pipe.flush()


def read(pipe: BinaryIO) -> bytes | None:
    """The next message, or None when the other side is gone. Raises ValueError on a length that none may have."""
    head = pipe.read(4)
    if len(head) < 4:
        return None
    size = int.from_bytes(head, "big")
    if size > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {size} bytes on the pipe, allowed is {MAX_FRAME_BYTES}")
    body = pipe.read(size)
    return body if len(body) == size else None
