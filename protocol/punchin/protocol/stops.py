"""Ctrl-C while a part of Punchin loads: whoever starts it holds the signal back, and it is heard once it has an answer.

Without that the interpreter answers, with a traceback of whatever it was importing. The mask travels over fork and
exec. Windows has none: there a console tells every process by itself.
"""

from __future__ import annotations

import signal
import sys
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


def heard() -> None:
    """From now on, and what was held back at once. Call it when ctrl-C has its answer, before starting a process."""
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
