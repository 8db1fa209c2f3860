"""What comes into the models folder stands aside in it until it is whole, and then takes its place in one move.

So nobody finds half a model, whenever a process or the machine stops. Knows no torch.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Final, TextIO

from punchin.protocol import lock
from punchin.protocol.errors import Refused

ASIDE: Final = ".pulling"  # below the models folder
ROOM: Final = "free some, or set PUNCHIN_MODELS to a folder on another disk"  # what to do where a disk is full
_REMAINS: Final = ("*.part", "*.incomplete", ".cache", "._____temp", ".msc", ".mv")  # what clients leave behind
_WEIGHTS: Final = ("model*.safetensors*", "diffusion_pytorch_model*.safetensors*")
_SPARE_BYTES: Final = 64 * 2**20  # left free on the disk


class Talk:
    """Progress for people on a stream: one changing line on a terminal, else a line every tenth."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._live, self._tenth = stream, stream.isatty(), -1

    def say(self, text: str) -> None:
        """A line."""
        end = "\x1b[K\n" if self._live else "\n"
        self._stream.write(f"{text}{end}")
        self._stream.flush()

    def bytes(self, done: int, total: int) -> None:
        """How many bytes are here."""
        part = min(done, total) / total if total else 1.0
        if not self._live and int(part * 10) == self._tenth:
            return
        self._tenth = int(part * 10)
        self._stream.write(
            f"  {done / 1e6:,.1f} of {total / 1e6:,.1f} MB  {part:4.0%}" + ("\x1b[K\r" if self._live else "\n")
        )
        self._stream.flush()


@contextmanager
def alone(root: Path) -> Iterator[Path]:
    """The folder where things stand aside below `root`, for one process at a time. Raises Refused (`busy`)."""
    aside = root / ASIDE
    aside.mkdir(parents=True, exist_ok=True)
    held = lock.take(aside / "lock")
    if held is None:
        raise Refused(f"another pull is under way in {root}", "wait for it", code="busy")
    try:
        yield aside
    finally:
        held.release()


def check_free(root: Path, needed: int) -> None:
    """Refused (`disk`) unless `needed` bytes, and some to spare, are free in the models folder."""
    free = shutil.disk_usage(root).free
    if needed + _SPARE_BYTES > free:
        amounts = f"{(needed + _SPARE_BYTES) / 1e9:.2f} GB are needed in {root}, {free / 1e9:.2f} GB are free"
        raise Refused(amounts, ROOM, code="disk")


@contextmanager
def watching(folder: Path, client: Path, total: int, talk: Talk) -> Iterator[None]:
    """Tell how many bytes are on the disk, whichever client writes them, until the block ends."""
    end = threading.Event()

    def here() -> int:
        return size_of(folder) + sum(size_of(client / each) for each in (".cache", "._____temp") if folder != client)

    def watch() -> None:
        while not end.wait(0.5):
            talk.bytes(here(), total)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        talk.bytes(here(), total)
    finally:
        end.set()
        thread.join()


def check_place(place: Path, root: Path, aside: Path) -> None:
    """Refused, before anything is fetched, for a place that `put` cannot fill: behind a link to nothing, or on another
    disk than `aside` is, from where a model comes in one move.
    """
    for each in (place, place.parent):
        if each.is_symlink() and not each.exists():
            text = f"{each} is a link to {os.readlink(each)}, which is not there"
            raise Refused(text, f"bring that disk back, or remove the link: rm {each}", code="disk")
    if place.parent.is_dir() and place.parent.stat().st_dev != aside.stat().st_dev:
        text = f"{place.parent} is on another disk than {root}, and a model must come there in one move"
        raise Refused(text, "keep all models on that disk: set PUNCHIN_MODELS to a folder there", code="disk")


def put(made: Path, place: Path, aside: Path) -> None:
    """Move a whole piece to its place; what a client left beside it goes.

    Of an earlier, broken one there what is no model's comes along: somebody may keep notes or a LoRA with it.
    """
    for remains in [each for rest in _REMAINS for each in made.glob(rest)]:
        if remains.is_dir():
            shutil.rmtree(remains)
        else:
            remains.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():  # an earlier, broken one: nothing of it was found to be a model
        _bring_along(place, made)
        os.replace(place, aside / f"old-{place.name}-{os.getpid()}")
    os.replace(made, place)
    sweep(aside)


def _bring_along(place: Path, made: Path) -> None:
    """Links in `made` to what only `place` has and no model needs: wherever we are killed, it has its place."""
    if place.is_symlink():  # the folder stays where it is, with all that is in it
        return
    for path in place.iterdir():
        model = any(fnmatch(path.name, pattern) for pattern in (*_WEIGHTS, *_REMAINS))
        if model or (made / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, made / path.name, symlinks=True, copy_function=_linked)
        else:
            _linked(path, made / path.name)


def _linked(path: str | Path, to: str | Path) -> None:
    try:
        os.link(path, to, follow_symlinks=False)
    except OSError:  # a file system without links
        shutil.copy2(path, to, follow_symlinks=False)


def copied(
    files: Mapping[str, Path], config: Mapping[str, Any], place: Path, root: Path, aside: Path, talk: Talk
) -> Path:
    """`place` below `root`, made of copies of `files` (by their names there) and of a config.json; nothing on failure.

    Raises Refused (`disk`) before anything is copied, and OSError.
    """
    made = aside / "copied"
    shutil.rmtree(made, ignore_errors=True)  # of a process that was killed
    total = sum(file.stat().st_size for file in files.values())
    check_place(place, root, aside)
    check_free(root, total)
    try:
        with watching(made, made, total, talk):
            for name, file in files.items():
                (made / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, made / name)
        (made / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        put(made, place, aside)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return place


def take_away(place: Path, aside: Path) -> None:
    """Delete a folder that has its place, if it is there: it goes in one move, as it came, and then file by file."""
    if place.exists():
        os.replace(place, aside / f"old-{place.name}-{os.getpid()}")
    sweep(aside)


def sweep(aside: Path) -> None:
    """Delete what was moved aside, by a process that was killed before it could too."""
    for old in aside.glob("old-*"):
        if old.is_symlink():  # somebody's folder on another disk, which stays theirs
            old.unlink()
        else:
            shutil.rmtree(old)


def size_of(folder: Path) -> int:
    """Bytes in a folder now; files that vanish while it is read count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total
