"""Weights from safetensors: the names and shapes are compared first, memory is taken afterwards.

A `Checkpoint` is one file or an indexed set of them. Nothing here unpickles, except `silence_latent.pt`, which is read
with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from punchin.engine.keys import KNOWN, Shape, key_hash, weight_files
from punchin.protocol.errors import Refused

_NAMED_AT_MOST = 8  # keys in one error


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by key, still on disk. `shapes` is known without reading any of them."""

    path: Path
    shapes: Mapping[str, Shape]
    files: Mapping[str, Path]  # key -> the file that holds it

    @property
    def kind(self) -> str | None:
        """`2b`, `xl`, `vae` or `text` if keys and shapes are those of a released file, else None."""
        return KNOWN.get(key_hash(self.shapes))

    def read(self, keys: Iterable[str], to: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """The tensors of `keys`, each passed through `to` as it is read, one file at a time."""
        wanted = set(keys)
        found: dict[str, Tensor] = {}
        for path in sorted({self.files[key] for key in wanted}):
            with safe_open(path, framework="pt") as file:
                for key in sorted(key for key in wanted if self.files[key] == path):
                    found[key] = to(file.get_tensor(key))
        return found


def open_checkpoint(path: Path, stem: str = "model") -> Checkpoint:
    """The checkpoint at `path`: a safetensors file, or a folder with `<stem>.safetensors` or its index of shards.

    Raises Refused for a missing or broken file, for a shard that lacks what the index promises, and for
    pickles (`.pt`, `.bin`), which could run code.
    """
    if path.is_file():
        if path.suffix != ".safetensors":
            raise Refused(f"{path} is no safetensors file", "convert it first; pickled weights can run code")
        return _checkpoint(path, [path])
    found = weight_files(path, stem)
    checkpoint = _checkpoint(found.path, found.files)
    if lost := sorted(found.promised - checkpoint.shapes.keys()):
        raise Refused(f"{found.path} promises {_some(lost)}, no shard holds it", code="model_missing")
    return checkpoint


def _checkpoint(path: Path, files: list[Path]) -> Checkpoint:
    shapes: dict[str, Shape] = {}
    where: dict[str, Path] = {}
    for file in files:
        try:
            with safe_open(file, framework="pt") as opened:
                for key in opened.keys():  # noqa: SIM118 - a safe_open is no mapping
                    shapes[key], where[key] = tuple(opened.get_slice(key).get_shape()), file
        except (SafetensorError, OSError) as error:
            raise Refused(f"{file} cannot be read: {error}", "fetch it again; it may have been cut off") from error
    return Checkpoint(path, shapes, where)


def check(checkpoint: Checkpoint, modules: Mapping[str, nn.Module]) -> None:
    """Raise Refused unless the checkpoint holds exactly the tensors of `modules`, in their shapes.

    modules: key prefix -> module (on any device, `meta` too). Names what is missing, unknown or of another shape.
    """
    wanted = {
        prefix + key: tuple(t.shape) for prefix, module in modules.items() for key, t in module.state_dict().items()
    }
    faults = [
        f"{word} {_some(sorted(keys))}"
        for word, keys in (
            ("lacks", wanted.keys() - checkpoint.shapes.keys()),
            ("has unknown", checkpoint.shapes.keys() - wanted.keys()),
        )
        if keys
    ]
    for key in sorted(wanted.keys() & checkpoint.shapes.keys()):
        if wanted[key] != checkpoint.shapes[key]:
            faults.append(f"has {key} as {list(checkpoint.shapes[key])}, its config says {list(wanted[key])}")
    if faults:
        more = f"; and {len(faults) - 4} more" if len(faults) > 4 else ""
        raise Refused(f"{checkpoint.path} does not fit: it {'; it '.join(faults[:4])}{more}", code="weights")


def load(
    checkpoint: Checkpoint, modules: Mapping[str, nn.Module], device: torch.device | str, dtype: torch.dtype
) -> None:
    """Fill `modules` (key prefix -> module, on the meta device) after `check`; frozen, in eval mode."""
    check(checkpoint, modules)
    for prefix, module in modules.items():
        keys = [prefix + key for key in module.state_dict()]
        tensors = checkpoint.read(keys, lambda t: t.to(device=device, dtype=dtype))
        module.load_state_dict({key.removeprefix(prefix): t for key, t in tensors.items()}, assign=True)
        module.requires_grad_(False).eval()


def silence(place: Path, channels: int) -> Tensor:
    """`silence_latent.pt` of a model's folder, or such a file, as [1, T, channels] float32: the VAE's silence."""
    path = place if place.is_file() else place / "silence_latent.pt"
    if not path.is_file():
        raise Refused(f"{place} holds no silence_latent.pt", "fetch the model again", code="model_missing")
    try:
        latent: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch names no narrower family for a broken or unsafe file
        raise Refused(f"{path} cannot be read: {error}".split("\n")[0], code="weights") from error
    if not isinstance(latent, Tensor) or latent.ndim != 3 or latent.shape[:2] != (1, channels) or not latent.numel():
        shape = list(latent.shape) if isinstance(latent, Tensor) else type(latent).__name__
        raise Refused(f"{path} is {shape}, it must be [1, {channels}, frames]", code="weights")
    return latent.float().transpose(1, 2).contiguous()


def fingerprint(checkpoint: Checkpoint) -> str:
    """A sha256 that tells this checkpoint from others: of its keys, shapes, sizes, and 64 KiB from each file's parts.

    Hashing all of a 5 GB file would take longer than the take. Files that agree in all of that but differ elsewhere
    share a fingerprint.
    """
    digest = hashlib.sha256(key_hash(checkpoint.shapes).encode())
    for path in sorted(set(checkpoint.files.values())):
        size = path.stat().st_size
        digest.update(f"{path.name}:{size}".encode())
        with path.open("rb") as file:
            for part in range(16):
                file.seek(size * part // 16)
                digest.update(file.read(1 << 16))
    return digest.hexdigest()


def _some(keys: list[str]) -> str:
    more = f" and {len(keys) - _NAMED_AT_MOST} more" if len(keys) > _NAMED_AT_MOST else ""
    return ", ".join(keys[:_NAMED_AT_MOST]) + more
