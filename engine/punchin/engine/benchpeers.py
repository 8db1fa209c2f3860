"""The two contestants of the bench: this engine, and diffusers' ACE-Step pipeline, over the same random weights.

Both read the same tensors; only the fast autoencoder's folded kernels are this engine's own. Each contestant offers
the same cases as callables, so that what is timed is what a user of either would call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from punchin.engine import tiny
from punchin.engine.conditioner import Conditioner
from punchin.engine.fastvae import FastVae
from punchin.engine.model import AceStep
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.placement import Placement
from punchin.engine.released import Folders, Loaded
from punchin.engine.request import Request
from punchin.engine.spec import CONFIG_2B, CONFIG_VAE, Spec, VaeSpec
from punchin.engine.text import END_OF_TEXT, TextEncoder
from punchin.engine.vae import ConvTransposed, NormedConv, Vae
from punchin.protocol.errors import Refused
from punchin.protocol.limits import HOP, LATENT_HZ, MODEL_HZ
from punchin.protocol.models import BY_NAME

PROMPT: Final = "dusty rhodes over brushed drums, warm tape"
LYRICS: Final = "[Instrumental]"
STEPS: Final = 8
SONG_S, REGION_S, WINDOW_S, SHORT_S = 60, 8, 30, 10  # the window is what `--context auto` gives
REGION_AT_S: Final = 26

SMALL: Final = {
    "hidden_size": 256,
    "intermediate_size": 768,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "text_hidden_dim": 128,
    "audio_acoustic_hidden_dim": 8,
    "timbre_hidden_dim": 8,
    "in_channels": 24,
    "fsq_dim": 256,
    "num_lyric_encoder_hidden_layers": 2,
    "num_timbre_encoder_hidden_layers": 2,
}
SMALL_VAE: Final = {"encoder_hidden_size": 16, "decoder_channels": 16, "decoder_input_channels": 8}
TEXT_2B: Final = {
    "vocab_size": 151_669,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}
TEXT_SMALL: Final = {
    **TEXT_2B,
    "vocab_size": 2048,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
}
TEXT_REST: Final = {"max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "use_cache": False}

Case = Callable[[], Tensor]

# From the original's names to diffusers'.
RENAMED: Final[Mapping[str, str]] = {
    "proj_in.1.": "proj_in_conv.",
    "proj_out.1.": "proj_out_conv.",
    ".q_proj.": ".to_q.",
    ".k_proj.": ".to_k.",
    ".v_proj.": ".to_v.",
    ".o_proj.": ".to_out.0.",
    ".q_norm.": ".norm_q.",
    ".k_norm.": ".norm_k.",
}


@dataclass(frozen=True, eq=False)
class Weights:
    """Random weights in plain modules, and the numbers that describe them."""

    config: Mapping[str, Any]
    vae_config: Mapping[str, Any]
    model: AceStep
    vae: Vae
    text: TextEncoder
    silence: Tensor
    device: torch.device
    dtype: torch.dtype


def weights(size: str, device: torch.device, dtype: torch.dtype) -> Weights:
    """Random weights of a `full` 2B model, or of a `small` one; the same each time."""
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Model, Qwen3RotaryEmbedding

    full = size == "full"
    config: dict[str, Any] = {**CONFIG_2B, **({} if full else SMALL)}
    vae_config: dict[str, Any] = {**CONFIG_VAE, **({} if full else SMALL_VAE)}
    settings = Qwen3Config(**(TEXT_2B if full else TEXT_SMALL), **TEXT_REST)
    settings._attn_implementation = "sdpa"
    with torch.device("meta"):
        model, vae = AceStep(Spec.from_config(config)), Vae(VaeSpec.from_config(vae_config))
        text = Qwen3Model(settings)
    text.rotary_emb = Qwen3RotaryEmbedding(settings)
    for module in (model, vae, text):
        _fill(module, device, dtype)
    text.rotary_emb.to(device)
    encoder = TextEncoder(text.eval(), tiny.tokenizer())
    silence = torch.randn(1, 15_000, model.spec.dit.latent_channels, generator=torch.Generator().manual_seed(1))
    return Weights(config, vae_config, model.eval(), vae.eval(), encoder, silence.to(device), device, dtype)


def _fill(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Weights at which signals keep their size, so that both contestants can be compared before they are timed."""
    generator = torch.Generator(device).manual_seed(0)
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            value = torch.empty(parameter.shape, device=device, dtype=dtype)
            if "norm" in type(owner).__name__.lower() and parameter.ndim == 1:
                value.fill_(1.0)
            else:
                value.normal_(0, 0.02, generator=generator)
            setattr(owner, name, nn.Parameter(value, requires_grad=False))
        if isinstance(owner, NormedConv):
            shape = owner.weight_v.shape
            gain = (owner.stride * shape[1] / shape[0]) ** 0.5 if isinstance(owner, ConvTransposed) else 0.5
            owner.weight_g.data.fill_(gain)


def song(seconds: int) -> Tensor:
    """Noise with a beat, [2, n]: what it is does not matter to the time it takes."""
    n = seconds * MODEL_HZ
    beat = torch.sin(torch.arange(n) * (2 * torch.pi * 2 / MODEL_HZ)).abs()
    return 0.3 * beat * torch.randn(2, n, generator=torch.Generator().manual_seed(2))


def ours(made: Weights) -> dict[str, Case]:
    """Our cases. Warm: the window's latent and the words are kept from the last take; the seed is new."""
    loaded = Loaded(
        model=made.model,
        vae=FastVae(made.vae),
        text=made.text,
        silence=made.silence,
        variant=BY_NAME["turbo"],
        trained=False,
        folders=Folders(Path(), Path(), Path()),
        placement=Placement(made.device, made.dtype),
        shelf=None,
        sha256="",
    )
    pipe, windowed = AceStepPipeline(loaded), AceStepPipeline(loaded)
    whole = song(SONG_S)
    first = (REGION_AT_S - (WINDOW_S - REGION_S) // 2) * MODEL_HZ
    window = whole[:, first : first + WINDOW_S * MODEL_HZ]
    seeds = iter(range(1, 10**9))

    def repaint(pipe: AceStepPipeline, source: Tensor, at_s: int) -> Tensor:
        """The region alone comes back: the rest of the song is the session's own."""
        start, stop = at_s * LATENT_HZ, (at_s + REGION_S) * LATENT_HZ
        request = Request(
            task="repaint",
            frames=source.shape[1],
            prompt=PROMPT,
            source=source,
            regions=((start, stop),),
            wanted=(start * HOP, stop * HOP),
            seeds=(next(seeds),),
            num_inference_steps=STEPS,
        )
        return _finished(pipe.stages(request))

    def warm() -> Tensor:
        return repaint(windowed, window, (WINDOW_S - REGION_S) // 2)

    def cold() -> Tensor:
        windowed.conditioner = Conditioner(loaded)
        return warm()

    cases: dict[str, Case] = {f"DiT step {seconds} s": _our_step(made, seconds) for seconds in (10, 30)}
    latent = _latents(made, SHORT_S)
    cases[f"VAE decode {SHORT_S} s"] = lambda: loaded.vae.decode(latent)
    cases |= {
        f"text2music {SHORT_S} s": lambda: _finished(
            pipe.stages(
                Request(
                    frames=SHORT_S * MODEL_HZ, prompt=PROMPT, seeds=(next(seeds),), num_inference_steps=STEPS, shift=3.0
                )
            )
        ),
        f"repaint {REGION_S} s in {SONG_S} s, cold": cold,  # before warm, which finds what it kept
        f"repaint {REGION_S} s in {SONG_S} s, warm": warm,
        f"repaint {REGION_S} s in {SONG_S} s, whole song heard": lambda: repaint(pipe, whole, REGION_AT_S),
    }
    return cases


def _our_step(made: Weights, seconds: int) -> Case:
    x, t, context, condition = _step_inputs(made, seconds)
    with torch.inference_mode():
        prepared, modulation = made.model.decoder.prepare(condition), made.model.decoder.modulation(t)
    return lambda: made.model.decoder.steered(x, modulation, context, prepared)


def _finished(stages: Any) -> Tensor:
    while True:
        try:
            next(stages)
        except StopIteration as end:
            return end.value.audio[0]


def _step_inputs(made: Weights, seconds: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    frames, channels = seconds * LATENT_HZ, made.model.spec.dit.latent_channels
    generator = torch.Generator().manual_seed(3)
    shapes = ((1, frames, channels), (1, frames, 2 * channels), (1, 401, made.model.spec.dit.condition_width))
    x, context, condition = (torch.randn(shape, generator=generator).to(made.device) for shape in shapes)
    t = torch.tensor([0.5], device=made.device)  # 500 thousandths: diffusers makes 752 of 750 in bfloat16
    return x, t, context.to(made.dtype), condition.to(made.dtype)


def _latents(made: Weights, seconds: int) -> Tensor:
    shape = (1, seconds * LATENT_HZ, made.model.spec.dit.latent_channels)
    return torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(made.device)


def diffusers(made: Weights) -> dict[str, Case]:
    """The peer's cases, under the same names: it knows no warm and no window, so all three repaints are one."""
    pipe = _peer(made)
    whole = song(SONG_S).to(made.device)
    latent = _latents(made, SHORT_S).transpose(1, 2).to(made.dtype).contiguous()
    words = {"prompt": PROMPT, "lyrics": LYRICS, "num_inference_steps": STEPS, "guidance_scale": 1.0, "shift": 3.0}
    seeds = iter(range(1, 10**9))

    def generate(**more: Any) -> Tensor:
        return pipe(**words, **more, generator=torch.Generator().manual_seed(next(seeds)), return_dict=False)[0]

    def repaint() -> Tensor:
        region = {"repainting_start": float(REGION_AT_S), "repainting_end": float(REGION_AT_S + REGION_S)}
        return generate(task_type="repaint", src_audio=whole, **region)

    cases: dict[str, Case] = {f"text2music {SHORT_S} s": lambda: generate(audio_duration=float(SHORT_S))}
    for kind in ("warm", "cold", "whole song heard"):
        cases[f"repaint {REGION_S} s in {SONG_S} s, {kind}"] = repaint
    for seconds in (10, 30):
        x, t, context, condition = _step_inputs(made, seconds)
        arguments = (x.to(made.dtype), t.to(made.dtype), t.to(made.dtype), condition, context)
        cases[f"DiT step {seconds} s"] = lambda given=arguments: pipe.transformer(*given, return_dict=False)[0]
    cases[f"VAE decode {SHORT_S} s"] = lambda: pipe.vae.decode(latent).sample
    return cases


def _peer(made: Weights) -> Any:
    try:
        from diffusers.models.autoencoders.autoencoder_oobleck import AutoencoderOobleck
        from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
        from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder
        from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline as Peer
        from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
        from transformers import PreTrainedTokenizerFast
    except ImportError as error:
        raise Refused(f"the bench needs diffusers: {error}", "pip install diffusers==0.42.1") from error
    config, spec = made.config, made.model.spec
    shared = ("num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "intermediate_size")
    shape = {name: config[name] for name in shared}
    with torch.device("meta"):
        transformer = AceStepTransformer1DModel(
            **shape,
            num_hidden_layers=spec.dit.layers,
            in_channels=config["in_channels"],
            audio_acoustic_hidden_dim=spec.dit.latent_channels,
            is_turbo=True,
        )
        encoder = AceStepConditionEncoder(
            **shape,
            text_hidden_dim=spec.condition.text_width,
            timbre_hidden_dim=spec.condition.timbre_channels,
            num_lyric_encoder_hidden_layers=spec.condition.lyric_layers,
            num_timbre_encoder_hidden_layers=spec.condition.timbre_layers,
        )
        vae = AutoencoderOobleck(**dict(made.vae_config))
    null = {"null_condition_emb": made.model.null_condition_emb, "silence_latent": made.silence.to(made.dtype)}
    _share(transformer, made.model.decoder, {})
    _share(encoder, made.model.encoder, null)
    vae.load_state_dict(made.vae.state_dict(), assign=True)
    words = PreTrainedTokenizerFast(tokenizer_object=made.text.tokenizer, pad_token=END_OF_TEXT)
    pipe = Peer(
        vae=vae,
        text_encoder=made.text.model,
        tokenizer=words,
        transformer=transformer.eval(),
        condition_encoder=encoder.eval(),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _share(theirs: nn.Module, mine: nn.Module, more: Mapping[str, Tensor]) -> None:
    tensors = dict(more)
    for key, tensor in mine.state_dict().items():
        for old, new in RENAMED.items():
            key = key.replace(old, new)
        tensors[key] = tensor
    theirs.load_state_dict(tensors, assign=True)
