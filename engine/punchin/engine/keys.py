"""Keys and shapes of safetensors files, and which released model they are. Knows no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from punchin.protocol.errors import Refused

Shape = tuple[int, ...]

# md5 over sorted `key:shape` and `key` of released files: what a bare file is.
KNOWN: Final[Mapping[str, str]] = {
    "ba29d8bddbb6ace65675f6a757a13c00": "2b",
    "3a28a410c2246f125153ef792d8bc828": "xl",
    "51420834e54474986a7f4be0e4d6f687": "vae",
    "3509bea17b0e8cffc3dd4a15cc7899d0": "text",
}
_HEADER_BYTES: Final = 100_000_000  # the format's own limit


class WeightFiles(NamedTuple):
    """The files that hold a folder's weights; `path` is the one, or the index of them, which promises keys."""

    path: Path
    files: list[Path]
    promised: frozenset[str] = frozenset()


def weight_files(folder: Path, stem: str = "model") -> WeightFiles:
    """`<stem>.safetensors` of a folder, or the shards that its index names, none of them opened.

    Raises Refused where neither is there, the index is broken, or a shard is missing.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file():
        return WeightFiles(single, [single])
    if not index.is_file():
        raise Refused(f"{folder} holds neither {single.name} nor {index.name}", code="model_missing")
    try:
        promised: dict[str, str] = json.loads(index.read_text())["weight_map"]
        names = sorted(set(promised.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{index} is no index of shards: {error}") from error
    if bad := [name for name in names if Path(str(name)).name != name]:
        raise Refused(f"{index} names a file outside its folder: {bad[0]}")
    if absent := [name for name in names if not (folder / name).is_file()]:
        raise Refused(f"{folder} lacks {', '.join(absent)}", "fetch the model again", code="model_missing")
    return WeightFiles(index, [folder / name for name in names], frozenset(promised))


def key_hash(shapes: Mapping[str, Shape]) -> str:
    """md5 of the sorted, comma-joined `key:dim_dim` and `key`, as DiffSynth-Studio names model files."""
    words = [word for key, shape in shapes.items() for word in (f"{key}:{'_'.join(map(str, shape))}", key)]
    return hashlib.md5(",".join(sorted(words)).encode(), usedforsecurity=False).hexdigest()


def shapes_of(path: Path) -> dict[str, Shape]:
    """Keys and shapes of a safetensors file, from its header alone. Refused where it is none or was cut off."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if not 0 < size <= _HEADER_BYTES:
                raise ValueError(f"a header of {size} bytes")
            header = json.loads(file.read(size))
            shapes = {key: tuple(value["shape"]) for key, value in header.items() if key != "__metadata__"}
            end = (
                8
                + size
                + max((value["data_offsets"][1] for k, value in header.items() if k != "__metadata__"), default=0)
            )
        if end != path.stat().st_size:
            raise ValueError(f"{path.stat().st_size} bytes, its header says {end}")
    except OSError as error:
        raise Refused(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise Refused(f"{path} is no whole safetensors file: {error}", "fetch it again", code="weights") from error
    return shapes
