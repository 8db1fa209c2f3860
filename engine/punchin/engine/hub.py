"""`python -m punchin.engine.hub pull|rm NAME`: models on this machine. Knows no torch.

What is downloaded stands aside until it is whole and checked, and then takes its place in one move, so that nobody
finds half a model. A cut download goes on where it stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from punchin.engine.keys import KNOWN, key_hash, shapes_of
from punchin.engine.sources import Folder, HuggingFace, ModelScope, Remote, Source
from punchin.engine.spec import CONFIG_2B, CONFIG_XL
from punchin.protocol import home, installed, lock, stops
from punchin.protocol.errors import BadUsage, PunchinError, Refused
from punchin.protocol.models import BY_NAME, MODELS, Model

MAIN: Final = BY_NAME["turbo"].repository  # it also holds the shared parts
SHARED: Final = ("vae", "Qwen3-Embedding-0.6B")
_WEIGHTS: Final = ("config.json", "silence_latent.pt", "*.safetensors", "*.safetensors.index.json")
_TEXTS: Final = (*_WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")
_SPARE_BYTES: Final = 64 * 2**20  # left free on the disk


class Piece(NamedTuple):
    """A folder to fetch: of which repository, and where it will stand below the models folder."""

    repository: str
    folder: str  # in the repository; "" is its root
    place: str


def pieces(model: Model, root: Path) -> list[Piece]:
    """What is missing of a model: its own folder, and VAE and text encoder, which all released models share."""
    main = MAIN.rpartition("/")[2]
    wanted = [Piece(MAIN, part, f"{main}/{part}") for part in SHARED]
    if model.repository == MAIN:
        wanted.insert(0, Piece(MAIN, model.folder, f"{main}/{model.folder}"))
    else:
        wanted.insert(0, Piece(model.repository, "", model.folder))
    return [piece for piece in wanted if not (root / piece.place / "config.json").is_file()]


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


def pull(model: Model, source: Source, root: Path, talk: Talk) -> Path:
    """The folder of `model`, fetched from `source` unless it is there; with VAE and text encoder.

    Raises Refused: a model without a repository, another pull under way, too small a disk; PunchinError: the source
    cannot be reached, was cut, or sent something else than it promised.
    """
    if not model.repository:
        raise Refused(f"{model.name} comes with the package; there is nothing to fetch")
    aside = root / ".pulling"
    aside.mkdir(parents=True, exist_ok=True)
    with _alone(aside):
        missing = pieces(model, root)
        listed = {piece: _remotes(piece, source) for piece in missing}
        _check_disk(aside, listed)
        for piece, remotes in listed.items():
            talk.say(f"{piece.place} from {source.name}")
            _fetch(piece, remotes, source, aside, talk)
            _put(aside / piece.repository / piece.folder, root / piece.place, aside)
        for repository in {piece.repository for piece in missing}:
            shutil.rmtree(aside / repository, ignore_errors=True)
    where = installed.folder(model, root)
    if where is None:
        raise PunchinError(f"{model.name} was fetched, but {root / model.folder} holds no weights")
    return where


def adopt(model: Model, file: Path, root: Path) -> Path:
    """The folder of `model` around a bare safetensors file of it, which is recognised by its keys and shapes.

    config.json is written from what is known of such files; silence_latent.pt is taken from an installed model.
    """
    kind = KNOWN.get(key_hash(shapes_of(file)))
    if kind != model.family:
        what = f"is a {kind} file" if kind else "is no file of ACE-Step 1.5"
        raise Refused(f"{file} {what}, {model.name} is {model.family}", code="weights")
    silence = next(iter(sorted(root.glob("*/silence_latent.pt")) + sorted(root.glob("*/*/silence_latent.pt"))), None)
    if silence is None:
        raise Refused(
            f"{file} comes without a silence_latent.pt, and no installed model has one", "`punchin models pull turbo`"
        )
    aside = root / ".pulling" / "bare" / model.folder
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    _check_free(aside, file.stat().st_size)
    shutil.copyfile(file, aside / "model.safetensors")
    shutil.copyfile(silence, aside / "silence_latent.pt")
    numbers = {**(CONFIG_XL if kind == "xl" else CONFIG_2B), "is_turbo": model.turbo, "model_version": model.name}
    (aside / "config.json").write_text(json.dumps(numbers, indent=2) + "\n")
    place = root / model.folder
    _put(aside, place, root / ".pulling")
    return place


def remove(model: Model, root: Path) -> Path:
    """Delete a model's folder, and the shared parts with the last one that needs them. Returns what was deleted."""
    where = installed.folder(model, root)
    if where is None or model.family in installed.WITH_THE_PACKAGE:
        raise Refused(f"{model.name} was not downloaded; there is nothing to remove")
    shutil.rmtree(where)
    others = [each for each in MODELS if each.repository and installed.folder(each, root) is not None]
    if not others:
        for part in SHARED:
            shutil.rmtree(root / MAIN.rpartition("/")[2] / part, ignore_errors=True)
    return where


@contextmanager
def _alone(aside: Path) -> Iterator[None]:
    held = lock.take(aside / "lock")
    if held is None:
        raise Refused(f"another pull is under way in {aside.parent}", "wait for it", code="busy")
    try:
        yield
    finally:
        held.release()


def _remotes(piece: Piece, source: Source) -> list[Remote]:
    """The files of a piece that the engine reads; code and other models in the repository stay where they are."""
    prefix = f"{piece.folder}/" if piece.folder else ""
    patterns = _TEXTS if piece.folder in SHARED else _WEIGHTS
    found = [
        each
        for each in source.files(piece.repository)
        if each.path.startswith(prefix)
        and "/" not in each.path[len(prefix) :]
        and any(fnmatch(each.path[len(prefix) :], pattern) for pattern in patterns)
    ]
    names = {each.path[len(prefix) :] for each in found}
    if "config.json" not in names or not any(name.endswith(".safetensors") for name in names):
        raise PunchinError(f"{source.name} holds no {piece.place}: no config.json with weights in {piece.repository}")
    return found


def _check_disk(aside: Path, listed: dict[Piece, list[Remote]]) -> None:
    there = sum(_size(aside / repository) for repository in {piece.repository for piece in listed})
    _check_free(aside, sum(remote.size_bytes for remotes in listed.values() for remote in remotes) - there)


def _check_free(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if needed + _SPARE_BYTES > free:
        amounts = f"{(needed + _SPARE_BYTES) / 1e9:.2f} GB are needed in {place.parent}, {free / 1e9:.2f} GB are free"
        raise Refused(amounts, "free some, or set PUNCHIN_MODELS to a folder on another disk", code="disk")


def _fetch(piece: Piece, remotes: list[Remote], source: Source, aside: Path, talk: Talk) -> None:
    into = aside / piece.repository
    into.mkdir(parents=True, exist_ok=True)
    total = sum(remote.size_bytes for remote in remotes)
    with _watching(into / piece.folder, into, total, talk):
        for remote in remotes:
            path = into / remote.path
            if not path.is_file() or path.stat().st_size != remote.size_bytes:
                source.fetch(piece.repository, remote, into)
    for remote in remotes:
        _check_file(into / remote.path, remote, source)


def _check_file(path: Path, remote: Remote, source: Source) -> None:
    size = path.stat().st_size
    wrong = f"{size} bytes, {source.name} says {remote.size_bytes}" if size != remote.size_bytes else ""
    if not wrong and remote.sha256:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        wrong = f"sha256 {found[:16]}, {source.name} says {remote.sha256[:16]}" if found != remote.sha256 else ""
    if wrong:
        path.unlink()
        raise PunchinError(f"{remote.path} arrived with {wrong}; it was deleted", "run it again")


@contextmanager
def _watching(folder: Path, client: Path, total: int, talk: Talk) -> Iterator[None]:
    """Tell how many bytes are on the disk, whichever client writes them, until the block ends."""
    end = threading.Event()

    def here() -> int:
        return _size(folder) + sum(_size(client / each) for each in (".cache", "._____temp") if folder != client)

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


def _put(made: Path, place: Path, aside: Path) -> None:
    """Move a whole piece to its place; what a client left beside it goes."""
    for rest in (".cache", "._____temp", ".msc", ".mv"):
        remains = made / rest
        if remains.is_dir():
            shutil.rmtree(remains)
        elif remains.exists():
            remains.unlink()
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.exists():  # an earlier, broken one: nothing of it was found to be a model
        os.replace(place, aside / f"old-{place.name}-{os.getpid()}")
    os.replace(made, place)
    for old in aside.glob("old-*"):
        shutil.rmtree(old)


def _size(folder: Path) -> int:
    """Bytes in a folder now; files that vanish while it is read count nothing."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except FileNotFoundError:
                continue
    return total


def _source(text: str) -> Source:
    if text in ("huggingface", "modelscope"):
        return HuggingFace() if text == "huggingface" else ModelScope()
    path = Path(text).expanduser()
    if not path.is_dir():
        raise BadUsage(f"--from {text}: not a folder, nor a hub", "huggingface, modelscope, a folder, or a file")
    return Folder(path)


def run(words: list[str], out: TextIO, talk: Talk) -> int:
    """One command; the model's folder goes to `out`."""
    parser = argparse.ArgumentParser(prog="punchin models", description="Fetch or remove models.")
    parser.add_argument("does", choices=("pull", "rm"))
    parser.add_argument("model", metavar="NAME", choices=[model.name for model in MODELS])
    parser.add_argument(
        "--from", dest="source", default="huggingface", metavar="huggingface|modelscope|PATH",
        help="a hub, a folder with models, or one safetensors file (default: %(default)s)",
    )  # fmt: skip
    args = parser.parse_args(words)
    model, root = BY_NAME[args.model], home.models()
    if args.does == "rm":
        talk.say(f"removed {remove(model, root)}")
        return 0
    there = installed.folder(model, root)
    if there is not None and not pieces(model, root):
        talk.say(f"{model.name} is here already")
    elif Path(args.source).expanduser().is_file():
        there = adopt(model, Path(args.source).expanduser(), root)
    else:
        there = pull(model, _source(args.source), root, talk)
    print(there, file=out)
    return 0


def main() -> int:
    """The command line; errors become text and exit codes here alone."""
    talk = Talk(sys.stderr)
    try:
        stops.heard()
        return run(sys.argv[1:], sys.stdout, talk)
    except PunchinError as error:
        talk.say(f"error: {error}" + (f"\n  {error.hint}" if error.hint else ""))
        return error.exit_code
    except OSError as error:
        talk.say(f"error: {error.strerror or error}: {error.filename or home.models()}")
        return 1
    except KeyboardInterrupt:
        talk.say("stopped; the same command goes on where it stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
