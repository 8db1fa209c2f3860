"""What the model hears and reads, as the DiT takes it, each thing computed once and kept.

Sources and references are kept by their sha256, prompts and lyrics by their text. A kept result is the computed one,
bit for bit. Axes: T latent frames, C latent channels, L condition tokens.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from punchin.engine import prompts, tasks
from punchin.engine.codec import ENCODE_TILE
from punchin.engine.condition import Tokens
from punchin.engine.dit import Prepared
from punchin.engine.released import Loaded
from punchin.engine.request import Request
from punchin.engine.tiles import encode_margin
from punchin.engine.tokenizer import whole_codes
from punchin.protocol import limits
from punchin.protocol.limits import HOP
from punchin.protocol.order import Task


@dataclass(frozen=True, eq=False)
class Stretch:
    """Audio [2, n] float32 on the CPU that is final: the next frames of a seed's music, `index` from 0 within it.

    start_frame is counted in the frames that were wanted; the stretches of a seed adjoin, and joined are its music.
    """

    seed: int
    index: int
    start_frame: int
    audio: Tensor


class Stage(NamedTuple):
    """How far a phase is, in words and in pieces; and what can be heard since the one before."""

    phase: str
    done: int
    total: int
    stretch: Stretch | None = None


LATENT_BYTES: Final = 256 * 2**20  # of latents that are kept; 600 s are 3.8 MB


class Recent:
    """Tensors by key, the longest unused dropped once there are more than `limit` bytes."""

    def __init__(self, limit: int) -> None:
        self.limit, self._kept = limit, OrderedDict[Hashable, Tensor]()

    def get(self, key: Hashable) -> Tensor | None:
        """What is kept under `key`, now the newest, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: Hashable, value: Tensor) -> Tensor:
        """Keep `value`, and return it."""
        self._kept[key] = value
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > self.limit:
            self._kept.popitem(last=False)
        return value

    def through(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What is kept under `key`, made first where it is not."""
        kept = self.get(key)
        return self.put(key, make()) if kept is None else kept

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


class Conditioner:
    """Text, references and sources of requests, for one loaded model. `forget` after its weights have changed."""

    def __init__(self, loaded: Loaded, latents: Recent | None = None) -> None:
        """latents: those that the same autoencoder made before, in the same type."""
        self._loaded = loaded
        self._latents = Recent(LATENT_BYTES) if latents is None else latents
        self._words = Recent(64 * 2**20)

    def forget(self) -> None:
        """Drop what was computed with the condition encoder; latents are the VAE's alone and stay."""
        self._words.clear()

    def latent(self, audio: Tensor, sampled: int | None = None) -> Generator[Stage, None, Tensor]:
        """The latent [1, T, C] of audio [2, n], T whole frames with the last one filled by silence: the mean.

        sampled: a seed; then a draw from the posterior, as the original makes unseeded.
        """
        key = (_digest(audio), sampled)
        kept = self._latents.get(key)
        if kept is not None:
            return kept
        whole = torch.nn.functional.pad(audio, (0, -audio.shape[1] % HOP))[None].to(self._loaded.device)
        tile = max(ENCODE_TILE, 6 * encode_margin(self._loaded.vae.spec))
        total = -(-whole.shape[-1] // (HOP * tile))
        parts: list[Tensor] = []
        generator = None if sampled is None else torch.Generator().manual_seed(sampled)
        for done, piece in enumerate(self._loaded.vae.encode_tiles(whole, tile)):
            parts.append(piece.posterior.mean if generator is None else piece.posterior.sample(generator))
            yield Stage("encoding", done + 1, total)
        return self._latents.put(key, torch.cat(parts, dim=1))

    def texts(self, request: Request, task: Task) -> tuple[str, str]:
        """Prompt and lyrics of a request as the text encoder reads them, under the instruction of `task`.

        Raises OverLimit where it does not read them to the end: tempo and key would be lost first.
        """
        names = request.instruments if task == request.task else ()
        words = prompts.caption_prompt(prompts.instruction(task, names), request.prompt, request.metas())
        sung = request.lyrics if request.lyrics.strip() else prompts.INSTRUMENTAL
        lines = prompts.lyric_prompt(sung, request.language)
        limits.PROMPT.check(self._loaded.text.length(words), "say it in fewer words")
        limits.LYRICS.check(self._loaded.text.length(lines), "give the lines of this region alone")
        return words, lines

    def condition(self, request: Request, task: Task) -> Generator[Stage, None, Prepared]:
        """The prepared condition of a request under the instruction of `task`: [lyrics | timbre | caption]."""
        model, text = self._loaded.model, self._loaded.text
        words, lines = self.texts(request, task)
        caption = self._words.through(("caption", words), lambda: text.caption(words))
        lyrics = self._words.through(
            ("lyrics", lines), lambda: model.encoder.lyric_encoder(_all_valid(text.lyrics(lines))).states
        )
        timbre = yield from self._timbre(request)
        joined = model.encoder.joined(_all_valid(lyrics), _all_valid(timbre), _all_valid(caption))
        return model.decoder.prepare(joined.states)

    def unconditional(self) -> Prepared:
        """The condition that means none. One token: looking at many equal ones is looking at one."""
        return self._loaded.model.decoder.prepare(self._loaded.model.unconditional(1))

    def _timbre(self, request: Request) -> Generator[Stage, None, Tensor]:
        """One token a reference, [1, R, W]; of silence where there is none."""
        tokens: list[Tensor] = []
        if not request.references:
            clip = tasks.silence_for(self._loaded.silence, tasks.TIMBRE_FRAMES)
            return self._words.through("no reference", lambda: self._clip_token(clip))
        for reference in request.references:
            clips = tasks.reference_clips(reference, request.reference_seed)
            sampled = request.reference_seed if request.sample_latents else None
            latent = yield from self.latent(clips, sampled)
            key = ("reference", _digest(clips), sampled)
            tokens.append(self._words.through(key, lambda latent=latent: self._clip_token(latent)))
        return torch.cat(tokens, dim=1)

    def _clip_token(self, clip: Tensor) -> Tensor:
        owner = torch.zeros(1, dtype=torch.long, device=clip.device)
        return self._loaded.model.encoder.timbre_encoder(clip.to(self._loaded.dtype), owner).states

    def heard(self, latent: Tensor) -> Tensor:
        """A latent [1, T, C] as the audio tokenizer hears it: to codes and back, [1, T, C]."""
        model = self._loaded.model
        states = model.tokenizer(self._whole(latent)).states
        return model.detokenizer(states).float()[:, : latent.shape[1]]

    def codes(self, latent: Tensor) -> list[int]:
        """The codes, five a second, of a latent [1, T, C]."""
        return self._loaded.model.tokenizer(self._whole(latent)).indices[0].tolist()

    def spoken(self, codes: tuple[int, ...]) -> Tensor:
        """The latent [1, 5N, C] that N codes stand for."""
        model = self._loaded.model
        indices = torch.tensor([codes], device=self._loaded.device)
        return model.detokenizer(model.tokenizer.quantizer.states(indices)).float()

    def _whole(self, latent: Tensor) -> Tensor:
        return whole_codes(latent, self._loaded.silence, self._loaded.model.tokenizer.pool)


def _all_valid(states: Tensor) -> Tokens:
    return Tokens(states, torch.ones(states.shape[:2], dtype=torch.bool, device=states.device))


def _digest(audio: Tensor) -> str:
    return hashlib.sha256(audio.contiguous().numpy().tobytes()).hexdigest()
