"""`AceStepPipeline`: from words, and from audio where there is some, to music.

pipe = AceStepPipeline.from_pretrained("models/acestep-v15-turbo")
music = pipe("dusty rhodes, brushed drums", duration=20, bpm=92, seed=7)
music.audio  # [1, 2, 960000] float32 at music.rate_hz = 48000
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, get_args

import torch
from torch import Tensor

from punchin.engine import given, prompts, steering, tasks
from punchin.engine import request as asked
from punchin.engine.codec import DECODE_TILE
from punchin.engine.conditioner import Conditioner, Recent, Stage, Stretch
from punchin.engine.device import is_out_of_memory
from punchin.engine.given import Audio
from punchin.engine.lora import Adapters, Lora, read_lora
from punchin.engine.placement import Wish
from punchin.engine.released import Loaded, load
from punchin.engine.request import CoverMode, GuidanceMode, MaskMode, Request
from punchin.engine.sampler import sample
from punchin.engine.schedule import noised
from punchin.engine.takes import Report
from punchin.engine.tiles import decode_margin
from punchin.protocol.errors import JobFailed, Refused
from punchin.protocol.limits import HOP, MODEL_HZ
from punchin.protocol.models import Model
from punchin.protocol.order import Task

DEFAULT_DURATION_S: Final = 30.0
PEAK: Final = 10 ** (-1 / 20)  # -1 dBFS: DiffSynth's peak normalisation

Preset = Literal["", "diffsynth"]
Stages = Generator[Stage, None, "Music"]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Music:
    """What came of a request, one entry a seed.

    audio: [seeds, 2, n] float32 on the CPU, not limited to [-1, 1]. latents: [seeds, T, C] float32 of the whole
    window, padding included. notes: what was not done as asked, in words.
    """

    audio: Tensor
    latents: Tensor
    rate_hz: int
    seeds: tuple[int, ...]
    steps: int
    shift: float
    guidance: float
    notes: tuple[str, ...]


class AceStepPipeline:
    """ACE-Step 1.5, loaded. Call it for music; `stages` is the same with a pause after each step and tile."""

    def __init__(self, loaded: Loaded, latents: Recent | None = None) -> None:
        """latents: see `Conditioner`; another model's, where both share an autoencoder."""
        self.loaded = loaded
        self.conditioner = Conditioner(loaded, latents)
        self.adapters = Adapters(loaded.model, self._settle)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        shared: str | Path | None = None,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        rung: int = 0,
        allow_int8: bool = False,
        limit_bytes: int | None = None,
        vram_config: Mapping[str, Any] | None = None,
        vram_limit: float | None = None,
        report: Report = lambda phase, done, total: None,
    ) -> AceStepPipeline:
        """The pipeline of a released folder, e.g. `acestep-v15-turbo`.

        shared: where VAE and text encoder are, if neither in nor beside the folder. device, dtype: see
        `placement.place`. Where memory is short, parts take turns on the device: the best plan that fits what is free
        and `limit_bytes` is carried out, or `rung` rungs below it; `allow_int8` lets weights be halved, at a loss.
        vram_config, and vram_limit in GiB: DiffSynth-Studio's, which say how parts take turns; `rung` and
        `limit_bytes` hold for them too. `allow_int8` is not used then.
        Raises Refused with what is missing or does not fit.
        """
        if vram_limit is not None:
            vram_config = {**(vram_config or {}), "vram_limit": vram_limit}
        wish = Wish(
            device=device,
            dtype=dtype,
            rung=rung,
            allow_int8=allow_int8,
            limit_bytes=limit_bytes,
            vram_config=vram_config,
        )
        return cls(load(folder, shared, wish, report))

    @property
    def variant(self) -> Model:
        """The model's row in the table: its name and defaults."""
        return self.loaded.variant

    def __call__(
        self,
        prompt: str = "",
        cfg_scale: float | None = None,
        lyrics: str = "",
        task_type: Task = "text2music",
        reference_audios: Sequence[Audio] | None = (),
        src_audio: Audio | None = None,
        input_audio: Audio | None = None,
        denoising_strength: float = 1.0,
        audio_cover_strength: float = 1.0,
        audio_code_string: str = "",
        repainting_ranges: Sequence[tuple[float, float]] = (),
        repainting_strength: float = 1.0,
        duration: float | None = None,
        bpm: float | None = None,
        keyscale: str | None = None,
        timesignature: str | int | None = None,
        vocal_language: str = "unknown",
        seed: int | Sequence[int] = 0,
        rand_device: str = "cpu",
        num_inference_steps: int | None = None,
        shift: float | None = None,
        *,
        rate_hz: int = MODEL_HZ,
        instrument: str = "",
        cover_mode: CoverMode = "fsq",
        cover_noise_strength: float = 0.0,
        guidance_mode: GuidanceMode = "apg",
        cfg_interval: tuple[float, float] = (0.0, 1.0),
        repaint_injection: float = 1.0,
        repaint_blend_frames: int = 12,
        mask_mode: MaskMode = "explicit",
        reference_seed: int = 0,
        sample_latents: bool = False,
        peak_normalise: bool = False,
        noise: Audio | None = None,
        preset: Preset = "",
    ) -> Music:
        """Make music, one piece a seed. Audio in is [1 or 2, n] at 48 kHz, tensor or array; nothing is resampled.

        prompt, lyrics ("" is instrumental), vocal_language: what to play. bpm, keyscale (`F# minor`), timesignature
        (2, 3, 4 or 6): None says N/A. duration: seconds, without a source (None: 30, or the codes' length); with one,
        its length counts.
        task_type: text2music; cover and repaint need `src_audio`; lego, extract and complete need a base model.
        instrument: for those three, comma-separated for complete.
        repainting_ranges: seconds (start, end) to make anew; they may reach beyond the source (out-painting), and the
        result then is as long as both. repainting_strength: 1 all new, 0 unchanged. repaint_injection: in which part
        of the steps the source is put back outside. repaint_blend_frames: over how many latent frames around a range.
        audio_cover_strength: the part of the steps that follow the source. cover_mode: `fsq` shows the source through
        the audio tokenizer, `latent` as it is. audio_code_string: codes instead of a source, cut to
        the duration or followed by silence.
        denoising_strength (DiffSynth's meaning: all steps, from a lower noise) or cover_noise_strength (the
        original's: the schedule's end alone): start from `input_audio`, else from the source.
        num_inference_steps, shift, cfg_scale: None is the model's own default. Turbo models take no guidance.
        guidance_mode: `apg` as the original, `cfg` plain; cfg_interval: between which times t it acts.
        peak_normalise: the peak at -1 dBFS; never for a region that must fit its neighbours.
        preset `diffsynth`: as DiffSynth-Studio does: mask of ones, plain CFG, unblended edges, peak at -1 dBFS.
        Raises OverLimit or Refused before any weight is moved, JobFailed where the result is not finite.
        """
        if preset not in get_args(Preset):
            raise Refused(f"preset is {preset!r}, known is diffsynth", "leave it out for none")
        ranges = given.pairs(repainting_ranges, "repainting_ranges")
        if ranges and src_audio is None:
            raise Refused("repainting_ranges were given, but no src_audio to repaint", code="task")
        references = () if reference_audios is None else reference_audios
        source = None if src_audio is None else asked.stereo(src_audio, "the source", rate_hz)
        codes = asked.parse_codes(audio_code_string) if audio_code_string else ()
        regions, blank, wanted = (), (0, 0), None
        if source is not None and ranges:
            source, regions, blank, wanted = asked.painted(source, ranges)
        length = self._length(source, codes, duration)
        ones = preset == "diffsynth"
        first_t, last_t = given.pair(cfg_interval, "cfg_interval")
        return _last(
            self.stages(
                Request(
                    task=task_type,
                    frames=length,
                    prompt=prompt,
                    lyrics=lyrics,
                    language=vocal_language,
                    instruments=prompts.instruments(given.text(instrument, "instrument")),
                    bpm=bpm,
                    keyscale=keyscale,
                    timesignature=None if timesignature is None else str(timesignature),
                    prompt_duration_s=duration if ones else None,
                    source=source,
                    references=tuple(asked.reference(a, n, rate_hz) for n, a in enumerate(references, start=1)),
                    input_audio=None if input_audio is None else asked.stereo(input_audio, "input_audio", rate_hz),
                    codes=codes,
                    regions=regions,
                    blank=blank,
                    wanted=wanted,
                    seeds=given.seeds(seed),
                    noise=None if noise is None else given.tensor(noise, "noise"),
                    num_inference_steps=num_inference_steps,
                    shift=shift,
                    cfg_scale=cfg_scale,
                    guidance_mode="cfg" if ones else guidance_mode,
                    cfg_interval_start=first_t,
                    cfg_interval_end=last_t,
                    denoising_strength=denoising_strength,
                    cover_noise_strength=cover_noise_strength,
                    audio_cover_strength=audio_cover_strength,
                    cover_mode=cover_mode,
                    repainting_strength=repainting_strength,
                    repaint_injection=repaint_injection,
                    repaint_blend_frames=0 if ones else repaint_blend_frames,
                    mask_mode="ones" if ones else mask_mode,
                    reference_seed=reference_seed,
                    sample_latents=sample_latents,
                    peak_normalise=ones or peak_normalise,
                    rand_device=rand_device,
                )
            )
        )

    def stages(self, request: Request) -> Stages:
        """Make music, pausing after each step and tile; the result is what the generator returns.

        To cancel, stop iterating. Refuses what this model cannot do at once, before any weight is moved.
        """
        self.variant.check(request.task)
        if request.noise is not None and request.noise.shape[2] != (channels := self.loaded.silence.shape[-1]):
            raise Refused(f"the noise has {request.noise.shape[2]} channels, the model's latents have {channels}")
        self.conditioner.texts(request, request.task)
        return _without_grad(self._stages(request), self.loaded.placement.rung)

    def use_loras(self, loras: Sequence[tuple[Lora | str | Path, float]]) -> None:
        """From now on use these LoRAs, files or read ones, each with its strength; () uses none. Takes no time.

        Raises Refused or OverLimit, and then nothing has changed. `adapters.fuse` writes them into the weights.
        """
        every = given.strengths(loras)
        read = [(each if isinstance(each, Lora) else read_lora(each, self.loaded.model), x) for each, x in every]
        self.adapters.use(read)

    def codes(self, audio: Audio, rate_hz: int = MODEL_HZ) -> str:
        """The audio codes of audio [1 or 2, n], five a second, as `audio_code_string` takes them."""
        source = asked.stereo(audio, "the audio", rate_hz)

        def listen() -> Generator[Stage, None, list[int]]:
            latent = yield from self.conditioner.latent(source)
            return self.conditioner.codes(latent)

        return asked.code_string(_last(_without_grad(listen(), self.loaded.placement.rung)))

    def _settle(self) -> None:
        """Before the weights mean something else: what was computed with them goes, and what travels comes home."""
        self.conditioner.forget()
        if self.loaded.shelf is not None:
            self.loaded.shelf.all_home()

    def _stages(self, request: Request) -> Stages:
        course = steering.course(self.variant, request)
        clean = yield from self._latent(request, request.source)
        start = clean if request.input_audio is None else (yield from self._latent(request, request.input_audio))
        if course.from_audio and start is None:
            raise Refused("a noise strength was given, but no source or input_audio to start from")
        kept = None if clean is None else tasks.hold(request, clean)
        silence = self.loaded.silence
        ways = yield from steering.branches(request, clean, len(course.times), self.conditioner, silence)
        latents: list[Tensor] = []
        for number in range(len(request.seeds)):
            latents.append((yield from self._sampled(request, number, start, kept, ways, course)))
        audios: list[Tensor] = []
        for number, latent in enumerate(latents):
            audios.append((yield from self._decoded(request, latent, number)))
        return Music(
            audio=torch.stack(audios),
            latents=torch.cat(latents).cpu(),
            rate_hz=MODEL_HZ,
            seeds=request.seeds,
            steps=len(course.times),
            shift=course.shift,
            guidance=course.guidance,
            notes=course.notes,
        )

    def _sampled(
        self,
        request: Request,
        number: int,
        start: Tensor | None,
        kept: tasks.Hold | None,
        ways: list[steering.Branch],
        course: steering.Course,
    ) -> Generator[Stage, None, Tensor]:
        """The latent [1, T, C] of the request's seed with that number, from noise over `start` if the course says."""
        seed = request.seeds[number]
        latent = tasks.noise_for(request, seed, self.loaded.silence.shape[-1]).to(self.loaded.device)
        if course.from_audio and start is not None:
            latent = noised(start, latent, course.times[0])
        velocity = steering.velocity(request, ways, course, self.loaded, self.conditioner)
        if kept is not None:
            velocity = tasks.held(velocity, kept, course.times)
        for step in sample(velocity, latent, course.times):
            latent = step.latent
            if not bool(latent.isfinite().all()):
                where = f"step {step.done} of {step.total}, seed {seed}"
                raise JobFailed(f"the model gave numbers that are not finite in {where}", code="not_finite")
            yield Stage("diffusing", number * step.total + step.done, len(request.seeds) * step.total)
        return latent if kept is None else tasks.finished(latent, kept)

    def _latent(self, request: Request, audio: Tensor | None) -> Generator[Stage, None, Tensor | None]:
        """The latent [1, T, C] of audio [2, n], followed by silence; None of None."""
        if audio is None:
            return None
        latent = yield from self.conditioner.latent(audio, 0 if request.sample_latents else None)
        return tasks.padded(latent, self.loaded.silence, request.latents)

    def _decoded(self, request: Request, latent: Tensor, number: int) -> Generator[Stage, None, Tensor]:
        """Audio [2, n] of the wanted frames: exactly that part of the whole.

        Each tile is told as a stretch, unless the peak decides on the level: that is known only at the end.
        """
        begin, end = request.wanted or (0, request.frames)
        start, stop = begin // HOP, -(-end // HOP)
        tile = max(DECODE_TILE, 4 * decode_margin(self.loaded.vae.spec))
        tiles = -(-(stop - start) // tile)
        parts: list[Tensor] = []
        for index, piece in enumerate(self.loaded.vae.decode_tiles(latent, start, stop, tile)):
            first = max(begin, piece.start * HOP)
            audio = piece.audio[0, :, first - piece.start * HOP : end - piece.start * HOP].float().cpu()
            if not bool(audio.isfinite().all()):
                raise JobFailed("the decoder gave samples that are not finite", code="not_finite")
            parts.append(audio)
            stretch = None if request.peak_normalise else Stretch(request.seeds[number], index, first - begin, audio)
            yield Stage("decoding", number * tiles + index + 1, len(request.seeds) * tiles, stretch)
        audio = torch.cat(parts, dim=1)
        peak = float(audio.abs().max())
        return audio * (PEAK / peak) if request.peak_normalise and peak > 1e-6 else audio

    def _length(self, source: Tensor | None, codes: tuple[int, ...], duration: float | None) -> int:
        if source is not None:
            return source.shape[1]
        if codes and duration is None:
            return len(codes) * self.loaded.model.tokenizer.pool * HOP
        return asked.duration_frames(DEFAULT_DURATION_S if duration is None else duration)


class OutOfMemory(JobFailed):
    """Memory ran out while music was made. `next_rung` is what to load the model with next time."""

    def __init__(self, error: Exception, next_rung: int) -> None:
        first = str(error).split("\n", 1)[0]
        super().__init__(f"memory ran out: {first}", f"load the model with rung={next_rung}", code="oom")
        self.next_rung = next_rung


def _without_grad(stages: Generator[Stage, None, T], rung: int) -> Generator[Stage, None, T]:
    """The same stages, each run without gradients: a mode entered inside a generator would leak out at its pauses."""
    while True:
        with torch.no_grad():
            try:
                stage = next(stages)
            except StopIteration as end:
                return end.value
            except (MemoryError, RuntimeError) as error:
                if is_out_of_memory(error):
                    raise OutOfMemory(error, rung + 1) from error
                raise
        yield stage


def _last(stages: Generator[Stage, None, T]) -> T:
    """What the stages return, once all are run."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            return end.value
