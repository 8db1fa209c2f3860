"""How a command line is read: argparse's ways, in Punchin's words, the same in each process that reads one."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn, TextIO

from punchin.protocol.errors import BadUsage, PunchinError


class _HelpAsked(Exception):
    """A line asks for help; the text is its argument."""


class _Help(argparse.Action):
    """`-h` of the command that it stands behind, `models pull` as well as `models`."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        raise _HelpAsked(parser.format_help())


class Parser(argparse.ArgumentParser):
    """argparse without its exits: help is returned as text, a wrong line is a BadUsage."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            add_help=False, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings
        )
        self.add_argument("-h", "--help", action=_Help, nargs=0, default=argparse.SUPPRESS, help="this text")

    def read(self, words: Sequence[str], out: TextIO | None) -> argparse.Namespace | None:
        """The values of a command line, or None when it asked for help, which then went to `out`.

        out: None where who began us closed it, as Python's own stdout. Raises BadUsage, PunchinError where the help has
        no room.
        """
        try:
            return self.parse_args(list(words))
        except _HelpAsked as asked:
            text = str(asked)
        if out is not None:
            _write(text, out)
        return None

    def error(self, message: str) -> NoReturn:
        """Called by argparse for a line that is wrong by itself."""
        raise BadUsage(message.replace("argument ", "", 1), f"{self.prog} --help")


def _write(text: str, out: TextIO) -> None:
    try:
        out.write(text)
        out.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())  # for what is left in it when Python ends
        if not isinstance(error, BrokenPipeError):  # `punchin train --help | head`: the reader has enough
            hint = "free some disk space (punchin gc), then try again"
            raise PunchinError(f"the help cannot be written: {error.strerror}", hint) from error
