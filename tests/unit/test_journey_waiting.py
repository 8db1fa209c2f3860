"""A second ctrl-C, at whatever moment after the first: it always says what becomes of the job."""

import pytest

from punchin.clients.journey.waiting import wait
from punchin.protocol.errors import Cancelled


def again(*_):
    raise KeyboardInterrupt


class Client:
    """One that is interrupted while it follows, and once more as it cancels."""

    follow = again

    def __init__(self, cancel):
        self.cancel = cancel


class Listener:
    def __init__(self, say):
        self.say = say


@pytest.mark.parametrize(
    ("say", "cancel", "told"),
    [
        (again, print, "job X goes on in the daemon"),
        (print, again, "job X goes on in the daemon"),
        (print, print, "job X is being cancelled"),
    ],
)
def test_a_second_ctrl_c_says_what_becomes_of_the_job(say, cancel, told):
    with pytest.raises(Cancelled, match=told) as error:
        wait(Client(cancel), "X", Listener(say))
    assert error.value.hint in ("punchin land X", "punchin show X")
