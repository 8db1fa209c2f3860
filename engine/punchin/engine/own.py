"""A model of one's own: a folder in the released layout, as a full training leaves it, taken in under a name.

Its `config.json` then says which known model it is like, for whoever lists models without loading one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from punchin.engine import released, tiny
from punchin.engine.aside import Talk, alone, copied
from punchin.engine.released import MAIN, TEXT, VAE, Folders
from punchin.engine.spec import Spec, read_json
from punchin.protocol import installed
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.models import BY_NAME, MODELS, Model

NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def take_in(name: str, folder: Path, root: Path, talk: Talk) -> Path:
    """The folder of the new model `name` below `root`, the models folder: a copy of the model in `folder`, or nothing.

    A model like punchin-tiny gets a copy of its VAE and text encoder too, for another Punchin may bring others; the
    released models share theirs, which must be here. Raises BadUsage for a name that is none, Refused for one that is
    taken, for a folder below `root`, for files that do not fit (with their names), and for too small a disk; OSError.
    """
    if not NAME.fullmatch(name):
        raise BadUsage(f'"{name}" is no name for a model', "1 to 100 of a-z 0-9 . _ -, with a letter or digit first")
    dit = released.dit_folder(folder)
    if dit.resolve().is_relative_to(root.resolve()):
        raise Refused(f"{dit} lies in the models folder {root}", "give a folder outside of it", code="conflict")
    with alone(root) as aside:
        place = root / installed.OWN / name
        _check_untaken(place, root)
        config = read_json(dit / "config.json")
        like = released.like(Spec.from_config(config))
        shared = _shared(like, root)
        checkpoint = released.unread(Folders(dit, shared / VAE, shared / TEXT)).checkpoints[0]
        files = {path.name: path for path in (*checkpoint.files.values(), checkpoint.path, dit / "silence_latent.pt")}
        if like.family == "tiny":
            files |= {f"{part}/{path.name}": path for part in (VAE, TEXT) for path in (shared / part).iterdir()}
        where = copied(files, {**config, installed.LIKE: like.name}, place, root, aside, talk)
    talk.say(f"{name} is like {like.name}: it has its steps, shift, guidance, tasks, VAE and text encoder")
    return where


def _check_untaken(place: Path, root: Path) -> None:
    name = place.name
    if name in {VAE, *BY_NAME, *(model.folder for model in MODELS)}:
        raise Refused(f"{name} is a name of the released layout", "give another name", code="conflict")
    if name in installed.own(root):
        raise Refused(f"there is a model {name} already", f"punchin models rm {name}, or give another name", "conflict")
    if place.exists():
        raise Refused(f"{place} exists and is no model", "move it away, or give another name", code="conflict")


def _shared(like: Model, root: Path) -> Path:
    """The folder that holds a known model's VAE and text encoder."""
    place = tiny.ready().parent if like.family == "tiny" else root / MAIN
    if absent := [part for part in (VAE, TEXT) if not (place / part / "config.json").is_file()]:
        what = f"it is like {like.name}, and needs its {' and '.join(absent)}, which are not below {place}"
        raise Refused(what, f"punchin models pull {like.name}", code="model_missing")
    return place
