"""Which model a job gets that names none, and which models are here."""

from __future__ import annotations

from punchin.protocol import installed
from punchin.protocol.errors import Refused
from punchin.protocol.models import BY_NAME, MODELS

FALLBACK = "punchin-tiny"  # comes with the package


def check(name: str) -> None:
    """Raises Refused (`unknown_model`, `model_missing`) unless jobs can be made with this model; "" is any."""
    if not name:
        return
    if name not in BY_NAME:
        known = ", ".join(BY_NAME)
        raise Refused(f'there is no model "{name}"; there are {known}', "punchin models list", "unknown_model")
    model = BY_NAME[name]
    if not installed.is_here(model):
        size = f"{model.size_bytes / 1e9:.1f} GB"
        raise Refused(f"model {name} is not installed ({size})", f"punchin models pull {name}", "model_missing")


def choose(device: str, total_bytes: int) -> str:
    """The largest installed released model whose weights fit the device, turbo ones first; else the bundled one.

    total_bytes 0: the worker could not tell, and its memory plan decides.
    """
    here = [model for model in MODELS if model.family not in installed.WITH_THE_PACKAGE and installed.is_here(model)]
    double = 2 if device.startswith("cpu") else 1  # float32 there
    fitting = [model for model in here if not total_bytes or model.size_bytes * double <= total_bytes]
    return max(fitting, key=lambda model: (model.turbo, model.family == "xl"), default=BY_NAME[FALLBACK]).name
