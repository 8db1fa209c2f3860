"""A small synthesiser on tensors: plays many notes of many scores at once, fast enough to keep a GPU busy.

Axes: E notes of one instrument, L samples of the longest of them, R rows (a row is one stem of one score).
Frequencies in hertz, times in seconds, rate 48 kHz. Every voice maps (hz [E, 1], t [1, L], held_s [E, 1],
velocity [E, 1]) to a wave [E, L]; nothing in it depends on the batch, so a note sounds the same alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import torch
from torch import Tensor

from punchin.protocol.limits import MODEL_HZ
from punchin.training.recipes.score import HAT, KICK, OPEN_HAT, RIDE, SNARE, STEMS, TOM, Score, Stem

TAU: Final = 2 * torch.pi
Voice = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]

RELEASE_S: Final = 0.25  # every voice is silent this long after its note ends
DRUM_S: Final = 0.6
CHUNK_SAMPLES: Final = 48_000_000  # of wave held at once: 192 MB


def _gate(t: Tensor, held_s: Tensor, attack_s: float, release_s: float = 0.08) -> Tensor:
    """1 while the note is held, with a linear attack and an exponential release that reaches 0 at RELEASE_S."""
    after = (t - held_s).clamp(min=0)
    end = (1 - after / RELEASE_S).clamp(0, 1)
    return (t / attack_s).clamp(0, 1) * torch.exp(-after / release_s) * end


def _harmonics(hz: Tensor, t: Tensor, levels: Sequence[float], decay: Tensor | float = 0.0) -> Tensor:
    """A sum of sines; those above 20 kHz are left out, so nothing folds back. `decay`: 1/s, grows with the number."""
    wave = torch.zeros(hz.shape[0], t.shape[1], device=t.device)
    for number, level in enumerate(levels, start=1):
        sounding = (hz * number < 20_000).float()
        wave += level * sounding * torch.exp(-decay * number * t) * torch.sin(TAU * hz * number * t)
    return wave


def _saw(hz: Tensor, t: Tensor) -> Tensor:
    """A sawtooth with its step rounded over two samples (polynomial BLEP)."""
    step = hz / MODEL_HZ
    phase = (hz * t) % 1
    rise = phase / step
    fall = (phase - 1) / step
    blep = torch.where(phase < step, 2 * rise - rise**2 - 1, torch.where(phase > 1 - step, fall**2 + 2 * fall + 1, 0.0))
    return 2 * phase - 1 - blep


def _piano(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    levels = [1, 0.6, 0.35, 0.25, 0.15, 0.1, 0.07, 0.05]
    stretched = hz * (1 + 0.0004)  # strings are a little sharp
    return _harmonics(stretched, t, levels, 0.6 + hz / 900) * _gate(t, held_s, 0.003) * 0.5


def _electric_piano(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    tine = torch.exp(-9 * t) * torch.sin(TAU * hz * 14 * t) * (hz * 14 < 20_000)
    body = torch.sin(TAU * hz * t + 1.6 * velocity * torch.exp(-2.5 * t) * torch.sin(TAU * hz * t))
    return (body * torch.exp(-1.2 * t) + 0.12 * tine) * _gate(t, held_s, 0.003) * 0.7


def _organ(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    return _harmonics(hz, t, [0.8, 0.7, 0.5, 0.3, 0, 0.25, 0, 0.2]) * _gate(t, held_s, 0.01, 0.03) * 0.35


def _plucked(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    levels = [abs(float(torch.sinc(torch.tensor(n * 0.23)))) / n**0.5 for n in range(1, 16)]  # plucked near the bridge
    return _harmonics(hz, t, levels, 1.2 + hz / 500) * _gate(t, held_s, 0.001, 0.05) * 0.6


def _strings(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    wave = sum((_saw(hz * tune, t) for tune in (0.9965, 1.0, 1.0037)), torch.zeros_like(t))  # three players
    return _softened(wave, 5) * _gate(t, held_s, 0.09, 0.12) * 0.22


def _synth_lead(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    half = _saw(hz, t) - _saw(hz, t + 0.5 / hz)  # a square is two saws
    return _softened(half, 2) * _gate(t, held_s, 0.004, 0.04) * 0.3


def _bells(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    wave = torch.sin(TAU * hz * 2 * t + 3 * torch.exp(-3 * t) * torch.sin(TAU * hz * 2 * 1.414 * t))
    return wave * torch.exp(-3.0 * t) * _gate(t, held_s, 0.002, 0.2) * 0.5


def _brass(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    bright = (t / 0.06).clamp(0, 1) * (0.6 + 0.4 * velocity)
    wave = torch.sin(TAU * hz * t)
    for number in range(2, 13):
        wave = wave + bright**number * (hz * number < 20_000) * torch.sin(TAU * hz * number * t) / number**0.5
    return wave * _gate(t, held_s, 0.025, 0.06) * 0.22


def _finger_bass(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    return _harmonics(hz, t, [1, 0.7, 0.45, 0.3, 0.2, 0.12, 0.08], 0.8) * _gate(t, held_s, 0.004) * 0.7


def _synth_bass(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    opened, closed = _saw(hz, t), _softened(_saw(hz, t), 24)
    sweep = torch.exp(-7 * t)
    return (sweep * opened + (1 - sweep) * closed) * _gate(t, held_s, 0.003, 0.04) * 0.45


def _sub_bass(hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor) -> Tensor:
    return torch.tanh(2 * torch.sin(TAU * hz * t)) * _gate(t, held_s, 0.006, 0.05) * 0.7


def _softened(wave: Tensor, samples: int) -> Tensor:
    """A moving average over `samples`: a gentle low-pass that costs one pass."""
    padded = torch.nn.functional.pad(wave, (samples - 1, 0))
    return torch.nn.functional.avg_pool1d(padded[:, None], samples, stride=1)[:, 0]


PITCHED: Final[dict[str, Voice]] = {
    "piano": _piano,
    "electric piano": _electric_piano,
    "organ": _organ,
    "plucked guitar": _plucked,
    "strings": _strings,
    "synth lead": _synth_lead,
    "bells": _bells,
    "brass": _brass,
    "finger bass": _finger_bass,
    "synth bass": _synth_bass,
    "sub bass": _sub_bass,
}


def _kick(t: Tensor, _: Tensor, electronic: bool) -> Tensor:
    low, high, fall = (45.0, 220.0, 28.0) if electronic else (55.0, 140.0, 40.0)
    phase = low * t + (high - low) * (1 - torch.exp(-fall * t)) / fall  # the integral of a falling pitch
    return torch.sin(TAU * phase) * torch.exp(-(6 if electronic else 10) * t)


def _snare(t: Tensor, noise: Tensor, electronic: bool) -> Tensor:
    body = torch.sin(TAU * (180 if electronic else 210) * t) * torch.exp(-22 * t)
    return 0.5 * body + 0.5 * noise * torch.exp(-(14 if electronic else 20) * t)


def _hat(t: Tensor, noise: Tensor, electronic: bool) -> Tensor:
    bright = noise - torch.nn.functional.pad(noise, (1, 0))[:, :-1]  # first difference: a high-pass
    return 0.3 * bright * torch.exp(-(60 if electronic else 45) * t)


def _open_hat(t: Tensor, noise: Tensor, electronic: bool) -> Tensor:
    return _hat(t, noise, electronic) * torch.exp(35 * t).clamp(max=40)


def _tom(t: Tensor, noise: Tensor, electronic: bool) -> Tensor:
    return torch.sin(TAU * (95 * t + 3 * (1 - torch.exp(-20 * t)))) * torch.exp(-9 * t) + 0.03 * noise * torch.exp(
        -40 * t
    )


def _ride(t: Tensor, noise: Tensor, electronic: bool) -> Tensor:
    ring = torch.stack([torch.sin(TAU * f * t) for f in (3163, 4215.7, 5671.3, 7019)]).sum(0)
    return (0.08 * ring + 0.1 * noise) * torch.exp(-6 * t)


DRUMS: Final = {KICK: _kick, SNARE: _snare, HAT: _hat, OPEN_HAT: _open_hat, TOM: _tom, RIDE: _ride}
PAN: Final[dict[Stem, float]] = {"drums": 0.0, "bass": 0.0, "chords": -0.35, "lead": 0.3}
LEVEL: Final[dict[Stem, float]] = {"drums": 0.5, "bass": 0.4, "chords": 0.22, "lead": 0.3}


def render(
    scores: Sequence[Score],
    seconds: float,
    device: torch.device | str = "cpu",
    seed: int = 0,
    first_s: Sequence[float] = (),
) -> Tensor:
    """All stems of all scores: [B, 4, 2, samples] float32 at 48 kHz, stems in the order of STEMS, mixed by summing.

    Each score is played from its first bar, over and over where `seconds` is longer; with `first_s` from that moment
    of it on, notes that began before still sounding. No stem peaks above 1.
    """
    samples = round(seconds * MODEL_HZ)
    rows = torch.zeros(len(scores) * len(STEMS), samples, device=device)
    noise = torch.Generator(device).manual_seed(seed)
    for (instrument, drum), notes in voices(scores, seconds, first_s or [0.0] * len(scores)).items():
        _play(rows, instrument, drum, notes, noise)
    stems = rows.view(len(scores), len(STEMS), 1, samples)
    return torch.tanh(stems * sides(device)[None, :, :, None])  # a soft ceiling: dense chords do not clip


def sides(device: torch.device | str) -> Tensor:
    """How loud each stem is left and right, [4, 2]: a pan of equal power."""
    angle = torch.tensor([(PAN[stem] + 1) * torch.pi / 4 for stem in STEMS], device=device)
    level = torch.tensor([LEVEL[stem] for stem in STEMS], device=device)
    return torch.stack([angle.cos(), angle.sin()], dim=1) * level[:, None]


def voices(
    scores: Sequence[Score], seconds: float, first_s: Sequence[float]
) -> dict[tuple[str, int], list[tuple[int, float, float, int, float]]]:
    """Notes grouped by the voice that plays them: (row, start_s, held_s, pitch, velocity)."""
    groups: dict[tuple[str, int], list[tuple[int, float, float, int, float]]] = defaultdict(list)
    for b, score in enumerate(scores):
        beat_s, period_s = 60 / score.bpm, score.seconds
        for s, stem in enumerate(STEMS):
            instrument = score.instruments[stem]
            for note in score.notes[stem]:
                drum = note.pitch if stem == "drums" else -1
                held_s = note.length_beats * beat_s
                start_s = note.start_beats * beat_s - first_s[b]
                while start_s < seconds:
                    if start_s + max(held_s + RELEASE_S, DRUM_S) > 0:
                        groups[instrument, drum].append(
                            (b * len(STEMS) + s, start_s, held_s, note.pitch, note.velocity)
                        )
                    start_s += period_s
    return groups


def _play(
    rows: Tensor, instrument: str, drum: int, notes: list[tuple[int, float, float, int, float]], noise: torch.Generator
) -> None:
    """Add one voice's notes to the rows, in pieces that fit CHUNK_SAMPLES."""
    longest_s = DRUM_S if drum >= 0 else max(held for _, _, held, _, _ in notes) + RELEASE_S
    length = int(longest_s * MODEL_HZ) + 1
    t = torch.arange(length, device=rows.device)[None] / MODEL_HZ
    each = max(1, CHUNK_SAMPLES // length)
    for first in range(0, len(notes), each):
        table = torch.tensor(notes[first : first + each], dtype=torch.float64, device=rows.device)
        row, start_s, held_s, pitch, velocity = (column[:, None] for column in table.unbind(1))
        hiss = torch.rand(len(table) if drum >= 0 else 0, length, device=rows.device, generator=noise) * 2 - 1
        hz = (440 * 2 ** ((pitch - 69) / 12)).float()
        wave = _wave(instrument, drum, hz, t, held_s.float(), velocity.float(), hiss)
        at = (start_s * MODEL_HZ).round().long() + torch.arange(length, device=rows.device)
        inside = (at >= 0) & (at < rows.shape[1])
        flat = (row.long() * rows.shape[1] + at)[inside]
        rows.view(-1).index_add_(0, flat, (wave * velocity.float())[inside])


def _wave(instrument: str, drum: int, hz: Tensor, t: Tensor, held_s: Tensor, velocity: Tensor, hiss: Tensor) -> Tensor:
    """Notes of one voice at full loudness, [E, L]. `hiss` [E, L] is a drum's noise."""
    if drum >= 0:
        return DRUMS[drum](t, hiss, instrument == "electronic drums") * ((DRUM_S - t) / 0.05).clamp(0, 1)
    return PITCHED[instrument](hz, t, held_s, velocity)


def played(instrument: str, drum: int, pitch: float, held_s: float, velocity: float, seed: int) -> Tensor:
    """One note at full loudness, [L] on the CPU. `drum`: its kind, or -1. `seed`: of a drum's noise."""
    seconds = DRUM_S if drum >= 0 else held_s + RELEASE_S
    t = torch.arange(int(seconds * MODEL_HZ) + 1)[None] / MODEL_HZ
    hiss = torch.rand(t.shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    hz, held, loud = (torch.tensor([[each]]) for each in (440 * 2 ** ((pitch - 69) / 12), held_s, velocity))
    return _wave(instrument, drum, hz, t, held, loud, hiss)[0]
