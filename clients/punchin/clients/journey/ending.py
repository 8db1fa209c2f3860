"""The end of a journey: what was made is written, and journaled. What goes wrong says how the takes land after all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from punchin.protocol.errors import Cancelled, PunchinError

if TYPE_CHECKING:
    from punchin.clients.client import Client


class Written(Protocol):
    """What was written, and where."""

    @property
    def output(self) -> Path:
        """The document, or the first file."""
        ...


W = TypeVar("W", bound=Written)


def write_out(client: Client, jobs: Iterable[str], write: Callable[[], W]) -> W:
    """Write the takes of these jobs, and have it journaled where they are. Raises PunchinError (disk), Cancelled."""
    jobs = tuple(dict.fromkeys(jobs))
    try:
        with kept_takes(jobs):
            written = write()
    except Cancelled:
        raise
    except PunchinError as error:
        kept = f"the takes are kept; once it is mended, or with -o elsewhere: {_later(jobs)}"
        error.hint = f"{error.hint}\n{kept}".strip()
        raise
    _tell_landed(client, jobs, written.output.absolute())  # jobs outlive the folder they were asked from
    return written


@contextmanager
def kept_takes(jobs: Iterable[str]) -> Iterator[None]:
    """A ctrl-C in here costs no take: it says how they land after all."""
    try:
        yield
    except KeyboardInterrupt:
        raise Cancelled("stopped before anything was written; the takes are kept", _later(jobs)) from None


def _tell_landed(client: Client, jobs: Iterable[str], output: Path) -> None:
    """Have it journaled. What goes wrong here is told, and so is that the takes are in their place all the same."""
    there = f"the takes have landed in {output}"
    try:
        for job in jobs:
            client.landed(job, str(output))
    except KeyboardInterrupt:
        raise Cancelled(f"stopped; {there}") from None
    except PunchinError as error:
        error.hint = f"{error.hint}\n{there}".strip()
        raise


def _later(jobs: Iterable[str]) -> str:
    return " and ".join(f"punchin land {job}" for job in dict.fromkeys(jobs))
