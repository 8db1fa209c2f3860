"""What a dataset says: which recordings there are and what is known of them.

Read are DiffSynth-Studio's metadata (`.json`, a list of objects; `.jsonl`; `.csv`), the original repository's dataset
JSON (`metadata` and `samples`), and a bare folder of audio, each file with a `.txt` of lyrics or a `.json` of its own
beside it where there is one.
"""

from __future__ import annotations

import csv
import io
import json
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from punchin.engine import prompts
from punchin.protocol import limits
from punchin.protocol.errors import PunchinError, Refused
from punchin.training.state import LOCK

AUDIO: Final = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus", ".m4a"})
KNOWN: Final = frozenset({"audio", "prompt", "lyrics", "bpm", "keyscale", "timesignature", "vocal_language"})
SAMPLES: Final = "samples"  # in a training's folder: what it plays while it learns
EXTRA: Final = frozenset({"reference_audios", "src_audio", "task_type", "instrument"})  # what `extra_inputs` may name
_HINT: Final = (
    "keys are audio and prompt, and of these what is known: lyrics, bpm, keyscale, timesignature, vocal_language"
)


@dataclass(frozen=True, kw_only=True)
class Item:
    """One recording and what is known of it. `extra`: what `extra_inputs` names, paths made whole."""

    audio: Path
    prompt: str
    lyrics: str = ""
    bpm: float | None = None
    keyscale: str | None = None
    timesignature: str | None = None
    vocal_language: str = "unknown"
    extra: Mapping[str, Any] = field(default_factory=dict)

    def metas(self, seconds: float) -> str:
        """The prompt's lines of metadata."""
        return prompts.metas(self.bpm, self.keyscale, self.timesignature, seconds)


def read(
    base: Path, metadata: Path | None = None, file_keys: Sequence[str] = ("audio",), extra: Sequence[str] = (),
    say: Callable[[str], None] = lambda text: None,
) -> list[Item]:  # fmt: skip
    """The items of a dataset: those of `metadata` with paths below `base`, or the audio below `base` itself.

    file_keys: which keys hold paths. extra: which further keys are taken; the rest is told to `say`. Raises Refused
    for a missing file, an empty dataset, missing or unreadable keys, with the row's number. Whether the audio can be
    read shows when it is read.
    """
    if not base.is_dir():
        raise Refused(f"there is no dataset folder {base}", code="dataset")
    for name in extra:
        if name not in EXTRA:
            raise Refused(f"extra_inputs names {name!r}", f"one of: {', '.join(sorted(EXTRA))}", code="dataset")
    if metadata is None:
        items = _folder(base, file_keys, extra)
    else:
        rows = _rows(metadata)
        if unused := sorted({key for row in rows for key in row if key} - KNOWN - {*extra}):
            say(f"{metadata.name} has keys that are not used: {', '.join(unused)}")
        items = [
            _item(row, f"{metadata.name}, entry {n}", base, file_keys, extra) for n, row in enumerate(rows, start=1)
        ]
    if not items:
        raise Refused(f"{metadata or base} holds nothing to train on", _HINT, code="dataset")
    return items


def _rows(metadata: Path) -> list[dict[str, Any]]:
    if not metadata.is_file():
        raise Refused(f"there is no metadata file {metadata}", code="dataset")
    try:
        text, kind = metadata.read_text(encoding="utf-8-sig"), metadata.suffix.lower()
        if kind == ".csv":
            return _table(text, metadata.name)
        if kind == ".jsonl":  # a text in it may hold other ends of line than this one
            rows = [json.loads(line, object_pairs_hook=_once) for line in text.split("\n") if line.strip()]
        elif kind == ".json":
            rows = json.loads(text, object_pairs_hook=_once)
        else:
            raise Refused(f"{metadata.name} is no metadata", "give a .json, .jsonl or .csv file", code="dataset")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise Refused(f"{metadata} cannot be read: {error}", code="dataset") from error
    if isinstance(rows, dict) and isinstance(rows.get("samples"), list):
        return _original(rows, metadata.name)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise Refused(f"{metadata} is no list of objects", _HINT, code="dataset")
    return rows


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON. Raises ValueError for a key that it has twice: the first value would go without a word."""
    told: dict[str, Any] = {}
    for key, value in pairs:
        if key in told:
            raise ValueError(f"an object has the key {key!r} twice: {told[key]!r} and {value!r}")
        told[key] = value
    return told


def _table(text: str, name: str) -> list[dict[str, Any]]:
    """The rows of a .csv, empty ones left out. Where its first line has no comma, semicolons are between the cells."""
    first = text.partition("\n")[0]
    between = ";" if ";" in first and "," not in first else ","
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=between, strict=True)  # quotes must end
    columns = [each.strip() for each in rows.fieldnames or ()]
    for column in columns:
        if column and (count := columns.count(column)) > 1:
            raise Refused(f"{name} has {count} columns named {column}", "rename or remove all but one", code="dataset")
    return [_cells(row, name, n, between) for n, row in enumerate(rows, 1) if any(row.values())]


def _cells(row: Mapping[str | None, Any], name: str, number: int, between: str) -> dict[str, Any]:
    """A row of a .csv; lyrics may have several lines in quotes."""
    if None in row:
        many = f"{len(row) - 1 + len(row[None])} cells, the first line has {len(row) - 1}"
        raise Refused(f"{name}, entry {number} has {many}", f"put text with `{between}` in quotes", code="dataset")
    return {str(key).strip(): value for key, value in row.items()}


def _item(row: Mapping[str, Any], where: str, base: Path, file_keys: Sequence[str], extra: Sequence[str]) -> Item:
    """One row. Blank cells are what is not known."""
    told = {key: value for key, value in row.items() if value not in (None, []) and str(value).strip()}
    paths = {key: _whole(told[key], base, f"{where}, {key}") for key in file_keys if key in told}
    for key in ("audio", "prompt"):
        if key not in told:
            raise Refused(
                f"{where} has no {key!r}; it has {', '.join(sorted(told)) or 'nothing'}", _HINT, code="dataset"
            )
    if "audio" not in paths:
        raise Refused(f"data_file_keys is {','.join(file_keys)}, without audio", "add audio", code="dataset")
    lacking = [key for key in extra if key not in told]
    if lacking:
        raise Refused(f"{where} has no {lacking[0]!r}, which extra_inputs asks for", code="dataset")
    if not isinstance(paths["audio"], Path):
        raise Refused(f"{where}, audio is {told['audio']!r}, and must be one path", code="dataset")
    item = Item(
        audio=paths["audio"],
        prompt=_text(told, "prompt", where),
        lyrics=_text(told, "lyrics", where),
        bpm=_number(told.get("bpm"), f"{where}, bpm"),
        keyscale=_known(told.get("keyscale")),
        timesignature=_known(told.get("timesignature")),
        vocal_language=_text(told, "vocal_language", where) or "unknown",
        extra={key: paths[key] if key in paths else _text(told, key, where) for key in extra},
    )
    try:
        item.metas(30)
    except PunchinError as error:
        raise Refused(f"{where}: {error}", error.hint, code="dataset") from error
    return item


def _whole(value: Any, base: Path, where: str) -> Any:
    """A path, or a list of them, below `base` unless absolute."""
    if isinstance(value, list):
        return [_whole(each, base, where) for each in value]
    if not isinstance(value, str):
        raise Refused(f"{where} is {value!r}, and must be a path", code="dataset")
    try:
        return base / Path(value).expanduser()
    except RuntimeError as error:  # `~NAME` of nobody here
        raise Refused(f"{where} is {value!r}: {error}", code="dataset") from error


def _text(told: Mapping[str, Any], key: str, where: str) -> str:
    value = told.get(key, "")
    if not isinstance(value, str):
        hint = "with commas between several: drums,bass" if key == "instrument" else ""
        raise Refused(f"{where}, {key} is {value!r}, and must be text", hint, code="dataset")
    if any("\ud800" <= each <= "\udfff" for each in value):
        raise Refused(f"{where}, {key} is {value!r}: halves of characters", "write it as UTF-8", code="dataset")
    return value


def _number(value: Any, where: str) -> float | None:
    if value is None or str(value).strip().upper() == prompts.UNKNOWN:
        return None
    try:
        number = float(value)
        limits.TEMPO.check(number)
    except (TypeError, ValueError, OverflowError, PunchinError) as error:
        raise Refused(f"{where} is {value!r}: {error}", code="dataset") from error
    return number


def _known(value: Any) -> str | None:
    return None if value is None or str(value).strip().upper() == prompts.UNKNOWN else str(value).strip()


def _folder(base: Path, file_keys: Sequence[str], extra: Sequence[str]) -> list[Item]:
    """Audio below a folder, in the order of its names; the prompt is told by the file beside it or by the name.

    Paths in that file are below its own folder. A recording that another one's file names, as its source or reference,
    is no item unless its own file says all that `extra` asks for.
    """
    rows = [(path, _beside(path)) for path in _audio(base, frozenset())]
    keys = [key for key in file_keys if key in extra]
    named = {each for path, row in rows for key in keys for each in _others(path, row.get(key))}
    return [
        _item(row, str(path), path.parent, ["audio", *file_keys], extra)
        for path, row in rows
        if path.resolve() not in named or all(row.get(key) for key in extra)
    ]


def _beside(path: Path) -> dict[str, Any]:
    """What the files beside a recording say of it, and its name."""
    own, lyrics = path.with_suffix(".json"), path.with_suffix(".txt")
    name = os.fsencode(path.stem).decode(errors="replace")  # old names are not all UTF-8
    row: dict[str, Any] = {"prompt": name.replace("_", " ").replace("-", " ")}
    if lyrics.is_file():
        row["lyrics"] = _read(lyrics).strip()
    if own.is_file():
        row |= _renamed(_object(own))
    return row | {"audio": str(path.resolve())}


def _others(path: Path, value: Any) -> Iterator[Path]:
    """The other recordings that a key of what lies beside `path` names."""
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, str) and (other := (path.parent / os.path.expanduser(name)).resolve()) != path.resolve():
            yield other


def _audio(folder: Path, above: frozenset[Path]) -> Iterator[Path]:
    """Audio below a folder, through links too but in no circle; without what is hidden, or what a training played."""
    above |= {folder.resolve()}
    try:
        every = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise Refused(f"{folder} cannot be read: {error.strerror}", code="dataset") from error
    for path in every:
        if not path.is_dir():
            yield from [path] if path.suffix.lower() in AUDIO else []
        elif path.resolve() not in above and not (path.name == SAMPLES and (folder / LOCK).exists()):
            yield from _audio(path, above)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise Refused(f"{path} cannot be read: {error}", code="dataset") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(_read(path), object_pairs_hook=_once)
    except ValueError as error:
        raise Refused(f"{path} cannot be read: {error}", code="dataset") from error
    if not isinstance(said, dict):
        raise Refused(f"{path} is no object", _HINT, code="dataset")
    return said


def _original(dataset: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    """The original repository's samples as rows: tag, genre share and override applied as its own loader does."""
    about = dataset.get("metadata") or {}
    if not isinstance(about, dict) or not all(isinstance(sample, dict) for sample in dataset["samples"]):
        raise Refused(f"{where} has metadata or samples that are no objects", code="dataset")
    try:
        by_genre_percent = float(about.get("genre_ratio") or 0)
    except (TypeError, ValueError) as error:
        raise Refused(
            f"{where}, genre_ratio is {about['genre_ratio']!r}, and must be 0 to 100", code="dataset"
        ) from error
    chance = random.Random(0)  # which samples are told by genre: the same each time
    rows: list[dict[str, Any]] = []
    for sample in dataset["samples"]:
        row = _renamed(sample)
        by_genre = sample.get("prompt_override") == "genre" or (
            sample.get("prompt_override") is None and chance.random() * 100 < by_genre_percent
        )
        said = (sample.get("genre") if by_genre else None) or sample.get("caption") or ""
        tag = sample.get("custom_tag") or about.get("custom_tag") or ""
        row["prompt"] = _tagged(said, tag, about.get("tag_position") or "prepend")
        if sample.get("is_instrumental") or about.get("all_instrumental"):
            row["lyrics"] = ""
        rows.append({key: row[key] for key in row if key in KNOWN | EXTRA})  # the rest is for its own pages
    return rows


def _tagged(said: str, tag: str, position: str) -> str:
    if not tag:
        return said
    return {"prepend": f"{tag}, {said}", "append": f"{said}, {tag}", "replace": tag}.get(str(position), said)


def _renamed(sample: Mapping[str, Any]) -> dict[str, Any]:
    """The original's names as DiffSynth's."""
    names = {"audio_path": "audio", "caption": "prompt", "language": "vocal_language"}
    row = {names.get(key, key): value for key, value in sample.items()}
    if "audio" not in row and "filename" in row:
        row["audio"] = row["filename"]
    if str(row.get("lyrics", "")).strip().lower() == prompts.INSTRUMENTAL.lower():
        row["lyrics"] = ""
    return row
