"""The engine that returns its input: for tests of the whole way, and for trust in it. Knows no torch."""

from __future__ import annotations

from punchin.engine.takes import Audio, Report, read_blob, write_take
from punchin.protocol.errors import Refused
from punchin.protocol.link import Made, MadeTake, Run
from punchin.protocol.order import Provenance


def perform(run: Run, report: Report) -> Made:
    """Each passage's wanted frames, bit by bit and in the source's own channels, once for each seed."""
    passages = run.order.passages
    sources = [_source(run, number) for number in range(len(passages))]  # refused before any is copied
    takes, count = list[MadeTake](), sum(len(passage.seeds) for passage in passages)
    for number, (passage, source) in enumerate(zip(passages, sources, strict=True)):
        start, stop = passage.span
        for seed in passage.seeds:
            takes.append(write_take(run, number, seed, source[:, start:stop]))
            report("copying", len(takes), count)
    return Made(job=run.job, takes=tuple(takes), provenance=Provenance(model="identity"))


def _source(run: Run, number: int) -> Audio:
    source = run.order.passages[number].source
    try:
        if source is None:
            raise Refused("the identity model returns its source, and none was sent")
        return read_blob(source, run.files, "the source")
    except Refused as error:
        raise error.of(run.order.label(number)) from None
