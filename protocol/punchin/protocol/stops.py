"""Ctrl-C while a part of Punchin loads: whoever starts it holds the signal back, and it is heard once it has an answer.

Without that the interpreter answers, with a traceback of whatever it was importing. The mask travels over fork and
exec. Windows has none: there a console tells every process by itself.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

ENDING: Final = (signal.SIGINT, signal.SIGTERM)
_UNWINDING: Final = (signal.SIGTERM,) if sys.platform == "win32" else (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_back() -> Generator[None]:
    """What is started meanwhile gets no ctrl-C and no SIGTERM before it says `heard`; we do, afterwards."""
    if sys.platform == "win32":
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Ended(BaseException):
    """A signal came: no error, so that nobody takes it for one."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def unwound() -> Generator[None]:
    """SIGTERM, and SIGHUP from a terminal that closes, leave the block as an exception would, so that what it made is
    taken away; then they end us as ever.

    One that has another answer already, or on a thread that hears no signals, stays as it is.
    """
    on_main = threading.current_thread() is threading.main_thread()
    ours = [each for each in _UNWINDING if on_main and signal.getsignal(each) is signal.SIG_DFL]

    def end(number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait
        raise _Ended(number)

    for each in ours:
        signal.signal(each, end)
    try:
        yield
    except _Ended as ended:
        if ended.number not in ours:
            raise
        signal.signal(ended.number, signal.SIG_DFL)
        signal.raise_signal(ended.number)
    finally:
        for each in ours:
            signal.signal(each, signal.SIG_DFL)


def heard() -> None:
    """From now on, and what was held back at once. Call it when ctrl-C has its answer, before starting a process."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
