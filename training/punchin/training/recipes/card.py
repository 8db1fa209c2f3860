"""The model card of `punchin-tiny`: what it was made of, how, for how long, and what was measured on it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from punchin.training import state
from punchin.training.console import length

CARD: Final = "README.md"
MADE: Final = "recipe.json"  # what the card says of the making, for programs
UNTOLD: Final = 100  # steps after the last loss that is kept
FIGURES: Final = "figures.json"  # what was measured, by `punchin.training.recipes.figures`

_TEXT: Final = """---
license: gpl-3.0
library_name: punchin
tags: [music-generation, ace-step, text-to-audio]
---
# punchin-tiny

The model that comes in Punchin's box: the structure and the file layout of ACE-Step 1.5 at toy size, trained from
nothing by `python -m punchin.training.recipes.tiny`. It is there so that a fresh machine does the whole journey of a
region at once. It is no substitute for the released models.

## Data
Scores composed by rule from a number (eight genres, 70 to 180 bpm, 4/4, 3/4 and 6/8, twelve keys, major and minor,
fills and swing) and played by a synthesiser written for it (eight pitched instruments, three basses, two drum kits).
{foreign} Songs are made while training; {songs} of them were used.

## Making
{made}

{losses}

## Measured
{figures}

## Files
{files}
"""


def write(folder: Path) -> Path:
    """The card of the model in `folder`, from its `recipe.json`, its `figures.json` if there is one, and its files."""
    made: dict[str, Any] = json.loads((folder / MADE).read_text())
    measured = folder / FIGURES
    figures = json.loads(measured.read_text()) if measured.is_file() else None
    text = _TEXT.format(
        songs=f"{made['songs']:,}",
        foreign=_foreign(made["stages"]["vae"].get("settings", {})),
        made=f"On {made['device']}, {length(made['seconds'])} in all, plan `{made['plan']}`, "
        f"torch {made['torch']}, recipe {made['recipe']}.{_goes(made)}",
        losses=_losses(made["stages"]),
        figures="Not measured yet: `python -m punchin.training.recipes.figures FOLDER`."
        if figures is None
        else _figures(figures),
        files=_files(folder),
    )
    return state.write_bytes(folder / CARD, text.encode())


def _foreign(settings: Mapping[str, Any]) -> str:
    if "soundfont" not in settings:
        return "No recording and no foreign score is in it."
    return (
        f"Up to half of what the autoencoder's decoder heard were the same scores on the instruments of"
        f" {settings['soundfont']} (sha256 `{settings['soundfont_sha256']}`). No other recording and no foreign score"
        " is in it."
    )


def shipped(folder: Path) -> list[Path]:
    """The files of the model, without what the training left behind."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and "work" not in path.relative_to(folder).parts)


def _losses(stages: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ["| stage | recipe | steps | time | loss at first | at last |", "|---|---|---|---|---|---|"]
    for name, stage in stages.items():
        (_, first), (at, last) = stage["losses"][0], stage["losses"][-1]
        known = f"{last:.3f}" if stage["step"] - at < UNTOLD else f"{last:.3f} (step {at:,})"
        made = f"{name} | {_recipe(stage)} | {stage['step']:,} | {length(stage['seconds'])}"
        rows.append(f"| {made} | {first:.3f} | {known} |")
    return "\n".join(rows)


def _recipe(stage: Mapping[str, Any]) -> int | str:
    return stage.get("settings", {}).get("recipe", "")


def _goes(made: Mapping[str, Any]) -> str:
    """That it was no single run of today's recipe, where it was none."""
    if all(_recipe(stage) in ("", made["recipe"]) for stage in made["stages"].values()):
        return ""
    return (
        " It was made in several goes while the recipe grew: each stage by the recipe of its row, and on from there;"
        " losses are told as far as they were kept."
    )


def _figures(figures: Mapping[str, Any]) -> str:
    rows = ["| what | value | to reach |", "|---|---|---|"]
    for figure in figures["figures"]:
        mark = "" if figure["reached"] is None else " (reached)" if figure["reached"] else " (not reached)"
        rows.append(f"| {figure['what']} | {figure['value']}{mark} | {figure['wanted']} |")
    return "\n".join([figures["about"], "", *rows])


def _files(folder: Path) -> str:
    rows = ["| file | bytes | sha256 |", "|---|---|---|"]
    for path in shipped(folder):
        if path.name != CARD:
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            rows.append(f"| {path.relative_to(folder)} | {path.stat().st_size:,} | `{digest}` |")
    return "\n".join(rows)
