"""`python -m punchin.training.recipes.figures FOLDER`: measures what the recipe made, and says so on its card."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import torch

from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.tiny import NAME
from punchin.protocol.errors import BadUsage, PunchinError, Refused
from punchin.training import state
from punchin.training.console import Line
from punchin.training.recipes import card, soundfont
from punchin.training.recipes.figures.measure import PARTS, Asked, Figure


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser("python -m punchin.training.recipes.figures", description=__doc__)
    made.add_argument("folder", type=Path, help="what the recipe made")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--count", type=int, default=50, help="held-out songs")
    made.add_argument("--lessons", type=int, default=160, help="renders from which the detectors learn")
    made.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    made.add_argument("--soundfont", type=Path, help="render some held-out scores with it, by fluidsynth")
    made.add_argument("--steps", type=int, help="sampling steps; the model's own")
    made.add_argument("--guidance", type=float, help="the model's own")
    made.add_argument("--shift", type=float, help="the model's own")
    return made


def _check(given: argparse.Namespace) -> None:
    """Raise BadUsage for a part that there is not, and for no songs at all."""
    unknown = [part for part in given.only.split(",") if part not in PARTS]
    if unknown:
        raise BadUsage(f'--only: there is no part "{unknown[0]}"', f"there are: {', '.join(PARTS)}")
    for name in ("count", "lessons"):
        if getattr(given, name) < 1:
            raise BadUsage(f"--{name} is {getattr(given, name)}, allowed is 1 and up")


def _check_unseen(sounds: Path, folder: Path) -> None:
    """Raise Refused where the recipe's decoder was trained on this soundfont."""
    soundfont.check(sounds)
    made = folder / card.MADE
    stages = json.loads(made.read_text())["stages"] if made.is_file() else {}
    if stages.get("vae", {}).get("settings", {}).get("soundfont_sha256") == soundfont.sha256(sounds):
        raise Refused(f"{sounds} is what the decoder was trained on", "name a soundfont that it never heard")


def main(arguments: list[str] | None = None) -> int:
    """The command. Prints one line a figure; writes figures.json and the card where all parts were measured."""
    given, line = parser().parse_args(arguments), Line()
    try:
        _check(given)
        if given.soundfont is not None:
            _check_unseen(given.soundfont, given.folder)
        asked = Asked(
            count=given.count, lessons=given.lessons, steps=given.steps, guidance=given.guidance, shift=given.shift,
            soundfont=given.soundfont, device=given.device,
        )  # fmt: skip
        pipe = AceStepPipeline.from_pretrained(given.folder / NAME, device=given.device)
        parts = [part for part in PARTS if part in given.only.split(",")]
        figures: list[Figure] = []
        for part in parts:
            for figure in PARTS[part](pipe, asked):
                figures.append(figure)
                mark = {None: "", True: "  reached", False: "  NOT reached"}[figure.reached]
                print(f"{figure.what}: {figure.value} (to reach: {figure.wanted}){mark}", flush=True)
        if len(parts) == len(PARTS):
            steps = given.steps or pipe.variant.steps
            guidance = pipe.variant.guidance if given.guidance is None else given.guidance
            about = (
                f"On {given.count} held-out songs where no other number is said, {steps} steps, guidance {guidance:g}."
            )
            facts = {"about": about, "figures": [asdict(figure) for figure in figures]}
            state.write_bytes(given.folder / card.FIGURES, json.dumps(facts, indent=1).encode())
            card.write(given.folder)
    except PunchinError as error:
        line.say(f"error: {error}" + (f"\n  {error.hint}" if error.hint else ""))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
