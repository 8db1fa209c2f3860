"""A part of Punchin that needs the device for itself, in a process of its own: the daemon lends it meanwhile.

The process checks what it can without the device, then writes the line `device` to its standard output and waits for a
line on its standard input, whose end it takes for ours. Everything else that it writes is for the user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, TextIO, cast

from punchin.clients.cli.reach import reach
from punchin.clients.cli.talk import Talk
from punchin.clients.connect import NoDaemon
from punchin.clients.hold import KEEP_S, Hold
from punchin.protocol import stops
from punchin.protocol.errors import Cancelled, PunchinError
from punchin.protocol.holder import ANSWER, ASK

POLL_S = 0.05


def run(module: str, words: Sequence[str], holder: str, start: bool, out: TextIO, talk: Talk) -> int:
    """Run `python -m MODULE WORDS` with the daemon's device, and give its exit code. holder: what it is, for people.

    start: whether a daemon is started where none runs, so that later jobs find the device taken; else the process goes
    on without, and asks one that comes meanwhile.
    Ctrl-C and SIGTERM go on to it, the second one ends it at once. Raises Refused (`busy`) where another has the
    device, Unreachable where the daemon cannot be started or asked, PunchinError where the process was killed, OSError
    where what it printed cannot be written to `out`.
    """
    with _process(module, words, out) as part, part.stopped_with_us():
        if part.asks():
            hold = Hold(holder, part.pid, talk.say)
            try:
                _wait(hold, part, start, talk)
                part.answer()
                while not part.ends_within(KEEP_S):
                    hold.keep()
            finally:
                part.end()  # before the device is another's
                hold.release()
    code = part.code
    if part.told > 1:
        raise Cancelled(f"{holder} was ended at once; what was written by then is kept")
    if code == 0 and part.unwritten is not None:
        raise part.unwritten
    if code < 0:
        name = signal.Signals(-code).name
        again = "the same command again; a training goes on from what it wrote last"
        raise PunchinError(f"{holder} was ended by {name}", again)
    return code


def _wait(hold: Hold, part: _Part, start: bool, talk: Talk) -> None:
    """Until the device is lent, or `part` has ended, or no daemon is there to lend it."""
    with contextlib.suppress(NoDaemon), reach(talk, start) as client:
        while not hold.take(client) and not part.ends_within(KEEP_S):
            pass


class _Part:
    def __init__(self, process: subprocess.Popen[bytes], out: TextIO) -> None:
        self._process, self._out = process, out
        self._asked = threading.Event()
        self._reader = threading.Thread(target=self._read, name="part-read", daemon=True)
        self._reader.start()
        self.pid, self.told = process.pid, 0
        self.unwritten: OSError | None = None  # why what it wrote is not where it should be

    @property
    def code(self) -> int:
        """Its exit code, once it has ended."""
        return self._process.returncode

    def asks(self) -> bool:
        """Wait until it wants the device; False if it ends without."""
        while not self._asked.wait(POLL_S):
            if self._process.poll() is not None:
                return False
        return True

    def answer(self) -> None:
        """The device is its own."""
        with contextlib.suppress(OSError):  # it has ended
            stdin = cast("IO[bytes]", self._process.stdin)
            os.write(stdin.fileno(), ANSWER)  # past its buffer, which would fail once more when it is closed

    def ends_within(self, seconds: float) -> bool:
        """Wait; whether it has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.poll() is not None

    def end(self) -> None:
        """End it, if it has not ended, all that it wrote being written."""
        self._process.kill()
        self._process.wait()
        self._reader.join(1.0)  # a process that it left behind may hold its output open

    @contextmanager
    def stopped_with_us(self) -> Iterator[None]:
        """While it lasts, what would end us is told to it; the second time it is killed."""

        def tell(number: int, _: object) -> None:
            self.told += 1
            if self.told > 1:
                self._process.kill()
            elif sys.platform != "win32":  # there the console has told it already
                self._process.send_signal(number)

        before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _read(self) -> None:
        for line in cast("IO[bytes]", self._process.stdout):
            if line == ASK and not self._asked.is_set():
                self._asked.set()
                continue
            try:
                self._out.write(line.decode("utf-8", "replace"))
                self._out.flush()
            except OSError as error:
                self.unwritten = error
            except ValueError:  # our own output is closed
                continue


@contextmanager
def _process(module: str, words: Sequence[str], out: TextIO) -> Iterator[_Part]:
    sys.stdout.flush()
    command = [sys.executable, "-m", module, *words]
    environment = os.environ | {"PUNCHIN_HOLDER": str(os.getpid())}
    with stops.held_back():
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    with process:
        part = _Part(process, out)
        try:
            yield part
        finally:
            part.end()
