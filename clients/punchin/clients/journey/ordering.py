"""Steps 3 and 4 of a journey: what was captured becomes an order that the engine can make."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import msgspec
import numpy as np
from numpy.typing import NDArray

from punchin.clients.journey import lorafile
from punchin.clients.journey.capture import Capture
from punchin.clients.journey.groups import Group
from punchin.clients.journey.request import Prompt, Request
from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.protocol.order import Blob, Lora, Order, Passage
from punchin.session import audiofile
from punchin.session.resample import resample

if TYPE_CHECKING:
    from punchin.clients.client import Client
    from punchin.clients.journey.waiting import Listener

Audio = NDArray[np.float32]
Beats = Literal[2, 3, 4, 6]

HEARD_SIGNATURES = (2, 3, 4, 6)  # beats in a bar that ACE-Step was trained to be told
WHOLE_WINDOW = frozenset({"cover", "extract"})  # tasks that make all of their source anew


def order_of(groups: Sequence[Group], client: Client, listener: Listener) -> Order:
    """The order for these groups, a passage each, all of which are asked for alike but for place and seed: one job.

    Its audio is in the daemon's store on return. Raises Refused and OverLimit, which name the passage.
    """
    request = groups[0].requests[0]
    prompt, told = request.prompt, _Once(listener)
    first, *also = [_passage(each, each.name if len(groups) > 1 else "", client, told) for each in groups]
    return Order(
        task=request.task,
        also=tuple(also),
        model=prompt.model,
        prompt=prompt.text,
        lyrics=prompt.lyrics,
        language=prompt.language,
        instrument=prompt.instrument,
        key=prompt.key,
        references=references(prompt, client),
        strength=prompt.strength,
        steps=prompt.steps,
        shift=prompt.shift,
        guidance=prompt.guidance,
        loras=loras(prompt, client),
        raw=prompt.raw,
        **msgspec.structs.asdict(first),
    )


def _passage(group: Group, name: str, client: Client, listener: Listener) -> Passage:
    """One window of the order: its regions are made at once."""
    request, captured, ways = group.requests[0], group.captures[0], [each.way for each in group.captures]
    tempo, at_s = captured.session.tempo, captured.region.start_s
    try:
        source = client.put_audio(model_audio(request, captured, listener), limits.MODEL_HZ)
        return Passage(
            frames=source.frames,
            source=source,
            mask=() if request.task in WHOLE_WINDOW else joined(each.mask for each in ways),
            wanted=(min(each.wanted[0] for each in ways), max(each.wanted[1] for each in ways)),
            seeds=tuple(seeds_from(request.seed, request.variations)),
            bpm=told_bpm(captured.way.bpm or tempo.bpm_at(at_s), listener),
            signature=told_signature(request.prompt.signature or tempo.signature_at(at_s), listener),
            name=name[: limits.NAME_CHARS],
        )
    except Refused as error:
        raise error.of(name) from None


class _Once:
    """A listener who is warned of the same thing once: most is the same for all passages."""

    def __init__(self, listener: Listener) -> None:
        self.say, self.watch, self._warn = listener.say, listener.watch, listener.warn
        self._warned = set[str]()

    def warn(self, text: str) -> None:
        """See `Listener`."""
        if text not in self._warned:
            self._warned.add(text)
            self._warn(text)


def joined(spans: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Spans in order, those that overlap as one."""
    out: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if out and start < out[-1][1]:
            start, stop = out[-1][0], max(out.pop()[1], stop)
        out.append((start, stop))
    return tuple(out)


def model_audio(request: Request, captured: Capture, listener: Listener) -> Audio:
    """What the model hears: [2, window.model_frames] at 48 kHz and one tempo, through `pre_fx` where there is one."""
    heard, rate_hz = captured.heard, captured.target.rate_hz
    if request.pre_fx is not None:
        from punchin.clients import fx

        listener.say(f"  through {request.pre_fx.name} ...")
        heard = fx.apply(request.pre_fx, heard, rate_hz)
    return captured.way.there(resample(heard, rate_hz, limits.MODEL_HZ, captured.window.model_frames))


def heard_name(request: Request, captured: Capture, source: Blob) -> str:
    """`captured.heard_sha256`. Where the model hears just that, it is the source's own name, and hashed already."""
    same_rate = captured.target.rate_hz == limits.MODEL_HZ and captured.window.model_frames == captured.heard.shape[1]
    as_it_is = same_rate and request.pre_fx is None and not captured.way.points
    return source.sha256 if as_it_is else captured.heard_sha256


def told_bpm(bpm: float, listener: Listener) -> float:
    """The tempo that the prompt says: the session's, halved or doubled into what the model knows."""
    told = bpm
    while told > limits.TEMPO.high:
        told /= 2
    while told < limits.TEMPO.low:
        told *= 2
    if told != bpm:
        listener.warn(
            f"the model is told {told:g} bpm: {bpm:g} is outside {limits.TEMPO.low:g} to {limits.TEMPO.high:g}"
        )
    return told


def told_signature(signature: tuple[int, int], listener: Listener) -> Beats | None:
    """The beats in a bar that the prompt says, None (N/A) for signatures that the model does not know."""
    if signature[0] in HEARD_SIGNATURES:
        return cast(Beats, signature[0])
    listener.warn(f"the model is told no time signature: it knows 2, 3, 4 and 6 beats, not {signature[0]}")
    return None


def seeds_from(first: int, count: int) -> list[int]:
    """`count` seeds on from `first`; after the highest comes 0."""
    return [(first + i) % (int(limits.SEED.high) + 1) for i in range(count)]


def references(prompt: Prompt, client: Client) -> tuple[Blob, ...]:
    """The reference files in the daemon's store, at 48 kHz. Raises Refused, and OverLimit for number and length."""
    limits.REFERENCES.check(len(prompt.references))
    return tuple(client.put_audio(_reference(path), limits.MODEL_HZ) for path in prompt.references)


def loras(prompt: Prompt, client: Client) -> tuple[Lora, ...]:
    """The LoRAs in the daemon's store. Raises Refused for one that cannot be read, OverLimit for number and size."""
    limits.LORAS.check(len(prompt.loras))
    return tuple(_lora(path, strength, client) for path, strength in prompt.loras)


def _lora(path: Path, strength: float, client: Client) -> Lora:
    data = lorafile.read(path)
    return Lora(sha256=client.put(data), size_bytes=len(data), name=path.name[:200], strength=strength)


def _reference(path: Path) -> Audio:
    found = audiofile.info(path)  # before a long one fills the memory
    limits.REFERENCE.check(found.length_s, f"cut {path.name}")
    limits.CHANNELS.check(found.channels, f"mix {path.name} down to stereo")
    audio, rate_hz = audiofile.read(path)
    return resample(audio, rate_hz, limits.MODEL_HZ)
