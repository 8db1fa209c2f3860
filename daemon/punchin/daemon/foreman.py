"""Carries out what the scheduler decides: commits moves and publishes them, runs the worker, keeps its takes.

Actions are done in order. Where the journal cannot be written, the rest waits and is tried again each second, so that
no decision is lost; `trouble` says why meanwhile. One thread, the loop's; other threads post into the inbox.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from punchin.daemon import choice, happenings, scheduler, waiting
from punchin.daemon.happenings import Action, Happening
from punchin.daemon.journal import DamagedJob, Journal, JournalFull
from punchin.daemon.keeper import Keeper, PartKept
from punchin.daemon.progress import Progress
from punchin.daemon.recovery import card_of
from punchin.daemon.row import Row
from punchin.daemon.scheduler import Board
from punchin.daemon.store import Store, StoreFull
from punchin.daemon.worker import Ended, Said, Worker
from punchin.protocol import limits, link
from punchin.protocol.errors import Refused
from punchin.protocol.messages import Happened, Notice, Previewed, Submit, WorkerStatus
from punchin.protocol.order import TERMINAL, Event, Order

RETRY_S: Final = 1.0
MAX_TEXT_CHARS: Final = 2_000  # what a worker says of its failure

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Hand:
    """The worker that runs now, and what it said of itself."""

    worker: Worker
    ready: link.Ready | None = None
    model: str = ""
    heard_ns: int = 0  # of a monotonic clock: when it got its job, or last said something


class Foreman:
    """The daemon without its sockets."""

    def __init__(
        self,
        journal: Journal,
        store: Store,
        board: Board,
        log_folder: Path,
        post: Callable[[object], None],
        publish: Callable[[str, Notice], None],
    ) -> None:
        self.journal, self.store, self.board = journal, store, board
        self.hand: Hand | None = None
        self.trouble = self.trouble_hint = ""
        self.quit = False
        self.counters = dict.fromkeys(("submitted", "done", "failed", "cancelled", "worker_starts", "worker_deaths"), 0)
        self._log_folder, self._post, self._publish = log_folder, post, publish
        self._happenings: deque[Happening] = deque()
        self._actions: deque[Action] = deque()
        self._retry_s: float | None = None
        self._progress = Progress(publish)
        self._keeper = Keeper(store, post)

    # ---- asked by clients ----

    def submit(self, request: Submit) -> Row:
        """The job, in the journal. Raises Refused."""
        choice.check(request.order.model, request.order.task)
        known = self.journal.has(request.id)
        if not known:
            self._check_blobs(request.order)
        row, event = self.journal.submit(
            request.id, request.order, request.plan, request.keep_alive_s, time.time_ns(), limits.MAX_QUEUE
        )
        if event is not None:
            self.counters["submitted"] += 1
            self._publish_event(event)
            self._happenings.append(happenings.Submitted(card_of(row)))  # decided on in `tick`: the answer goes first
        return row

    def _check_blobs(self, order: Order) -> None:
        said = {(blob.sha256, blob.size_bytes) for blob in order.blobs}
        for sha256 in sorted({sha256 for sha256, _ in said}):
            if not self.store.touch(sha256):  # touched: no sweep takes it before its job is in the journal
                raise Refused(f"blob {sha256[:12]} was not sent", "put it first", "unknown_blob")
        for sha256, size_bytes in sorted(said):
            if self.store.size(sha256) != size_bytes:
                text = f"blob {sha256[:12]} has {self.store.size(sha256)} bytes, the order says {size_bytes}"
                raise Refused(text, code="wrong_size")

    def cancel(self, job: str) -> Row:
        """Ask a job to stop. Raises UnknownJob, JournalFull."""
        row = self.journal.row(job)
        if row.record.state not in TERMINAL:
            self.journal.ask_cancel(job)
            self.happen(happenings.CancelAsked(job))
            row = self.journal.row(job)
        return row

    def pause(self, why: str) -> None:
        """Let no job begin, in lives to come neither. Raises JournalFull; then nothing has changed."""
        self.journal.set_paused(why)
        self.happen(happenings.PauseAsked(why))

    def resume(self) -> None:
        """Let jobs begin again. Raises JournalFull; then nothing has changed."""
        self.journal.set_paused("")
        self.happen(happenings.ResumeAsked())

    def is_cancelling(self, row: Row) -> bool:
        """Whether a job was asked to stop and has not ended."""
        return row.cancel_asked and row.record.state not in TERMINAL

    # ---- told by the loop ----

    def happen(self, event: Happening) -> None:
        """Let the scheduler decide on an event, and do what it says."""
        self._happenings.append(event)
        self._work()

    def hear(self, item: object) -> None:
        """An item of the inbox."""
        match item:
            case Said(worker, reply) if self.hand is not None and worker is self.hand.worker:
                self._heard(self.hand, reply)
            case Ended(worker, how) if self.hand is not None and worker is self.hand.worker:
                log.warning("worker ended", extra={"worker": worker.pid, "how": how})
                self.counters["worker_deaths"] += self.board.bench.state not in ("ending", "idle")
                self.hand = None
                self.happen(happenings.WorkerGone(how))
            case happenings.Stored() | happenings.NotStored() | happenings.StopAsked():
                self.happen(item)
            case PartKept():
                self._previewed(item)
            case _:
                pass  # of a worker that was replaced

    def tick(self) -> None:
        """Time has passed: retry what the disk refused, publish held progress, let deadlines pass."""
        now_s = time.monotonic()
        if self._retry_s is not None and now_s >= self._retry_s:
            self._retry_s = None
        if self._happenings or self._actions:
            self._work()
        self._progress.send_due(now_s)
        due_ns = scheduler.next_tick_ns(self.board)
        if due_ns is not None and time.monotonic_ns() >= due_ns and not self.trouble:
            self.happen(happenings.Tick())

    def wait_s(self) -> float:
        """How long until `tick` has something to do."""
        now_s = time.monotonic()
        if self._happenings and self._retry_s is None:
            return 0.0
        due_ns = scheduler.next_tick_ns(self.board) if not self.trouble else None
        times = [self._retry_s, self._progress.due_s, None if due_ns is None else due_ns / scheduler.SECOND]
        return max(0.0, min((t - now_s for t in times if t is not None), default=60.0))

    def close(self) -> None:
        """End the worker and the keeper."""
        if self.hand is not None:
            self.hand.worker.kill()
            self.hand.worker.wait(5.0)
        self._keeper.close()

    # ---- carrying out ----

    def _work(self) -> None:
        if self._retry_s is None:
            self._carry_out()
        if self.trouble and self._told_to_stop():  # recovery puts back what the journal could not be told
            log.warning("stopped though the journal refuses", extra={"why": self.trouble})
            self.quit = True

    def _told_to_stop(self) -> bool:
        waiting = (event for event in self._happenings if isinstance(event, happenings.StopAsked))
        return self.board.stopping or any(not event.when_idle for event in waiting)

    def _carry_out(self) -> None:
        try:
            while self._actions or self._happenings:
                while self._actions:
                    self._do(self._actions[0])
                    self._actions.popleft()
                if self._happenings:
                    event = self._happenings.popleft()
                    before = self.board
                    self.board, actions = scheduler.step(before, event, time.monotonic_ns())
                    self._actions.extend(actions)
                    if waiting.on_lease(before) != waiting.on_lease(self.board):
                        self._tell_waiting()
            self.trouble = self.trouble_hint = ""
        except JournalFull as error:
            if not self.trouble:
                log.error("journal refused", extra={"why": str(error)})
            self.trouble, self.trouble_hint = str(error), error.hint
            self._retry_s = time.monotonic() + RETRY_S

    def _do(self, action: Action) -> None:
        match action:
            case happenings.Move():
                self._move(action)
            case happenings.StartWorker():
                self._start_worker()
            case happenings.SendRun(job):
                self._run(job)
            case happenings.SendCancel(job) if self.hand is not None:
                self.hand.worker.send(link.Cancel(job=job))
            case happenings.SendUnload() if self.hand is not None:
                self.hand.worker.send(link.Unload())
            case happenings.KillWorker(why) if self.hand is not None:
                log.warning("worker killed", extra={"worker": self.hand.worker.pid, "why": why})
                self.hand.worker.kill(why)
            case happenings.Keep():
                self._keeper.keep(action, self._out_dir(action.job))
            case happenings.Quit():
                self.quit = True
            case _:
                pass  # the worker is gone already; its end is in the inbox

    def _move(self, move: happenings.Move) -> None:
        columns: dict[str, object] = {}
        text = move.text[:MAX_TEXT_CHARS]
        if move.to == "failed":
            columns |= {"error_code": move.code, "error_text": text, "error_hint": move.hint[:MAX_TEXT_CHARS]}
        if move.rung is not None:
            columns |= {"rung": move.rung, "ooms": 1}
        if move.to == "running" and self.hand is not None:
            row = self._readable(move.job)
            if row is None:
                return
            order = self._with_model(row.record.order, self.hand)
            columns["request"] = msgspec.msgpack.encode(order)
            text = f"{order.model} on {self.hand.ready.device if self.hand.ready else 'an engine'}"
        if move.provenance is not None:
            columns |= {"takes": msgspec.msgpack.encode(move.takes)}
            columns |= {"provenance": msgspec.msgpack.encode(move.provenance)}
        uses = frozenset(take.audio.sha256 for take in move.takes)
        event = self.journal.move(move.job, move.to, time.time_ns(), text, uses, move.crashed, **columns)
        self._publish_event(event)
        if move.to in ("done", "failed", "cancelled"):
            self.counters[move.to] += 1
        if move.to in ("queued", "failed", "cancelled"):
            self._keeper.drop(self._out_dir(move.job))

    def _readable(self, job: str) -> Row | None:
        """A job that is to run; None where its row can no longer be read: then it fails."""
        try:
            return self.journal.row(job)
        except DamagedJob as error:
            self._happenings.append(happenings.WorkerFailed(job, error.code, str(error), error.hint))
            return None

    def _with_model(self, order: Order, hand: Hand) -> Order:
        if not order.model:
            order = msgspec.structs.replace(order, model=choice.choose(hand.ready, order.task))
        hand.model = order.model
        return order

    def _out_dir(self, job: str) -> Path:
        return self.store.out_dir(job, self.journal.attempts(job))

    def _start_worker(self) -> None:
        self.counters["worker_starts"] += 1
        try:
            self.hand = Hand(Worker(self._log_folder / "worker.log", self.store.check, self._post))
        except OSError as error:
            self._happenings.append(happenings.WorkerGone(f"it could not be started: {error}"))
            return
        log.info("worker started", extra={"worker": self.hand.worker.pid})

    def _run(self, job: str) -> None:
        if self.hand is None:
            return  # its end is in the inbox, and puts the job back
        row = self._readable(job)
        if row is None:
            return
        try:
            out_dir = self.store.make_out_dir(job, row.record.attempts)
        except StoreFull as error:
            failed = happenings.WorkerFailed(job, error.code, str(error), error.hint)
            self._happenings.append(failed)
            return
        files = {blob.sha256: str(self.store.path(blob.sha256)) for blob in row.record.order.blobs}
        self.hand.heard_ns = time.monotonic_ns()
        self.hand.worker.send(
            link.Run(
                job=job,
                attempt=row.record.attempts,
                order=row.record.order,
                files=files,
                out_dir=str(out_dir),
                rung=row.rung,
            )
        )

    def _heard(self, hand: Hand, reply: link.Reply) -> None:
        hand.heard_ns = time.monotonic_ns()
        match reply:
            case link.Ready():
                hand.ready = reply
                self.happen(happenings.WorkerReady())
            case link.Progress(job=job):
                if self.board.bench.job == job:
                    self._progress.add(reply)
            case link.Part(job=job):
                if self.board.bench.job == job:
                    self._keeper.keep_part(reply, self._out_dir(job))
            case link.Made(job=job, takes=takes, provenance=provenance):
                self._progress.forget(job)
                self.happen(happenings.WorkerMade(job, takes, provenance))
            case link.Stopped(job=job):
                self.happen(happenings.WorkerStopped(job))
            case link.Failed(job=job, code=code, text=text, hint=hint, next_rung=next_rung):
                self.happen(happenings.WorkerFailed(job, code, text, hint, next_rung))

    # ---- events ----

    def _publish_event(self, event: Event) -> None:
        if event.state != "running":
            self._progress.forget(event.job)
        log.info("job", extra={"job": event.job, "seq": event.seq, "state": event.state, "text": event.text})
        self._publish(event.job, Happened(event=event))

    def _previewed(self, part: PartKept) -> None:
        """A stretch can be heard, unless its attempt has ended meanwhile: the next one says its own."""
        job, preview = part.job, part.preview
        card = self.board.cards.get(job)
        if card is None or card.state not in ("running", "storing") or part.folder != self._out_dir(job):
            return
        try:
            self.journal.add_preview(job, preview)
        except JournalFull as error:
            log.warning("preview lost", extra={"job": job, "why": str(error)})
            return
        self._publish(job, Previewed(job=job, preview=preview))

    def _tell_waiting(self) -> None:
        """Say to whoever follows a queued job why it waits now, or that it no longer does."""
        why, now_ns = waiting.why(self.board), time.time_ns()
        log.info("device lease", extra={"lease": waiting.on_lease(self.board) or "over"})
        for card in self.board.cards.values():
            if card.state == "queued":
                event = Event(job=card.id, seq=0, at_ns=now_ns, state="queued", phase=why)
                self._publish(card.id, Happened(event=event))

    # ---- for status ----

    def progress_of(self, job: str) -> Event | None:
        """The newest unjournaled event of a job: how far it is, or that it waits for the disk or in a paused queue."""
        if self.trouble and any(isinstance(action, happenings.Move) and action.job == job for action in self._actions):
            state = self.journal.row(job).record.state
            return Event(job=job, seq=0, at_ns=time.time_ns(), state=state, phase=f"waiting: {self.trouble}")
        newest = self._progress.newest
        if newest is not None and newest.job == job:
            return newest
        card, why = self.board.cards.get(job), waiting.why(self.board)
        if card is None or card.state != "queued" or not why:
            return None
        return Event(job=job, seq=0, at_ns=time.time_ns(), state="queued", phase=why)

    def worker_status(self) -> WorkerStatus | None:
        """The worker as clients see it, or None."""
        if self.hand is None:
            return None
        bench, ready = self.board.bench, self.hand.ready
        wall_ns = time.time_ns() - time.monotonic_ns()
        until_ns = wall_ns + bench.by_ns if bench.state == "idle" and bench.by_ns is not None else None
        return WorkerStatus(
            pid=self.hand.worker.pid,
            state=bench.state,
            device=ready.device if ready else "",
            total_bytes=ready.total_bytes if ready else 0,
            free_bytes=ready.free_bytes if ready else 0,
            plan=ready.plan if ready else "",
            model=self.hand.model,
            job=bench.job or "",
            until_ns=until_ns,
            heard_ns=wall_ns + self.hand.heard_ns if bench.state == "busy" else None,
        )
