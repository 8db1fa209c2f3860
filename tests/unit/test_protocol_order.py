"""An order of several passages: what it asks for, in which order, and whom its errors name."""

import msgspec
import pytest

from punchin.protocol import limits
from punchin.protocol.errors import OverLimit, Refused
from punchin.protocol.order import Blob, Order, Passage

SOURCE = Blob(sha256="5f" * 32, channels=1, frames=9_600)
ONE = Order(
    task="repaint", frames=9_600, source=SOURCE, seeds=(3, 4), prompt="x", name="Keys",
    also=(Passage(frames=9_600, source=SOURCE, seeds=(5,), mask=((1, 2),), wanted=(10, 20), name="Bass"),),
)  # fmt: skip


def test_a_single_passage_is_the_order_itself():
    order = Order(task="text2music", frames=480)
    assert order.passages == (order,)
    assert (order.rolls, order.label(0), order.span, order.blobs) == (((0, 0),), "", (0, 480), ())


def test_passages_come_back_over_the_wire():
    again = msgspec.msgpack.decode(msgspec.msgpack.encode(ONE), type=Order)
    assert again == ONE
    assert [passage.name for passage in again.passages] == ["Keys", "Bass"]
    assert again.rolls == ((0, 3), (0, 4), (1, 5))
    assert [again.label(n) for n in (0, 1)] == ["Keys (1 of 2)", "Bass (2 of 2)"]
    assert again.passages[1].span == (10, 20)
    assert [blob.sha256 for blob in again.blobs] == [SOURCE.sha256] * 2


def test_the_same_may_be_asked_of_fewer_passages():
    rest = ONE.of(ONE.passages[1:])
    assert (rest.prompt, rest.name, rest.seeds, rest.mask, rest.also) == ("x", "Bass", (5,), ((1, 2),), ())
    assert ONE.of(ONE.passages) == ONE


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"seeds": (-1,)}, "Bass: seed is -1, allowed is 0"),
        ({"seeds": (7, 8, 7)}, "Bass: seed 7 is asked for twice: it would give the same take"),
        ({"bpm": 9.0}, "Bass: tempo is 9 bpm, allowed is 30 to 300"),
        ({"mask": ((3, 9),)}, "Bass: mask 3 to 9 must rise"),
        ({"wanted": (0, 9_601)}, "Bass: wanted frames 0 to 9601"),
        ({"frames": 9_601}, "Bass: the order is 9601 frames long, its source 9600"),
    ],
)
def test_an_error_names_its_passage(fields, said):
    with pytest.raises(Refused, match=said):
        msgspec.structs.replace(ONE.also[0], **fields)
    plain = {"task": "repaint", "frames": 9_600, "source": msgspec.to_builtins(SOURCE)}
    whole = plain | {"also": [msgspec.to_builtins(ONE.also[0]) | fields]}
    with pytest.raises(Refused, match=said) as refused:
        msgspec.msgpack.decode(msgspec.msgpack.encode(whole), type=Order)
    assert refused.value.code == ("over_limit" if isinstance(refused.value, OverLimit) else "refused")


def test_each_passage_needs_a_source_and_there_are_so_many_at_most():
    with pytest.raises(Refused, match="Bass: repaint needs a source, none was sent"):
        msgspec.structs.replace(ONE, also=(Passage(frames=480, name="Bass"),))
    for count, fits in ((limits.MAX_REGIONS - 1, True), (limits.MAX_REGIONS, False)):
        body = msgspec.msgpack.encode({"task": "text2music", "frames": 480, "also": [{"frames": 480}] * count})
        try:
            assert len(msgspec.msgpack.decode(body, type=Order).passages) == limits.MAX_REGIONS
        except msgspec.ValidationError:
            assert not fits
