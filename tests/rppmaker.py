"""Small REAPER projects and their audio, written for one test: text in, files out, nothing of ours imported."""

from pathlib import Path

import numpy as np
import soundfile

HEAD = """<REAPER_PROJECT 0.1 "7.42/linux-x86_64" 1770723931
  <NOTES 0 2
    |keep   this  \t
  >
  RIPPLE 0
  SAMPLERATE 48000 1 0
  PANLAW 1
  RECORD_PATH "Media" ""
  TEMPO {tempo}
"""


def item(start_s, length_s, file, *, extra="", takes="", **fields):
    """One ITEM chunk; `fields` replace lines by name, `extra` goes before its end, `takes` after the first take."""
    lines = {
        "POSITION": start_s,
        "SNAPOFFS": 0,
        "LENGTH": length_s,
        "LOOP": 1,
        "ALLTAKES": 0,
        "FADEIN": "0 0 0 0 0 0 0",
        "FADEOUT": "0 0 0 0 0 0 0",
        "MUTE": "0 0",
        "SEL": 0,
        "IGUID": "{11111111-0000-4000-8000-000000000001}",
        "NAME": '"item one"',
        "VOLPAN": "1 0 1 -1",
        "SOFFS": 0,
        "PLAYRATE": "1 1 0 -1 0 0.0025",
        "CHANMODE": 0,
        "GUID": "{11111111-0000-4000-8000-000000000002}",
    }
    lines.update(fields)
    body = "".join(f"      {key} {value}\n" for key, value in lines.items() if value is not None)
    source = "" if file is None else (file if file.startswith("      <") else source_of(file))
    return f"    <ITEM\n{body}{source}{extra}{takes}    >\n"


def source_of(file, kind="WAVE"):
    return f'      <SOURCE {kind}\n        FILE "{file}"\n      >\n'


def track(name, *items, extra=""):
    guid = "{%08X-0000-4000-8000-000000000000}" % (sum(name.encode()) + 1)
    return f'  <TRACK {guid}\n    NAME "{name}"\n    TRACKID {guid}\n{extra}{"".join(items)}  >\n'


def project(folder, *tracks, tempo="120 4 4", extra="", name="song.rpp", crlf=True, head=HEAD) -> Path:
    text = head.format(tempo=tempo) + extra + "".join(tracks) + ">\n"
    path = Path(folder) / name
    path.write_bytes(text.replace("\n", "\r\n").encode() if crlf else text.encode())
    return path


def media(folder, name, audio, rate_hz=48_000, subtype="PCM_16") -> np.ndarray:
    """Write `[channels, frames]` and give back what a reader of the file gets, as float64."""
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.asarray(audio).T, rate_hz, subtype=subtype)
    return soundfile.read(path, dtype="float64", always_2d=True)[0].T


def noise(channels, frames, seed=1, level=0.25) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-level, level, (channels, frames))
