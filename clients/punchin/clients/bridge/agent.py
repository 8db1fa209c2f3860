"""All requests of a spool: woken by file events, one thread a job, gone after half an hour without work."""

from __future__ import annotations

import logging
import queue
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from watchdog.events import FileSystemEvent, FileSystemEventHandler
from watchdog.observers import Observer
from watchdog.observers.api import BaseObserver
from watchdog.observers.polling import PollingObserver

from punchin.clients.bridge.request import Collect, Free, RegionRequest, decode
from punchin.clients.bridge.spool import BEAT_S, ID, Spool
from punchin.clients.bridge.work import Work, cancel_job
from punchin.protocol.errors import PunchinError, Refused, Unreachable

log = logging.getLogger(__name__)

MOST_JOBS: Final = 64  # under way at once in this bridge; the daemon makes them one after the other
IDLE_EXIT_S: Final = 30 * 60.0
POLL_S: Final = 0.5  # where the system gives no file events


class Agent:
    """Serves one spool until `stop`, or until it had nothing to do for `idle_exit_s`."""

    def __init__(self, spool: Spool, idle_exit_s: float = IDLE_EXIT_S) -> None:
        self.spool, self.idle_exit_s = spool, idle_exit_s
        self.works: dict[str, Work] = {}
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False

    def stop(self) -> None:
        """End `serve` soon; jobs go on in the daemon and are picked up by the next bridge."""
        self._stopping = True
        self._wake.put(None)

    def serve(self) -> None:
        """Take requests until the end; unfinished ones of an earlier bridge come first."""
        _warm_up()
        self.spool.clean(time.time())
        observer = _observe(self.spool, lambda: self._wake.put(None))
        busy_s = time.monotonic()
        pool = ThreadPoolExecutor(2 * MOST_JOBS, "job")  # a thread a job, and one to cancel it
        try:
            while not self._stopping:
                try:
                    self.spool.beat()
                    self._look(pool)
                except OSError:  # a full disk: jobs under way may still land, and there may be room again later
                    log.exception("the spool")
                self._wait()
                if self.works:
                    busy_s = time.monotonic()
                elif time.monotonic() - busy_s > self.idle_exit_s:
                    log.info("nothing to do for %g s", self.idle_exit_s)
                    break
        finally:
            observer.stop()
            observer.join()
            pool.shutdown(wait=False, cancel_futures=True)
            self.spool.path("bridge.beat").unlink(missing_ok=True)

    def _wait(self) -> None:
        """Until a file event, or the next beat; events that came together are one look."""
        try:
            self._wake.get(timeout=BEAT_S)
            while True:
                self._wake.get_nowait()
        except queue.Empty:
            return

    def _look(self, pool: ThreadPoolExecutor) -> None:
        for id in self.spool.cancels():
            work = self.works.get(id)
            if work is not None:
                pool.submit(work.cancel)
            else:
                self._cancel_unknown(id, pool)
        for id in self.spool.request_ids():
            if id not in self.works:
                self._take(id, pool)
        self._say_status()

    def _cancel_unknown(self, id: str, pool: ThreadPoolExecutor) -> None:
        """A request that came together with its cancel, or that an earlier bridge began: then the daemon has its job,
        of the same id.
        """
        try:
            request = decode(self.spool.read_request(id))
        except (FileNotFoundError, PunchinError):
            return  # done already, or refused in a moment
        pool.submit(cancel_job, id)
        self._answer(request.instance, {"job": id, "kind": "cancelled"}, id)

    def _take(self, id: str, pool: ThreadPoolExecutor) -> None:
        try:
            request = decode(self.spool.read_request(id))
            if request.id != id:
                raise Refused(f"the request in {id}.json calls itself {request.id}")
        except FileNotFoundError:
            return
        except PunchinError as error:
            log.warning("request %s: %s", id, error)
            self._refuse_unread(id, error)
            return
        if isinstance(request, RegionRequest):
            self._begin(request, pool)
        elif isinstance(request, Collect):
            for job in request.jobs:
                self._tell_again(job, request.instance)
            self.spool.forget(id)
        else:
            pool.submit(self._free, request)
            self.spool.forget(id)

    def _begin(self, request: RegionRequest, pool: ThreadPoolExecutor) -> None:
        if len(self.works) >= MOST_JOBS:
            text = f"{MOST_JOBS} jobs are under way, no more fit"
            self._answer(request.instance, {"job": request.id, "kind": "failed", "text": text}, request.id)
            return
        work = self.works[request.id] = Work(self.spool, request)
        pool.submit(self._run, work)

    def _run(self, work: Work) -> None:
        work.run()
        self.works.pop(work.id, None)
        self._wake.put(None)

    def _tell_again(self, job: str, instance: str) -> None:
        """What became of a job, to a DAW that was closed meanwhile; what still runs is told there from now on."""
        work, line = self.works.get(job), self.spool.answer(job)
        if line is not None:  # also of one that was answered a moment ago
            self.spool.repeat(instance, line)
        elif work is not None:
            work.instance = instance
        elif not self.spool.path("inbox", f"{job}.json").exists():
            text = "the bridge knows nothing of this job"
            self.spool.say(instance, {"job": job, "kind": "failed", "text": text, "hint": "punchin jobs"})

    def _free(self, request: Free) -> None:
        from punchin.clients.connect import connect

        try:
            with connect(start=False, name="bridge") as client:
                client.unload()
            text = "the model was unloaded; its memory is free"
        except Unreachable:
            text = "no daemon runs; nothing is held"
        except PunchinError as error:
            text = f"{error} {error.hint}".strip()
        self.spool.say(request.instance, {"kind": "told", "text": text})

    def _refuse_unread(self, id: str, error: PunchinError) -> None:
        """An unreadable request still tells whom to answer, if its instance can be made out."""
        try:
            found = re.search(rb'"instance":"([0-9A-Z]{8,32})"', self.spool.read_request(id))
        except (FileNotFoundError, Refused):
            found = None
        fields = {"job": id, "kind": "failed", "text": str(error), "hint": error.hint}
        self._answer(found[1].decode() if found else "", fields, id)

    def _answer(self, instance: str, fields: Mapping[str, object], id: str) -> None:
        self.spool.keep_answer(id, fields)
        if instance:
            self.spool.say(instance, fields)
        self.spool.forget(id)

    def _say_status(self) -> None:
        lines = [f"{work.id}: {work.text}" for work in list(self.works.values())]
        self.spool.say_status("\n".join(lines) or "The bridge has nothing to do.")


class _Waker(FileSystemEventHandler):
    def __init__(self, wake: Callable[[], None]) -> None:
        self.wake = wake

    def on_any_event(self, event: FileSystemEvent) -> None:
        """Something has come whole into a folder; a request still being written has another name."""
        path = str(event.dest_path or event.src_path)
        if event.event_type in ("created", "moved") and ID.match(path.replace("\\", "/").rsplit("/")[-1].split(".")[0]):
            self.wake()


def _observe(spool: Spool, wake: Callable[[], None]) -> BaseObserver:
    """File events of the system; where it has none left to give (inotify's limit), a look twice a second."""
    for kind in (Observer, lambda: PollingObserver(timeout=POLL_S)):
        observer = kind()
        for name in ("inbox", "cancel"):
            observer.schedule(_Waker(wake), str(spool.path(name)))
        try:
            observer.start()
        except OSError as error:
            log.warning("no file events (%s); looking each %g s", error, POLL_S)
            continue
        return observer
    raise PunchinError("the spool can be watched in no way", "punchin doctor")


def _warm_up() -> None:
    """The journey's imports, before the first key is pressed."""
    import punchin.clients.connect
    import punchin.clients.journey
    import punchin.session.rpp_session  # noqa: F401
