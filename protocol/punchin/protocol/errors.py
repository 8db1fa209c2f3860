"""Everything Punchin raises on purpose.

PunchinError              exit 1   a job or a disk failed after work began
├── BadUsage              exit 2   the command line is wrong by itself
├── Unreachable           exit 3   no daemon answers and none could be started
├── Refused               exit 4   the session was read, or the daemon was asked, and the answer is no
│   └── OverLimit                  a number is outside its limit; both travel with the error
├── JobFailed             exit 1   the job ended badly; has .job and .code
└── Cancelled             exit 130 by this user or by another client

The text says what happened, the number and the limit; `hint` is the next command to run, or what to do in the DAW.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

if TYPE_CHECKING:
    from punchin.protocol.limits import Limit


class PunchinError(Exception):
    """The root. `str(error)` is one sentence for people, `hint` what to do next (may be empty)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.hint = hint

    def of(self, what: str) -> Self:
        """The same error, whose text now begins with what it is about; as it is where that is empty."""
        self.args = (f"{what}: {self}" if what else str(self),)
        return self


class BadUsage(PunchinError):
    """The command line is wrong by itself; nothing was read."""

    exit_code = 2


class Unreachable(PunchinError):
    """No daemon answers, and none could be started."""

    exit_code = 3


class Refused(PunchinError):
    """The answer is no, before any work began. `code` is for programs (`conflict`, `busy`, `over_limit`, ...)."""

    exit_code = 4

    def __init__(self, text: str, hint: str = "", code: str = "refused") -> None:
        super().__init__(text, hint)
        self.code = code


class OverLimit(Refused):
    """A number is outside its limit: `region length is 900 s, allowed is 0.25 to 600`."""

    def __init__(self, limit: Limit, value: float, hint: str = "") -> None:
        text = f"{limit.name} is {plain(value)} {limit.unit}".rstrip()
        super().__init__(f"{text}, allowed is {plain(limit.low)} to {plain(limit.high)}", hint, code="over_limit")
        self.limit, self.value = limit, value


def plain(number: float) -> str:
    """A number for people: whole ones with all their digits, others with six."""
    return str(int(number)) if abs(number) < 1e15 and number == int(number) else f"{number:g}"


class JobFailed(PunchinError):
    """The job ended badly. `job` names it, `code` is for programs (`oom`, `crashed`, `not_finite`, ...)."""

    def __init__(self, text: str, hint: str = "", *, job: str = "", code: str = "failed") -> None:
        super().__init__(text, hint)
        self.job, self.code = job, code


class Cancelled(PunchinError):
    """The job was cancelled, by us or by another client; nothing was written."""

    exit_code = 130
