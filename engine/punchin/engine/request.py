"""One call of the engine as a value: everything that is asked for, checked before any weight is moved.

`Request` is what `AceStepPipeline` works on; its call and the worker both make one. Scalars have the call's public
names, so that `--raw NAME=VALUE` means the same as the Python argument.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import Any, Final, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from punchin.engine import given, prompts
from punchin.protocol import limits
from punchin.protocol.errors import OverLimit, Refused
from punchin.protocol.limits import HOP, LATENT_HZ, MODEL_HZ, Limit
from punchin.protocol.order import Task

CoverMode = Literal["fsq", "latent"]
GuidanceMode = Literal["apg", "cfg"]
MaskMode = Literal["explicit", "ones", "auto"]

MIN_LATENTS: Final = int(limits.WINDOW.low)
SILENT_PEAK: Final = 1e-5  # -100 dBFS
_UNIT = Limit("", 0, 1, "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Request:
    """What is asked of the engine. Audio is [2, n] float32 at 48 kHz on the CPU; `regions` count latent frames.

    frames: length of the window and, unless `wanted` is given, of the result, in 48 kHz frames; the source's length.
    regions: [start, stop) latent frames to make anew (repaint, lego); empty: all of it.
    blank: latent frames at the start and at the end of the source that were never music (out-painting).
    noise: [1, T, C] instead of the seeds' own, for comparisons.
    """

    task: Task = "text2music"
    frames: int
    prompt: str = ""
    lyrics: str = ""  # "" is instrumental
    language: str = "unknown"
    instruments: tuple[str, ...] = ()
    bpm: float | None = None
    keyscale: str | None = None
    timesignature: str | None = None
    prompt_duration_s: float | None = None  # what the prompt says; None: the truth
    source: Tensor | None = None
    references: tuple[Tensor, ...] = ()
    input_audio: Tensor | None = None
    codes: tuple[int, ...] = ()
    regions: tuple[tuple[int, int], ...] = ()
    blank: tuple[int, int] = (0, 0)
    wanted: tuple[int, int] | None = None
    seeds: tuple[int, ...] = (0,)
    noise: Tensor | None = None

    num_inference_steps: int | None = None
    shift: float | None = None
    cfg_scale: float | None = None
    guidance_mode: GuidanceMode = "apg"
    cfg_interval_start: float = 0.0
    cfg_interval_end: float = 1.0
    denoising_strength: float = 1.0
    cover_noise_strength: float = 0.0
    audio_cover_strength: float = 1.0
    cover_mode: CoverMode = "fsq"
    repainting_strength: float = 1.0
    repaint_injection: float = 1.0
    repaint_blend_frames: int = 12
    mask_mode: MaskMode = "explicit"
    reference_seed: int = 0
    sample_latents: bool = False
    peak_normalise: bool = False
    rand_device: str = "cpu"

    def __post_init__(self) -> None:
        limits.REGION.check(self.frames / MODEL_HZ)
        if self.prompt_duration_s is not None:
            limits.REGION.check(given.real(self.prompt_duration_s, "duration"))
        for seed in self.seeds:
            limits.SEED.check(seed)
        limits.VARIATIONS.check(len(self.seeds))
        for name, limit in _SCALARS.items():
            value = getattr(self, name)
            if value is not None:
                number = given.whole(value, name) if name in _WHOLE else given.real(value, name)
                limit.check(number)
                object.__setattr__(self, name, number)  # NumPy's as Python's own
        for name in _FLAGS:
            object.__setattr__(self, name, given.flag(getattr(self, name), name))
        self._check_words()
        self._check_task()
        self._check_regions()

    @property
    def latents(self) -> int:
        """Latent frames that the model works on: all that the window touches, and never fewer than 128."""
        return max(self.touched, MIN_LATENTS)

    @property
    def touched(self) -> int:
        """Latent frames that the window touches."""
        return -(-self.frames // HOP)

    def metas(self) -> str:
        """The prompt's metadata lines."""
        seconds = self.frames / MODEL_HZ if self.prompt_duration_s is None else self.prompt_duration_s
        return prompts.metas(self.bpm, self.keyscale, self.timesignature, seconds)

    def with_raw(self, raw: Mapping[str, bool | int | float | str]) -> Request:
        """The request with some parameters set by their Python names. Refused for unknown names, and as the class."""
        for name in raw:
            if name not in _RAW:
                raise Refused(f"no engine parameter is called {name!r}", f"one of: {', '.join(sorted(_RAW))}")
        return replace(self, **dict[str, Any](raw))

    def _check_words(self) -> None:
        for name, text in (
            ("vocal_language", self.language), ("rand_device", self.rand_device), ("keyscale", self.keyscale or ""),
        ):  # fmt: skip
            given.text(text, name)
        given.device(self.rand_device, "rand_device")
        for name, text, most in (
            ("prompt", self.prompt, limits.PROMPT_CHARS),
            ("lyrics", self.lyrics, limits.LYRICS_CHARS),
        ):
            if len(given.text(text, f"the {name}")) > most:
                raise Refused(f"the {name} has {len(text)} characters, allowed are {most}", code="over_limit")
        for name, allowed in (("cover_mode", CoverMode), ("guidance_mode", GuidanceMode), ("mask_mode", MaskMode)):
            if getattr(self, name) not in get_args(allowed):
                raise Refused(f"{name} is {getattr(self, name)!r}, allowed is {', '.join(get_args(allowed))}")
        if self.cfg_interval_start > self.cfg_interval_end:
            raise Refused(f"guidance from t = {self.cfg_interval_start:g} to {self.cfg_interval_end:g} never acts")
        self.metas()

    def _check_task(self) -> None:
        if self.task not in prompts.TASKS:
            raise Refused(f"unknown task {self.task!r}", f"one of: {', '.join(prompts.TASKS)}", code="task")
        prompts.instruction(self.task, self.instruments)
        if self.task == "text2music" and self.source is not None:
            raise Refused("text2music takes no source", "use repaint or cover, or pass it as input_audio", code="task")
        if self.task != "text2music" and self.source is None and not (self.task == "cover" and self.codes):
            raise Refused(f"{self.task} needs a source, none was given", code="task")
        if self.codes and self.source is not None:
            raise Refused("a source and audio codes were given; they are two ways to say the same", code="task")
        if self.source is not None and self.source.shape[1] != self.frames:
            raise Refused(f"the window is {self.frames} frames long, its source {self.source.shape[1]}")
        if self.input_audio is not None and self.denoising_strength >= 1 and self.cover_noise_strength == 0:
            raise Refused("input_audio has no effect at denoising_strength 1", "pass one below 1")
        if self.denoising_strength < 1 and self.cover_noise_strength > 0:
            raise Refused("denoising_strength and cover_noise_strength are two ways to say the same; pass one of them")
        for name, has_effect in (
            ("audio_cover_strength", self.task == "cover" or bool(self.codes)),
            ("repainting_strength", self.task == "repaint"),
        ):
            if getattr(self, name) < 1 and not has_effect:
                raise Refused(f"{name} {getattr(self, name):g} has no effect in {self.task}", code="task")
        if self.noise is not None and (self.noise.ndim != 3 or self.noise.shape[:2] != (1, self.latents)):
            raise Refused(f"the noise has shape {list(self.noise.shape)}, it must be [1, {self.latents}, channels]")

    def _check_regions(self) -> None:
        if self.regions and self.task not in ("repaint", "lego"):
            raise Refused(f"{self.task} takes no ranges, {len(self.regions)} were given", code="task")
        if self.task == "repaint" and not self.regions:
            raise Refused("repaint needs a range, none was given", code="task")
        last = 0
        for start, stop in self.regions:
            if not last <= start < stop <= self.touched:
                raise Refused(
                    f"range {start} to {stop} must rise, not overlap, and lie within 0 to {self.touched} latent frames"
                )
            last = stop
        if self.wanted is not None and not 0 <= self.wanted[0] < self.wanted[1] <= self.frames:
            raise Refused(f"wanted frames {self.wanted[0]} to {self.wanted[1]} do not lie within 0 to {self.frames}")


_SCALARS: Final[Mapping[str, Limit]] = {
    "bpm": limits.TEMPO,
    "num_inference_steps": limits.STEPS,
    "shift": limits.SHIFT,
    "cfg_scale": limits.GUIDANCE,
    "cfg_interval_start": replace(_UNIT, name="cfg_interval_start"),
    "cfg_interval_end": replace(_UNIT, name="cfg_interval_end"),
    "denoising_strength": Limit("denoising_strength", 0.01, 1, ""),
    "cover_noise_strength": replace(_UNIT, name="cover_noise_strength"),
    "audio_cover_strength": replace(_UNIT, name="audio_cover_strength"),
    "repainting_strength": replace(_UNIT, name="repainting_strength"),
    "repaint_injection": replace(_UNIT, name="repaint_injection"),
    "repaint_blend_frames": Limit("repaint_blend_frames", 0, 250, "latent frames"),
    "reference_seed": limits.SEED,
}
_WHOLE: Final = ("num_inference_steps", "repaint_blend_frames", "reference_seed")
_FLAGS: Final = ("sample_latents", "peak_normalise")
_RAW: Final = (_SCALARS.keys() - {"bpm"}) | {"guidance_mode", "cover_mode", "mask_mode", *_FLAGS}


def stereo(audio: given.Audio, what: str, rate_hz: int = MODEL_HZ) -> Tensor:
    """Audio [1 or 2, n] as [2, n] float32 on the CPU. Refused: another rate or shape, whole numbers, NaN, silence.

    Mono is duplicated, as the original does; nothing is resampled here.
    """
    if rate_hz != MODEL_HZ:
        raise Refused(f"{what} is at {rate_hz} Hz, the engine takes {MODEL_HZ}", "resample it first", code="rate")
    audio = given.tensor(audio, what)
    if audio.ndim != 2 or audio.shape[1] == 0:
        raise Refused(f"{what} has shape {list(audio.shape)}, it must be [channels, frames]")
    if not 1 <= audio.shape[0] <= 2:
        raise OverLimit(limits.CHANNELS, audio.shape[0], "pass [channels, frames]")
    if not audio.is_floating_point():
        raise Refused(f"{what} is {audio.dtype}, it must be float with full scale at 1", "divide by its full scale")
    audio = audio.detach().to("cpu", torch.float32)
    bad = int((~audio.isfinite()).sum())
    if bad:
        raise Refused(f"{what} has {bad} samples that are not finite", code="not_finite")
    peak = float(audio.abs().max())
    if peak < SILENT_PEAK:
        raise Refused(f"{what} is silent: its peak is {peak:g}, at least {SILENT_PEAK:g} is needed", code="silent")
    return audio.expand(2, -1).contiguous()


def reference(audio: given.Audio, number: int = 1, rate_hz: int = MODEL_HZ) -> Tensor:
    """A reference as `stereo` gives it, within its limits of length, clipped to [-1, 1] as the original does."""
    checked = stereo(audio, f"reference {number}", rate_hz)
    limits.REFERENCE.check(checked.shape[1] / MODEL_HZ)
    return checked.clamp(-1, 1)


class Painted(NamedTuple):
    """A source that has grown to hold all ranges, what `Request` says of it, and which frames were asked for."""

    source: Tensor
    regions: tuple[tuple[int, int], ...]
    blank: tuple[int, int]
    wanted: tuple[int, int]


def painted(source: Tensor, ranges_s: Sequence[tuple[float, float]]) -> Painted:
    """Source and regions for repainting ranges in seconds, which may reach beyond the source on either side.

    A range from below 0 paints to the left, one beyond the end to the right: silence is added there, whole latent
    frames of it on the left. A negative end means the source's end; with a negative start, its beginning. Ranges
    that are empty, overlap or do not even adjoin the source are refused. Those that end and begin within one latent
    frame become one region.
    """
    length = source.shape[1]
    spans: list[tuple[int, int]] = []
    for start_s, end_s in sorted(ranges_s):
        if not (isfinite(start_s) and isfinite(end_s)):
            hint = "give seconds; an end of -1 is the source's end"
            raise Refused(f"repainting range {start_s:g} to {end_s:g} s is not finite", hint)
        start, end = round(start_s * MODEL_HZ), round(end_s * MODEL_HZ)
        if end < 0:
            end = length if start >= 0 else 0
        if start >= end:
            raise Refused(f"repainting range {start_s:g} to {end_s:g} s has no length")
        if start > length:
            outside = f"lies outside the source, 0 to {length / MODEL_HZ:g} s"
            raise Refused(f"repainting range {start_s:g} to {end_s:g} s {outside}")
        spans.append((start, end))
    if not spans:
        raise Refused("repaint needs a range, none was given", code="task")
    for one, two in pairwise(spans):
        if two[0] < one[1]:
            said = " and ".join(f"{start / MODEL_HZ:g} to {end / MODEL_HZ:g} s" for start, end in (one, two))
            raise Refused(f"repainting ranges {said} overlap", "give them as one, or apart")
    first, last = min(start for start, _ in spans), max(end for _, end in spans)
    left, right = -(-max(0, -first) // HOP), max(0, last - length)
    limits.REGION.check((left * HOP + length + right) / MODEL_HZ)
    grown = torch.nn.functional.pad(source, (left * HOP, right))
    total = -(-grown.shape[1] // HOP)
    regions = _merged((left + start // HOP, left - (-end // HOP)) for start, end in spans)
    blank = (left, total - left - length // HOP if right else 0)
    return Painted(grown, regions, blank, (left * HOP + min(first, 0), grown.shape[1]))


def _merged(regions: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """Rising regions, with those that share a frame as one."""
    made: list[tuple[int, int]] = []
    for start, stop in regions:
        if made and start < made[-1][1]:
            start, _ = made.pop()
        made.append((start, stop))
    return tuple(made)


def duration_frames(duration_s: float) -> int:
    """48 kHz frames of a duration. Raises OverLimit, Refused for what is no number."""
    duration_s = given.real(duration_s, "duration")
    limits.REGION.check(duration_s)
    return round(duration_s * MODEL_HZ)


def parse_codes(text: str) -> tuple[int, ...]:
    """The codes in a string of `<|audio_code_N|>`, clamped to the codebook; other text is passed over.

    Refused where there is none, and where one is cut or misspelt: without it all that follows would come 0.2 s early.
    """
    found = re.findall(r"<\|audio_code_(\d{1,9})\|>", given.text(text, "audio_code_string"))
    codes = tuple(min(int(code), 63_999) for code in found)
    if not codes:
        raise Refused("the audio code string holds no <|audio_code_N|>")
    if bad := text.count("<|audio_code_") - len(codes):
        hint = "write each as <|audio_code_N|>, with N from 0 to 63999"
        raise Refused(
            f"the audio code string has {bad} codes that are cut or misspelt, and {len(codes)} good ones", hint
        )
    limits.REGION.check(len(codes) * 5 / LATENT_HZ)
    return codes


def code_string(codes: Sequence[int]) -> str:
    """Codes as the string that `parse_codes` reads."""
    return "".join(f"<|audio_code_{code}|>" for code in codes)
