"""Blobs over the data socket: CREDIT_CHUNKS pieces ahead, resumed where a daemon that died had got to."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from typing import Final

from punchin.clients.line import Line
from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.protocol.messages import Chunk, Get, Piece, Put, Taken

AGAIN: Final = frozenset({"put_first", "bad_offset", "hash_mismatch"})  # sending again helps: another put stood between
TRIES: Final = 3


def put(line: Line, data: memoryview) -> str:
    """Store bytes; returns their sha256 once they are on the daemon's disk. Raises Lost, Refused."""
    sha256 = hashlib.sha256(data).hexdigest()
    for left in reversed(range(TRIES)):
        try:
            send(line, data, sha256)
        except Refused as error:
            line.drop_data()  # with the answers that are still to come
            if error.code not in AGAIN or not left:
                raise
        else:
            break
    return sha256


def send(line: Line, data: memoryview, sha256: str) -> None:
    """Store bytes whose sha256 is known. Raises Lost, Refused; for the codes in AGAIN it may be tried again."""
    line.send_data(Put(ask=0, sha256=sha256, size_bytes=len(data)))
    taken, _ = line.receive_data(0, Taken)
    starts = range(taken.offset, len(data), limits.CHUNK_BYTES)
    if taken.stored:
        return
    under_way: deque[int] = deque()
    for number, start in enumerate(starts, start=1):
        piece = data[start : start + limits.CHUNK_BYTES]
        line.send_data(Chunk(ask=number, sha256=sha256, offset=start), piece)
        under_way.append(number)
        if len(under_way) >= limits.CREDIT_CHUNKS:
            taken, _ = line.receive_data(under_way.popleft(), Taken)
    for number in under_way:
        taken, _ = line.receive_data(number, Taken)
    if not taken.stored:
        raise Refused(f"the daemon holds {taken.offset} of {len(data)} bytes", code="bad_offset")


def get(line: Line, sha256: str) -> bytearray:
    """A blob's bytes, checked against the hash. Raises Lost, Refused (`unknown_blob`, `damaged_blob`)."""
    whole, digest = bytearray(), hashlib.sha256()
    try:
        for body in pieces(line, sha256):
            whole += body
            digest.update(body)  # while the next ones are on their way
    except Refused:
        line.drop_data()
        raise
    if digest.hexdigest() != sha256:
        text = f"blob {sha256[:12]} is damaged on the daemon's disk"
        raise Refused(text, "punchin redo ID makes a take again", "damaged_blob")
    return whole


def pieces(line: Line, sha256: str) -> Iterator[memoryview]:
    """A blob piece by piece, in order, unchecked. Raises as `get`."""

    def want(number: int) -> None:
        offset = number * limits.CHUNK_BYTES
        line.send_data(Get(ask=number, sha256=sha256, offset=offset, received=line.received_pieces))

    want(0)
    asked, count, number = 1, 1, 0
    while number < count:
        piece, body = line.receive_data(number, Piece)
        line.received_pieces += 1
        count = -(-piece.size_bytes // limits.CHUNK_BYTES)
        while asked < min(count, number + 1 + limits.CREDIT_CHUNKS):
            want(asked)
            asked += 1
        number += 1
        yield body
