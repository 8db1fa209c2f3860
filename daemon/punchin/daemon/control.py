"""Answers on the control socket: one reply to each request, whatever came."""

from __future__ import annotations

import logging
import os
import shutil
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from punchin.daemon import happenings, retention, scheduler, waiting
from punchin.daemon.foreman import Foreman
from punchin.daemon.row import Damaged
from punchin.protocol import codec, messages, version
from punchin.protocol.codec import Unreadable
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.messages import Failure, Reply, Request
from punchin.protocol.order import JobRecord

MAX_PEERS: Final = 4_096  # the one that was silent longest is forgotten, and has to say hello again
MAX_BAD: Final = 20  # unreadable messages of one peer in BAD_WINDOW_S; then it is not heard for as long
BAD_WINDOW_S: Final = 60.0
PAGE_BYTES: Final = 512 * 1024
HISTORY_EVENTS: Final = 1_000

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Peer:
    """A client's socket, from its hello on."""

    name: str = ""
    greeted: bool = False
    bad_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=MAX_BAD))
    deaf_until_s: float = 0.0


@dataclass(frozen=True, slots=True)
class About:
    """What a daemon says of itself, and does not change in its life."""

    instance: str
    started_ns: int
    transport: str
    idle_exit_s: float | None
    log: Path


class Control:
    """The requests and their answers. Knows no socket."""

    def __init__(self, foreman: Foreman, about: About) -> None:
        self.foreman, self.about = foreman, about
        self.asked_s = time.monotonic()  # when a client last wanted something
        self._reader = codec.control_requests()
        self._peers: OrderedDict[bytes, Peer] = OrderedDict()
        self.bad_messages = 0

    def answer(self, identity: bytes, frames: Sequence[bytes]) -> Reply | None:
        """The reply to what a peer sent; None if it sends too much that cannot be read."""
        now_s = time.monotonic()
        peer = self._peer(identity)
        if now_s < peer.deaf_until_s:
            return None
        try:
            if len(frames) != 2:
                raise Unreadable(f"a control message has 2 frames, this one {len(frames)}")
            request = self._reader.read(frames[0], frames[1])
        except Unreadable as error:
            self._count_bad(peer, now_s)
            return error.failure()
        self.asked_s = now_s
        if not peer.greeted and not isinstance(request, messages.Hello):
            return Failure(ask=request.ask, code="hello_first", text="the first message of a client is hello")
        try:
            return self._obey(peer, request)
        except PunchinError as error:
            code = error.code if isinstance(error, Refused) else "failed"
            return Failure(ask=request.ask, code=code, text=str(error), hint=error.hint)
        except (OSError, sqlite3.Error) as error:  # of one request: the others, and the job that runs, go on
            kind = type(request).__name__
            log.exception("disk", extra={"request": kind})
            return Failure(ask=request.ask, code="disk", text=f"{kind}: {error}", hint="punchin doctor")

    def _peer(self, identity: bytes) -> Peer:
        peer = self._peers.get(identity)
        if peer is None:
            peer = self._peers[identity] = Peer()
            if len(self._peers) > MAX_PEERS:
                self._peers.popitem(last=False)
        self._peers.move_to_end(identity)
        return peer

    def _count_bad(self, peer: Peer, now_s: float) -> None:
        self.bad_messages += 1
        peer.bad_s.append(now_s)
        if len(peer.bad_s) == MAX_BAD and now_s - peer.bad_s[0] <= BAD_WINDOW_S:
            peer.deaf_until_s = now_s + BAD_WINDOW_S
            peer.bad_s.clear()
            log.warning("peer ignored", extra={"client": peer.name, "bad": MAX_BAD})

    def _obey(self, peer: Peer, request: Request) -> Reply:
        match request:
            case messages.Hello():
                return self._hello(peer, request)
            case messages.Submit(ask=ask):
                return messages.Job(ask=ask, record=self.foreman.submit(request).record)
            case messages.GetJob(ask=ask, id=job):
                return self._job(ask, job)
            case messages.ListJobs():
                return self._page(request)
            case messages.Attach():
                return self._history(request)
            case messages.CancelJob(ask=ask, id=job):
                row = self.foreman.cancel(job)
                cancelling = self.foreman.is_cancelling(row)
                return messages.Job(ask=ask, record=row.record, cancelling=cancelling, pinned=row.pinned)
            case messages.MarkLanded(ask=ask, id=job, where=where):
                self.foreman.journal.set_landed(job, where)
                return self._job(ask, job)
            case messages.Pin(ask=ask, id=job, pinned=pinned):
                self.foreman.journal.set_pinned(job, pinned)
                return self._job(ask, job)
            case messages.LeaseDevice():
                return self._lease(request)
            case messages.Collect(ask=ask, dry_run=dry_run):
                return retention.collect(self.foreman.journal, self.foreman.store, ask, dry_run)
            case messages.Examine(ask=ask):
                return self._examined(ask)
            case _:
                return self._steer(request)

    def _steer(self, request: Request) -> Reply:
        foreman = self.foreman
        match request:
            case messages.Pause():
                foreman.pause("by the user")
            case messages.Resume():
                foreman.resume()
            case messages.UnloadModel():
                if foreman.board.bench.state in ("starting", "busy"):
                    job = foreman.board.bench.job or "a job"
                    raise Refused(f"the engine works on {job}", f"punchin cancel {job}", "busy")
                foreman.happen(happenings.UnloadAsked())
            case messages.ReleaseDevice(id=lease):
                foreman.happen(happenings.LeaseReleased(lease))
            case messages.Shutdown(ask=ask, when_idle=when_idle):
                foreman.happen(happenings.StopAsked(when_idle))
                return messages.Closing(ask=ask, when_idle=when_idle)
            case _:
                pass
        return self.status(request.ask)

    def _lease(self, asked: messages.LeaseDevice) -> Reply:
        self.foreman.happen(happenings.LeaseAsked(asked.id, asked.holder, asked.pid, time.time_ns()))
        lease = waiting.lease_of(self.foreman.board)
        if lease is None:  # what happened before waits for the journal
            raise Refused(f"the daemon cannot go on: {self.foreman.trouble}", "punchin status", "busy")
        if lease.id != asked.id:
            since = time.strftime("%H:%M", time.localtime(lease.since_ns / 1e9))
            text = f"{lease.holder} (pid {lease.pid}) has the device since {since}"
            raise Refused(text, "wait for its end, or end it; punchin ps shows it", "busy")
        return messages.DeviceLease(ask=asked.ask, lease=lease)

    def _hello(self, peer: Peer, hello: messages.Hello) -> Reply:
        if not hello.lowest <= version.PROTOCOL <= hello.highest:
            theirs = f"{hello.lowest} to {hello.highest}" if hello.lowest < hello.highest else f"{hello.highest}"
            text = f"this daemon speaks protocol {version.PROTOCOL}, the client {theirs}"
            hint = f"punchin stop (the daemon is {version.PACKAGE}, the client {hello.version})"
            return Failure(ask=hello.ask, code="version", text=text, hint=hint)
        peer.greeted, peer.name = True, hello.client
        return messages.Welcome(
            ask=hello.ask,
            protocol=version.PROTOCOL,
            version=version.PACKAGE,
            instance=self.about.instance,
            pid=os.getpid(),
        )

    def _job(self, ask: int, job: str) -> Reply:
        row = self.foreman.journal.row(job)
        cancelling = self.foreman.is_cancelling(row)
        return messages.Job(ask=ask, record=row.record, cancelling=cancelling, pinned=row.pinned)

    def _page(self, request: messages.ListJobs) -> Reply:
        records: list[JobRecord] = []
        damaged: list[str] = []
        left_bytes, more = PAGE_BYTES, False
        for found in self.foreman.journal.newest(request.before):
            if isinstance(found, Damaged):
                damaged.append(found.id)
                continue
            left_bytes -= len(codec.canonical(found))
            more = bool(records) and (len(records) == request.most or left_bytes < 0)
            if more:
                break
            records.append(found)
        return messages.JobPage(ask=request.ask, records=tuple(records), more=more, damaged=tuple(damaged))

    def _history(self, request: messages.Attach) -> Reply:
        journal = self.foreman.journal
        events = journal.events(request.id, request.since, HISTORY_EVENTS + 1)
        progress = self.foreman.progress_of(request.id)
        return messages.History(
            ask=request.ask,
            events=tuple(events[:HISTORY_EVENTS]),
            progress=progress,
            previews=journal.previews(request.id),
            more=len(events) > HISTORY_EVENTS,
        )

    def _examined(self, ask: int) -> Reply:
        foreman = self.foreman
        counts = foreman.journal.counts()
        return messages.Examined(
            ask=ask,
            journal=foreman.journal.check(),
            journal_jobs=sum(counts.values()),
            store_bytes=sum(size for _, size, _ in foreman.store.everything()),
            store_limit_bytes=retention.MAX_STORE_BYTES,
            disk_free_bytes=shutil.disk_usage(foreman.store.root).free,
            missing_blobs=retention.missing(foreman.journal, foreman.store),
            damaged_jobs=tuple(found.id for found in foreman.journal.newest() if isinstance(found, Damaged)),
            log=str(self.about.log),
        )

    def status(self, ask: int) -> messages.Status:
        """How the daemon is."""
        foreman, about = self.foreman, self.about
        return messages.Status(
            ask=ask,
            pid=os.getpid(),
            version=version.PACKAGE,
            protocol=version.PROTOCOL,
            instance=about.instance,
            started_ns=about.started_ns,
            transport=about.transport,
            paused=bool(foreman.board.paused),
            paused_why=foreman.board.paused,
            trouble=foreman.trouble,
            trouble_hint=foreman.trouble_hint,
            jobs=foreman.journal.counts(),
            worker=foreman.worker_status(),
            lease=waiting.lease_of(foreman.board),
            keep_alive_s=foreman.board.keep_alive_ns / scheduler.SECOND,
            idle_exit_s=about.idle_exit_s,
            counters=foreman.counters | {"bad_messages": self.bad_messages},
        )
