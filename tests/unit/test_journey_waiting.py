"""A second ctrl-C, at whatever moment after the first: it always says what becomes of the job."""

import pytest

from punchin.clients.journey.waiting import wait
from punchin.protocol.errors import Cancelled, PunchinError, Unreachable


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


def test_a_cancel_that_fails_says_that_the_job_goes_on():
    def full(_):
        raise PunchinError("the journal cannot be written", "free some disk space")

    with pytest.raises(PunchinError, match="journal") as error:
        wait(Client(full), "X", Listener(print))
    assert error.value.hint == "job X was not cancelled and goes on: punchin cancel X\nfree some disk space"


def test_a_daemon_that_is_gone_keeps_the_job():
    class Gone:
        def follow(self, _):
            raise Unreachable("the daemon did not start", "punchin doctor")

    with pytest.raises(Unreachable) as error:
        wait(Gone(), "X", Listener(print))
    assert error.value.hint == "punchin doctor\njob X is kept: punchin land X"
