"""REAPER: its resource folder, Punchin's scripts in it, and the spool that they share with the bridge.

Nothing of REAPER's own is written: not its ini, and not `reaper-kb.ini`, which REAPER rewrites as it likes. The actions
are added inside REAPER by the script `Punchin - register.lua`.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Final, Literal

from punchin.clients.bridge import spool
from punchin.clients.install import manifest
from punchin.clients.install.manifest import Change
from punchin.protocol import limits, lock
from punchin.protocol.errors import BadUsage, PunchinError, Refused
from punchin.protocol.version import PACKAGE

SCRIPTS: Final = Path("Scripts") / "Punchin"
SPOOL: Final = Path("Data") / "Punchin" / "spool"
SELFTEST: Final = Path("Data") / "Punchin" / "selftest.json"
STOP_S: Final = 5.0

Verdict = Literal["ok", "warn", "fail"]


def usual_folders(platform: str = sys.platform, env: Mapping[str, str] = os.environ) -> list[Path]:
    """Where REAPER keeps its settings on this system, whether it is there or not."""
    home = Path(env.get("USERPROFILE" if platform == "win32" else "HOME") or Path.home())
    if platform == "win32":
        return [Path(env.get("APPDATA") or home / "AppData" / "Roaming") / "REAPER"]
    if platform == "darwin":
        return [home / "Library" / "Application Support" / "REAPER"]
    return [Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "REAPER"]


def resource_folder(given: Path | None) -> Path:
    """REAPER's resource folder: the given one, or the usual one of this system. It must hold a reaper.ini.

    Raises BadUsage when it is not there; in REAPER, Options > Show REAPER resource path opens it.
    """
    hint = "start REAPER once, or say --resource-path FOLDER (in REAPER: Options > Show REAPER resource path)"
    if given is not None:
        if not (given / "reaper.ini").is_file():
            raise BadUsage(f"{given} holds no reaper.ini, so it is no resource folder of REAPER", hint)
        return given.absolute()
    for folder in usual_folders():
        if (folder / "reaper.ini").is_file():
            return folder
    places = ", ".join(str(folder) for folder in usual_folders())
    raise BadUsage(f"REAPER's resource folder is not where it usually is ({places})", hint)


def scripts() -> dict[str, bytes]:
    """Punchin's Lua scripts: path relative to their folder, to bytes."""
    found: dict[str, bytes] = {}
    root = resources.files("punchin.clients") / "reaper"
    for folder in (root, root / "punchin"):
        for entry in folder.iterdir():
            if entry.name.endswith(".lua"):
                name = entry.name if folder is root else f"punchin/{entry.name}"
                found[name] = entry.read_bytes()
    return found


def files(resource: Path) -> dict[str, bytes]:
    """All that belongs into REAPER's script folder: relative path to bytes."""
    return scripts() | {"bridge.cfg": bridge_config(resource).encode()}


def bridge_config(resource: Path) -> str:
    """What the scripts must know: the spool, how the bridge starts, and the limits they refuse by."""
    folder = resource / SPOOL
    fields: dict[str, object] = {"version": PACKAGE, "spool": folder}
    for i, argument in enumerate((_python(), "-m", "punchin.clients.bridge", str(folder)), start=1):
        fields[f"argument{i}"] = argument
    fields |= {
        "region_min_s": f"{limits.REGION.low:g}",
        "region_max_s": f"{limits.REGION.high:g}",
        "variations_max": limits.MAX_SEEDS,
        "lyrics_max": limits.LYRICS_CHARS,
    }
    return "".join(f"{spool.encode({name: value})}\n" for name, value in fields.items())


def _python() -> str:
    """The interpreter that runs now; on Windows the one that opens no console window."""
    windowless = Path(sys.executable).with_name("pythonw.exe")
    return str(windowless) if sys.platform == "win32" and windowless.is_file() else sys.executable


def install(resource: Path, dry_run: bool = False) -> list[Change]:
    """Put the scripts there, or bring them up to date. Returns what changed, or with `dry_run` what would."""
    folder = resource / SCRIPTS
    changes = manifest.plan(folder, files(resource))
    if not dry_run:
        spool.make(resource / SPOOL)
        old = _version(resource / SPOOL) not in ("", PACKAGE) and lock.is_held(resource / SPOOL / "bridge.lock")
        if old:
            _end_bridge(resource / SPOOL)  # it would go on with the old package's code
        manifest.apply(folder, changes, PACKAGE)
        if old and spool.Spool(resource / SPOOL).request_ids():
            _start_bridge(resource / SPOOL)  # for the jobs under way: REAPER starts one at the next key press only
    return changes


def uninstall(resource: Path, dry_run: bool = False) -> list[Change]:
    """Remove what `install` put there, and the spool. Edited files stay. Raises Refused when nothing was installed.

    A bridge that runs is ended first; jobs of the daemon go on, `punchin land` still finds them.
    """
    folder = resource / SCRIPTS
    if manifest.read(folder) is None:
        raise Refused(f"Punchin is not installed in {resource}", _again(resource))
    changes = manifest.removal(folder)
    if not dry_run:
        _end_bridge(resource / SPOOL)
        manifest.apply(folder, changes, None)
        _remove_spool(resource / SPOOL)
    return changes


def _start_bridge(root: Path) -> None:
    words = [_python(), "-m", "punchin.clients.bridge", str(root)]
    nowhere = subprocess.DEVNULL
    subprocess.Popen(words, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True)


def _version(root: Path) -> str:
    """Of the bridge that beat last; "" where none did."""
    try:
        beat = spool.decode((root / "bridge.beat").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    return beat.get("version", "")


def _end_bridge(root: Path) -> None:
    held, beat = root / "bridge.lock", root / "bridge.beat"
    if not lock.is_held(held):
        return
    try:
        pid = int(spool.decode(beat.read_text(encoding="utf-8"))["pid"])
    except (OSError, ValueError, KeyError):
        raise PunchinError("the bridge runs, but its beat cannot be read", "close REAPER, wait, try again") from None
    os.kill(pid, signal.SIGTERM)
    until_s = time.monotonic() + STOP_S
    while lock.is_held(held):
        if time.monotonic() > until_s:
            raise PunchinError(f"the bridge (pid {pid}) did not end within {STOP_S:g} s", "close REAPER, try again")
        time.sleep(0.02)  # a poll of its lock: the system tells no other process's end


def _remove_spool(root: Path) -> None:
    """The spool's own folders and files and the self-test's report beside it, nothing else that lies there."""
    import shutil

    for name in spool.FOLDERS:
        shutil.rmtree(root / name, ignore_errors=True)
    for name in ("bridge.beat", "bridge.lock", "bridge.log", "bridge.log.1", "bridge.stderr", "status.txt"):
        (root / name).unlink(missing_ok=True)
    (root.parent / SELFTEST.name).unlink(missing_ok=True)
    for folder in (root, root.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def findings(resource: Path) -> Iterator[tuple[Verdict, str, str]]:
    """What `--check` and `doctor` tell: ("ok" | "warn" | "fail", what is so, the cure or "")."""
    try:
        yield from _findings(resource)
    except PunchinError as error:  # a manifest or a script that cannot be read
        yield "fail", f"REAPER: {error}", error.hint


def _findings(resource: Path) -> Iterator[tuple[Verdict, str, str]]:
    folder = resource / SCRIPTS
    known = manifest.read(folder)
    if known is None:
        yield "fail", f"REAPER: Punchin is not installed in {resource}", _again(resource)
        return
    changes = manifest.plan(folder, files(resource))
    old = [change for change in changes if change.what not in ("same", "keep edited")]
    edited = [change.path.name for change in changes if change.what == "keep edited"]
    if old:
        yield "warn", f"REAPER: {len(old)} script files are not this version's ({PACKAGE})", _again(resource)
    else:
        yield "ok", f"REAPER: scripts of version {known.version} in {folder}", ""
    if edited:
        yield "warn", f"REAPER: edited by hand: {', '.join(edited)}", f"{_again(resource)}   (keeps a copy of each)"
    if not (resource / SPOOL).is_dir():
        yield "fail", f"REAPER: the spool {resource / SPOOL} is missing", _again(resource)
    yield _selftest(resource / SELFTEST)


def _again(resource: Path) -> str:
    """The command that mends it, for a REAPER that is not in its usual place too."""
    where = "" if resource in usual_folders() else f" --resource-path {shlex.quote(str(resource))}"
    return f"punchin install reaper{where}"


def _selftest(path: Path) -> tuple[Verdict, str, str]:
    run_it = 'in REAPER, run the action "Punchin - selftest"'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        failed = [f"{check['name']}: {check['found']}" for check in found["checks"] if not check["ok"]]
        where = f"REAPER {found['reaper']}"
    except FileNotFoundError:
        return "warn", "REAPER: the self-test has not run inside it yet", run_it
    except (OSError, ValueError, KeyError, TypeError) as error:
        return "warn", f"REAPER: {path} cannot be read ({error})", run_it
    if failed:
        return "fail", f"{where}: self-test: {'; '.join(failed)}", "send the file " + str(path)
    return "ok", f"{where}: self-test passed, {len(found['checks'])} checks", ""
