"""The fake's project: tracks, items, takes and sources with the values that ReaScript reads, and nothing more.

A handle that was deleted or undone away is stale: touching it raises, where REAPER might crash.
"""

from __future__ import annotations

import copy
import uuid
from pathlib import Path
from typing import ClassVar

import soundfile

BUFFER = 1023  # bytes of a string that REAPER gives to Lua, where its C function asks for no larger buffer


def new_guid() -> str:
    return "{" + str(uuid.uuid4()).upper() + "}"


class Handle:
    """What Lua sees as a pointer."""

    kind = ""

    def __init__(self) -> None:
        self.alive = True


class Source(Handle):
    kind = "PCM_source"

    def __init__(self, path="", type_="WAVE", length_s=None, parent=None, section=None, length_is_qn=False):
        super().__init__()
        self.path, self.type, self.parent, self.section = str(path), type_, parent, section
        self.length_is_qn = length_is_qn
        self.channels, self.rate_hz, self.peaks_left = 2, 48_000, None
        self.length_s = length_s if length_s is not None else 0.0
        if path and Path(path).is_file() and type_ != "MIDI":
            info = soundfile.info(str(path))
            self.channels, self.rate_hz = info.channels, info.samplerate
            if length_s is None:
                self.length_s = info.frames / info.samplerate


class Take(Handle):
    kind = "MediaItem_Take"
    DEFAULTS: ClassVar = {
        "D_STARTOFFS": 0.0, "D_VOL": 1.0, "D_PAN": 0.0, "D_PLAYRATE": 1.0, "D_PITCH": 0.0, "B_PPITCH": 1.0,
        "I_CHANMODE": 0.0, "I_CUSTOMCOLOR": 0.0, "D_PANLAW": -1.0,
    }  # fmt: skip

    def __init__(self, item, source=None, name=""):
        super().__init__()
        self.item, self.source, self.name, self.guid = item, source, name, new_guid()
        self.values, self.ext = dict(self.DEFAULTS), {}
        self.stretch_markers = self.envelopes = 0
        self.fx = []  # of each effect whether it is not bypassed


class Item(Handle):
    kind = "MediaItem"
    DEFAULTS: ClassVar = {
        "D_POSITION": 0.0, "D_LENGTH": 0.0, "D_VOL": 1.0, "B_MUTE": 0.0, "B_LOOPSRC": 1.0, "D_FADEINLEN": 0.0,
        "D_FADEOUTLEN": 0.0, "D_FADEINLEN_AUTO": -1.0, "D_FADEOUTLEN_AUTO": -1.0, "C_FADEINSHAPE": 0.0,
        "C_FADEOUTSHAPE": 0.0, "D_FADEINDIR": 0.0, "D_FADEOUTDIR": 0.0, "C_LOCK": 0.0, "I_GROUPID": 0.0,
        "I_FIXEDLANE": 0.0, "C_LANEPLAYS": 2.0, "I_CUSTOMCOLOR": 0.0, "B_ALLTAKESPLAY": 0.0, "C_BEATATTACHMODE": -1.0,
    }  # fmt: skip

    def __init__(self, track):
        super().__init__()
        self.track, self.guid, self.takes, self.active, self.selected = track, new_guid(), [], 0, False
        self.values, self.ext = dict(self.DEFAULTS), {}

    @property
    def start_s(self) -> float:
        return self.values["D_POSITION"]

    @property
    def end_s(self) -> float:
        return self.values["D_POSITION"] + self.values["D_LENGTH"]


class Track(Handle):
    kind = "MediaTrack"
    DEFAULTS: ClassVar = {
        "D_VOL": 1.0, "D_PAN": 0.0, "B_MUTE": 0.0, "B_PHASE": 0.0, "I_SOLO": 0.0, "I_FREEMODE": 0.0,
        "I_NUMFIXEDLANES": 1.0, "I_FOLDERDEPTH": 0.0, "I_CUSTOMCOLOR": 0.0,
    }  # fmt: skip

    def __init__(self, project, name=""):
        super().__init__()
        self.project, self.name, self.guid, self.items, self.selected = project, name, new_guid(), [], False
        self.values, self.strings, self.razor = dict(self.DEFAULTS), {}, ""

    def add_item(self, position_s, length_s, file=None, selected=False, name="", **values) -> Item:
        """A shortcut for tests; the API's AddMediaItemToTrack makes an empty one."""
        item = Item(self)
        item.values |= {"D_POSITION": position_s, "D_LENGTH": length_s} | values
        item.selected = selected
        if file is not None:
            item.takes.append(Take(item, Source(file), name or Path(file).name))
        self.items.append(item)
        return item


class Tempo:
    """Points (seconds, bpm in quarter notes, ramps to the next?, numerator, denominator), integrated exactly."""

    def __init__(self, points=((0.0, 120.0, False, 4, 4),)):
        self.points = [tuple(p) for p in points]
        self.starts_qn = [0.0]
        for (t0, bpm, ramp, *_), (t1, after, *_) in zip(self.points, self.points[1:], strict=False):
            self.starts_qn.append(self.starts_qn[-1] + (t1 - t0) * ((bpm + after) / 2 if ramp else bpm) / 60)

    def _segment(self, i):
        t0, bpm, ramp, num, den = self.points[i]
        slope = 0.0
        if ramp and i + 1 < len(self.points):
            slope = (self.points[i + 1][1] - bpm) / (self.points[i + 1][0] - t0)
        return t0, bpm, slope, num, den

    def qn(self, t: float) -> float:
        i = max((k for k, p in enumerate(self.points) if p[0] <= t), default=0)
        t0, bpm, slope, *_ = self._segment(i)
        return self.starts_qn[i] + ((t - t0) * bpm + slope * (t - t0) ** 2 / 2) / 60

    def seconds(self, qn: float) -> float:
        i = max((k for k, q in enumerate(self.starts_qn) if q <= qn), default=0)
        t0, bpm, slope, *_ = self._segment(i)
        beats = (qn - self.starts_qn[i]) * 60
        if slope == 0.0:
            return t0 + beats / bpm
        return t0 + (-bpm + (bpm * bpm + 2 * slope * beats) ** 0.5) / slope

    def signature(self, t: float):
        i = max((k for k, p in enumerate(self.points) if p[0] <= t + 1e-9), default=0)
        return self.points[i][3], self.points[i][4]

    def measure(self, index: int):
        """(start in QN, end in QN, numerator, denominator) of measure `index`, from 0; changes begin a measure."""
        qn = 0.0
        for _ in range(index + 1):
            num, den = self.signature(self.seconds(qn))
            start, qn = qn, qn + num * 4 / den
        return start, qn, num, den


RENDER_NUMBERS = {
    "RENDER_SETTINGS": 0.0, "RENDER_BOUNDSFLAG": 1.0, "RENDER_STARTPOS": 0.0, "RENDER_ENDPOS": 0.0,
    "RENDER_CHANNELS": 1.0, "RENDER_SRATE": 44_100.0, "RENDER_TAILFLAG": 255.0, "RENDER_ADDTOPROJ": 1.0,
    "RENDER_DITHER": 3.0, "RENDER_NORMALIZE": 1.0,
}  # fmt: skip
RENDER_STRINGS = {"RENDER_FILE": "/my/mixes", "RENDER_PATTERN": "$project", "RENDER_FORMAT": "x", "RENDER_FORMAT2": "y"}


class Project(Handle):
    kind = "ReaProject"

    def __init__(self, path="", media_dir="", tempo=None):
        super().__init__()
        self.path, self.media_dir, self.tempo = str(path), str(media_dir), tempo or Tempo()
        self.tracks, self.ext, self.markers = [], {}, []
        self.time_selection, self.cursor_s, self.play_state, self.rate_hz = (0.0, 0.0), 0.0, 0, 48_000
        self.info = {"PROJECT_SRATE_USE": 1.0, "PROJECT_TIMEBASE_FLAGS": 0.0} | RENDER_NUMBERS
        self.strings = dict(RENDER_STRINGS)
        self.bar_offset = 0  # the ruler's number at the start, less 1
        self.changes, self.undo_depth, self.undo_log, self.snapshots = 0, 0, [], []
        self.open_snapshot = None

    def add_track(self, name="", selected=False) -> Track:
        track = Track(self, name)
        track.selected = selected
        self.tracks.append(track)
        return track

    def items(self) -> list[Item]:
        return [item for track in self.tracks for item in track.items]

    def length_s(self) -> float:
        return max((item.end_s for item in self.items()), default=0.0)

    def snapshot(self):
        return copy.deepcopy(self.tracks, {id(self): self})

    def dump(self):
        """Everything that an undo step must bring back, as comparable values."""
        return [
            (t.guid, t.name, sorted(t.values.items()), sorted(t.strings.items()), [
                (i.guid, sorted(i.values.items()), i.active, [
                    (k.guid, k.name, sorted(k.values.items()), sorted(k.ext.items()), k.source and k.source.path)
                    for k in i.takes
                ])
                for i in sorted(t.items, key=lambda i: (i.start_s, i.guid))
            ])
            for t in self.tracks
        ]  # fmt: skip

    def undo(self) -> str:
        """Take back the newest step, as the user's undo does: every older handle becomes stale."""
        title = self.undo_log.pop()
        for track in self.tracks:
            track.alive = False
            for item in track.items:
                item.alive = False
                for take in item.takes:
                    take.alive = False
                    if take.source is not None and take.ext:  # made by the script that is undone
                        take.source.alive = False
        self.tracks = self.snapshots.pop()
        return title
