"""The effects a chain may name, with what each parameter takes. Names and defaults are pedalboard's own.

Where pedalboard states a range, it is here; where it states none, the range is ours: as wide as the parameter has a
meaning. A test compares this table with pedalboard's signatures.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from punchin.protocol.errors import Refused
from punchin.protocol.limits import Limit


@dataclass(frozen=True, slots=True)
class Number:
    """A parameter that takes a number. `below_nyquist`: it must also be under half the sample rate."""

    default: float
    low: float
    high: float
    unit: str = ""
    below_nyquist: bool = False

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g} {self.unit}".rstrip() + f" [{self.default:g}]"

    def read(self, name: str, value: object, folder: Path) -> float:
        """The number, or Refused with the range."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Refused(f"{name} is {value!r}, allowed is {self}")
        try:
            number = float(value)
        except OverflowError:  # a whole number of over 308 digits
            number = math.inf
        Limit(name, self.low, self.high, self.unit).check(number)
        return number


@dataclass(frozen=True, slots=True)
class Switch:
    """A parameter that is on or off."""

    default: bool

    def __str__(self) -> str:
        return f"true or false [{str(self.default).lower()}]"

    def read(self, name: str, value: object, folder: Path) -> bool:
        """The value, or Refused."""
        if not isinstance(value, bool):
            raise Refused(f"{name} is {value!r}, allowed is {self}")
        return value


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter that takes one of some words: the members of an enumeration `kind` of pedalboard."""

    default: str
    words: tuple[str, ...]
    kind: str

    def __str__(self) -> str:
        return f"{', '.join(self.words)} [{self.default}]"

    def read(self, name: str, value: object, folder: Path) -> str:
        """The word, or Refused with those there are."""
        if value not in self.words:
            raise Refused(f"{name} is {value!r}, allowed is {', '.join(self.words)}")
        return str(value)


@dataclass(frozen=True, slots=True)
class File:
    """A parameter that names an audio file, relative to the chain's folder. It has no default."""

    default: None = None

    def __str__(self) -> str:
        return "a file, relative to the chain's folder"

    def read(self, name: str, value: object, folder: Path) -> str:
        """The absolute path, or Refused when there is no such file."""
        if not isinstance(value, str):
            raise Refused(f"{name} is {value!r}, allowed is {self}")
        path = folder / os.path.expanduser(value)  # unlike Path's own, it leaves a ~user that is not there
        if not os.path.isfile(path):  # and this says no to a name that is too long
            raise Refused(f"{name}: no file at {path}")
        return str(path)


Parameter = Number | Switch | Choice | File

_UNIT = Number(0, 0, 1)  # what most mixes and levels are


def _share(default: float) -> Number:
    return Number(default, _UNIT.low, _UNIT.high)


def _cutoff(default: float) -> Number:
    return Number(default, 1, 96_000, "Hz", below_nyquist=True)


_SINCS = tuple(f"WindowedSinc{size}" for size in ("", 256, 128, 64, 32, 16, 8))
_QUALITIES = ("ZeroOrderHold", "Linear", "CatmullRom", "Lagrange", *_SINCS)
_LADDERS = ("LPF12", "HPF12", "BPF12", "LPF24", "HPF24", "BPF24")
_BAND: dict[str, Parameter] = {
    "cutoff_frequency_hz": _cutoff(440),
    "gain_db": Number(0, -60, 60, "dB"),
    "q": Number(0.7071067690849304, 0.01, 100),
}
_ATTACK, _RELEASE = Number(1, 0, 1_000, "ms"), Number(100, 0, 10_000, "ms")

EFFECTS: Mapping[str, Mapping[str, Parameter]] = {
    "Bitcrush": {"bit_depth": Number(8, 1, 32, "bits")},
    "BrickwallLimiter": {
        "ceiling_db": Number(-1, -60, 0, "dB"),
        "release_ms": Number(100, 1, 10_000, "ms"),
        "lookahead_ms": Number(5, 0.1, 100, "ms"),
        "true_peak": Switch(False),
    },
    "Chorus": {
        "rate_hz": Number(1, 0, 100, "Hz"),
        "depth": _share(0.25),
        "centre_delay_ms": Number(7, 1, 100, "ms"),
        "feedback": Number(0, -0.99, 0.99),
        "mix": _share(0.5),
    },
    "Clipping": {"threshold_db": Number(-6, -100, 0, "dB")},
    "Compressor": {
        "threshold_db": Number(0, -100, 0, "dB"),
        "ratio": Number(1, 1, 100),
        "attack_ms": _ATTACK,
        "release_ms": _RELEASE,
    },
    "Convolution": {"impulse_response_filename": File(), "mix": _share(1)},
    "Delay": {"delay_seconds": Number(0.5, 0, 30, "s"), "feedback": _share(0), "mix": _share(0.5)},
    "Distortion": {"drive_db": Number(25, -60, 100, "dB")},
    "GSMFullRateCompressor": {"quality": Choice("WindowedSinc8", _QUALITIES, "Resample.Quality")},
    "Gain": {"gain_db": Number(1, -120, 60, "dB")},
    "HighShelfFilter": _BAND,
    "HighpassFilter": {"cutoff_frequency_hz": _cutoff(50)},
    "Invert": {},
    "LadderFilter": {
        "mode": Choice("LPF12", _LADDERS, "LadderFilter.Mode"),
        "cutoff_hz": _cutoff(200),
        "resonance": _share(0),
        "drive": Number(1, 1, 100),
    },
    "Limiter": {"threshold_db": Number(-10, -100, 0, "dB"), "release_ms": Number(100, 1, 10_000, "ms")},
    "LowShelfFilter": _BAND,
    "LowpassFilter": {"cutoff_frequency_hz": _cutoff(50)},
    "MP3Compressor": {"vbr_quality": Number(2, 0, 9.9)},
    "NoiseGate": {
        "threshold_db": Number(-100, -120, 0, "dB"),
        "ratio": Number(10, 1, 100),
        "attack_ms": _ATTACK,
        "release_ms": _RELEASE,
    },
    "PeakFilter": _BAND,
    "Phaser": {
        "rate_hz": Number(1, 0, 100, "Hz"),
        "depth": _share(0.5),
        "centre_frequency_hz": _cutoff(1_300),
        "feedback": Number(0, -0.99, 0.99),
        "mix": _share(0.5),
    },
    "PitchShift": {"semitones": Number(0, -72, 72, "semitones")},
    "Resample": {
        "target_sample_rate": Number(8_000, 100, 192_000, "Hz"),
        "quality": Choice("WindowedSinc32", _QUALITIES, "Resample.Quality"),
    },
    "Reverb": {
        "room_size": _share(0.5),
        "damping": _share(0.5),
        "wet_level": _share(0.33),
        "dry_level": _share(0.4),
        "width": _share(1),
        "freeze_mode": _share(0),
    },
}


def parameters(effect: str) -> Mapping[str, Parameter]:
    """What an effect takes. Raises Refused, which lists the effects there are."""
    if effect not in EFFECTS:
        raise Refused(f'no effect "{effect}"; there are {", ".join(EFFECTS)}', _meant(effect, EFFECTS))
    return EFFECTS[effect]


def read_values(effect: str, values: Mapping[str, Any], folder: Path) -> dict[str, float | bool | str]:
    """The values of a built-in effect, checked. Raises Refused, which lists what exists."""
    known = parameters(effect)
    for name in values:
        if name not in known:
            there = "; ".join(f"{key}: {parameter}" for key, parameter in known.items()) or "none"
            raise Refused(f'effect {effect} has no parameter "{name}"; it has {there}', _meant(name, known))
    for name, parameter in known.items():
        if isinstance(parameter, File) and name not in values:
            raise Refused(f"effect {effect} needs {name}: {parameter}")
    return {name: known[name].read(f"{effect} {name}", value, folder) for name, value in values.items()}


def _meant(name: str, known: Mapping[str, object]) -> str:
    lowered = {key.lower(): key for key in known}
    close = get_close_matches(name.lower(), lowered, n=1)
    return f"did you mean {lowered[close[0]]}?" if close else ""
