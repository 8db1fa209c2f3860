"""The third stage: diffusion transformer, condition encoder and text encoder together, and the codes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from punchin.engine.condition import Tokens
from punchin.engine.model import AceStep
from punchin.engine.prompts import INSTRUMENTAL, lyric_prompt
from punchin.engine.tasks import TIMBRE_FRAMES, silence_for
from punchin.engine.tokenizer import whole_codes
from punchin.engine.vae import Vae
from punchin.training import flow
from punchin.training.recipes.codes import cut
from punchin.training.recipes.lessons import Batch, batch
from punchin.training.recipes.library import Codes, Library
from punchin.training.recipes.loop import Stage, halves

if TYPE_CHECKING:
    from transformers import Qwen3Model

SEED: Final = 404
CODES: Final = 0.2  # how much the codes' own loss counts beside the flow's
SHIFT: Final = 3.0  # of the times of half the items: sampling begins at t = 1 and lingers there


class Music(nn.Module):
    """Everything that this stage trains. `ear` belongs to the codes' loss and is not shipped."""

    def __init__(self, model: AceStep, text: Qwen3Model, ear: nn.Module) -> None:
        super().__init__()
        self.model, self.text, self.ear = model, text, ear


class MusicStage(Stage[Batch]):
    """Flow matching over all tasks."""

    name = "music"
    peak_lr = 1e-3
    weight_decay = 0.01
    betas = (0.9, 0.98)

    def __init__(
        self, music: Music, codes: Codes, library: Library, words: Tokenizer, silence: Tensor, loud: Tensor
    ) -> None:
        self.music, self.codes, self.library, self.device = music, codes, library, library.device
        self.module: nn.Module = music.requires_grad_(True)
        self.words, self.silence = words, silence.to(library.device)
        self._weight = loud.sqrt().to(library.device)  # of an error before it is squared, [C]
        self._lyrics = torch.tensor([words.encode(lyric_prompt(INSTRUMENTAL)).ids])

    def prepare(self, step: int) -> Batch:
        """The lessons of a step."""
        for each in self.library.batches(self.library.newest(step)):
            self.library.draft(each)
        return batch(step, self.library, self.words)

    def loss(self, step: int, prepared: Batch) -> Tensor:
        """The flow's error over all items, and a little of the codes'."""
        self.library.fill(prepared.newest)
        asked, device = prepared, self.device
        target = self.library.latents[cut(asked.target, asked.place, asked.start, asked.frames)].float()
        shown, codes = self._shown(asked)
        mask = asked.mask.to(device)[..., None].expand_as(shown)
        noise_from = torch.Generator(device).manual_seed(SEED * 2**32 + step)
        noise = torch.randn(target.shape, generator=noise_from, device=device)
        t = _times(len(target), torch.Generator().manual_seed(SEED * 2**32 + step)).to(device)
        with halves(device):
            condition, valid = self._condition(asked)
            x = flow.noised(target, noise, t)
            velocity = self.music.model.decoder(x, t, torch.cat([shown, mask], -1), condition, valid)
        velocity, target, noise = (each * self._weight for each in (velocity, target, noise))
        return flow.loss(velocity, target, noise, torch.ones_like(t), asked.counts.to(device)) + CODES * codes

    def _shown(self, asked: Batch) -> tuple[Tensor, Tensor]:
        """The source latents [B, T, C] as each task shows them, and the codes' loss on those they pass through."""
        at = cut(asked.source, asked.place, asked.start, asked.frames)
        source, silence = self.library.latents[at].float(), silence_for(self.silence, asked.frames)
        loss = source.new_zeros(())
        if bool(asked.coded.any()):
            rows = asked.coded.nonzero()[:, 0]
            with halves(self.device):
                back, levels = self.codes(whole_codes(source[rows], self.silence, self.codes.tokenizer.pool))
            back, levels = back[:, : asked.frames].float(), levels[:, : asked.frames].float()
            heard = self.library.heard[at][rows].float()
            loss = (levels - heard).square().mean()
            source = source.index_put((rows.to(self.device),), back)
        hole = (asked.hole + ~asked.shown[:, None]).clamp(max=1).to(self.device)[..., None]
        return source * (1 - hole) + silence * hole, loss

    def _condition(self, asked: Batch) -> tuple[Tensor, Tensor]:
        """[lyrics | timbre | caption] of each item [B, L, W], padding last, and what of it is real."""
        model, device, count = self.music.model, self.device, len(asked.ids)
        ids = self._lyrics.to(device)
        words = self.music.text.embed_tokens(ids)
        lyrics = model.encoder.lyric_encoder(Tokens(words, torch.ones(ids.shape, dtype=torch.bool))).states
        if asked.referenced:
            whole = self.library.latents[asked.target, asked.place].float()
            clips = whole.repeat(1, -(-TIMBRE_FRAMES // whole.shape[1]), 1)[:, :TIMBRE_FRAMES]
            timbre = model.encoder.timbre_encoder(clips, torch.arange(count, device=device)).states
        else:
            clip = silence_for(self.silence, TIMBRE_FRAMES)
            timbre = model.encoder.timbre_encoder(clip, torch.zeros(1, dtype=torch.long, device=device)).states
        hidden = self.music.text(input_ids=asked.ids.to(device), use_cache=False).last_hidden_state
        caption = model.encoder.text_projector(hidden)
        before = [each.expand(count, -1, -1) for each in (lyrics, timbre)]
        states = torch.cat([*before, caption], dim=1)
        told = torch.cat([torch.ones(count, states.shape[1] - caption.shape[1], dtype=torch.bool), asked.told], dim=1)
        untold = asked.untold.to(device)[:, None, None]
        return torch.where(untold, model.unconditional(states.shape[1]).to(states), states), told.to(device)


def loudness(vae: Vae) -> Tensor:
    """How much each latent channel is heard, [C], 1 in the mean: how long its kernels in the decoder's first layer are.

    All channels vary alike, but those that began as the first components carry most of the sound: 8 of 64 hold two
    thirds of its energy. A small model that errs equally in all errs most where it is heard.
    """
    length = vae.decoder.conv1.weight().detach().float().transpose(0, 1).flatten(1).norm(dim=1)
    return length / length.mean()


def _times(count: int, generator: torch.Generator) -> Tensor:
    """Times [B]: half as the original draws them, half of a shifted even spread that reaches 1."""
    drawn, _ = flow.draw("logit_normal", count, generator)
    u = torch.rand(count, generator=generator)
    even = SHIFT * u / (1 + (SHIFT - 1) * u)
    return torch.where(torch.rand(count, generator=generator) < 0.5, drawn, even)
