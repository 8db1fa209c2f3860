"""A fake REAPER with Punchin's scripts in it, a project with audio, and a bridge that is played by the test."""

from __future__ import annotations

import json
import os
import time
import urllib.parse
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from fakereaper.host import FUNCTIONS, Host, Script
from punchin.clients.install.reaper import install

RATE_HZ = 48_000


def percent(text) -> str:
    return "".join(f"%{ord(c):02X}" if c in "%\t\r\n=" else c for c in str(text))


def line(**fields) -> str:
    return "\t".join(f"{percent(k)}={percent(v)}" for k, v in fields.items()) + "\n"


def pack(**fields) -> str:
    """The scripts' form for what REAPER itself stores."""
    return urllib.parse.quote(line(**fields).strip("\n"), safe="")


def decode(text) -> dict[str, str]:
    pairs = (piece.split("=", 1) for piece in text.split("\t") if "=" in piece)
    return {urllib.parse.unquote(k): urllib.parse.unquote(v) for k, v in pairs}


def unpack(text) -> dict[str, str]:
    """The way back of `pack`."""
    return decode(urllib.parse.unquote(text))


def tone(path, seconds=8.0, hz=220.0, channels=2) -> Path:
    at = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    audio = 0.25 * np.sin(2 * np.pi * hz * at)[:, None] * np.ones(channels)
    soundfile.write(path, audio.astype(np.float32), RATE_HZ, subtype="FLOAT")
    return Path(path)


class Desk:
    """`press` an action by its name, then look at `requests`, and answer with `say`."""

    def __init__(self, folder, lua="5.4", version="7.60", **options):
        self.folder = Path(folder)
        self.resource, self.media = self.folder / "REAPER", self.folder / "song" / "Media"
        self.scripts, self.spool = self.resource / "Scripts" / "Punchin", self.resource / "Data" / "Punchin" / "spool"
        self.media.mkdir(parents=True)
        (self.resource).mkdir(parents=True)
        (self.resource / "reaper.ini").touch()
        install(self.resource)
        self.host = Host(self.resource, lua, version, **options)
        self.project.media_dir = str(self.media)
        self.project.path = str(self.folder / "song" / "song.rpp")
        self.beat()

    @property
    def project(self):
        return self.host.project

    def beat(self):
        (self.spool / "bridge.beat").write_text(f"pid={os.getpid()}\tversion=0\ttime={int(time.time())}\n")

    def press(self, action):
        self.host.run(self.scripts / f"Punchin - {action}.lua")

    def simple(self, position_s=0.0, length_s=8.0, **values):
        """One track "Keys" with one item, and the time selection on 2 to 4 s."""
        track = self.project.add_track("Keys", selected=True)
        item = track.add_item(position_s, length_s, tone(self.media / "keys.wav", length_s), **values)
        self.project.time_selection = (2.0, 4.0)
        return track, item

    def remember_words(self, task="repaint", **answers):
        self.host.persisted["PUNCHIN", f"last_{task}"] = pack(**({"prompt": "warm piano"} | answers))

    def requests(self, folder="inbox"):
        return [json.loads(path.read_text()) for path in sorted((self.spool / folder).glob("*.json"))]

    def request(self):
        found = self.requests()
        assert len(found) == 1, found
        return found[0]

    @property
    def stream(self):
        return self.spool / "out" / f"{self.host.ext['PUNCHIN', 'instance']}.events"

    def say(self, raw=None, **fields):
        """Append to the event stream as the bridge does, and let REAPER's timer run half a second."""
        with self.stream.open("ab") as file:
            file.write(raw if raw is not None else line(**fields).encode())
        self.host.tick(15)

    def done(self, job, how="take", position_s=0.0, length_s=8.0, count=1, **more):
        """One item with takes of the first region."""
        self.all_done(job, [self.landed(job, 1, how, position_s, length_s, count) | more], count)

    def landed(self, job, number, how="take", position_s=0.0, length_s=8.0, count=1, regions=None):
        """An item of a `done` event, with takes of the regions of these numbers."""
        files = {}
        for n in range(1, count + 1):
            files[f"file{n}"] = str(tone(self.media / f"take-{job}-{number}-{n}.wav", length_s, 300.0 + n))
            files[f"name{n}"], files[f"provenance{n}"] = f"punchin repaint {n}", f'{{"seed": {n}}}'
        fields = {"how": how, "regions": regions or number, "position_s": position_s, "length_s": length_s}
        return fields | {"item_s": position_s, "item_length_s": length_s} | files

    def all_done(self, job, items, count=1):
        """A `done` event with these items."""
        fields = {"job": job, "kind": "done", "items": len(items), "count": count, "text": "1 take in 2 s"}
        for n, item in enumerate(items, start=1):
            fields |= {f"{n}.{name}": value for name, value in item.items()}
        self.say(**fields)

    @contextmanager
    def editing(self):
        """The user's own edit: calls of the API inside an undo block of its own."""
        self.project.undo_depth += 1
        self.project.open_snapshot = self.project.snapshot()
        user = Script(self.host, "the user", -1)
        yield lambda name, *values: FUNCTIONS[name](user, *values)
        FUNCTIONS["Undo_EndBlock2"](user, self.project, "the user", -1)

    def open_jobs(self, project=None):
        return (project or self.project).ext.get("PUNCHIN_JOBS", {})
