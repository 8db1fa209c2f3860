"""REAPER's project text as a tree over its own lines, so that what is not changed is not touched.

A line keeps its bytes, its line end included: CRLF, LF and mixtures come back as they were. A `Chunk` is `<TAG ...` to
`>`; it knows its lines by number. `Edits` collects changes by line number; `Document.edited` applies them.

    document = rpp.read("song.rpp")
    document.dump() == Path("song.rpp").read_bytes()
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from punchin.protocol.errors import Refused

FILE_BYTES: Final = 512 * 1024 * 1024
LINE_BYTES: Final = 8 * 1024 * 1024  # REAPER's longest lines (base64 of plug-in states) stay far under this
DEPTH: Final = 64  # REAPER nests about ten deep
ENCODING: Final = ("utf-8", "surrogateescape")  # old projects hold Latin-1 names; they come back as they were
_QUOTES: Final = "\"'`"


@dataclass(slots=True)
class Chunk:
    """`<TAG ...` in line `first` to `>` in line `last`. entries: its own lines (numbers) and chunks, in file order."""

    tag: str
    first: int
    last: int = -1
    entries: list[int | Chunk] = field(default_factory=list)

    def chunks(self, tag: str) -> Iterator[Chunk]:
        """The direct sub-chunks with this tag."""
        return (e for e in self.entries if isinstance(e, Chunk) and e.tag == tag)


@dataclass(slots=True)
class Edits:
    """Changes to a document by line number of the original: lines put before one, and lines put in one's place."""

    before: dict[int, list[str]] = field(default_factory=dict)
    instead: dict[int, str] = field(default_factory=dict)

    def insert(self, line: int, texts: Sequence[str]) -> None:
        """Put lines (without line ends) before line number `line`, after what was put there earlier."""
        self.before.setdefault(line, []).extend(texts)

    def replace(self, line: int, text: str) -> None:
        """Put a line (without line end) in the place of line number `line`; its line end stays."""
        self.instead[line] = text


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A project's lines, and the tree over them. Nothing in it changes; edits make new bytes."""

    lines: tuple[bytes, ...]
    root: Chunk

    def dump(self) -> bytes:
        """The bytes it was read from."""
        return b"".join(self.lines)

    def key(self, line: int) -> bytes:
        """The first word of a line: its name in REAPER's format."""
        return self.lines[line].split(None, 1)[0] if self.lines[line].strip() else b""

    def tokens(self, line: int) -> list[str]:
        """The words of a line, quotes taken off; a chunk's first line without its `<`."""
        text = self.lines[line].strip().decode(*ENCODING)
        return tokenize(text[1:] if text.startswith("<") else text)

    def text(self, line: int) -> str:
        """A line as it stands, without its line end."""
        return self.lines[line].rstrip(b"\r\n").decode(*ENCODING)

    def find(self, chunk: Chunk, key: str) -> list[str] | None:
        """The words of the first own line of `chunk` with this name, or None."""
        wanted = key.encode()
        for entry in chunk.entries:
            if isinstance(entry, int) and self.key(entry) == wanted:
                return self.tokens(entry)
        return None

    def line_end(self) -> bytes:
        """The line end that new lines get: the first line's own."""
        return b"\r\n" if self.lines[0].endswith(b"\r\n") else b"\n"

    def edited(self, edits: Edits) -> bytes:
        """The document with changes, as bytes. Every other line is the one that was read."""
        end = self.line_end()
        out: list[bytes] = []
        for number, line in enumerate(self.lines):
            out.extend(text.encode(*ENCODING) + end for text in edits.before.get(number, ()))
            changed = edits.instead.get(number)
            if changed is None:
                out.append(line)
            else:
                out.append(changed.encode(*ENCODING) + line[len(line.rstrip(b"\r\n")) :])
        return b"".join(out)


def read(path: Path | str) -> Document:
    """A `.rpp` file as a document. Raises Refused: missing, unreadable, too large, or not a REAPER project."""
    path = Path(path)
    try:
        if path.stat().st_size > FILE_BYTES:
            raise Refused(f"{path} has {path.stat().st_size} bytes, allowed are {FILE_BYTES}")
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise Refused(f"session is missing: {path}", "check the path") from error
    except OSError as error:
        raise Refused(f"session is not readable: {path}: {error.strerror}") from error
    return parse(data, path.name)


def parse(data: bytes, name: str = "project") -> Document:
    """A document from bytes. `name` is for errors. Raises Refused where the text is not a whole REAPER project."""
    cure = "save the project again in REAPER"
    if not data.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<REAPER_PROJECT"):
        raise Refused(f"{name} is not a REAPER project: it does not begin with <REAPER_PROJECT", cure)
    if b"\0" in data:
        raise Refused(f"{name} is not a REAPER project: there is a zero byte at {data.index(0)}", cure)
    lines = _split(data)
    root: Chunk | None = None
    open_chunks: list[Chunk] = []
    for number, line in enumerate(lines):
        if len(line) > LINE_BYTES:
            raise Refused(f"{name}: line {number + 1} has {len(line)} bytes, allowed are {LINE_BYTES}", cure)
        word = line.strip()
        if number == 0:
            word = word.removeprefix(b"\xef\xbb\xbf")
        if word[:1] == b"<":
            if root is not None and not open_chunks:
                raise Refused(f"{name}: line {number + 1} begins a second project", cure)
            chunk = Chunk(word[1:].split(None, 1)[0].decode(*ENCODING) if len(word) > 1 else "", number)
            if open_chunks:
                open_chunks[-1].entries.append(chunk)
            root = root or chunk
            open_chunks.append(chunk)
            if len(open_chunks) > DEPTH:
                raise Refused(f"{name}: line {number + 1} is nested {len(open_chunks)} deep, allowed are {DEPTH}", cure)
        elif word == b">":
            if not open_chunks:
                raise Refused(f"{name}: line {number + 1} closes a chunk that was never opened", cure)
            open_chunks.pop().last = number
        elif open_chunks:
            open_chunks[-1].entries.append(number)
        elif word:
            raise Refused(f"{name}: line {number + 1} stands outside the project", cure)
    if open_chunks or root is None:
        opened = open_chunks[-1]
        raise Refused(f"{name} is cut short: <{opened.tag} in line {opened.first + 1} is never closed", cure)
    return Document(lines, root)


def tokenize(text: str) -> list[str]:
    """The words of a line: apart by blanks, or between two equal marks (double, single or back quote), no escapes."""
    words: list[str] = []
    at, size = 0, len(text)
    while at < size:
        if text[at] in " \t":
            at += 1
        elif text[at] in _QUOTES:
            end = text.find(text[at], at + 1)
            end = size if end < 0 else end
            words.append(text[at + 1 : end])
            at = end + 1
        else:
            end = at
            while end < size and text[end] not in " \t":
                end += 1
            words.append(text[at:end])
            at = end
    return words


def number_at(words: list[str], index: int, otherwise: float = 0.0) -> float:
    """A field as a number; absent fields have REAPER's default. Raises Refused where it is no finite number."""
    if index >= len(words):
        return otherwise
    try:
        value = float(words[index])
    except ValueError:
        value = float("nan")
    if not abs(value) < 1e15:
        raise Refused(f"{words[0]} has {words[index]!r} where a number belongs", "save the project again in REAPER")
    return value


def readable(text: str) -> str:
    """A word for people: bytes that are no UTF-8 (projects of old REAPER versions on Windows) read as Windows' own."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(*ENCODING).decode("cp1252", "replace")
    return text


def quote(text: str) -> str:
    """A word in the quotes that it does not contain itself, as REAPER does; line breaks become blanks.

    Where it contains all three, backticks within become apostrophes (REAPER's own rule: the format has no escape).
    """
    flat = " ".join(text.split("\n")).replace("\r", " ").replace("\0", " ")
    for mark in _QUOTES:
        if mark not in flat:
            return f"{mark}{flat}{mark}"
    return "`" + flat.replace("`", "'") + "`"


def number(value: float) -> str:
    """A number as it is written: the shortest text that reads back the same, never with an exponent."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = repr(float(value))
    if "e" in text:
        text = f"{value:.20f}".rstrip("0")
    return text


def _split(data: bytes) -> tuple[bytes, ...]:
    """Lines at LF alone, line ends kept: a CR belongs to the line it ends, or is text within one."""
    pieces = data.split(b"\n")
    lines = [piece + b"\n" for piece in pieces[:-1]]
    return tuple([*lines, pieces[-1]] if pieces[-1] else lines)
