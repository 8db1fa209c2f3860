"""One order performed: the model found and kept, the order turned into a request, takes written."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from pathlib import Path

import torch

from punchin.engine import prompts, tiny, weights
from punchin.engine.conditioner import LATENT_BYTES, Recent
from punchin.engine.lora import Lora, read_lora
from punchin.engine.pipeline import AceStepPipeline, Music
from punchin.engine.placement import Wish
from punchin.engine.released import VAE_STEM, Loaded, load
from punchin.engine.request import Request, reference, stereo
from punchin.engine.takes import Offer, Report, read_blob, write_part, write_take
from punchin.protocol import home, installed
from punchin.protocol.errors import Refused
from punchin.protocol.limits import HOP
from punchin.protocol.link import Made, Run
from punchin.protocol.models import BY_NAME, Model
from punchin.protocol.order import Order, Provenance


def find(model: Model) -> Path:
    """The folder of an installed model. Refused (`model_missing`) with the command that gets it."""
    if model.family == "tiny":
        return tiny.ready()
    folder = installed.folder(model)
    if folder is not None:
        return folder
    size = f" ({model.size_bytes / 1e9:.1f} GB)" if model.size_bytes else ""
    pull = f"`punchin models pull {model.name}`{size}"
    raise Refused(f"model {model.name} is not installed below {home.models()}", pull, "model_missing")


log = logging.getLogger(__name__)


class Performer:
    """Performs orders one after the other and keeps the last model, so that the next order finds it warm."""

    def __init__(self, tell_plan: Callable[[str], None] = lambda words: None) -> None:
        """`tell_plan` hears in words where a model's parts are, once it is loaded."""
        self._tell_plan = tell_plan
        self._kept: tuple[str, int] | None = None
        self._pipeline: AceStepPipeline | None = None
        self._heard: tuple[tuple[str, torch.dtype], Recent] | None = None  # latents, and whose they are
        self._loras: tuple[tuple[str, float], ...] = ()

    def perform(self, run: Run, report: Report, offer: Offer) -> Made:
        """Make all takes of a job, each stretch offered as soon as it is decoded.

        Raises Refused, JobFailed, whatever `report` and `offer` raise, and OSError.
        """
        order = run.order
        model = BY_NAME.get(order.model)
        if model is None:
            raise Refused(f"no model is called {order.model!r}", f"one of: {', '.join(BY_NAME)}", "model_missing")
        request = request_of(order, run)
        model.check(request.task)
        pipeline = self._loaded(model, run.rung, report)
        self._use_loras(pipeline, run)
        stages = pipeline.stages(request)
        while True:
            try:
                stage = next(stages)
            except StopIteration as end:
                music: Music = end.value
                break
            if stage.stretch is not None:
                piece = stage.stretch
                audio = piece.audio.numpy()
                offer(write_part(run.out_dir, run.job, piece.seed, piece.index, piece.start_frame, audio))
            report(stage.phase, stage.done, stage.total)
        takes = tuple(
            write_take(run.out_dir, seed, audio.numpy()) for seed, audio in zip(music.seeds, music.audio, strict=True)
        )
        return Made(job=run.job, takes=takes, provenance=_provenance(pipeline, music, run.rung))

    def _use_loras(self, pipeline: AceStepPipeline, run: Run) -> None:
        wanted = tuple((lora.sha256, lora.strength) for lora in run.order.loras)
        if wanted == self._loras:
            return
        read: list[tuple[Lora | str | Path, float]] = []
        for each in run.order.loras:
            if each.sha256 not in run.files:
                raise Refused(f"LoRA {each.name} did not come with the job")
            read.append((read_lora(run.files[each.sha256], pipeline.loaded.model, each.name), each.strength))
        pipeline.use_loras(read)
        self._loras = wanted

    def _loaded(self, model: Model, rung: int, report: Report) -> AceStepPipeline:
        if self._pipeline is None or self._kept != (model.name, rung):
            self._pipeline, self._kept, self._loras = None, None, ()
            gc.collect()  # the old model's memory is needed for the new one
            loaded = load(find(model), wish=Wish(rung=rung), report=report)
            self._pipeline, self._kept = AceStepPipeline(loaded, self._latents(loaded)), (model.name, rung)
            log.info("%s on %s", model.name, loaded.placement.words)
            self._tell_plan(f"{model.name} on {loaded.placement.words}")
        return self._pipeline

    def _latents(self, loaded: Loaded) -> Recent:
        """What was encoded so far, where this model's autoencoder is the last one's: a change of model keeps it."""
        vae = weights.fingerprint(weights.open_checkpoint(loaded.folders.vae, VAE_STEM)), loaded.dtype
        if self._heard is None or self._heard[0] != vae:
            self._heard = vae, Recent(LATENT_BYTES)
        return self._heard[1]


def request_of(order: Order, run: Run) -> Request:
    """The engine's request for an order whose audio lies in `run.files`. Refused for what the engine cannot take."""
    source = None
    if order.source is not None:
        source = stereo(torch.from_numpy(read_blob(order.source, run.files, "the source")), "the source")
    references = tuple(
        reference(torch.from_numpy(read_blob(blob, run.files, f"reference {number}")), number)
        for number, blob in enumerate(order.references, start=1)
    )
    whole = ((0, -(-order.frames // HOP)),) if order.task == "repaint" and not order.mask else ()
    request = Request(
        task=order.task,
        frames=order.frames,
        prompt=order.prompt,
        lyrics=order.lyrics,
        language=order.language,
        instruments=prompts.instruments(order.instrument),
        bpm=order.bpm,
        keyscale=order.key,
        timesignature=None if order.signature is None else str(order.signature),
        source=source,
        references=references,
        regions=tuple((start, stop) for start, stop in order.mask) or whole,
        wanted=order.wanted,
        seeds=order.seeds,
        num_inference_steps=order.steps,
        shift=order.shift,
        cfg_scale=order.guidance,
        repainting_strength=order.strength if order.task == "repaint" else 1.0,
        audio_cover_strength=1 - order.strength if order.task == "cover" else 1.0,
    )
    return request.with_raw(order.raw)


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
