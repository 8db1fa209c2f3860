"""The two text forms between Lua and Python, against Python's own readers, on whatever hypothesis thinks of."""

import importlib
import json
import math
import re
import time

import pytest
from fakereaper.desk import decode
from hypothesis import given, settings
from hypothesis import strategies as st

from punchin.clients.bridge import spool
from punchin.clients.install.reaper import scripts

LUAS = ["lua53", "lua54"]
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    TEXT | NUMBERS | st.booleans(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=15,
)
LINES = st.lists(st.dictionaries(NAMES, TEXT, min_size=1, max_size=4), max_size=6)


@pytest.fixture(scope="module", params=LUAS)
def lua(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    for name, data in scripts().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    runtime = importlib.import_module(f"lupa.{request.param}").LuaRuntime(unpack_returned_tuples=True)
    runtime.execute(f'package.path = "{folder}/?.lua;" .. package.path')
    return runtime


def load(lua, name):
    return lua.eval(f'(require("punchin.{name}"))')


def to_lua(lua, value):
    if isinstance(value, dict):
        return lua.table_from({key: to_lua(lua, each) for key, each in value.items()})
    if isinstance(value, list):
        return load(lua, "json").array(lua.table_from([to_lua(lua, each) for each in value]))
    return value


@settings(deadline=None, max_examples=150)
@given(value=VALUES)
def test_json_is_what_a_json_reader_reads(lua, value):
    assert json.loads(load(lua, "json").encode(to_lua(lua, value))) == value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_an_error(lua, value):
    with pytest.raises(Exception, match="may not hold"):
        load(lua, "json").encode(value)


def test_a_function_is_no_json(lua):
    with pytest.raises(Exception, match="may not hold a function"):
        load(lua, "json").encode(lua.eval("print"))


@settings(deadline=None, max_examples=150)
@given(fields=st.dictionaries(NAMES, TEXT, min_size=1, max_size=5))
def test_lines_of_either_side_are_read_by_the_other(lua, fields):
    wire = load(lua, "wire")
    assert dict(wire.decode(spool.encode(fields)).items()) == fields
    line = wire.encode(lua.table_from(fields))
    assert "\n" not in line
    assert "\r" not in line
    assert decode(line) == fields


@settings(deadline=None, max_examples=100)
@given(fields=st.dictionaries(NAMES, TEXT, min_size=1, max_size=5))
def test_what_reaper_stores_is_one_plain_word(lua, fields):
    wire = load(lua, "wire")
    packed = wire.pack(lua.table_from(fields))
    assert re.fullmatch(r"[A-Za-z0-9%._-]*", packed)
    assert dict(wire.unpack(packed).items()) == fields


@settings(deadline=None, max_examples=100)
@given(lines=LINES, cuts=st.lists(st.integers(0, 400), max_size=6))
def test_a_stream_read_in_any_pieces_gives_each_line_once(lua, tmp_path_factory, lines, cuts):
    """Events are read while they are written: a torn last line waits for its rest."""
    path = tmp_path_factory.mktemp("stream") / "x.events"
    data = "".join(spool.encode(fields) + "\n" for fields in lines).encode()
    files, wire = load(lua, "files"), load(lua, "wire")
    got, offset, at = [], 0, 0
    with path.open("wb", buffering=0) as file:
        for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
            file.write(data[at:cut])
            at = cut
            found, offset = files.lines_after(str(path), offset)
            got += [dict(wire.decode(line).items()) for line in found.values()]
    assert got == lines
    assert offset == len(data)


@pytest.mark.parametrize("size", [300_000, 2_000_000])
def test_a_line_of_many_takes_is_read_whole_and_at_once(lua, tmp_path, size):
    """Provenance of 128 takes is over 256 KiB; while it is still written it waits, which may not take minutes."""
    path, files, line = tmp_path / "x.events", load(lua, "files"), b"job=X\tprovenance1=" + b"p" * size
    path.write_bytes(b"job=A\n" + line)
    began = time.monotonic()
    found, offset = files.lines_after(str(path), 0)
    assert (list(found.values()), offset) == (["job=A"], 6)
    assert (len(list(files.lines_after(str(path), 6)[0].values())), files.lines_after(str(path), 6)[1]) == (0, 6)
    with path.open("ab") as file:
        file.write(b"\njob=B\n")
    found, offset = files.lines_after(str(path), 6)
    lines = [each.encode() for each in found.values()]
    found, offset = files.lines_after(str(path), offset)
    assert [*lines, *(each.encode() for each in found.values())][:1] == [line]
    assert time.monotonic() - began < 5


@settings(deadline=None, max_examples=100)
@given(junk=st.binary(max_size=300))
def test_garbage_is_never_an_error(lua, tmp_path_factory, junk):
    path = tmp_path_factory.mktemp("junk") / "x.events"
    path.write_bytes(junk)
    lua.globals().path = str(path)
    lua.execute(
        "local files, wire = require('punchin.files'), require('punchin.wire') "
        "for _, line in ipairs((files.lines_after(path, 0))) do wire.decode(line) end"
    )


@settings(deadline=None, max_examples=50)
@given(value=st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_keep_every_digit(lua, value):
    assert float(load(lua, "wire").number(value)) == value
