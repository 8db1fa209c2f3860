"""The model that is trained, all of it in memory: where its files are, and reading them.

A training keeps everything on one device and chooses the precision of each part, so it loads by itself instead of by
the plan that inference makes.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from punchin.engine import released, tiny, weights
from punchin.engine.fastvae import FastVae
from punchin.engine.model import AceStep
from punchin.engine.placement import Placement
from punchin.engine.released import Folders, Loaded, read_json
from punchin.engine.spec import BadSpec, Spec, VaeSpec
from punchin.engine.text import TextEncoder, empty_encoder, read_tokenizer
from punchin.engine.vae import Vae
from punchin.protocol import home, installed
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.models import BY_NAME
from punchin.training.settings import Settings

DEFAULT: Final = "base"  # DiffSynth's examples train it; turbo models are distilled and learn less well


@dataclass(frozen=True)
class Where:
    """The folders of the three parts, and what was named apart from them."""

    folders: Folders
    silence: Path
    tokenizer: Path


def where(settings: Settings) -> Where:
    """Where the model's parts are, by whichever option names them. Raises Refused with what is missing.

    A VAE and a text encoder that are not with the model, as with a full training's `punchin` output, are those of the
    known model that it is like.
    """
    given = [settings.model, settings.model_paths, settings.model_id_with_origin_paths]
    if sum(each is not None for each in given) > 1:
        raise BadUsage("model, model_paths and model_id_with_origin_paths are three ways to say one thing; give one")
    if settings.model_paths is not None:
        found = _by_kind(_paths(settings.model_paths))
    elif settings.model_id_with_origin_paths is not None:
        found = _by_kind([_origin(each) for each in settings.model_id_with_origin_paths.split(",")])
    else:
        dit = released.dit_folder(_named(settings.model or DEFAULT))
        found = released.folders(dit, _shared(dit))
    silence, tokenizer = settings.silence_latent_path, settings.tokenizer_path
    return Where(
        found,
        _part(silence) if silence else found.dit,
        _part(tokenizer) if tokenizer else found.text,
    )


def _named(model: str) -> Path:
    if model == tiny.NAME:
        return tiny.ready()
    known = installed.every().get(model)
    if known is None:
        return Path(model).expanduser()
    place = installed.folder(known)
    if place is None:
        raise Refused(f"{model} is not installed", f"`punchin models pull {model}`", code="model_missing")
    return place


def _shared(dit: Path) -> Path | None:
    """Where a DiT's VAE and text encoder are that do not lie with it; None where they are not here.

    Of one like punchin-tiny with that, of the others in the installed main repository, which they share.
    """
    if released.like(Spec.from_config(read_json(dit / "config.json"))).family == "tiny":
        return tiny.ready().parent
    turbo = installed.folder(BY_NAME["turbo"])
    return None if turbo is None else turbo.parent


def _paths(given: str) -> list[Path]:
    """The files of `model_paths`: a JSON list of paths, or of lists of them."""
    try:
        listed = json.loads(given)
    except ValueError as error:
        raise BadUsage(f"model_paths is no JSON: {error}", "for example '[\"models/acestep-v15-base\"]'") from error
    every = [each for entry in (listed if isinstance(listed, list) else [listed])
             for each in (entry if isinstance(entry, list) else [entry])]  # fmt: skip
    if not every or not all(isinstance(each, str) for each in every):
        raise BadUsage(f"model_paths is {given}, and must be a JSON list of paths")
    return [_existing(Path(each).expanduser()) for each in every]


def _existing(path: Path) -> Path:
    if not path.exists():
        raise Refused(f"there is no {path}", code="model_missing")
    return path


def _part(given: str) -> Path:
    """A file or folder, or DiffSynth's `model_id:origin_pattern`."""
    path = Path(given).expanduser()
    return _origin(given) if ":" in given and not path.exists() else _existing(path)


def _origin(given: str) -> Path:
    """`ACE-Step/Ace-Step1.5:vae/` below the models folder or, as DiffSynth downloads, below ./models."""
    identity, _, pattern = given.partition(":")
    places = [home.models() / identity.rpartition("/")[2], Path("models") / identity]
    try:
        found = [path for place in places for path in sorted(place.glob(pattern.rstrip("/") or "*.safetensors"))]
    except (NotImplementedError, ValueError) as error:  # one that leaves the folder, or that pathlib does not know
        text = f"{given} is not here: {pattern!r} is no pattern of files in a model"
        raise Refused(text, "like ACE-Step/Ace-Step1.5:vae/", code="model_missing") from error
    if found:
        return found[0]
    looked = ", ".join(str(place / pattern) for place in places)
    raise Refused(f"{given} is not here; looked for {looked}", "`punchin models pull base`", code="model_missing")


def _by_kind(paths: Sequence[Path]) -> Folders:
    """Which part each path is, told by the `config.json` in its folder."""
    found: dict[str, Path] = {}
    for path in paths:
        folder = path if path.is_dir() else path.parent
        config = read_json(folder / "config.json")
        if "audio_acoustic_hidden_dim" in config:
            found["dit"] = folder
        elif "downsampling_ratios" in config:
            found["vae"] = folder
        elif config.get("model_type") == "qwen3":
            found["text"] = folder
        else:
            raise Refused(f"{folder} is neither DiT, VAE nor text encoder of ACE-Step", code="model_missing")
    if "dit" not in found:
        raise Refused(
            "no DiT is among the models named", "name a folder such as acestep-v15-base", code="model_missing"
        )
    if len(found) < 3:
        return replace(released.folders(found["dit"], _shared(found["dit"])), **found)
    return Folders(**found)


def outline(place: Where) -> AceStep:
    """The model's layers and their shapes, on the meta device: no weight is read."""
    with torch.device("meta"):
        return AceStep(Spec.from_config(read_json(place.folders.dit / "config.json")))


def text(place: Where) -> TextEncoder:
    """The text encoder with its tokenizer, its weights on the meta device: enough to count tokens."""
    encoder = empty_encoder(place.folders.text)
    if place.tokenizer == place.folders.text:
        return encoder
    return TextEncoder(encoder.model, read_tokenizer(place.tokenizer, encoder.model.config.vocab_size))


def load(place: Where, device: torch.device, dtype: torch.dtype, *, first_on_cpu: bool = False) -> Loaded:
    """The model in memory, frozen, in eval mode. Raises Refused where files and configuration do not fit.

    first_on_cpu: read there and moved, so that the device never holds a file's buffers beside the weights.
    """
    spec = Spec.from_config(read_json(place.folders.dit / "config.json"))
    vae_spec = VaeSpec.from_config(read_json(place.folders.vae / "config.json"))
    reader = text(place)
    if reader.width != spec.condition.text_width:
        raise BadSpec(f"the text encoder is {reader.width} wide, the model expects {spec.condition.text_width}")
    with torch.device("meta"):
        model, vae = AceStep(spec), Vae(vae_spec)
    checkpoint = weights.open_checkpoint(place.folders.dit)
    to = torch.device("cpu") if first_on_cpu else device
    weights.load(checkpoint, {"": model}, to, dtype)
    weights.load(weights.open_checkpoint(place.folders.vae, "diffusion_pytorch_model"), {"": vae}, to, dtype)
    weights.load(weights.open_checkpoint(place.folders.text), {"": reader.model}, to, dtype)
    return Loaded(
        model=model.to(device),
        vae=FastVae(vae.to(device)),
        text=reader.to(device),
        silence=_silence(place, spec).to(device),
        variant=released.variant(place.folders.dit, spec),
        trained=True,
        folders=place.folders,
        placement=Placement(device, dtype),
        shelf=None,
        sha256=weights.fingerprint(checkpoint),
    )


def _silence(place: Where, spec: Spec) -> Tensor:
    return weights.silence(place.silence, spec.dit.latent_channels)
