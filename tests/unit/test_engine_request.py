"""Bad input is refused by name, with value and limit, before any weight is moved; ranges may leave the source."""

import inspect
import math
import warnings
from itertools import pairwise
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from punchin.engine import request as asked
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.request import Request
from punchin.protocol.errors import OverLimit, Refused


@pytest.fixture(scope="module")
def turbo(tmp_path_factory):
    return AceStepPipeline.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("turbo")))


def audio(seconds=6.0, channels=2):
    return 0.3 * torch.randn(channels, round(seconds * 48_000), generator=torch.Generator().manual_seed(2))


def untouched(pipeline, monkeypatch):
    """Make every module of the model fail when it is called."""

    def called(*_, **__):
        raise AssertionError("a weight was used")

    for module in (pipeline.loaded.text.model, pipeline.loaded.model.encoder, pipeline.loaded.model.decoder):
        monkeypatch.setattr(module, "forward", called)
    monkeypatch.setattr(pipeline.loaded.vae, "mean_and_scale", called)


BAD = {
    "stems on turbo": ({"task_type": "lego", "src_audio": audio(), "instrument": "drums"}, "does not know lego"),
    "unknown task": ({"task_type": "remix"}, "unknown task 'remix'"),
    "tempo": ({"bpm": 301}, "tempo is 301 bpm, allowed is 30 to 300"),
    "tempo is no number": ({"bpm": math.nan}, "tempo is nan bpm"),
    "duration": ({"duration": 601}, "region length is 601 s, allowed is 0.25 to 600"),
    "short duration": ({"duration": 0.1}, "region length is 0.1 s"),
    "steps": ({"num_inference_steps": 201}, "steps is 201, allowed is 1 to 200"),
    "no steps": ({"num_inference_steps": 0}, "steps is 0"),
    "shift": ({"shift": 21}, "shift is 21, allowed is 0.1 to 20"),
    "guidance": ({"cfg_scale": 31}, "guidance is 31, allowed is 0 to 30"),
    "seed": ({"seed": 2**32}, "seed is 4294967296, allowed is 0 to 4294967295"),
    "seeds": ({"seed": range(17)}, "variations is 17, allowed is 1 to 16"),
    "key": ({"keyscale": "H minor"}, "key 'H minor'"),
    "signature": ({"timesignature": 5}, "time signature '5'"),
    "prompt": ({"prompt": "x" * 4001}, "4001 characters, allowed are 4000"),
    "lyrics": ({"lyrics": "x" * 20_001}, "20001 characters, allowed are 20000"),
    "instrument": ({"instrument": "kazoo"}, "unknown instrument 'kazoo'"),
    "instrument for nothing": ({"instrument": "drums"}, "text2music takes no instrument"),
    "repaint without source": ({"task_type": "repaint"}, "repaint needs a source"),
    "repaint without range": ({"task_type": "repaint", "src_audio": audio()}, "needs a range"),
    "range without length": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(3, 3)]}, "3 to 3 s has no length",
    ),
    "range outside": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(6.1, 8)]},
        "6.1 to 8 s lies outside the source, 0 to 6 s",
    ),
    "ranges without a source": ({"repainting_ranges": [(1, 3)]}, "but no src_audio to repaint"),
    "overlap": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(2, 4), (1, 3)]},
        "ranges 1 to 3 s and 2 to 4 s overlap",
    ),
    "ranges for a cover": (
        {"task_type": "cover", "src_audio": audio(), "repainting_ranges": [(1, 3)]}, "cover takes no ranges",
    ),
    "grown too long": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(5, 700)]}, "region length is 700 s",
    ),
    "grown beyond all memory": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(5, 1e9)]}, "length is 1000000000 s",
    ),
    "range without end": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(5, math.inf)]}, "5 to inf s is not",
    ),
    "range of no number": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(math.nan, 5)]}, "nan to 5 s is not",
    ),
    "prompt's duration": (
        {"task_type": "cover", "src_audio": audio(), "preset": "diffsynth", "duration": math.nan}, "is nan s",
    ),
    "source for text2music": ({"src_audio": audio()}, "text2music takes no source"),
    "rate": ({"task_type": "cover", "src_audio": audio(), "rate_hz": 44_100}, "44100 Hz, the engine takes 48000"),
    "channels": ({"task_type": "cover", "src_audio": audio(channels=8)}, "channels is 8, allowed is 1 to 2"),
    "shape": ({"task_type": "cover", "src_audio": torch.zeros(5)}, "shape \\[5\\]"),
    "noise of another length": ({"noise": torch.zeros(1, 5, 64)}, "shape \\[1, 5, 64\\], it must be \\[1, 750, ch"),
    "not finite": ({"task_type": "cover", "src_audio": audio() / 0}, "576000 samples that are not finite"),
    "whole numbers": (
        {"task_type": "cover", "src_audio": (9999 * audio()).short()}, "is torch.int16, it must be float",
    ),
    "silent": ({"task_type": "cover", "src_audio": torch.zeros(2, 288_000)}, "is silent: its peak is 0"),
    "a file's name": ({"task_type": "cover", "src_audio": "song.wav"}, "is 'song.wav', it must be a tensor"),
    "a file's path": ({"reference_audios": [Path("song.wav")]}, "reference 1 is .*song.wav.*it must be a tensor"),
    "objects": ({"task_type": "cover", "src_audio": audio().numpy().astype(object)}, "is an array of object"),
    "frames before channels": ({"task_type": "cover", "src_audio": audio().numpy().T}, "channels is 288000"),
    "prompts": ({"prompt": ["a", "b"]}, r"the prompt is \['a', 'b'\], it must be text"),
    "instruments": ({"task_type": "lego", "src_audio": audio(), "instrument": ["drums"]}, "instrument is .* be text"),
    "no language": ({"vocal_language": None}, "vocal_language is None, it must be text"),
    "noise from a GPU that is not here": ({"rand_device": "cuda"}, "cuda was asked for, and torch finds no GPU here"),
    "noise from nowhere": ({"rand_device": "gpu"}, "there is no device 'gpu'"),
    "noise from no generator": ({"rand_device": "meta"}, "rand_device is meta, it must be cpu or cuda"),
    "half a step": ({"num_inference_steps": 7.5}, "num_inference_steps is 7.5, it must be a whole number"),
    "seed and a half": ({"seed": 1.5}, "seed is 1.5, it must be a whole number"),
    "true seed": ({"seed": [True]}, "seed is True, it must be a whole number"),
    "tempo in words": ({"bpm": "120"}, "bpm is '120', it must be a number"),
    "duration in words": ({"duration": "30"}, "duration is '30', it must be a number"),
    "one flat range": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": (1, 3)},
        "a pair of repainting_ranges is 1, it must be two numbers",
    ),
    "short reference": ({"reference_audios": [audio(0.9)]}, "reference length is 0.9 s, allowed is 1 to 600"),
    "silent reference": ({"reference_audios": [audio(2), torch.zeros(2, 96_000)]}, "reference 2 is silent"),
    "no codes": ({"task_type": "cover", "audio_code_string": "<|code_1|>"}, "holds no"),
    "codes cut short": (
        {"task_type": "cover", "audio_code_string": "<|audio_code_1|>" * 9 + "<|audio_code_2"},
        "has 1 codes that are cut or misspelt, and 9 good ones",
    ),
    "a code without end": (
        {"task_type": "cover", "audio_code_string": f"<|audio_code_1|><|audio_code_{'9' * 5000}|>"}, "has 1 codes that",
    ),
    "codes and source": (
        {"task_type": "cover", "audio_code_string": "<|audio_code_1|>" * 9, "src_audio": audio()}, "two ways",
    ),
    "two noise strengths": (
        {"task_type": "cover", "src_audio": audio(), "denoising_strength": 0.5, "cover_noise_strength": 0.5},
        "two ways",
    ),
    "noise strength from nothing": ({"denoising_strength": 0.5}, "to start from"),
    "input audio without effect": ({"input_audio": audio()}, "no effect at denoising_strength 1"),
    "a flag in words": ({"sample_latents": "no"}, "sample_latents is 'no', it must be True or False"),
    "half an interval": ({"cfg_interval": (0.5,)}, r"cfg_interval is \(0.5,\), it must be two numbers"),
    "interval": ({"cfg_interval": (0.9, 0.1)}, "never acts"),
    "preset": ({"preset": "difsynth"}, "preset is 'difsynth', known is diffsynth"),
    "mode": ({"cover_mode": "fast"}, "cover_mode is 'fast', allowed is fsq, latent"),
    "another task's strength": (
        {"task_type": "cover", "src_audio": audio(), "repainting_strength": 0.5}, "strength 0.5 has no effect in cover",
    ),
    "a cover's strength": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(1, 3)], "audio_cover_strength": 0.5},
        "audio_cover_strength 0.5 has no effect in repaint",
    ),
    "strength": (
        {"task_type": "repaint", "src_audio": audio(), "repainting_ranges": [(1, 3)], "repainting_strength": 1.1},
        "repainting_strength is 1.1, allowed is 0 to 1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_before_any_weight_is_used(turbo, monkeypatch, name):
    options, text = BAD[name]
    untouched(turbo, monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(Refused, match=text):
        turbo(**options)


def test_guidance_on_turbo_is_not_applied_and_said(turbo):
    music = turbo("dusty", duration=5.12, num_inference_steps=1, cfg_scale=4.0)
    plain = turbo("dusty", duration=5.12, num_inference_steps=1)
    assert music.notes == ("guidance 4 was not applied: turbo is distilled and takes none",)
    assert torch.equal(music.latents, plain.latents)
    assert plain.notes == ()


def test_numpys_numbers_and_arrays_are_what_they_say(turbo):
    plainly = {"task_type": "repaint", "repainting_ranges": [(1.0, 3.0)], "bpm": 90.0, "num_inference_steps": 2}
    plain = turbo("x", src_audio=audio(), seed=[7, 8], **plainly)
    told = plainly | {
        "repainting_ranges": np.array([[1.0, 3.0]]), "bpm": np.float32(90), "num_inference_steps": np.int32(2),
    }  # fmt: skip
    numpys = turbo("x", src_audio=audio().numpy(), seed=np.array([7, 8]), **told)
    assert torch.equal(numpys.audio, plain.audio)
    assert numpys.seeds == (7, 8)
    assert {type(each) for each in (*numpys.seeds, numpys.steps)} == {int}
    assert turbo("x", src_audio=audio(), seed=np.int64(8), **plainly).seeds == (8,)
    assert turbo("x", src_audio=audio(), seed=np.array(8), **plainly).seeds == (8,)
    owns = Request(frames=480_000, shift=np.float64(3), bpm=np.int16(90), sample_latents=np.True_)
    assert [type(each) for each in (owns.shift, owns.bpm, owns.sample_latents)] == [float, float, bool]


def test_an_array_that_is_read_only_or_of_another_order_of_bytes_is_taken_as_it_is():
    plain = audio().numpy()
    swapped, locked = plain.astype(plain.dtype.newbyteorder()), plain.copy()
    locked.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in (swapped, locked, np.broadcast_to(plain, plain.shape)):
            assert np.array_equal(asked.stereo(each, "the source").numpy(), plain)


def test_a_reference_is_clipped_and_a_source_is_not():
    loud = 5 * audio()
    assert torch.equal(asked.reference(loud), loud.clamp(-1, 1))
    assert torch.equal(asked.stereo(loud, "the source"), loud)


def test_mono_is_taken_as_two_equal_channels():
    mono = audio(channels=1)
    assert torch.equal(asked.stereo(mono, "x"), mono.expand(2, -1))


def test_painting_beyond_both_ends():
    source = torch.ones(2, 100 * 1920 + 7)
    grown = asked.painted(source, [(-1.01, 0.5), (3.9, 5.0)])
    assert torch.equal(grown.source[:, 26 * 1920 : 26 * 1920 + source.shape[1]], source)
    assert grown.source.shape[1] == 26 * 1920 + 5 * 48_000
    assert grown.source.sum() == source.sum()
    assert grown.blank == (26, 25), "the source's last frame was not whole"
    assert grown.regions == ((0, 39), (123, 151))
    assert grown.wanted == (26 * 1920 - 48_480, grown.source.shape[1])
    Request(task="repaint", frames=grown.source.shape[1], source=grown.source, regions=grown.regions, blank=grown.blank)


@pytest.mark.parametrize(
    ("range_s", "blank", "regions", "seconds"),
    [
        ((2.0, -1), (0, 0), ((50, 100),), 4.0),  # to the end
        ((4.0, 6.0), (0, 50), ((100, 150),), 6.0),  # what follows, nothing of the source
        ((-2.0, 0.0), (50, 0), ((0, 50),), 6.0),  # what comes before
        ((-2.0, -1), (50, 0), ((0, 50),), 6.0),
    ],
)
def test_painting_on_from_an_end(range_s, blank, regions, seconds):
    grown = asked.painted(torch.ones(2, 4 * 48_000), [range_s])
    assert (grown.blank, grown.regions) == (blank, regions)
    assert grown.wanted == (0, seconds * 48_000) == (0, grown.source.shape[1])


def test_a_result_painted_beyond_its_ends_is_as_long_as_both(turbo):
    music = turbo(
        "x", task_type="repaint", src_audio=audio(), num_inference_steps=1, repainting_ranges=[(-1.01, 0.5), (5, 7)]
    )
    assert music.audio.shape == (1, 2, round(8.01 * 48_000))


def test_ranges_that_share_a_latent_frame_are_one_region():
    source = torch.ones(2, 4 * 48_000)
    assert asked.painted(source, [(1.01, 2), (0, 1.01)]).regions == ((0, 50),), "1.01 s lies in frame 25"
    assert asked.painted(source, [(0, 1.01), (1.03, 2.01), (2.02, 3)]).regions == ((0, 75),)
    assert asked.painted(source, [(0, 1), (1, 2)]).regions == ((0, 25), (25, 50)), "they touch at a frame's edge"


@settings(deadline=None)  # each makes seconds of audio, on whatever machine
@given(
    st.integers(-2000, 4000),
    st.lists(st.tuples(st.integers(-5, 120), st.integers(1, 1500)), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_every_frame_that_a_range_touches_is_made_anew(begin_ms, steps, random):
    """Ranges follow each other at a distance of milliseconds; refused are those that overlap, and no others."""
    source, spans, at = torch.ones(2, 4 * 48_000), [], begin_ms
    for gap, length in steps:
        spans.append(((at + gap) / 1000, (at + gap + length) / 1000))
        at += gap + length
    met = sorted((start, 0 if end < 0 else end) for start, end in spans)  # what ends before the source goes on to it
    good = all(start <= 4 for start, _ in met) and all(one[1] <= two[0] for one, two in pairwise(met))
    random.shuffle(spans)
    if not good:
        with pytest.raises(Refused, match=r"overlap|outside the source"):
            asked.painted(source, spans)
        return
    grown = asked.painted(source, spans)
    request = Request(
        task="repaint", frames=grown.source.shape[1], source=grown.source, regions=grown.regions, blank=grown.blank
    )
    made, touched = torch.zeros(request.touched), torch.zeros(request.touched * 1920)
    for start, stop in request.regions:
        made[start:stop] = 1
    offset = grown.blank[0] * 1920
    for start, end in spans:
        touched[offset + round(start * 48_000) : offset + (0 if end < 0 else round(end * 48_000))] = 1
    assert torch.equal(made, touched.unflatten(0, (-1, 1920)).amax(1)), "and no other"
    origin = grown.wanted[0] - offset
    assert origin == min(0, *(round(start * 48_000) for start, _ in spans))


def test_raw_parameters_go_by_their_python_names():
    base = Request(frames=480_000)
    made = base.with_raw({"denoising_strength": 0.5, "cover_mode": "latent", "sample_latents": True})
    assert (made.denoising_strength, made.cover_mode, made.sample_latents) == (0.5, "latent", True)
    with pytest.raises(Refused, match="no engine parameter is called 'seeds'"):
        base.with_raw({"seeds": 3})
    with pytest.raises(Refused, match="cover_mode is 3, allowed is fsq, latent"):
        base.with_raw({"cover_mode": 3})
    with pytest.raises(Refused, match="shift is True, it must be a number"):
        base.with_raw({"shift": True})
    with pytest.raises(OverLimit, match="repaint_injection is 2, allowed is 0 to 1"):
        base.with_raw({"repaint_injection": 2})


def test_each_raw_parameter_is_an_argument_of_the_call(turbo):
    taken = set(inspect.signature(turbo).parameters) | {"cfg_interval_start", "cfg_interval_end"}  # cfg_interval
    assert set(asked._RAW) <= taken
    quiet, loud = (turbo("x", duration=1, num_inference_steps=1, peak_normalise=each).audio for each in (False, True))
    assert loud.abs().max() == pytest.approx(10 ** (-1 / 20))
    torch.testing.assert_close(loud, quiet * loud.abs().max() / quiet.abs().max())


def test_codes_are_read_and_written():
    assert asked.parse_codes("a<|audio_code_5|> <|audio_code_70000|>" * 2) == (5, 63_999, 5, 63_999)
    assert asked.parse_codes(asked.code_string([1, 2, 63_999])) == (1, 2, 63_999)
