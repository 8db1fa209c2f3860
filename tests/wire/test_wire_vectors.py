"""Each message as bytes on disk, read by us and by plain msgpack to the same value, and each type answered live."""

import importlib.util
from pathlib import Path
from typing import get_args

import msgpack
import msgspec
import pytest
from wire.plain import Plain

from punchin.protocol import codec
from punchin.protocol.messages import MAGIC, DataReply, DataRequest, Notice, Reply, Request

FOLDER = Path(__file__).parents[1] / "vectors"
VECTORS = sorted(path.stem for path in FOLDER.glob("*.msgpack"))
READERS = [
    (Request, codec.control_requests()),
    (Reply, codec.control_replies()),
    (Notice, codec.notices()),
    (DataRequest, codec.data_requests()),
    (DataReply, codec.data_replies()),
]


def reader_of(kind):
    return next(reader for union, reader in READERS if kind in get_args(union))


def test_every_message_has_a_vector():
    assert sorted(codec.all_messages()) == VECTORS


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_reads_the_same_by_both(name):
    body = (FOLDER / f"{name}.msgpack").read_bytes()
    kind = codec.all_messages()[name]
    message = reader_of(kind).read(MAGIC, body)
    assert isinstance(message, kind)
    plain = msgpack.unpackb(body)
    assert msgpack.unpackb(codec.encode(message)) == plain
    assert set(plain) == {field.encode_name for field in msgspec.structs.fields(kind)} | {"type"}  # each field is shown
    for field in msgspec.structs.fields(kind):
        if field.default is not msgspec.NODEFAULT:
            assert getattr(message, field.name) != field.default, f"{field.name} shows its default"


def test_the_files_are_what_the_script_writes():
    spec = importlib.util.spec_from_file_location("make_vectors", FOLDER / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    for name, fields in make.VECTORS.items():
        assert (FOLDER / f"{name}.msgpack").read_bytes() == msgpack.packb({"type": name, **fields})


@pytest.mark.parametrize("name", VECTORS)
def test_a_vector_of_a_later_version_is_still_read(name):
    plain = msgpack.unpackb((FOLDER / f"{name}.msgpack").read_bytes())
    later = {"new_field": {"deep": [1, 2, 3]}, **plain, "another": None}
    kind = codec.all_messages()[name]
    assert isinstance(reader_of(kind).read(MAGIC, msgpack.packb(later)), kind)


# What the daemon says to each request vector, in this order, when it knows no job and no blob.
ANSWERS = {
    "hello": "welcome",
    "submit": "unknown_blob",
    "get_status": "status",
    "get_job": "unknown_job",
    "list_jobs": "unknown_job",
    "attach": "unknown_job",
    "cancel_job": "unknown_job",
    "mark_landed": "unknown_job",
    "pin": "unknown_job",
    "pause": "status",
    "resume": "status",
    "unload_model": "status",
    "lease_device": "device_lease",
    "release_device": "status",
    "collect": "collected",
    "examine": "examined",
    "shutdown": "closing",
}


def test_the_vectors_replayed_to_a_daemon(client):
    with Plain(greet=False) as plain:
        for name, expected in ANSWERS.items():
            body = (FOLDER / f"{name}.msgpack").read_bytes()
            reply = plain.ask_raw(body)
            assert expected in (reply["type"], reply.get("code")), (name, reply)
            assert reply["ask"] == msgpack.unpackb(body)["ask"]


def test_the_data_vectors_replayed_to_a_daemon(client):
    with Plain(greet=False, socket="data") as plain:
        for name, body, expected in [
            ("put", (), "taken"),
            ("chunk", (b"x" * 100,), "bad_offset"),
            ("get", (), "unknown_blob"),
        ]:
            reply = plain.ask_raw((FOLDER / f"{name}.msgpack").read_bytes(), *body)
            assert expected in (reply["type"], reply.get("code")), (name, reply)
