"""Being asked to stop: remembered, so that a training ends at a step's end with everything written."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from punchin.protocol import stops


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """While it lasts, SIGINT and SIGTERM are remembered and told by what this yields, instead of ending the process."""
    told: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: told.append(number))
    stops.heard()
    try:
        yield lambda: bool(told)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
