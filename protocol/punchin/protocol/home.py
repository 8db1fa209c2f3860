"""Where Punchin keeps things: platformdirs, or one folder if PUNCHIN_HOME is set (tests, demos)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import platformdirs


def _folder(kind: str) -> Path:
    home = os.environ.get("PUNCHIN_HOME")
    if home:
        return Path(home).expanduser().resolve() / kind
    return {
        "state": platformdirs.user_state_path,
        "cache": platformdirs.user_cache_path,
        "config": platformdirs.user_config_path,
        "data": platformdirs.user_data_path,
        "runtime": platformdirs.user_runtime_path,
    }[kind]("punchin", appauthor=False)


def state() -> Path:
    """Journal, blobs, logs."""
    return _folder("state")


def runtime() -> Path:
    """Sockets, locks and the connection file. Mode 0700.

    Without XDG_RUNTIME_DIR it lies in the state folder. platformdirs would fall back to a folder in the temporary one,
    where anybody may have made it first; also, with a warning, where XDG_RUNTIME_DIR names a folder of another mode.
    """
    if sys.platform != "linux" or os.environ.get("PUNCHIN_HOME"):
        return _folder("runtime")
    given = os.environ.get("XDG_RUNTIME_DIR", "")
    return Path(given) / "punchin" if os.path.isabs(given) else _folder("state") / "run"


def cache() -> Path:
    """What can be made again: the untrained tiny model, latents."""
    return _folder("cache")


def config() -> Path:
    """Presets and settings, in TOML."""
    return _folder("config")


def models() -> Path:
    """Downloaded models, in the released folder layout. PUNCHIN_MODELS overrides it."""
    override = os.environ.get("PUNCHIN_MODELS")
    return Path(override).expanduser().resolve() if override else _folder("data") / "models"
