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

from collections.abc import Iterator
from typing import TYPE_CHECKING

from punchin.protocol.messages import Collected, Examined, Job, Preview, Status, Welcome
from punchin.protocol.order import Blob, Event, JobRecord, Order

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Client:
    """A connection to the daemon; use it as a context manager. Made by `connect`.

    `welcome` tells the daemon's version, instance (another one: it was restarted) and limits. Where `start` was given,
    a daemon that dies is started again and the call goes on; otherwise the call raises Unreachable.
    """

    welcome: Welcome

    def put(self, data: bytes | memoryview) -> str:
        """Store bytes; returns their sha256 once they are on the daemon's disk. Bytes known already are not sent.

        Raises Refused (`disk_full`, `over_limit`).
        """
        raise NotImplementedError

    def put_audio(self, audio: NDArray[np.float32], rate_hz: int) -> Blob:
        """Store audio [channels, frames] float32; 1 or 2 channels. Raises OverLimit, and Refused as `put`."""
        raise NotImplementedError

    def get(self, sha256: str) -> bytes:
        """A blob's bytes, checked against the hash. Raises Refused (`unknown_blob`)."""
        raise NotImplementedError

    def get_audio(self, blob: Blob) -> NDArray[np.float32]:
        """Audio [channels, frames] float32 of a blob. Raises Refused (`unknown_blob`)."""
        raise NotImplementedError

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
        raise NotImplementedError

    def follow(self, job_id: str, since: int = 0) -> Iterator[Event]:
        """A job's events from seq `since` + 1 on, live, with progress (seq 0) between; ends after the terminal one.

        Misses no journaled event, however late it starts and whoever else follows. Raises Refused (`unknown_job`).
        """
        raise NotImplementedError

    def result(self, job_id: str) -> JobRecord:
        """The record of a done job. Raises JobFailed or Cancelled, and Refused (`not_done`) while it is under way."""
        raise NotImplementedError

    def job(self, job_id: str) -> JobRecord:
        """A job as the journal has it. Raises Refused (`unknown_job`)."""
        raise NotImplementedError

    def look(self, job_id: str) -> Job:
        """A job with what is not in its record: whether it is being cancelled, and pinned."""
        raise NotImplementedError

    def jobs(self, most: int = 1_000) -> list[JobRecord]:
        """The newest jobs first, without their plans."""
        raise NotImplementedError

    def previews(self, job_id: str) -> list[Preview]:
        """Stretches of a job's takes that are decoded so far, also of a job that is done."""
        raise NotImplementedError

    def cancel(self, job_id: str) -> JobRecord:
        """Ask a job to stop; returns at once. The job ends as cancelled, or as done if the result came first."""
        raise NotImplementedError

    def landed(self, job_id: str, where: str) -> JobRecord:
        """Note where a done job's takes were landed. Raises Refused (`not_done`)."""
        raise NotImplementedError

    def pin(self, job_id: str, pinned: bool = True) -> Job:
        """Keep a job and its audio whatever their age, or no longer."""
        raise NotImplementedError

    def status(self) -> Status:
        """How the daemon is: versions, queue, worker, memory."""
        raise NotImplementedError

    def pause(self) -> Status:
        """Start no further job; the model is unloaded when the running one is done."""
        raise NotImplementedError

    def resume(self) -> Status:
        """Start jobs again."""
        raise NotImplementedError

    def unload(self) -> Status:
        """End the idle worker and give its memory back. Raises Refused (`busy`) while a job runs."""
        raise NotImplementedError

    def gc(self, dry_run: bool = False) -> Collected:
        """Forget old jobs, remove blobs that nothing refers to; or only say what would go."""
        raise NotImplementedError

    def examine(self) -> Examined:
        """Journal, store and disk, for `doctor`."""
        raise NotImplementedError

    def stop(self, when_idle: bool = False) -> None:
        """End the daemon, and wait until it is gone unless `when_idle`. A running job has 5 s, then it waits for the
        next start.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Close the sockets. The daemon and its jobs go on."""
        raise NotImplementedError

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
