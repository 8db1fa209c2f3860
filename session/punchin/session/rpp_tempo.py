"""A REAPER project's tempo envelope as a tempo map."""

from __future__ import annotations

from punchin.session.rpp import Document, number_at
from punchin.session.tempo import Signature, Stretch, TempoMap

LINEAR, HOLD, BEZIER = 0, 1, 5


def read_tempo(document: Document) -> tuple[TempoMap, tuple[str, ...]]:
    """The tempo envelope's points where it has any, else the TEMPO line; and which points curve, in words.

    A curved point (Bezier) is in the map as a straight ramp to the next one. REAPER publishes no formula for it.
    PT: time bpm shape [signature as denominator * 65536 + numerator [selected [flags]]], bpm in quarter notes always;
    shape 0 moves linearly in time to the next point, 1 holds; flags & 2: the point sets no tempo.
    PROJOFFS: time offset, bar offset, flag; the ruler shows bar 1 + offset at the project's start.
    """
    root = document.root
    base = document.find(root, "TEMPO") or ["TEMPO", "120", "4", "4"]
    bpm, numerator, denominator = number_at(base, 1, 120.0), int(number_at(base, 2, 4)), int(number_at(base, 3, 4))
    points: list[tuple[float, float, int]] = []
    signatures: list[tuple[float, int, int]] = [(0.0, numerator, denominator)]
    for chunk in root.chunks("TEMPOENVEX"):
        for entry in chunk.entries:
            if not isinstance(entry, int) or document.key(entry) != b"PT":
                continue
            words = document.tokens(entry)
            at_s, code, flags = number_at(words, 1), int(number_at(words, 4)), int(number_at(words, 6))
            if code > 0:
                signatures.append((at_s, code & 0xFFFF, code >> 16))
            if not flags & 2:
                points.append((at_s, number_at(words, 2), int(number_at(words, 3))))
    stretches, curved = _stretches(points, bpm)
    plain = TempoMap(stretches)
    changes: dict[float, Signature] = {}
    for at_s, top, bottom in signatures:
        beats = max(float(plain.seconds_to_beats(at_s)), 0.0)
        beats = round(beats, 6) if abs(beats - round(beats, 6)) < 1e-7 else beats
        changes[beats] = Signature(beats, top, bottom)
    first_bar = 1 + int(number_at(document.find(root, "PROJOFFS") or [], 2))
    return TempoMap(stretches, tuple(changes[beats] for beats in sorted(changes)), first_bar), curved


def _stretches(points: list[tuple[float, float, int]], bpm: float) -> tuple[tuple[Stretch, ...], tuple[str, ...]]:
    points = sorted(points, key=lambda point: point[0])  # stable: of points at one time the last one counts
    if not points or points[0][0] > 0:
        points.insert(0, (0.0, points[0][1] if points else bpm, HOLD))
    out: dict[float, Stretch] = {}
    curved: list[str] = []
    for i, (at_s, tempo, shape) in enumerate(points):
        following = points[i + 1] if i + 1 < len(points) else None
        if shape not in (LINEAR, HOLD) and following is not None and following[1] != tempo:
            kind = "Bezier" if shape == BEZIER else "curved"
            curved.append(f"the tempo point at {at_s:.3f} s has a {kind} shape ({shape})")
        end = following[1] if following is not None and shape != HOLD else tempo
        out[max(at_s, 0.0)] = Stretch(max(at_s, 0.0), tempo, end)
    return tuple(out[start] for start in sorted(out)), tuple(curved)
