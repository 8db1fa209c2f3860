"""Un-gaining: what the DAW plays after its own gain, fade and pan is the take."""

import numpy as np
import pytest

from punchin.session.gain import ungain


@pytest.fixture
def sounds():
    rng = np.random.default_rng(2)
    return rng.uniform(-1, 1, (2, 2, 5000)).astype(np.float32)


def test_the_daw_plays_the_take_again(sounds):
    new, source = sounds
    fade = np.linspace(0.05, 1.0, 5000)
    gain = np.stack([fade * 0.7, fade * 1.3])
    heard = (source * gain).astype(np.float32)
    kept, held = ungain(new, heard, source, gain)
    assert held == 0
    np.testing.assert_allclose(kept * gain, new, rtol=0, atol=2e-7)


def test_what_came_back_as_it_went_nulls(sounds):
    _, source = sounds
    for gain in (np.ones((2, 1)), np.full((2, 1), 0.3), np.linspace(0.02, 1.4, 5000)):
        heard = (source.astype(np.float64) * gain).astype(np.float32)
        kept, _ = ungain(heard.copy(), heard, source, gain)
        assert kept.tobytes() == source.tobytes()


def test_gain_one_changes_nothing(sounds):
    new, source = sounds
    kept, held = ungain(new, source, source, 1.0)
    assert kept.tobytes() == new.tobytes()
    assert held == 0


def test_under_36_db_the_source_stays_and_is_counted(sounds):
    new, source = sounds
    fade = np.zeros(5000)
    fade[3000:] = 1.0
    fade[100:200] = 10 ** (-36.1 / 20)
    fade[200:300] = 10 ** (-35.9 / 20)
    kept, held = ungain(new, (source * fade).astype(np.float32), source, fade)
    assert held == 2900
    assert kept[:, :200].tobytes() == source[:, :200].tobytes()
    assert kept[:, 300:3000].tobytes() == source[:, 300:3000].tobytes()
    assert (kept[:, 200:300] != source[:, 200:300]).all()
    assert kept[:, 3000:].tobytes() == new[:, 3000:].tobytes()


def test_one_channel_held_counts_the_frame_once(sounds):
    new, source = sounds
    kept, held = ungain(new, (source * [[1.0], [0.0]]).astype(np.float32), source, [[1.0], [0.0]])
    assert held == 5000
    assert kept[0].tobytes() == new[0].tobytes()
    assert kept[1].tobytes() == source[1].tobytes()


def test_mono_takes_the_best_of_both_sides(sounds):
    new, source = sounds
    mono = source[:1]
    gain = np.array([[0.9], [0.3]])
    kept, _ = ungain(new, (mono * gain).astype(np.float32), mono, gain)
    assert kept.shape == (1, 5000)
    best = np.sum((kept * gain - new) ** 2)
    for nudge in (0.999, 1.001):  # no other mono signal of this shape plays nearer to the take
        assert np.sum((kept * nudge * gain - new) ** 2) > best
    exact = (0.25 * np.ones((1, 5000)) * gain).astype(np.float32)
    np.testing.assert_allclose(ungain(exact, new, mono, gain)[0], 0.25, atol=1e-7)


def test_mono_panned_hard_is_not_silence(sounds):
    new, source = sounds
    kept, held = ungain(new, source, source[:1], [[1.0], [0.0]])
    assert held == 0
    assert kept.tobytes() == new[:1].tobytes()


def test_float_media_null_far_below_140_db_after_a_round_trip(sounds):
    """Even where nothing came back bit-equal, dividing in float64 costs one rounding."""
    _, source = sounds
    gain = np.full((2, 1), 0.37)
    heard = (source.astype(np.float64) * gain).astype(np.float32)
    kept, _ = ungain(heard, heard + 1, source, gain)
    assert np.abs(kept.astype(np.float64) - source).max() < 10 ** (-132 / 20)


@pytest.mark.parametrize("ends", ["in", "out"])
@pytest.mark.parametrize("channels", [1, 2])
def test_over_a_slow_fade_the_source_gives_way_without_a_step(ends, channels):
    """Where the gain passes -36 dB the file goes from the source to the take over 20 ms: no frame jumps."""
    at_s = np.arange(4 * 48_000) / 48_000
    source = np.tile(0.5 * np.cos(2 * np.pi * 5 * at_s), (channels, 1)).astype(np.float32)
    fade = np.clip(at_s / 40, 0, 1)[:: 1 if ends == "in" else -1]
    new = np.tile(-0.5 * np.cos(2 * np.pi * 5 * at_s) * fade, (2, 1)).astype(np.float32)
    file, held = ungain(new, (source * fade).astype(np.float32), source, fade)
    own_step = np.abs(np.diff(source)).max()
    assert np.abs(np.diff(file)).max() < own_step + 1.05 / 960
    low = round(40 * 10 ** (-36 / 20) * 48_000)
    assert held == pytest.approx(low, abs=1)
    kept, whole = (slice(low), slice(low + 1100, None)) if ends == "in" else (slice(-low, None), slice(-low - 1100))
    assert file[:, kept].tobytes() == source[:, kept].tobytes()
    np.testing.assert_allclose((file * fade)[:, whole], new[: len(file), whole], atol=1e-7)


def test_over_a_quick_fade_the_take_is_whole_from_30_db_on(sounds):
    """The fade of an item's edge does not keep 20 ms of a first attack away."""
    new, source = sounds
    fade = np.clip(np.arange(5000) / 480, 0, 1)
    file, _ = ungain(new * fade.astype(np.float32), (source * fade).astype(np.float32), source, fade)
    np.testing.assert_allclose(file[:, 16:], new[:, 16:], atol=1e-6)
    assert file[:, :8].tobytes() == source[:, :8].tobytes()


def test_a_steady_low_gain_is_all_take(sounds):
    new, source = sounds
    file, held = ungain(new, source, source, 10 ** (-35 / 20))
    assert held == 0
    np.testing.assert_allclose(file * 10 ** (-35 / 20), new, atol=1e-7)


def test_flipped_gain_flips_the_take(sounds):
    new, source = sounds
    kept, _ = ungain(new, np.zeros_like(source), source, -0.5)
    np.testing.assert_allclose(kept * -0.5, new, rtol=0, atol=1e-7)
