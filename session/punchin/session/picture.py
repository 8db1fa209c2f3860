"""The before/after picture of one region: what was there, what is there now, and where they meet."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from punchin.session.measure import Span
from punchin.session.report import Report
from punchin.session.splice import Fade, Fades

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Audio = NDArray[np.float32]

_WIDTH_PX, _HEIGHT_PX, _DPI = 1200, 640, 100
_LEFT, _RIGHT = 0.068, 0.985  # of the width, between which all is drawn
_COLUMNS = 1100  # points of a waveform, columns of a spectrogram: about one a pixel
_ROWS = 160  # of a spectrogram
_LOW_HZ, _HIGH_HZ = 40.0, 16_000.0
_STEPS_S = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 3600, 36_000)
_RANGE_DB = 75.0  # from the loudest point of both spectrograms down to the background
_FAINT_DB = 0.0  # of a spectrogram; silence is black
_PAPER, _INK, _MUTED, _LINE = "#14161b", "#e8e6e1", "#8b909c", "#3a3f4b"
_TITLE_CHARS = 72
_FACTS_CHARS, _SMALL_CHARS = 140, 180  # of what was measured, in a line, and in each of two
_MOST_BEATS = 150
_OLD, _NEW, _FADE = "#8b909c", "#ffb454", "#59c2ff"


def before_after(
    path: Path,
    before: Audio,
    after: Audio,
    span: Span,
    fades: Fades,
    *,
    title: str = "",
    first_bar: int = 1,
    report: Report | None = None,
) -> None:
    """Write a PNG of 1200 x 640 px: waveform and log spectrogram before and after, bars, the region and its fades.

    before, after: [channels, n] float32 at `span.rate_hz`, of one length, n > 0; the picture shows all of it.
    first_bar: the number of the first bar line in `span.bar_lines_frames`. The region is tinted, what is new in the
    second waveform is orange, and the two fades are blue. Beats are ticked where the span has a grid. report: what was
    measured stands below, each seam at its edge.
    """
    figure = _figure()
    rows = figure.add_gridspec(
        5, 1, height_ratios=(3, 5, 0.35, 3, 5), left=_LEFT, right=_RIGHT, top=0.905, bottom=0.075, hspace=0.03
    )
    old, new = ((figure.add_subplot(rows[row]), figure.add_subplot(rows[row + 1])) for row in (0, 3))
    peak = max(float(np.abs(before).max(initial=0.0)), float(np.abs(after).max(initial=0.0)), 1e-6)
    spectra = [spectrogram_db(audio, span.rate_hz) for audio in (before, after)]
    for axes, audio, name in ((old[0], before, "before"), (new[0], after, "after")):
        _draw_wave(axes, audio, span, fades if name == "after" else None, peak, name)
    for axes, spectrum in ((old[1], spectra[0]), (new[1], spectra[1])):
        _draw_spectrum(axes, spectrum, before.shape[1] / span.rate_hz, max(float(s.max()) for s in spectra))
    for axes in (*old, *new):
        _draw_marks(axes, before.shape[1], span, fades, tint=0.10 if axes in (old[0], new[0]) else 0.0)
    _number_bars(old[0], span, before.shape[1], first_bar)
    _show_seconds(new[1], before.shape[1] / span.rate_hz, span.first_s)
    _label_seams(new[0], span, report)
    _draw_legend(figure, span, fades)
    _write_texts(figure, title, report)
    figure.savefig(path, dpi=_DPI, facecolor=_PAPER)


def alone(path: Path, audio: Audio, span: Span, *, title: str = "", report: Report | None = None) -> None:
    """As `before_after`, of music that replaced nothing: one waveform and one spectrogram, from bar 1 on."""
    figure = _figure()
    rows = figure.add_gridspec(
        2, 1, height_ratios=(3, 5), left=_LEFT, right=_RIGHT, top=0.905, bottom=0.075, hspace=0.03
    )
    wave, below = (figure.add_subplot(rows[row]) for row in (0, 1))
    seconds, none = audio.shape[1] / span.rate_hz, Fades(Fade(0), Fade(0))
    _draw_wave(wave, audio, span, none, max(float(np.abs(audio).max(initial=0.0)), 1e-6), "take")
    spectrum = spectrogram_db(audio, span.rate_hz)
    _draw_spectrum(below, spectrum, seconds, float(spectrum.max()))
    for axes in (wave, below):
        _draw_marks(axes, audio.shape[1], span, none, tint=0.10 if axes is wave else 0.0)
    _number_bars(wave, span, audio.shape[1], 1)
    _show_seconds(below, seconds, span.first_s)
    _write_texts(figure, title, report)
    figure.savefig(path, dpi=_DPI, facecolor=_PAPER)


def _figure() -> Figure:
    """An empty one that needs no screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_PX / _DPI, _HEIGHT_PX / _DPI), dpi=_DPI, facecolor=_PAPER)
    FigureCanvasAgg(figure)
    return figure


def spectrogram_db(audio: Audio, rate_hz: int) -> NDArray[np.float64]:
    """Level over time and pitch: [160, up to 1100] dB, rows from 40 Hz to 16 kHz in even ratios.

    audio: [channels, n] float32. Bands over half the rate hold -120 dB.
    """
    window = 2 ** round(np.log2(0.06 * rate_hz))
    padded = np.pad(audio.mean(axis=0), (window // 2, window // 2))
    hop = max(audio.shape[1] // _COLUMNS, 1)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:_COLUMNS]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(window).astype(np.float32), axis=1))).T
    edges = np.geomspace(_LOW_HZ, _HIGH_HZ, _ROWS + 1) / rate_hz * window
    sums = np.vstack([np.zeros(power.shape[1]), np.cumsum(power, axis=0)])
    below = np.array([np.interp(edges, np.arange(len(sums)) - 0.5, column) for column in sums.T]).T
    bands = np.diff(below, axis=0) / np.diff(edges)[:, None]
    return 10 * np.log10(np.maximum(bands, 1e-12))


def _draw_wave(axes: Axes, audio: Audio, span: Span, fades: Fades | None, peak: float, name: str) -> None:
    """The envelope; with `fades`, what the splice brought is in the take's colour."""
    frames = audio.shape[1]
    step = max(frames // _COLUMNS, 1)
    count = -(-frames // step)
    mono = np.pad(audio, ((0, 0), (0, count * step - frames)), mode="edge").reshape(len(audio), count, step)
    low, high = mono.min(axis=(0, 2)), mono.max(axis=(0, 2))
    seconds = (np.arange(count) + 0.5) * step / span.rate_hz
    axes.fill_between(seconds, low, high, color=_OLD, linewidth=0.4, edgecolor=_OLD)
    if fades is not None:
        start = (span.start_frame - fades.into.reach_frames) / span.rate_hz
        ours = (seconds >= start) & (seconds < span.end_frame / span.rate_hz)
        axes.fill_between(seconds, low, high, where=ours, color=_NEW, linewidth=0.4, edgecolor=_NEW)  # type: ignore[arg-type]
    axes.set_xlim(0, frames / span.rate_hz)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_ylabel(name, color=_INK, fontsize=12, fontweight="bold")
    axes.set_yticks([])
    axes.set_xticks([])


def _draw_spectrum(axes: Axes, spectrum: NDArray[np.float64], seconds: float, top_db: float) -> None:
    top_db = max(top_db, _FAINT_DB)
    axes.imshow(
        spectrum,
        origin="lower",
        aspect="auto",
        extent=(0, seconds, 0, _ROWS),
        cmap="magma",
        vmin=top_db - _RANGE_DB,
        vmax=top_db,
        interpolation="bilinear",
    )
    octaves = np.log(_HIGH_HZ / _LOW_HZ)
    ticks = (100, 1000, 10_000)
    axes.set_yticks([_ROWS * np.log(hz / _LOW_HZ) / octaves for hz in ticks], ["100 Hz", "1 kHz", "10 kHz"])
    axes.set_xticks([])
    axes.tick_params(colors=_MUTED, labelsize=9, length=3)


def _draw_marks(axes: Axes, frames: int, span: Span, fades: Fades, *, tint: float) -> None:
    """Bar lines, the region's edges, and each fade from its start to its edge (three pixels at least)."""
    rate_hz, start, end = span.rate_hz, span.start_frame, span.end_frame
    least = 3 * frames / _WIDTH_PX
    axes.set_facecolor(_PAPER)
    for side in axes.spines.values():
        side.set_color(_LINE)
    for line in span.bar_lines_frames:
        axes.axvline(line / rate_hz, color=_INK, alpha=0.16, linewidth=0.8)
    for beat in _beats_frames(span, frames) if tint else ():
        axes.axvline(beat / rate_hz, ymax=0.07, color=_MUTED, linewidth=0.8)
    axes.axvspan(start / rate_hz, end / rate_hz, color=_NEW, alpha=tint, linewidth=0)
    for edge, fade in ((start, fades.into), (end, fades.back)):
        if fade.reach_frames:
            wide = max(fade.reach_frames, least)
            axes.axvspan((edge - wide) / rate_hz, edge / rate_hz, color=_FADE, alpha=0.75, linewidth=0)
        axes.axvline(edge / rate_hz, color=_NEW, linewidth=1.0)
    axes.set_xlim(0, frames / rate_hz)


def _beats_frames(span: Span, frames: int) -> list[float]:
    """Where the grid's beats are; none where they would be a carpet."""
    if span.grid is None:
        return []
    low, high = span.grid.seconds_to_beats([span.first_s, span.first_s + frames / span.rate_hz])
    beats = np.arange(np.ceil(low), np.floor(high) + 1)
    if len(beats) > _MOST_BEATS:
        return []
    return list((span.grid.beats_to_seconds(beats) - span.first_s) * span.rate_hz)


def _label_seams(axes: Axes, span: Span, report: Report | None) -> None:
    """How far each seam jumps over the context's bar lines, at its edge."""
    if report is None:
        return
    for db, edge, side, nudge in zip(
        report.seam_db, (span.start_frame, span.end_frame), ("right", "left"), (-5, 3), strict=True
    ):
        if db is not None:
            axes.annotate(
                f"{db:+z.1f} dB",
                (edge / span.rate_hz, 1.0),
                (nudge, -4),
                axes.get_xaxis_transform(),
                "offset points",
                ha=side,
                va="top",
                color=_FADE,
                fontsize=9,
                bbox={"facecolor": _PAPER, "alpha": 0.9, "linewidth": 0, "pad": 1.5},
            )


def _facts(report: Report) -> str:
    """What was measured, in one line; or what is wrong."""
    if report.failed:
        return "over its limits: " + "; ".join(report.failed)
    told = [f"length error {report.length_error_samples}"]
    for value, text in (
        (report.outside_max_abs_diff, "outside {:g}"),
        (report.tempo_ratio, "tempo × {:.4f}"),
        (report.phase_ms, "phase {:+z.1f} ms"),
        (report.lufs_delta, "loudness {:+z.1f} LU"),
        (report.true_peak_dbfs, "peak {:.1f} dBTP"),
    ):
        if value is not None:
            told.append(text.format(value))
    return " · ".join(told)


def _number_bars(axes: Axes, span: Span, frames: int, first_bar: int) -> None:
    """Bar numbers over the picture, thinned out where they would touch."""
    every = max(-(-len(span.bar_lines_frames) // 40), 1)
    numbered = [
        (line / span.rate_hz, first_bar + i)
        for i, line in enumerate(span.bar_lines_frames)
        if i % every == 0 and line < frames * 0.99
    ]
    axes.xaxis.tick_top()
    axes.set_xticks([at for at, _ in numbered], [str(bar) for _, bar in numbered])
    axes.tick_params(axis="x", colors=_MUTED, labelsize=9, length=0, pad=2)


def _show_seconds(axes: Axes, seconds: float, first_s: float) -> None:
    """A scale in seconds of project time under the picture, with about ten marks."""
    step = next(step for step in _STEPS_S if seconds / step <= 12)
    counts = np.arange(np.ceil(round(first_s / step, 6)), (first_s + seconds) / step)
    axes.set_xticks(counts * step - first_s, [f"{count * step:g} s" for count in counts])
    axes.tick_params(axis="x", colors=_MUTED, labelsize=9, length=3)


def _write_texts(figure: Figure, title: str, report: Report | None) -> None:
    """The title above; below the facts, in two lines where they are long. What is over those is in the report."""
    shown = title if len(title) <= _TITLE_CHARS else title[: _TITLE_CHARS - 1] + "…"
    figure.text(_LEFT, 0.962, shown, color=_INK, fontsize=13, fontweight="bold", va="center", parse_math=False)
    if report is not None:
        facts, colour = _facts(report), _INK if report.ok else _NEW
        chars, size = (_FACTS_CHARS, 10) if len(facts) <= _FACTS_CHARS else (_SMALL_CHARS, 8)
        lines = textwrap.wrap(facts, chars, max_lines=2, placeholder=" …")
        figure.text(
            _RIGHT, 0.01, "\n".join(lines), color=colour, fontsize=size, ha="right", va="bottom", parse_math=False
        )


def _draw_legend(figure: Figure, span: Span, fades: Fades) -> None:
    lengths = sorted({round(fade.reach_frames * 1000 / span.rate_hz) for fade in (fades.into, fades.back)} - {0})
    fade_text = f"fade {'/'.join(map(str, lengths))} ms" if lengths else "no fade"
    right = _RIGHT
    for name, colour in ((fade_text, _FADE), ("take", _NEW), ("original", _OLD)):
        figure.text(right, 0.962, f"■ {name}", color=colour, fontsize=11, ha="right", va="center")
        right -= 0.026 + 0.0068 * len(name)
