"""The metrics of the bundled model, on true renders and on planted faults: each passes the one and names the other."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from punchin.protocol.limits import HOP, MODEL_HZ
from punchin.session import onsets
from punchin.training.recipes.figures import codec, cover, edges, notes, tempo
from punchin.training.recipes.figures.__main__ import main
from punchin.training.recipes.score import STEMS, compose
from punchin.training.recipes.songs import HELD_OUT, song
from punchin.training.recipes.synth import render


def scores(first, count):
    return [song(first + n).score for n in range(count)]


def mixes(some, seconds):
    return [*render(some, seconds).sum(1)]


@pytest.mark.parametrize("bpm", [71.0, 97.53, 140.0, 178.2])
def test_the_fine_tempo_is_the_one_that_was_played(bpm):
    rng = np.random.default_rng(1)
    beats = np.sort(rng.choice(64, 30, replace=False)) / 4
    seconds = 0.37 + beats * 60 / bpm + rng.normal(0, 0.002, 30)
    seconds[7] += 0.06  # one stray
    for told in (bpm * 0.988, bpm, bpm * 1.012):  # what the coarse ear may say
        assert tempo.fine(seconds, told) == pytest.approx(bpm, rel=2e-3)
    drifted = 0.37 + beats * 60 / (bpm * 1.013)
    assert abs(tempo.fine(drifted, bpm) / bpm - 1) > 0.01, "1.3 % off is not within 1 %"


@pytest.mark.slow
def test_the_ear_names_tempos_it_was_not_told():
    taught, held = scores(0, 28), scores(HELD_OUT, 10)
    ear = tempo.trained(mixes(taught, 6.0), [score.bpm for score in taught])
    found = [ear.tempo(audio) for audio in mixes(held, 6.0)]
    right = sum(abs(got / score.bpm - 1) < 0.01 for got, score in zip(found, held, strict=True))
    assert right >= 8, [(got, score.bpm) for got, score in zip(found, held, strict=True)]
    assert ear.tempo(torch.zeros(2, 8 * MODEL_HZ)) is None
    some = held[:5]
    slower = [ear.tempo(audio) for audio in mixes([replace(score, bpm=score.bpm * 0.97) for score in some], 6.0)]
    wrong = sum(abs(got / score.bpm - 1) < 0.01 for got, score in zip(slower, some, strict=True))
    assert wrong == 0, "3 % slower is another tempo"


def test_principal_components_hold_what_they_span():
    generator = torch.Generator().manual_seed(0)
    basis = torch.linalg.qr(torch.randn(2 * HOP, 8, generator=generator))[0]
    frames = torch.randn(1, 30, 8, generator=generator) @ basis.T
    audio = frames.unflatten(-1, (2, HOP)).permute(0, 2, 1, 3).flatten(2)
    eight, four = codec.components(audio, 8), codec.components(audio, 4)
    torch.testing.assert_close(codec.projected(audio, eight), audio, rtol=0, atol=1e-4)
    lost = (audio - codec.projected(audio, four)).square().sum()
    singular = torch.linalg.svdvals(frames[0].double())
    torch.testing.assert_close(lost.double(), singular[4:].square().sum(), rtol=1e-3, atol=1e-3)


def test_a_codec_that_is_the_components_has_ratio_one():
    audio = torch.stack(mixes(scores(1, 3), 1.92))
    basis = codec.components(audio[:2])

    class Same:
        def encode(self, audio):
            return type("P", (), {"mean": audio})

        def decode(self, latent):
            return codec.projected(latent, basis)

    class Perfect(Same):
        def decode(self, latent):
            return latent

    same = codec.measure(Same(), basis, audio[2:])
    assert same.ratio == pytest.approx(1)
    assert same.si_sdr_db == pytest.approx(same.components_si_sdr_db)
    perfect = codec.measure(Perfect(), basis, audio[2:])
    assert perfect.ratio == 0
    assert perfect.si_sdr_db > 60


def test_edges_of_a_true_render_are_quiet_and_a_cut_is_not():
    over, cut_over = [], []
    for score in scores(HELD_OUT, 6):
        audio = mixes([score], 15.36)[0].numpy()
        bar_s = score.bar_beats * 60 / score.bpm
        lines = [round(bar * bar_s * MODEL_HZ) for bar in range(1, int(15 / bar_s))]
        region = (150, 200)  # wherever these fall in the bar
        over.append(max(edges.edges_db(audio, region, lines)))
        cut = audio.copy()
        cut[:, 150 * HOP : 200 * HOP] = 0
        cut[:, 200 * HOP :] *= 3
        click = cut.copy()
        click[:, 150 * HOP] = 1.0
        cut_over.append(max(edges.edges_db(click, region, lines)))
    assert sum(each <= 6 for each in over) >= 5
    assert np.median(cut_over) > np.median(over)
    assert edges.edges_db(np.zeros((2, 480_000), np.float32), (100, 180), [96_000, 192_000]) is None


def test_matched_is_the_best_pairing():
    """Against a search over all pairings, for small random rows."""
    from itertools import combinations, permutations

    rng = np.random.default_rng(0)
    for _ in range(60):
        a, b = (np.sort(rng.uniform(0, 0.5, rng.integers(1, 5))) for _ in range(2))
        best = 0
        for size in range(1, min(len(a), len(b)) + 1):
            for left in combinations(a, size):
                for right in permutations(b, size):
                    best = max(best, size * all(abs(x - y) <= 0.05 for x, y in zip(left, right, strict=True)))
        assert cover.matched(a, b) == pytest.approx(2 * best / (len(a) + len(b)))
    assert cover.matched(np.zeros(0), np.ones(2)) == 0


def test_onsets_of_the_same_notes_agree_and_of_others_do_not():
    score = replace(compose(8), instruments={**compose(8).instruments, "lead": "piano"})
    other = replace(score, instruments={**score.instruments, "lead": "plucked guitar"})
    lead = STEMS.index("lead")
    one, two = (render([each], 10.0)[0, lead] for each in (score, other))
    assert cover.f_measure(one, two) > 0.8
    moved = two.roll(round(0.12 * MODEL_HZ), dims=1)
    assert cover.f_measure(one, moved) < 0.5
    assert cover.f_measure(one, torch.zeros_like(two)) == 0


def written(score, stem, seconds):
    """Seconds at which a score's notes begin, chords and flams as one: what was played, not what is heard."""
    beat_s, loop = 60 / score.bpm, score.bars * score.bar_beats
    starts = {(note.start_beats + loop * again) * beat_s for note in score.notes[stem] for again in range(64)}
    kept = []
    for start in sorted(each for each in starts if notes.EDGE_S < each < seconds - notes.EDGE_S):
        if not kept or start - kept[-1] > 0.03:
            kept.append(start)
    return np.array(kept)


def test_notes_begin_where_the_score_has_them_better_than_where_attacks_are_heard():
    held = scores(HELD_OUT + 700, 8)
    plain, attacks = [], []
    for number, (score, stems) in enumerate(zip(held, render(held, 10.0), strict=True)):
        stem = ("chords", "lead")[number % 2]
        audio, wanted = stems[STEMS.index(stem)], written(score, stem, 10.0)
        plain.append(cover.matched(notes.begin(audio), wanted))
        attacks.append(cover.matched(onsets.find(audio.numpy(), MODEL_HZ).frames / MODEL_HZ, wanted))
    assert np.mean(plain) > 0.93, plain
    assert np.mean(plain) > np.mean(attacks) + 0.05
    assert not len(notes.begin(torch.zeros(2, 48_000)))


@pytest.mark.slow
def test_the_probe_names_instruments_it_never_heard_play_this():
    stem = STEMS.index("lead")
    alone = [
        [replace(each, notes={name: each.notes[name] if name == "lead" else () for name in STEMS}) for each in some]
        for some in (scores(HELD_OUT + 500, 64), scores(HELD_OUT, 16))
    ]  # the other stems' notes need not be played
    taught, held = alone
    names = [[each.instruments["lead"] for each in some] for some in (taught, held)]
    probe = cover.trained([*render(taught, 5.0)[:, stem]], names[0])
    said = [probe.name(audio) for audio in render(held, 5.0)[:, stem]]
    assert len(set(names[0])) >= 6
    assert sum(a == b for a, b in zip(said, names[1], strict=True)) >= 12, said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--only", "tempoo"], '--only: there is no part "tempoo"\n  there are: codec, '),
        (["--only", "edges", "--count", "0"], "--count is 0, allowed is 1 and up"),
        (["--lessons", "-3"], "--lessons is -3"),
    ],
)
def test_what_measures_nothing_is_a_wrong_command_line(tmp_path, capsys, given, said):
    assert main([str(tmp_path), *given]) == 2
    assert said in capsys.readouterr().err
