"""Audio through a chain: each effect loaded, used once from a fresh state, and its result checked.

Lengths and places stay: an effect's own latency is compensated by pedalboard, and what rings on past the end of the
audio is cut off there. Whoever needs a tail gives audio with room for it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from punchin.plugin_host.chain import Step
from punchin.plugin_host.effects import EFFECTS, Choice, File, Number
from punchin.protocol import limits
from punchin.protocol.errors import PunchinError, Refused

if TYPE_CHECKING:
    from pedalboard import Plugin

Audio = NDArray[np.float32]
SETTLING: Final = 8_192  # frames, a block of pedalboard's
Tell = Callable[[str, Literal["load", "process"]], None]  # what is about to be done, and to which effect


class EffectFailed(PunchinError):
    """An effect could not be loaded, or could not do its work. `effect` is its label."""

    def __init__(self, effect: str, text: str) -> None:
        super().__init__(text)
        self.effect = effect


def load_chain(steps: Sequence[Step], tell: Tell) -> list[Plugin]:
    """The chain's effects, ready. Call it on the main thread: plug-ins insist.

    Raises Refused for values that a plug-in does not have, EffectFailed for a plug-in that cannot be loaded.
    """
    plugins: list[Plugin] = []
    for step in steps:
        tell(step.label, "load")
        plugins.append(_load_vst3(step) if step.vst3 else _load_own(step))
    return plugins


def perform(steps: Sequence[Step], plugins: Sequence[Plugin], audio: Audio, rate_hz: int, tell: Tell) -> Audio:
    """What the chain makes of `audio` [channels, frames]: the same shape, every sample finite.

    Raises EffectFailed when an effect fails or gives samples that are not numbers. See `check_corners`.
    """
    for step, plugin in zip(steps, plugins, strict=True):
        tell(step.label, "process")
        made = _process(step, plugin, audio, rate_hz)
        if made.shape != audio.shape:
            raise EffectFailed(step.label, f"it made {made.shape} samples of {audio.shape}")
        bad = ~np.isfinite(made)
        if bad.any():
            first = int(np.argmax(bad.any(axis=0)))
            raise EffectFailed(
                step.label, f"{int(bad.sum())} samples it made are not numbers, the first at frame {first}"
            )
        audio = made
    return audio


def check_corners(steps: Sequence[Step], rate_hz: int) -> None:
    """Raise Refused for a corner frequency that the rate cannot carry."""
    for step in steps:
        for name, parameter in ({} if step.vst3 else EFFECTS[step.name]).items():
            value = step.values.get(name, parameter.default)
            if isinstance(parameter, Number) and parameter.below_nyquist and float(value or 0) >= rate_hz / 2:
                raise Refused(f"{step.label}: {name} is {value:g} Hz, at {rate_hz} Hz allowed is under {rate_hz / 2:g}")


def _load_own(step: Step) -> Plugin:
    pedalboard = _pedalboard()
    kind = getattr(pedalboard, step.name, None)
    if kind is None:
        raise Refused(
            f"the installed pedalboard {pedalboard.__version__} has no {step.name}", "pip install -U pedalboard"
        )
    values = {key: _value(pedalboard, step, key) for key in step.values}
    try:
        for key in step.values:
            if isinstance(EFFECTS[step.name][key], File):
                _check_impulse(pedalboard, step, values[key])
        return kind(**values)
    except Refused:
        raise
    except Exception as error:
        raise EffectFailed(step.label, _words(error)) from error


def _check_impulse(pedalboard: Any, step: Step, path: str) -> None:
    """Convolution would pass the audio as it is with a file that is none, and take two channels of many."""
    with pedalboard.io.AudioFile(path) as file:
        if not file.frames:
            raise Refused(f"{step.label}: {path} holds no audio")
        limits.CHANNELS.check(file.num_channels, f"mix {path} down to stereo")


def _value(pedalboard: Any, step: Step, key: str) -> Any:
    parameter, value = EFFECTS[step.name][key], step.values[key]
    if isinstance(parameter, Choice):
        return reduce(getattr, [*parameter.kind.split("."), str(value)], pedalboard)
    return value


def _load_vst3(step: Step) -> Plugin:
    pedalboard = _pedalboard()
    try:
        plugin = pedalboard.load_plugin(str(step.vst3), plugin_name=step.plugin)
    except Exception as error:
        raise EffectFailed(step.label, _words(error)) from error
    if step.plugin not in (None, plugin.name):  # of a file with one plug-in that one is loaded by any name
        raise Refused(f'{step.label} at {step.vst3}: no plug-in "{step.plugin}"; it has "{plugin.name}"')
    if not plugin.is_effect:
        raise Refused(f"{step.label} at {step.vst3} is an instrument, not an effect")
    _set(step, plugin)
    return plugin


def _set(step: Step, plugin: Any) -> None:
    """Give a plug-in the chain's values. A program among them moves others, but none that the chain names itself."""
    begun, given = {key: each.raw_value for key, each in plugin.parameters.items()}, dict[str, float]()
    for key, value in step.values.items():
        was = plugin.parameters[key].raw_value if key in begun else None
        _set_one(step, plugin, key, value)
        given[key] = plugin.parameters[key].raw_value
        if given[key] == was != begun[key]:  # a program has shown it already
            _make_heard(plugin.parameters[key], begun[key])
    for key, parameter in plugin.parameters.items():
        now = parameter.raw_value
        if key in given and now != given[key]:
            _set_one(step, plugin, key, step.values[key])
        elif key not in given and now != begun[key]:
            _make_heard(parameter, begun[key])


def _make_heard(parameter: Any, before: float) -> None:
    """A program moves what is shown; what sounds hears only of values that change."""
    now = parameter.raw_value
    parameter.raw_value = before
    parameter.raw_value = now


def _set_one(step: Step, plugin: Any, key: str, value: object) -> None:
    if key not in plugin.parameters:
        there = "; ".join(f"{name}: {_range(parameter)}" for name, parameter in plugin.parameters.items())
        raise Refused(f'plug-in {step.name} has no parameter "{key}"; it has {there or "none"}')
    try:
        if isinstance(value, float) and math.isnan(value):
            raise ValueError  # in every range, as pedalboard compares
        if isinstance(value, bool) and plugin.parameters[key].type is float:
            raise ValueError  # true would be 1
        setattr(plugin, key, value)
    except (ValueError, TypeError, OverflowError) as error:
        allowed = _range(plugin.parameters[key])
        raise Refused(f"{step.name} {key} is {value!r}, allowed is {allowed}") from error


def _range(parameter: Any) -> str:
    """What a plug-in says that its parameter takes: `0 to 2 dB`, or its words when it has only a few."""
    low, high, _ = parameter.range
    if isinstance(low, int | float) and not isinstance(low, bool):
        return f"{low:g} to {high:g} {parameter.label or ''}".rstrip()
    return ", ".join(str(value) for value in parameter.valid_values[:20])


def _process(step: Step, plugin: Plugin, audio: Audio, rate_hz: int) -> Audio:
    try:
        if step.values and step.vst3:  # its values arrive with the first block: what glides to them, glides in silence
            plugin.process(np.zeros((len(audio), SETTLING), np.float32), rate_hz, reset=True)
        return plugin.process(audio, rate_hz, reset=True)
    except Exception as error:
        if step.vst3 and len(audio) > 1 and "channel" in str(error):  # a mono plug-in, once for each side
            return np.concatenate([_process(step, plugin, side[np.newaxis], rate_hz) for side in audio])
        raise EffectFailed(step.label, _words(error)) from error


def _pedalboard() -> Any:
    try:
        import pedalboard  # here, so that an empty chain and the list of effects need none
    except ImportError as error:
        raise Refused(f"effects need pedalboard: {error}", "pip install 'punchin[host]'") from error
    return pedalboard


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:400] or type(error).__name__
