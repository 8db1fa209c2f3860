"""What may stand on a command line: the parser, and the types of its values.

A wrong line raises BadUsage (exit 2) with the option, the value and what would be right.
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from punchin.protocol import limits, usage
from punchin.protocol.errors import OverLimit
from punchin.protocol.limits import Limit

CLOCK = "clock"


class Parser(usage.Parser):
    """The parser of a verb: one that takes `--preset` reads what is kept under that name too."""

    def read(self, words: Sequence[str], out: TextIO | None) -> argparse.Namespace | None:
        """As the protocol's parser. Raises Refused too: a preset that is not there, or cannot be read."""
        if "--preset" in self._option_string_actions and not {"-h", "--help"} & set(words):
            from punchin.clients.cli import presets

            words = presets.expand(words, self._option_string_actions)
        return super().read(words, out)


def json_argument(parser: argparse._ActionsContainer, default: bool | str = False) -> None:
    """The option of nearly every verb. A part of a verb has it too, with the default SUPPRESS, beside the verb's."""
    parser.add_argument("--json", action="store_true", default=default, help="one JSON value on stdout, alone")


def file(text: str) -> Path:
    """A path, `~` read as a shell does: what stands behind a = or in a preset has not seen one."""
    return Path(os.path.expanduser(text))


def bars(text: str) -> tuple[int, int]:
    """`5-8` is bars 5 to 8 inclusive, `5` is one bar, `-2-0` are the three before bar 1 where a ruler has such."""
    found = re.fullmatch(r"(-?\d+)(?:-(-?\d+))?", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f'"{text}" is no bar range; write 5-8, or 5 for one bar')
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise argparse.ArgumentTypeError(f"{text} ends before it starts")
    return first, last


def span(text: str) -> tuple[float, float]:
    """`12.5-20` or `0:12.5-0:20`: two times in seconds or minutes:seconds."""
    start, dash, end = text.strip().partition("-")
    times = _seconds(start), _seconds(end)
    if not dash or times[0] is None or times[1] is None:
        raise argparse.ArgumentTypeError(f'"{text}" is no time range; write 12.5-20 (seconds) or 0:12.5-0:20')
    return times[0], times[1]


def _seconds(text: str) -> float | None:
    found = re.fullmatch(r"(?:(\d+):)?(\d+(?:\.\d*)?|\.\d+)", text.strip())
    return int(found[1] or 0) * 60 + float(found[2]) if found else None


def number(limit: Limit) -> Callable[[str], float]:
    """A type for a number within a limit; the error quotes it."""

    def read(text: str) -> float:
        try:
            value = float(text)
            limit.check(value)
        except OverLimit as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        except ValueError:
            raise argparse.ArgumentTypeError(f'"{text}" is no number') from None
        return value

    return read


def tempo(text: str) -> float | str:
    """Beats a minute, or `clock`: what a DAW sends."""
    return text if text == CLOCK else number(limits.SESSION_TEMPO)(text)


def whole(limit: Limit) -> Callable[[str], int]:
    """A type for a whole number within a limit."""
    real = number(limit)

    def read(text: str) -> int:
        value = real(text)
        if not math.isfinite(value) or value != int(value):
            raise argparse.ArgumentTypeError(f"{text} is no whole number")
        return int(text) if text.lstrip("+-").isdigit() else int(value)

    return read


def signature(text: str) -> tuple[int, int]:
    """`7/8`: numerator and denominator."""
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text.strip())
    if not found or int(found[1]) < 1 or int(found[2]) not in (1, 2, 4, 8, 16, 32, 64):
        raise argparse.ArgumentTypeError(
            f'"{text}" is no time signature; write 4/4 or 7/8 (beats 1 to 999, of 1/1 to 1/64)'
        )
    return int(found[1]), int(found[2])


def key(text: str) -> str:
    """`F#m`, `F# min` or `f# minor`: "F# minor", as the model has learned to read it; a letter alone is major."""
    found = re.fullmatch(r"([A-Ga-g])([#♯b♭]?)\s*(|m|M|min|maj|[Mm]inor|[Mm]ajor)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(
            f'"{text}" is no key; write A to G, with # or b, then major or minor: "F# minor"'
        )
    sign = found[2].replace("♯", "#").replace("♭", "b")
    return f"{found[1].upper()}{sign} {'minor' if found[3].lower().startswith('mi') or found[3] == 'm' else 'major'}"


def instrument(text: str) -> str:
    """What an instrument is called; which ones a model knows, its engine says."""
    if not text.strip(" ,"):
        raise argparse.ArgumentTypeError(f'"{text}" names no instrument; write one like drums, bass or vocals')
    if len(text) > limits.NAME_CHARS:
        raise argparse.ArgumentTypeError(f"has {len(text)} characters, allowed is {limits.NAME_CHARS}")
    return text


def language(text: str) -> str:
    """The code of a language, as ISO 639 has it, or `unknown`."""
    if text != "unknown" and not re.fullmatch(r"[a-z]{2,3}", text):
        raise argparse.ArgumentTypeError(f'"{text}" is no language code; write one like en, de or ja, or unknown')
    return text


def raw(text: str) -> tuple[str, bool | int | float | str]:
    """`NAME=VALUE`: a parameter of the engine by its Python name; the value is read as Python would."""
    name, sign, value = text.partition("=")
    if not sign or not name.isidentifier():
        raise argparse.ArgumentTypeError(f'"{text}" is no NAME=VALUE')
    if value in ("true", "True", "false", "False"):
        return name, value in ("true", "True")
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def lora(text: str) -> tuple[Path, float]:
    """`FILE` or `FILE:STRENGTH`."""
    name, colon, strength = text.rpartition(":")
    if not colon or not re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)", strength):
        return file(text), 1.0
    return file(name), number(limits.LORA_STRENGTH)(strength)


def context(text: str) -> int | str:
    """`auto`, `whole`, or a number of bars on each side."""
    if text in ("auto", "whole"):
        return text
    if not re.fullmatch(r"[0-9]{1,4}", text):
        raise argparse.ArgumentTypeError(f'"{text}" is neither auto, whole nor a number of bars from 0 to 9999')
    return int(text)
