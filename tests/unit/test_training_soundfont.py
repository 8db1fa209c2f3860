"""Scores on a soundfont: the same notes, each stem for itself, the same each time."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from realparts import need, need_file

from punchin.engine import tiny
from punchin.protocol.errors import PunchinError, Refused
from punchin.protocol.limits import MODEL_HZ
from punchin.training.console import Line
from punchin.training.recipes import card, soundfont
from punchin.training.recipes import tiny as recipe
from punchin.training.recipes.autoencoder import AutoencoderStage
from punchin.training.recipes.figures import cover
from punchin.training.recipes.figures.__main__ import main as figures
from punchin.training.recipes.plan import SMOKE
from punchin.training.recipes.score import STEMS, compose
from punchin.training.recipes.songs import song
from punchin.training.recipes.soundfont import Band, plain, render, render_apart
from punchin.training.recipes.synth import render as synthesised

pytestmark = pytest.mark.real
PLAN = replace(SMOKE, audio_songs=4, audio_frames=50, audio_steps=1)


@pytest.fixture(scope="module")
def sounds():
    need("fluidsynth", "apt-get install fluidsynth")
    file = "/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"
    return Path(need_file(file, "apt-get install musescore-general-soundfont-small"))


def test_a_soundfont_plays_the_same_score(sounds):
    score = compose(8)
    lead = render(score, 8.0, sounds, ("lead",))
    ours = synthesised([score], 8.0)[0, STEMS.index("lead")]
    assert lead.shape == (2, 8 * MODEL_HZ)
    assert cover.f_measure(lead, ours) > 0.6
    assert float(lead.abs().max()) > 0.01


def test_parts_played_one_after_the_other_are_what_each_is_alone(sounds):
    score = compose(8)
    apart = render_apart([plain(score, stem) for stem in STEMS], 4.0, sounds)
    assert apart.shape == (len(STEMS), 2, 4 * MODEL_HZ)
    for stem, heard in zip(STEMS, apart, strict=True):
        alone = render(score, 4.0, sounds, (stem,))
        both = torch.stack([_loudness(heard), _loudness(alone)])
        assert float(torch.corrcoef(both)[0, 1]) > 0.9, stem  # fluidsynth begins notes on a grid of 64 frames


def test_nothing_of_a_part_is_heard_in_the_next(sounds):
    loud = replace(plain(compose(8), "chords"), program=91)  # a pad, which would sound for seconds more
    silent = plain(replace(compose(8), notes=dict.fromkeys(STEMS, ())), "lead")
    first, second = render_apart([loud, silent], 1.0, sounds)
    assert float(first.abs().max()) > 0.01
    assert float(second.abs().max()) < 1e-3


def _loudness(audio):
    return audio.mean(0).unflatten(0, (-1, 960)).square().mean(-1).sqrt()


def test_a_band_plays_a_batch_as_it_does_after_the_one_before(sounds):
    began, resumed = (Band(sounds, 2.0, batch=4, count=2, workers=2) for _ in range(2))
    first, second = began.batch(6), began.batch(7)
    assert torch.equal(resumed.batch(7), second)
    assert first.shape == second.shape == (2, len(STEMS), 2, 2 * MODEL_HZ)
    assert not torch.equal(first, second)
    for each in (began, resumed):
        each.close()


def test_half_of_what_the_decoder_hears_is_played_on_it(sounds):
    mixed = AutoencoderStage(tiny.untrained()[1], PLAN, torch.device("cpu"), 0, sounds)
    ours = synthesised([song(n).score for n in range(4)], 2.0, first_s=[song(n).first_s for n in range(4)])
    asked = mixed.prepare(0)
    assert asked.sampled is not None
    assert torch.equal(asked.sampled, Band(sounds, 2.0, batch=4, count=2, workers=0).batch(0))
    mixed.audio(asked, torch.Generator().manual_seed(1))
    assert torch.equal(mixed._stems[:2], asked.sampled)
    assert torch.equal(mixed._stems[2:], ours[2:])
    assert mixed.prepare(1).sampled is not None, "a new batch has new songs"
    mixed.close()


def test_what_is_no_soundfont_is_not_played_on_the_systems_own(sounds, tmp_path):
    cut, other = tmp_path / "cut.sf3", tmp_path / "other.sf2"
    cut.write_bytes(sounds.read_bytes()[:100_000])
    other.write_bytes(bytes(range(256)) * 20)
    torn = tmp_path / "torn.sf3"
    torn.write_bytes(sounds.read_bytes())
    with torn.open("r+b") as file:
        file.seek(20_000_000)
        file.write(bytes(65_536))
    with pytest.raises(Refused, match="Failed to load sample"):
        soundfont.check(torn)
    for bad in (cut, other):
        with pytest.raises(Refused, match=f"fluidsynth cannot play {bad}: fluidsynth: error: "):
            render(compose(8), 1.0, bad)


def test_without_the_soundfont_the_recipe_does_not_begin(tmp_path, capsys):
    assert recipe.main([str(tmp_path / "out"), "--smoke", "--soundfont", str(tmp_path / "none.sf2")]) != 0
    assert f"there is no soundfont {tmp_path / 'none.sf2'}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_without_fluidsynth_its_cure_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Refused) as refused:
        soundfont.check(tmp_path)
    assert refused.value.hint == "apt-get install fluidsynth"


def test_a_temporary_folder_without_room_is_told(sounds, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PunchinError, match=r"score\.mid cannot be written: No space left on device"):
        render(compose(8), 1.0, sounds)


def test_nobodys_own_settings_are_heard(sounds, tmp_path, monkeypatch):
    before = render(compose(8), 1.0, sounds)
    (tmp_path / ".fluidsynth").write_text("gain 3\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert torch.equal(render(compose(8), 1.0, sounds), before)


def test_a_stage_goes_on_with_the_soundfont_it_began_with(sounds, tmp_path, monkeypatch):
    steps = {"vae": 1}
    monkeypatch.setitem(recipe.PLANS, "smoke", replace(PLAN, steps=steps))
    other = tmp_path / "other.sf3"
    other.write_bytes(sounds.read_bytes() + b"\0")

    def train(font):
        vae, device = tiny.untrained()[1], torch.device("cpu")
        making = recipe.Making(tmp_path, "smoke", device, 1.0, 0, font, False, Line(), lambda: False)
        stage = AutoencoderStage(vae, making.plan, device, 0, font)
        try:
            making.train(stage, [])
        finally:
            stage.close()
        return making.stages["vae"]["settings"]

    said = train(sounds)
    assert (said["soundfont"], said["soundfont_sha256"]) == (sounds.name, soundfont.sha256(sounds))
    steps["vae"] = 2
    for wrong in (None, other):
        with pytest.raises(Refused, match="was made with"):
            train(wrong)
    assert train(sounds) == said


def test_what_was_trained_on_is_no_unseen_soundfont(sounds, tmp_path, capsys):
    known = {"soundfont": sounds.name, "soundfont_sha256": soundfont.sha256(sounds)}
    stage = {"step": 1, "seconds": 1.0, "losses": [[1, 0.5]], "settings": known}
    made = {"songs": 4, "device": "a CPU", "seconds": 1.0, "plan": "cpu", "torch": "2", "recipe": 1}
    (tmp_path / card.MADE).write_text(json.dumps({**made, "stages": {"vae": stage}}))
    assert f"the instruments of {sounds.name}" in card.write(tmp_path).read_text()
    assert figures([str(tmp_path), "--soundfont", str(sounds)]) == 4
    assert f"{sounds} is what the decoder was trained on" in capsys.readouterr().err
