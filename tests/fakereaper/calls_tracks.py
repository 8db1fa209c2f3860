"""Tracks: names, selection, razor edits, lanes."""

from __future__ import annotations

from fakereaper.calls_items import value
from fakereaper.model import Track


def track_at(script, project, index):
    return project.tracks[index] if 0 <= index < len(project.tracks) else None


def selected_track(script, project, index, want_master):
    chosen = [t for t in project.tracks if t.selected]
    return chosen[index] if 0 <= index < len(chosen) else None


def parent(script, track):
    """The folder that a track is in: the nearest one before it that is open there."""
    open_folders = []
    for each in track.project.tracks:
        if each is track:
            return open_folders[-1] if open_folders else None
        depth = int(each.values["I_FOLDERDEPTH"])
        if depth > 0:
            open_folders.append(each)
        elif depth < 0:
            del open_folders[depth:]
    return None


def track_item(script, track, index):
    return track.items[index] if 0 <= index < len(track.items) else None


def track_name(script, track):
    return bool(track.name), track.name or f"Track {track.project.tracks.index(track) + 1}"


def track_value(script, track, name):
    if name == "IP_TRACKNUMBER":
        return float(track.project.tracks.index(track) + 1)
    if name.startswith("C_LANEPLAYS:"):
        return float(track.values.get(name, 0.0))
    return value(script.host, track, name)


def set_track_value(script, track, name, new):
    script.host.editing(track.project)
    if not name.startswith("C_LANEPLAYS:"):
        value(script.host, track, name)
    elif new == 1:  # plays alone: the other lanes fall silent
        for other in [k for k in track.values if k.startswith("C_LANEPLAYS:")]:
            track.values[other] = 0.0
    track.values[name] = float(new)
    return True


def track_string(script, track, name, text, setting):
    if setting:
        script.host.editing(track.project)
    if name == "P_NAME":
        if setting:
            track.name = text
        return True, track.name
    if name == "GUID" and not setting:
        return True, track.guid
    if name == "P_RAZOREDITS":
        if setting:
            track.razor = text
        return True, track.razor
    if name.startswith(("P_EXT:", "P_LANENAME:")):
        if setting:
            track.strings[name] = text
        return name in track.strings, track.strings.get(name, "")
    return script.host.breach(f"track has no string {name}")


def insert_track(script, index, defaults):
    project = script.host.project
    script.host.editing(project)
    project.tracks.insert(index, Track(project))


def select_track(script, track, selected):
    track.selected = selected


CALLS = {
    "GetParentTrack": parent,
    "IsTrackSelected": lambda script, track: track.selected,
    "SetTrackSelected": select_track,
    "CountTracks": lambda script, project: len(project.tracks),
    "GetTrack": track_at,
    "CountSelectedTracks2": lambda script, project, master: sum(t.selected for t in project.tracks),
    "GetSelectedTrack2": selected_track,
    "CountTrackMediaItems": lambda script, track: len(track.items),
    "GetTrackMediaItem": track_item,
    "GetTrackGUID": lambda script, track: track.guid,
    "GetTrackName": track_name,
    "GetMediaTrackInfo_Value": track_value,
    "SetMediaTrackInfo_Value": set_track_value,
    "GetSetMediaTrackInfo_String": track_string,
    "InsertTrackAtIndex": insert_track,
}
