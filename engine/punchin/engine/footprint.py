"""How much memory a computation takes, found without doing it: the real code runs on the meta device and is watched.

Tensors on the meta device have shapes and lifetimes but no bytes. Counting what lives after each operation gives the
peak that the same code has on a real device, in milliseconds and at any size. What kernels take for themselves inside
an operation is not seen; attention is taken to be a fused one, which keeps no table of scores.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from punchin.engine.codec import DECODE_TILE, ENCODE_TILE
from punchin.engine.fastvae import FastVae
from punchin.engine.model import AceStep
from punchin.engine.spec import Spec, VaeSpec
from punchin.engine.tiles import encode_margin
from punchin.engine.vae import Vae


class Live(TorchDispatchMode):
    """Watches operations: `peak_bytes` is the most that tensors made under it held at once."""

    def __init__(self, ignored: nn.Module | None = None) -> None:
        super().__init__()
        self.peak_bytes = 0
        self._held: dict[int, tuple[StorageWeakRef, int]] = {}
        self._ignored = {_storage(p)._cdata for p in ignored.parameters()} if ignored is not None else set[int]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_iter(result):
            if isinstance(tensor, Tensor):
                storage = _storage(tensor)
                if storage._cdata not in self._ignored:
                    self._held[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self._held = {key: held for key, held in self._held.items() if not held[0].expired()}
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        return result

    @property
    def live_bytes(self) -> int:
        """What lives now."""
        return sum(size for _, size in self._held.values())


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return tensor.untyped_storage()


class _FusedAttention(TorchFunctionMode):
    """On the meta device attention would be taken apart into products that hold a table of scores; no device does."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


@contextmanager
def watched(module: nn.Module) -> Iterator[Live]:
    """Count what the code inside makes, beside the parameters of `module`."""
    with torch.no_grad(), _FusedAttention(), Live(module) as live:
        yield live


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be made: the window in latent frames, the condition's length in tokens, and sizes of tiles."""

    latents: int
    tokens: int = 512
    lyric_tokens: int = 512
    reference_latents: int = 750
    decode_tile: int = DECODE_TILE
    encode_tile: int = ENCODE_TILE


@dataclass(frozen=True, slots=True, kw_only=True)
class Activations:
    """The most bytes each stage holds beside weights. `kept`: keys and values, which all steps hold."""

    words: int
    listening: int  # the VAE's encoder
    codes: int
    diffusing: int  # `kept` included
    decoding: int


def activations(spec: Spec, vae_spec: VaeSpec, dtype: torch.dtype, work: Work) -> Activations:
    """The activations of each stage of a request, by running it on the meta device with all layers but two left out."""
    lean = replace(
        spec,
        dit=replace(spec.dit, layers=2),
        condition=replace(spec.condition, lyric_layers=2, timbre_layers=2),
    )
    with torch.device("meta"):
        model, vae = AceStep(lean).to(dtype), Vae(vae_spec).to(dtype)
        fast = FastVae(vae)
        return Activations(
            words=_words(model, dtype, work),
            listening=_listening(fast, work),
            codes=_peak(model, lambda: _codes(model, work)),
            diffusing=_diffusing(model, spec.dit.layers, work),
            decoding=_decoding(fast, work),
        )


def _peak(module: nn.Module, run: Callable[[], object]) -> int:
    with watched(module) as live:
        held = run()
    del held
    return live.peak_bytes


def _words(model: AceStep, dtype: torch.dtype, work: Work) -> int:
    width, channels = model.spec.condition.text_width, model.spec.condition.timbre_channels
    lyrics = torch.empty(1, work.lyric_tokens, width, dtype=dtype)
    clip = torch.empty(1, work.reference_latents, channels, dtype=dtype)
    timbre = _peak(model, lambda: model.encoder.timbre_encoder.layers(model.encoder.timbre_encoder.embed_tokens(clip)))
    words = _peak(model, lambda: model.encoder.lyric_encoder.layers(model.encoder.lyric_encoder.embed_tokens(lyrics)))
    states = torch.empty(1, work.tokens, model.spec.condition.block.width, dtype=dtype)
    return max(words, timbre) + 2 * states.nbytes


def _listening(vae: FastVae, work: Work) -> int:
    audio = torch.empty(1, vae.spec.audio_channels, work.latents * vae.spec.hop)
    tile = audio[..., : (work.encode_tile + 2 * encode_margin(vae.spec)) * vae.spec.hop]
    return _peak(vae, lambda: vae.mean_and_scale(tile)) + audio.nbytes


def _codes(model: AceStep, work: Work) -> object:
    spec = model.spec.tokenizer
    groups = -(-work.latents // spec.pool)
    frames = torch.empty(1, groups, spec.pool, spec.block.width, dtype=model.null_condition_emb.dtype)
    return model.detokenizer(model.tokenizer.attention_pooler(frames))  # the quantizer's six numbers are nothing


def _diffusing(model: AceStep, layers: int, work: Work) -> int:
    dit, channels = model.decoder, model.spec.dit.latent_channels
    condition = torch.empty(1, work.tokens, model.spec.dit.condition_width, dtype=dit.scale_shift_table.dtype)
    prepared = dit.prepare(condition)
    kept = sum(each.nbytes for pair in prepared.layers for each in pair) * layers // len(prepared.layers)
    x, context = torch.empty(1, work.latents, channels), torch.empty(1, work.latents, 2 * channels)
    modulation = dit.modulation(torch.empty(1))
    step = _peak(model, lambda: dit.steered(x, modulation, context, prepared))
    return kept + step + 3 * x.nbytes + context.nbytes


def _decoding(vae: FastVae, work: Work) -> int:
    latent = torch.empty(1, work.latents, vae.spec.latent_channels)
    size = min(work.decode_tile, work.latents)
    start = (work.latents - size) // 2

    def tile() -> object:
        return next(vae.decode_tiles(latent, start, start + size, size))

    return _peak(vae, tile) + latent.nbytes
