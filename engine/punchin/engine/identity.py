"""The engine that returns its input: for tests of the whole way, and for trust in it. Knows no torch."""

from __future__ import annotations

from punchin.engine.takes import Report, read_blob, write_take
from punchin.protocol.errors import Refused
from punchin.protocol.link import Made, Run
from punchin.protocol.order import Provenance


def perform(run: Run, report: Report) -> Made:
    """The source's wanted frames, bit by bit and in its own channels, once for each seed."""
    order = run.order
    if order.source is None:
        raise Refused("the identity model returns its source, and none was sent")
    source = read_blob(order.source, run.files, "the source")
    start, stop = order.wanted or (0, order.frames)
    takes = []
    for done, seed in enumerate(order.seeds, start=1):
        takes.append(write_take(run.out_dir, seed, source[:, start:stop]))
        report("copying", done, len(order.seeds))
    return Made(job=run.job, takes=tuple(takes), provenance=Provenance(model="identity"))
