"""`python -m punchin.engine.hub pull|rm NAME`: models on this machine. Knows no torch.

A cut download goes on where it stopped. A folder under a name that no known model has is a model of one's own (`own`).
"""

from __future__ import annotations

import errno
import hashlib
import shutil
import sys
from fnmatch import fnmatch
from pathlib import Path
from typing import Final, NamedTuple, TextIO

from punchin.engine.aside import ROOM, Talk, alone, check_free, check_place, copied, put, take_away, watching
from punchin.engine.keys import KNOWN, key_hash, shapes_of, weight_files
from punchin.engine.sources import Folder, HuggingFace, ModelScope, Remote, Source
from punchin.engine.spec import CONFIG_2B, CONFIG_XL
from punchin.protocol import home, installed, stops
from punchin.protocol.errors import BadUsage, PunchinError, Refused
from punchin.protocol.models import BY_NAME, MAIN, MODELS, SHARED, Model
from punchin.protocol.usage import Parser

HUBS: Final = ("huggingface", "modelscope")
_ELSEWHERE: Final = f"name another source: `--from {'`, `--from '.join(HUBS)}`, or `--from FOLDER`"
_NEEDS: Final = {  # a shared part's files of weights, and what it needs beside them
    "vae": ("diffusion_pytorch_model", "config.json"),
    "Qwen3-Embedding-0.6B": ("model", "tokenizer.json"),
}
_WEIGHTS: Final = ("config.json", "silence_latent.pt", "*.safetensors", "*.safetensors.index.json")
_TEXTS: Final = (*_WEIGHTS, "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt")


class Piece(NamedTuple):
    """A folder to fetch: of which repository, and where it will stand below the models folder."""

    repository: str
    folder: str  # in the repository; "" is its root
    place: str


def pieces(model: Model, root: Path) -> list[Piece]:
    """What is missing or broken of a model: its own folder, and VAE and text encoder, which released models share."""
    main = MAIN.rpartition("/")[2]
    folder, usual = (model.folder, f"{main}/{model.folder}") if model.repository == MAIN else ("", model.folder)
    here = installed.folder(model, root) or root / usual
    shared = [Piece(MAIN, part, f"{main}/{part}") for part in SHARED if not _is_whole(here.parent / part)]
    wanted = [Piece(model.repository, folder, str(here.relative_to(root))), *shared]
    return [piece for piece in wanted if not _is_whole(root / piece.place)]


def _is_whole(place: Path) -> bool:
    """Whether all is there that a piece needs, each file of weights to its end."""
    try:
        _check_whole(place)
    except Refused:
        return False
    return True


def _check_whole(place: Path) -> None:
    """Refused with what a piece lacks, or which file of weights is cut."""
    stem, beside = _needs(place.name)
    if absent := [name for name in ("config.json", beside) if not (place / name).is_file()]:
        raise Refused(f"it lacks {' and '.join(absent)}")
    for file in weight_files(place, stem).files:
        shapes_of(file)


def _needs(folder: str) -> tuple[str, str]:
    """The stem of a piece's files of weights, and what it needs beside them and its config."""
    return _NEEDS.get(folder, ("model", "silence_latent.pt"))


def pull(model: Model, source: Source, root: Path, talk: Talk) -> Path:
    """The folder of `model`, fetched from `source` unless it is there; with VAE and text encoder.

    Raises Refused: a model without a repository, another pull under way, too small a disk, a place on another disk or
    behind a link to nothing; PunchinError: the source cannot be reached, was cut, or sent something else than it
    promised.
    """
    if not model.repository:
        raise Refused(f"{model.name} comes with the package; there is nothing to fetch")
    with alone(root) as aside:
        missing = pieces(model, root)
        for piece in missing:
            check_place(root / piece.place, root, aside)
        listed = {piece: _remotes(piece, source) for piece in missing}
        _check_disk(root, aside, listed, source)
        for piece, remotes in listed.items():
            talk.say(f"{piece.place} from {source.name}")
            _fetch(piece, remotes, source, aside, talk)
            _check_fetched(piece, source, aside)
            put(aside / piece.repository / piece.folder, root / piece.place, aside)
        for repository in {piece.repository for piece in missing}:
            shutil.rmtree(aside / repository, ignore_errors=True)
    where = installed.folder(model, root)
    if where is None:
        raise PunchinError(f"{model.name} was fetched, but {root / model.folder} holds no weights")
    return where


def adopt(model: Model, file: Path, root: Path, talk: Talk) -> Path:
    """The folder of `model` around a bare safetensors file of it, which is recognised by its keys and shapes.

    config.json is written from what is known of such files; silence_latent.pt is taken from an installed model.
    """
    kind = KNOWN.get(key_hash(shapes_of(file)))
    if kind != model.family:
        what = f"is a {kind} file" if kind else "is no file of ACE-Step 1.5"
        raise Refused(f"{file} {what}, {model.name} is {model.family}", code="weights")
    released = [installed.folder(each, root) for each in MODELS if each.repository]
    silences = [place / "silence_latent.pt" for place in released if place and (place / "silence_latent.pt").is_file()]
    if not silences:
        raise Refused(
            f"{file} comes without a silence_latent.pt, and no installed model has one", "`punchin models pull turbo`"
        )
    numbers = {**(CONFIG_XL if kind == "xl" else CONFIG_2B), "is_turbo": model.turbo, "model_version": model.name}
    files = {"model.safetensors": file, "silence_latent.pt": silences[0]}
    with alone(root) as aside:
        return copied(files, numbers, root / model.folder, root, aside, talk)


def remove(model: Model, root: Path) -> Path:
    """Delete a model's folder, and the shared parts with the last one that needs them. Returns what was deleted.

    Raises Refused for what was never fetched or taken in, for what lies elsewhere behind a link (of a link to a model
    itself the link goes), and while another pull is under way.
    """
    where = installed.folder(model, root)
    if where is None or model.name in installed.WITH_THE_PACKAGE:
        raise Refused(f"{model.name} was not downloaded; there is nothing to remove")
    if not _is_below(where.parent, root):
        link = next(each for each in (where.parent, *where.parents) if each.is_symlink())
        text = f"{model.name} lies in {where.resolve()}, behind the link {link}: it is not Punchin's to remove"
        raise Refused(text, f"remove the link: rm {link}", code="conflict")
    with alone(root) as aside:
        take_away(where, aside)
        sharing = [each for each in installed.every(root).values() if each.family in ("2b", "xl")]
        if not any(installed.folder(each, root) for each in sharing):
            for part in SHARED:
                place = root / MAIN.rpartition("/")[2] / part
                if _is_below(place.parent, root):
                    take_away(place, aside)
    return where


def _is_below(folder: Path, root: Path) -> bool:
    """Whether a folder is the root or in it, and no link leads out of it."""
    return folder.resolve().is_relative_to(root.resolve())


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
    absent = [name for name in ("config.json", _needs(piece.folder)[1]) if name not in names]
    if absent or not any(name.endswith(".safetensors") for name in names):
        lacks = " and ".join(absent) or "file of weights"
        raise PunchinError(f"{source.name} holds no {piece.place}: no {lacks} in {piece.repository}", _ELSEWHERE)
    return found


def _check_disk(root: Path, aside: Path, listed: dict[Piece, list[Remote]], source: Source) -> None:
    """What is still to come must fit: of a file that is begun, the rest."""
    wanted = [(remote, aside / piece.repository) for piece, remotes in listed.items() for remote in remotes]
    check_free(root, sum(max(0, remote.size_bytes - source.begun(remote, into)) for remote, into in wanted))


def _check_fetched(piece: Piece, source: Source, aside: Path) -> None:
    """Raise PunchinError for a piece that the source holds only in part; what came of it goes."""
    made = aside / piece.repository / piece.folder
    try:
        _check_whole(made)
    except Refused as error:
        shutil.rmtree(made)
        said = str(error).replace(f"{made}/", "").replace(str(made), "it")
        raise PunchinError(f"{source.name} holds no whole {piece.place}: {said}", _ELSEWHERE) from error


def _fetch(piece: Piece, remotes: list[Remote], source: Source, aside: Path, talk: Talk) -> None:
    into = aside / piece.repository
    into.mkdir(parents=True, exist_ok=True)
    total = sum(remote.size_bytes for remote in remotes)
    with watching(into / piece.folder, into, total, talk):
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


def _source(text: str) -> Source:
    if text in HUBS:
        return HuggingFace() if text == "huggingface" else ModelScope()
    path = Path(text).expanduser()
    if not path.is_dir():
        raise BadUsage(f"--from {text}: not a folder, nor a hub", "huggingface, modelscope, a folder, or a file")
    return Folder(path)


def run(words: list[str], out: TextIO, talk: Talk) -> int:
    """One command; the model's folder goes to `out`."""
    parser = Parser(prog="punchin models", description="Fetch or remove models.")
    parser.add_argument("does", choices=("pull", "rm"))
    parser.add_argument("model", metavar="NAME")
    parser.add_argument(
        "--from", dest="source", default="huggingface", metavar="huggingface|modelscope|PATH",
        help="a hub, a folder with models, or one safetensors file (default: %(default)s); "
        "under a NAME of your own a model's folder",
    )  # fmt: skip
    args = parser.read(words, out)
    if args is None:
        return 0
    root = home.models()
    if args.does == "rm":
        talk.say(f"removed {remove(installed.named(args.model, root), root)}")
        return 0
    print(_pulled(args.model, args.source, root, talk), file=out)
    return 0


def _pulled(name: str, given: str, root: Path, talk: Talk) -> Path:
    """The folder of the model `name`, wherever it came from."""
    if name not in BY_NAME:
        return _own(name, given, root, talk)
    model = BY_NAME[name]
    there = installed.folder(model, root)
    if there is not None and not pieces(model, root):
        talk.say(f"{model.name} is here already")
        return there
    if Path(given).expanduser().is_file():
        return adopt(model, Path(given).expanduser(), root, talk)
    return pull(model, _source(given), root, talk)


def _own(name: str, given: str, root: Path, talk: Talk) -> Path:
    folder = Path(given).expanduser()
    if given in HUBS or not folder.is_dir():
        what = "" if given in HUBS else f", and {given} is no folder"
        hint = f"to take in one of your own: punchin models pull {name} --from FOLDER"
        raise BadUsage(f'there is no model "{name}"; there are {", ".join(BY_NAME)}{what}', hint)
    from punchin.engine import own  # it knows the modules whose weights it checks, and so torch

    return own.take_in(name, folder, root, talk)


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
        hint = f"\n  {ROOM}; the same command goes on" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        talk.say(f"error: {error.strerror or error}: {error.filename2 or error.filename or home.models()}{hint}")
        return 1
    except KeyboardInterrupt:
        talk.say("stopped; the same command finishes it")
        return 130


if __name__ == "__main__":
    sys.exit(main())
