"""What a training leaves: checkpoints under the names that other programs look for, sample takes, a history."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig
from safetensors.torch import save as serialised
from torch import Tensor

from punchin.engine import released
from punchin.engine.model import AceStep
from punchin.engine.released import UNTRAINED, Folders, read_json
from punchin.engine.spec import Spec
from punchin.engine.weights import open_checkpoint
from punchin.protocol import installed
from punchin.protocol.errors import Refused
from punchin.training import adapters, state
from punchin.training.settings import COMPONENTS, Settings, differing, out

STATE: Final = "training-state.safetensors"
HISTORY: Final = "history.json"


def check(settings: Settings) -> None:
    """Raise Refused where another training's state or checkpoints are in the way: nothing is overwritten."""
    folder = out(settings)
    if folder.exists() and not folder.is_dir():
        raise Refused(f"{folder} is no folder", "give another output_path", code="conflict")
    if (folder / STATE).exists():
        told, now = state.facts_of(folder / STATE).get("settings", {}), settings.fixed()
        now.pop("model")  # a state knows it by its weights, which are not read yet
        check_same(folder, {name: told.get(name) for name in now}, now)
        return
    found = sorted(path.name for path in folder.glob("*") if path.name.startswith(("step-", "epoch-")))
    if found:
        raise Refused(
            f"{folder} holds {found[0]} but no {STATE} to go on from",
            "give another output_path, or move them away",
            code="conflict",
        )


def check_same(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise Refused where the training in `folder` was told other things than are told now."""
    if changed := differing(before, now):
        raise Refused(
            f"{folder} holds a training with other settings: {'; '.join(changed[:4])}",
            "give the same settings to go on, or another output_path",
            code="conflict",
        )


def sweep(settings: Settings) -> None:
    """Remove what a killed training had half written, in the folders of its checkpoints too."""
    for pattern in (".*.safetensors-*", ".*.json-*", "step-*/**/.*.*-*", "epoch-*/**/.*.*-*"):
        for left in out(settings).glob(pattern):
            left.unlink(missing_ok=True)


def write(
    settings: Settings,
    stem: str,
    model: AceStep,
    config: LoraConfig | None,
    weights: Mapping[str, Tensor],
    base: Folders,
) -> None:
    """One checkpoint, `output_path/stem...`. weights: what was trained, by its name in the `AceStep`."""
    folder = out(settings)
    if config is not None:
        bare = {name.removeprefix("decoder."): each for name, each in weights.items()}
        adapters.write(folder, stem, bare, config, settings, str(base.dit))
        return
    forms = {"diffsynth": _diffsynth, "diffusers": _diffusers, "punchin": _punchin}
    for form in settings.formats:
        forms[form](settings, folder, stem, model, weights, base)


def _diffsynth(
    settings: Settings, folder: Path, stem: str, _: AceStep, weights: Mapping[str, Tensor], __: Folders
) -> None:
    """Bare DiT keys; with more components than one, each with its `pipe.NAME.` but the removed prefix."""
    tensors = {
        pipe_name(name).removeprefix(settings.remove_prefix_in_ckpt): _half(each) for name, each in weights.items()
    }
    state.write_bytes(folder / f"{stem}.safetensors", serialised(tensors, {"format": "pt"}))


def pipe_name(name: str) -> str:
    """A key of `AceStep` as DiffSynth's pipeline calls it: `pipe.dit.` or `pipe.conditioner.` before its name."""
    head, _, rest = name.partition(".")
    if name == "null_condition_emb":
        return f"pipe.conditioner.{name}"
    theirs = next((theirs for theirs, ours in COMPONENTS.items() if ours == head), None)
    return f"pipe.{theirs}.{rest}" if theirs in ("dit", "conditioner") else f"pipe.tokenizer_model.{name}"


def _diffusers(
    settings: Settings, folder: Path, stem: str, model: AceStep, weights: Mapping[str, Tensor], base: Folders
) -> None:
    """The DiT as diffusers' transformer folder."""
    whole = _of_decoder(_whole(model, weights, base))
    tensors = {adapters.diffusers_name(name): _half(each) for name, each in whole.items()}
    place = folder / f"{stem}-diffusers" / "transformer"
    state.write_bytes(place / "config.json", json.dumps(diffusers_config(read_json(base.dit / "config.json"))).encode())
    state.write_bytes(place / "diffusion_pytorch_model.safetensors", serialised(tensors, {"format": "pt"}))


def diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """What diffusers' AceStepTransformer1DModel calls the numbers of a released config."""
    same = (
        "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
        "head_dim", "in_channels", "audio_acoustic_hidden_dim", "patch_size", "rope_theta", "rms_norm_eps",
        "sliding_window", "is_turbo", "model_version",
    )  # fmt: skip
    told = {name: config[name] for name in same if config.get(name) is not None}
    told["encoder_hidden_size"] = config.get("encoder_hidden_size") or config["hidden_size"]
    return {"_class_name": "AceStepTransformer1DModel", **told}


def _punchin(
    settings: Settings, folder: Path, stem: str, model: AceStep, weights: Mapping[str, Tensor], base: Folders
) -> None:
    """A model folder in the released layout; VAE and text encoder are shared with its base."""
    whole = {name: _half(each) for name, each in _whole(model, weights, base).items()}
    place = folder / f"{stem}-punchin"
    state.write_bytes(place / "model.safetensors", serialised(whole, {"format": "pt"}))
    state.write_bytes(place / "silence_latent.pt", (base.dit / "silence_latent.pt").read_bytes())
    config = read_json(base.dit / "config.json")
    was = released.variant(base.dit, Spec.from_config(config))
    config |= {UNTRAINED: True, installed.LIKE: was.like or was.name}  # its new folder's name tells that no more
    state.write_bytes(place / "config.json", json.dumps(config, indent=2).encode())


def write_history(settings: Settings, history: Mapping[str, Any]) -> None:
    """Losses by step, as JSON."""
    state.write_bytes(out(settings) / HISTORY, json.dumps(history, indent=1).encode())


def _whole(model: AceStep, weights: Mapping[str, Tensor], base: Folders) -> dict[str, Tensor]:
    """Every weight of the model: what `fp8_models` keeps in 8 bits is as it was before, from the base's files."""
    whole = {**model.state_dict(), **weights}
    coarse = [name for name, each in whole.items() if each.dtype == adapters.EIGHTH]
    return whole | open_checkpoint(base.dit).read(coarse, lambda each: each)


def _of_decoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("decoder."): each for name, each in weights.items() if name.startswith("decoder.")}


def _half(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.bfloat16).contiguous()
