"""`python -m punchin.training.recipes.tiny OUT`: makes `punchin-tiny`, from nothing but code.

Five stages (autoencoder, audio codes, words, metre, music), each with a checkpoint in `OUT/work`; the same command
goes on where it was stopped, at whatever moment, also after a kill. What is finished is written to OUT in the released
layout, with a model card. Half an hour of a large GPU or many hours of a CPU make sense; `--smoke` is a minute that
makes none.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from punchin.engine import tiny
from punchin.protocol.errors import BadUsage, Cancelled, PunchinError
from punchin.training import state
from punchin.training.console import Line, length
from punchin.training.recipes import card, soundfont
from punchin.training.recipes.autoencoder import AutoencoderStage
from punchin.training.recipes.codes import CodesStage
from punchin.training.recipes.library import Codes, Library
from punchin.training.recipes.loop import Run, Stage
from punchin.training.recipes.metre import MetreStage
from punchin.training.recipes.music import Music, MusicStage, loudness
from punchin.training.recipes.oneshots import OneShots
from punchin.training.recipes.plan import CPU, GPU, SMOKE, Plan
from punchin.training.recipes.words import WordsStage
from punchin.training.stopping import stoppable

PLANS: Final = {"gpu": GPU, "cpu": CPU, "smoke": SMOKE}
MINUTES: Final = {"cuda": 30.0, "cpu": 600.0}
MOST_BYTES: Final = 25_000_000  # of the model; a package should not be larger
MOST_FILE_BYTES: Final = 15_000_000


@dataclass(slots=True)
class Making:
    """One call of the recipe: where, on what, for how long, and what it has come to."""

    out: Path
    plan_name: str
    device: torch.device
    minutes: float
    workers: int
    soundfont: Path | None
    compiled: bool
    line: Line
    stop: Callable[[], bool]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        """The sizes."""
        return PLANS[self.plan_name]

    def path(self, stage: str) -> Path:
        """Where the stage's checkpoint is."""
        return self.out / "work" / f"{stage}.safetensors"

    def train(self, stage: Stage[Any], compiled: list[torch.nn.Module]) -> None:
        """Bring a stage to its end. Raises Cancelled where it was stopped before."""
        settings: dict[str, Any] = {"plan": self.plan_name, "recipe": tiny.RECIPE}
        if self.soundfont is not None and stage.name == "vae":  # the only one that hears it
            settings |= {"soundfont": self.soundfont.name, "soundfont_sha256": soundfont.sha256(self.soundfont)}
        seconds = 60 * self.minutes * self.plan.share[stage.name]
        for module in compiled if self.compiled else ():
            module.compile()
        run = Run(stage, self.path(stage.name), self.plan, seconds, settings)
        if not run.go(self.line, self.stop):
            raise Cancelled(f"stopped at step {run.progress.step} of stage {stage.name}; the same command goes on")
        run.finish()
        self.stages[stage.name] = run.progress.facts()
        self.line.say(f"{stage.name}: {run.progress.step} steps in {length(run.progress.seconds)}")


def make(making: Making) -> Path:
    """Run all stages and write the model; returns the DiT's folder in OUT."""
    model, vae, text, words = tiny.untrained()
    plan, device = making.plan, making.device
    autoencoder = AutoencoderStage(vae, plan, device, making.workers, making.soundfont)
    if not making.path("vae").exists():
        making.line.say("fitting the encoder")
        autoencoder.begin()
    vae.to(device)
    try:
        making.train(autoencoder, [vae.decoder])
    finally:
        autoencoder.close()
    vae.cpu()
    silence, loud = tiny.silence_latent(vae, plan.song_frames), loudness(vae)
    library = Library(OneShots(vae), plan, device, making.workers)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(tiny.SEED)
            codes = Codes(model.tokenizer, model.detokenizer, model.spec.dit.latent_channels).to(device)
        making.train(CodesStage(codes, library, loud), [])
        making.train(WordsStage(text, words, plan, device), [])
        metre = MetreStage(model, text, words, silence, plan, device)
        making.train(metre, [])
        music = Music(model, text, codes.ear, metre.read).to(device)
        stage = MusicStage(music, codes, library, metre, words, silence, loud)
        making.train(stage, [model.decoder] if device.type == "cuda" else [])  # on a CPU its many lengths do not pay
    finally:
        library.close()
    return _write(making, tiny.write(making.out, model.cpu(), vae, text.cpu(), words, trained=True))


def _write(making: Making, dit: Path) -> Path:
    """The facts and the card beside the model, once its size is right."""
    made = {
        "recipe": tiny.RECIPE,
        "plan": making.plan_name,
        "device": _device_name(making.device),
        "torch": torch.__version__,
        "seconds": sum(stage["seconds"] for stage in making.stages.values()),
        "songs": _songs(making),
        "stages": making.stages,
    }
    state.write_bytes(making.out / card.MADE, json.dumps(made, indent=1).encode())
    card.write(making.out)
    sizes = {path: path.stat().st_size for path in card.shipped(making.out)}
    largest = max(sizes, key=lambda path: sizes[path])
    if sizes[largest] > MOST_FILE_BYTES or sum(sizes.values()) > MOST_BYTES:
        raise PunchinError(
            f"the model has {sum(sizes.values()):,} bytes and {largest.name} {sizes[largest]:,};"
            f" allowed are {MOST_BYTES:,} and {MOST_FILE_BYTES:,} a file",
            "make it smaller in punchin.engine.tiny",
        )
    return dit


def _songs(making: Making) -> int:
    """How many songs were heard in all stages."""
    plan, steps = making.plan, {name: stage["step"] for name, stage in making.stages.items()}
    played = -(-max(steps["codes"], steps["music"]) // plan.song_steps) * plan.songs
    heard = -(-steps["vae"] // plan.audio_steps) * plan.audio_songs
    return max(played, heard)  # those with the same numbers are the same songs


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"a CPU ({platform.machine()}, threads: {torch.get_num_threads()})"


def parser() -> argparse.ArgumentParser:
    """The command line."""
    about = "Make punchin-tiny. The same command goes on where it was stopped."
    made = argparse.ArgumentParser("python -m punchin.training.recipes.tiny", description=about)
    made.add_argument("out", type=Path, metavar="OUT", help="folder of the model; checkpoints are in OUT/work")
    made.add_argument("--minutes", type=float, help="of training in all, over all calls: 30 on a GPU, 600 on a CPU")
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda, cuda:1 or cpu")
    made.add_argument("--plan", choices=[name for name in PLANS if name != "smoke"], help="sizes; the device's own")
    made.add_argument("--smoke", action="store_true", help="a minute of data, a few steps of each stage")
    made.add_argument("--soundfont", type=Path, help="half of what the decoder hears is played on it, by fluidsynth")
    made.add_argument("--workers", type=int, help="processes that compose, or play, ahead: 6 with a GPU, else 0")
    made.add_argument("--compile", action="store_true", help="torch.compile the networks: slower to begin, then faster")
    return made


def main(arguments: list[str] | None = None) -> int:
    """The command."""
    asked, line = parser().parse_args(arguments), Line()
    try:
        with stoppable() as stop:
            making = _making(asked, line, stop)
            with state.alone(making.out / "work"):
                print(make(making))
    except PunchinError as error:
        line.say(f"error: {error}" + (f"\n  {error.hint}" if error.hint else ""))
        return error.exit_code
    return 0


def _making(asked: argparse.Namespace, line: Line, stop: Callable[[], bool]) -> Making:
    try:
        device = torch.empty(0, device=asked.device).device
    except (RuntimeError, AssertionError) as error:  # no such one; torch was built without it
        raise BadUsage(f"device {asked.device} cannot be used: {str(error).splitlines()[0]}", "cuda or cpu") from error
    if device.type not in MINUTES:
        raise BadUsage(f"the recipe runs on cuda or cpu, {device.type} was given")
    if asked.soundfont is not None:
        soundfont.check(asked.soundfont)
    if asked.minutes is not None and not 0 < asked.minutes < math.inf:  # NaN is neither
        raise BadUsage(f"--minutes is {asked.minutes:g}; it must be above 0, and have an end")
    torch.set_flush_denormal(True)  # tails of notes that nobody hears would cost a quarter of a CPU's time
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    return Making(
        out=asked.out,
        plan_name="smoke" if asked.smoke else asked.plan or ("gpu" if device.type == "cuda" else "cpu"),
        device=device,
        minutes=asked.minutes or MINUTES[device.type],
        soundfont=asked.soundfont,
        workers=asked.workers if asked.workers is not None else (6 if device.type == "cuda" else 0),
        compiled=asked.compile,
        line=line,
        stop=stop,
    )


if __name__ == "__main__":
    sys.exit(main())
