"""The jobs on disk. One transition, one transaction: state and event row are committed together, or neither is.

Submits, leases and ends are committed with synchronous=FULL (they survive a power cut), the rest with NORMAL (they
survive the end of the process). Time comes in as an argument. One thread uses a Journal.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from punchin.daemon import row as rows
from punchin.daemon.crash import crash_point
from punchin.daemon.row import Damaged, Row
from punchin.daemon.schema import bring_up
from punchin.protocol.codec import canonical
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.messages import Preview
from punchin.protocol.order import TERMINAL, Event, JobRecord, Order, State

MAY_BECOME: Final[Mapping[State, frozenset[State]]] = {
    "queued": frozenset({"leased", "failed", "cancelled"}),
    "leased": frozenset({"running", "queued", "failed", "cancelled"}),
    "running": frozenset({"storing", "queued", "failed", "cancelled"}),
    "storing": frozenset({"done", "queued", "failed", "cancelled"}),
    "done": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),  # the first terminal state wins
}
DURABLE: Final[frozenset[State]] = frozenset({"queued", "leased", "done", "failed", "cancelled"})
CHANGING: Final = frozenset(  # columns that may change with the state
    {"request", "takes", "provenance", "error_code", "error_text", "error_hint", "interruptions", "rung", "ooms"}
)
FULL: Final = ("free some disk space (punchin gc), then try again", "disk_full")
CURES: Final[Mapping[int, tuple[str, str]]] = {
    sqlite3.SQLITE_BUSY: ("close the program that holds it (a backup, a database browser), then try again", "journal"),
    sqlite3.SQLITE_READONLY: (
        "see to the rights in the state folder, which punchin doctor names, then try again",
        "journal",
    ),
}
_pack = msgspec.msgpack.Encoder().encode
_preview = msgspec.msgpack.Decoder(Preview)


class UnknownJob(Refused):
    """No such job here."""

    def __init__(self, job: str) -> None:
        super().__init__(f"job {job} is unknown here: never submitted, or removed by gc", "punchin jobs", "unknown_job")


class DamagedJob(Refused):
    """The row of one job can no longer be read; those of the others can."""

    def __init__(self, job: str, why: str) -> None:
        hint = "ask for its takes again; punchin jobs lists the others"
        super().__init__(f"job {job} is damaged in the journal: {why}", hint, "damaged_job")


class IllegalMove(PunchinError):
    """A bug: the table has no such transition. The job is as it was."""

    def __init__(self, job: str, state: State, to: State) -> None:
        super().__init__(f"bug in punchin: job {job} is {state} and cannot become {to}")


class JournalFull(Refused):
    """The journal cannot be written, for a full disk mostly; nothing changed."""

    def __init__(self, why: Exception) -> None:
        hint, code = CURES.get(getattr(why, "sqlite_errorcode", 0) & 0xFF, FULL)  # the low byte: without its kinds
        super().__init__(f"the journal cannot be written: {why}", hint, code)


class JournalDamaged(Refused):
    """What stands in the file is no journal, or no longer one."""

    def __init__(self, path: Path, why: object) -> None:
        hint = f"move {path} elsewhere: its jobs are forgotten then, takes that have landed stay where they are"
        super().__init__(f"{path} is no journal: {why}", hint, "journal")


def trouble(path: Path, error: Exception) -> JournalFull | JournalDamaged:
    """What an error in opening or reading is: the disk's, which passes, or the file's."""
    return JournalFull(error) if isinstance(error, sqlite3.OperationalError) else JournalDamaged(path, error)


def _text(raw: bytes) -> str:
    """A text of the file, where a bit may have changed: SQLite's own way is to refuse the whole query."""
    return raw.decode("utf-8", "replace")


class Journal:
    """The journal in one file. Raises JournalFull wherever the disk refuses, and is then as before."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)  # None: nothing begins unasked
        self._db.text_factory = _text
        try:
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA foreign_keys = ON")
            bring_up(self._db, path)
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise trouble(path, error) from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _write(self, durable: bool) -> Generator[sqlite3.Connection]:
        """One transaction, locked before it reads. All of it is committed at the end, or nothing."""
        try:
            self._db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._db.execute("BEGIN IMMEDIATE")
            yield self._db
            crash_point("journal.write")
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if isinstance(error, (sqlite3.OperationalError, OSError)):
                raise JournalFull(error) from error
            raise
        crash_point("journal.written")

    # ---- jobs ----

    def submit(
        self, job: str, order: Order, plan: bytes, keep_alive_s: float | None, at_ns: int, most_waiting: int
    ) -> tuple[Row, Event | None]:
        """The job and its first event; None if it was there already. Committed on return.

        Raises Refused: `conflict` (the id is another request's), `busy` (`most_waiting` jobs are queued).
        """
        digest = hashlib.sha256(canonical((order, plan))).digest()
        with self._write(durable=True) as db:
            found = db.execute("SELECT digest FROM jobs WHERE id = ?", (job,)).fetchone()
            if found is not None and found[0] != digest:
                raise Refused(f"job {job} is here already, with another order", "submit with a new id", "conflict")
            if found is None:
                waiting = db.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0]
                if waiting >= most_waiting:
                    raise Refused(f"{waiting} jobs are waiting, allowed is {most_waiting}", "punchin jobs", "busy")
                added = db.execute(
                    "INSERT INTO jobs (id, state, digest, request, plan, keep_alive_s, created_ns, seq)"
                    " VALUES (?, 'queued', ?, ?, ?, ?, ?, 1)",
                    (job, digest, _pack(order), plan, keep_alive_s, at_ns),
                )
                crash_point("journal.submit")
                self._record_event(added.lastrowid or 0, Event(job=job, seq=1, at_ns=at_ns, state="queued"))
                self._record_uses(added.lastrowid or 0, frozenset(blob.sha256 for blob in order.blobs))
        new = Event(job=job, seq=1, at_ns=at_ns, state="queued") if found is None else None
        return self.row(job), new

    def move(
        self,
        job: str,
        to: State,
        at_ns: int,
        text: str = "",
        uses: frozenset[str] = frozenset(),
        crashed: bool = False,
        **columns: object,
    ) -> Event:
        """Put a job into a new state and record the event, or do neither; on return both are committed.

        uses: blobs that are the job's from now on. crashed: counts one more death of the engine.
        columns: those of CHANGING that change with the state.
        A lease counts as an attempt, before it runs.
        Raises UnknownJob, DamagedJob, IllegalMove, JournalFull. After any error the job is as it was.
        """
        assert columns.keys() <= CHANGING
        with self._write(durable=to in DURABLE) as db:
            row = db.execute("SELECT number, state, seq FROM jobs WHERE id = ?", (job,)).fetchone()
            if row is None:
                raise UnknownJob(job)
            number, state, seq = row
            if state not in MAY_BECOME:
                raise DamagedJob(job, f"its state is {state!r}")
            if to not in MAY_BECOME[state]:
                raise IllegalMove(job, state, to)
            ended_ns = at_ns if not MAY_BECOME[to] else None
            changes = {"state": to, "seq": seq + 1, "ended_ns": ended_ns} | columns
            assignments = ", ".join(f"{name} = ?" for name in changes)
            assignments += ", attempts = attempts + 1" * (to == "leased") + ", crashes = crashes + 1" * crashed
            db.execute(f"UPDATE jobs SET {assignments} WHERE number = ?", (*changes.values(), number))
            crash_point("journal.move")  # nothing in production; in the crash test the process ends here
            event = Event(job=job, seq=seq + 1, at_ns=at_ns, state=to, text=text)
            self._record_event(number, event)
            self._record_uses(number, uses)
            if to == "queued":  # the next attempt begins anew
                db.execute("DELETE FROM previews WHERE job = ?", (number,))
            if ended_ns is not None:
                db.execute("UPDATE lives SET finished = finished + 1 WHERE number = (SELECT max(number) FROM lives)")
        return event

    def give_up(self, job: Damaged, at_ns: int) -> None:
        """Fail a job whose row cannot be read, whatever its state is."""
        error = DamagedJob(job.id, job.why)
        with self._write(durable=True) as db:
            seq = db.execute("SELECT max(seq) FROM events WHERE job = ?", (job.number,)).fetchone()[0] or 0
            values = (at_ns, seq + 1, error.code, str(error), error.hint, job.number)
            db.execute(
                "UPDATE jobs SET state = 'failed', ended_ns = ?, seq = ?, error_code = ?, error_text = ?,"
                " error_hint = ? WHERE number = ?",
                values,
            )
            event = Event(job=job.id, seq=seq + 1, at_ns=at_ns, state="failed", text=str(error))
            self._record_event(job.number, event)

    def _record_event(self, number: int, event: Event) -> None:
        values = (number, event.seq, event.at_ns, event.state, event.text)
        self._db.execute("INSERT INTO events (job, seq, at_ns, state, text) VALUES (?, ?, ?, ?, ?)", values)

    def _record_uses(self, number: int, blobs: frozenset[str]) -> None:
        uses = [(number, sha256) for sha256 in sorted(blobs)]
        self._db.executemany("INSERT OR IGNORE INTO uses (job, sha256) VALUES (?, ?)", uses)

    def ask_cancel(self, job: str) -> None:
        """Remember that a job shall stop, so that no restart runs it again."""
        self._set(job, "cancel_asked", 1)

    def set_landed(self, job: str, where: str) -> None:
        """Remember where a done job's takes are. Raises Refused (`not_done`)."""
        state = self.row(job).record.state
        if state != "done":
            raise Refused(f"job {job} is {state}; only a done job can land", f"punchin show {job}", "not_done")
        self._set(job, "landed", where)

    def set_pinned(self, job: str, pinned: bool) -> None:
        """Keep a job and its blobs whatever their age, or no longer."""
        self._set(job, "pinned", int(pinned))

    def _set(self, job: str, column: str, value: object) -> None:
        with self._write(durable=True) as db:
            if db.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, job)).rowcount == 0:
                raise UnknownJob(job)

    def add_preview(self, job: str, preview: Preview) -> None:
        """Record a decoded stretch of a take, which is in the store already."""
        with self._write(durable=False) as db:
            number = self._number(job)
            values = (number, preview.passage, preview.seed, preview.index, _pack(preview))
            db.execute("INSERT OR REPLACE INTO previews VALUES (?, ?, ?, ?, ?)", values)
            self._record_uses(number, frozenset({preview.sha256}))

    def _number(self, job: str) -> int:
        row = self._db.execute("SELECT number FROM jobs WHERE id = ?", (job,)).fetchone()
        if row is None:
            raise UnknownJob(job)
        return row[0]

    # ---- reading ----

    def has(self, job: str) -> bool:
        """Whether there is such a job."""
        return self._db.execute("SELECT 1 FROM jobs WHERE id = ?", (job,)).fetchone() is not None

    def row(self, job: str) -> Row:
        """One job, whole. Raises UnknownJob, DamagedJob."""
        values = self._db.execute(f"SELECT {rows.COLUMNS} FROM jobs WHERE id = ?", (job,)).fetchone()
        if values is None:
            raise UnknownJob(job)
        found = rows.read(values)
        if isinstance(found, Damaged):
            raise DamagedJob(job, found.why)
        return found

    def attempts(self, job: str) -> int:
        """How often a job was leased. Raises UnknownJob."""
        return self._db.execute("SELECT attempts FROM jobs WHERE number = ?", (self._number(job),)).fetchone()[0]

    def under_way(self) -> list[Row | Damaged]:
        """Jobs that have not ended, oldest first. One whose state is none has not."""
        marks = ", ".join("?" * len(TERMINAL))
        numbers = f"SELECT number FROM jobs WHERE state NOT IN ({marks})"  # of the index alone: most have ended
        query = f"SELECT {rows.COLUMNS} FROM jobs WHERE number IN ({numbers}) ORDER BY number"
        return [rows.read(values) for values in self._db.execute(query, tuple(TERMINAL))]

    def newest(self, before: str | None = None) -> Iterator[JobRecord | Damaged]:
        """Jobs, newest first, those submitted before job `before`; without their plans. Raises UnknownJob."""
        number = self._number(before) if before is not None else 2**62
        query = f"SELECT {rows.COLUMNS} FROM jobs WHERE number < ? ORDER BY number DESC"
        for values in self._db.execute(query, (number,)):
            found = rows.read(values)
            yield found if isinstance(found, Damaged) else msgspec.structs.replace(found.record, plan=b"")

    def events(self, job: str, since: int, most: int) -> list[Event]:
        """Up to `most` events of a job with seq > since, in order. Raises UnknownJob, DamagedJob."""
        names = ("seq", "at_ns", "state", "text")
        found = self._db.execute(
            f"SELECT {', '.join(names)} FROM events WHERE job = ? AND seq > ? ORDER BY seq LIMIT ?",
            (self._number(job), since, most),
        )
        try:
            return [msgspec.convert({"job": job, **dict(zip(names, row, strict=True))}, Event) for row in found]
        except msgspec.ValidationError as error:
            raise DamagedJob(job, f"an event: {error}") from error

    def previews(self, job: str) -> tuple[Preview, ...]:
        """The decoded stretches of a job's takes, by passage, seed and order; none where one can no longer be read."""
        query = "SELECT preview FROM previews WHERE job = ? ORDER BY passage, seed, part"
        found = self._db.execute(query, (self._number(job),))
        try:
            return tuple(_preview.decode(packed) for (packed,) in found)
        except rows.UNREADABLE:  # they serve who listens ahead: the takes come whole
            return ()

    def counts(self) -> dict[str, int]:
        """How many jobs are in each state, and in what a damaged row has for one."""
        return dict(self._db.execute("SELECT CAST(state AS TEXT), count(*) FROM jobs GROUP BY 1").fetchall())

    def check(self) -> str:
        """`ok`, or the first thing that SQLite finds wrong with the file."""
        try:
            return self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            return str(error)

    # ---- for retention ----

    def ended(self) -> list[tuple[int, int, bool]]:
        """(number, ended_ns, waits) of the jobs that ended and are not pinned; `waits`: its takes have not landed.

        Oldest first, those that wait after all others. Of a date that is damaged: 0, which nobody believes.
        """
        found = self._db.execute(
            "SELECT number, CASE typeof(ended_ns) WHEN 'integer' THEN ended_ns ELSE 0 END AS at_ns,"
            " state = 'done' AND landed = '' AS waits FROM jobs"
            " WHERE ended_ns IS NOT NULL AND NOT pinned ORDER BY waits, at_ns, number"
        )
        return [(number, ended_ns, bool(waits)) for number, ended_ns, waits in found]

    def users(self) -> dict[str, set[int]]:
        """Which jobs refer to each blob."""
        users: dict[str, set[int]] = {}
        for number, sha256 in self._db.execute("SELECT job, sha256 FROM uses"):
            users.setdefault(sha256, set()).add(number)
        return users

    def results(self) -> dict[str, int]:
        """The blobs of all takes of done jobs that can be read, and the bytes of each."""
        sizes: dict[str, int] = {}
        for (packed,) in self._db.execute("SELECT takes FROM jobs WHERE state = 'done'"):
            with suppress(*rows.UNREADABLE):  # `newest` names it
                sizes |= {take.audio.sha256: take.audio.size_bytes for take in rows.takes(packed)}
        return sizes

    def forget(self, numbers: set[int]) -> None:
        """Remove jobs with their events, uses and previews."""
        with self._write(durable=True) as db:
            db.executemany("DELETE FROM jobs WHERE number = ?", [(number,) for number in sorted(numbers)])

    # ---- lives of the daemon ----

    def set_paused(self, why: str) -> None:
        """Remember why no job shall begin, for the lives to come, too; "" where jobs may."""
        with self._write(durable=True) as db:
            db.execute("DELETE FROM paused")
            db.execute("INSERT INTO paused VALUES (?)", (why,))

    def paused(self) -> str:
        """Why no job shall begin; "" where jobs may."""
        found = self._db.execute("SELECT why FROM paused").fetchone()
        return found[0] if found is not None else ""

    def begin_life(self, instance: str, at_ns: int) -> int:
        """Record that a daemon begins. Returns how many before it, in a row, were killed at work and finished nothing.

        Call it before the jobs of the life before are put back: they tell whether it was at work.
        """
        with self._write(durable=False) as db:
            at_work = db.execute("SELECT count(*) FROM jobs WHERE state IN ('leased', 'running', 'storing')").fetchone()
            last = "number = (SELECT max(number) FROM lives) AND ended_ns IS NULL"
            db.execute(f"UPDATE lives SET cut = ? WHERE {last}", (int(at_work[0] > 0),))
            lives = db.execute("SELECT cut AND NOT finished FROM lives ORDER BY number DESC LIMIT 20").fetchall()
            values = (instance, os.getpid(), at_ns)
            db.execute("INSERT INTO lives (instance, pid, started_ns) VALUES (?, ?, ?)", values)
            db.execute("DELETE FROM lives WHERE number <= (SELECT max(number) FROM lives) - 100")
        return next((i for i, (futile,) in enumerate(lives) if not futile), len(lives))

    def end_life(self, at_ns: int) -> None:
        """Record that this daemon ends on purpose."""
        with self._write(durable=False) as db:
            db.execute("UPDATE lives SET ended_ns = ? WHERE number = (SELECT max(number) FROM lives)", (at_ns,))
