"""Scores and their sound: the same from a number each time, in key, in time, and cut anywhere without a seam."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from punchin.training.recipes.score import KEYS, SCALES, SPOKEN, STEMS, TRACKS, caption, compose
from punchin.training.recipes.songs import HELD_OUT, Composer, song
from punchin.training.recipes.synth import PITCHED, render


def test_a_number_is_one_song():
    assert song(5) == song(5)
    assert song(5) != song(6)
    assert song(HELD_OUT + 5) != song(5)
    assert [*Composer(3).batch(2)] == [song(6), song(7), song(8)]


def test_songs_vary_and_stay_within_what_the_prompt_may_say():
    some = [song(number) for number in range(120)]
    assert {each.score.signature for each in some} == {3, 4, 6}
    assert len({each.score.genre.name for each in some}) == 8
    assert len({each.score.key for each in some}) > 18
    for each in some:
        assert 60 <= each.score.bpm <= 200
        assert len(each.heard) >= 2
        assert each.lone in each.heard
        assert set(each.rest) | {each.lone} == set(each.heard)
        assert each.score.notes == each.other.notes
        assert all(each.score.instruments[stem] != each.other.instruments[stem] for stem in STEMS)
        tonic, mode = each.score.key.split()
        allowed = {(KEYS.index(tonic) + step) % 12 for step in SCALES[mode]}
        for stem in ("bass", "chords", "lead"):
            assert {note.pitch % 12 for note in each.score.notes[stem]} <= allowed
        assert all(0 <= n.start_beats < each.score.bars * each.score.bar_beats for n in each.score.notes["drums"])
    assert 0.5 < np.mean([each.aligned for each in some]) < 0.9


def test_every_instrument_has_a_track_and_other_words():
    played = set(PITCHED) | {"acoustic drums", "electronic drums"}
    assert played == set(TRACKS) == set(SPOKEN)


def test_a_lone_stem_is_always_named():
    rng, score = np.random.default_rng(0), compose(1)
    for _ in range(50):
        said = caption(score, ("lead",), rng)
        names = (score.instruments["lead"], *SPOKEN[score.instruments["lead"]])
        assert any(name in said for name in names), said


@pytest.mark.parametrize("instrument", sorted(PITCHED))
def test_a_note_has_its_pitch_and_ends(instrument):
    hz, t = torch.tensor([[220.0]]), torch.arange(48_000)[None] / 48_000
    wave = PITCHED[instrument](hz, t, torch.tensor([[0.5]]), torch.tensor([[0.8]]))[0]
    assert 0.05 < float(wave.abs().max()) < 2
    assert float(wave[36_500:].abs().max()) == 0, "the release is over"
    power = torch.fft.rfft(wave[4_800:20_800] * torch.hann_window(16_000)).abs().square()
    bins = torch.arange(len(power)) * 3.0
    near = ((bins / 110 - (bins / 110).round()).abs() * 110 < 9) & (bins > 90)
    if instrument != "bells":  # whose partials are not harmonic
        assert float(power[near].sum() / power.sum()) > 0.9


def test_a_cut_is_a_part_of_the_whole():
    """From a later moment on, the sound is that of the whole from there, tails of earlier notes included."""
    scores = [compose(3), compose(4)]
    stems = [STEMS.index(each) for each in ("bass", "chords", "lead")]  # drums have noise of their own each time
    whole = render(scores, 6.0)[:, stems]
    cut = render(scores, 2.0, first_s=[3.0, 1.25])[:, stems]
    for row, first in enumerate((144_000, 60_000)):
        got, want = cut[row], whole[row, :, :, first : first + 96_000]
        assert float((got - want).abs().max()) < 0.02  # notes begin on whole samples: up to one sample of jitter
        assert float((got - want).square().mean()) < 1e-5 * float(want.square().mean()) + 1e-9


def test_composing_needs_no_torch():
    code = "import sys, punchin.training.recipes.songs; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_processes_compose_the_same_and_die_with_their_parent():
    composer = Composer(3, workers=1)
    try:
        assert [*composer.batch(0)] == [song(0), song(1), song(2)]
        assert [*composer.batch(1)] == [song(3), song(4), song(5)]
    finally:
        composer.close()
    code = """
import os, signal
from punchin.training.recipes.songs import Composer
if __name__ == "__main__":
    composer = Composer(1, workers=1)
    composer.batch(0)
    print(*composer._pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "orphans.py"
        script.write_text(code)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    left = psutil.wait_procs(
        [psutil.Process(int(pid)) for pid in done.stdout.split() if psutil.pid_exists(int(pid))], 20
    )
    assert done.stdout.split()
    assert not left[1]
