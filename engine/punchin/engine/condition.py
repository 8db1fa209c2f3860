"""The condition encoder: caption, lyrics and reference audio to the sequence that the DiT looks at.

Axes: B batch, L tokens, W the encoder's width, R references of one item, N reference clips of the whole batch.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from punchin.engine.layers import EncoderLayers, RMSNorm
from punchin.engine.spec import ConditionSpec


class Tokens(NamedTuple):
    """A sequence and which of its entries are real: states [B, L, W], valid [B, L] bool."""

    states: Tensor
    valid: Tensor


def pack(first: Tokens, second: Tokens) -> Tokens:
    """Both sequences as one, real entries before padding, each kind in its order."""
    states = torch.cat([first.states, second.states], dim=1)
    valid = torch.cat([first.valid, second.valid], dim=1)
    order = valid.int().argsort(dim=1, descending=True, stable=True)
    count = torch.arange(valid.shape[1], device=valid.device)
    return Tokens(torch.take_along_dim(states, order[..., None], dim=1), count < valid.sum(1, keepdim=True))


class LyricEncoder(nn.Module):
    """Token embeddings of the lyrics to lyric states."""

    def __init__(self, spec: ConditionSpec) -> None:
        super().__init__()
        self.embed_tokens = nn.Linear(spec.text_width, spec.block.width)
        self.norm = RMSNorm(spec.block.width, spec.block.norm_eps)
        self.layers = EncoderLayers(spec.block, spec.lyric_layers)

    def forward(self, lyrics: Tokens) -> Tokens:
        """`states` [B, L, text width] -> [B, L, W]."""
        valid = None if bool(lyrics.valid.all()) else lyrics.valid
        return Tokens(self.norm(self.layers(self.embed_tokens(lyrics.states), valid)), lyrics.valid)


class TimbreEncoder(nn.Module):
    """Latents of reference clips to one token a clip.

    The token is what position 0 has become. On XL a CLS token stands there; on the 2B models the first audio frame
    does, though the files hold a CLS token: the original's code leaves it out, and so do the weights expect.
    """

    def __init__(self, spec: ConditionSpec) -> None:
        super().__init__()
        self.cls = spec.timbre_cls
        self.embed_tokens = nn.Linear(spec.timbre_channels, spec.block.width)
        self.norm = RMSNorm(spec.block.width, spec.block.norm_eps)
        self.special_token = nn.Parameter(torch.randn(1, 1, spec.block.width))
        self.layers = EncoderLayers(spec.block, spec.timbre_layers)

    def forward(self, clips: Tensor, owners: Tensor) -> Tokens:
        """`clips` [N, frames, C], owners [N]: the batch item each clip belongs to, 0 to B-1 -> states [B, R, W].

        R is the most clips any item has; an item's clips keep their order. Every item needs one clip or more: for
        "no reference", the original passes 750 frames of the silence latent.
        """
        x = self.embed_tokens(clips)
        if self.cls:
            x = torch.cat([self.special_token.expand(len(x), -1, -1), x], dim=1)
        return _by_owner(self.norm(self.layers(x)[:, 0]), owners)


def _by_owner(tokens: Tensor, owners: Tensor) -> Tokens:
    """`tokens` [N, W] -> states [B, R, W], zeros where an item has fewer clips than R."""
    same = owners[:, None] == owners[None, :]
    place = same.tril(-1).sum(1)  # how many clips of the same item came before
    batch, most = int(owners.max()) + 1, int(place.max()) + 1
    states = tokens.new_zeros(batch, most, tokens.shape[1])
    valid = torch.zeros(batch, most, dtype=torch.bool, device=tokens.device)
    return Tokens(
        states.index_put((owners, place), tokens),
        valid.index_put((owners, place), torch.ones_like(owners, dtype=torch.bool)),
    )


class ConditionEncoder(nn.Module):
    """Everything the DiT is told in words and by example: [lyrics | timbre | caption], real entries first.

    The three parts can be computed, and kept, apart: `lyric_encoder`, `timbre_encoder` and `text_projector`, then
    `joined`. A reference's timbre, silence's above all, is the same for every request.
    """

    def __init__(self, spec: ConditionSpec) -> None:
        super().__init__()
        self.text_projector = nn.Linear(spec.text_width, spec.block.width, bias=False)
        self.lyric_encoder = LyricEncoder(spec)
        self.timbre_encoder = TimbreEncoder(spec)

    def forward(self, text: Tokens, lyrics: Tokens, clips: Tensor, owners: Tensor) -> Tokens:
        """Caption and lyrics: states [B, L, text width]; clips, owners: see TimbreEncoder -> states [B, sum of L, W].

        The DiT does not mask padding, so encode items of different length one by one.
        """
        return self.joined(self.lyric_encoder(lyrics), self.timbre_encoder(clips, owners), text)

    def joined(self, lyrics: Tokens, timbre: Tokens, text: Tokens) -> Tokens:
        """The packed sequence of encoded lyrics, encoded timbre and the caption's raw states."""
        caption = Tokens(self.text_projector(text.states), text.valid)
        return pack(pack(lyrics, timbre), caption)
