"""Which model a job gets that names none, and which models are here."""

from __future__ import annotations

from pathlib import Path

from punchin.protocol import home
from punchin.protocol.errors import Refused
from punchin.protocol.models import BY_NAME, MODELS, Model

FALLBACK = "punchin-tiny"  # comes with the package
ALWAYS_HERE = frozenset({"tiny", "identity"})


def check(name: str) -> None:
    """Raises Refused (`unknown_model`, `model_missing`) unless jobs can be made with this model; "" is any."""
    if not name:
        return
    if name not in BY_NAME:
        known = ", ".join(BY_NAME)
        raise Refused(f'there is no model "{name}"; there are {known}', "punchin models list", "unknown_model")
    model = BY_NAME[name]
    if not is_installed(model, home.models()):
        size = f"{model.size_bytes / 1e9:.1f} GB"
        raise Refused(f"model {name} is not installed ({size})", f"punchin models pull {name}", "model_missing")


def choose(device: str, total_bytes: int) -> str:
    """The largest installed released model whose weights fit the device, turbo ones first; else the bundled one.

    total_bytes 0: the worker could not tell, and its memory plan decides.
    """
    here = [model for model in MODELS if model.family not in ALWAYS_HERE and is_installed(model, home.models())]
    double = 2 if device.startswith("cpu") else 1  # float32 there
    fitting = [model for model in here if not total_bytes or model.size_bytes * double <= total_bytes]
    return max(fitting, key=lambda model: (model.turbo, model.family == "xl"), default=BY_NAME[FALLBACK]).name


def is_installed(model: Model, root: Path) -> bool:
    """Whether a model can be loaded: it comes with the package, or its folder holds a config and weights."""
    if model.family in ALWAYS_HERE:
        return True
    places = [root / model.folder, *root.glob(f"*/{model.folder}")]
    return any((place / "config.json").is_file() and any(place.glob("*.safetensors")) for place in places)
