"""Presets: options under a name, in one TOML file that people may edit.

    [rhodes]
    prompt = "warm electric piano, soft comping"
    strength = 0.7
    lora = ["~/loras/rhodes.safetensors:0.8"]

A key is a long option without its dashes; what stands on the command line goes before what a preset says.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from punchin.protocol import home
from punchin.protocol.errors import PunchinError, Refused

Value = bool | int | float | str | list[str]
BUILT_IN: Mapping[str, Mapping[str, Value]] = {
    "diffsynth": {  # as DiffSynth-Studio asks the model
        "raw": ["mask_mode=ones", "guidance_mode=cfg", "repaint_blend_frames=0", "peak_normalise=true"]
    },
}


def file() -> Path:
    """Where presets are kept."""
    return home.config() / "presets.toml"


def all_presets() -> dict[str, Mapping[str, Value]]:
    """Every preset by name, the user's over the built-in ones. Raises Refused for a file that is no TOML of presets."""
    try:
        own = tomllib.loads(file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        own = {}
    except (OSError, ValueError, RecursionError) as error:
        raise Refused(f"cannot read the presets in {file()}: {error}", f"mend {file()}") from None
    for name, values in own.items():
        if not isinstance(values, dict) or not all(_is_value(value) for value in values.values()):
            raise Refused(f'preset "{name}" in {file()} is no table of options', f"mend {file()}")
    return dict(BUILT_IN) | own


def words(name: str) -> list[str]:
    """A preset as words of a command line. Raises Refused for one that is not there."""
    presets = all_presets()
    if name not in presets:
        raise Refused(f'there is no preset "{name}"; there are {", ".join(presets)}', "punchin presets")
    found: list[str] = []
    for key, value in presets[name].items():
        if value is True:
            found.append(f"--{key}")
        elif value is not False:
            found += [f"--{key}={each}" for each in (value if isinstance(value, list) else [value])]
    return found


def save(name: str, values: Mapping[str, Any]) -> Path:
    """Add a preset at the end of the file.

    Raises Refused for a name that is taken or blank, PunchinError for a full disk.
    """
    if not name.strip():
        raise Refused("a preset needs a name", "punchin presets save NAME ...")
    if name in all_presets():
        raise Refused(f'there is a preset "{name}" already', f"another name, or edit {file()}")
    lines = [f"[{_toml(name)}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
    try:
        file().parent.mkdir(parents=True, exist_ok=True)
        before = file().read_text(encoding="utf-8").rstrip("\n") + "\n\n" if file().exists() else ""
        target = file().resolve()  # a link stays one
        fresh = target.with_suffix(".new")  # whole or not at all: a full disk takes no preset that was there
        fresh.write_text(before + "\n".join(lines) + "\n", encoding="utf-8")
        fresh.replace(target)
    except OSError as error:
        raise PunchinError(f"cannot write {file()}: {error.strerror}", "make room or rights, then again") from None
    return file()


def _toml(value: object) -> str:
    """JSON is TOML but for one character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(each, str) for each in value)
    return isinstance(value, bool | int | float | str)
