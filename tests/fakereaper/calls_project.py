"""Projects: tabs, time selection, tempo, markers, stored state, undo."""

from __future__ import annotations

from pathlib import Path

from fakereaper.model import BUFFER, Handle


def enum_projects(script, index):
    host = script.host
    if index == -1:
        index = host.current
    if not 0 <= index < len(host.projects):
        return None
    return host.projects[index], host.projects[index].path


def time_selection(script, project, setting, loop, start, end, seek):
    if setting:
        project.time_selection = (start, end)
    return project.time_selection


def region_at(script, project, time_s):
    marker = region = -1
    for index, mark in enumerate(project.markers):
        if mark["region"]:
            if mark["start_s"] <= time_s < mark["end_s"]:
                region = index
        elif mark["start_s"] <= time_s:
            marker = index
    return marker, region


def marker_at(script, project, index):
    if not 0 <= index < len(project.markers):
        return 0, False, 0.0, 0.0, "", 0, 0
    mark = project.markers[index]
    return index + 1, mark["region"], mark["start_s"], mark["end_s"], mark["name"], mark["number"], 0


def project_info(script, project, name, new, setting):
    values = project.info | {"PROJECT_SRATE": float(project.rate_hz)}
    if name not in values:
        return script.host.breach(f"project has no value {name}")
    if setting:
        project.info[name] = float(new)
    return float(values[name])


def project_string(script, project, name, text, setting):
    if name == "RENDER_TARGETS":
        return True, f"{project.strings['RENDER_FILE']}/{project.strings['RENDER_PATTERN']}.wav"
    if name not in project.strings:
        return script.host.breach(f"project has no string {name}")
    if setting:
        project.strings[name] = text
    return True, project.strings[name]


def measure_info(script, project, index):
    start, end, num, den = project.tempo.measure(index)
    time_s = project.tempo.seconds(start)
    return time_s, start, end, num, den, bpm_at(project, time_s)


def bpm_at(project, time_s):
    later = project.tempo.qn(time_s + 1e-6) - project.tempo.qn(time_s)
    return later / 1e-6 * 60


def config_string(script, name):
    """A preference, or a setting of the project in front."""
    return (True, str(script.host.project.bar_offset)) if name == "projmeasoffs" else (False, "")


def set_proj_ext(script, project, section, key, text):
    stored = project.ext.setdefault(section, {})
    if text:
        stored[key] = text
    else:
        stored.pop(key, None)
    project.changes += 1
    return 1


def get_proj_ext(script, project, section, key):
    text = project.ext.get(section, {}).get(key, "")
    return int(bool(text)), text


def enum_proj_ext(script, project, section, index):
    items = list(project.ext.get(section, {}).items())
    if not 0 <= index < len(items):
        return False, None, None
    key, text = items[index]
    return True, key, text[:BUFFER]


def begin_undo(script, project):
    if not project.undo_depth:
        project.open_snapshot = project.snapshot()
    project.undo_depth += 1


def end_undo(script, project, title, flags):
    if not project.undo_depth:
        script.host.breach("Undo_EndBlock2 without a block")
    project.undo_depth -= 1
    if not project.undo_depth:
        project.undo_log.append(title)
        project.snapshots.append(project.open_snapshot)


def prevent_refresh(script, count):
    script.host.refresh += count


def valid_pointer(script, project, pointer, kind):
    if not isinstance(pointer, Handle) or pointer.kind + "*" != kind:
        return False
    return pointer in script.host.projects if kind == "ReaProject*" else pointer.alive


def make_directory(script, path, ignored):
    Path(path).mkdir(parents=True, exist_ok=True)
    return 1


CALLS = {
    "EnumProjects": enum_projects,
    "GetProjectPathEx": lambda script, project: project.media_dir,
    "GetProjectLength": lambda script, project: project.length_s(),
    "GetSet_LoopTimeRange2": time_selection,
    "GetCursorPositionEx": lambda script, project: project.cursor_s,
    "GetPlayStateEx": lambda script, project: project.play_state,
    "GetLastMarkerAndCurRegion": region_at,
    "EnumProjectMarkers3": marker_at,
    "GetSetProjectInfo": project_info,
    "GetSetProjectInfo_String": project_string,
    "TimeMap2_timeToQN": lambda script, project, time_s: project.tempo.qn(time_s),
    "TimeMap2_QNToTime": lambda script, project, qn: project.tempo.seconds(qn),
    "TimeMap_GetMeasureInfo": measure_info,
    "get_config_var_string": config_string,
    "SetProjExtState": set_proj_ext,
    "GetProjExtState": get_proj_ext,
    "EnumProjExtState": enum_proj_ext,
    "Undo_BeginBlock2": begin_undo,
    "Undo_EndBlock2": end_undo,
    "PreventUIRefresh": prevent_refresh,
    "Undo_DoUndo2": lambda script, project: int(bool(project.undo())),
    "UpdateArrange": lambda script: None,
    "UpdateTimeline": lambda script: None,
    "ValidatePtr2": valid_pointer,
    "RecursiveCreateDirectory": make_directory,
}
