"""How much of a session the model hears around a region, and which part of that is made anew. Arithmetic alone.

All frames here are the target's (at its rate, from its origin), unless a docstring says 48 kHz or latent frames: those
count from the window's start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from punchin.protocol import limits

Region = tuple[int, int]

MIN_WINDOW_S = 30.0  # `--context auto`: the model hears at least this much where the session has it


ROUNDING_S = 0.2  # more than a lead and two latent frames
MARGIN_S = 0.1  # audio beyond the region that also comes back where rates differ: the resampler's ends lie in it


@dataclass(frozen=True, slots=True)
class Window:
    """A span of the session, and inside it the frames that a take may change: [touched, end)."""

    rate_hz: int
    start: int
    touched: int  # the first frame that a take may change: the region's start less its lead
    end: int  # the region's end; from here on nothing changes
    stop: int  # the window's end

    @property
    def frames(self) -> int:
        """Length at the target's rate."""
        return self.stop - self.start

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.frames / self.rate_hz

    def context_s(self, start_frame: int) -> tuple[float, float]:
        """Seconds that are heard before the region, which begins at this frame, and after it."""
        return (start_frame - self.start) / self.rate_hz, (self.stop - self.end) / self.rate_hz

    @property
    def model_frames(self) -> int:
        """Length at 48 kHz, rounded up to hold every frame of the window."""
        return math.ceil(self.frames * self._ratio)

    @property
    def mask(self) -> tuple[int, int]:
        """Latent frames [first, last) of the window that are touched, each 40 ms long."""
        first = math.floor((self.touched - self.start) * self._ratio / limits.HOP)
        last = math.ceil((self.end - self.start) * self._ratio / limits.HOP)
        return first, last

    @property
    def wanted(self) -> tuple[int, int]:
        """48 kHz frames [first, last) of the window that must come back. `first` falls on a frame of both rates."""
        if self.rate_hz == limits.MODEL_HZ:
            return self.touched - self.start, self.end - self.start
        margin = round(MARGIN_S * self.rate_hz)
        step = limits.MODEL_HZ // math.gcd(limits.MODEL_HZ, self.rate_hz)
        first = max(0, math.floor((self.touched - self.start - margin) * self._ratio / step) * step)
        last = math.ceil((self.end - self.start + margin) * self._ratio)
        return first, min(last, self.model_frames)

    def ending_at(self, end: int) -> Window:
        """The same window where the region's end is another frame: what the target counts from has moved."""
        by = end - self.end
        return Window(self.rate_hz, self.start + by, self.touched + by, end, self.stop + by)

    @property
    def _ratio(self) -> Fraction:
        return Fraction(limits.MODEL_HZ, self.rate_hz)


def around(region: Region, bounds: tuple[int, int], lead: int, rate_hz: int, context_s: tuple[float, float]) -> Window:
    """The window that holds a region, its lead, and the asked context as far as the session reaches.

    region: frames [start, end). bounds: the session's first and last frame. lead: frames before the region that the
    take must cover too. context_s: wanted before that and after the region. The window's start is moved up to 40 ms
    earlier, where the session has that, so that the touched part begins on a latent frame's edge. Raises OverLimit when
    the model cannot hear that much.
    """
    start, end = region
    touched = max(start - lead, min(start, bounds[0]))
    hop = Fraction(rate_hz, limits.LATENT_HZ)
    hops = min(math.ceil(context_s[0] * limits.LATENT_HZ), math.floor((touched - bounds[0]) / hop))
    stop = max(end, min(end + round(context_s[1] * rate_hz), bounds[1]))
    window = Window(rate_hz, math.ceil(touched - max(hops, 0) * hop), touched, end, stop)
    latents = math.ceil(Fraction(window.model_frames, limits.HOP))
    limits.WINDOW.check(max(latents, limits.WINDOW.low), "select fewer bars, or let it hear less: --context auto")
    return window


def hull(windows: Sequence[Window], bounds: tuple[int, int] | None) -> Window:
    """The window of several regions that are made together, from the first one's lead to the last one's end.

    All that each would hear alone; with `bounds`, the session's first and last frame, so much more on both sides that
    half of it is context, as far as they and 600 s allow.
    """
    low, high = bounds or (math.inf, -math.inf)
    rate_hz, hop = windows[0].rate_hz, Fraction(windows[0].rate_hz, limits.LATENT_HZ)
    start, stop = min(window.start for window in windows), max(window.stop for window in windows)
    first, last = min(window.touched for window in windows), max(window.end for window in windows)
    made = sum(window.end - window.touched for window in windows)
    longest = math.floor((limits.WINDOW.high - 2) * hop)
    more = max(min(2 * made, longest) - (stop - start), 0) // 2
    hops = math.floor((first - max(start - more, min(low, start))) / hop)
    return Window(rate_hz, math.ceil(first - hops * hop), first, last, int(min(stop + more, max(high, stop))))


def auto_context(room_before_s: float, length_s: float, room_after_s: float) -> tuple[float, float]:
    """Seconds of context before and after a region: a window of 30 s, at least half of it context, 600 s at most.

    Both sides get the same; what one side lacks, because the session begins or ends there, the other gets.
    """
    longest_s = limits.WINDOW.high / limits.LATENT_HZ
    # ROUNDING_S: the lead belongs to what is made, and the window begins on a whole latent frame.
    total_s = max(min(max(MIN_WINDOW_S, 2 * length_s) + ROUNDING_S, longest_s - ROUNDING_S) - length_s, 0.0)
    before_s = min(room_before_s, max(total_s / 2, total_s - room_after_s))
    return before_s, min(room_after_s, total_s - before_s)
