"""What a starting daemon does with the jobs of the one before. The usual start: a kill is not a special case."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from punchin.daemon.crash import crash_point
from punchin.daemon.happenings import Card
from punchin.daemon.journal import Journal, trouble
from punchin.daemon.row import Damaged, Row
from punchin.daemon.scheduler import MAX_INTERRUPTIONS, SECOND
from punchin.protocol.order import State

FUTILE_LIVES = 3  # killed at work, nothing finished, in a row: the queue starts paused


def recover(journal: Journal, instance: str) -> tuple[list[Card], str]:
    """The jobs to do, and why the queue starts paused ("" if it does not). One that cannot be read fails.

    Raises JournalFull, JournalDamaged.
    """
    try:
        futile = journal.begin_life(instance, time.time_ns())
        for row in journal.under_way():
            crash_point("journal.recover")
            if isinstance(row, Damaged):
                journal.give_up(row, time.time_ns())
            else:
                _put_back(journal, row)
        cards = [card_of(row) for row in journal.under_way() if isinstance(row, Row)]
        paused = journal.paused()
        if not paused and futile >= FUTILE_LIVES and cards:
            paused = f"the daemon was killed {futile} times in a row while it worked"
            journal.set_paused(paused)  # a life that only waits would break the row
    except sqlite3.DatabaseError as error:
        raise trouble(journal.path, error) from error
    return cards, paused


def _put_back(journal: Journal, row: Row) -> None:
    job, state = row.record.id, row.record.state
    to: State = "queued"
    text = "the daemon was killed; this job starts again"
    columns: dict[str, Any] = {}
    if row.cancel_asked:
        to, text = "cancelled", "cancelled before the daemon was killed"
    elif state == "queued":
        return
    else:
        columns["interruptions"] = row.interruptions + 1
        if row.interruptions + 1 >= MAX_INTERRUPTIONS:
            to, text = "failed", f"the daemon was killed {MAX_INTERRUPTIONS} times while it worked on this job"
            columns |= {"error_code": "interrupted", "error_text": text, "error_hint": "punchin doctor"}
    journal.move(job, to, time.time_ns(), text, frozenset(), **columns)


def card_of(row: Row) -> Card:
    """What the scheduler needs to know of a job."""
    return Card(
        id=row.record.id,
        number=row.number,
        interactive=row.record.order.interactive,
        state=row.record.state,
        crashes=row.crashes,
        ooms=row.ooms,
        rung=row.rung,
        keep_alive_ns=None if row.keep_alive_s is None else int(row.keep_alive_s * SECOND),
    )
