"""What to do next, as a pure function of (board, event, now). No socket, no process, no disk, no clock.

`step` returns the next board and the actions that make it true. The foreman carries them out in order and feeds what
comes of them back as events. One worker, so one job at a time is leased or running; another may be storing.
Times are nanoseconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

from punchin.daemon.happenings import (
    Action,
    CancelAsked,
    Card,
    DeviceLease,
    Happening,
    Keep,
    KillWorker,
    LeaseAsked,
    LeaseReleased,
    Move,
    NotStored,
    PauseAsked,
    Quit,
    ResumeAsked,
    SendCancel,
    SendRun,
    SendUnload,
    StartWorker,
    StopAsked,
    Stored,
    Submitted,
    UnloadAsked,
    WorkerFailed,
    WorkerGone,
    WorkerMade,
    WorkerReady,
    WorkerStopped,
)
from punchin.protocol import limits
from punchin.protocol.order import TERMINAL, JobId

SECOND: Final = 1_000_000_000
CANCEL_GRACE_NS: Final = 3 * SECOND  # then the worker is killed
DRAIN_NS: Final = 5 * SECOND  # what a running job gets at `stop`
UNLOAD_NS: Final = 5 * SECOND  # from asking a worker to end until it is killed
LEASE_NS: Final = limits.LEASE_S * SECOND
START_NS: Final = 120 * SECOND  # a cold disk may take long to import torch
MAX_CRASHES: Final = 2  # of the worker in one job
MAX_INTERRUPTIONS: Final = 5  # of one job by a daemon that was killed: its own fault is unlikely
MAX_FUTILE_WORKERS: Final = 4  # deaths in a row without a finished job: the queue is paused

WorkerState = Literal["absent", "starting", "idle", "busy", "ending"]


@dataclass(frozen=True, slots=True)
class Bench:
    """The place of the one worker."""

    state: WorkerState = "absent"
    job: JobId | None = None  # that it was told to run
    by_ns: int | None = None  # starting, ending: killed then; idle: unloaded then
    deaths: int = 0  # in a row, without a finished job between


@dataclass(frozen=True, slots=True)
class Board:
    """All that decisions are made from."""

    cards: Mapping[JobId, Card] = field(default_factory=dict[JobId, Card])
    bench: Bench = Bench()
    lease: DeviceLease | None = None  # of the device: no job begins
    paused: str = ""  # why; "" is not
    stopping: bool = False  # start nothing more
    stop_by_ns: int | None = None  # what runs is put back then
    stop_when_idle: bool = False
    keep_alive_ns: int = 300 * SECOND


# ---- the rules ------------------------------------------------------------------------------------------------------


def step(board: Board, event: Happening, now_ns: int) -> tuple[Board, tuple[Action, ...]]:
    """The board after `event`, and what to do about it. Events of jobs or workers that are gone change nothing."""
    actions: list[Action] = []
    match event:
        case Submitted(card):
            board = _put(board, card)
        case CancelAsked(job):
            board = _cancel(board, job, now_ns, actions)
        case WorkerReady() if board.bench.state == "starting":
            board = _rest(board, now_ns)
        case WorkerMade(job, takes, provenance) if _runs(board, job):
            board = _rest(_put(board, replace(board.cards[job], state="storing")), now_ns, job, deaths=0)
            actions += [Move(job, "storing"), Keep(job, takes, provenance)]
        case WorkerStopped(job) if _runs(board, job):
            board = _end(_rest(board, now_ns, job), Move(job, "cancelled"), actions)
        case WorkerFailed() if _runs(board, event.job):
            board = _failed(board, event, now_ns, actions)
        case WorkerGone(how):
            board = _gone(board, how, actions)
        case Stored(job, takes, provenance) if job in board.cards:
            board = _end(board, Move(job, "done", takes=takes, provenance=provenance), actions)
        case NotStored() if event.job in board.cards:
            board = _fail(board, event, actions)
        case PauseAsked(why):
            board = replace(board, paused=why)
        case ResumeAsked():
            board = replace(board, paused="", bench=replace(board.bench, deaths=0))
        case UnloadAsked():
            board = _unload(board, now_ns, actions)
        case LeaseAsked() if board.lease is None or board.lease.id == event.id:
            board = _extend(board, event, now_ns)
        case LeaseReleased(lease) if board.lease is not None and board.lease.id == lease:
            board = replace(board, lease=None)
        case StopAsked(when_idle):
            if when_idle:
                board = replace(board, stop_when_idle=True)
            elif not board.stopping:
                board = replace(board, stopping=True, stop_by_ns=now_ns + DRAIN_NS)
        case _:
            pass
    return _go_on(board, now_ns, actions), tuple(actions)


def next_tick_ns(board: Board) -> int | None:
    """When time alone will change something; None is never."""
    running = board.cards.get(board.bench.job) if board.bench.job is not None else None
    cancel_by_ns = running.cancel_by_ns if running is not None and board.bench.state == "busy" else None
    lease_by_ns = board.lease.by_ns if board.lease is not None else None
    times = [t for t in (cancel_by_ns, board.bench.by_ns, board.stop_by_ns, lease_by_ns) if t is not None]
    return min(times, default=None)


def _put(board: Board, card: Card) -> Board:
    return replace(board, cards={**board.cards, card.id: card})


def _runs(board: Board, job: JobId) -> bool:
    return board.bench.state == "busy" and board.bench.job == job and job in board.cards


def _end(board: Board, move: Move, actions: list[Action]) -> Board:
    assert move.to in TERMINAL
    actions.append(move)
    return replace(board, cards={job: card for job, card in board.cards.items() if job != move.job})


def _requeue(board: Board, card: Card, move: Move, actions: list[Action]) -> Board:
    actions.append(move)
    return _put(board, replace(card, state="queued", cancel_by_ns=None))


def _rest(board: Board, now_ns: int, after: JobId | None = None, deaths: int | None = None) -> Board:
    """The worker is idle, and will be unloaded when the keep-alive of the job that it ran last is over."""
    card = board.cards.get(after) if after is not None else None
    keep_ns = card.keep_alive_ns if card is not None and card.keep_alive_ns is not None else board.keep_alive_ns
    by_ns = None if keep_ns < 0 else now_ns + keep_ns
    deaths = board.bench.deaths if deaths is None else deaths
    return replace(board, bench=Bench("idle", None, by_ns, deaths))


def _cancel(board: Board, job: JobId, now_ns: int, actions: list[Action]) -> Board:
    card = board.cards.get(job)
    if card is None or card.cancel_by_ns is not None:
        return board  # ended or ending
    if card.state == "storing":  # made already: the first terminal state wins
        return _put(board, replace(card, cancel_by_ns=now_ns))
    if card.state in ("queued", "leased"):
        return _end(board, Move(job, "cancelled"), actions)
    actions.append(SendCancel(job))
    return _put(board, replace(card, cancel_by_ns=now_ns + CANCEL_GRACE_NS))


def _failed(board: Board, event: WorkerFailed, now_ns: int, actions: list[Action]) -> Board:
    card = board.cards[event.job]
    board = _rest(board, now_ns, event.job, deaths=0)
    if event.code == "oom":  # after it a worker's memory is in pieces: only a fresh process helps
        actions.append(KillWorker())
        board = replace(board, bench=Bench("ending", None, now_ns + UNLOAD_NS))
    if card.cancel_by_ns is not None:
        return _end(board, Move(card.id, "cancelled"), actions)
    if event.code == "oom" and event.next_rung is not None and card.ooms == 0:
        card = replace(card, ooms=1, rung=event.next_rung)
        text = "out of memory; trying once more with less"
        return _requeue(board, card, Move(card.id, "queued", text, rung=event.next_rung), actions)
    return _fail(board, event, actions)


def _fail(board: Board, event: WorkerFailed | NotStored, actions: list[Action]) -> Board:
    """The end of a job; but on a full disk it waits, and the queue with it: the next ones would fail like it."""
    card = board.cards[event.job]
    if event.code != "disk_full":
        return _end(board, Move(card.id, "failed", event.text, event.code, event.hint), actions)
    if card.cancel_by_ns is not None:
        return _end(board, Move(card.id, "cancelled"), actions)
    board = replace(board, paused=board.paused or f"the disk is full: {event.text}")
    return _requeue(board, card, Move(card.id, "queued", f"{event.text}; waiting for punchin resume"), actions)


def _gone(board: Board, how: str, actions: list[Action]) -> Board:
    bench = board.bench
    if bench.state == "absent":
        return board
    expected = bench.state in ("ending", "idle")
    deaths = bench.deaths if expected else bench.deaths + 1
    board = replace(board, bench=Bench(deaths=deaths))
    for card in list(board.cards.values()):
        if card.state not in ("leased", "running"):
            continue
        if card.cancel_by_ns is not None:
            board = _end(board, Move(card.id, "cancelled"), actions)
        elif board.stopping:  # a logout, a reboot or a stop of the service ends both: no fault of the job's
            board = _put_back(board, card, actions)
        elif expected and bench.state == "ending" and card.state == "leased":
            board = _requeue(board, card, Move(card.id, "queued"), actions)
        elif card.crashes + 1 >= MAX_CRASHES:
            text = f"the engine died {MAX_CRASHES} times in this job, last: {how}"
            move = Move(card.id, "failed", text, "crashed", "punchin doctor", crashed=True)
            board = _end(board, move, actions)
        else:
            move = Move(card.id, "queued", f"the engine died ({how}); trying once more", crashed=True)
            board = _requeue(board, replace(card, crashes=card.crashes + 1), move, actions)
    if deaths >= MAX_FUTILE_WORKERS:
        board = replace(board, paused=f"the engine died {deaths} times in a row, last: {how}")
    return board


def _unload(board: Board, now_ns: int, actions: list[Action]) -> Board:
    if board.bench.state != "idle":
        return board
    actions.append(SendUnload())
    return replace(board, bench=replace(board.bench, state="ending", by_ns=now_ns + UNLOAD_NS))


def _extend(board: Board, asked: LeaseAsked, now_ns: int) -> Board:
    since_ns = asked.at_ns if board.lease is None else board.lease.since_ns
    lease = DeviceLease(asked.id, asked.holder, asked.pid, since_ns, now_ns + LEASE_NS)
    return replace(board, lease=lease)


def _go_on(board: Board, now_ns: int, actions: list[Action]) -> Board:
    """What follows from the board alone, after every event."""
    if board.lease is not None and now_ns >= board.lease.by_ns:
        board = replace(board, lease=None)
    board = _stop(board, now_ns, actions)
    board = _lease(board, now_ns, actions)  # before the unload: a keep-alive of 0 must not end a worker with work
    board = _overdue(board, now_ns, actions)
    if (board.paused or board.lease is not None) and board.bench.state == "idle":
        board = _unload(board, now_ns, actions)
    return board


def _overdue(board: Board, now_ns: int, actions: list[Action]) -> Board:
    bench = board.bench
    running = board.cards.get(bench.job) if bench.job is not None else None
    if bench.state == "busy" and running is not None and _is_over(running.cancel_by_ns, now_ns):
        actions.append(KillWorker())
        return replace(board, bench=replace(bench, state="ending", by_ns=None))
    if not _is_over(bench.by_ns, now_ns):
        return board
    if bench.state == "idle":
        return _unload(board, now_ns, actions)
    late = bench.state == "starting"  # or it does not end
    actions.append(KillWorker(f"it was not ready within {START_NS // SECOND} s" if late else ""))
    return replace(board, bench=replace(bench, by_ns=None))


def _is_over(by_ns: int | None, now_ns: int) -> bool:
    return by_ns is not None and now_ns >= by_ns


def _stop(board: Board, now_ns: int, actions: list[Action]) -> Board:
    """Towards the end: put back what has not begun, at the deadline also what runs; quit when nothing is at work."""
    if not (board.stopping or board.stop_when_idle):
        return board
    if board.stopping:
        over = _is_over(board.stop_by_ns, now_ns)
        if over:
            board = _end_worker(replace(board, stop_by_ns=None), actions)
        for card in list(board.cards.values()):
            if card.state == "leased" or (over and card.state == "running"):
                board = _put_back(board, card, actions)
    at_work = any(card.state != "queued" for card in board.cards.values())
    idle = board.lease is None and not (at_work or (board.cards and not board.paused))
    if (board.stopping and not at_work) or (board.stop_when_idle and idle):
        actions.append(Quit())
    return board


def _end_worker(board: Board, actions: list[Action]) -> Board:
    if board.bench.state == "absent":
        return board
    actions.append(KillWorker())
    return replace(board, bench=replace(board.bench, state="ending", job=None, by_ns=None))


def _put_back(board: Board, card: Card, actions: list[Action]) -> Board:
    if card.cancel_by_ns is not None:
        return _end(board, Move(card.id, "cancelled"), actions)
    return _requeue(
        board, card, Move(card.id, "queued", "the daemon stops; this job waits for its next start"), actions
    )


def _lease(board: Board, now_ns: int, actions: list[Action]) -> Board:
    if board.stopping or board.bench.state in ("busy", "ending"):
        return board
    leased = next((card for card in board.cards.values() if card.state == "leased"), None)
    if leased is None and not board.paused and board.lease is None:
        waiting = [card for card in board.cards.values() if card.state == "queued"]
        if waiting:
            leased = replace(min(waiting, key=lambda card: card.rank), state="leased")
            actions.append(Move(leased.id, "leased"))
            board = _put(board, leased)
    if leased is None:
        return board
    if board.bench.state == "absent":
        actions.append(StartWorker())
        return replace(board, bench=Bench("starting", None, now_ns + START_NS, board.bench.deaths))
    if board.bench.state == "idle":
        actions += [Move(leased.id, "running"), SendRun(leased.id)]
        board = _put(board, replace(leased, state="running"))
        return replace(board, bench=Bench("busy", leased.id, None, board.bench.deaths))
    return board
