"""What a batch of prompts is to the DiT: the engine's condition, with a gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer
from torch import Tensor

from punchin.engine.condition import Tokens
from punchin.engine.model import AceStep
from punchin.engine.prompts import INSTRUMENTAL, lyric_prompt
from punchin.engine.tasks import TIMBRE_FRAMES, silence_for

if TYPE_CHECKING:
    from transformers import Qwen3Model


def conditioned(
    model: AceStep,
    text: Qwen3Model,
    ids: Tensor,
    told: Tensor,
    silence: Tensor,
    lyrics: Tensor,
    clips: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """[lyrics | timbre | caption] of each prompt [B, L, W], padding last, and what of it is real.

    ids, told [B, N]: tokens of the captions, and which are real. lyrics [1, M]: tokens. clips [B, 750, C]: reference
    latents; without them, silence.
    """
    device, count = silence.device, len(ids)
    words = text.embed_tokens(lyrics.to(device))
    sung = model.encoder.lyric_encoder(Tokens(words, torch.ones(lyrics.shape, dtype=torch.bool))).states
    if clips is None:
        clip = silence_for(silence, TIMBRE_FRAMES)
        timbre = model.encoder.timbre_encoder(clip, torch.zeros(1, dtype=torch.long, device=device)).states
    else:
        timbre = model.encoder.timbre_encoder(clips, torch.arange(count, device=device)).states
    hidden = text(input_ids=ids.to(device), use_cache=False).last_hidden_state
    caption = model.encoder.text_projector(hidden)
    states = torch.cat([*(each.expand(count, -1, -1) for each in (sung, timbre)), caption], dim=1)
    before = torch.ones(count, states.shape[1] - caption.shape[1], dtype=torch.bool)
    return states, torch.cat([before, told], dim=1).to(device)


def instrumental(words: Tokenizer) -> Tensor:
    """The tokens of no lyrics, [1, M]."""
    return torch.tensor([words.encode(lyric_prompt(INSTRUMENTAL)).ids])
