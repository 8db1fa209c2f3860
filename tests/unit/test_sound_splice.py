"""The splice is its definition, sample by sample; and the check that says so can fail."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from punchin.protocol.errors import PunchinError
from punchin.session import splice as module
from punchin.session.splice import Fade, Fades, choose, lead_frames, splice


def by_definition(old, new, start, end, fades, x_of=None, law=None):
    """The oracle: one sample at a time in Python floats, sharing no line with the code under test."""
    x_of = x_of or (lambda i, n: (2 * i + 1) / (2 * n))
    law = law or (lambda a, b, x, r: (a + x * (b - a)) / (1 - 2 * x * (1 - x) * (1 - r)) ** 0.5)
    out = [list(map(float, row)) for row in old]
    first = end - new.shape[1]
    under = [
        [float(new[c][t - first]) if first <= t < end else None for t in range(old.shape[1])] for c in range(len(old))
    ]
    into = (start - fades.into.early_frames - fades.into.frames, fades.into.frames)
    back = (end - fades.back.early_frames - fades.back.frames, fades.back.frames)

    def likeness(begin, n):
        dot = aa = bb = 0.0
        for c in range(len(old)):
            for t in range(begin, begin + n):
                a, b = float(old[c][t]), under[c][t]
                dot, aa, bb = dot + a * b, aa + a * a, bb + b * b
        return min(max(dot / (aa * bb) ** 0.5, 0.0), 1.0) if aa * bb > 0 else 1.0

    r_in, r_back = likeness(*into), likeness(*back)
    for c in range(len(old)):
        for t in range(into[0], back[0] + back[1]):
            if t < into[0] + into[1]:
                out[c][t] = law(float(old[c][t]), under[c][t], x_of(t - into[0], into[1]), r_in)
            elif t < back[0]:
                out[c][t] = under[c][t]
            else:
                out[c][t] = law(under[c][t], float(old[c][t]), x_of(t - back[0], back[1]), r_back)
    return np.array(out, np.float32)


CASES = [  # start, end, lead, fades
    (100, 260, 60, Fades(Fade(24), Fade(24))),
    (100, 260, 60, Fades(Fade(60), Fade(1))),
    (100, 260, 60, Fades(Fade(20, 5), Fade(30, 7))),
    (0, 50, 0, Fades(Fade(0), Fade(50))),
    (10, 400, 10, Fades(Fade(10), Fade(31))),
]


def check(laid):
    """Any callable with splice's signature."""
    rng = np.random.default_rng(7)
    old = rng.uniform(-0.5, 0.5, (2, 400)).astype(np.float32)  # no mix of two of them comes near the ceiling
    for alike in (0.0, 0.6, -0.5):  # correlated, uncorrelated, opposed
        for start, end, lead, fades in CASES:
            noise = rng.uniform(-0.5, 0.5, (2, lead + end - start)).astype(np.float32)
            new = (alike * old[:, start - lead : end] + (1 - abs(alike)) * noise).astype(np.float32)
            got = laid(old, new, start, end, fades)
            assert got.shape == old.shape
            assert got.dtype == np.float32
            outside = np.r_[0 : start - fades.into.frames - fades.into.early_frames, end:400]
            assert got[:, outside].tobytes() == old[:, outside].tobytes()
            np.testing.assert_allclose(got, by_definition(old, new, start, end, fades), rtol=0, atol=2e-7)


def nudged(out, frame):
    """One float's distance away, in one frame."""
    out = out.copy()
    out[:, frame] = np.nextafter(out[:, frame], np.float32(2))
    return out


def shifted(new):
    return np.roll(new, 1, axis=1)


FAULTS = {
    "linear": lambda o, n, s, e, f: by_definition(o, n, s, e, f, law=lambda a, b, x, r: a + x * (b - a)),
    "equal power": lambda o, n, s, e, f: by_definition(
        o, n, s, e, f, law=lambda a, b, x, r: (a + x * (b - a)) / (1 - 2 * x * (1 - x)) ** 0.5
    ),
    "no half frame": lambda o, n, s, e, f: by_definition(o, n, s, e, f, x_of=lambda i, k: i / k),
    "one frame late": lambda o, n, s, e, f: splice(o, shifted(n), s, e, f),
    "fade one frame short": lambda o, n, s, e, f: splice(
        o, n, s, e, Fades(Fade(max(f.into.frames - 1, 0), f.into.early_frames), f.back)
    ),
    "fade after its edge": lambda o, n, s, e, f: splice(o, n, s, e, Fades(f.into, Fade(f.back.frames, 0))),
    "one ulp outside": lambda o, n, s, e, f: nudged(splice(o, n, s, e, f), -1 if e < 400 else 0),
}


def test_splice_is_its_definition():
    check(splice)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_check_can_fail(fault):
    with pytest.raises(AssertionError):
        check(FAULTS[fault])


@settings(max_examples=60, deadline=None)
@given(
    old=arrays(np.float32, (1, 300), elements=st.floats(-2, 2, width=32)),
    into=st.integers(0, 90),
    back=st.integers(0, 90),
    early=st.integers(0, 10),
)
def test_equal_signals_stay_bit_equal(old, into, back, early):
    out = splice(old, old[:, 0:250].copy(), 100, 250, Fades(Fade(into, early), Fade(back, early)))
    assert out.tobytes() == (old + np.float32(0)).tobytes() or np.array_equal(out, old)


def test_power_stays_level_whatever_the_correlation():
    rng = np.random.default_rng(1)
    n = 48_000
    a, b = rng.standard_normal((2, 1, n)).astype(np.float32)
    for r in (0.0, 0.5, 0.9):
        b_like = (r * a + np.sqrt(1 - r * r) * b).astype(np.float32)
        faded = splice(a, b_like, n - 100, n, Fades(Fade(0), Fade(100)))  # region at the end: lead is the whole sound
        faded = splice(a, b_like, n - 100, n, Fades(Fade(n - 200), Fade(0)))
        middle = faded[:, n // 2 - 5000 : n // 2 + 5000]
        assert abs(10 * np.log10(np.mean(middle**2))) < 0.3


@pytest.mark.parametrize("level", [0.5, 0.95, 1.0, 1.3])
def test_two_loud_sounds_are_no_louder_in_the_fade(level):
    """Equal power lifts two unlike squares by 3 dB; as far as there is room under -1 dBFS, or the sides' own peak."""
    frames = np.arange(9600)
    old, new = (np.float32(level) * np.sign(np.sin(frames * hz))[None].astype(np.float32) for hz in (0.039, 0.041))
    out = splice(old, new[:, 2400:7200], 4800, 7200, Fades(Fade(2400), Fade(2400)))
    most = max(level, 10 ** (-1 / 20))
    assert np.abs(out).max() <= most * (1 + 1e-6)
    middle = out[:, 3400:3800]
    assert np.sqrt(np.mean(middle**2)) > (0.99 if level == 0.5 else 0.6) * level


def test_an_attack_in_the_fade_shortens_it():
    rate = 48_000
    rng = np.random.default_rng(3)
    quiet = (1e-3 * rng.standard_normal((2, rate))).astype(np.float32)
    start, end = rate // 2, rate - 1000
    lead = lead_frames(start, rate)
    take = quiet[:, start - lead : end].copy()
    assert choose(quiet, take, start, end, rate) == Fades(Fade(2400), Fade(2400))
    take[:, lead - round(0.034 * rate) : lead - round(0.030 * rate)] += 0.5  # an attack 34 ms before the edge
    assert choose(quiet, take, start, end, rate).into == Fade(1440)
    take[:, lead - round(0.01 * rate) : lead] += 0.9  # and one 10 ms before: nothing avoids it
    assert choose(quiet, take, start, end, rate).into == Fade(960)


def test_what_begins_a_little_early_stays_whole():
    """The take's first attack, or the next bar's, up to 5 ms before the edge: the fade is over by then."""
    rate, start, end = 48_000, 24_000, 40_000
    rng = np.random.default_rng(3)
    old = (1e-3 * rng.standard_normal((2, rate))).astype(np.float32)
    take = (1e-3 * rng.standard_normal((2, lead_frames(start, rate) + end - start))).astype(np.float32)
    lead = lead_frames(start, rate)
    assert choose(old, take, start, end, rate) == Fades(Fade(2400), Fade(2400))
    take[:, lead - 150 : lead + 100] += 0.5
    old[:, end - 80 : end + 100] += 0.5
    fades = choose(old, take, start, end, rate)
    assert 150 <= fades.into.early_frames <= 240
    assert 80 <= fades.back.early_frames <= 240
    out = splice(old, take, start, end, fades)
    assert out[:, start - 150 : start].tobytes() == take[:, lead - 150 : lead].tobytes()
    assert out[:, end - 80 :].tobytes() == old[:, end - 80 :].tobytes()


def test_a_deep_tone_is_no_attack():
    rate = 48_000
    t = np.arange(rate) / rate
    for hz in (20.0, 41.2, 110.0):
        for phase in np.linspace(0, np.pi, 7):
            tone = (0.5 * np.sin(2 * np.pi * hz * t + phase)).astype(np.float32)[None]
            assert choose(tone, tone[:, 4000:40_000], 7000, 40_000, rate) == Fades(Fade(2400), Fade(2400))


def test_a_file_start_leaves_no_room():
    old = np.zeros((1, 48_000), np.float32)
    assert lead_frames(0, 48_000) == 0
    assert lead_frames(100, 48_000) == 100
    assert lead_frames(48_000, 44_100) == 2426
    take = np.ones((1, 24_000), np.float32)
    fades = choose(old, take, 0, 24_000, 48_000)
    assert fades.into == Fade(0)
    assert splice(old, take, 0, 24_000, fades)[0, 0] == 1.0


@pytest.mark.parametrize(
    ("start", "end", "frames", "fades"),
    [
        (100, 80, 50, Fades(Fade(0), Fade(0))),
        (100, 500, 400, Fades(Fade(0), Fade(0))),
        (10, 200, 250, Fades(Fade(0), Fade(0))),
        (100, 200, 150, Fades(Fade(60), Fade(0))),
        (100, 200, 150, Fades(Fade(0), Fade(101))),
    ],
)
def test_what_does_not_fit_is_said_with_numbers(start, end, frames, fades):
    with pytest.raises(PunchinError, match=r"\d"):
        splice(np.zeros((1, 400), np.float32), np.zeros((1, frames), np.float32), start, end, fades)


def test_the_fades_are_20_to_50_ms():
    assert max(module.FADES_S) == 0.05
    assert min(module.FADES_S) == 0.02
