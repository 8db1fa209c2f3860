"""A client without a daemon: what is submitted is made at once, here, by a function of the test's."""

import hashlib
import time

import numpy as np

from punchin.protocol.order import Blob, Event, JobRecord, Provenance, Take


def identity(source, passage, seed):
    """The engine that returns its input."""
    return source


class DirectClient:
    """`make(source, passage, seed)` gives the whole window [channels, frames]; the wanted part of it is the take."""

    def __init__(self, make=identity, model="direct", trained=True) -> None:
        self.make, self.model, self.trained = make, model, trained
        self.blobs, self.records, self.orders, self.where = {}, {}, [], {}

    def put_audio(self, audio, rate_hz):
        raw = np.ascontiguousarray(audio.T, dtype="<f4").tobytes()
        name = hashlib.sha256(raw).hexdigest()
        self.blobs[name] = np.array(audio, dtype=np.float32)
        return Blob(sha256=name, channels=len(audio), frames=audio.shape[1], rate_hz=rate_hz)

    def get_audio(self, blob):
        return self.blobs[blob.sha256]

    def submit(self, order, plan=b"", job_id=None, keep_alive_s=None):
        takes = tuple(self.take(n, each, seed) for n, each in enumerate(order.passages) for seed in each.seeds)
        record = JobRecord(
            id=f"direct-{len(self.records):04d}",
            state="done",
            order=order,
            created_ns=time.time_ns(),
            plan=plan,
            takes=takes,
            provenance=Provenance(model=self.model, trained=self.trained),
        )
        self.records[record.id] = record
        self.orders.append(order)
        return record

    def take(self, number, passage, seed):
        start, stop = passage.span
        source = self.blobs[passage.source.sha256] if passage.source else np.zeros((2, passage.frames), np.float32)
        made = self.make(source, passage, seed)[:, start:stop]
        return Take(seed=seed, audio=self.put_audio(made, 48_000), passage=number)

    def follow(self, job, since=0):
        yield Event(job=job, seq=1, at_ns=0, state="done")

    def result(self, job):
        return self.records[job]

    def landed(self, job, where):
        self.where[job] = where


class Heard:
    """A listener that remembers what it was told."""

    def __init__(self) -> None:
        self.said, self.warned, self.seen = [], [], []

    def say(self, text):
        self.said.append(text)

    def warn(self, text):
        self.warned.append(text)

    def watch(self, event):
        self.seen.append(event)
