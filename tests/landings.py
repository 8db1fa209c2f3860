"""Regions of test projects, what lands on them, and what a project then plays, by a reading of its own."""

import numpy as np
import rpp as oracle
import soundfile
from rppmaker import item, media, noise, project, track

from punchin.session.document import LandingTake, land, open_session

RATE = 48_000
KEYS = r"Media\keys.wav"


def aimed(path, region=(2.0, 4.0), how="take", name="Keys"):
    session = open_session(path)
    return session.target(name, session.region(time=region), how)


def window(target):
    lead_s = target.lead_frames / target.rate_hz
    start_s = target.origin_s + target.start_frame / target.rate_hz
    return target.heard(start_s - lead_s, target.origin_s + target.end_frame / target.rate_hz)


def landed(target, *, change=1.0, names=("punchin 7",), out=None, provenance=None):
    placed = target.place((window(target) * np.float32(change)).astype(np.float32))
    return land(target, [LandingTake(placed, name, provenance or {}) for name in names], out)


def played(path, seconds, rate_hz=RATE, name="Keys"):
    """What a track of a project plays, by a reading of it that shares nothing with the code under test."""
    tree = oracle.loads(path.read_text("utf-8").replace("\r\n", "\n"))
    out = np.zeros((2, round(seconds * rate_hz)))
    tracks = [t for t in tree.findall("TRACK") if next(c for c in t.children if c[0] == "NAME")[1].startswith(name)]
    for one in (i for t in tracks for i in t.findall("ITEM")):
        takes, active = [[]], 0
        for child in one.children:
            words = [child] if isinstance(child, str) else child  # a line of one word is a string
            if isinstance(words, list) and words[0] == "TAKE":
                takes.append([])
                active = len(takes) - 1 if "SEL" in words else active
            takes[-1].append(child)
        own = {c[0]: c[1:] for c in takes[0] if isinstance(c, list)}
        lines = {c[0]: c[1:] for c in takes[active] if isinstance(c, list)}
        if own["MUTE"][0] == "1":
            continue
        source = next(c for c in takes[active] if not isinstance(c, list) and c.tag == "SOURCE")
        file = path.parent / next(c for c in source.children if c[0] == "FILE")[1].replace("\\", "/")
        audio = soundfile.read(file, dtype="float64", always_2d=True)[0].T
        start, length = float(own["POSITION"][0]), float(own["LENGTH"][0])
        offset, gain = float(lines.get("SOFFS", ["0"])[0]), float(own["VOLPAN"][0])
        gain *= float(lines["VOLPAN"][2] if active == 0 else lines["TAKEVOLPAN"][1])
        first, n = round(start * rate_hz), round((start + length) * rate_hz) - round(start * rate_hz)
        piece = audio[:, round(offset * rate_hz) :][:, :n] * gain
        t = np.arange(piece.shape[1]) / rate_hz
        for line, into in (("FADEIN", t), ("FADEOUT", length - t)):
            fade = max(float(own[line][1]), float(own[line][2]))
            if fade:
                piece = piece * np.clip(into / fade, 0, 1)
        out[:, first : first + piece.shape[1]] += piece
    return out


def overlapped(tmp_path):
    media(tmp_path, "Media/keys.wav", noise(2, 8 * RATE, 1))
    media(tmp_path, "Media/b.wav", noise(2, 8 * RATE, 2))
    return project(
        tmp_path,
        track(
            "Keys",
            item(0, 3, KEYS, FADEOUT="0 0.01 0.5 0 0 0 0"),
            item(2.5, 5, r"Media\b.wav", FADEIN="0 0.01 0.5 0 0 0 0", VOLPAN="0.5 0 1 -1"),
        ),
    )
