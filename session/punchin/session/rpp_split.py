"""An item cut into parts by writing its lines again; nothing of it is lost, and no other line is touched."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping, Sequence

from punchin.session.rpp import Document, Edits
from punchin.session.rpp import number as text_of
from punchin.session.rpp_project import Item

MUTED: Mapping[str, str] = {"MUTE": "MUTE 1 0"}
_GUID = re.compile(r"\{[0-9A-Fa-f-]{36}\}")
_NAMES_ITSELF = (b"IGUID", b"GUID", b"FXID", b"EGUID")


def only_touches(item: Item, start_s: float, end_s: float, frame_s: float) -> bool:
    """Whether less than a frame of an item lies between two times, at an edge of its own that a cut would spoil.

    Where it begins no frame of it is there, so that it stays whole; where it ends only a fade is worth that one frame.
    """
    most_s = frame_s * (1 - 1e-3)  # what begins or ends on a frame is not rounded to the next one
    return end_s - item.start_s < most_s or (item.fade_out.length_s > 0 and item.end_s - start_s < most_s)


def split_item(document: Document, item: Item, spans: Sequence[tuple[float, float]], edits: Edits) -> None:
    """Cut `item` around spans of project time, in rising order, and mute what lies in them.

    The first part keeps the item's lines and GUIDs.

    Fades stay on the outer parts; the caller cuts where no fade moves. All takes are cut, also those not active.
    """
    parts: list[tuple[float, float, Mapping[str, str]]] = []
    at_s = item.start_s
    for start_s, end_s in spans:
        parts += [(at_s, min(start_s, item.end_s), {}), (max(start_s, at_s), min(end_s, item.end_s), MUTED)]
        at_s = max(end_s, item.start_s)
    left = [part for part in [*parts, (at_s, item.end_s, {})] if part[1] > part[0]]
    for line, texts in _part(document, item, *left[0]).items():
        edits.replace(line, texts[0])
        edits.insert(line + 1, texts[1:])
    for low, high, wanted in left[1:]:
        edits.insert(item.chunk.last + 1, copy_part(document, item, low, high, wanted))


def copy_part(document: Document, item: Item, low: float, high: float, wanted: Mapping[str, str]) -> list[str]:
    """The lines of an item like `item`, between two project times, with lines by name that it must have.

    Its GUIDs are new, the same one wherever the old one stood.
    """
    changed = _part(document, item, low, high, wanted)
    fresh: dict[str, str] = {}

    def renew(match: re.Match[str]) -> str:
        return fresh.setdefault(match[0], "{" + str(uuid.uuid4()).upper() + "}")

    lines: list[str] = []
    for number in range(item.chunk.first, item.chunk.last + 1):
        texts = changed.get(number, [document.text(number)])
        lines += [_GUID.sub(renew, text) for text in texts] if document.key(number) in _NAMES_ITSELF else texts
    return lines


def set_line(document: Document, item: Item, key: str, text: str, edits: Edits) -> None:
    """Give an item a line of its own: in the place of the one with this name, else after its length."""
    line = next((n for n in _own_lines(item) if document.key(n) == key.encode()), None)
    if line is not None:
        edits.replace(line, indent_of(document, line) + text)
    else:
        edits.insert(_length_line(document, item) + 1, [indent_of(document, item.chunk.first) + "  " + text])


def indent_of(document: Document, line: int) -> str:
    """The blanks that a line begins with."""
    text = document.text(line)
    return text[: len(text) - len(text.lstrip())]


def _part(document: Document, item: Item, low: float, high: float, wanted: Mapping[str, str]) -> dict[int, list[str]]:
    """What stands in place of the item's lines in one of its parts, by line number; a missing line follows another."""
    changes: dict[bytes, Callable[[list[str]], Sequence[str]]] = {
        b"POSITION": lambda words: _with(words, 1, text_of(low)),
        b"LENGTH": lambda words: _with(words, 1, text_of(high - low)),
    }
    if low > item.start_s:
        changes[b"FADEIN"] = lambda words: _with(_with(words, 2, "0"), 3, "0")
        changes[b"SNAPOFFS"] = lambda words: _with(words, 1, "0")
    if high < item.end_s:
        changes[b"FADEOUT"] = lambda words: _with(_with(words, 2, "0"), 3, "0")
    missing = {key.encode(): text for key, text in wanted.items()}
    out = _offsets(document, item, low - item.start_s)
    for line in _own_lines(item):
        key, indent = document.key(line), indent_of(document, line)
        if key in missing:
            out[line] = [indent + missing.pop(key)]
        elif (change := changes.pop(key, None)) is not None:
            out[line] = [indent + " ".join(change(document.tokens(line))), *out.get(line, [""])[1:]]
    after = _length_line(document, item)
    out.setdefault(after, [document.text(after)]).extend(
        [indent_of(document, item.chunk.first) + "  " + text for text in missing.values()]
    )
    return out


def _offsets(document: Document, item: Item, later_s: float) -> dict[int, list[str]]:
    """The SOFFS lines of a part that begins `later_s` after the item, one for each take that has a source."""
    out: dict[int, list[str]] = {}
    if later_s <= 0:
        return out
    starts = [take.first_line for take in item.takes]
    for take, end in zip(item.takes, [*starts[1:], item.chunk.last], strict=True):
        if take.source is None:
            continue
        text = f"SOFFS {text_of(take.offset_s + later_s * take.rate)}"
        line = next((n for n in _own_lines(item) if take.first_line < n < end and document.key(n) == b"SOFFS"), None)
        if line is not None:
            out[line] = [indent_of(document, line) + text]
        else:
            after = _length_line(document, item) if take.first_line == item.chunk.first else take.first_line
            out.setdefault(after, [document.text(after)]).append(indent_of(document, item.chunk.first) + "  " + text)
    return out


def _own_lines(item: Item) -> list[int]:
    return [entry for entry in item.chunk.entries if isinstance(entry, int)]


def _length_line(document: Document, item: Item) -> int:
    """The line that new ones follow: LENGTH, or the item's first where it has none."""
    return next((line for line in _own_lines(item) if document.key(line) == b"LENGTH"), item.chunk.first)


def _with(words: Sequence[str], index: int, value: str) -> list[str]:
    out = [*words, *["0"] * (index + 1 - len(words))]
    out[index] = value
    return out
