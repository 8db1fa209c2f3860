"""The line-preserving document: bytes in, the same bytes out, and hostile files refused."""

import os

import pytest
import rpp as oracle
from hypothesis import given
from hypothesis import strategies as st
from realparts import corpus

from punchin.protocol.errors import Refused
from punchin.session import rpp
from punchin.session.rpp_landing import new_guid
from punchin.session.rpp_project import from_document

WORDS = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=["Cs"]), max_size=12)
PLAIN = st.from_regex(r"[A-Z][A-Z0-9]{0,9}( [0-9.-]{1,6}){0,4}", fullmatch=True)
NOTES = WORDS.map(lambda text: "|" + text)
ENDS = st.sampled_from(["\n", "\r\n"])


@st.composite
def trees(draw, depth=0):
    """Lines of a chunk, indented and ended at random."""
    tag = draw(st.from_regex(r"[A-Z][A-Z_0-9]{0,8}", fullmatch=True))
    pad = " " * draw(st.integers(0, 4)) + draw(st.sampled_from(["", "\t"]))
    out = [pad + "<" + tag + draw(st.sampled_from(["", " 1 2", ' "a b" \'c"\' `d`']))]
    for _ in range(draw(st.integers(0, 4))):
        if depth < 3 and draw(st.booleans()):
            out += draw(trees(depth + 1))
        else:
            out.append(pad + draw(st.one_of(PLAIN, NOTES, st.just(""), st.just("ZXZhdxgAAQ=="))))
    return [*out, pad + ">" + draw(st.sampled_from(["", " "]))]


@st.composite
def projects(draw):
    body = draw(trees())
    lines = ['<REAPER_PROJECT 0.1 "7.42/win64" 17', *body, ">"]
    return "".join(line + draw(ENDS) for line in lines).encode()


@given(projects())
def test_any_tree_comes_back_byte_for_byte(data):
    document = rpp.parse(data)
    assert document.dump() == data
    assert document.edited(rpp.Edits()) == data


@given(projects(), st.data())
def test_an_insertion_leaves_every_other_line(data, draws):
    document = rpp.parse(data)
    at = draws.draw(st.integers(1, len(document.lines) - 1))
    edits = rpp.Edits()
    edits.insert(at, ["NEW 1", "NEW 2"])
    out = document.edited(edits)
    before, after = b"".join(document.lines[:at]), b"".join(document.lines[at:])
    end = b"\r\n" if document.lines[0].endswith(b"\r\n") else b"\n"
    assert out == before + b"NEW 1" + end + b"NEW 2" + end + after


@given(WORDS)
def test_what_is_quoted_reads_back(word):
    text = rpp.quote(word)
    read = rpp.tokenize(f"NAME {text} 1")
    wanted = word.replace("`", "'") if all(mark in word for mark in "\"'`") else word
    assert read == ["NAME", wanted, "1"]


def test_the_three_quotes_and_backslashes():
    line = r"""FILE "a b\c" 'say "x"' `both ' and "` plain "" '' end"""
    assert rpp.tokenize(line) == ["FILE", r"a b\c", 'say "x"', "both ' and \"", "plain", "", "", "end"]


@given(st.floats(-1e9, 1e9, allow_nan=False))
def test_numbers_read_back_without_exponent(value):
    text = rpp.number(value)
    assert "e" not in text
    assert float(text) == pytest.approx(value, abs=1e-19)


def test_mixed_line_ends_stay_as_they_were():
    data = b'<REAPER_PROJECT 0.1 "7" 1\r\n  <NOTES\n    |a\n    |b \r\n  >\r\n>\n\n'
    assert rpp.parse(data).dump() == data


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a REAPER project"),
        (b"RIFF\x10\x00\x00\x00WAVE", "not a REAPER project"),
        (b"<REAPER_PROJECT 0.1\n\0\n>\n", "zero byte at 20"),
        (b"<REAPER_PROJECT 0.1\n  <TRACK\n>\n", "<REAPER_PROJECT in line 1 is never closed"),
        (b"<REAPER_PROJECT 0.1\n  <TRACK\n", "<TRACK in line 2 is never closed"),
        (b"<REAPER_PROJECT 0.1\n>\n>\n", "line 3 closes"),
        (b"<REAPER_PROJECT 0.1\n>\nTEMPO 1\n", "line 3 stands outside"),
        (b"<REAPER_PROJECT 0.1\n>\n<REAPER_PROJECT 0.1\n>\n", "second project"),
        (b"<REAPER_PROJECT 0.1\n" + b"<A\n" * 5000 + b">\n" * 5001, "nested 65 deep, allowed are 64"),
        (b"<REAPER_PROJECT 0.1\nNAME " + b"x" * (rpp.LINE_BYTES + 1) + b"\n>\n", "line 2 has 8388615 bytes"),
    ],
)
def test_hostile_files_are_refused_with_the_place(data, says):
    with pytest.raises(Refused, match=says):
        rpp.parse(data)


def test_random_bytes_never_crash_the_reader():
    for seed in range(200):
        junk = os.urandom(300) if seed % 2 else b"<REAPER_PROJECT 0.1\n" + os.urandom(300)
        try:
            document = rpp.parse(junk)
        except Refused:
            continue
        assert document.dump() == junk


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(Refused, match="missing"):
        rpp.read(tmp_path / "none.rpp")
    with pytest.raises(Refused, match="not readable"):
        rpp.read(tmp_path)


def test_real_projects_come_back_byte_for_byte():
    files = [path for path in corpus("rpp").rglob("*") if path.suffix.lower() == ".rpp"]
    assert files
    for path in files:
        assert rpp.read(path).dump() == path.read_bytes()


def test_a_take_on_every_item_of_real_projects_keeps_all_other_lines():
    for path in sorted(p for p in corpus("rpp").rglob("*") if p.suffix.lower() == ".rpp"):
        document = rpp.read(path)
        project = from_document(path, document)
        items = [item for track in project.tracks for item in track.items]
        edits = rpp.Edits()
        new = 0
        for item in items:
            lines = ["TAKE", f"NAME {rpp.quote(new_guid())}", "SOFFS 0", f"GUID {new_guid()}"]
            edits.insert(
                item.chunk.last, [f"      {line}" for line in [*lines, "<SOURCE WAVE", '  FILE "x y.wav"', ">"]]
            )
            new += 7
        out = document.edited(edits)
        added = iter(out.split(b"\n"))
        assert all(line in added for line in path.read_bytes().split(b"\n"))  # in order, none changed
        assert len(out.split(b"\n")) == len(document.lines) + new + (1 if out.endswith(b"\n") else 0)
        again = from_document(path, rpp.parse(out))
        counts = [sum(take.source is not None for take in i.takes) for t in again.tracks for i in t.items]
        assert counts == [sum(take.source is not None for take in i.takes) + 1 for i in items]
        oracle.loads(out.decode("utf-8", "surrogateescape").replace("\r\n", "\n"))
