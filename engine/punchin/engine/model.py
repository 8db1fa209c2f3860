"""One DiT file as one module: its `state_dict` has exactly the released keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from punchin.engine.condition import ConditionEncoder
from punchin.engine.dit import Dit
from punchin.engine.spec import Spec
from punchin.engine.tokenizer import AudioDetokenizer, AudioTokenizer


class AceStep(nn.Module):
    """The four components of a released file: `decoder` (the DiT), `encoder`, `tokenizer`, `detokenizer`.

    Nothing but weights: build it `with torch.device("meta")`, then `load_state_dict(tensors, assign=True)`.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.decoder = Dit(spec.dit)
        self.encoder = ConditionEncoder(spec.condition)
        self.null_condition_emb = nn.Parameter(torch.randn(1, 1, spec.condition.block.width))
        self.tokenizer = AudioTokenizer(spec.tokenizer)
        self.detokenizer = AudioDetokenizer(spec.tokenizer)

    def unconditional(self, length: int) -> Tensor:
        """The condition [1, length, W] that means none. The original gives it the length of the one it stands for."""
        return self.null_condition_emb.expand(-1, length, -1)
