"""LoRA on a model that is trained: put in by PEFT, filled from a file, written in the forms that others read.

DiffSynth-Studio's file has bare names with `.default.` and no alpha, so alpha/r is multiplied into B there; PEFT's
folder and diffusers' file carry alpha beside the weights.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save as serialised
from torch import Tensor, nn
from torch.nn.functional import linear

from punchin.engine.lora import Adapters, Lora, read_lora
from punchin.engine.model import AceStep
from punchin.protocol.errors import Refused
from punchin.training import state
from punchin.training.settings import Settings

ADAPTER: Final = "default"
EIGHTH: Final = torch.float8_e4m3fn  # in which frozen weights may be kept
TO_DIFFUSERS: Final = (
    (".q_proj.", ".to_q."), (".k_proj.", ".to_k."), (".v_proj.", ".to_v."), (".o_proj.", ".to_out.0."),
    (".q_norm.", ".norm_q."), (".k_norm.", ".norm_k."),
)  # fmt: skip


def add(model: AceStep, settings: Settings) -> LoraConfig:
    """Give the DiT its adapters, filled from `lora_checkpoint` where there is one; they alone are trained.

    Raises Refused for a checkpoint of another rank or of other layers.
    """
    decoder = model.decoder
    start = _start(model, settings)
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.alpha,  # type: ignore[arg-type]
        lora_dropout=settings.lora_dropout,
        target_modules=settings.targets,
    )
    model.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        inject_adapter_in_model(config, decoder, ADAPTER)
    wanted = getattr(torch, settings.param_dtype)
    for name, parameter in decoder.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.to(wanted)
    if start is not None:
        _fill(decoder, start, settings)
    return config


def check(model: AceStep, settings: Settings) -> None:
    """Raise Refused for a target that is no linear layer, and for a LoRA file that is not there or not of `model`.

    Layers and shapes are all that is looked at, so the model may be on the meta device.
    """
    if settings.preset_lora_path is not None:
        read_lora(settings.preset_lora_path, model)
    if settings.kind != "lora":
        return
    linears = [name for name, module in model.decoder.named_modules() if isinstance(module, nn.Linear)]
    for target in settings.targets:
        if not any(name == target or name.endswith(f".{target}") for name in linears):
            endings = sorted({name.rpartition(".")[2] for name in linears})
            raise Refused(
                f"lora_target_modules names {target!r}, which no layer has", f"there are {', '.join(endings)}"
            )
    _start(model, settings)


def _start(model: AceStep, settings: Settings) -> Lora | None:
    """The LoRA that training begins with. Raises Refused for another rank, or layers that are no targets."""
    if settings.lora_checkpoint is None:
        return None
    start = read_lora(settings.lora_checkpoint, model)
    for name, pair in start.pairs.items():
        own = name.removeprefix("decoder.")
        if not any(own == target or own.endswith(f".{target}") for target in settings.targets):
            raise Refused(
                f"{settings.lora_checkpoint} has weights for {name}, which lora_target_modules does not name",
                f"give `--lora_target_modules` with {name.rpartition('.')[2]}",
                code="lora",
            )
        if pair.down.shape[0] != settings.lora_rank:
            raise Refused(
                f"{settings.lora_checkpoint} has rank {pair.down.shape[0]}, lora_rank is {settings.lora_rank}",
                f"give `--lora_rank {pair.down.shape[0]}`",
                code="lora",
            )
    return start


@torch.no_grad()
def _fill(decoder: nn.Module, start: Lora, settings: Settings) -> None:
    """Begin with a LoRA's weights; what its scale differs from ours by goes into B."""
    layers = {name: module for name, module in decoder.named_modules() if isinstance(module, LoraLayer)}
    for name, pair in start.pairs.items():
        layer = layers[name.removeprefix("decoder.")]
        halves = {half: getattr(layer, half)[ADAPTER].weight for half in ("lora_A", "lora_B")}
        halves["lora_A"].copy_(pair.down)
        halves["lora_B"].copy_(pair.up.float() * (pair.scale / (settings.alpha / settings.lora_rank)))


def fuse_preset(model: AceStep, settings: Settings) -> None:
    """Write `preset_lora_path` into the weights, before anything is trained. Raises Refused where it does not fit."""
    if settings.preset_lora_path is None:
        return
    adapters = Adapters(model)
    adapters.use([(read_lora(settings.preset_lora_path, model), 1.0)])
    adapters.fuse()


def preset_sha256(settings: Settings) -> str:
    """What tells one preset LoRA from another under the same name; "" without one."""
    if settings.preset_lora_path is None:
        return ""
    path = Path(settings.preset_lora_path).expanduser()
    digest = hashlib.sha256()
    for file in sorted(path.glob("adapter_*")) if path.is_dir() else [path]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def trained(decoder: nn.Module) -> dict[str, Tensor]:
    """The adapters' weights by their names in the DiT: `layers.0.self_attn.q_proj.lora_A.default.weight`."""
    return {name: p.detach() for name, p in decoder.named_parameters() if "lora_" in name}


def write(
    folder: Path, stem: str, weights: Mapping[str, Tensor], config: LoraConfig, settings: Settings, base: str
) -> None:
    """Write adapters in each of `save_formats`, as `folder/stem...`. Raises PunchinError where the disk refuses."""
    forms = {"diffsynth": _diffsynth, "peft": _peft, "diffusers": _diffusers}
    for form in settings.formats:
        forms[form](folder, stem, weights, config, settings, base)


def _diffsynth(
    folder: Path, stem: str, weights: Mapping[str, Tensor], _: LoraConfig, settings: Settings, __: str
) -> None:
    scale = settings.alpha / settings.lora_rank
    tensors = {
        f"pipe.dit.{name}".removeprefix(settings.remove_prefix_in_ckpt): _half(
            each * scale if ".lora_B." in name else each
        )
        for name, each in weights.items()
    }
    state.write_bytes(folder / f"{stem}.safetensors", serialised(tensors, {"format": "pt"}))


def _peft(folder: Path, stem: str, weights: Mapping[str, Tensor], config: LoraConfig, _: Settings, base: str) -> None:
    tensors = {f"base_model.model.{_bare(name)}": _half(each) for name, each in weights.items()}
    place = folder / f"{stem}-peft"
    state.write_bytes(place / "adapter_model.safetensors", serialised(tensors, {"format": "pt"}))
    told: dict[str, Any] = {**config.to_dict(), "base_model_name_or_path": base, "inference_mode": True}
    text = json.dumps(told, indent=2, sort_keys=True, default=lambda value: sorted(value))
    state.write_bytes(place / "adapter_config.json", text.encode())


def _diffusers(
    folder: Path, stem: str, weights: Mapping[str, Tensor], config: LoraConfig, _: Settings, __: str
) -> None:
    tensors = {f"transformer.{diffusers_name(_bare(name))}": _half(each) for name, each in weights.items()}
    targets = sorted({diffusers_name(f".{each}.").strip(".") for each in config.target_modules or ()})
    told = {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": targets}
    about = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in told.items()})}
    data = serialised(tensors, {"format": "pt", **about})
    state.write_bytes(folder / f"{stem}-diffusers" / "pytorch_lora_weights.safetensors", data)


def diffusers_name(name: str) -> str:
    """A DiT's key as diffusers calls it."""
    for ours, theirs in TO_DIFFUSERS:
        name = name.replace(ours, theirs)
    return name.replace("proj_in.1.", "proj_in_conv.").replace("proj_out.1.", "proj_out_conv.")


def _bare(name: str) -> str:
    return name.replace(f".{ADAPTER}.", ".")


def _half(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", torch.bfloat16).contiguous()


class Eighths(nn.Linear):
    """A frozen linear layer kept in 8-bit floats (e4m3) and computed in the type of what comes in."""

    def forward(self, input: Tensor) -> Tensor:
        """As nn.Linear."""
        return linear(input, self.weight.to(input.dtype), None if self.bias is None else self.bias.to(input.dtype))


def halve(module: nn.Module) -> int:
    """Keep the frozen linear layers of the transformer stacks below `module` in 8 bits; returns how many there were.

    Adapters are left alone, and so are the few layers outside the stacks, whose precision others look at.
    """
    count = 0
    for path, parent in [*module.named_modules()]:
        if "layers." not in f"{path}.":
            continue
        for name, child in [*parent.named_children()]:
            if type(child) is nn.Linear and not any(p.requires_grad for p in child.parameters()):
                setattr(parent, name, _eighths(child))
                count += 1
    return count


def _eighths(layer: nn.Linear) -> Eighths:
    kept = Eighths(1, 1, bias=False, device="meta")
    kept.in_features, kept.out_features = layer.in_features, layer.out_features
    kept.weight = nn.Parameter(layer.weight.to(EIGHTH), requires_grad=False)
    kept.bias = layer.bias
    return kept
