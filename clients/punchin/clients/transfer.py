"""Blobs over the data socket: CREDIT_CHUNKS pieces ahead, resumed where a daemon that died had got to."""

from __future__ import annotations

import hashlib
from collections import deque
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
            _put(line, data, sha256)
        except Refused as error:
            line.drop_data()  # with the answers that are still to come
            if error.code not in AGAIN or not left:
                raise
        else:
            break
    return sha256


def _put(line: Line, data: memoryview, sha256: str) -> None:
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
    try:
        whole = _get(line, sha256)
    except Refused:
        line.drop_data()
        raise
    if hashlib.sha256(whole).hexdigest() != sha256:
        raise Refused(f"blob {sha256[:12]} is damaged on the daemon's disk", "punchin doctor", "damaged_blob")
    return whole


def _get(line: Line, sha256: str) -> bytearray:
    def want(number: int, offset: int) -> None:
        line.send_data(Get(ask=number, sha256=sha256, offset=offset, received=line.received_pieces))

    def have(number: int) -> Piece:
        piece, body = line.receive_data(number, Piece)
        line.received_pieces += 1
        if piece.offset == 0 and not whole:
            whole.extend(bytes(piece.size_bytes))
        whole[piece.offset : piece.offset + len(body)] = body
        return piece

    whole = bytearray()
    want(0, 0)
    size = have(0).size_bytes
    under_way: deque[int] = deque()
    for number, offset in enumerate(range(limits.CHUNK_BYTES, size, limits.CHUNK_BYTES), start=1):
        want(number, offset)
        under_way.append(number)
        if len(under_way) >= limits.CREDIT_CHUNKS:
            have(under_way.popleft())
    for number in under_way:
        have(number)
    return whole
