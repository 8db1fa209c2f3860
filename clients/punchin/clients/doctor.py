"""Is everything here that a region needs on its way? Each check gives facts, and a cure where something is amiss.

Nothing heavy is imported: packages are looked up by their metadata, the engine's device is what its worker said.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from punchin.protocol import home, installed, models
from punchin.protocol.errors import PunchinError
from punchin.protocol.version import PACKAGE, PROTOCOL

if TYPE_CHECKING:
    from punchin.protocol.messages import Examined, Status

Verdict = Literal["ok", "warn", "fail"]

SEND = "punchin doctor --report; its file says more, and can be sent to somebody"
LOG_LINES = 200
TIGHT_BYTES = 2 * 2**30  # under this much free disk a session's takes and a model's cache soon do not fit


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's: what is so, and what to do about it ("" where nothing need be)."""

    verdict: Verdict
    text: str
    cure: str = ""


def findings() -> Iterator[Finding]:
    """All checks in order, each as soon as it is made. A daemon is started if there is none: that is one of them."""
    for check in (_python, _base, _engine, _plugin_host, _folders, _models, _reaper):
        try:
            yield from check()
        except OSError as error:
            text = f"{error.filename or check.__name__.strip('_')} cannot be looked into: {error.strerror or error}"
            yield Finding("fail", text, "ask its owner, or set PUNCHIN_HOME and PUNCHIN_MODELS to folders of yours")
    yield from _daemon()


def _python() -> Iterator[Finding]:
    yield Finding("ok", f"python {platform.python_version()}, punchin {PACKAGE}, protocol {PROTOCOL}")


def _reaper() -> Iterator[Finding]:
    """Only where it is installed: most machines have no REAPER, and one elsewhere has `install reaper --check`."""
    from punchin.clients.install import manifest, reaper

    for folder in reaper.usual_folders():
        if (folder / reaper.SCRIPTS / manifest.NAME).is_file():
            for verdict, text, cure in reaper.findings(folder):
                yield Finding(verdict, text, cure)


def _base() -> Iterator[Finding]:
    import zmq

    ways = [name for name in ("ipc", "curve") if zmq.has(name)]
    verdict: Verdict = "ok" if ways else "fail"
    cure = "" if ways else "pip install --force-reinstall pyzmq"
    yield Finding(verdict, f"zeromq {zmq.zmq_version()}: {', '.join(ways) or 'neither ipc nor curve'}", cure)
    try:
        import soundfile
    except OSError as error:  # the wheel for this system has no libsndfile in it
        yield Finding("fail", f"libsndfile cannot be loaded: {error}", "apt-get install libsndfile1")
    else:
        yield Finding("ok", f"libsndfile {soundfile.__libsndfile_version__.removeprefix('libsndfile-')}")


def _engine() -> Iterator[Finding]:
    missing = [name for name in ("torch", "transformers", "safetensors") if importlib.util.find_spec(name) is None]
    if missing:
        yield Finding("fail", f"the engine lacks {', '.join(missing)}", 'pip install "punchin[engine]"')
    else:
        yield Finding(
            "ok", f"engine: torch {metadata.version('torch')}, transformers {metadata.version('transformers')}"
        )


def _plugin_host() -> Iterator[Finding]:
    if importlib.util.find_spec("pedalboard") is None:
        yield Finding(
            "warn", "no plug-in host: --pre-fx, --return-fx and play do not work", 'pip install "punchin[host]"'
        )
    else:
        yield Finding("ok", f"plug-in host: pedalboard {metadata.version('pedalboard')}")


def _folders() -> Iterator[Finding]:
    for name, folder in (("state", home.state()), ("models", home.models())):
        there = next(path for path in (folder, *folder.parents) if _is_there(path))
        free = shutil.disk_usage(there).free
        verdict: Verdict = "warn" if free < TIGHT_BYTES else "ok"
        cure = f"free space on the disk of {there}" if verdict == "warn" else ""
        yield Finding(verdict, f"{name} in {folder}, {free / 2**30:.1f} GiB free", cure)


def _is_there(path: Path) -> bool:
    """Whether something is there. Raises OSError where nobody may look."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _models() -> Iterator[Finding]:
    found = [model.name for model in models.MODELS if model.repository and installed.is_here(model)]
    if found:
        yield Finding("ok", f"models: {', '.join(found)}")
    else:
        size = installed.to_fetch_bytes(models.BY_NAME["turbo"]) / 1e9
        yield Finding("warn", "no model but the demo model (tiny)", f"punchin models pull turbo   ({size:.1f} GB)")
    if own := [f"{model.name} (like {model.like})" for model in installed.own().values()]:
        yield Finding("ok", f"models of your own: {', '.join(own)}")


def _daemon() -> Iterator[Finding]:
    from punchin.clients.connect import connect

    try:
        with connect(start=True, name="doctor") as client:
            status, disk = client.status(), client.examine()
    except PunchinError as error:
        sends_here = not error.hint or error.hint.startswith("punchin doctor")
        yield Finding("fail", str(error), SEND if sends_here else error.hint)
        return
    yield from _daemon_itself(status)
    yield from _store(disk)


def _daemon_itself(status: Status) -> Iterator[Finding]:
    if status.version == PACKAGE:
        yield Finding("ok", f"daemon {status.version}, pid {status.pid}, {status.transport}")
    else:
        yield Finding("warn", f"daemon is {status.version}, this punchin is {PACKAGE}", "punchin stop --when-idle")
    if status.paused:
        yield Finding("warn", f"the queue is paused: {status.paused_why}", "punchin resume")
    if status.trouble:
        yield Finding("fail", status.trouble, status.trouble_hint)
    worker = status.worker
    if worker is not None and worker.device:
        yield Finding("ok", f"engine worker on {worker.device}{f': {worker.plan}' if worker.plan else ''}")


def _store(disk: Examined) -> Iterator[Finding]:
    sound = disk.journal == "ok"
    kept = f"{disk.store_bytes / 2**30:.1f} of {disk.store_limit_bytes / 2**30:.0f} GiB"
    yield Finding(
        "ok" if sound else "fail",
        f"journal {disk.journal}, {disk.journal_jobs} jobs; store {kept}",
        "" if sound else f"punchin stop, then move {home.state()} away: its jobs are forgotten, landed takes stay",
    )
    if disk.damaged_jobs:
        text = f"jobs that are damaged in the journal: {', '.join(disk.damaged_jobs)}"
        yield Finding("warn", text, "ask for their takes again; those that have landed stay")
    if disk.missing_blobs:
        text = f"{disk.missing_blobs} takes of done jobs are not, or not whole, in the store"
        yield Finding("fail", text, "punchin redo ID makes one again; those that have landed are not touched")
    if disk.store_bytes > disk.store_limit_bytes:
        yield Finding("warn", f"the store is over its {disk.store_limit_bytes / 2**30:.0f} GiB", "punchin gc")


def report(lines: list[str]) -> Path:
    """Write findings and the end of each log into one file that can be sent to somebody. Gives its path.

    Raises PunchinError.
    """
    folder = home.state()
    path = folder / "doctor-report.txt"
    parts = [f"{platform.platform()}, {sys.executable}", *lines]
    logs = [*(folder / "logs").glob("*.log"), *(folder / "logs").glob("*.stderr"), *folder.glob("crash-*.txt")]
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for log in sorted(logs):
            parts += ["", f"== {log}", *log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_LINES:]]
        path.touch(mode=0o600)
        path.write_text("\n".join([*parts, ""]), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise PunchinError(
            f"the report cannot be written to {path}: {error.strerror}", "copy the lines above instead"
        ) from error
    return path
