"""A model and a few recordings to train on, small enough for seconds."""

import json

import numpy as np

from punchin.engine import tiny
from punchin.session import audiofile
from punchin.training import run, state
from punchin.training.outputs import STATE
from punchin.training.settings import Settings

RANK = {"lora_rank": 4, "lora_target_modules": "q_proj,o_proj,down_proj"}


def write_model(root):
    """The folder of an untrained `punchin-tiny`."""
    return tiny.write(root, *tiny.untrained(), trained=False)


def write_songs(folder, count=3, seconds=(2.0, 2.0, 2.0), rate_hz=48_000):
    """Recordings `0.wav` and so on: a falling tone each, with a click every half second."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        t = np.arange(round(seconds[number % len(seconds)] * rate_hz)) / rate_hz
        tone = 0.3 * np.sin(2 * np.pi * (220 + 110 * number) * t * (1 - 0.1 * t))
        tone[:: rate_hz // 2] += 0.5
        audiofile.write(folder / f"{number}.wav", np.stack([tone, tone * 0.8]).astype(np.float32), rate_hz)
        rows.append(
            {"audio": f"{number}.wav", "prompt": f"tone {number}", "bpm": 120, "keyscale": "C major", "lyrics": ""}
        )
    (folder / "metadata.json").write_text(json.dumps(rows))
    return folder


def arguments(model, songs, output, **more):
    """Settings for a training of seconds."""
    return {
        "dataset_base_path": str(songs), "dataset_metadata_path": str(songs / "metadata.json"), "model": str(model),
        "output_path": str(output), "device": "cpu", "learning_rate": 1e-3, **more,
    }  # fmt: skip


def never():
    """What `stop` says while nobody stops."""
    return False


def trained(kind, model, songs, output, quiet, stop=never, **more):
    """A training of seconds; the state that it leaves."""
    run.train(Settings(kind=kind, **arguments(model, songs, output, **more)), quiet, stop)
    return state.load(output / STATE)


def steps_in(path):
    """How far the state of a training is; 0 where there is none."""
    return state.load(path)[1]["progress"]["step"] if path.exists() else 0


def command_line(verb, given):
    """The same as arguments of `python -m punchin.training`."""
    line = [verb]
    for name, value in given.items():
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line
