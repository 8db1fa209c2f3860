"""The journal: the table of moves walked whole, idempotent submits, and what a full disk leaves behind."""

import contextlib
import errno
import itertools
import sqlite3

import msgspec
import pytest

from punchin.daemon import crash
from punchin.daemon.journal import (
    MAY_BECOME,
    DamagedJob,
    IllegalMove,
    Journal,
    JournalDamaged,
    JournalFull,
    UnknownJob,
)
from punchin.daemon.recovery import recover
from punchin.daemon.row import Damaged, Row
from punchin.daemon.schema import SCHEMA
from punchin.protocol.errors import Refused
from punchin.protocol.messages import Preview
from punchin.protocol.order import TERMINAL, Order

PATHS = {  # the shortest way to each state, written by hand
    "queued": [],
    "leased": ["leased"],
    "running": ["leased", "running"],
    "storing": ["leased", "running", "storing"],
    "done": ["leased", "running", "storing", "done"],
    "failed": ["failed"],
    "cancelled": ["cancelled"],
}


def order(prompt="hello"):
    return Order(task="text2music", frames=4_800, prompt=prompt, model="identity")


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.sqlite")
    yield journal
    journal.close()


def submit(journal, job="job-00001", prompt="hello", most=10):
    return journal.submit(job, order(prompt), b"plan", None, 5, most)


def bring(journal, state, job="job-00001"):
    submit(journal, job)
    for to in PATHS[state]:
        journal.move(job, to, 6)


@pytest.mark.parametrize(("at", "to"), list(itertools.product(PATHS, PATHS)))
def test_every_move_of_the_table_and_no_other(journal, at, to):
    bring(journal, at)
    before = journal.row("job-00001"), journal.events("job-00001", 0, 99)
    if to in MAY_BECOME[at]:
        event = journal.move("job-00001", to, 7, "why")
        assert (event.seq, event.state, event.text) == (len(PATHS[at]) + 2, to, "why")
        assert journal.row("job-00001").record.state == to
        assert journal.events("job-00001", 0, 99)[-1] == event
    else:
        with pytest.raises(IllegalMove, match=f"is {at} and cannot become {to}"):
            journal.move("job-00001", to, 7)
        assert (journal.row("job-00001"), journal.events("job-00001", 0, 99)) == before


def test_the_end_is_the_end():
    assert {state for state, later in MAY_BECOME.items() if not later} == TERMINAL


def test_an_attempt_counts_before_it_runs(journal):
    bring(journal, "leased")
    assert journal.row("job-00001").record.attempts == 1
    journal.move("job-00001", "queued", 8)
    journal.move("job-00001", "leased", 9)
    assert journal.row("job-00001").record.attempts == 2


def test_the_same_submit_twice_is_one_job(journal):
    row, event = submit(journal)
    assert event.seq == 1
    again, nothing = submit(journal)
    assert nothing is None
    assert again == row
    with pytest.raises(Refused) as error:
        submit(journal, prompt="other")
    assert error.value.code == "conflict"
    assert journal.row("job-00001") == row


def test_too_many_waiting(journal):
    for number in range(3):
        submit(journal, f"job-{number:05}", most=3)
    with pytest.raises(Refused, match="3 jobs are waiting, allowed is 3") as error:
        submit(journal, "job-99999", most=3)
    assert error.value.code == "busy"
    assert submit(journal, "job-00002", most=3)[1] is None  # one that is there already is no further one


@pytest.mark.parametrize("point", ["journal.submit", "journal.write", "journal.written"])
def test_a_disk_that_is_full_at_submit(journal, monkeypatch, point):
    monkeypatch.setattr(crash, "_plan", {point: ("full", 0)})
    with pytest.raises((JournalFull, OSError)):
        submit(journal)
    monkeypatch.undo()
    if point != "journal.written":
        with pytest.raises(UnknownJob):
            journal.row("job-00001")
    assert submit(journal)[0].record.state == "queued"


def test_a_disk_that_is_full_at_a_move(journal, monkeypatch):
    bring(journal, "running")
    before = journal.row("job-00001"), journal.events("job-00001", 0, 99)
    monkeypatch.setattr(crash, "_plan", {"journal.move": ("full", 0)})
    with pytest.raises(JournalFull, match="No space left on device") as error:
        journal.move("job-00001", "storing", 7)
    assert error.value.code == "disk_full"
    assert (journal.row("job-00001"), journal.events("job-00001", 0, 99)) == before
    monkeypatch.undo()
    assert journal.move("job-00001", "storing", 7).seq == 4


def test_a_journal_that_another_program_holds_is_no_full_disk(journal):
    bring(journal, "running")
    journal._db.execute("PRAGMA busy_timeout = 10")  # milliseconds, instead of five seconds
    with contextlib.closing(sqlite3.connect(journal.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(JournalFull, match="database is locked") as error:
            journal.move("job-00001", "storing", 7)
    assert error.value.code == "journal"
    assert error.value.hint.startswith("close the program that holds it")
    assert journal.move("job-00001", "storing", 7).seq == 4


def test_the_next_life_puts_jobs_back(tmp_path):
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    recover(journal, "first")
    for number, state in enumerate(PATHS):
        bring(journal, state, f"job-{number:05}")
    journal.ask_cancel("job-00002")
    journal.close()
    journal = Journal(path)
    cards, paused = recover(journal, "second")
    assert paused == ""
    assert {card.id: card.state for card in cards} == dict.fromkeys(["job-00000", "job-00001", "job-00003"], "queued")
    assert journal.row("job-00002").record.state == "cancelled"
    assert journal.row("job-00001").interruptions == 1
    assert journal.row("job-00000").interruptions == 0
    journal.close()


def test_a_job_in_which_the_daemon_always_dies_is_put_aside(tmp_path):
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    recover(journal, "life 0")
    bring(journal, "running")
    for number in range(1, 6):
        journal.close()
        journal = Journal(path)
        cards, paused = recover(journal, f"life {number}")
        assert bool(paused) == (3 <= number < 5)  # 5: nothing is left to wait
        if number < 5:
            assert [card.state for card in cards] == ["queued"]
            assert journal.paused() == paused, "for a life that only waits, too"
            journal.set_paused("")  # somebody resumes it
            journal.move("job-00001", "leased", 8)
    record = journal.row("job-00001").record
    assert (record.state, record.error_code, record.attempts) == ("failed", "interrupted", 5)
    journal.close()


def test_a_daemon_that_was_killed_with_nothing_to_do_is_no_crash_loop(tmp_path):
    for number in range(6):
        journal = Journal(tmp_path / "journal.sqlite")
        if not number:
            submit(journal)
        assert recover(journal, f"life {number}")[1] == ""
        journal.close()


def test_a_daemon_that_was_killed_but_finished_jobs_is_no_crash_loop(tmp_path):
    """A busy queue on a machine that is switched off each evening goes on in the morning."""
    journal = Journal(tmp_path / "journal.sqlite")
    recover(journal, "life 0")
    for number in range(1, 6):
        bring(journal, "done", f"done-{number:05}")
        bring(journal, "running", f"left-{number:05}")
        journal.close()
        journal = Journal(tmp_path / "journal.sqlite")
        assert recover(journal, f"life {number}")[1] == ""
    journal.close()


def test_ten_thousand_jobs_are_back_at_once(tmp_path):
    """The count of statements, not the time: one look, and one move for each job that was at work."""
    journal = Journal(tmp_path / "journal.sqlite")
    bring(journal, "running")
    db = journal._db
    db.execute("BEGIN")
    for number in range(10_000):
        db.execute(
            "INSERT INTO jobs (id, state, digest, request, plan, created_ns) SELECT ?, 'done', digest, request, plan, 1"
            " FROM jobs WHERE number = 1",
            (f"old-{number:08}",),
        )
    db.execute("COMMIT")
    statements = []
    db.set_trace_callback(statements.append)
    cards, _ = recover(journal, "next")
    db.set_trace_callback(None)
    assert [card.id for card in cards] == ["job-00001"]
    assert len(statements) < 30
    plan = db.execute("EXPLAIN QUERY PLAN SELECT id FROM jobs WHERE state IN ('queued', 'leased')").fetchall()
    assert "jobs_by_state" in plan[0][-1]
    journal.close()


def test_a_file_of_the_first_format_keeps_what_it_holds(tmp_path):
    path = tmp_path / "journal.sqlite"
    db = sqlite3.connect(path)
    db.executescript(SCHEMA)
    old = Preview(seed=3, index=1, start_frame=0, sha256="5f" * 32, channels=2, frames=10)
    first = msgspec.msgpack.encode({k: v for k, v in msgspec.to_builtins(order()).items() if k not in ("also", "name")})
    db.execute(
        "INSERT INTO jobs (id, state, digest, request, plan, created_ns, seq)"
        " VALUES ('job-00001', 'done', x'', ?, x'', 5, 1)",
        (first,),
    )
    db.execute("INSERT INTO previews VALUES (1, 3, 1, ?)", (msgspec.msgpack.encode(old),))
    db.commit()
    db.close()
    for _ in range(2):
        journal = Journal(path)
        assert journal.previews("job-00001") == (old,)
        assert journal.row("job-00001").record.order == order()
        journal.close()


def test_a_pause_outlives_the_daemon(journal):
    assert recover(journal, "first")[1] == ""
    journal.set_paused("by the user")
    assert recover(journal, "second")[1] == "by the user"
    journal.set_paused("for dinner")
    assert recover(journal, "third")[1] == "for dinner"
    journal.set_paused("")
    assert recover(journal, "fourth")[1] == ""


def test_previews_of_two_passages_do_not_meet(journal):
    submit(journal)
    one = Preview(seed=3, index=0, start_frame=0, sha256="0" * 64, channels=2, frames=9)
    each = [one, msgspec.structs.replace(one, sha256="1" * 64, passage=1)]
    for preview in reversed(each):
        journal.add_preview("job-00001", preview)
    assert journal.previews("job-00001") == tuple(each)


def test_a_newer_format_and_no_format(tmp_path):
    path = tmp_path / "journal.sqlite"
    Journal(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 4")
    db.close()
    with pytest.raises(Refused, match="format 4, this one reads 3"):
        Journal(path)
    path.write_bytes(b"garbage" * 1_000)
    with pytest.raises(Refused, match="is no journal"):
        Journal(path)


@pytest.mark.parametrize("keep", [4_096 * 2, 4_096 * 9])
def test_damage_is_found_and_named(tmp_path, keep):
    path = tmp_path / "journal.sqlite"
    journal = Journal(path)
    for number in range(50):
        submit(journal, f"job-{number:05}", most=99)
    assert journal.check() == "ok"
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep] + b"Z" * (len(whole) - keep))
    journal = Journal(path)
    assert journal.check() != "ok"
    with pytest.raises(JournalDamaged, match="is no journal"):
        recover(journal, "next")
    journal.close()


def test_pages_newest_first(journal):
    for number in range(7):
        submit(journal, f"job-{number:05}")
    assert [record.id[-1] for record in journal.newest()] == ["6", "5", "4", "3", "2", "1", "0"]
    assert [record.id[-1] for record in journal.newest("job-00004")] == ["3", "2", "1", "0"]
    assert next(journal.newest()).plan == b""


ROT = {  # what stands in a column after a bit has changed
    "request": b"\xc1\xff",
    "takes": b"\xc1\xff",
    "provenance": b"\x93",
    "state": "dome",
    "error_text": b"text",
    "created_ns": "yesterday",
    "seq": "many",
    "plan": "text",
}


@pytest.mark.parametrize("column", sorted(ROT))
def test_a_row_that_is_damaged_is_named_and_the_others_are_read(journal, column):
    for number in range(3):
        submit(journal, f"job-{number:05}")
    journal._db.execute(f"UPDATE jobs SET {column} = ? WHERE id = 'job-00001'", (ROT[column],))
    newest = list(journal.newest())
    assert [found.id for found in newest] == ["job-00002", "job-00001", "job-00000"]
    assert [isinstance(found, Damaged) for found in newest] == [False, True, False]
    with pytest.raises(DamagedJob, match=r"job job-00001 is damaged in the journal: \w") as error:
        journal.row("job-00001")
    assert error.value.code == "damaged_job"
    assert journal.row("job-00000").record.order == order()


def test_an_order_that_has_become_one_to_refuse_is_a_damaged_row(journal):
    submit(journal)
    broken = msgspec.to_builtins(order()) | {"strength": 7.0}
    journal._db.execute("UPDATE jobs SET request = ?", (msgspec.msgpack.encode(broken),))
    assert isinstance(next(journal.newest()), Damaged)


def test_a_text_that_is_no_longer_utf8_costs_no_list(journal):
    submit(journal)
    submit(journal, "job-00002")
    journal._db.execute("UPDATE jobs SET landed = CAST(x'2fff2f' AS TEXT), state = 'cancelled' WHERE id = 'job-00001'")
    assert [found.landed for found in journal.newest()] == ["", "/\ufffd/"]


@pytest.mark.parametrize("column", sorted(ROT))
@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_damaged_job_that_was_under_way_fails_at_the_next_start_and_the_others_go_on(journal, state, column):
    for number in range(3):
        bring(journal, state, f"job-{number:05}")
    journal._db.execute(f"UPDATE jobs SET {column} = ? WHERE id = 'job-00001'", (ROT[column],))
    cards, _ = recover(journal, "next")
    assert [card.id for card in cards] == ["job-00000", "job-00002"]
    last = journal.events("job-00001", 0, 99)[-1]
    assert (last.seq, last.state) == (len(PATHS[state]) + 2, "failed")
    assert "damaged in the journal" in last.text
    assert [type(row) for row in journal.under_way()] == [Row, Row]
    assert [number for number, _, _ in journal.ended()] == [2]  # and so it is forgotten with time


def test_values_of_another_type_do_not_reach_who_counts_with_them(journal):
    """One bit makes a blob of a text; a status and a gc of all jobs must not end in it."""
    for number in range(2):
        bring(journal, "done", f"job-{number:05}")
    journal._db.execute("UPDATE jobs SET state = CAST(state AS BLOB), ended_ns = 'x' WHERE number = 1")
    assert journal.counts() == {"done": 2}
    assert sorted(journal.ended()) == [(1, 0, False), (2, 6, True)]


def test_a_damaged_event_or_preview_costs_its_own_job_alone(journal):
    for job in ("job-00001", "job-00002"):
        submit(journal, job)
        journal.add_preview(job, Preview(seed=3, index=0, start_frame=0, sha256="0" * 64, channels=2, frames=9))
    journal._db.execute("UPDATE events SET state = 'rotten' WHERE job = 1")
    journal._db.execute("UPDATE previews SET preview = x'c1' WHERE job = 1")
    with pytest.raises(DamagedJob, match="job-00001 is damaged in the journal: an event"):
        journal.events("job-00001", 0, 9)
    assert journal.previews("job-00001") == ()
    assert len(journal.events("job-00002", 0, 9)) == len(journal.previews("job-00002")) == 1


def test_faults_are_named(monkeypatch):
    monkeypatch.setenv("PUNCHIN_FAULTS", "journal.typo=kill")
    with pytest.raises(SystemExit, match=r"journal\.typo"):
        crash._planned()
    monkeypatch.setattr(crash, "_plan", {"store.write": ("full", 2)})
    crash.crash_point("store.write")
    with pytest.raises(OSError) as error:
        crash.crash_point("store.write")
    assert error.value.errno == errno.ENOSPC


def test_what_was_told_outlives_a_power_cut(tmp_path):
    """What others were told is on the disk before they are; what only this daemon knows may be lost with it."""
    with contextlib.closing(Journal(tmp_path / "journal.sqlite")) as journal:

        def synchronous():
            return journal._db.execute("PRAGMA synchronous").fetchone()[0]

        journal.submit("job-00001", Order(task="text2music", frames=4800, prompt="x"), b"", None, 5, 10)
        assert synchronous() == 2
        for to, level in (("leased", 2), ("running", 1), ("storing", 1), ("done", 2)):
            journal.move("job-00001", to, 6)
            assert synchronous() == level, to
