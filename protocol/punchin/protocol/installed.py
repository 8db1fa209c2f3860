"""Which models are here, known ones and somebody's own: a look at folders, for whoever may not load one."""

from __future__ import annotations

import json
from pathlib import Path

from punchin.protocol import home
from punchin.protocol.errors import Refused
from punchin.protocol.models import BY_NAME, MAIN, SHARED, Model

WITH_THE_PACKAGE = frozenset({"punchin-tiny", "identity"})  # need no download
OWN = "own"  # below the models folder: somebody's own models, each in a folder of its name
LIKE = "punchin_like"  # in a config.json: the known model that this one is like


def own(root: Path | None = None) -> dict[str, Model]:
    """Somebody's own models by name, as `punchin models pull NAME --from FOLDER` took them in below `root`."""
    root = home.models() if root is None else root
    found = (_own(place) for place in sorted(root.glob(f"{OWN}/*")) if _is_whole(place))
    return {model.name: model for model in found if model is not None and model.name not in BY_NAME}


def every(root: Path | None = None) -> dict[str, Model]:
    """All models that have a name here: those of the table, installed or not, and somebody's own."""
    return {**BY_NAME, **own(root)}


def named(name: str, root: Path | None = None) -> Model:
    """The model of a name. Refused (`unknown_model`) with the names that there are."""
    model = BY_NAME.get(name) or own(root).get(name)
    if model is None:
        raise Refused(
            f'there is no model "{name}"; there are {", ".join(every(root))}', "punchin models list", "unknown_model"
        )
    return model


def folder(model: Model, root: Path | None = None) -> Path | None:
    """The folder below `root` (the models folder) that holds a model's config and weights, None where it is not here.

    A repository's own folder may lie between: `Ace-Step1.5/acestep-v15-turbo`.
    """
    if not model.folder:
        return None
    root = home.models() if root is None else root
    places = [root / model.folder, *sorted(root.glob(f"*/{model.folder}"))]
    return next((place for place in places if _is_whole(place)), None)


def is_here(model: Model, root: Path | None = None) -> bool:
    """Whether jobs can be made with a model: it comes with the package, or is downloaded."""
    return model.name in WITH_THE_PACKAGE or folder(model, root) is not None


def to_fetch_bytes(model: Model, root: Path | None = None) -> int:
    """What `punchin models pull` would fetch of a released model that is not here, with the shared parts it lacks."""
    root = home.models() if root is None else root
    main = root / MAIN.rpartition("/")[2]
    places = (main,) if model.repository == MAIN else (main, root)  # beside the model, or where turbo's are
    there = sum(size for part, size in SHARED.items() if any(_is_whole(place / part) for place in places))
    whole = model.size_bytes + (0 if model.repository == MAIN else sum(SHARED.values()))
    return whole - there


def _own(place: Path) -> Model | None:
    try:
        like = BY_NAME[json.loads((place / "config.json").read_text())[LIKE]]
        size_bytes = sum(path.stat().st_size for path in place.rglob("*") if path.is_file())
    except (OSError, ValueError, KeyError, TypeError):  # not taken in by us, or by a later Punchin, or just removed
        return None
    return like.own(place.name, f"{OWN}/{place.name}", size_bytes)


def _is_whole(place: Path) -> bool:
    return (place / "config.json").is_file() and any(place.glob("*.safetensors"))
