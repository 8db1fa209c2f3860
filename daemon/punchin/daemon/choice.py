"""Which model a job gets that names none, and which models are here."""

from __future__ import annotations

from punchin.protocol import installed
from punchin.protocol.errors import Refused
from punchin.protocol.link import Ready
from punchin.protocol.models import BY_NAME, MODELS
from punchin.protocol.order import Task

FALLBACK = "punchin-tiny"  # comes with the package


def check(name: str, task: Task) -> None:
    """Raises Refused (`unknown_model`, `model_missing`, `task`) unless this model can do the task; "" is any model."""
    if not name:
        return
    model = installed.named(name)
    model.check(task)
    if not installed.is_here(model):
        size = f"{installed.to_fetch_bytes(model) / 1e9:.1f} GB"
        raise Refused(f"model {name} is not installed ({size})", f"punchin models pull {name}", "model_missing")


def choose(there: Ready | None, task: Task) -> str:
    """The largest installed released model that knows the task and whose weights fit the device, turbo ones first.

    Where none fits whole, a GPU takes the smallest with its parts in turns; else it is the bundled one.
    there: what the worker has; where it could not tell how much, its memory plan decides.
    """
    able = [
        model
        for model in MODELS
        if model.name not in installed.WITH_THE_PACKAGE and installed.is_here(model) and model.knows(task)
    ]
    if there is None or not there.total_bytes:
        fitting = able
    else:
        on_cpu = there.device.startswith("cpu")
        room = there.total_bytes * 2 // 3 if on_cpu else there.total_bytes  # the rest is the DAW's, and the work's
        fitting = [model for model in able if model.size_bytes // 2 * there.weight_bytes <= room]
        if not fitting and not on_cpu:  # a CPU has nowhere else to put a part
            fitting = [model for model in able if model.least_memory_bytes <= there.total_bytes]
            fitting = [model for model in fitting if model.family != "xl"] or fitting
    return max(fitting, key=lambda model: (model.turbo, model.family == "xl"), default=BY_NAME[FALLBACK]).name
