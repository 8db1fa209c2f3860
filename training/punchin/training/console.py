"""One line that says how far a training is, on a terminal rewritten in place, in a pipe as a line now and then."""

from __future__ import annotations

import sys
import time
from typing import TextIO

_EVERY_S = {True: 0.2, False: 15.0}  # on a terminal, elsewhere


def length(seconds: float) -> str:
    """`1 h 02 min`, `4 min 05 s`, `12 s`."""
    whole = max(round(seconds), 0)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"


class Line:
    """The line. Talk goes to stderr: stdout is for data."""

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stderr
        self._terminal = self._out.isatty()
        self._shown_at = float("-inf")
        self._wide = 0

    def show(self, text: str, *, now: bool = False) -> None:
        """Show `text` if the last one is old enough; `now`: in any case."""
        at = time.monotonic()
        if not now and at - self._shown_at < _EVERY_S[self._terminal]:
            return
        self._shown_at = at
        if self._terminal:
            self._out.write("\r" + text.ljust(self._wide))
            self._wide = len(text)
        else:
            self._out.write(text + "\n")
        self._out.flush()

    def say(self, text: str) -> None:
        """A line of its own, that stays."""
        if self._terminal and self._wide:
            self._out.write("\r" + " " * self._wide + "\r")
            self._wide = 0
        self._out.write(text + "\n")
        self._out.flush()
