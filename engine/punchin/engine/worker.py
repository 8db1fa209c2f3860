"""The process that makes takes: commands on stdin, replies on stdout (`punchin.protocol.link`), the log on stderr.

A thread reads the commands, so that a cancel arrives while a step runs; it takes effect at the next step or tile.
When stdin ends the process ends, whatever it is doing. torch is imported with the first job that needs it.
"""

from __future__ import annotations

import errno
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

import msgspec

from punchin.engine.device import is_out_of_memory
from punchin.protocol import link
from punchin.protocol.errors import Cancelled, JobFailed, PunchinError, Refused
from punchin.protocol.machine import survey

if TYPE_CHECKING:
    from punchin.engine.job import Performer

DEVICE_ERRORS: Final = ("CUDA error", "CUBLAS_STATUS", "cuDNN")

log = logging.getLogger(__name__)


class DeviceLost(Exception):
    """The device failed in a way that every later call in this process would, too."""


class Line:
    """Both directions of the pipe. `run` gives the jobs in turn; `report` tells progress, and raises Cancelled."""

    def __init__(self, commands: BinaryIO, replies: BinaryIO) -> None:
        self._commands, self._replies = commands, replies
        self._runs: queue.SimpleQueue[link.Run] = queue.SimpleQueue()
        self._lock = threading.Lock()  # of the three below and of the replies' order
        self._waiting: set[str] = set()
        self._cancelled: set[str] = set()

    def listen(self) -> None:
        """Read commands until there are no more, then end the process: in the thread that does nothing else."""
        try:
            while (command := link.read_command(self._commands)) is not None:
                if isinstance(command, link.Unload):
                    break
                self._take(command)
        except (ValueError, OSError) as error:
            log.error("the daemon sent what is no command: %s", error)
            os._exit(1)
        os._exit(0)  # not sys.exit: a step may be running in the main thread, and its result has no reader

    def run(self) -> link.Run:
        """The next job; waits for it."""
        return self._runs.get()

    def report(self, job: str, phase: str, done: int, total: int) -> None:
        """Tell the daemon how far `job` is. Raises Cancelled if it asked for the job's end."""
        self.check(job)
        self.reply(link.Progress(job=job, phase=phase, done=done, total=total))

    def check(self, job: str) -> None:
        """Raise Cancelled if the daemon asked for the end of `job`."""
        with self._lock:
            if job in self._cancelled:
                raise Cancelled(f"job {job} was cancelled")

    def close(self, job: str, reply: link.Reply) -> None:
        """The last word on `job`; a cancel that comes later is for nobody."""
        with self._lock:
            self._waiting.discard(job)
            self._cancelled.discard(job)
        self.reply(reply)

    def reply(self, reply: link.Reply) -> None:
        """Send a reply. The process ends if nobody reads."""
        try:
            with self._lock:
                link.write(self._replies, reply)
        except OSError:
            os._exit(0)

    def _take(self, command: link.Run | link.Cancel) -> None:
        with self._lock:
            if isinstance(command, link.Run):
                self._waiting.add(command.job)
                self._runs.put(command)
            elif command.job in self._waiting:
                self._cancelled.add(command.job)


class Worker:
    """Jobs one after the other, with the model of the last one kept."""

    def __init__(self, line: Line, ready: link.Ready) -> None:
        self._line, self._ready = line, ready
        self._performer: Performer | None = None

    def serve(self) -> None:
        """Perform jobs until the process is ended, or until memory ran out: then a fresh process is better.

        Raises DeviceLost, and says nothing of the job then: it is not at fault, and the daemon tries it once more.
        """
        while True:
            run = self._line.run()
            reply = self._answer(run)
            self._line.close(run.job, reply)
            if isinstance(reply, link.Failed) and reply.code == "oom":
                return

    def _answer(self, run: link.Run) -> link.Reply:
        try:
            self._line.check(run.job)
            return self._perform(run)
        except Cancelled:
            self._discard(run)
            return link.Stopped(job=run.job)
        except JobFailed as error:
            return _failed(run, error.code, error, run.rung + 1 if error.code == "oom" else None)
        except Refused as error:
            told = error.code in ("unknown_model", "model_missing", "oom")
            return _failed(run, error.code if told else "refused", error)
        except PunchinError as error:
            return _failed(run, "bug", error)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            code, hint = ("disk_full", f"free some space below {run.out_dir}") if full else ("disk", "")
            return _failed(run, code, PunchinError(f"a take could not be written: {error}", hint))
        except ModuleNotFoundError as error:  # the base package alone
            lacks = PunchinError(f"the engine lacks {error.name}", 'pip install "punchin[engine]"')
            return _failed(run, "refused", lacks)
        except Exception as error:  # whatever it is, the job must end and the reason must be told
            log.exception("job %s", run.job)
            if is_out_of_memory(error):
                first = str(error).split("\n", 1)[0]
                return _failed(run, "oom", PunchinError(f"memory ran out while loading: {first}"), run.rung + 1)
            if _loses_device(error):
                raise DeviceLost(str(error).split("\n", 1)[0]) from error
            self._performer = None
            return _failed(run, "bug", PunchinError(f"{type(error).__name__}: {error}", "punchin doctor --report"))

    def _perform(self, run: link.Run) -> link.Made:
        def report(phase: str, done: int, total: int) -> None:
            self._line.report(run.job, phase, done, total)

        if run.order.model == "identity":
            from punchin.engine import identity

            return identity.perform(run, report)
        report("loading model", 0, 1)
        if self._performer is None:
            from punchin.engine.job import Performer

            self._performer = Performer(self._tell_plan)
        return self._performer.perform(run, report, self._line.reply)

    def _tell_plan(self, words: str) -> None:
        self._line.reply(msgspec.structs.replace(self._ready, plan=words))

    def _discard(self, run: link.Run) -> None:
        for path in Path(run.out_dir).glob("take-*.f32"):
            path.unlink(missing_ok=True)


def _loses_device(error: Exception) -> bool:
    """Whether an error is the device's own. A CUDA context is of no use after one."""
    if type(error).__name__ == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in DEVICE_ERRORS)


def _failed(run: link.Run, code: str, error: PunchinError, next_rung: int | None = None) -> link.Failed:
    return link.Failed(job=run.job, code=code, text=str(error), hint=error.hint, next_rung=next_rung)


def _pipes() -> tuple[BinaryIO, BinaryIO]:
    """Stdin and stdout for the daemon alone: what libraries print goes to stderr."""
    commands, replies = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(2, 1)
    return os.fdopen(commands, "rb"), os.fdopen(replies, "wb")


def main() -> int:
    """Serve until the daemon is gone."""
    commands, replies = _pipes()
    logging.basicConfig(stream=sys.stderr, level=os.environ.get("PUNCHIN_LOG", "INFO"))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's; the daemon's pipe decides here
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a logout sends it to all: the daemon, too, which ends this one
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # two threads that spin on busy cores are slower than one
    line, ready = Line(commands, replies), survey()
    line.reply(ready)
    threading.Thread(target=line.listen, name="commands", daemon=True).start()
    try:
        Worker(line, ready).serve()
    except DeviceLost as error:
        log.critical("the device is lost: %s", error)  # the last line, which the daemon quotes
        os._exit(1)  # not sys.exit: what lies on the device cannot be freed any more, and trying may hang
    return 0


if __name__ == "__main__":
    sys.exit(main())
