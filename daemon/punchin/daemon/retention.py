"""What may be forgotten: old jobs, then blobs that no job refers to. Mark and sweep, never by guess.

An ended job goes after 7 days, or, oldest first, while the store is over 20 GiB. One whose takes have not landed holds
the only copy of them: it stays 30 days, and goes for room after all others. Pinned jobs and jobs under way stay, and
nothing goes that is younger than an hour: a client may have put a blob for a job not yet submitted, or is about to
fetch a take. The daemon does so by itself when it is idle, and at once when it is asked. By itself only while the
clock has not been set by over an hour since it started: all that a clock says is old may have been made today. Nor
does a job go for its age where that is over a year, or its end is yet to come: its clock was wrong then, or this one is
now. Such a job goes for room alone, in the order of its date. An hour is an hour in both directions.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import Final

from punchin.daemon.journal import Journal
from punchin.daemon.store import Store
from punchin.protocol.messages import Collected

MAX_AGE_S: Final = 7 * 86_400
MAX_WAIT_S: Final = 30 * 86_400  # of takes that have not landed
MAX_BELIEVED_S: Final = 365 * 86_400
MAX_STORE_BYTES: Final = 20 * 2**30
SPARE_S: Final = 3_600
MAX_DRIFT_S: Final = 3_600
MOST_BLOBS: Final = 100  # removed at once, so that the loop goes on: about a second on a slow disk


@dataclass(frozen=True, slots=True)
class Moment:
    """One moment on two clocks, in seconds: the wall's, which can be set, and one that cannot."""

    wall_s: float
    steady_s: float

    @classmethod
    def now(cls) -> Moment:
        """What both say at this moment."""
        if sys.platform == "linux":  # there `monotonic` stands still while the machine sleeps
            return cls(time.time(), time.clock_gettime(time.CLOCK_BOOTTIME))
        return cls(time.time(), time.monotonic())

    def set_since(self, before: Moment) -> float:
        """By how many seconds the wall clock was set between `before` and this moment; negative is back."""
        return (self.wall_s - before.wall_s) - (self.steady_s - before.steady_s)


def collect(journal: Journal, store: Store, ask: int, dry_run: bool, most_blobs: int = MOST_BLOBS) -> Collected:
    """Forget what is over age or size, or only count it. Raises JournalFull, OSError.

    It removes `most_blobs` files at most; where it removed some there may be more: collect again.
    """
    blobs = {sha256: (size, age_s) for sha256, size, age_s in store.everything()}
    total = sum(size for size, _ in blobs.values())
    doomed, freed = _mark(journal, blobs)
    if not dry_run:
        if doomed:  # first: a crash in between leaves blobs without a job, never a job without blobs
            journal.forget(doomed)
        freed = [sha256 for sha256 in freed[:most_blobs] if store.remove_old(sha256, SPARE_S)]
        store.drop_old_parts(SPARE_S)
    freed_bytes = sum(blobs[sha256][0] for sha256 in freed)
    return Collected(
        ask=ask, jobs=len(doomed), blobs=len(freed), freed_bytes=freed_bytes, kept_bytes=total - freed_bytes
    )


def _mark(journal: Journal, blobs: dict[str, tuple[int, float]]) -> tuple[set[int], list[str]]:
    """The jobs to forget and the blobs to remove, of those with their sizes and ages."""
    users = journal.users()
    uses: dict[int, list[str]] = {}
    for sha256, jobs in users.items():
        for number in jobs:
            uses.setdefault(number, []).append(sha256)
    freed = [sha256 for sha256, (_, age_s) in blobs.items() if sha256 not in users and abs(age_s) > SPARE_S]
    left = sum(size for size, _ in blobs.values()) - sum(blobs[sha256][0] for sha256 in freed)
    now_ns, doomed = time.time_ns(), set[int]()
    for number, ended_ns, waits in journal.ended():  # in the order in which they may go
        age_s = (now_ns - ended_ns) / 1e9
        is_old = (MAX_WAIT_S if waits else MAX_AGE_S) < age_s <= MAX_BELIEVED_S
        if abs(age_s) <= SPARE_S or not (is_old or left > MAX_STORE_BYTES):
            continue
        doomed.add(number)
        for sha256 in uses.get(number, ()):
            users[sha256].discard(number)
            if not users[sha256] and abs(blobs.get(sha256, (0, 0.0))[1]) > SPARE_S:
                freed.append(sha256)
                left -= blobs[sha256][0]
    return doomed, freed


def missing(journal: Journal, store: Store) -> int:
    """How many blobs of done jobs are not, or not whole, in the store. 0 is well."""
    return sum(store.size(sha256) != size_bytes for sha256, size_bytes in journal.results().items())
