"""A job is named by how its id begins or ends."""

import pytest

from punchin.clients.cli.jobs import find
from punchin.protocol.errors import BadUsage, Refused
from punchin.protocol.order import JobRecord, Order

ORDER = Order(task="text2music", frames=4_800, model="identity")


def records(count):
    return [JobRecord(id=f"01M8MJA{n:02}", state="done", order=ORDER, created_ns=1) for n in range(count)]


@pytest.mark.parametrize(("text", "job"), [("01M8MJA07", "01M8MJA07"), ("07", "01M8MJA07"), ("01M8MJA11", "01M8MJA11")])
def test_one_job(text, job):
    assert find(records(12), text) == job


@pytest.mark.parametrize(("count", "named", "more"), [(2, 2, ""), (7, 7, ""), (10, 10, ""), (13, 10, " and 3 more")])
def test_several_are_named(count, named, more):
    with pytest.raises(BadUsage) as error:
        find(records(count), "01M8")
    ids = ", ".join(record.id for record in records(named))
    assert str(error.value) == f'"01M8" fits {count} jobs: {ids}{more}'
    assert (error.value.hint, error.value.exit_code) == ("punchin jobs", 2)


def test_no_job():
    with pytest.raises(Refused, match='there is no job "99"'):
        find(records(3), "99")
    assert find(records(3), "01M8MJA99") == "01M8MJA99"  # a whole id: an older job, perhaps
