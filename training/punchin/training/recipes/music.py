"""The last stage: diffusion transformer, condition encoder and text encoder together, and the codes with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from punchin.engine.model import AceStep
from punchin.engine.tasks import TIMBRE_FRAMES, silence_for
from punchin.engine.tokenizer import whole_codes
from punchin.engine.vae import Vae
from punchin.training import flow
from punchin.training.recipes import bands, envelope
from punchin.training.recipes.codes import cut
from punchin.training.recipes.conditions import conditioned, instrumental
from punchin.training.recipes.lessons import Batch, batch
from punchin.training.recipes.library import Codes, Library
from punchin.training.recipes.loop import Stage, halves
from punchin.training.recipes.metre import Count, MetreStage

if TYPE_CHECKING:
    from transformers import Qwen3Model

SEED: Final = 404
PEAK_LR, FRAMES = 1e-3, 49_152  # the learning rate, and the batch that it is right for
CODES: Final = 0.2  # how much the codes' own loss counts beside the flow's
METRE: Final = 2.0  # how much the metre's own loss counts
COUNTED: Final = 0.5  # of a batch's length is given to it
ENVELOPE: Final = 2.0  # how much the envelope's error counts at t = 1, where it is all; its share is t^2
LEVELS: Final = 6.0  # how much a level counts, a linear latent counting 1 in the mean
SHIFT: Final = 3.0  # of the times of half the items: sampling begins at t = 1 and lingers there


class Music(nn.Module):
    """Everything that this stage trains. `ear` and `count` belong to further losses and are not shipped."""

    def __init__(self, model: AceStep, text: Qwen3Model, ear: nn.Module, count: nn.Module) -> None:
        super().__init__()
        self.model, self.text, self.ear, self.count = model, text, ear, count


class Asked(NamedTuple):
    """What a step is asked."""

    lessons: Batch
    beats: Count


class MusicStage(Stage[Asked]):
    """Flow matching over all tasks. Beside it the first layers go on counting, or they would forget it at once."""

    name = "music"
    ema_decay = 0.997
    weight_decay = 0.01
    betas = (0.9, 0.98)

    def __init__(
        self,
        music: Music,
        codes: Codes,
        library: Library,
        metre: MetreStage,
        words: Tokenizer,
        silence: Tensor,
        loud: Tensor,
    ) -> None:
        self.music, self.codes, self.library, self.device = music, codes, library, library.device
        self.module: nn.Module = music.requires_grad_(True)
        self.peak_lr = PEAK_LR * (library.plan.batch_frames / FRAMES) ** 0.25
        self.metre, self.words, self.silence = metre, words, silence.to(library.device)
        self._weight = loud.sqrt().to(library.device)  # of an error before it is squared, [C]
        self._linear = (torch.arange(len(loud)) < len(loud) - bands.COUNT).to(
            library.device
        )  # [C] the others are levels
        self._lyrics = instrumental(words)

    def muon_parameters(self) -> list[nn.Parameter]:
        """The matrices of all transformers' layers: with AdamW alone the loss was 5 % higher after 200 steps."""
        return [p for name, p in self.module.named_parameters() if ".layers." in name and p.ndim == 2]

    def prepare(self, step: int) -> Asked:
        """The lessons of a step, and some beats to count."""
        for each in self.library.batches(self.library.newest(step)):
            self.library.draft(each)
        return Asked(batch(step, self.library, self.words), self.metre.prepare(step, COUNTED))

    def loss(self, step: int, prepared: Asked) -> Tensor:
        """The flow's error over all items, which in linear latents gives way to the envelope's the noisier they are;
        also the codes' and the metre's own.
        """
        asked, device = prepared.lessons, self.device
        self.library.fill(asked.newest)
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
        counts, share = asked.counts.to(device), t.square()
        aimed = x - t[:, None, None] * velocity
        loud = ENVELOPE * (share * self._unlike(aimed, target, counts)).mean()
        known = torch.where(self._linear, (1 - share).sqrt()[:, None, None], 1)  # a level can be known at any time
        velocity, target, noise = (each * self._weight * known for each in (velocity, target, noise))
        music = flow.loss(velocity, target, noise, torch.ones_like(t), counts) + loud
        return music + CODES * codes + METRE * self.metre.loss(step, prepared.beats)

    def _unlike(self, made: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        """How far the envelopes of the linear latents that are aimed at are from the target's, [B]."""
        linear = slice(-bands.COUNT)
        error = envelope.unlike(made[..., linear].float(), target[..., linear], self._weight[linear])
        return (error * counts).sum(1) / counts.sum(1).clamp(min=1e-8)

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
            loss = (levels - envelope.groups(source[rows], self._weight)).square().mean()
            source = source.index_put((rows.to(self.device),), back)
        hole = (asked.hole + ~asked.shown[:, None]).clamp(max=1).to(self.device)[..., None]
        return source * (1 - hole) + silence * hole, loss

    def _condition(self, asked: Batch) -> tuple[Tensor, Tensor]:
        """`conditioned`, with reference audio where a step has it, and without anything where an item is untold."""
        clips = None
        if asked.referenced:
            whole = self.library.latents[asked.target, asked.place].float()
            clips = whole.repeat(1, -(-TIMBRE_FRAMES // whole.shape[1]), 1)[:, :TIMBRE_FRAMES]
        model = self.music.model
        states, told = conditioned(model, self.music.text, asked.ids, asked.told, self.silence, self._lyrics, clips)
        untold = asked.untold.to(self.device)[:, None, None]
        return torch.where(untold, model.unconditional(states.shape[1]).to(states), states), told


def loudness(vae: Vae) -> Tensor:
    """How much each latent channel is heard, [C], 1 in the mean: how long its kernels in the decoder's first layer are.

    All channels vary alike, but the first components carry most of the sound: 8 of 64 hold two thirds of its energy. A
    small model that errs equally in all errs most where it is heard. Levels carry no energy, and yet all of a beat.
    """
    length = vae.decoder.conv1.weight().detach().float().transpose(0, 1).flatten(1).norm(dim=1)
    length = length / length[: -bands.COUNT].mean()
    length[-bands.COUNT :] = LEVELS
    return length / length.mean()


def _times(count: int, generator: torch.Generator) -> Tensor:
    """Times [B]: half as the original draws them, half of a shifted even spread that reaches 1."""
    drawn, _ = flow.draw("logit_normal", count, generator)
    u = torch.rand(count, generator=generator)
    even = SHIFT * u / (1 + (SHIFT - 1) * u)
    return torch.where(torch.rand(count, generator=generator) < 0.5, drawn, even)
