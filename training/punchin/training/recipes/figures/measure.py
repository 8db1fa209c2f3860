"""All figures of a trained `punchin-tiny`, on songs that it never saw."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.request import Request
from punchin.protocol.limits import HOP, LATENT_HZ, MODEL_HZ
from punchin.training.recipes import soundfont
from punchin.training.recipes.figures import codec, cover, edges, tempo
from punchin.training.recipes.score import PITCHED, STEMS, Score, Stem, caption
from punchin.training.recipes.songs import HELD_OUT, Song, song
from punchin.training.recipes.synth import render

SECONDS: Final = 15.36
CODEC_SECONDS: Final = 7.68
PROBED: Final[tuple[Stem, ...]] = ("chords", "lead")
AT_ONCE: Final = 4  # songs rendered together
FRESH: Final = 20_000  # after the first held-out song: those that nobody looked at while the recipe grew


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `reached` is None where there is nothing to reach."""

    what: str
    value: str
    wanted: str
    reached: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """How to measure: how many songs, and how the model is asked."""

    count: int = 50
    lessons: int = 160  # training renders from which ear and probe learn
    steps: int | None = None
    guidance: float | None = None
    shift: float | None = None
    soundfont: Path | None = None
    device: str = "cpu"

    def options(self) -> dict[str, Any]:
        """For the pipeline's call."""
        return {"num_inference_steps": self.steps, "cfg_scale": self.guidance, "shift": self.shift}


def songs(first: int, count: int) -> list[Song]:
    """Songs by number."""
    return [song(first + number) for number in range(count)]


def rendered(
    scores: Sequence[Score], seconds: float, device: str, stem: Sequence[Stem | None] = ()
) -> Iterator[Tensor]:
    """Each score from its first bar, [2, n] on the CPU; of one stem alone where `stem` names it."""
    alone = stem or [None] * len(scores)
    for first in range(0, len(scores), AT_ONCE):
        stems = render(scores[first : first + AT_ONCE], seconds, device, seed=first).cpu()
        for each, name in zip(stems, alone[first : first + AT_ONCE], strict=True):
            yield each.sum(0) if name is None else each[STEMS.index(name)]


def of_codec(pipe: AceStepPipeline, asked: Asked) -> Iterable[Figure]:
    """The autoencoder against principal components, on synthesised songs and, with a soundfont, on foreign sound."""
    taught = torch.stack([*rendered([s.score for s in songs(0, 32)], CODEC_SECONDS, asked.device)])
    basis = codec.components(taught).to(pipe.loaded.device)
    held = [s.score for s in songs(HELD_OUT, max(2, asked.count // 3))]
    sounds = {"": torch.stack([*rendered(held, CODEC_SECONDS, asked.device)])}
    if asked.soundfont is not None:
        foreign = [soundfont.render(score, CODEC_SECONDS, asked.soundfont) for score in held[: len(held) // 2]]
        sounds[f", unseen soundfont {asked.soundfont.stem}"] = torch.stack(foreign)
    for name, audio in sounds.items():
        found = codec.measure(pipe.loaded.vae, basis, audio.to(pipe.loaded.device))
        yield Figure(
            f"autoencoder's spectral distance, in parts of 64 components'{name}",
            f"{found.ratio:.3f} ({found.distance:.3f} of {found.components_distance:.3f}; {len(audio)} songs)",
            "<= 0.7",
            found.ratio <= 0.7,
        )
        yield Figure(
            f"autoencoder's SI-SDR{name}",
            f"{found.si_sdr_db:.2f} dB (components {found.components_si_sdr_db:.2f} dB; {len(audio)} songs)",
            "no lower than the components'",
            found.si_sdr_db >= found.components_si_sdr_db,
        )


def of_tempo(pipe: AceStepPipeline, asked: Asked) -> Iterable[Figure]:
    """Whether music from a prompt has the tempo that the prompt asks for.

    Also of songs that no change of the recipe was judged by, as those of the other figures were.
    """
    taught, held = [s.score for s in songs(0, asked.lessons)], [s.score for s in songs(HELD_OUT, asked.count)]
    ear = tempo.trained([*rendered(taught, SECONDS, asked.device)], [score.bpm for score in taught])
    true = sum(_in_time(ear, audio, s) for audio, s in zip(rendered(held, SECONDS, asked.device), held, strict=True))
    yield Figure(
        "true renders whose tempo the detector names", f"{true} of {len(held)}", "48 of 50", true >= 0.96 * len(held)
    )
    fresh = [s.score for s in songs(HELD_OUT + FRESH, asked.count)]
    for scores, which in ((held, ""), (fresh, ", other songs")):
        made = sum(_in_time(ear, _played(pipe, score, seed, asked), score) for seed, score in enumerate(scores))
        what = f"prompts whose tempo comes within 1 %{which}"
        yield Figure(what, f"{made} of {len(scores)}", "90 %", made >= 0.9 * len(scores))


def _in_time(ear: tempo.Ear, audio: Tensor, score: Score) -> bool:
    found = ear.tempo(audio)
    return found is not None and abs(found / score.bpm - 1) <= 0.01


def _played(pipe: AceStepPipeline, score: Score, seed: int, asked: Asked) -> Tensor:
    words = caption(score, STEMS, np.random.default_rng(seed))
    return pipe(words, duration=SECONDS, seed=seed, **_metas(score), **asked.options()).audio[0]


def _metas(score: Score) -> dict[str, Any]:
    return {"bpm": score.bpm, "keyscale": score.key, "timesignature": str(score.signature)}


def of_edges(pipe: AceStepPipeline, asked: Asked) -> Iterable[Figure]:
    """Whether the edges of a repaint stand out in what is decoded, before any splice."""
    held = [s.score for s in songs(HELD_OUT, asked.count)]
    quiet = total = 0
    for seed, (score, audio) in enumerate(zip(held, rendered(held, SECONDS, asked.device), strict=True)):
        bar_s = score.bar_beats * 60 / score.bpm
        lines = [round(bar * bar_s * MODEL_HZ) for bar in range(1, int(SECONDS / bar_s))]
        middle = int(SECONDS / bar_s) // 2
        region = round(middle * bar_s * LATENT_HZ), round((middle + 2) * bar_s * LATENT_HZ)
        words = caption(score, STEMS, np.random.default_rng(seed))
        ranges = [(region[0] / LATENT_HZ, min(region[1] / LATENT_HZ, SECONDS - 1))]
        whole = _whole_repaint(pipe, audio, ranges[0], words, seed, score, asked)
        found = edges.edges_db(whole.numpy(), (round(ranges[0][0] * LATENT_HZ), round(ranges[0][1] * LATENT_HZ)), lines)
        if found is not None:
            total, quiet = total + 1, quiet + (max(found) <= 6)
    slow = len(held) - total
    yield Figure(
        "repaints whose edges stay within 6 dB of the context's flux",
        f"{quiet} of {total}" + (f" ({slow} slow songs have too few bar lines to tell)" if slow else ""),
        "90 %",
        quiet >= 0.9 * total > 0,
    )


def _whole_repaint(
    pipe: AceStepPipeline, audio: Tensor, span_s: tuple[float, float], words: str, seed: int, score: Score, asked: Asked
) -> Tensor:
    """The whole window decoded, [2, n]: the model's frames and the source's, from one latent."""
    music = pipe(
        words, task_type="repaint", src_audio=audio, repainting_ranges=[span_s], seed=seed,
        **_metas(score), **asked.options(),
    )  # fmt: skip
    with torch.no_grad():
        return pipe.loaded.vae.decode(music.latents.to(pipe.loaded.device))[0].cpu()[:, : audio.shape[1]]


def of_cover(pipe: AceStepPipeline, asked: Asked) -> Iterable[Figure]:
    """Whether covers keep the onsets of their source and play the instrument they are asked to play.

    A probe taught with renders hears the autoencoder, too. One taught with renders that went through it is told beside
    it: what that one misses is the music model's.
    """
    taught = [s.score for s in songs(HELD_OUT + 10_000, asked.lessons)]
    stems: list[Stem] = [PROBED[number % 2] for number in range(len(taught))]
    names = [score.instruments[stem] for score, stem in zip(taught, stems, strict=True)]
    lessons = [*rendered(taught, SECONDS, asked.device, stems)]
    plain, inside = cover.trained(lessons, names), cover.trained([_coded(pipe, each) for each in lessons], names)
    held = songs(HELD_OUT, asked.count)
    own: list[Stem] = [PROBED[number % 2] for number in range(len(held))]
    sources = rendered([s.other for s in held], SECONDS, asked.device, own)
    truths = rendered([s.score for s in held], SECONDS, asked.device, own)
    rows: list[tuple[float, ...]] = []
    for seed, (each, stem, source, truth) in enumerate(zip(held, own, sources, truths, strict=True)):
        wanted = each.score.instruments[stem]
        made = pipe(
            f"{each.score.genre.name}, {wanted}", task_type="cover", src_audio=source, seed=seed,
            **_metas(each.score), **asked.options(),
        ).audio[0]  # fmt: skip
        told = [(plain, made), (plain, truth), (inside, made), (inside, _coded(pipe, truth))]
        right = [by.name(audio) == wanted for by, audio in told]
        rows.append((cover.f_measure(source, made), cover.f_measure(source, truth), *right))
    kept, could, *named = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
    yield Figure("cover: onsets kept, F-measure", f"{kept:.3f} (true renders {could:.3f})", ">= 0.7", kept >= 0.7)
    what = f"cover: a probe over {len(PITCHED)} instruments names the one asked for"
    yield Figure(what, f"{100 * named[0]:.0f} % (true renders {100 * named[1]:.0f} %)", ">= 70 %", named[0] >= 0.7)
    yield Figure(
        f"{what}, taught with renders through the autoencoder",
        f"{100 * named[2]:.0f} % (true renders through it {100 * named[3]:.0f} %)",
        "",
        None,
    )


@torch.no_grad()
def _coded(pipe: AceStepPipeline, audio: Tensor) -> Tensor:
    """Audio [2, n] through the autoencoder and back, [2, n] on the CPU."""
    vae = pipe.loaded.vae
    return vae.decode(vae.encode(audio[None].to(pipe.loaded.device)).mean)[0].cpu()[:, : audio.shape[1]]


def of_time(pipe: AceStepPipeline, asked: Asked) -> Iterable[Figure]:
    """How long an 8 s region in a window of 24 s takes on two threads of this machine's CPU, model loading included."""
    folder, threads = pipe.loaded.folders.dit, torch.get_num_threads()
    audio = next(rendered([song(HELD_OUT).score], 24.0, asked.device))
    torch.set_num_threads(2)
    try:
        began = time.perf_counter()
        slow = AceStepPipeline.from_pretrained(folder, device="cpu")
        request = Request(
            task="repaint", frames=audio.shape[1], prompt="funk, rhodes, drums", bpm=104, source=audio,
            regions=((8 * LATENT_HZ, 16 * LATENT_HZ),), wanted=(8 * MODEL_HZ // HOP * HOP, 16 * MODEL_HZ // HOP * HOP),
            num_inference_steps=asked.steps, cfg_scale=asked.guidance, shift=asked.shift,
        )  # fmt: skip
        for _ in slow.stages(request):
            pass
        took = time.perf_counter() - began
    finally:
        torch.set_num_threads(threads)
    yield Figure("an 8 s region on two CPU threads", f"{took:.1f} s", "<= 10 s", took <= 10)


PARTS: Final = {"codec": of_codec, "tempo": of_tempo, "edges": of_edges, "cover": of_cover, "time": of_time}
