"""The daemon, from Python: submit orders, follow jobs, move audio. Synchronous; one thread at a time.

    with connect(start=True) as client:
        source = client.put_audio(audio, 48_000)
        job = client.submit(Order(task="repaint", source=source, frames=source.frames, ...))
        for event in client.follow(job.id):
            print(event.state, event.phase, event.done, event.total)
        takes = client.result(job.id).takes
        audio = client.get_audio(takes[0].audio)

Every call ends: with an answer, or with an error of `punchin.protocol.errors`. All of them are safe to repeat.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec

from punchin.clients import transfer
from punchin.clients.line import LOOK_S, Line, Lost, read_notice
from punchin.protocol import codec, limits, messages, version
from punchin.protocol.errors import Cancelled, JobFailed, Refused, Unreachable
from punchin.protocol.messages import (
    Collected,
    Examined,
    Job,
    JobPage,
    Lease,
    Preview,
    Reply,
    Request,
    Status,
    Welcome,
)
from punchin.protocol.order import TERMINAL, Blob, Event, JobRecord, Order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CATCH_UP_S: Final = 5.0  # without an event: ask whether one was missed
STOP_S: Final = 20.0
LIVES: Final = 5  # how many lives of the daemon one call goes through

_R = TypeVar("_R", bound=Reply)
_T = TypeVar("_T")


class Client:
    """A connection to the daemon; use it as a context manager. Made by `connect`.

    `welcome` tells the daemon's version, instance (another one: it was restarted) and limits. Where `start` was given,
    a daemon that dies is started again and the call goes on; otherwise the call raises Unreachable.
    """

    def __init__(self, reach: Callable[[], Line]) -> None:
        """reach: gives a line to a daemon that said welcome, and starts one if it may."""
        self._reach = reach
        self._line = reach()

    @property
    def welcome(self) -> Welcome:
        """What the daemon said of itself."""
        assert self._line.welcome is not None
        return self._line.welcome

    @property
    def skew(self) -> str:
        """What to say of a daemon of another version than this client; "" where they are the same."""
        if self.welcome.version == version.PACKAGE:
            return ""
        return f"the daemon is punchin {self.welcome.version}, this client {version.PACKAGE}: punchin stop --when-idle"

    def put(self, data: bytes | memoryview) -> str:
        """Store bytes; returns their sha256 once they are on the daemon's disk. Bytes known already are not sent.

        Raises Refused (`disk_full`, `over_limit`).
        """
        view = memoryview(data).cast("B")
        if len(view) > messages.MAX_BLOB_BYTES:
            text = f"a blob of {len(view):,} bytes, allowed is {messages.MAX_BLOB_BYTES:,}"
            raise Refused(text, "send less of it", "over_limit")
        return self._live(lambda line: transfer.put(line, view))

    def put_audio(self, audio: NDArray[np.float32], rate_hz: int) -> Blob:
        """Store audio [channels, frames] float32; 1 or 2 channels. Raises OverLimit, and Refused as `put`."""
        import numpy as np

        channels, frames = audio.shape
        limits.CHANNELS.check(channels)
        limits.AUDIO.check(frames / rate_hz)
        interleaved = np.ascontiguousarray(audio.T, dtype="<f4")
        sha256 = self.put(interleaved.data)
        return Blob(sha256=sha256, channels=channels, frames=frames, rate_hz=rate_hz)

    def get(self, sha256: str) -> bytes:
        """A blob's bytes, checked against the hash. Raises Refused (`unknown_blob`)."""
        return bytes(self._live(lambda line: transfer.get(line, sha256)))

    def get_audio(self, blob: Blob) -> NDArray[np.float32]:
        """Audio [channels, frames] float32 of a blob. Raises Refused (`unknown_blob`)."""
        import numpy as np

        whole = self._live(lambda line: transfer.get(line, blob.sha256))
        if len(whole) != blob.size_bytes:
            text = f"blob {blob.sha256[:12]} has {len(whole)} bytes, expected {blob.size_bytes}"
            raise Refused(text, code="wrong_size")
        interleaved = np.frombuffer(whole, dtype="<f4").reshape(blob.frames, blob.channels)
        return np.ascontiguousarray(interleaved.T, dtype=np.float32)

    def submit(
        self, order: Order, plan: bytes = b"", job_id: str | None = None, keep_alive_s: float | None = None
    ) -> JobRecord:
        """Ask for takes; on return the job is in the journal and only `gc` forgets it.

        order.model "" lets the daemon choose: `leased` event and record tell what. plan: at most PLAN_BYTES, returned
        in the record. job_id: the caller's own, to submit again safely; None makes a new one. keep_alive_s: how long
        the model stays loaded afterwards (0: not, negative: for ever, None: the daemon's default).
        Raises Refused: `conflict`, `busy` (MAX_QUEUE jobs wait), `unknown_blob`, `unknown_model`, `model_missing`,
        `disk_full`, `too_big`.
        """
        if len(plan) > messages.PLAN_BYTES:
            text = f"the landing plan has {len(plan):,} bytes, allowed is {messages.PLAN_BYTES:,}"
            raise Refused(text, "ask for fewer regions or tracks at once", "too_big")
        request = messages.Submit(ask=0, id=job_id or new_job_id(), order=order, plan=plan, keep_alive_s=keep_alive_s)
        return self._ask(request, Job).record

    def follow(self, job_id: str, since: int = 0) -> Iterator[Event]:
        """A job's events from seq `since` + 1 on, live, with progress (seq 0) between; ends with the job.

        Misses no journaled event, however late it starts and whoever else follows. Raises Refused (`unknown_job`).
        """
        for item in self.watch(job_id, since):
            if isinstance(item, Event):
                yield item

    def listen(self, job_id: str) -> Iterator[Preview]:
        """The decoded stretches of a job's takes, from the first one on, as they come; ends with the job.

        Fetch one with `get`. A job that starts anew (a worker died) begins again at index 0. Raises as `follow`.
        """
        for item in self.watch(job_id):
            if isinstance(item, Preview):
                yield item

    def watch(self, job_id: str, since: int = 0) -> Iterator[Event | Preview]:
        """What `follow` and what `listen` give, as it comes. Raises as `follow`."""
        last, shown = since, set[Preview]()
        for _ in range(LIVES):
            line = self._line
            try:
                for item in self._follow(line, job_id, last):
                    if isinstance(item, Preview):
                        if item in shown:
                            continue
                        shown.add(item)
                    else:
                        last = max(last, item.seq)
                    yield item
                    if isinstance(item, Event) and item.state in TERMINAL:
                        return
                    if self._line is not line:  # a call made meanwhile met the next daemon, and closed this line
                        break
                else:
                    return  # it had ended by `since`
            except Lost:
                self._renew()
        raise Unreachable(f"the daemon ended {LIVES} times while job {job_id} was followed", "punchin doctor")

    def result(self, job_id: str) -> JobRecord:
        """The record of a done job. Raises JobFailed or Cancelled, and Refused (`not_done`) while it is under way."""
        record = self.job(job_id)
        if record.state == "cancelled":
            raise Cancelled(f"job {job_id} was cancelled; nothing was written")
        if record.state == "failed":
            text = f"job {job_id} failed: {record.error_text}"
            raise JobFailed(text, record.error_hint, job=job_id, code=record.error_code)
        if record.state != "done":
            raise Refused(f"job {job_id} is {record.state}", f"punchin show {job_id}", "not_done")
        return record

    def job(self, job_id: str) -> JobRecord:
        """A job as the journal has it. Raises Refused (`unknown_job`)."""
        return self.look(job_id).record

    def look(self, job_id: str) -> Job:
        """A job with what is not in its record: whether it is being cancelled, and pinned."""
        return self._ask(messages.GetJob(ask=0, id=job_id), Job)

    def jobs(self, most: int = 1_000) -> list[JobRecord]:
        """The newest jobs first, without their plans; those that can be read."""
        return [record for page in self.pages(most) for record in page.records]

    def pages(self, most: int = 1_000) -> Iterator[JobPage]:
        """The newest jobs first, page by page, without their plans.

        `damaged` of a page: ids of those that can no longer be read; two pages may name the same one.
        """
        before, left = None, most
        while left:
            page = self._ask(messages.ListJobs(ask=0, before=before, most=min(messages.PAGE_JOBS, left)), JobPage)
            yield page
            if not page.more:
                return
            before, left = page.records[-1].id, left - len(page.records)

    def previews(self, job_id: str) -> list[Preview]:
        """Stretches of a job's takes that are decoded so far, also of a job that is done."""
        history = self._ask(messages.Attach(ask=0, id=job_id, since=0), messages.History)
        return list(history.previews)

    def cancel(self, job_id: str) -> JobRecord:
        """Ask a job to stop; returns at once. The job ends as cancelled, or as done if the result came first."""
        return self._ask(messages.CancelJob(ask=0, id=job_id), Job).record

    def landed(self, job_id: str, where: str) -> JobRecord:
        """Note where a done job's takes were landed. Raises Refused (`not_done`)."""
        return self._ask(messages.MarkLanded(ask=0, id=job_id, where=where), Job).record

    def pin(self, job_id: str, pinned: bool = True) -> Job:
        """Keep a job and its audio whatever their age, or no longer."""
        return self._ask(messages.Pin(ask=0, id=job_id, pinned=pinned), Job)

    def status(self) -> Status:
        """How the daemon is: versions, queue, worker, memory."""
        return self._ask(messages.GetStatus(ask=0), Status)

    def pause(self) -> Status:
        """Start no further job; the model is unloaded when the running one is done."""
        return self._ask(messages.Pause(ask=0), Status)

    def resume(self) -> Status:
        """Start jobs again."""
        return self._ask(messages.Resume(ask=0), Status)

    def unload(self) -> Status:
        """End the idle worker and give its memory back. Raises Refused (`busy`) while a job runs."""
        return self._ask(messages.UnloadModel(ask=0), Status)

    def lease(self, lease_id: str, holder: str, pid: int) -> Lease:
        """Take the device for process `pid`, which people know as `holder`; ask again well within `limits.LEASE_S`.

        It is granted once the job that runs and the worker have ended; other jobs wait. lease_id: the caller's own, a
        `new_job_id()`. A daemon that was started anew knows nothing of it. Raises Refused (`busy`): another has it.
        """
        asked = messages.LeaseDevice(ask=0, id=lease_id, holder=holder, pid=pid)
        return self._ask(asked, messages.DeviceLease).lease

    def release(self, lease_id: str) -> Status:
        """Give the device back to the engine."""
        return self._ask(messages.ReleaseDevice(ask=0, id=lease_id), Status)

    def gc(self, dry_run: bool = False) -> Collected:
        """Forget old jobs, remove blobs that nothing refers to; or only say what would go."""
        total = part = self._ask(messages.Collect(ask=0, dry_run=dry_run), Collected)
        while part.blobs and not dry_run:  # so many at once, that others are answered too
            part = self._ask(messages.Collect(ask=0), Collected)
            total = msgspec.structs.replace(
                part,
                jobs=total.jobs + part.jobs,
                blobs=total.blobs + part.blobs,
                freed_bytes=total.freed_bytes + part.freed_bytes,
            )
        return total

    def examine(self) -> Examined:
        """Journal, store and disk, for `doctor`."""
        return self._ask(messages.Examine(ask=0), Examined)

    def stop(self, when_idle: bool = False) -> None:
        """End the daemon, and wait until it is gone unless `when_idle`. A running job has 5 s, then it waits for the
        next start.
        """
        pid = self.welcome.pid
        try:
            self._line.ask(messages.Shutdown(ask=0, when_idle=when_idle), messages.Closing)
        except Lost:
            if not self._line.is_over():  # somebody else's stop was faster
                raise
        until_s = time.monotonic() + STOP_S
        while not when_idle and not self._line.is_over():
            if time.monotonic() > until_s:
                raise Unreachable(f"the daemon (pid {pid}) did not end within {STOP_S:g} s", f"kill {pid}")
            time.sleep(0.02)

    def close(self) -> None:
        """Close the sockets. The daemon and its jobs go on."""
        self._line.close()

    # ---- through the lives of the daemon ----

    def _ask(self, request: Request, kind: type[_R]) -> _R:
        return self._live(lambda line: line.ask(request, kind))

    def _live(self, call: Callable[[Line], _T]) -> _T:
        """Do a call that is safe to repeat, with the next daemon if this one dies."""
        for _ in range(LIVES - 1):
            try:
                return call(self._line)
            except Lost:
                self._renew()
        return call(self._line)

    def _renew(self) -> None:
        lost, self._line = self._line, self._reach()  # one that could not be reached leaves a line that can be asked
        lost.close()

    def _follow(self, line: Line, job_id: str, since: int) -> Iterator[Event | Preview]:
        """What one life tells. Subscribed first, then caught up: what comes twice is dropped by its seq."""
        last, reader = since, codec.notices()
        with line.feed(job_id) as feed:
            due_s = 0.0
            while True:
                if time.monotonic() >= due_s:
                    due_s, before = time.monotonic() + CATCH_UP_S, last
                    for item in self._missed(line, job_id, last):
                        last = max(last, item.seq) if isinstance(item, Event) else last
                        yield item
                    if last == before and _is_over(line, job_id, last):
                        return
                notice = read_notice(feed, reader, LOOK_S)
                match notice:
                    case None if line.is_over():
                        raise Lost("the daemon has ended")
                    case messages.Previewed(job=job, preview=preview) if job == job_id:
                        yield preview
                    case messages.Happened(event=event) if event.job == job_id and event.seq > last + 1:
                        due_s = 0.0  # one was lost on the way: it is in the journal
                    case messages.Happened(event=event) if event.job == job_id and event.seq in (0, last + 1):
                        last = max(last, event.seq)
                        yield event
                    case _:
                        pass

    def _missed(self, line: Line, job_id: str, since: int) -> Iterator[Event | Preview]:
        while True:
            history = line.ask(messages.Attach(ask=0, id=job_id, since=since), messages.History)
            yield from history.previews  # before the events: the last of those may be the end
            yield from history.events
            if not history.more:
                break
            since = history.events[-1].seq
        if history.progress is not None:
            yield history.progress

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_over(line: Line, job_id: str, since: int) -> bool:
    """Whether a job has ended, and all that it will ever tell was told by seq `since`."""
    record = line.ask(messages.GetJob(ask=0, id=job_id), Job).record
    return record.state in TERMINAL and record.seq <= since


_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_job_id() -> str:
    """A ULID: 26 characters that sort by time (milliseconds), 80 bits of them random."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
