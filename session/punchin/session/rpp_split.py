"""An item cut in up to three by writing its lines again: before a span, in it (muted), and after it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Sequence

from punchin.session.rpp import Document, Edits
from punchin.session.rpp import number as text_of
from punchin.session.rpp_project import Item

_GUID = re.compile(r"\{[0-9A-Fa-f-]{36}\}")


def split_item(document: Document, item: Item, start_s: float, end_s: float, edits: Edits) -> None:
    """Cut `item` at two project times and mute what lies between. The first part keeps the item's lines and GUIDs.

    Fades stay on the outer parts; the caller cuts where no fade moves. All takes are cut, also those not active.
    """
    parts = [
        (low, high, muted)
        for low, high, muted in (
            (item.start_s, min(start_s, item.end_s), False),
            (max(start_s, item.start_s), min(end_s, item.end_s), True),
            (max(end_s, item.start_s), item.end_s, False),
        )
        if high > low
    ]
    for i, (low, high, muted) in enumerate(parts):
        changed = _part(document, item, low, high, muted)
        if i == 0:
            for line, text in changed.items():
                edits.replace(line, text)
        else:
            edits.insert(item.chunk.last + 1, _copy(document, item, changed))


def _part(document: Document, item: Item, low: float, high: float, muted: bool) -> dict[int, str]:
    """The lines that differ in one part of an item, by line number."""
    later_s = low - item.start_s
    changes: dict[bytes, Callable[[list[str]], Sequence[str]]] = {
        b"POSITION": lambda words: _with(words, 1, text_of(low)),
        b"LENGTH": lambda words: _with(words, 1, text_of(high - low)),
    }
    if low > item.start_s:
        changes[b"FADEIN"] = lambda words: _with(_with(words, 2, "0"), 3, "0")
        changes[b"SNAPOFFS"] = lambda words: _with(words, 1, "0")
    if high < item.end_s:
        changes[b"FADEOUT"] = lambda words: _with(_with(words, 2, "0"), 3, "0")
    if muted:
        changes[b"MUTE"] = lambda words: _with(words, 1, "1")
    out: dict[int, str] = {}
    take = 0
    for entry in item.chunk.entries:
        if not isinstance(entry, int):
            continue
        key = document.key(entry)
        if key == b"TAKE":
            take += 1
        change = changes.get(key)
        if key == b"SOFFS" and later_s > 0:
            rate = _rate(item, entry)
            change = lambda words, rate=rate: _with(words, 1, text_of(float(words[1]) + later_s * rate))  # noqa: E731
        if change is not None:
            line = document.text(entry)
            words = list(change(document.tokens(entry)))
            out[entry] = line[: len(line) - len(line.lstrip())] + " ".join(words)
    return out


def _rate(item: Item, line: int) -> float:
    """The play rate of the take that a line belongs to."""
    owners = [take for take in item.takes if take.first_line < line]
    return owners[-1].rate if owners else 1.0


def _copy(document: Document, item: Item, changed: dict[int, str]) -> list[str]:
    """The item's lines with changes and with new GUIDs, the same one wherever the old one stood."""
    fresh: dict[str, str] = {}

    def renew(match: re.Match[str]) -> str:
        return fresh.setdefault(match[0], "{" + str(uuid.uuid4()).upper() + "}")

    lines = []
    for number in range(item.chunk.first, item.chunk.last + 1):
        text = changed.get(number, document.text(number))
        guid_line = document.key(number) in (b"IGUID", b"GUID", b"FXID", b"EGUID", b"POOLEDEVTS")
        lines.append(_GUID.sub(renew, text) if guid_line else text)
    return lines


def _with(words: Sequence[str], index: int, value: str) -> list[str]:
    out = [*words, *["0"] * (index + 1 - len(words))]
    out[index] = value
    return out
