"""Which models are here: a look at folders, for whoever may not load one."""

from __future__ import annotations

from pathlib import Path

from punchin.protocol import home
from punchin.protocol.models import Model

WITH_THE_PACKAGE = frozenset({"tiny", "identity"})  # families that need no download


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
    return model.family in WITH_THE_PACKAGE or folder(model, root) is not None


def _is_whole(place: Path) -> bool:
    return (place / "config.json").is_file() and any(place.glob("*.safetensors"))
