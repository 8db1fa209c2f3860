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
        if i > 0:
            edits.insert(item.chunk.last + 1, _copy(document, item, changed))
            continue
        for line, texts in changed.items():
            edits.replace(line, texts[0])
            edits.insert(line + 1, texts[1:])


def _part(document: Document, item: Item, low: float, high: float, muted: bool) -> dict[int, list[str]]:
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
    if muted:
        changes[b"MUTE"] = lambda words: _with(words, 1, "1")
    out = _offsets(document, item, low - item.start_s)
    for entry in item.chunk.entries:
        if isinstance(entry, int) and (change := changes.pop(document.key(entry), None)) is not None:
            line = _indent(document, entry) + " ".join(change(document.tokens(entry)))
            out[entry] = [line, *out.get(entry, [""])[1:]]
    if b"MUTE" in changes:
        out.setdefault(_length_line(document, item), []).append(_indent(document, item.chunk.first) + "  MUTE 1 0")
    return out


def _offsets(document: Document, item: Item, later_s: float) -> dict[int, list[str]]:
    """The SOFFS lines of a part that begins `later_s` after the item, one for each take that has a source."""
    out: dict[int, list[str]] = {}
    if later_s <= 0:
        return out
    own = [entry for entry in item.chunk.entries if isinstance(entry, int)]
    starts = [take.first_line for take in item.takes]
    for take, end in zip(item.takes, [*starts[1:], item.chunk.last], strict=True):
        if take.source is None:
            continue
        text = f"SOFFS {text_of(take.offset_s + later_s * take.rate)}"
        line = next((n for n in own if take.first_line < n < end and document.key(n) == b"SOFFS"), None)
        if line is not None:
            out[line] = [_indent(document, line) + text]
        else:
            after = _length_line(document, item) if take.first_line == item.chunk.first else take.first_line
            out.setdefault(after, [document.text(after)]).append(_indent(document, item.chunk.first) + "  " + text)
    return out


def _length_line(document: Document, item: Item) -> int:
    return next(n for n in item.chunk.entries if isinstance(n, int) and document.key(n) == b"LENGTH")


def _copy(document: Document, item: Item, changed: dict[int, list[str]]) -> list[str]:
    """The item's lines with changes and with new GUIDs, the same one wherever the old one stood."""
    fresh: dict[str, str] = {}

    def renew(match: re.Match[str]) -> str:
        return fresh.setdefault(match[0], "{" + str(uuid.uuid4()).upper() + "}")

    lines: list[str] = []
    for number in range(item.chunk.first, item.chunk.last + 1):
        texts = changed.get(number, [document.text(number)])
        guid_line = document.key(number) in (b"IGUID", b"GUID", b"FXID", b"EGUID", b"POOLEDEVTS")
        lines += [_GUID.sub(renew, text) for text in texts] if guid_line else texts
    return lines


def _with(words: Sequence[str], index: int, value: str) -> list[str]:
    out = [*words, *["0"] * (index + 1 - len(words))]
    out[index] = value
    return out


def _indent(document: Document, line: int) -> str:
    text = document.text(line)
    return text[: len(text) - len(text.lstrip())]
