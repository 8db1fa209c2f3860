"""The command line: `punchin VERB ...`. Data goes to stdout, talk to stderr, and each verb is a small function.

Modules: `verbs` (the table), `arguments` (what may be written), `talk` (what is said), and one module for each group
of verbs. A verb's module is imported when it is called, so that `punchin --help` costs no numpy.
"""

from __future__ import annotations

import errno
import io
import os
import sys

TYPE_CHECKING = False  # importing typing takes most of the time in which a ctrl-C still ends in a traceback
if TYPE_CHECKING:
    from collections.abc import Sequence

    from punchin.clients.cli.talk import Talk


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and give its exit code: 0, 1, 2, 3, 4 or 130 (see `punchin.protocol.errors`)."""
    try:
        return _answer(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:  # before there was anybody to answer it
        return 130


def _answer(words: list[str]) -> int:
    from punchin.clients.cli import verbs
    from punchin.clients.cli.talk import Talk
    from punchin.protocol import stops
    from punchin.protocol.errors import Cancelled, PunchinError, Refused

    _open_outputs()
    talk = Talk(sys.stderr)
    try:
        with stops.unwound():  # a landing takes away what it wrote so far
            code = verbs.run(words, sys.stdout, talk)
        sys.stdout.flush()
        return code
    except PunchinError as error:
        talk.error(error)
        return error.exit_code
    except KeyboardInterrupt:
        talk.rest()
        talk.say("stopped")
        return Cancelled.exit_code
    except BrokenPipeError as error:
        if _is_read():
            return _bug(error, talk)
        _drop_the_rest()  # `punchin jobs | head`: the reader has enough
        return 0
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            return _bug(error, talk)
        if error.filename is None:  # it was the output
            _drop_the_rest()
        text = f"{error.filename or 'what was to be written'}: {error.strerror}"
        talk.error(PunchinError(text, "free some disk space (punchin gc), then try again"))
        return PunchinError.exit_code
    except UnicodeEncodeError as error:  # a name from another system's disk: no file format of ours can hold it
        text = f"{error.object[:200]!a} is no text in {error.encoding}"
        talk.error(Refused(text, "rename the file or folder, then again"))
        return Refused.exit_code
    except Exception as error:
        return _bug(error, talk)


def _open_outputs() -> None:
    """Outputs that take anything: closed by who began us, or of an encoding that lacks a letter."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python opens stderr


def _is_read() -> bool:
    """Whether somebody still reads what we put out. Where nobody can tell (Windows), nobody does."""
    import select

    if not hasattr(select, "poll"):
        return False
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return not any(event & select.POLLERR for _, event in output.poll(0))


def _drop_the_rest() -> None:
    """What is left in the output goes nowhere: Python would try it once more at its end, and give a code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _bug(error: Exception, talk: Talk) -> int:
    """Keep a traceback in a file and say where: people get one line, not a screen of code."""
    import time
    import traceback

    from punchin.protocol import home
    from punchin.protocol.errors import PunchinError
    from punchin.protocol.version import PACKAGE

    if os.environ.get("PUNCHIN_DEBUG"):
        raise error
    path = home.state() / f"crash-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.txt"
    text = f"punchin {PACKAGE}, {' '.join(sys.argv)}\n\n{''.join(traceback.format_exception(error))}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", errors="backslashreplace")
        where = f"the traceback is in {path}"
    except OSError as disk:
        where = f"its traceback could not be kept ({disk}); set PUNCHIN_DEBUG=1 to see it"
    talk.error(PunchinError(f"bug in punchin ({type(error).__name__}: {error}); {where}", "punchin doctor"))
    return PunchinError.exit_code
