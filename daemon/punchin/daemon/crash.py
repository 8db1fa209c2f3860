"""Named places at which a test ends the process or fills the disk. In production each is one look into an empty dict.

PUNCHIN_FAULTS="journal.move=kill:2,store.write=full" kills the process when it passes `journal.move` the second time,
and raises ENOSPC each time it passes `store.write`. `bug` raises what nobody expects.
"""

from __future__ import annotations

import errno
import os
import signal

POINTS = (
    "journal.write",
    "journal.written",
    "journal.submit",
    "journal.move",
    "journal.recover",
    "store.begin",
    "store.write",
    "store.sync",
    "store.rename",
    "store.folder",
    "store.adopt",
    "store.attempt",
    "store.drop",
    "store.sweep",
    "daemon.bound",
    "daemon.ready",
    "worker.start",
)


def _planned() -> dict[str, tuple[str, int]]:
    plan: dict[str, tuple[str, int]] = {}
    for entry in filter(None, os.environ.get("PUNCHIN_FAULTS", "").split(",")):
        name, _, what = entry.partition("=")
        action, _, nth = what.partition(":")
        if name not in POINTS:
            raise SystemExit(f"PUNCHIN_FAULTS names {name!r}; the points are {', '.join(POINTS)}")
        plan[name] = (action, int(nth or 0))
    return plan


_plan = _planned()
_passed: dict[str, int] = {}


def crash_point(name: str) -> None:
    """Nothing, unless a test planned a fault here."""
    if name not in _plan:
        return
    action, nth = _plan[name]
    _passed[name] = _passed.get(name, 0) + 1
    if nth not in (0, _passed[name]):
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "bug":
        raise RuntimeError(f"planned at {name}")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
