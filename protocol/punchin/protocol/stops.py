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
    """SIGTERM came: no error, so that nobody takes it for one."""


@contextmanager
def unwound() -> Generator[None]:
    """SIGTERM leaves the block as an exception would, so that what it made is taken away; then it ends us as ever.

    Where it has another answer already, or on a thread that hears no signals, that stays as it is.
    """
    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one does not wait
        raise _Ended

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    except _Ended:
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def heard() -> None:
    """From now on, and what was held back at once. Call it when ctrl-C has its answer, before starting a process."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
