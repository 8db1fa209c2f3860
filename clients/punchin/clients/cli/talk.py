"""What is said while a command runs: lines for people on stderr, bars of steps where there is a terminal.

Where there is no terminal each phase is one line. rich is imported only when a bar is drawn.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TextIO

from punchin.protocol.errors import PunchinError
from punchin.protocol.order import TERMINAL, Event

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Talk:
    """A voice on one stream. `say` and `warn` are lines; `watch` shows a job's events, which `rest` puts away."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.terminal = stream.isatty()
        self._bars: Progress | None = None
        self._bar: TaskID | None = None
        self._phase = ""
        self._began_s = 0.0

    def say(self, text: str) -> None:
        """One line, at once."""
        try:
            if self._bars is not None:
                self._bars.console.print(text, markup=False, highlight=False)
            else:
                print(text, file=self.stream, flush=True)
        except OSError:  # nobody reads, or there is no room for it: what is done matters more than what is said of it
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def warn(self, text: str) -> None:
        """Something the user should know, though the work goes on."""
        self.say(f"note: {text}")

    def error(self, error: PunchinError) -> None:
        """What happened, and below it what to do."""
        self.rest()
        self.say(f"error: {error}")
        for line in error.hint.splitlines():
            self.say(f"  {line}")

    def watch(self, event: Event) -> None:
        """Show how far a job is."""
        if event.state in TERMINAL:
            self.rest()
            return
        phase = event.phase or (event.state if event.state == "queued" else "")
        if phase and phase != self._phase:
            self._open_phase(phase, event)
        if self._bars is not None and self._bar is not None and phase and event.total:
            self._bars.update(self._bar, completed=event.done, total=event.total)

    def rest(self) -> None:
        """Put the bars away; call it when a job is over, however it went."""
        self._close_phase()
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def _open_phase(self, phase: str, event: Event) -> None:
        self._close_phase()
        self._phase, self._began_s = phase, time.monotonic()
        if not self.terminal:
            self.say(f"  {phase} ...")
            return
        if self._bars is None:
            self._bars = _new_bars(self.stream)
            self._bars.start()
        self._bar = self._bars.add_task(phase, total=event.total or None)

    def _close_phase(self) -> None:
        if self._phase and self._bars is not None and self._bar is not None:
            total = self._bars.tasks[self._bar].total or 1
            self._bars.update(self._bar, total=total, completed=total)
            self._bars.stop_task(self._bar)
        self._phase, self._bar = "", None


def _new_bars(stream: TextIO) -> Progress:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("  {task.description:<16}", markup=False),
        progress.BarColumn(24),
        progress.MofNCompleteColumn(),
        progress.TimeElapsedColumn(),
        progress.TimeRemainingColumn(),
        console=Console(file=stream),
    )
