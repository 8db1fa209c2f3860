"""Foreign bytes: whatever they are, they come out as a message or as Unreadable, and a daemon lives on."""

import contextlib
import hashlib
import os
import random
import subprocess
import sys
import time

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wire.plain import Plain
from wire.test_wire_vectors import FOLDER, READERS, VECTORS

from punchin.protocol import codec, limits, messages
from punchin.protocol.codec import Unreadable
from punchin.protocol.errors import Refused
from punchin.protocol.messages import MAGIC
from punchin.protocol.order import Order

SEEDS = [(FOLDER / f"{name}.msgpack").read_bytes() for name in VECTORS]


OBEYED = [body for body in SEEDS if b"shutdown" not in body]  # a daemon does what it can read


def mutated(chance, seeds=SEEDS):
    """A valid message with some bytes changed, cut, doubled or swapped for what msgpack finds special."""
    body = bytearray(chance.choice(seeds))
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(body)) if body else 0
        match chance.randrange(5):
            case 0:
                body[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del body[at : at + chance.randint(1, 20)]
            case 2:
                body[at:at] = body[at : at + chance.randint(1, 40)]
            case 3:
                body[at : at + 1] = chance.choice(
                    [b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xc1", b"\xcb\x7f\xf8" + bytes(6)]
                )
            case 4:
                body[at:at] = b"\x91" * chance.randint(1, 2_000)
    return bytes(body)


def test_ten_thousand_mutated_messages():
    chance, read = random.Random(20_26), 0
    for _ in range(10_000):
        body = mutated(chance)
        for _, reader in READERS:
            with contextlib.suppress(Unreadable):
                reader.read(MAGIC, body)
                read += 1
    assert read > 100  # else the mutations are too rough to test anything


@settings(max_examples=1_000, deadline=None)
@given(st.binary(max_size=200), st.binary(max_size=20))
def test_any_bytes(body, magic):
    for _, reader in READERS:
        for first in (MAGIC, magic):
            with pytest.raises(Unreadable):
                reader.read(first, body)


HOSTILE = {
    "nothing": b"",
    "a number": b"\x01",
    "a declared length of 4 G": b"\xdf\xff\xff\xff\xff",
    "100,000 levels": b"\x91" * 60_000,
    "a deep unknown field": b"\x82\xa4type\xa5hello\xa1x" + b"\x91" * 60_000 + b"\xc0",
    "text that is no UTF-8": b"\x81\xa4type\xa2\xff\xfe",
    "text that is no UTF-8 in a field": msgpack.packb({"type": "hello", "ask": 1, "lowest": 1, "highest": 1})[:-1]
    + b"\x01\xa6client\xa2\xff\xfe",
    "one byte too many": msgpack.packb({"type": "get_status", "ask": 1}) + b"\xc0",
    "cut short": msgpack.packb({"type": "get_status", "ask": 1})[:-1],
    "over 64 KiB": msgpack.packb({"type": "hello", "ask": 1, "x": "y" * limits.MAX_MESSAGE_BYTES}),
    "a bool for a number": msgpack.packb({"type": "get_status", "ask": True}),
    "NaN as bpm": b"".join(
        (
            msgpack.packb({"type": "submit", "ask": 1, "id": "x" * 26})[:1].replace(b"\x83", b"\x84"),
            msgpack.packb({"type": "submit", "ask": 1, "id": "x" * 26})[1:],
            b"\xa5order",
            msgpack.packb({"task": "text2music", "frames": 10, "bpm": float("nan")}),
        )
    ),
    "a path for an id": msgpack.packb({"type": "get_job", "ask": 1, "id": "../../etc/passwd"}),
    "an id with a line's end": msgpack.packb({"type": "get_job", "ask": 1, "id": "x" * 26 + "\n"}),
    "a negative number": msgpack.packb({"type": "attach", "ask": 1, "id": "x" * 26, "since": -1}),
    "an ask of 2**60": msgpack.packb({"type": "get_status", "ask": 2**60}),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_bytes_are_one_failure(what):
    with pytest.raises(Unreadable) as error:
        codec.control_requests().read(MAGIC, HOSTILE[what])
    assert error.value.code in ("bad_message", "too_big", "unknown_kind", "over_limit")
    assert len(str(error.value)) < 600


def test_a_limit_in_an_order_is_told_with_its_numbers():
    order = {"task": "text2music", "frames": 10, "bpm": 999.0}
    body = msgpack.packb({"type": "submit", "ask": 7, "id": "x" * 26, "order": order})
    with pytest.raises(Unreadable, match="tempo is 999 bpm, allowed is 30 to 300") as error:
        codec.control_requests().read(MAGIC, body)
    assert (error.value.code, error.value.ask) == ("over_limit", 7)


def test_equal_values_have_equal_canonical_bytes():
    one = messages.Submit(ask=1, id="x" * 26, order=_order({"a": 1, "b": 2}))
    two = messages.Submit(ask=1, id="x" * 26, order=_order({"b": 2, "a": 1}))
    assert codec.canonical(one) == codec.canonical(two)
    assert codec.canonical(one) != codec.canonical(messages.Submit(ask=1, id="x" * 26, order=_order({"a": 1})))


def _order(raw):
    return Order(task="text2music", frames=10, raw=raw)


# ---- to a live daemon ----


def test_each_hostile_message_gets_one_reply_and_the_daemon_lives(client):
    for body in HOSTILE.values():
        with Plain() as plain:
            reply = plain.ask_raw(body)
            assert reply["type"] == "failure"
            assert plain.ask({"type": "get_status", "ask": 9})["type"] == "status"
    assert client.status().counters["bad_messages"] == len(HOSTILE)


def test_hello_first_and_only_in_a_common_version(client):
    with Plain(greet=False) as plain:
        assert plain.ask({"type": "get_status", "ask": 5}) == {
            "type": "failure", "ask": 5, "code": "hello_first", "hint": "",
            "text": "the first message of a client is hello",
        }  # fmt: skip
        reply = plain.ask({"type": "hello", "ask": 6, "lowest": 3, "highest": 9, "version": "9.0"})
        assert reply["code"] == "version"
        assert "speaks protocol 2, the client 3 to 9" in reply["text"]
        assert plain.ask({"type": "get_status", "ask": 7})["code"] == "hello_first"
        assert plain.ask({"type": "hello", "ask": 8, "lowest": 1, "highest": 2})["type"] == "welcome"
        assert plain.ask({"type": "nonsense", "ask": 9})["code"] == "unknown_kind"
        assert plain.ask({"type": "put", "ask": 9})["code"] == "unknown_kind"  # of another socket
        assert (
            plain.ask_raw(msgpack.packb({"type": "get_status", "ask": 9}), magic=b"punchin/9")["code"] == "bad_message"
        )


def test_who_only_sends_nonsense_is_not_heard_for_a_while(client):
    with Plain() as plain:
        for _ in range(20):
            assert plain.ask_raw(b"\xc1")["code"] == "bad_message"
        assert plain.ask({"type": "get_status", "ask": 1}, seconds=0.3) is None
    assert client.status().counters["bad_messages"] == 20  # others are


def test_frames_that_are_too_many_too_few_or_too_big(client):
    with Plain() as plain:
        assert plain.ask_raw(b"", b"x", b"y")["code"] == "bad_message"
        plain.socket.send_multipart([b"punchin/1"])
        assert plain.hear()["code"] == "bad_message"
        plain.socket.send_multipart([b""])
        assert plain.hear()["code"] == "bad_message"
    with Plain() as plain:  # ZeroMQ's own fuse: it hangs up
        plain.ask_raw(b"x" * (2 * 1024 * 1024), seconds=0.2)
    assert client.status().pid


def test_an_order_of_too_many_bytes_is_refused_before_it_is_sent(client):
    """Words within their limits of characters may be over it in bytes."""
    order = Order(task="text2music", frames=240_000, prompt="\u611b" * 4_000, lyrics="\u6b4c" * 20_000)
    with pytest.raises(Refused, match=r"has 72,\d{3} bytes, allowed is 65,536") as refused:
        client.submit(order)
    assert refused.value.code == "too_big"
    assert "shorter lyrics" in refused.value.hint
    assert client.status().counters["bad_messages"] == 0


@pytest.mark.parametrize("socket", ["control", "data"])
def test_ten_thousand_fuzzed_frames_at_a_daemon(client, socket):
    """In bursts from many peers, so that the rule about nonsense does not spare the decoder."""
    chance, heard = random.Random(1), 0
    for _ in range(300):
        with Plain(greet=socket == "control", socket=socket) as plain:
            for _ in range(19):  # the twentieth is not heard
                frames = [mutated(chance, OBEYED) for _ in range(chance.choice([1, 1, 1, 1, 2, 0]))]
                plain.socket.send_multipart([chance.choice([MAGIC, MAGIC, b"punchin/2"]), *frames])
            for _ in range(19):
                heard += plain.hear() is not None
    assert heard == 5_700
    assert client.status().pid


# ---- credits and offsets of the data socket ----


def test_no_more_pieces_under_way_than_the_credit(client):
    sha256 = client.put(bytes(20 * 1024 * 1024))
    with Plain(greet=False, socket="data") as plain:
        get = {"type": "get", "sha256": sha256, "offset": 0}
        for number in range(9):
            plain.socket.send_multipart([MAGIC, msgpack.packb({**get, "ask": number, "received": 0})])
        kinds = [plain.hear()["type"] for _ in range(9)]
        assert kinds == ["piece"] * 8 + ["failure"]
        assert plain.ask({**get, "ask": 9, "received": 0})["code"] == "over_credit"
        assert plain.ask({**get, "ask": 10, "received": 99})["type"] == "piece"  # more than was sent is all of it


def test_an_upload_goes_on_where_it_was(client):
    data = random.Random(3).randbytes(3 * 1024 * 1024)
    sha256 = hashlib.sha256(data).hexdigest()
    put = {"type": "put", "ask": 1, "sha256": sha256, "size_bytes": len(data)}
    mib = 1024 * 1024
    with Plain(greet=False, socket="data") as plain:
        assert plain.ask(put)["offset"] == 0
        assert plain.ask({"type": "chunk", "ask": 2, "sha256": sha256, "offset": 0}, data[:mib])["offset"] == mib
    with Plain(greet=False, socket="data") as plain:
        assert plain.ask(put)["offset"] == mib
        chunk = {"type": "chunk", "ask": 3, "sha256": sha256}
        assert plain.ask({**chunk, "offset": 2 * mib}, data[2 * mib :])["code"] == "bad_offset"  # a gap
        assert plain.ask({**chunk, "offset": 0}, data[:mib])["offset"] == mib  # had it
        assert plain.ask({**chunk, "offset": mib}, data[mib : mib + 5])["offset"] == mib + 5
        assert plain.ask({**chunk, "offset": mib}, data[mib : 2 * mib])["offset"] == 2 * mib  # overlaps
        assert plain.ask({**chunk, "offset": 2 * mib}, data[2 * mib :] + b"x")["code"] == "bad_chunk"
        assert plain.ask({**chunk, "offset": 2 * mib}, data[2 * mib :])["stored"]
        assert plain.ask({**chunk, "offset": 2 * mib}, data[2 * mib :])["stored"]  # sent twice
    assert client.get(sha256) == data


def test_an_upload_whose_beginning_was_swept_begins_anew(client, home):
    """Nobody goes on with it for an hour, then gc; the daemon still has the file open."""
    data = random.Random(4).randbytes(2_000)
    sha256 = hashlib.sha256(data).hexdigest()
    with Plain(greet=False, socket="data") as plain:
        put = {"type": "put", "ask": 1, "sha256": sha256, "size_bytes": len(data)}
        assert plain.ask(put)["offset"] == 0
        assert plain.ask({"type": "chunk", "ask": 2, "sha256": sha256, "offset": 0}, data[:900])["offset"] == 900
        hours_ago = time.time() - 7_200
        os.utime(home / "state" / "parts" / sha256, (hours_ago, hours_ago))
        client.gc()
        assert plain.ask(put)["offset"] == 0
    assert client.get(client.put(data)) == data


def test_bytes_that_are_not_what_was_announced(client):
    with Plain(greet=False, socket="data") as plain:
        put = {"type": "put", "ask": 1, "sha256": "ab" * 32, "size_bytes": 3}
        assert plain.ask(put)["offset"] == 0
        reply = plain.ask({"type": "chunk", "ask": 2, "sha256": "ab" * 32, "offset": 0}, b"abc")
        assert reply["code"] == "hash_mismatch"
        assert plain.ask(put) == {"type": "taken", "ask": 1, "sha256": "ab" * 32, "offset": 0, "stored": False}
        assert plain.ask({"type": "chunk", "ask": 3, "sha256": "cd" * 32, "offset": 0}, b"abc")["code"] == "put_first"
        assert plain.ask({"type": "chunk", "ask": 4, "sha256": "ab" * 32, "offset": 0})["code"] == "bad_message"
        assert plain.ask({"type": "get", "ask": 5, "sha256": "ab" * 32, "offset": 0})["code"] == "unknown_blob"


@pytest.mark.nightly
def test_an_hour_of_guided_mutations(tmp_path):
    """Coverage-guided, for as long as PUNCHIN_FUZZ_S says (an hour by default)."""
    pytest.importorskip("atheris", reason="pip install atheris")
    seconds, target = os.environ.get("PUNCHIN_FUZZ_S", "3600"), FOLDER.parent / "faults" / "atheris_codec.py"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, body in enumerate(SEEDS):
        for reader in range(len(READERS)):
            (corpus / f"{number}-{reader}").write_bytes(bytes([reader]) + body)
    command = [sys.executable, str(target), f"-max_total_time={seconds}", "-max_len=65536", str(corpus)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr[-4_000:]
