"""What may be forgotten: old jobs, then blobs that no job refers to. Mark and sweep, never by guess.

An ended job goes after 7 days, or, oldest first, while the store is over 20 GiB; pinned jobs and jobs under way stay.
A blob goes when no job uses it and it is older than an hour: a client may have put it for a job not yet submitted.
"""

from __future__ import annotations

import time
from typing import Final

from punchin.daemon.journal import Journal
from punchin.daemon.store import Store
from punchin.protocol.messages import Collected

MAX_AGE_S: Final = 7 * 86_400
MAX_STORE_BYTES: Final = 20 * 2**30
SPARE_S: Final = 3_600


def collect(journal: Journal, store: Store, ask: int, dry_run: bool) -> Collected:
    """Forget what is over age or size, or only count it. Raises JournalFull."""
    blobs = {sha256: (size, age_s) for sha256, size, age_s in store.everything()}
    ended = journal.ended()  # oldest first
    users = journal.users()
    total = sum(size for size, _ in blobs.values())
    oldest_ns = time.time_ns() - MAX_AGE_S * 1_000_000_000
    doomed: set[int] = set()
    freed: set[str] = set()

    def forget(number: int) -> None:
        doomed.add(number)
        for sha256, jobs in users.items():
            if number in jobs and jobs <= doomed and sha256 in blobs:
                freed.add(sha256)

    for number, ended_ns in ended:
        if ended_ns < oldest_ns:
            forget(number)
    for number, _ in ended:
        if total - sum(blobs[sha256][0] for sha256 in freed) <= MAX_STORE_BYTES:
            break
        if number not in doomed:
            forget(number)
    freed |= {sha256 for sha256, (_, age_s) in blobs.items() if sha256 not in users and age_s > SPARE_S}
    if not dry_run:
        journal.forget(doomed)  # first: a crash in between leaves blobs without a job, never a job without blobs
        for sha256 in sorted(freed):
            store.remove(sha256)
        store.drop_old_parts(SPARE_S)
    freed_bytes = sum(blobs[sha256][0] for sha256 in freed)
    return Collected(
        ask=ask, jobs=len(doomed), blobs=len(freed), freed_bytes=freed_bytes, kept_bytes=total - freed_bytes
    )


def missing(journal: Journal, store: Store) -> int:
    """How many blobs of done jobs are not in the store. 0 is well."""
    return sum(store.size(sha256) is None for sha256 in journal.results())
