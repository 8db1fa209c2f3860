"""A row of the journal's table of jobs, read. Disks forget bits: a row that is no longer one costs one job."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from punchin.protocol.errors import Refused
from punchin.protocol.order import JobRecord, Order, Provenance, Take

COLUMNS: Final = (
    "id, state, request, plan, created_ns, attempts, seq, takes, provenance, error_code, error_text, error_hint,"
    " landed, number, crashes, interruptions, ooms, rung, keep_alive_s, cancel_asked, pinned"
)  # fmt: skip
UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, TypeError, Refused)
_order = msgspec.msgpack.Decoder(Order)
_takes = msgspec.msgpack.Decoder(tuple[Take, ...])
_provenance = msgspec.msgpack.Decoder(Provenance)


class Row(msgspec.Struct, frozen=True):
    """A job with what only the daemon needs to know."""

    record: JobRecord
    number: int
    crashes: int
    interruptions: int
    ooms: int
    rung: int
    keep_alive_s: float | None
    cancel_asked: bool
    pinned: bool


class Damaged(msgspec.Struct, frozen=True):
    """A job whose row can no longer be read, and why not. id: as it stands there."""

    id: str
    number: int
    why: str


def read(values: tuple[Any, ...]) -> Row | Damaged:
    """What stands in the COLUMNS of a row, each value checked as one from outside is."""
    try:
        record = {
            "id": values[0],
            "state": values[1],
            "order": _order.decode(values[2]),
            "plan": bytes(values[3]),
            "created_ns": values[4],
            "attempts": values[5],
            "seq": values[6],
            "takes": takes(values[7]),
            "provenance": _provenance.decode(values[8]) if values[8] else None,
            "error_code": values[9],
            "error_text": values[10],
            "error_hint": values[11],
            "landed": values[12],
        }
        names = ("number", "crashes", "interruptions", "ooms", "rung", "keep_alive_s")
        beside = dict(zip(names, values[13:19], strict=True))
        beside |= {"cancel_asked": bool(values[19]), "pinned": bool(values[20])}
        return msgspec.convert({"record": record, **beside}, Row)
    except UNREADABLE as error:
        return Damaged(str(values[0]), values[13], str(error))


def takes(packed: bytes | None) -> tuple[Take, ...]:
    """The takes of a row. Raises what is UNREADABLE."""
    return _takes.decode(packed) if packed else ()
