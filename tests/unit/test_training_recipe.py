"""The recipe of `punchin-tiny` at smoke size: its lessons are what the pipeline shows, and the whole of it runs,
survives a kill, teaches something, and gives a model like any other."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from punchin.engine import tasks, tiny
from punchin.engine.conditioner import Conditioner
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.prompts import caption_prompt, instruction
from punchin.engine.released import load
from punchin.engine.request import Request
from punchin.training import state
from punchin.training.recipes import bands, envelope, lessons, oneshots
from punchin.training.recipes import tiny as recipe
from punchin.training.recipes.autoencoder import AutoencoderStage
from punchin.training.recipes.codes import CodesStage
from punchin.training.recipes.library import Codes, Library, Version, heard_in
from punchin.training.recipes.metre import MetreStage, beats
from punchin.training.recipes.music import LEVELS, Music, MusicStage, loudness
from punchin.training.recipes.oneshots import OneShots
from punchin.training.recipes.plan import SMOKE
from punchin.training.recipes.rooms import driven, roomed
from punchin.training.recipes.score import STEMS, Note, compose
from punchin.training.recipes.synth import render
from punchin.training.recipes.words import INSTRUMENTS, WordsStage, tempo
from punchin.training.spectrum import FLOOR, low_distance, si_sdr_db

CPU = torch.device("cpu")
PLAN = replace(SMOKE, songs=2, song_frames=128, song_steps=1, windows=(128,), batch_frames=3072, most_items=24)


@pytest.fixture(scope="module")
def begun():
    """The autoencoder's stage before its first step, on one thread as `made`: sums differ with the number of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    stage = AutoencoderStage(tiny.untrained()[1], SMOKE, CPU, 0)
    stage.begin()
    torch.set_num_threads(threads)
    return stage


@pytest.fixture(scope="module")
def parts(tmp_path_factory, begun):
    model, _, text, words = tiny.untrained()
    vae = begun.vae
    folder = tiny.write(tmp_path_factory.mktemp("tiny"), model, vae, text, words, trained=False)
    for each in (model, text):
        each.load_state_dict({key: value.bfloat16().float() for key, value in each.state_dict().items()})  # as on disk
    library = Library(OneShots(vae), PLAN, CPU, 0)
    codes = Codes(model.tokenizer, model.detokenizer, 64)
    silence = tiny.silence_latent(vae, 768)
    metre = MetreStage(model, text, words, silence, PLAN, CPU)
    music = Music(model, text, codes.ear, metre.read)
    return MusicStage(music, codes, library, metre, words, silence, loudness(vae)), load(folder)


def test_the_first_autoencoder_already_plays_what_it_hears(begun):
    asked, plain = begun.prepare(0), torch.zeros(SMOKE.crops)
    mixes = asked._replace(
        gains=torch.ones_like(asked.gains), drive=plain, room=torch.tensor([[0.1, 0.0]]).expand(SMOKE.crops, -1),
        tilt=plain, gate=torch.tensor([[0.0, 1.0]]).expand(SMOKE.crops, -1),
    )  # fmt: skip
    with torch.no_grad():
        audio = begun.audio(mixes, torch.Generator().manual_seed(1))
        latent = begun.vae.encode(audio).mean
        heard = begun.vae.decode(latent)
    assert float(si_sdr_db(heard, audio).mean()) > 6
    assert 0.3 < float(latent.std()) < 2


def test_a_lesson_reads_what_the_pipeline_reads(parts):
    """The condition of a padded batch is, item by item, the one that the engine makes for the same words."""
    stage, loaded = parts
    texts = [
        caption_prompt(instruction("text2music"), "house, piano", "- bpm: 120\n"),
        caption_prompt(instruction("cover"), "slow ballad, strings, brass, and much more", "- bpm: N/A\n"),
    ]
    ids, told = lessons.tokens(texts, stage.words)
    asked = lessons.batch(0, stage.library, stage.words)
    asked = replace(asked, ids=ids, told=told, untold=torch.tensor([False, False]), referenced=False)
    with torch.no_grad():
        states, valid = stage._condition(asked)
        for row, words in enumerate(texts):
            exact = replace(loaded, silence=stage.silence)  # on disk it is rounded
            want = loaded.model.decoder.prepare(engines_condition(exact, words))
            got = loaded.model.decoder.prepare(states[row : row + 1, valid[row]])
            for a, b in zip(got.layers, want.layers, strict=True):
                torch.testing.assert_close(a.keys, b.keys, rtol=0, atol=2e-4)
                torch.testing.assert_close(a.values, b.values, rtol=0, atol=2e-4)
    assert not bool(valid.all()), "one is padded"


def engines_condition(loaded, words):
    conditioner, text, encoder = Conditioner(loaded), loaded.text, loaded.model.encoder
    steps = conditioner._timbre(Request(frames=128 * 1920))
    try:
        while True:
            next(steps)
    except StopIteration as end:
        timbre = end.value
    from punchin.engine.condition import Tokens
    from punchin.engine.prompts import lyric_prompt

    lyrics = text.lyrics(lyric_prompt("[Instrumental]"))
    all_of = lambda x: Tokens(x, torch.ones(x.shape[:2], dtype=torch.bool))  # noqa: E731
    return encoder.joined(encoder.lyric_encoder(all_of(lyrics)), all_of(timbre), all_of(text.caption(words))).states


def test_a_lesson_shows_what_the_pipeline_shows(parts):
    """Contexts of a batch against the engine's `tasks.context`, for every task."""
    stage, loaded = parts
    seen = set()
    for step in (1, 2):
        asked = lessons.batch(step, stage.library, stage.words)
        stage.library.fill(asked.newest)
        with torch.no_grad():
            shown, _ = stage._shown(asked)
        for row in range(len(asked.target)):
            source = stage.library.latents[asked.source[row], asked.place[row]][None, asked.start[row] :].float()
            source = source[:, : asked.frames]
            if not asked.shown[row]:
                want, kind = tasks.silence_for(stage.silence, asked.frames), "text2music"
            elif asked.coded[row]:
                want, kind = Conditioner(replace(loaded, silence=stage.silence)).heard(source), "codes"
            elif asked.hole[row].any():
                start, stop = tasks.runs(asked.hole[row])[0]
                sound = torch.zeros(2, asked.frames * 1920)
                request = Request(task="repaint", frames=sound.shape[1], source=sound, regions=((start, stop),))
                whole = tasks.context(request, source, stage.silence)
                want, kind = whole[..., :64], "repaint"
                assert torch.equal(asked.mask[row], whole[0, :, 64])
            else:
                want, kind = source, "source"
            seen.add(kind)
            torch.testing.assert_close(shown[row], want[0], rtol=0, atol=3e-4)
    assert seen == {"text2music", "codes", "repaint", "source"}


def test_fast_songs_are_asked_for_more_often(parts):
    stage, _ = parts
    plan = replace(PLAN, songs=12, songs_kept=4, song_steps=1000)
    library = Library(stage.library._shots, plan, CPU, 0)
    fast = np.array([song.score.bpm > lessons.FAST_BPM for song in library.draft(0)])
    assert 0 < fast.sum() < 6, "some, and not most"
    places = np.concatenate([lessons.batch(step, library, stage.words).place.numpy() for step in range(60)])
    wanted = lessons.FAST * fast.sum() / (lessons.FAST * fast.sum() + (~fast).sum())
    assert fast[places].mean() == pytest.approx(wanted, abs=4 * np.sqrt(wanted * (1 - wanted) / len(places)))


def test_a_librarys_versions_are_parts_of_one_song(parts):
    """Rest and lone stem sound together as the mix, and a step's songs do not depend on what came before."""
    stage, _ = parts
    stage.library.fill(0)
    song = stage.library.draft(0)[0]
    assert set(heard_in(song, Version.REST)) | set(heard_in(song, Version.LONE)) == set(heard_in(song, Version.MIX))
    again = Library(stage.library._shots, PLAN, CPU, 0)
    again.fill(1)
    stage.library.fill(1)
    assert torch.equal(again.latents, stage.library.latents)


def test_a_page_says_what_its_prompts_say():
    """Each prompt is read again by its own words; the clocks, weighted as told, sum to a wave of two beats."""
    _, _, text, words = tiny.untrained()
    stage = WordsStage(text, words, SMOKE, CPU)
    page = stage.prepare(3)
    clocks = tiny.clocks(100)[0, :, ::2].numpy() / tiny.CLOCK_LEVEL  # their cosines, for 4 s
    for row in range(SMOKE.prompts):
        prompt = words.decode(page.ids[row, page.told[row]].tolist())
        bpm = re.search(r"bpm: (\d+)", prompt)
        assert (bpm is None) == bool(page.tempo[row].isnan().all())
        if bpm is not None:
            wave = np.cos(2 * np.pi * np.arange(100) / 25 * float(bpm[1]) / 120)
            np.testing.assert_allclose(clocks @ page.tempo[row].numpy(), wave, atol=0.25)
        key = re.search(r"keyscale: ([A-G][#b]? \w+)", prompt)
        assert (int(page.names[row, 1]) >= 0) == (key is not None)
        caption = prompt.split("# Caption\n")[1].split("\n")[0].removeprefix("solo ").split(", ")
        plays = {name for name, one in zip(INSTRUMENTS, page.instruments[row], strict=True) if one}
        assert plays
        assert set(caption) & set(INSTRUMENTS) <= plays
    assert bool(tempo(None).isnan().all())


def test_the_beats_are_where_the_notes_are():
    score = compose(5)
    where = beats(score, 200).unflatten(1, (2, 4))  # [T, cosine and sine, beat, half, quarter and bar]
    turned = torch.atan2(where[:, 1], where[:, 0]) / (2 * torch.pi) % 1
    for number, beats_long in enumerate((1.0, 0.5, 0.25, score.bar_beats)):
        want = np.arange(200) / 25 * score.bpm / 60 / beats_long % 1
        np.testing.assert_allclose(turned[:, number], want, atol=1e-3)


def test_notes_sum_to_what_the_encoder_hears(parts):
    """A score in latents against its render, encoded: each note on one of the places where samples are."""
    stage, loaded = parts
    shots, vae = stage.library._shots, loaded.vae
    held_s = oneshots.SHORTEST_S * oneshots.LENGTHS**4
    silent = compose(0)
    notes = dict.fromkeys(STEMS, ())
    notes["lead"] = tuple(Note(at * 2, held_s * 2, pitch, 0.75) for at, pitch in ((0.5, 64), (0.8025, 67), (1.24, 72)))
    notes["bass"] = (Note(1.0, held_s * 2, 36, 0.75),)
    score = replace(silent, bpm=120.0, notes=notes)
    inside = slice(2, -2)  # the encoder hears where a file ends
    got = shots.latents(shots.play([score], [0.0], 60).sum(1))[:, inside]
    with torch.no_grad():
        want = vae.encode(render([score], 60 / 25).sum(1)).mean[:, inside]
    linear, levels = slice(None, -bands.COUNT), slice(-bands.COUNT, None)
    assert float((got - want)[..., linear].norm() / want[..., linear].norm()) < 0.02
    error = (got - want)[..., levels]
    alone = slice(0, 17)  # until the second note begins: later, powers of tones sum roughly
    assert float(error[:, alone].norm() / want[:, alone, levels].norm()) < 0.1
    assert float(error.norm() / want[..., levels].norm()) < 0.2


def test_the_encoders_last_latents_are_levels(begun):
    """Against the same filters in numpy: a tone in the middle of a band, noise of the sides, silence."""
    time_s = torch.arange(20 * 1920) / 48_000
    tone = 0.1 * torch.sin(2 * torch.pi * 4_000 * time_s) * (time_s >= 0.4)
    wide = torch.rand(len(time_s), generator=torch.Generator().manual_seed(1)) - 0.5
    audio = torch.stack([torch.stack([tone, tone]), torch.stack([wide, -wide]), torch.zeros(2, len(time_s))])
    with torch.no_grad():
        levels = begun.vae.encode(audio).mean[..., -bands.COUNT :].unflatten(-1, (4, 4)) / bands.GAIN
    torch.testing.assert_close(levels.flatten(2)[:, 2:-2], bands.levels(audio)[:, 2:-2], rtol=0, atol=5e-3)
    assert float(levels[0, :9].abs().max()) < 1e-3, "it begins at frame 10"
    assert levels[0, 12].mean(1).argmax() == 1
    assert levels[1, 12].mean(1).argmax() == 3
    heard = (
        0.1 * np.cos(np.pi * 4_000 / 48_000) ** 6 * np.sin(2 * np.pi * np.arange(48_000) / 12)
    )  # the band's own gain
    want = np.mean([np.sin(scale * heard) ** 2 for scale in bands.SCALES], axis=1).sum()
    np.testing.assert_allclose(levels[0, 12, 1].mean(), want, atol=0.01)
    assert float(levels[2].abs().max()) == 0


def test_a_hum_in_silence_is_far_below_1500_hz():
    """A tone on a bin of each window is seen in that bin and, by half, in its neighbours."""
    hum, high = (0.01 * torch.sin(2 * torch.pi * hz * torch.arange(48_000) / 48_000) for hz in (750, 3_000))
    silence = torch.zeros(1, 2, 48_000)
    three = np.log1p(0.005 / FLOOR) + 2 * np.log1p(0.0025 / FLOOR)  # a full sine is 0.5
    want = np.mean([three / bins for bins in (64, 32, 16)]) / 2  # the sides are silent
    np.testing.assert_allclose(low_distance(hum.expand(1, 2, -1), silence), want, rtol=0.1)  # a little at the ends
    assert float(low_distance(high.expand(1, 2, -1), silence)) < 0.05 * want
    assert float(low_distance(silence, silence)) == 0


def test_an_overdriven_tone_gets_odd_harmonics_and_stays_as_loud():
    tone = torch.sin(2 * torch.pi * 1_000 * torch.arange(48_000) / 48_000).expand(2, 2, -1)
    clean, bent = driven(tone, torch.tensor([0.0, 6.0]))
    assert torch.equal(clean, tone[0])
    harmonics = np.abs(np.fft.rfft(bent[0].numpy()))[1_000:6_001:1_000] / 24_000
    assert harmonics[2] > 0.2
    assert harmonics[4] > 0.1
    assert harmonics[[1, 3, 5]].max() < 1e-4
    np.testing.assert_allclose(bent.square().mean(), 0.5, rtol=1e-4)


def test_a_room_answers_on_both_sides_and_dies_away():
    clap = torch.zeros(2, 2, 48_000)
    clap[..., 100] = 1
    dry, wet = roomed(clap, torch.tensor([[0.5, 0.0], [0.5, 0.3]]), torch.Generator().manual_seed(1)) - clap
    assert dry.abs().max() < 1e-6
    np.testing.assert_allclose(wet.square().sum(-1), 0.3**2, rtol=1e-3)
    assert wet[:, :100].abs().max() < 1e-6  # nothing before the clap
    first, last = (wet[:, at : at + 2_000].square().mean().log10() for at in (100, 100 + 24_000))
    assert 50 < 10 * (first - last) < 62
    assert abs(np.corrcoef(wet.numpy())[0, 1]) < 0.1


def test_a_level_tells_its_power():
    powers = torch.logspace(-7, -1, 50)
    np.testing.assert_allclose(bands.power(bands.level(powers)), powers, rtol=1e-3)
    noise = torch.randn(1, 2, 480_000, generator=torch.Generator().manual_seed(2)) * 0.05
    loud = bands.power(bands.levels(noise)[0, 2:-2].mean(0))
    louder = bands.power(bands.levels(2**0.5 * noise)[0, 2:-2].mean(0))
    np.testing.assert_allclose(louder / loud, 2, rtol=0.1)


def test_a_song_goes_on_where_it_begins_later(parts):
    """Notes that began before still sound, and the piece comes round again."""
    stage, _ = parts
    score = replace(compose(3), bpm=120.0)
    whole = stage.library._shots.play([score], [0.0], 500)
    late = stage.library._shots.play([score], [2.0], 450)
    torch.testing.assert_close(late[:, 1:], whole[:, 1:, 50:], rtol=0, atol=1e-4)  # a drum has several hisses
    assert score.seconds < 20


def test_an_envelope_knows_no_phase():
    draw = torch.Generator().manual_seed(0)
    latent, weight = torch.randn(2, 40, 64, generator=draw), torch.rand(64, generator=draw) + 0.5
    assert float(envelope.unlike(-latent, latent, weight).abs().max()) == 0
    shorter = latent * (torch.arange(40) < 20)[:, None]
    error = envelope.unlike(shorter, latent, weight)
    assert float(error[:, :18].max()) == 0, "five frames are heard at most"
    assert float(error[:, 22:].min()) > 0.5
    channels = envelope.groups(latent, weight) ** 2 - envelope.FLOOR
    np.testing.assert_allclose(channels[0, 7, 3], ((latent * weight)[0, 7, 12:16] ** 2).mean(), rtol=1e-3)


def losses(stage, steps):
    with torch.no_grad():
        return np.mean([float(stage.loss(step, stage.prepare(step))) for step in steps])


def command(out):
    return [sys.executable, "-m", "punchin.training.recipes.tiny", str(out), "--smoke", "--device", "cpu"]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The recipe run twice: without a break, and killed in its last stage and run again."""
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    beside = subprocess.Popen(command(whole), env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    process = subprocess.Popen(command(broken), env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    checkpoint = broken / "work" / "music.safetensors"
    deadline = time.monotonic() + 600
    while not checkpoint.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    _, facts = state.load(checkpoint)
    assert 0 < facts["step"] < facts["end"], "it was killed too late to prove anything"
    again = subprocess.run(command(broken), check=True, env=env, capture_output=True, text=True)
    assert beside.wait() == 0
    return whole, broken, again.stdout


@pytest.mark.slow
def test_a_kill_changes_no_weight(made):
    whole, broken, said = made
    assert said.strip() == str(broken / "punchin-tiny")
    files = [path.relative_to(whole) for path in whole.rglob("*.safetensors")]
    assert len(files) == 8
    for file in files:
        a, b = (state_of(folder / file) for folder in (whole, broken))
        assert a.keys() == b.keys()
        for key in a:
            assert torch.equal(a[key], b[key]), f"{file}: {key}"


def state_of(path):
    from safetensors.torch import load_file

    return load_file(path)


@pytest.mark.slow
def test_what_it_makes_is_a_model_like_any_other(made):
    whole, _, _ = made
    card = (whole / "README.md").read_text()
    assert "plan `smoke`" in card
    assert "autoencoder" not in json.loads((whole / "recipe.json").read_text())["stages"]
    pipe = AceStepPipeline.from_pretrained(whole / "punchin-tiny", device="cpu")
    assert pipe.loaded.trained
    assert pipe.variant.name == "punchin-tiny"
    music = pipe("house, piano", duration=5.12, bpm=120, seed=3, num_inference_steps=2, cfg_scale=2.0)
    assert music.audio.shape == (1, 2, 245_760)
    assert bool(music.audio.isfinite().all())
    assert float(music.audio.std()) > 1e-3
    assert sum(p.stat().st_size for p in whole.rglob("*") if p.is_file() and "work" not in p.parts) <= 25_000_000


def test_channels_count_as_much_as_they_are_heard(parts):
    stage, _ = parts
    _, vae, _, _ = tiny.untrained()
    with torch.no_grad():
        vae.decoder.conv1.weight_v[:, 3] = 0
        vae.decoder.conv1.weight_v[:, 5] *= 10
    loud = loudness(vae)
    assert loud.shape == (64,)
    assert float(loud.mean()) == pytest.approx(1)
    assert float(loud[3]) == 0
    assert int(loud.argmax()) == 5
    levels = loud[-bands.COUNT :]
    np.testing.assert_allclose(levels, LEVELS * loud[: -bands.COUNT].mean(), rtol=1e-6)  # whatever their kernels are
    asked = stage.prepare(0)
    at = {channel: MusicStage(*given(stage), torch.eye(64)[channel] * 64) for channel in (0, 1)}
    with torch.no_grad():
        assert float(at[0].loss(0, asked)) != float(at[1].loss(0, asked)), "each hears its own channel alone"


def given(stage):
    return stage.music, stage.codes, stage.library, stage.metre, stage.words, stage.silence


@pytest.mark.slow
def test_every_stage_has_learned(made, begun):
    """The loss of the same steps before and after."""
    whole, _, _ = made
    work = whole / "work"
    model, vae, text, words = tiny.untrained()
    autoencoder = AutoencoderStage(vae, SMOKE, CPU, 0)
    vae.load_state_dict(begun.vae.state_dict())
    before = losses(autoencoder, [0, 1])
    vae.load_state_dict(trained(work / "vae.safetensors"))
    assert losses(autoencoder, [0, 1]) < before
    library = Library(OneShots(vae), PLAN, CPU, 0)
    codes = Codes(model.tokenizer, model.detokenizer, 64)
    loud = loudness(vae)
    stage = CodesStage(codes, library, loud)
    before = losses(stage, [0, 1])
    codes.load_state_dict(trained(work / "codes.safetensors"))
    assert losses(stage, [0, 1]) < before / 2
    reading = WordsStage(text, words, SMOKE, CPU)
    before = losses(reading, [0, 1])
    reading.module.load_state_dict(trained(work / "words.safetensors"))
    assert losses(reading, [0, 1]) < before - 0.5
    silence = tiny.silence_latent(vae, 768)
    counting = MetreStage(model, text, words, silence, SMOKE, CPU)
    before = losses(counting, [0, 1])
    counting.module.load_state_dict(trained(work / "metre.safetensors"))
    assert losses(counting, [0, 1]) < before - 0.05  # a quarter beat is not yet counted after so few steps
    music = Music(model, text, codes.ear, counting.read)
    last = MusicStage(music, codes, library, counting, words, silence, loud)
    before = losses(last, [0, 1])
    music.load_state_dict(trained(work / "music.safetensors"))
    assert losses(last, [0, 1]) < before - 0.1


@pytest.mark.slow
def test_the_autoencoders_training_leaves_every_latent_what_it_was(made, begun):
    whole, _, _ = made
    written = state_of(whole / "vae" / "diffusion_pytorch_model.safetensors")
    first = {key: value.bfloat16() for key, value in begun.vae.state_dict().items()}
    same = {key for key in written if torch.equal(written[key], first[key])}
    assert same >= {key for key in written if key.startswith("encoder.")}
    assert any(key.startswith("decoder.") for key in written.keys() - same)


def trained(path):
    return state.under("model", state.load(path)[0])


def test_a_size_over_the_limit_is_refused(monkeypatch, tmp_path):
    (tmp_path / "punchin-tiny").mkdir()
    (tmp_path / "punchin-tiny" / "model.safetensors").write_bytes(bytes(2000))
    monkeypatch.setattr(recipe, "MOST_FILE_BYTES", 1000)
    stage = {"step": 1, "seconds": 1.0, "losses": [(1, 1.0)]}
    making = recipe.Making(tmp_path, "smoke", CPU, 1.0, 0, None, False, None, bool, dict.fromkeys(SMOKE.share, stage))
    with pytest.raises(recipe.PunchinError, match="2,000"):
        recipe._write(making, tmp_path / "punchin-tiny")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--minutes", "nan"], "--minutes is nan"),
        (["--minutes", "0"], "--minutes is 0"),
        (["--minutes", "inf"], "--minutes is inf"),
        (["--device", "foo"], "device foo cannot be used"),
        (["--device", "cuda:99"], "device cuda:99 cannot be used"),
    ],
)
def test_a_recipe_that_could_not_run_is_refused_first(tmp_path, capsys, given, said):
    assert recipe.main([str(tmp_path / "out"), "--smoke", *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
