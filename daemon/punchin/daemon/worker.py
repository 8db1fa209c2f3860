"""The engine worker's process, seen from the daemon: started, written to, read from, killed.

Two threads move frames between the pipes and the daemon's loop, so that a worker which does not read cannot hold the
loop. A third waits for its end, not for the pipe's, which a process that it started may hold open. Everything that a
worker says arrives in the inbox in order, its end last.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from io import BufferedWriter
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO, cast

from punchin.daemon.crash import crash_point
from punchin.protocol import launch, link
from punchin.protocol.errors import Refused

MAX_LOG_BYTES = 4 * 1024 * 1024
LAST_WORDS_S = 2.0  # for what a worker that has ended left in the pipe

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Said:
    """Something that a worker said."""

    worker: Worker
    reply: link.Reply


@dataclass(frozen=True, slots=True)
class Ended:
    """A worker's process is gone and reaped; `how` in words, with the last line that it wrote."""

    worker: Worker
    how: str


class Worker:
    """One process. `check` raises Refused or OSError for a blob that a job cannot use; it is called, and `post` gets
    Said and Ended, from other threads.
    """

    def __init__(self, log: Path, check: Callable[[str], None], post: Callable[[Said | Ended], None]) -> None:
        """Start the process, without a log where that cannot be opened. Raises OSError."""
        crash_point("worker.start")
        with _open_log(log) as stderr:
            self._log, self._log_start = Path(stderr.name), stderr.tell()
            self._process = subprocess.Popen(
                command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,  # Ctrl-C in a terminal is not for it, and its children go with it
            )
        self.pid = self._process.pid
        self._commands: SimpleQueue[link.Command | None] = SimpleQueue()
        self._check, self._post, self._why = check, post, ""
        self._reader = threading.Thread(target=self._read, name="worker-read", daemon=True)
        self._reader.start()
        for name, work in (("worker-write", self._write), ("worker-end", self._see_end)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def send(self, message: link.Command) -> None:
        """Queue a command; it is lost if the worker is gone, whose end is then in the inbox."""
        self._commands.put(message)

    def kill(self, why: str = "") -> None:
        """End the process and what it started, now. why: in words, for `Ended`; "" where nobody needs to know."""
        self._why = self._why or why
        if sys.platform == "win32":
            self._process.kill()
        elif self._process.poll() is None:
            self._kill_group()

    def wait(self, timeout_s: float) -> None:
        """Until the process is reaped, `timeout_s` at most."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)

    def _write(self) -> None:
        stdin = cast("BinaryIO", self._process.stdin)
        with contextlib.suppress(OSError):  # its reader tells of the end
            while (message := self._commands.get()) is not None:
                unfit = self._unfit(message) if isinstance(message, link.Run) else None
                if unfit is None:
                    link.write(stdin, message)
                else:
                    self._post(Said(self, unfit))
        with contextlib.suppress(OSError):
            stdin.close()

    def _unfit(self, run: link.Run) -> link.Failed | None:
        """Why a job cannot be made of its blobs: here, where the whole of them is read, the loop does not wait."""
        try:
            for sha256 in run.files:
                self._check(sha256)
        except Refused as error:
            return link.Failed(job=run.job, code=error.code, text=str(error), hint=error.hint)
        except OSError as error:
            return link.Failed(job=run.job, code="disk", text=f"the blob store: {error}", hint="punchin doctor")
        return None

    def _read(self) -> None:
        with cast("BinaryIO", self._process.stdout) as stdout:
            try:
                while (reply := link.read_reply(stdout)) is not None:
                    self._post(Said(self, reply))
            except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
                self.kill(f"it wrote what is no message: {error}")
        self._commands.put(None)  # its stdin ends, too

    def _see_end(self) -> None:
        code = self._process.wait()
        self._kill_group()  # what it started holds memory of the device, and the pipe
        self._reader.join(LAST_WORDS_S)
        self._commands.put(None)
        self._post(Ended(self, self._why or _how(code) + _last_line(self._log, self._log_start)))

    def _kill_group(self) -> None:
        if sys.platform != "win32":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


def command() -> list[str]:
    """The worker's command line; PUNCHIN_WORKER overrides it in tests."""
    override = os.environ.get("PUNCHIN_WORKER")
    words = shlex.split(override) if override else [sys.executable, "-m", "punchin.engine.worker"]
    return launch.tied(words)  # where they are not tied, a worker ends when its stdin does


def _open_log(path: Path) -> BufferedWriter:
    """The log to append to; where the disk gives none, what takes all and keeps nothing: the job goes on without."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            path.replace(path.with_suffix(".old"))
        return path.open("ab")
    except OSError as error:
        log.warning("the worker has no log", extra={"why": str(error)})
        return Path(os.devnull).open("ab")


def _how(code: int) -> str:
    if code >= 0:
        return f"exit status {code}"
    return f"signal {signal.Signals(-code).name}" + (", perhaps out of memory" if code == -signal.SIGKILL else "")


def _last_line(log: Path, start: int) -> str:
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(start, file.seek(0, os.SEEK_END) - 4096))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
        if lines:
            return f": {lines[-1].strip()[:300]}"
    return ""
