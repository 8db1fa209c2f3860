"""The loss of a batch on a model: what the DiT sees and reads, and how far its velocity is off."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.autograd.graph import save_on_cpu
from torch.utils.checkpoint import checkpoint

from punchin.engine.condition import Tokens
from punchin.engine.model import AceStep
from punchin.engine.tasks import silence_for
from punchin.engine.tokenizer import whole_codes
from punchin.training import flow
from punchin.training.batches import Batch


class Objective(nn.Module):
    """The model with its loss as `forward`, so that several processes can share its gradients."""

    def __init__(self, model: AceStep, silence: Tensor) -> None:
        super().__init__()
        self.model = model
        self._silence = silence

    def forward(self, batch: Batch) -> Tensor:
        """The weighted error of a batch, a scalar."""
        return self.errors(batch).mean()

    def errors(self, batch: Batch) -> Tensor:
        """The weighted mean squared error of each item, [B]."""
        shown = self._shown(batch)
        x = flow.noised(batch.data, batch.noise, batch.t)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda"):
            condition = self._condition(batch)
            context = torch.cat([shown, batch.mask[..., None].expand_as(shown)], -1)
            valid = None if bool(condition.valid.all()) else condition.valid
            velocity = self.model.decoder(x, batch.t, context, condition.states, valid)
        return flow.errors(velocity, batch.data, batch.noise, batch.weights, batch.counts)

    def _shown(self, batch: Batch) -> Tensor:
        """The source [B, T, C] as its task shows it: through the codes, with a hole, or as it is."""
        shown, frames = batch.shown, batch.shown.shape[1]
        silence = silence_for(self._silence, frames)
        rows = batch.coded.nonzero()[:, 0]
        if len(rows):
            pool = self.model.tokenizer.pool
            with torch.no_grad():
                states = self.model.tokenizer(whole_codes(shown[rows], self._silence, pool)).states
                back = self.model.detokenizer(states)[:, :frames].to(shown)
            real = batch.counts[rows, :, None] > 0  # what pads an item stays silence, as inference pads
            shown = shown.index_put((rows,), torch.where(real, back, shown[rows]))
        return torch.where(batch.hole[..., None], silence.to(shown), shown)

    def _condition(self, batch: Batch) -> Tokens:
        model, dtype = self.model, self.model.null_condition_emb.dtype
        text = Tokens(batch.caption.to(dtype), batch.caption_valid)
        lyrics = Tokens(batch.lyrics.to(dtype), batch.lyrics_valid)
        states, valid = model.encoder(text, lyrics, batch.clips.to(dtype), batch.owners)
        nothing = model.unconditional(states.shape[1]).to(states)
        return Tokens(torch.where(batch.untold[:, None, None], nothing, states), valid)


def checkpointed(model: AceStep, *, offload: bool) -> None:
    """Compute each DiT layer again for its gradient instead of keeping it; offload: keep its input on the CPU."""
    for layer in cast(Iterable[nn.Module], model.decoder.layers):
        layer.forward = partial(_again, layer.forward, offload)  # type: ignore[method-assign]


def _again(forward: object, offload: bool, *inputs: object) -> Tensor:
    if not torch.is_grad_enabled():
        return cast("partial[Tensor]", forward)(*inputs)
    if not offload:
        return cast(Tensor, checkpoint(forward, *inputs, use_reentrant=False))
    with save_on_cpu():
        return cast(Tensor, checkpoint(forward, *inputs, use_reentrant=False))
