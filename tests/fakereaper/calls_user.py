"""The user and the program: dialogs, texts, actions, ExtState, scripts, processes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import soundfile

from fakereaper.model import BUFFER, Handle, new_guid


class Window(Handle):
    kind = "HWND"


class Section(Handle):
    kind = "KbdSectionInfo"


def set_ext(script, section, key, text, persist):
    host = script.host
    if persist and "\n" in text:
        host.breach("SetExtState: a persisted value may not hold a newline")
    host.ext[section, key] = text
    if persist:
        host.persisted[section, key] = text


def get_ext(script, section, key):
    return script.host.ext.get((section, key), script.host.persisted.get((section, key), ""))


def delete_ext(script, section, key, persist):
    script.host.ext.pop((section, key), None)
    if persist:
        script.host.persisted.pop((section, key), None)


def user_inputs(script, title, count, captions, values):
    """`host.inputs` holds the answers: None cancels, a dict replaces defaults by caption."""
    host = script.host
    host.foreground(script, "GetUserInputs")
    if not 1 <= count <= 16:
        host.breach(f"GetUserInputs takes 1 to 16 fields, got {count}")
    names, separator = [], ","
    for field in captions.split(","):
        if field.startswith("separator="):
            separator = field.removeprefix("separator=")
        elif not field.startswith("extrawidth="):
            names.append(field)
    defaults = values.split(separator)
    if len(names) != count or len(defaults) != count:
        host.breach(f"GetUserInputs: {count} fields, {len(names)} captions, {len(defaults)} values")
    host.dialogs.append((title, dict(zip(names, defaults, strict=True))))
    answer = host.inputs.pop(0)
    if answer is None:
        return False, values
    unknown = set(answer) - set(names)
    if unknown:
        raise AssertionError(f"the dialog {title!r} has no field {unknown}; it has {names}")
    return True, separator.join(answer.get(n, d) for n, d in zip(names, defaults, strict=True))[:BUFFER]


def message_box(script, text, title, kind):
    script.host.foreground(script, "MB")
    script.host.messages.append(text)
    return script.host.button


def console(script, text):
    if not text.startswith("!SHOW:"):
        script.host.foreground(script, "ShowConsoleMsg")
    script.host.console.append(text.removeprefix("!SHOW:"))


def add_script(script, add, section, path, commit):
    host = script.host
    if not Path(path).is_file():
        return 0
    command = 50_000 + int(hashlib.sha1(path.encode()).hexdigest()[:6], 16)
    if add:
        host.commands[command] = path
    else:
        host.commands.pop(command, None)
    return command


def command_name(script, command):
    path = script.host.commands.get(command)
    return "RS" + hashlib.sha1(path.encode()).hexdigest() if path else None


def command_id(script, name):
    for command in script.host.commands:
        if "_" + command_name(script, command) == name:
            return command
    return 0


def run_command(script, command, flag, project):
    host = script.host
    if command in host.commands:
        host.run(host.commands[command], command)
    elif command in ACTIONS:
        ACTIONS[command](host, project)
    else:
        host.breach(f"the fake knows no action {command}")


def selected_items(project):
    return [item for item in project.items() if item.selected]


def next_take(host, project):
    for item in selected_items(project):
        item.active = (item.active + 1) % max(len(item.takes), 1)
    project.changes += 1


def delete_active_takes(host, project):
    host.editing(project)
    for item in selected_items(project):
        item.takes.pop(item.active).alive = False
        item.active = min(item.active, len(item.takes) - 1)


def toggle_crossfades(host, project):
    host.crossfades_splits = not host.crossfades_splits


def render(host, project):
    """Stems of the selected tracks; the fake's track effects turn everything to half its level."""
    info, strings = project.info, project.strings
    if (info["RENDER_SETTINGS"], info["RENDER_BOUNDSFLAG"], info["RENDER_TAILFLAG"]) != (2, 0, 0):
        host.breach("the fake renders stems of selected tracks in custom bounds without a tail")
    rate_hz, (track,) = info["RENDER_SRATE"], [t for t in project.tracks if t.selected]
    first, last = (round(info[name] * rate_hz) for name in ("RENDER_STARTPOS", "RENDER_ENDPOS"))
    out = np.zeros((last - first, int(info["RENDER_CHANNELS"])), np.float32)
    for item in track.items:
        audio, _ = soundfile.read(item.takes[item.active].source.path, dtype="float32", always_2d=True)
        at = round(item.start_s * rate_hz) - first
        low, high = max(at, 0), min(at + len(audio), len(out))
        out[low:high] += 0.5 * audio[low - at : high - at]
    path = Path(strings["RENDER_FILE"]) / f"{strings['RENDER_PATTERN']}.wav"
    soundfile.write(path, out, int(rate_hz), subtype="FLOAT")


ACTIONS = {
    40912: toggle_crossfades, 42230: render, 40125: next_take, 40129: delete_active_takes,
    40047: lambda host, project: None,
}  # fmt: skip


def speak(script, text):
    script.host.spoken.append(text)


def set_options(script, options):
    script.options |= options


def set_toggle(script, section, command, state):
    script.host.toggles[command] = state
    return True


def toggle_state(script, command):
    return int(script.host.crossfades_splits) if command == 40912 else -1


def execute(script, command, timeout_ms):
    script.host.processes.append(command)
    return script.host.execute(command, timeout_ms)


def defer(script, function):
    script.deferred.append(function)
    return True


CALLS = {
    "APIExists": lambda script, name: script.host.exists(name),
    "GetAppVersion": lambda script: script.host.version + "/linux-x86_64",
    "GetOS": lambda script: "Other",
    "GetResourcePath": lambda script: str(script.host.resource),
    "GetAudioDeviceInfo": lambda script, name: (True, "48000"),
    "SetExtState": set_ext,
    "GetExtState": get_ext,
    "DeleteExtState": delete_ext,
    "GetUserInputs": user_inputs,
    "MB": message_box,
    "ShowConsoleMsg": console,
    "Help_Set": lambda script, text, temporary: script.host.help.append(text),
    "osara_outputMessage": speak,
    "AddRemoveReaScript": add_script,
    "NamedCommandLookup": command_id,
    "ReverseNamedCommandLookup": command_name,
    "Main_OnCommandEx": run_command,
    "GetMainHwnd": lambda script: Window(),
    "SectionFromUniqueID": lambda script, number: Section(),
    "CountActionShortcuts": lambda script, section, command: 0,
    "DoActionShortcutDialog": lambda script, window, section, command, index: (
        script.host.shortcut_dialogs.append(command) or True
    ),
    "DeleteActionShortcut": lambda script, section, command, index: True,
    "SetToggleCommandState": set_toggle,
    "GetToggleCommandState": toggle_state,
    "RefreshToolbar2": lambda script, section, command: None,
    "get_action_context": lambda script: (True, str(script.path), 0, script.command, 0, 0, 0.0),
    "set_action_options": set_options,
    "ExecProcess": execute,
    "defer": defer,
    "atexit": lambda script, function: script.at_exit.append(function),
    "time_precise": lambda script: script.host.clock(),
    "genGuid": lambda script, text: new_guid(),
    "ColorToNative": lambda script, r, g, b: r | g << 8 | b << 16,
}
