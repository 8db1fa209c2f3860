"""The daemon as a service of the user's own systemd, for `punchin serve --install` and `--uninstall`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from punchin.protocol import connection, lock
from punchin.protocol.errors import PunchinError, Refused

NAME: Final = "punchin.service"
FOLDERS: Final = (
    "PUNCHIN_HOME", "PUNCHIN_MODELS", "HF_HOME",
    "XDG_STATE_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME",
)  # fmt: skip
KEPT: Final = ("PUNCHIN_KEEP_ALIVE", "CUDA_VISIBLE_DEVICES")


def text(words: Sequence[str] = ()) -> str:
    """The unit file for this Python and the folders that are set here; `words` are the daemon's options.

    A kill is followed by a restart, which recovers the jobs; exit status 3 is another daemon that runs already.
    """
    given = {name: str(Path(os.environ[name]).expanduser().resolve()) for name in FOLDERS if os.environ.get(name)}
    given |= {name: os.environ[name] for name in KEPT if os.environ.get(name)}
    settings = [f"Environment={_quoted(f'{name}={value}')}" for name, value in given.items()]
    lines = [
        "[Unit]",
        "Description=Punchin: regions of DAW sessions, performed again",
        "",
        "[Service]",
        " ".join([f"ExecStart={_quoted(sys.executable)} -m punchin.daemon", *words]),
        *settings,
        "Restart=on-failure",
        "RestartPreventExitStatus=3",
        "RestartSec=1",
        "TimeoutStopSec=15",
        "KillMode=mixed",  # SIGTERM for the daemon alone: it puts the running job back, then ends the worker
        "",
        "[Install]",
        "WantedBy=default.target",
        "",
    ]
    return "\n".join(lines)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")  # % begins a specifier of systemd's
    return f'"{escaped}"'


def path() -> Path:
    """Where the user's units are."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user" / NAME


def install(words: Sequence[str] = ()) -> Path:
    """Write the unit, enable it and start it; returns its path.

    Raises Refused where there is no systemd, and where a daemon runs already: the service's could not start.
    """
    control = _systemctl()
    if lock.is_held(connection.daemon_lock()):
        hint = "punchin stop, then punchin serve --install"
        raise Refused("a daemon runs already, so a service cannot start one", hint, "busy")
    target = path()
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_suffix(".tmp")
    temporary.write_text(text(words))
    temporary.replace(target)
    for command in (["daemon-reload"], ["enable", "--now", NAME]):
        _run([control, "--user", *command])
    return target


def uninstall() -> Path | None:
    """Stop and disable the unit, and remove its file, whose path it was; None where there was none."""
    control, target = _systemctl(), path()
    if not target.exists():
        return None
    _run([control, "--user", "disable", "--now", NAME])
    target.unlink()
    _run([control, "--user", "daemon-reload"])
    return target


def _systemctl() -> str:
    found = shutil.which("systemctl")
    if found is None:
        raise Refused("there is no systemctl here, so no service can be installed", "punchin serve", "no_systemd")
    return found


def _run(command: list[str]) -> None:
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode != 0:
        why = ended.stderr.strip() or f"exit status {ended.returncode}"
        raise PunchinError(f"{' '.join(command[1:])} failed: {why}", "systemctl --user status")
