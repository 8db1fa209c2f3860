"""A training's whole state in one safetensors file: written whole or not at all, read without running any code in it.

Tensors under names with dots, everything else as JSON in the file's metadata. What was saved comes back bit for bit,
so a training that goes on from it does what it would have done without a break.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from torch import Tensor, nn

from punchin.protocol import lock
from punchin.protocol.errors import PunchinError, Refused

LOCK: Final = "training.lock"
_FACTS: Final = "punchin"
_LEAVE_BYTES: Final = 64 * 2**20  # of room on the disk beside what is written


def save(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write tensors and facts (JSON values) to `path`, atomically: temporary file, fsync, rename.

    Raises PunchinError where the disk is full or refuses; what was at `path` is then still there.
    """
    flat = {name: tensor.detach().to("cpu").contiguous() for name, tensor in tensors.items()}
    return write_bytes(path, serialised(flat, {_FACTS: json.dumps(facts), "format": "pt"}))


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """`folder`, made if need be, for this process alone: two trainings there would overwrite each other's state.

    Raises Refused where another process is at work in it, PunchinError where it cannot be made.
    """
    made(folder)
    try:
        held = lock.take(folder / LOCK)
    except OSError as error:
        raise disk_error(folder / LOCK, 0, error) from error
    if held is None:
        raise Refused(f"another training is at work in {folder}", "wait for its end, or give another folder", "busy")
    try:
        yield
    finally:
        held.release()


def made(folder: Path) -> Path:
    """`folder`, made if need be. Raises PunchinError with the reason where it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(folder, 0, error) from error
    return folder


def write_bytes(path: Path, data: bytes) -> Path:
    """Write a file whole or not at all. Raises PunchinError with the reason; nothing is left behind then."""
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        raise disk_error(path, len(data), error) from error
    return path


def disk_error(path: Path, size: int, error: OSError) -> PunchinError:
    """What to tell of a failed write of `size` bytes to `path`."""
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"make {(size + _LEAVE_BYTES) / 1e6:.0f} MB of room there; run the same command to go on"
    return PunchinError(f"{path} cannot be written: {error.strerror or error}", hint)


def load(path: Path, device: torch.device | str = "cpu") -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file that `save` wrote. Raises Refused where it is missing, broken or another's."""
    return _read(path, device, lambda name: True)


def facts_of(path: Path) -> dict[str, Any]:
    """The facts alone: no tensor is read. Raises Refused as `load` does."""
    return _read(path, "cpu", lambda name: False)[1]


def _read(
    path: Path, device: torch.device | str, wanted: Callable[[str], bool]
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safe_open(path, framework="pt", device=str(device)) as file:
            facts = json.loads((file.metadata() or {}).get(_FACTS, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys() if wanted(name)}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}", "delete it to begin anew", code="checkpoint") from error
    if not isinstance(facts, dict):
        raise Refused(f"{path} is no state of a training", "give the folder of one", code="checkpoint")
    return tensors, facts


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of `tensors` whose names begin with `prefix.`, by the rest of their names."""
    return {name.removeprefix(f"{prefix}."): each for name, each in tensors.items() if name.startswith(f"{prefix}.")}


def module_tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """The weights of a module under `prefix.`."""
    return {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}


def optimizer_tensors(prefix: str, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers of each parameter, as `prefix.NUMBER.NAME`; its settings are the caller's."""
    return {
        f"{prefix}.{number}.{name}": torch.as_tensor(value)
        for number, remembered in optimizer.state_dict()["state"].items()
        for name, value in remembered.items()
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimizer back what `optimizer_tensors` took from one like it; `tensors` without the prefix."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    whole = optimizer.state_dict()
    whole["state"] = state
    optimizer.load_state_dict(whole)
