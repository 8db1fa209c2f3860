"""A recording as the model sees it: latents, caption states, lyric embeddings. Made once, kept or written down.

What stands here depends on no trained weight (VAE and text encoder are frozen), so `sft:data_process` writes it to
files and `sft:train` needs neither audio nor text encoder. Axes: T latent frames, C latent channels, D text width.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from punchin.engine import prompts, tasks, weights
from punchin.engine.released import VAE_STEM, Loaded
from punchin.engine.text import CAPTION_TOKENS, LYRIC_TOKENS
from punchin.protocol.errors import Refused
from punchin.protocol.limits import HOP, LATENT_HZ, MODEL_HZ, REGION
from punchin.protocol.order import Task
from punchin.session import audiofile
from punchin.session.resample import resample
from punchin.training import state
from punchin.training.dataset import Item

KIND: Final = "punchin example 1"
LEAST_S: Final = 1
PEAK: Final = 100  # of full scale: a hot float mix is far below, integers written as floats are above


@dataclass(frozen=True, eq=False)
class Example:
    """One item. latents: [T, C]. captions: states [L, D] by task. lyrics: embeddings [L, D].

    references: latents [750, C] each. source: [T, C] of `src_audio`, None where the item has none. task: the one that
    the data asks for, None where the training chooses.
    """

    latents: Tensor
    captions: Mapping[Task, Tensor]
    lyrics: Tensor
    references: tuple[Tensor, ...] = ()
    source: Tensor | None = None
    task: Task | None = None

    def save(self, path: Path, made_of: str = "") -> None:
        """Write it to a safetensors file. made_of: kept beside it, see `Listener.made_of`."""
        tensors = {"latents": self.latents, "lyrics": self.lyrics}
        tensors |= {f"caption.{task}": states for task, states in self.captions.items()}
        tensors |= {f"reference.{number}": each for number, each in enumerate(self.references)}
        if self.source is not None:
            tensors["source"] = self.source
        state.save(path, tensors, {"kind": KIND, "task": self.task, "made_of": made_of})

    @classmethod
    def load(cls, path: Path) -> Example:
        """Read one back. Raises Refused for a file that is none."""
        tensors, facts = state.load(path)
        if facts.get("kind") != KIND:
            raise Refused(f"{path} is no processed example", "make them with `--task sft:data_process`", code="dataset")
        references = state.under("reference", tensors)
        captions: dict[Task, Tensor] = {task: tensors[f"caption.{task}"] for task in prompts.TASKS
                                        if f"caption.{task}" in tensors}  # fmt: skip
        ordered = tuple(references[str(number)] for number in range(len(references)))
        return cls(tensors["latents"], captions, tensors["lyrics"], ordered, tensors.get("source"), facts.get("task"))


def checked(path: Path) -> audiofile.AudioInfo:
    """What an audio file says about itself. Raises Refused where it is missing, no audio, or shorter than a second."""
    try:
        if path.is_dir():
            raise Refused(f"{path} is a folder, and must be an audio file", code="audio")
        about = audiofile.info(path)
    except OSError as error:
        raise Refused(f"{path} cannot be opened: {error.strerror}", code="audio") from error
    if about.length_s < LEAST_S:
        raise Refused(f"{path} is {about.length_s:.2f} s long, at least {LEAST_S} s is needed", code="audio")
    return about


def sound(path: Path, longest_s: float | None = None) -> Tensor:
    """The audio of a file as [2, n] float32 at 48 kHz; its first `longest_s` seconds, 600 at most.

    Mono is doubled, of more channels the first two are taken. Raises Refused with the path for what cannot be read, is
    shorter than a second, not finite or far over full scale.
    """
    about = checked(path)
    most = round(min(longest_s or REGION.high, REGION.high) * about.rate_hz)
    audio, rate_hz = audiofile.read(path, 0, most)
    heard = torch.from_numpy(resample(audio, rate_hz, MODEL_HZ))
    if not bool(heard.isfinite().all()):
        raise Refused(f"{path} has samples that are not finite", code="audio")
    if (peak := float(heard.abs().max())) > PEAK:
        raise Refused(f"{path} goes up to {peak:g} times full scale, over {PEAK}", "scale it to 1", code="audio")
    return heard[:2] if len(heard) >= 2 else heard.expand(2, -1).contiguous()


class Listener:
    """Makes examples with a model's frozen parts."""

    def __init__(self, loaded: Loaded, used: Sequence[Task], longest_s: float | None) -> None:
        self._loaded, self._used, self._longest_s = loaded, tuple(used), longest_s

    @torch.no_grad()
    def example(self, item: Item) -> Example:
        """The example of an item: whole seconds of it. Raises Refused where a file cannot be used."""
        audio = sound(item.audio, self._longest_s)
        seconds = audio.shape[1] // MODEL_HZ  # as DiffSynth-Studio: the prompt says whole seconds
        latents = self._latent(audio[:, : seconds * MODEL_HZ])
        used = asked(item)
        captions: dict[Task, Tensor] = {
            task: self._loaded.text.caption(_words(item, task, seconds))[0].float().cpu()
            for task in ((used,) if used else self._used)
        }
        return Example(
            latents=latents,
            captions=captions,
            lyrics=self._loaded.text.lyrics(_lines(item))[0].float().cpu(),
            references=tuple(self._reference(path) for path in files(item.extra.get("reference_audios"))),
            source=self._source(item, len(latents)),
            task=used,
        )

    def cuts_prompt(self, item: Item) -> bool:
        """Whether the text encoder reads an item's prompt in part only: then what follows it is not read at all.

        False for one that asks for what is not trained here.
        """
        try:
            words = _words(item, asked(item) or "text2music", REGION.high)
        except Refused:
            return False
        return self._loaded.text.length(words) > CAPTION_TOKENS

    def cuts_lyrics(self, item: Item) -> bool:
        """Whether an item's lyrics are read in part only."""
        return self._loaded.text.length(_lines(item)) > LYRIC_TOKENS

    def read_whole(self, item: Item) -> Item:
        """The item with the first words of its prompt, and lines of its lyrics, that the text encoder reads to the
        end with all that follows them: the pipeline refuses more.
        """
        words, lines = item.prompt.split(" "), item.lyrics.split("\n")
        item = replace(item, prompt=" ".join(words[: _most(words, self.cuts_prompt, item, "prompt", " ")]))
        return replace(item, lyrics="\n".join(lines[: _most(lines, self.cuts_lyrics, item, "lyrics", "\n")]))

    def cuts_audio(self, item: Item) -> bool:
        """Whether an item is longer than any window, and no shorter part of it was asked for."""
        return (self._longest_s or math.inf) > REGION.high and _about(item, lambda file: file.length_s) > REGION.high

    def made_of(self, item: Item) -> str:
        """A sha256 of all that an item's example depends on: what is said of it, its recordings, options and model.

        Where a recording lies does not matter. Raises Refused where one is missing, no audio or too short.
        """
        for path in recordings(item):
            checked(path)
        told = {**vars(item), "extra": dict(item.extra)}
        every = [KIND, self._parts, self._used, self._longest_s, told]
        return hashlib.sha256(json.dumps(every, default=_content, sort_keys=True).encode()).hexdigest()

    @cached_property
    def _parts(self) -> list[str]:
        """What tells the frozen parts from others."""
        where, text = self._loaded.folders, self._loaded.text.tokenizer.to_str()
        files = [weights.open_checkpoint(where.vae, VAE_STEM), weights.open_checkpoint(where.text)]
        own = [text.encode(), self._loaded.silence.cpu().numpy().tobytes()]
        return [*map(weights.fingerprint, files), *(hashlib.sha256(each).hexdigest() for each in own)]

    def _latent(self, audio: Tensor) -> Tensor:
        """[T, C] float32 of audio [2, n], all whole latent frames."""
        whole = audio[None, :, : audio.shape[1] // HOP * HOP].to(self._loaded.device)
        return self._loaded.vae.encode(whole).mean[0].float().cpu()

    def _reference(self, path: Path) -> Tensor:
        return self._latent(tasks.reference_clips(sound(path), seed=0))

    def _source(self, item: Item, frames: int) -> Tensor | None:
        paths = files(item.extra.get("src_audio"))
        if not paths:
            return None
        latent = self._latent(sound(paths[0], frames / LATENT_HZ))[None]
        return tasks.padded(latent, self._loaded.silence.cpu(), frames)[0]


def cuts_channels(item: Item) -> bool:
    """Whether an item has channels that are not heard."""
    return _about(item, lambda file: file.channels) > 2


def _about(item: Item, told: Callable[[audiofile.AudioInfo], float]) -> float:
    """What an item's audio file says of itself; 0 where it is bad, which is told elsewhere."""
    try:
        return told(checked(item.audio))
    except Refused:
        return 0


def _most(parts: Sequence[str], cuts: Callable[[Item], bool], item: Item, name: str, between: str) -> int:
    """How many of the parts of a text of an item are read."""

    def cut(count: int) -> bool:
        return cuts(replace(item, **{name: between.join(parts[:count])}))

    return max(0, bisect_right(range(len(parts) + 1), False, key=cut) - 1)


def _words(item: Item, task: Task, seconds: float) -> str:
    """What the text encoder reads of an item, under the instruction of a task."""
    names = prompts.instruments(item.extra.get("instrument", "")) if asked(item) else ()
    return prompts.caption_prompt(prompts.instruction(task, names), item.prompt, item.metas(seconds))


def _lines(item: Item) -> str:
    return prompts.lyric_prompt(item.lyrics or prompts.INSTRUMENTAL, item.vocal_language)


def asked(item: Item) -> Task | None:
    """The task that the data asks for, None where it asks for none. Refused for one that is not trained here."""
    said = item.extra.get("task_type", "cover" if "src_audio" in item.extra else None)
    allowed: tuple[Task, ...] = ("text2music", "cover", "lego", "complete", "extract")
    for task in allowed:
        if said == task:
            if task != "text2music" and "src_audio" not in item.extra:
                raise Refused(f"{item.audio.name} asks for {task} without a src_audio", code="dataset")
            return task
    if said is not None:
        raise Refused(f"task_type is {said!r}", f"one of: {', '.join(allowed)}", code="dataset")
    return None


def recordings(item: Item) -> list[Path]:
    """Every file that an item is made of."""
    return [item.audio, *files(item.extra.get("reference_audios")), *files(item.extra.get("src_audio"))]


def _content(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files(value: Any) -> list[Path]:
    """The paths that a key of the data names: none, one, or a list of them."""
    if value is None:
        return []
    return [Path(each) for each in (value if isinstance(value, list) else [value])]
