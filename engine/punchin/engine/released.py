"""A model's folder as it was released: which files belong together, read into modules.

`acestep-v15-turbo/` (config.json, model.safetensors or shards, silence_latent.pt) stands beside `vae/` and
`Qwen3-Embedding-0.6B/` in the main repository; the other repositories hold the first alone and borrow the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from punchin.engine import weights
from punchin.engine.fastvae import FastVae
from punchin.engine.model import AceStep
from punchin.engine.placement import Placement, Sizes, Wish, place
from punchin.engine.shelf import Shelf, shelve
from punchin.engine.spec import BadSpec, Spec, VaeSpec, read_json
from punchin.engine.takes import Report
from punchin.engine.text import TextEncoder, empty_encoder
from punchin.engine.vae import Vae
from punchin.engine.weights import Checkpoint
from punchin.protocol.errors import Refused
from punchin.protocol.limits import HOP, MODEL_HZ
from punchin.protocol.models import MODELS, Model

MAIN: Final = "Ace-Step1.5"  # the repository that holds the shared parts
VAE: Final = "vae"
TEXT: Final = "Qwen3-Embedding-0.6B"
VAE_STEM: Final = "diffusion_pytorch_model"  # of the VAE's weight files
UNTRAINED: Final = "punchin_trained"  # config.json: false where the weights are random


@dataclass(frozen=True)
class Folders:
    """Where the three parts of a model are."""

    dit: Path
    vae: Path
    text: Path


@dataclass(frozen=True, eq=False)
class Loaded:
    """A model in memory: modules in eval mode, what they are called, and whether anyone trained them."""

    model: AceStep
    vae: FastVae
    text: TextEncoder
    silence: Tensor  # [1, T, C] float32, on the device
    variant: Model
    trained: bool
    folders: Folders
    placement: Placement
    shelf: Shelf | None  # what carries out the placement's plan
    sha256: str  # of the DiT's keys, shapes and bytes

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.placement.device

    @property
    def dtype(self) -> torch.dtype:
        """In which type it computes."""
        return self.placement.dtype


@dataclass(frozen=True, eq=False)
class Unread:
    """A model whose files fit their configs, before any of its weights is read: its modules are on the meta device."""

    spec: Spec
    vae_spec: VaeSpec
    model: AceStep
    vae: Vae
    text: TextEncoder
    silence: Tensor  # [1, T, C] float32
    checkpoints: tuple[Checkpoint, Checkpoint, Checkpoint]  # of model, VAE and text encoder


def folders(folder: str | Path, shared: str | Path | None = None) -> Folders:
    """The parts of the model in `folder`: a DiT's folder, or a repository with a single one in it.

    VAE and text encoder are looked for in the folder itself, beside it, in `shared`, and in an `Ace-Step1.5` beside
    it. Refused (code `model_missing`) with what is missing and where it was looked for.
    """
    dit = dit_folder(Path(folder).expanduser())
    places = [dit, dit.parent, *([Path(shared).expanduser()] if shared else []), dit.parent / MAIN]
    places += [dit.parent.parent / MAIN]
    found = {part: next((place / part for place in places if (place / part).is_dir()), None) for part in (VAE, TEXT)}
    missing = [part for part, place in found.items() if place is None]
    if missing:
        raise Refused(
            f"{dit} has no {' and no '.join(missing)}; looked in {', '.join(map(str, dict.fromkeys(places)))}",
            "`punchin models pull turbo` brings them; or pass their folder as `shared`",
            code="model_missing",
        )
    return Folders(dit, *(place for place in found.values() if place is not None))


def dit_folder(folder: Path) -> Path:
    """`folder` itself if it holds a DiT, or the only folder in it that does. Refused (`model_missing`)."""
    if not folder.is_dir():
        raise Refused(f"there is no model folder {folder}", "`punchin models pull turbo`", code="model_missing")
    if (folder / "config.json").is_file():
        return folder
    inside = [path.parent for path in sorted(folder.glob("*/silence_latent.pt"))]
    if len(inside) == 1:
        return inside[0]
    what = f"several: {', '.join(path.name for path in inside)}" if inside else "none with a silence_latent.pt"
    raise Refused(f"{folder} is no model: it has no config.json, and of folders {what}", code="model_missing")


def variant(dit: Path, spec: Spec) -> Model:
    """What the folder's name says of the model; under an unknown name it is somebody's own."""
    named = next((model for model in MODELS if model.folder and model.folder == dit.name), None)
    return like(spec).own(dit.name, dit.name) if named is None else named


def like(spec: Spec) -> Model:
    """The known model that one of somebody's own is like.

    Of its size, the one that its config names (`punchin_like`, else `model_version`), else turbo or base as `is_turbo`
    says.
    """
    family = "tiny" if spec.version == "tiny" else "xl" if spec.condition.timbre_cls else "2b"
    sized = [model for model in MODELS if model.family == family]
    for said in (spec.like, spec.version):  # a training writes the first and keeps its base's second
        for model in sized:
            if model.name in (said, f"xl-{said}"):
                return model
    return next(iter([*(model for model in sized if model.turbo == spec.is_turbo), *sized]))


def skeleton(folder: str | Path) -> AceStep:
    """The modules of the model in `folder` with names and shapes alone, on the meta device. Raises Refused."""
    spec = Spec.from_config(read_json(folders(folder).dit / "config.json"))
    with torch.device("meta"):
        return AceStep(spec)


def load(
    folder: str | Path,
    shared: str | Path | None = None,
    wish: Wish | None = None,
    report: Report = lambda phase, done, total: None,
) -> Loaded:
    """The model in `folder`, every shape compared with its config before memory is taken. Raises Refused."""
    where = folders(folder, shared)
    new = unread(where)
    spec, model, text = new.spec, new.model, new.text
    sizes = Sizes(spec, new.vae_spec, _numbers(text), sum(map(_numbers, (model, new.vae, text))))
    placed = place(sizes, wish or Wish())
    parts = list(zip(new.checkpoints, (model, new.vae, text.model), strict=True))
    for done, (checkpoint, module) in enumerate(parts):
        report("loading model", done, len(parts))
        weights.load(checkpoint, {"": module}, "cpu" if placed.plan else placed.device, placed.dtype)
    report("loading model", len(parts), len(parts))
    fast = FastVae(new.vae)
    return Loaded(
        model=model,
        vae=fast,
        text=text.to("cpu" if placed.plan else placed.device),
        silence=new.silence.to(placed.device),
        variant=variant(where.dit, spec),
        trained=read_json(where.dit / "config.json").get(UNTRAINED) is not False,
        folders=where,
        placement=placed,
        shelf=None if placed.plan is None else shelve(placed.plan, model, fast, text.model, placed.device),
        sha256=weights.fingerprint(new.checkpoints[0]),
    )


def unread(where: Folders) -> Unread:
    """The model in three folders, without its weights. Raises Refused where configs, names or shapes do not fit."""
    spec = Spec.from_config(read_json(where.dit / "config.json"))
    vae_spec = VaeSpec.from_config(read_json(where.vae / "config.json"))
    _check_specs(spec, vae_spec)
    text = empty_encoder(where.text)
    if text.width != spec.condition.text_width:
        raise BadSpec(f"the text encoder is {text.width} wide, the model expects {spec.condition.text_width}")
    with torch.device("meta"):
        model, vae = AceStep(spec), Vae(vae_spec)
    checkpoints = (
        weights.open_checkpoint(where.dit),
        weights.open_checkpoint(where.vae, VAE_STEM),
        weights.open_checkpoint(where.text),
    )
    for checkpoint, module in zip(checkpoints, (model, vae, text.model), strict=True):
        weights.check(checkpoint, {"": module})
    silence = weights.silence(where.dit, spec.dit.latent_channels)
    return Unread(spec, vae_spec, model, vae, text, silence, checkpoints)


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _check_specs(spec: Spec, vae: VaeSpec) -> None:
    for name, value, expected in (
        ("the VAE's hop", vae.hop, HOP),
        ("the VAE's rate", vae.rate_hz, MODEL_HZ),
        ("the VAE's audio channels", vae.audio_channels, 2),
        ("the VAE's latent channels", vae.latent_channels, spec.dit.latent_channels),
    ):
        if value != expected:
            raise BadSpec(f"{name} is {value}, the model needs {expected}")
