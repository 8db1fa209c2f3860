"""Qwen3-Embedding as ACE-Step uses it: a caption as hidden states, lyrics as bare token embeddings.

One text at a time, so that no result depends on what it was batched with. The layers are those of the condition
encoder, causal here; the computation equals transformers' Qwen3Model, whose import takes longer than torch's and all
weights of a small model together.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from punchin.engine.layers import EncoderLayer, RMSNorm, rope_table
from punchin.engine.spec import BadSpec, BlockSpec
from punchin.protocol.errors import Refused

CAPTION_TOKENS: Final = 256
LYRIC_TOKENS: Final = 2048
END_OF_TEXT: Final = "<|endoftext|>"


@dataclass(frozen=True, slots=True, kw_only=True)
class TextSpec:
    """The numbers of a Qwen3 model without its head."""

    block: BlockSpec
    layers: int
    vocabulary: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TextSpec:
        """The spec of a released `config.json`. Raises BadSpec for what is no plain Qwen3."""
        for name, expected in {"model_type": "qwen3", "attention_bias": False, "use_sliding_window": False}.items():
            if config.get(name, expected) != expected:
                raise BadSpec(f"the text encoder's {name} is {config[name]!r}, and must be {expected!r}")
        rope = config.get("rope_parameters") or config  # where transformers 5 writes it
        try:
            block = BlockSpec(
                width=config["hidden_size"],
                mlp_width=config["intermediate_size"],
                heads=config["num_attention_heads"],
                kv_heads=config["num_key_value_heads"],
                head_dim=config["head_dim"],
                window=config.get("max_position_embeddings", LYRIC_TOKENS),
                norm_eps=float(config["rms_norm_eps"]),
                rope_theta=float(rope["rope_theta"]),
            )
            return cls(block=block, layers=config["num_hidden_layers"], vocabulary=config["vocab_size"])
        except KeyError as error:
            raise BadSpec(f"the text encoder's config.json lacks {error}") from error


class Qwen3(nn.Module):
    """Token ids to hidden states, each of which has seen the ones before it. Attribute names are the checkpoint's."""

    def __init__(self, spec: TextSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed_tokens = nn.Embedding(spec.vocabulary, spec.block.width)
        self.layers = nn.ModuleList(EncoderLayer(spec.block) for _ in range(spec.layers))
        self.norm = RMSNorm(spec.block.width, spec.block.norm_eps)

    def forward(self, ids: Tensor) -> Tensor:
        """`ids` [B, L] -> states after the final norm [B, L, D]."""
        x = self.embed_tokens(ids)
        length = x.shape[1]
        table = rope_table(self.spec.block, length, x)
        past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        for layer in self.layers:
            x = layer(x, table, past)
        return self.norm(x)


class TextEncoder(nn.Module):
    """Text to conditions. `tokenizer` appends the end-of-text token itself."""

    def __init__(self, model: Qwen3, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.model, self.tokenizer = model, tokenizer
        end = tokenizer.token_to_id(END_OF_TEXT)
        if end is None:
            raise Refused(f"the tokenizer has no {END_OF_TEXT}, the text encoder needs it", code="weights")
        self._end = end

    @property
    def width(self) -> int:
        """D, the width of states and embeddings."""
        return self.model.spec.block.width

    def ids(self, text: str, limit: int) -> list[int]:
        """Token ids of `text` with its closing end-of-text, cut to `limit` (the closing one stays)."""
        ids = self.tokenizer.encode(text).ids
        return ids if len(ids) <= limit else [*ids[: limit - 1], self._end]

    def caption(self, text: str) -> Tensor:
        """Hidden states after the final norm, causal: [1, L, D] with L <= 256."""
        return self.model(self._tensor(self.ids(text, CAPTION_TOKENS)))

    def lyrics(self, text: str) -> Tensor:
        """Token embeddings without a transformer layer: [1, L, D] with L <= 2048."""
        return self.model.embed_tokens(self._tensor(self.ids(text, LYRIC_TOKENS)))

    def _tensor(self, ids: list[int]) -> Tensor:
        return torch.tensor([ids], device=self.model.embed_tokens.weight.device)


def empty_encoder(folder: Path) -> TextEncoder:
    """The encoder that `folder` describes (`config.json`, `tokenizer.json`), its weights on the meta device."""
    paths = folder / "config.json", folder / "tokenizer.json"
    for path in paths:
        if not path.is_file():
            raise Refused(f"{folder} holds no {path.name}", code="model_missing")
    try:
        spec = TextSpec.from_config(json.loads(paths[0].read_text()))
    except ValueError as error:
        raise Refused(f"{paths[0]} is not JSON: {error}", code="bad_spec") from error
    with torch.device("meta"):
        model = Qwen3(spec)
    tokenizer = Tokenizer.from_file(str(paths[1]))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if tokenizer.get_vocab_size() > spec.vocabulary:
        raise Refused(f"{paths[1]} has {tokenizer.get_vocab_size()} tokens, the text encoder {spec.vocabulary}")
    return TextEncoder(model.eval(), tokenizer)
