"""`validate`: what a training has taught, to see and to hear: prompts of the data rendered again, beside the originals.

Writes a folder with `index.html`, audio and pictures, and tells the loss over the same items.
"""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from punchin.engine.lora import read_lora
from punchin.engine.model import AceStep
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.released import Loaded
from punchin.engine.weights import Checkpoint, open_checkpoint
from punchin.protocol.errors import Cancelled, Refused
from punchin.protocol.limits import MODEL_HZ
from punchin.session import audiofile
from punchin.training import state
from punchin.training.batches import Collator
from punchin.training.dataset import Item
from punchin.training.examples import Example, Listener, asked, files, sound
from punchin.training.objective import Objective
from punchin.training.settings import Settings
from punchin.training.supply import Recordings, usable
from punchin.training.trainer import VALIDATION_TIMES

_STYLE = (
    "body{font:16px/1.4 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "img{max-width:100%}td{vertical-align:top;padding:.5rem}audio{width:100%}"
)


@dataclass(frozen=True)
class Rendered:
    """One item rendered again."""

    item: Item
    loss: float
    original: str  # files beside the page
    made: str
    pictures: tuple[str, str]


def check(model: AceStep, lora: str | None, checkpoint: str | None) -> None:
    """Raise Refused where a LoRA, or a full training's checkpoint, does not fit. `model` may be on the meta device."""
    if lora is not None:
        read_lora(lora, model)
    if checkpoint is not None:
        _fitting(checkpoint, model)


def apply(loaded: Loaded, pipe: AceStepPipeline, lora: str | None, checkpoint: str | None) -> None:
    """Use a LoRA, or the weights of a full training's checkpoint. Raises Refused where they do not fit."""
    if lora is not None:
        pipe.adapters.use([(read_lora(lora, loaded.model), 1.0)])
    if checkpoint is None:
        return
    file, names = _fitting(checkpoint, loaded.model)
    found = file.read(names.values(), lambda each: each.to(loaded.device, loaded.dtype))
    loaded.model.load_state_dict({ours: found[theirs] for ours, theirs in names.items()}, strict=False)
    pipe.conditioner.forget()


def _fitting(checkpoint: str, model: AceStep) -> tuple[Checkpoint, dict[str, str]]:
    """A checkpoint's file, and its keys by their names in the model."""
    file = open_checkpoint(Path(checkpoint).expanduser())
    names = {_own_name(key): key for key in file.shapes}
    wanted = model.state_dict()
    unknown = sorted(names.keys() - wanted.keys())
    if unknown:
        raise Refused(f"{checkpoint} has {unknown[0]}, which the model does not", code="weights")
    for ours, theirs in names.items():
        if tuple(wanted[ours].shape) != tuple(file.shapes[theirs]):
            shapes = f"{list(file.shapes[theirs])}, the model has {list(wanted[ours].shape)}"
            raise Refused(f"{checkpoint} has {theirs} as {shapes}", code="weights")
    return file, names


def _own_name(key: str) -> str:
    """DiffSynth's and bare keys as `AceStep` calls them."""
    for theirs, ours in (
        ("pipe.dit.", "decoder."),
        ("pipe.conditioner.null", "null"),
        ("pipe.conditioner.", "encoder."),
    ):
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    ours = ("decoder.", "encoder.", "tokenizer.", "detokenizer.", "null_condition_emb")
    return key if key.startswith(ours) else f"decoder.{key}"


def page(
    settings: Settings, loaded: Loaded, pipe: AceStepPipeline, items: Sequence[Item], folder: Path,
    stop: Callable[[], bool] = lambda: False, say: Callable[[str], None] = lambda text: None,
) -> Path:  # fmt: skip
    """Render the prompts of `items` again and write the page into `folder`; returns its `index.html`.

    What `skip_bad` leaves out is told to `say`. Raises Cancelled between two prompts where `stop` says so.
    """
    state.made(folder)
    listener = Listener(loaded, ["text2music"], settings.max_audio_duration)
    shelf = Recordings(items, listener)
    good = usable(shelf, skip_bad=settings.skip_bad, say=say, stop=stop)
    rows: list[Rendered] = []
    for number, place in enumerate(good, 1):
        if stop():
            raise Cancelled(f"stopped after prompt {number - 1} of {len(good)}; there is no page")
        rows.append(_rendered(settings, loaded, pipe, shelf[place], listener.read_whole(items[place]), number, folder))
    mean = sum(row.loss for row in rows) / len(rows)
    body = "".join(_row(row) for row in rows)
    title = f"{len(rows)} prompts rendered again, mean loss {mean:.4f}"
    text = (
        f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{_STYLE}</style>"
        f"<h1>{title}</h1><p>Model {html.escape(loaded.folders.dit.name)}, seed {settings.seed}.</p>{body}"
    )
    return state.write_bytes(folder / "index.html", text.encode(errors="replace"))  # an old name is not all UTF-8


def _rendered(
    settings: Settings, loaded: Loaded, pipe: AceStepPipeline, example: Example, item: Item, number: int, folder: Path
) -> Rendered:
    original = sound(item.audio, settings.max_audio_duration)
    seconds = original.shape[1] // MODEL_HZ
    music = pipe(
        item.prompt, lyrics=item.lyrics, duration=float(seconds), bpm=item.bpm, keyscale=item.keyscale,
        timesignature=item.timesignature, vocal_language=item.vocal_language, seed=settings.seed,
        **_shown(item, seconds),
    )  # fmt: skip
    names: list[str] = []
    pictures: list[str] = []
    for kind, audio in (("original", original.numpy()), ("made", music.audio[0].numpy())):
        quiet = audio / max(1.0, float(np.abs(audio).max()))
        audiofile.write(folder / f"{number}-{kind}.flac", quiet, MODEL_HZ, "PCM_16")
        names.append(f"{number}-{kind}.flac")
        pictures.append(spectrogram(audio, folder / f"{number}-{kind}.png").name)
    loss = item_loss(settings, loaded, example, number)
    return Rendered(item, loss, names[0], names[1], (pictures[0], pictures[1]))


def _shown(item: Item, seconds: int) -> dict[str, Any]:
    """What the data's extra inputs say, in the pipeline's words: a source is cut or padded to the item's length."""
    references, task = [sound(path) for path in files(item.extra.get("reference_audios"))], asked(item)
    if task is None or task == "text2music":
        return {"reference_audios": references}
    source = sound(files(item.extra["src_audio"])[0], seconds)
    return {
        "reference_audios": references, "task_type": task, "instrument": item.extra.get("instrument", ""),
        "src_audio": torch.nn.functional.pad(source, (0, seconds * MODEL_HZ - source.shape[1])),
    }  # fmt: skip


@torch.no_grad()
def item_loss(settings: Settings, loaded: Loaded, example: Example, number: int) -> float:
    """The unweighted loss of an example at eight times, always with the same noise."""
    objective, collator = Objective(loaded.model, loaded.silence), Collator(settings, loaded.silence)
    found = [
        float(objective(collator.at([example], t, number * len(VALIDATION_TIMES) + place).to(loaded.device)))
        for place, t in enumerate(VALIDATION_TIMES)
    ]
    return sum(found) / len(found)


def spectrogram(audio: NDArray[np.float32], path: Path) -> Path:
    """A picture of the spectrum of audio [2, n] at 48 kHz over time. Raises PunchinError where the disk refuses."""
    from matplotlib.figure import Figure

    picture: Any = Figure(figsize=(7, 2.2), dpi=110, layout="constrained")
    axes = picture.subplots()
    axes.set_facecolor("black")
    with np.errstate(divide="ignore"):  # silence is under every scale: black
        axes.specgram(audio.mean(0), NFFT=2048, Fs=MODEL_HZ, noverlap=1024, vmin=-140, vmax=-30, cmap="magma")
    axes.set(ylim=(0, 16_000), xlabel="s", ylabel="Hz")
    drawn = io.BytesIO()
    picture.savefig(drawn, format="png")
    return state.write_bytes(path, drawn.getvalue())  # which tells of a full disk


def _row(row: Rendered) -> str:
    told = row.item
    facts = ", ".join(str(each) for each in (told.bpm, told.keyscale, told.timesignature) if each)
    cells = "".join(
        f"<td><h3>{name}</h3><audio controls src='{file}'></audio><img src='{picture}' alt='spectrogram'></td>"
        for name, file, picture in (
            ("original", row.original, row.pictures[0]),
            ("made", row.made, row.pictures[1]),
        )
    )
    return (
        f"<h2>{html.escape(told.prompt)}</h2><p>{html.escape(told.audio.name)} {html.escape(facts)}"
        f" · loss {row.loss:.4f}</p><table><tr>{cells}</tr></table>"
    )
