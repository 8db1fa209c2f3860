"""What is asked for, and what comes back. The same Structs travel to the daemon, into its journal and to the worker.

Audio is never inside: a `Blob` names raw little-endian float32 samples, interleaved, by sha256.
Times are 48 kHz sample frames or latent frames (40 ms), as the field's name says, counted from the source's start.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from punchin.protocol import limits
from punchin.protocol.errors import Refused

Task = Literal["text2music", "repaint", "cover", "lego", "extract", "complete"]
State = Literal["queued", "leased", "running", "storing", "done", "failed", "cancelled"]
JOB_ID = r"^[0-9A-Za-z-]{8,64}\Z"  # not $, which a line's end may follow
JobId = Annotated[str, Meta(pattern=JOB_ID)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Channels = Annotated[int, Meta(ge=1, le=2)]
Frames = Annotated[int, Meta(ge=1, le=600 * limits.MODEL_HZ)]

_VERBS: dict[Task, str] = {"lego": "layer", "text2music": "generate"}
TERMINAL: frozenset[State] = frozenset({"done", "failed", "cancelled"})


class Blob(Struct, frozen=True, kw_only=True):
    """Audio in the store: `frames` x `channels` float32, interleaved, little-endian, at `rate_hz`."""

    sha256: Sha256
    channels: Channels
    frames: Frames
    rate_hz: Annotated[int, Meta(ge=1, le=384_000)] = limits.MODEL_HZ

    @property
    def size_bytes(self) -> int:
        """Bytes of the raw samples."""
        return self.frames * self.channels * 4


class Lora(Struct, frozen=True, kw_only=True):
    """A LoRA file in the store (safetensors, any known naming) and how strongly it is applied."""

    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=1, le=int(limits.LORA_SIZE.high))]
    name: Annotated[str, Meta(max_length=limits.NAME_CHARS)]
    strength: float = 1.0


class Passage(Struct, frozen=True, kw_only=True):
    """One window of music that the engine hears and makes at once. Refuses what could never be made.

    frames: the window's length in 48 kHz frames; equal to the source's where there is one.
    source: what the model hears (context and region), 48 kHz. None for text2music alone.
    mask: latent frames [start, stop) to make anew (repaint, lego). Empty: all of it.
    wanted: 48 kHz frames [start, stop) of the window that come back. None: all of it.
    seeds: one take each, and so each once.
    bpm, signature: what the prompt says; None is N/A. bpm may be fractional: the prompt rounds it.
    name: what people call it, for progress and errors where an order has several.
    """

    frames: Frames
    source: Blob | None = None
    mask: Annotated[tuple[tuple[int, int], ...], Meta(max_length=64)] = ()
    wanted: tuple[int, int] | None = None
    seeds: Annotated[tuple[int, ...], Meta(min_length=1, max_length=limits.MAX_SEEDS)] = (0,)
    bpm: float | None = None
    signature: Literal[2, 3, 4, 6] | None = None
    name: Annotated[str, Meta(max_length=limits.NAME_CHARS)] = ""

    def __post_init__(self) -> None:
        try:
            self._check()
        except Refused as error:
            raise error.of(self.name) from None

    def _check(self) -> None:
        for seed in self.seeds:
            limits.SEED.check(seed)
            if self.seeds.count(seed) > 1:
                raise Refused(f"seed {seed} is asked for twice: it would give the same take")
        if self.bpm is not None:
            limits.TEMPO.check(self.bpm)
        if self.source is not None and self.source.frames != self.frames:
            raise Refused(f"the order is {self.frames} frames long, its source {self.source.frames}")
        latents = -(-self.frames // limits.HOP)
        last = 0
        for start, stop in self.mask:
            if not last <= start < stop <= latents:
                raise Refused(
                    f"mask {start} to {stop} must rise, not overlap, and lie within 0 to {latents} latent frames"
                )
            last = stop
        if self.wanted is not None and not 0 <= self.wanted[0] < self.wanted[1] <= self.frames:
            raise Refused(f"wanted frames {self.wanted[0]} to {self.wanted[1]} do not lie within 0 to {self.frames}")

    @property
    def span(self) -> tuple[int, int]:
        """The frames [start, stop) of the window that come back."""
        return self.wanted or (0, self.frames)


class Order(Passage, frozen=True, kw_only=True):
    """Ask for takes of a passage, or of several in one job. Refuses what could never be made (OverLimit, Refused).

    The first passage stands in the order itself, further ones in `also`; all else is asked of each of them.
    key: what the prompt says; None is N/A.
    strength: 1 is all new; see `--strength` in the docs for what 0 means in each task.
    steps, shift, guidance: None is the model's own default.
    raw: engine parameters by their Python names (`--raw`), checked by the engine.
    """

    task: Task
    also: Annotated[tuple[Passage, ...], Meta(max_length=limits.MAX_REGIONS - 1)] = ()
    model: Annotated[str, Meta(max_length=100)] = ""  # "" is the daemon's default
    prompt: Annotated[str, Meta(max_length=limits.PROMPT_CHARS)] = ""
    lyrics: Annotated[str, Meta(max_length=limits.LYRICS_CHARS)] = ""  # "" is instrumental
    language: Annotated[str, Meta(max_length=20)] = "unknown"
    instrument: Annotated[str, Meta(max_length=limits.NAME_CHARS)] = ""  # lego, extract, complete
    key: Annotated[str, Meta(max_length=40)] | None = None
    references: Annotated[tuple[Blob, ...], Meta(max_length=limits.MAX_REFERENCES)] = ()
    strength: float = 1.0
    steps: int | None = None
    shift: float | None = None
    guidance: float | None = None
    loras: Annotated[tuple[Lora, ...], Meta(max_length=limits.MAX_LORAS)] = ()
    raw: dict[str, bool | int | float | str] = {}
    interactive: bool = True  # someone waits: goes before a batch

    def __post_init__(self) -> None:
        super().__post_init__()
        limits.STRENGTH.check(self.strength)
        for limit, value in (
            (limits.STEPS, self.steps),
            (limits.SHIFT, self.shift),
            (limits.GUIDANCE, self.guidance),
        ):
            if value is not None:
                limit.check(value)
        for lora in self.loras:
            limits.LORA_STRENGTH.check(lora.strength)
        for passage in self.passages:
            if passage.source is None and self.task != "text2music":
                raise Refused(f"{self.task} needs a source, none was sent").of(passage.name)

    @property
    def passages(self) -> tuple[Passage, ...]:
        """All that the order asks for, in order; a take's `passage` counts here."""
        return (self, *self.also)

    @property
    def rolls(self) -> tuple[tuple[int, int], ...]:
        """Passage and seed of each take, in the order of the record's takes."""
        return tuple((number, seed) for number, passage in enumerate(self.passages) for seed in passage.seeds)

    def label(self, number: int) -> str:
        """What people are told of a passage, which counts from 0; "" where it is the only one."""
        count = len(self.passages)
        return "" if count == 1 else f"{self.passages[number].name or 'passage'} ({number + 1} of {count})"

    def of(self, passages: Sequence[Passage]) -> Order:
        """The same asked of other passages, at least one."""
        first, *also = passages
        own = {name: getattr(first, name) for name in Passage.__struct_fields__}
        return msgspec.structs.replace(self, also=tuple(also), **own)

    @property
    def blobs(self) -> tuple[Blob | Lora, ...]:
        """All in the store that the order refers to."""
        sources = (passage.source for passage in self.passages)
        return (*(source for source in sources if source is not None), *self.references, *self.loras)


class Take(Struct, frozen=True, kw_only=True):
    """One take in the store: its audio (the `wanted` frames, 48 kHz, stereo unless the engine returned its input).

    passage: which of the order's it is a take of, from 0.
    """

    seed: int
    audio: Blob
    passage: int = 0


class Provenance(Struct, frozen=True, kw_only=True):
    """What made a take, so that `redo` needs nothing else."""

    model: str
    model_sha256: str = ""
    trained: bool = True  # False: random weights, the take is noise
    device: str = "cpu"
    dtype: str = "float32"
    steps: int = 0
    shift: float = 0.0
    guidance: float = 0.0
    notes: tuple[str, ...] = ()  # in words: a lower memory rung, a clamped value, ...


class JobRecord(Struct, frozen=True, kw_only=True):
    """A job as the journal has it. `plan` is the landing plan: opaque bytes, returned as they came.

    takes: passage by passage, in the order of their seeds.
    """

    id: JobId
    state: State
    order: Order
    created_ns: int
    attempts: int = 0
    seq: int = 0  # of the job's newest event
    takes: tuple[Take, ...] = ()
    provenance: Provenance | None = None
    error_code: str = ""
    error_text: str = ""
    error_hint: str = ""
    landed: str = ""  # where the takes were landed; "" is nowhere yet
    plan: bytes = b""


class Event(Struct, frozen=True, kw_only=True):
    """Something that happened to a job. `seq` counts from 1 within the job, without gaps, across restarts.

    Progress has seq 0: it is coalesced, not journaled, and may be missed.
    """

    job: JobId
    seq: int
    at_ns: int
    state: State
    phase: str = ""  # "loading model", "encoding", "diffusing", "decoding", ...
    done: int = 0  # steps of this phase
    total: int = 0
    text: str = ""


def called(task: Task) -> str:
    """What people call a task: by the verb that asks for it."""
    return _VERBS.get(task, task)
