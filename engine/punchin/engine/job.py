"""One order performed: the model found and kept, the order turned into a request, takes written."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from msgspec.structs import replace
from torch import Tensor

from punchin.engine import prompts, tiny, weights
from punchin.engine.conditioner import LATENT_BYTES, Recent
from punchin.engine.lora import Lora, read_lora
from punchin.engine.model import AceStep
from punchin.engine.pipeline import AceStepPipeline, Music
from punchin.engine.placement import Wish
from punchin.engine.released import VAE_STEM, Loaded, load, skeleton
from punchin.engine.request import Request, reference, stereo
from punchin.engine.takes import Offer, Report, read_blob, write_part, write_take
from punchin.protocol import home, installed
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.limits import HOP
from punchin.protocol.link import Made, MadeTake, Run
from punchin.protocol.models import Model
from punchin.protocol.order import Order, Passage, Provenance


def find(model: Model) -> Path:
    """The folder of an installed model. Refused (`model_missing`) with the command that gets it."""
    if model.name == tiny.NAME:
        return tiny.ready()
    folder = installed.folder(model)
    if folder is not None:
        return folder
    pull = f"`punchin models pull {model.name}` ({installed.to_fetch_bytes(model) / 1e9:.1f} GB)"
    raise Refused(f"model {model.name} is not installed below {home.models()}", pull, "model_missing")


log = logging.getLogger(__name__)


class Performer:
    """Performs orders one after the other and keeps the last model, so that the next order finds it warm."""

    def __init__(self, tell_plan: Callable[[str], None] = lambda words: None) -> None:
        """`tell_plan` hears in words where a model's parts are, once it is loaded."""
        self._tell_plan = tell_plan
        self._kept: tuple[str, int, int] | None = None
        self._pipeline: AceStepPipeline | None = None
        self._heard: tuple[tuple[str, torch.dtype], Recent] | None = None  # latents, and whose they are
        self._loras: tuple[tuple[str, float], ...] = ()

    def perform(self, run: Run, report: Report, offer: Offer) -> Made:
        """Make all takes of a job, each stretch offered as soon as it is decoded.

        Raises Refused, JobFailed, whatever `report` and `offer` raise, and OSError.
        """
        order = run.order
        model = installed.named(order.model)
        model.check(order.task)
        requests = requests_of(run)
        pipeline = self._ready(model, run, report)
        takes, made_by = list[MadeTake](), list[Provenance]()
        for number, request in enumerate(requests):
            try:
                music = _made(pipeline, request, run, number, report, offer)
            except PunchinError as error:
                raise error.of(order.label(number)) from None
            pairs = zip(music.seeds, music.audio, strict=True)
            takes += [write_take(run, number, seed, audio.numpy()) for seed, audio in pairs]
            made_by.append(_provenance(pipeline, music, run.rung))
        notes = dict.fromkeys(note for each in made_by for note in each.notes)  # all else is the same for each
        return Made(job=run.job, takes=tuple(takes), provenance=replace(made_by[0], notes=tuple(notes)))

    def _ready(self, model: Model, run: Run, report: Report) -> AceStepPipeline:
        """The order's model with its LoRAs, which are compared with its shapes before a weight is moved."""
        wanted = tuple((lora.sha256, lora.strength) for lora in run.order.loras)
        place = find(model)
        kept = str(place), place.stat().st_mtime_ns, run.rung  # another may have been taken in under an old name
        warm = self._pipeline if self._kept == kept else None
        if warm is not None and wanted == self._loras:
            return warm
        loras = _loras(run, skeleton(place) if warm is None else warm.loaded.model) if wanted else []
        pipeline = self._load(model, place, run.rung, report) if warm is None else warm
        self._kept = kept
        if wanted != self._loras:
            pipeline.use_loras(loras)
            self._loras = wanted
        return pipeline

    def _load(self, model: Model, place: Path, rung: int, report: Report) -> AceStepPipeline:
        self._pipeline, self._kept, self._loras = None, None, ()
        gc.collect()  # the old model's memory is needed for the new one
        try:
            loaded = load(place, wish=Wish(rung=rung), report=report)
            latents = self._latents(loaded)
        except OSError as error:  # removed meanwhile, or on a disk that fails
            raise Refused(f"{model.name} cannot be read: {error}", "`punchin models list`", "model_missing") from error
        self._pipeline = AceStepPipeline(loaded, latents)
        log.info("%s on %s", model.name, loaded.placement.words)
        self._tell_plan(f"{model.name} on {loaded.placement.words}")
        return self._pipeline

    def _latents(self, loaded: Loaded) -> Recent:
        """What was encoded so far, where this model's autoencoder is the last one's: a change of model keeps it."""
        vae = weights.fingerprint(weights.open_checkpoint(loaded.folders.vae, VAE_STEM)), loaded.dtype
        if self._heard is None or self._heard[0] != vae:
            self._heard = vae, Recent(LATENT_BYTES)
        return self._heard[1]


def requests_of(run: Run) -> list[Request]:
    """The engine's requests for an order's passages, whose audio lies in `run.files`, before any is made.

    Raises Refused for what the engine cannot take.
    """
    order, requests = run.order, list[Request]()
    references = tuple(
        reference(torch.from_numpy(read_blob(blob, run.files, f"reference {number}")), number)
        for number, blob in enumerate(order.references, start=1)
    )
    for number, passage in enumerate(order.passages):
        try:
            requests.append(_request(order, passage, references, run))
        except Refused as error:
            raise error.of(order.label(number)) from None
    return requests


def _request(order: Order, passage: Passage, references: tuple[Tensor, ...], run: Run) -> Request:
    source = None
    if passage.source is not None:
        source = stereo(torch.from_numpy(read_blob(passage.source, run.files, "the source")), "the source")
    whole = ((0, -(-passage.frames // HOP)),) if order.task == "repaint" and not passage.mask else ()
    request = Request(
        task=order.task,
        frames=passage.frames,
        prompt=order.prompt,
        lyrics=order.lyrics,
        language=order.language,
        instruments=prompts.instruments(order.instrument),
        bpm=passage.bpm,
        keyscale=order.key,
        timesignature=None if passage.signature is None else str(passage.signature),
        source=source,
        references=references,
        regions=tuple((start, stop) for start, stop in passage.mask) or whole,
        wanted=passage.wanted,
        seeds=passage.seeds,
        num_inference_steps=order.steps,
        shift=order.shift,
        cfg_scale=order.guidance,
        repainting_strength=order.strength if order.task == "repaint" else 1.0,
        audio_cover_strength=round(1 - order.strength, 9) if order.task == "cover" else 1.0,
    )
    return request.with_raw(order.raw)


def _loras(run: Run, model: AceStep) -> list[tuple[Lora | str | Path, float]]:
    """The order's LoRAs with their strengths, each fitted to the model's names and shapes."""
    for each in run.order.loras:
        if each.sha256 not in run.files:
            raise Refused(f"LoRA {each.name} did not come with the job")
    return [(read_lora(run.files[each.sha256], model, each.name), each.strength) for each in run.order.loras]


def _made(pipeline: AceStepPipeline, request: Request, run: Run, passage: int, report: Report, offer: Offer) -> Music:
    """A passage's takes, with each stretch offered and each step reported."""
    label = run.order.label(passage)
    stages = pipeline.stages(request)
    while True:
        try:
            stage = next(stages)
        except StopIteration as end:
            return end.value
        if stage.stretch is not None:
            piece = stage.stretch
            offer(write_part(run, passage, piece.seed, piece.index, piece.start_frame, piece.audio.numpy()))
        report(f"{label}: {stage.phase}" if label else stage.phase, stage.done, stage.total)


def _provenance(pipeline: AceStepPipeline, music: Music, rung: int) -> Provenance:
    loaded = pipeline.loaded
    notes = music.notes
    if rung:
        notes = (*notes, f"memory ran out, so {rung} lower on the memory plan: {loaded.placement.words}")
    if not loaded.trained:
        notes = (*notes, "the weights are untrained: the take is noise")
    return Provenance(
        model=loaded.variant.name,
        model_sha256=loaded.sha256,
        trained=loaded.trained,
        device=str(loaded.device),
        dtype=str(loaded.dtype).removeprefix("torch."),
        steps=music.steps,
        shift=music.shift,
        guidance=music.guidance,
        notes=notes,
    )
