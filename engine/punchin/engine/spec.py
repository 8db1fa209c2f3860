"""The numbers of a model: what `config.json` and `vae/config.json` say, checked, with nothing left to guess.

`Spec.from_config` reads the released file. Two families share one layout: the 2B models, whose condition encoder and
tokenizer have the DiT's widths, and XL, whose `encoder_*` fields give them widths of their own. XL also prepends the
timbre encoder's CLS token; the released 2B models carry that token and do not use it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Final

from punchin.protocol.errors import Refused
from punchin.protocol.installed import LIKE

LATENT_CHANNELS: Final = 64
MOST_LAYERS: Final = 1_000
TIME_CHANNELS: Final = 256  # of the sinusoid that the time embedding starts from


class BadSpec(Refused):
    """A model's configuration does not fit together, or asks for what this engine does not have. Names both values."""

    def __init__(self, text: str) -> None:
        super().__init__(text, hint="check config.json against the model it came with", code="bad_spec")


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSpec:
    """The numbers of one transformer block. `window`: a patch sees `window` others on each side where banded."""

    width: int
    mlp_width: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    norm_eps: float
    rope_theta: float

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise BadSpec(f"{self.heads} query heads cannot share {self.kv_heads} key heads evenly")
        if self.head_dim % 2:
            raise BadSpec(f"head_dim is {self.head_dim}; rotary positions need an even one")


@dataclass(frozen=True, slots=True, kw_only=True)
class DitSpec:
    """The diffusion transformer. Input channels are source, mask and noisy latent, `latent_channels` each."""

    block: BlockSpec
    layers: int
    latent_channels: int
    patch: int  # latent frames in one patch
    condition_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConditionSpec:
    """The condition encoder: caption, lyrics and reference audio to one sequence of `block.width`."""

    block: BlockSpec
    text_width: int  # of the text encoder's states
    timbre_channels: int
    lyric_layers: int
    timbre_layers: int
    timbre_cls: bool  # prepend the CLS token (XL), or take the first audio frame (2B)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerSpec:
    """The audio tokenizer and detokenizer: `pool` latent frames make one code of `codebook` many."""

    block: BlockSpec
    latent_channels: int
    pool: int
    layers: int
    levels: tuple[int, ...]

    @property
    def codebook(self) -> int:
        """How many codes there are: the product of the levels."""
        return prod(self.levels)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """All numbers of one DiT file: the four components that share it, and what the folder says of the variant."""

    dit: DitSpec
    condition: ConditionSpec
    tokenizer: TokenizerSpec
    is_turbo: bool
    version: str
    like: str  # the known model that somebody's own is like; "" where it does not say

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Spec:
        """The spec of a released `config.json`, read as a dict. Raises BadSpec with both numbers that disagree."""
        _refuse_unsupported(config)
        outer = _block(config)
        inner = _inner_block(config, outer)
        latent = _number(config, "audio_acoustic_hidden_dim")
        _agree("timbre_hidden_dim", _number(config, "timbre_hidden_dim"), "audio_acoustic_hidden_dim", latent)
        _agree("in_channels", _number(config, "in_channels"), "3 x audio_acoustic_hidden_dim", 3 * latent)
        _agree("fsq_dim", _number(config, "fsq_dim"), "the encoders' width", inner.width)
        return cls(
            dit=DitSpec(
                block=outer,
                layers=_layers(config, "num_hidden_layers"),
                latent_channels=latent,
                patch=_number(config, "patch_size"),
                condition_width=inner.width,
            ),
            condition=ConditionSpec(
                block=inner,
                text_width=_number(config, "text_hidden_dim"),
                timbre_channels=latent,
                lyric_layers=_layers(config, "num_lyric_encoder_hidden_layers"),
                timbre_layers=_layers(config, "num_timbre_encoder_hidden_layers"),
                timbre_cls=config.get("encoder_hidden_size") is not None,
            ),
            tokenizer=TokenizerSpec(
                block=inner,
                latent_channels=latent,
                pool=_number(config, "pool_window_size"),
                layers=_layers(config, "num_attention_pooler_hidden_layers"),
                levels=_numbers(config, "fsq_input_levels"),
            ),
            is_turbo=bool(config.get("is_turbo", False)),
            version=str(config.get("model_version") or ""),
            like=str(config.get(LIKE) or ""),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class VaeSpec:
    """The Oobleck autoencoder. `strides` in the encoder's order; `multiples` widen it after each of them.

    The encoder ends in mean and scale, 2 x latent_channels; in the released file encoder_width is that same number.
    """

    encoder_width: int
    decoder_width: int
    latent_channels: int
    audio_channels: int
    strides: tuple[int, ...]
    multiples: tuple[int, ...]
    rate_hz: int

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.multiples):
            raise BadSpec(f"the VAE has {len(self.strides)} strides but {len(self.multiples)} channel multiples")
        odd = [stride for stride in self.strides if stride % 2]
        if odd:  # its transposed convolution would lose a frame
            raise BadSpec(f"the VAE has a stride of {odd[0]}; this engine's strides are even")

    @property
    def hop(self) -> int:
        """Audio frames in one latent frame: the product of the strides."""
        return prod(self.strides)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> VaeSpec:
        """The spec of a released `vae/config.json`, read as a dict. Raises BadSpec."""
        return cls(
            encoder_width=_number(config, "encoder_hidden_size"),
            decoder_width=_number(config, "decoder_channels"),
            latent_channels=_number(config, "decoder_input_channels"),
            audio_channels=_number(config, "audio_channels"),
            strides=_numbers(config, "downsampling_ratios"),
            multiples=_numbers(config, "channel_multiples"),
            rate_hz=_number(config, "sampling_rate"),
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Refused where it is missing or broken."""
    try:
        value = json.loads(path.read_text())
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}", code="model_missing") from error
    except ValueError as error:
        raise Refused(f"{path} is not JSON: {error}", code="bad_spec") from error
    if not isinstance(value, dict):
        raise Refused(f"{path} holds no JSON object", code="bad_spec")
    return value


def _layers(config: Mapping[str, Any], name: str) -> int:
    """A number of layers that can be built: the largest model has 32."""
    value = _number(config, name)
    if value > MOST_LAYERS:
        raise BadSpec(f"{name} is {value}, and must be {MOST_LAYERS} at most")
    return value


def _number(config: Mapping[str, Any], name: str) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadSpec(f"{name} is {value!r}, and must be a whole number from 1 on")
    return value


def _real(config: Mapping[str, Any], name: str) -> float:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise BadSpec(f"{name} is {value!r}, and must be a number above 0")
    return float(value)


def _numbers(config: Mapping[str, Any], name: str) -> tuple[int, ...]:
    values = config.get(name)
    if not isinstance(values, list | tuple) or not all(isinstance(value, int) and value > 0 for value in values):
        raise BadSpec(f"{name} is {values!r}, and must be a list of whole numbers from 1 on")
    return tuple(values)


def _agree(name: str, value: object, other: str, expected: object) -> None:
    if value != expected:
        raise BadSpec(f"{name} is {value}, but {other} is {expected}")


def _refuse_unsupported(config: Mapping[str, Any]) -> None:
    """Numbers that the released models all share and that this engine's code, like the original's, takes as given."""
    for name, expected in {
        "fsq_input_num_quantizers": 1,
        "attention_bias": False,
        "use_sliding_window": True,
    }.items():
        _agree(name, config.get(name, expected), "this engine's only value", expected)
    kinds: Sequence[str] | None = config.get("layer_types")
    if kinds is not None:
        expected = ["full_attention" if i % 2 else "sliding_attention" for i in range(len(kinds))]
        _agree("layer_types", list(kinds), "this engine's only order", expected)
        _agree("length of layer_types", len(kinds), "num_hidden_layers", config.get("num_hidden_layers"))


def _block(config: Mapping[str, Any]) -> BlockSpec:
    return BlockSpec(
        width=_number(config, "hidden_size"),
        mlp_width=_number(config, "intermediate_size"),
        heads=_number(config, "num_attention_heads"),
        kv_heads=_number(config, "num_key_value_heads"),
        head_dim=_number(config, "head_dim"),
        window=_number(config, "sliding_window"),
        norm_eps=_real(config, "rms_norm_eps"),
        rope_theta=_real(config, "rope_theta"),
    )


def _inner_block(config: Mapping[str, Any], outer: BlockSpec) -> BlockSpec:
    names = ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads")
    given = [name for name in names if config.get(f"encoder_{name}") is not None]
    if not given:
        return outer
    if len(given) < len(names):
        missing = ", ".join(f"encoder_{name}" for name in names if name not in given)
        raise BadSpec(f"encoder_{given[0]} is {config[f'encoder_{given[0]}']}, but there is no {missing}")
    width, mlp_width, heads, kv_heads = (_number(config, f"encoder_{name}") for name in names)
    return BlockSpec(
        width=width,
        mlp_width=mlp_width,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=outer.head_dim,
        window=outer.window,
        norm_eps=outer.norm_eps,
        rope_theta=outer.rope_theta,
    )


CONFIG_2B: Final[Mapping[str, Any]] = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "in_channels": 192,
    "audio_acoustic_hidden_dim": LATENT_CHANNELS,
    "timbre_hidden_dim": LATENT_CHANNELS,
    "text_hidden_dim": 1024,
    "patch_size": 2,
    "sliding_window": 128,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "num_lyric_encoder_hidden_layers": 8,
    "num_timbre_encoder_hidden_layers": 4,
    "num_attention_pooler_hidden_layers": 2,
    "pool_window_size": 5,
    "fsq_dim": 2048,
    "fsq_input_levels": [8, 8, 8, 5, 5, 5],
    "fsq_input_num_quantizers": 1,
    "is_turbo": True,
}
CONFIG_XL: Final[Mapping[str, Any]] = {
    **CONFIG_2B,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "encoder_hidden_size": 2048,
    "encoder_intermediate_size": 6144,
    "encoder_num_attention_heads": 16,
    "encoder_num_key_value_heads": 8,
}
CONFIG_VAE: Final[Mapping[str, Any]] = {
    "encoder_hidden_size": 128,
    "decoder_channels": 128,
    "decoder_input_channels": LATENT_CHANNELS,
    "audio_channels": 2,
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 2, 4, 8, 16],
    "sampling_rate": 48_000,
}

SPEC_2B: Final = Spec.from_config(CONFIG_2B)
SPEC_XL: Final = Spec.from_config(CONFIG_XL)
VAE_RELEASED: Final = VaeSpec.from_config(CONFIG_VAE)
