"""Checks what clients saw against what must hold (a history check in the manner of Jepsen).

Clients note every call that was acknowledged. Afterwards, from journal and store alone:
every acknowledged submit is there, and has ended exactly once; seq has no gaps and no repeats, nothing follows the end;
a cancel that was acknowledged before the end is cancelled or done, and never runs again; every take's blob is whole.
"""

import hashlib
from dataclasses import dataclass, field

from faults.fake_worker import take_bytes
from faults.lives import check_events


@dataclass
class History:
    """What one or many clients know for certain."""

    submitted: dict = field(default_factory=dict)  # id -> order, as acknowledged
    cancelled: set = field(default_factory=set)  # ids whose cancel was acknowledged
    seen: dict = field(default_factory=dict)  # id -> events as a follower saw them


def check(history, client):
    """Raises AssertionError with the job at fault."""
    for job, order in history.submitted.items():
        record = client.job(job)
        events = list(client.follow(job))
        check_events(events)
        assert record.state == events[-1].state, job
        assert record.seq == len(events), job
        starts = [event for event in events if event.state == "leased"]
        assert record.attempts == len(starts), job
        if job in history.cancelled:
            assert record.state in ("cancelled", "done", "failed"), job
        else:
            assert record.state != "cancelled", job
        if record.state == "done":
            assert [take.seed for take in record.takes] == list(order.seeds), job
            for take in record.takes:
                data = client.get(take.audio.sha256)
                assert hashlib.sha256(data).hexdigest() == take.audio.sha256
                assert data == take_bytes(order, take.seed), job
        for followed in history.seen.get(job, []):
            journaled = [event for event in followed if event.seq]
            assert journaled == events[: len(journaled)], job
    known = {record.id for record in client.jobs(most=100_000)}
    assert history.submitted.keys() <= known
