"""LoRA files of every naming that ACE-Step users have, and how they are added to a model and taken off again.

A file names pairs of thin matrices A [r, in] and B [out, r] for linear layers; the layer then computes
W x + strength * scale * B (A x), where scale = alpha/r (alpha/sqrt(r) for rank-stabilised files) and 1 where no alpha
is told. Known: DiffSynth (`.lora_A.default.`, bare names), PEFT (`base_model.model.`, alpha in adapter_config.json),
diffusers (`transformer.`, `to_q`, alpha in the file's metadata), ComfyUI and kohya (`diffusion_model.` or
`lora_unet_` with underscores, `lora_down`/`lora_up`, `.alpha` keys).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from punchin.engine.int8 import Int8Linear
from punchin.engine.model import AceStep
from punchin.protocol import limits
from punchin.protocol.errors import Refused

Layer = nn.Linear | Int8Linear

_PAIR: Final = re.compile(
    r"(?P<layer>.+)\.(?:lora_(?P<half>A|B|down|up)|lora\.(?P<old>down|up))(?:\.(?P<adapter>[\w-]+))?\.weight"
)
_ALPHA: Final = re.compile(r"(?P<layer>.+?)\.(?:lora_)?alpha")
_PREFIXES: Final = ("pipe.dit.", "base_model.model.", "transformer.", "diffusion_model.", "model.", "dit.", "decoder.")
_FLAT: Final = ("lora_unet_", "lora_transformer_", "lycoris_", "lora_")
_NAMES: Final = (
    (".to_q", ".q_proj"), (".to_k", ".k_proj"), (".to_v", ".v_proj"), (".to_out.0", ".o_proj"),
    ("_to_q", "_q_proj"), ("_to_k", "_k_proj"), ("_to_v", "_v_proj"), ("_to_out_0", "_o_proj"),
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Pair:
    """What is added to one linear layer: scale * up @ down."""

    down: Tensor  # A [r, in]
    up: Tensor  # B [out, r]
    scale: float


@dataclass(frozen=True, eq=False)
class Lora:
    """A LoRA file, read: pairs by the name of the layer in `AceStep`."""

    name: str
    pairs: Mapping[str, Pair]


def read_lora(path: str | Path, model: AceStep, name: str = "") -> Lora:
    """The LoRA in a safetensors file, or in a PEFT folder, fitted to `model` by names and shapes.

    name: what messages call it. Raises Refused: no such file, no LoRA in it, keys that no layer has, another width
    (with both), numbers that are none, and what is not LoRA (DoRA, LoKr, LoHa). Nothing is changed.
    """
    path = Path(path).expanduser()
    file = path / "adapter_model.safetensors" if path.is_dir() else path
    tensors, metadata = _read(file, name or str(file))
    name = name or path.stem
    halves, alphas, left = _sorted_keys(tensors)
    left += [f"{raw}.alpha" for raw in alphas.keys() - {raw for raw, _ in halves}]
    if left:
        raise Refused(f"{name} has keys that are no LoRA: {_some(left)}", code="lora")
    if not halves:
        raise Refused(f"{name} holds no LoRA", "give a file with lora_A/lora_B or lora_down/lora_up keys", code="lora")
    settings = _settings(file, metadata, name)
    layers = _layers(model)
    pairs: dict[str, Pair] = {}
    unknown: list[str] = []
    for (raw, _), sides in sorted(halves.items()):
        layer = _layer(raw, layers)
        if layer is None:
            unknown.append(raw)
            continue
        if len(sides) != 2:
            raise Refused(f"{name} has only one half for {raw}", code="lora")
        if layer in pairs:
            hint = "give one file for each LoRA"
            raise Refused(f"{name} has two pairs for {layer}, once as {raw}", hint, code="lora")
        down, up = _fitted(name, layer, sides, layers[layer])
        pairs[layer] = Pair(down, up, _scale(name, raw, len(down), alphas, settings))
    if unknown:
        raise Refused(f"{name} is for layers that this model does not have: {_some(unknown)}", code="lora")
    return Lora(name, pairs)


class Adapters:
    """The LoRAs of one model. `use` switches them in place; `fuse` writes them into the weights, `unfuse` undoes it.

    What is used without `fuse` leaves the weights alone and costs two thin products a layer; without any, the model
    computes as if there had never been one. `unfuse` puts the weights back as they were, bit by bit.
    """

    def __init__(self, model: AceStep, settle: Callable[[], None] = lambda: None) -> None:
        """`settle` is called before layers compute something else: it brings home weights that travel, and forgets."""
        self._layers = _layers(model)
        self._settle = settle
        self._used: tuple[tuple[Lora, float], ...] = ()
        self._hooks: list[RemovableHandle] = []
        self._originals: dict[str, Tensor] = {}

    @property
    def used(self) -> tuple[tuple[Lora, float], ...]:
        """The LoRAs in use with their strengths, in order."""
        return self._used

    def use(self, loras: Sequence[tuple[Lora, float]]) -> None:
        """From now on use exactly these. Fused ones are taken off first. Raises OverLimit for a strength."""
        for _, strength in loras:
            limits.LORA_STRENGTH.check(strength)
        self._settle()
        self.unfuse()
        self._remove_hooks()
        self._used = tuple(loras)
        for layer, parts in self._parts().items():
            self._hooks.append(self._layers[layer].register_forward_hook(_Adding(parts)))

    def fuse(self) -> None:
        """Write what is used into the weights, computed in float32. The originals are kept in memory. No int8."""
        parts = self._parts()
        if bad := [layer for layer in parts if not isinstance(self._layers[layer], nn.Linear)]:
            raise Refused(f"{bad[0]} is int8; LoRA is used beside it, not fused into it", code="lora")
        self._remove_hooks()
        self._settle()
        for layer, pairs in parts.items():
            weight = self._layers[layer].weight.data
            original = self._originals.setdefault(layer, weight.clone())
            fused = original.float()
            for down, up, scale in pairs:
                fused = fused + scale * (up.to(fused) @ down.to(fused))
            weight.copy_(fused)

    def unfuse(self) -> None:
        """Put the original weights back, if they were changed. What was fused is used no more."""
        if not self._originals:
            return
        self._settle()
        for layer, original in self._originals.items():
            self._layers[layer].weight.data.copy_(original)
        self._originals.clear()
        self._used = ()

    def _parts(self) -> dict[str, list[tuple[Tensor, Tensor, float]]]:
        parts: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
        for lora, strength in self._used:
            for layer, pair in lora.pairs.items():
                if strength:
                    parts.setdefault(layer, []).append((pair.down, pair.up, pair.scale * strength))
        return parts

    def _remove_hooks(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()


class _Adding:
    """A forward hook that adds pairs to a layer's output, in the type and on the device of what goes in."""

    def __init__(self, parts: list[tuple[Tensor, Tensor, float]]) -> None:
        self._parts = parts

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0]
        if any(half.dtype != x.dtype or half.device != x.device for part in self._parts for half in part[:2]):
            self._parts = [(down.to(x), up.to(x), scale) for down, up, scale in self._parts]
        for down, up, scale in self._parts:
            output = output + scale * nn.functional.linear(nn.functional.linear(x, down), up)
        return output


def _read(file: Path, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    if not file.is_file():
        hint = "name a .safetensors file, or a folder with adapter_model.safetensors"
        raise Refused(f"there is no LoRA file {file}", hint, code="lora")
    try:
        with safe_open(file, framework="pt") as opened:
            keys = list(opened.keys())
            return {key: opened.get_tensor(key) for key in keys}, dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        hint = "if it was one, it is cut short: copy it again"
        raise Refused(f"{name} is no safetensors file: {error}", hint, code="lora") from error


def _sorted_keys(
    tensors: Mapping[str, Tensor],
) -> tuple[dict[tuple[str, str], dict[str, Tensor]], dict[str, float], list[str]]:
    """Both halves by layer and adapter, alphas by layer, and the keys that are neither."""
    halves: dict[tuple[str, str], dict[str, Tensor]] = {}
    alphas: dict[str, float] = {}
    left: list[str] = []
    for key, tensor in tensors.items():
        if found := _PAIR.fullmatch(key):
            side = {"A": "down", "B": "up"}.get(found["half"] or "", found["half"] or found["old"])
            halves.setdefault((found["layer"], found["adapter"] or ""), {})[side] = tensor
        elif (found := _ALPHA.fullmatch(key)) and tensor.numel() == 1:
            alphas[found["layer"]] = float(tensor)
        else:
            left.append(key)
    return halves, alphas, left


def _settings(file: Path, metadata: Mapping[str, str], name: str) -> dict[str, Any]:
    """alpha, r and their kin as PEFT calls them: from adapter_config.json beside the file, else from its metadata."""
    config = file.with_name("adapter_config.json")
    try:
        if config.is_file():
            found = json.loads(config.read_text())
        elif "lora_adapter_metadata" in metadata:
            found = json.loads(metadata["lora_adapter_metadata"])
        else:
            found = {key: json.loads(metadata[key]) for key in ("lora_alpha", "r", "use_rslora") if key in metadata}
            if "ss_network_alpha" in metadata:  # kohya's, which also puts it beside each pair
                found.setdefault("lora_alpha", json.loads(metadata["ss_network_alpha"]))
    except ValueError as error:
        raise Refused(f"the settings of {name} are not JSON: {error}", code="lora") from error
    if not isinstance(found, dict):
        raise Refused(f"the settings of {name} are no JSON object", code="lora")
    found = {key.rpartition(".")[2]: value for key, value in found.items()}  # diffusers: the component's name before it
    if found.get("use_dora"):
        raise Refused(f"{name} is a DoRA; only LoRA can be used", code="lora")
    return found


def _scale(name: str, raw: str, rank: int, alphas: Mapping[str, float], settings: Mapping[str, Any]) -> float:
    alpha: Any = alphas.get(raw)
    if alpha is None:
        patterns: Mapping[str, float] = settings.get("alpha_pattern") or {}
        own = (value for pattern, value in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", raw))
        alpha = next(own, settings.get("lora_alpha"))
    if alpha is None:
        return 1.0
    try:
        scale = float(alpha) / (rank**0.5 if settings.get("use_rslora") else rank)
    except (TypeError, ValueError):
        scale = math.nan
    if not math.isfinite(scale):
        raise Refused(f"{name} has alpha {alpha!r} for {raw}, and it must be a number", code="lora")
    return scale


def _layers(model: AceStep) -> dict[str, Layer]:
    """Every linear layer by its full name. The names are the released keys without `.weight`."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Layer)}


def _layer(raw: str, layers: Mapping[str, Layer]) -> str | None:
    """The layer that a file calls `raw`: of the DiT unless it names another part, None where there is no such one."""
    name = raw
    stripped = True
    while stripped:
        if name in layers:
            return name
        stripped = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), "") != ""
        name = next((name.removeprefix(prefix) for prefix in _PREFIXES if name.startswith(prefix)), name)
    flat = next((name.removeprefix(prefix) for prefix in _FLAT if name.startswith(prefix)), None)
    for theirs, ours in _NAMES:
        name = name.replace(theirs, ours)
        flat = None if flat is None else flat.replace(theirs, ours)
    if flat is not None:
        flat = flat.removeprefix("decoder_")
        return next((each for each in layers if each.removeprefix("decoder.").replace(".", "_") == flat), None)
    return next((each for each in (name, f"decoder.{name}") if each in layers), None)


def _fitted(name: str, layer: str, sides: Mapping[str, Tensor], linear: Layer) -> tuple[Tensor, Tensor]:
    """Both halves, A and B, where they are a pair for the layer."""
    down, up = sides["down"], sides["up"]
    if down.ndim != 2 or up.ndim != 2 or down.shape[0] != up.shape[1] or not len(down):
        raise Refused(
            f"{name} has {list(down.shape)} and {list(up.shape)} for {layer}, no pair of one rank", code="lora"
        )
    if not down.is_floating_point() or not up.is_floating_point():
        raise Refused(f"{name} has whole numbers for {layer}, and only LoRA in floats can be used", code="lora")
    for word, theirs, ours in (
        ("inputs", down.shape[1], linear.in_features),
        ("outputs", up.shape[0], linear.out_features),
    ):
        if theirs != ours:
            hint = "a LoRA fits only the size of model it was made for (2B or XL)"
            raise Refused(f"{name} has {theirs} {word} for {layer}, the model has {ours}", hint, code="lora")
    if not bool(down.float().isfinite().all()) or not bool(up.float().isfinite().all()):  # 8-bit floats ask for it
        raise Refused(f"{name} has numbers that are not finite for {layer}", code="lora")
    return down, up


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - 4} more" if len(keys) > 4 else ""
    return ", ".join(sorted(keys)[:4]) + more
