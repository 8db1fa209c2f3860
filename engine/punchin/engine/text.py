"""Qwen3-Embedding as ACE-Step uses it: a caption as hidden states, lyrics as bare token embeddings.

One text at a time, so that no result depends on what it was batched with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from punchin.engine.spec import BadSpec, read_json
from punchin.protocol import limits
from punchin.protocol.errors import Refused

if TYPE_CHECKING:
    from transformers import Qwen3Model

CAPTION_TOKENS: Final = int(limits.PROMPT.high)
LYRIC_TOKENS: Final = int(limits.LYRICS.high)
END_OF_TEXT: Final = "<|endoftext|>"


class TextEncoder(nn.Module):
    """Text to conditions. `model` is transformers' Qwen3Model, `tokenizer` appends the end-of-text token itself."""

    def __init__(self, model: Qwen3Model, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        end = tokenizer.token_to_id(END_OF_TEXT)
        if end is None:
            raise Refused(f"the tokenizer has no {END_OF_TEXT}, the text encoder needs it", code="weights")
        self._end = end

    @property
    def width(self) -> int:
        """D, the width of states and embeddings."""
        return self.model.config.hidden_size

    def length(self, text: str) -> int:
        """How many tokens `text` is, with its closing end-of-text."""
        return len(self.tokenizer.encode(text).ids)

    def ids(self, text: str, limit: int) -> list[int]:
        """Token ids of `text` with its closing end-of-text, cut to `limit` (the closing one stays)."""
        ids = self.tokenizer.encode(text).ids
        return ids if len(ids) <= limit else [*ids[: limit - 1], self._end]

    def caption(self, text: str) -> Tensor:
        """Hidden states after the final norm, causal: [1, L, D] with L <= 256."""
        return self.model(input_ids=self._tensor(self.ids(text, CAPTION_TOKENS)), use_cache=False).last_hidden_state

    def lyrics(self, text: str) -> Tensor:
        """Token embeddings without a transformer layer: [1, L, D] with L <= 2048."""
        return self.model.embed_tokens(self._tensor(self.ids(text, LYRIC_TOKENS)))

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.model.embed_tokens.weight.device)


def empty_encoder(folder: Path) -> TextEncoder:
    """The encoder that `folder` describes (`config.json`, `tokenizer.json`), its weights on the meta device.

    Raises Refused where either is missing or broken.
    """
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3RotaryEmbedding

    try:
        config = Qwen3Config(**_config(folder))
    except Exception as error:  # transformers checks in many ways
        raise BadSpec(f"{folder / 'config.json'} describes no text encoder: {error}") from error
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        model = Qwen3Model(config)
    model.rotary_emb = Qwen3RotaryEmbedding(config)  # a table that no file holds: made outside the meta device
    return TextEncoder(model.eval(), read_tokenizer(folder, config.vocab_size))


def read_tokenizer(folder: Path, most: int) -> Tokenizer:
    """The `tokenizer.json` of a folder. Raises Refused: there is none, it is broken, it has more than `most` tokens."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise Refused(f"{folder} holds no tokenizer.json", code="model_missing")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise Refused(f"{path} is no tokenizer: {error}", "fetch it again", code="weights") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.get_vocab_size() > most:
        raise Refused(f"{path} has {tokenizer.get_vocab_size()} tokens, the text encoder {most}")
    return tokenizer


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    config = read_json(path)
    if config.get("model_type") != "qwen3":
        raise Refused(f"{path} says model_type {config.get('model_type')!r}, the text encoder is 'qwen3'")
    skip = {"model_type", "architectures", "torch_dtype", "dtype", "transformers_version", "attn_implementation"}
    return {key: value for key, value in config.items() if key not in skip}
