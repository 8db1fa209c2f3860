"""A chain of effects, read from TOML: one `[[effect]]` after the other, in the order in which audio passes them."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from punchin.plugin_host.effects import read_values
from punchin.protocol.errors import Refused
from punchin.protocol.hostlink import MAX_EFFECTS


@dataclass(frozen=True, slots=True)
class Step:
    """One effect of a chain. `vst3` is the plug-in's path, or None for a built-in effect.

    `plugin` names it in a file that holds several, None the only one there. `values` of a built-in effect are checked;
    those of a plug-in are checked once it is loaded and can say what it has.
    """

    name: str
    label: str  # `Reverb (1 of 2)`
    values: Mapping[str, float | bool | str]
    vst3: Path | None = None
    plugin: str | None = None


def read_chain(text: str, folder: Path) -> tuple[Step, ...]:
    """The chain's steps, none for an empty chain. Raises Refused, naming the effect and what it may have.

    folder: where relative paths in the chain begin.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise Refused(f"the chain is not TOML: {error}") from error
    except RecursionError as error:
        raise Refused("the chain is not TOML that can be read: it is nested too deep") from error
    unknown = [key for key in table if key != "effect"]
    if unknown:
        raise Refused(
            f'a chain has only [[effect]] tables, but here is "{unknown[0]}"', 'write [[effect]], name = "..."'
        )
    entries = table.get("effect", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise Refused("effect is one table, a chain has a list of them", "write [[effect]] with two brackets")
    if len(entries) > MAX_EFFECTS:
        raise Refused(f"the chain has {len(entries)} effects, allowed is 0 to {MAX_EFFECTS}", code="over_limit")
    return tuple(_step(entry, number, len(entries), folder) for number, entry in enumerate(entries, start=1))


def _step(entry: dict[str, Any], number: int, total: int, folder: Path) -> Step:
    values = {key: value for key, value in entry.items() if key not in ("name", "vst3")}
    name, vst3 = entry.get("name"), entry.get("vst3")
    if vst3 is None:
        if not isinstance(name, str):
            raise Refused(
                f"effect {number} of {total} has no name", 'give it name = "Reverb", or vst3 = "/path/X.vst3"'
            )
        return Step(name, f"{name} ({number} of {total})", read_values(name, values, folder))
    if not isinstance(name, str | None):
        raise Refused(f"effect {number} of {total}: name is {name!r}, allowed is the name of a plug-in in {vst3}")
    if not isinstance(vst3, str) or not vst3:
        raise Refused(f"effect {number} of {total}: vst3 is {vst3!r}, allowed is the path of a plug-in")
    path = folder / os.path.expanduser(vst3)  # as in `File`
    if not os.path.exists(path):
        raise Refused(f"effect {number} of {total}: no plug-in at {path}")
    for key, value in values.items():
        if not isinstance(value, bool | int | float | str):
            raise Refused(f"{name or path.stem} {key} is {value!r}, allowed is a number, a word, true or false")
    label = f"{name or path.stem} ({number} of {total})"
    return Step(name or path.stem, label, values, path, name)
