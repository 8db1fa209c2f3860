"""The pipeline's options, each against the plain way: seeds, caches, pieces, codes, noise, presets, memory."""

import checkpoints
import numpy as np
import pytest
import torch

from punchin.engine.pipeline import AceStepPipeline, OutOfMemory
from punchin.engine.request import Request
from punchin.protocol.errors import JobFailed, OverLimit, Refused

FRAMES = 150
SAMPLES = FRAMES * 1920


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pipeline(folder):
    return AceStepPipeline.from_pretrained(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("base")
    return AceStepPipeline.from_pretrained(checkpoints.write(root, name="acestep-v15-base", turbo=False))


def audio(samples=SAMPLES, seed=2):
    return 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


def noise(seed=1):
    return torch.randn(1, FRAMES, 64, generator=torch.Generator().manual_seed(seed))


def encoded(pipeline, samples):
    with torch.no_grad():
        return pipeline.loaded.vae.encode(samples[None], tile=168).mean


def drained(stages):
    seen = []
    while True:
        try:
            seen.append(next(stages))
        except StopIteration as end:
            return end.value, seen


REPAINT = {"task_type": "repaint", "repainting_ranges": [(2.0, 4.0)], "num_inference_steps": 2}


def test_a_seed_is_one_music_alone_or_among_others(pipeline):
    source = audio()
    both = pipeline("x", src_audio=source, seed=[7, 8], **REPAINT)
    alone = pipeline("x", src_audio=source, seed=8, **REPAINT)
    assert both.audio.shape == (2, 2, SAMPLES)
    assert both.seeds == (7, 8)
    assert torch.equal(both.audio[1], alone.audio[0])
    assert not torch.equal(both.audio[0], both.audio[1])
    by_hand = torch.randn(1, FRAMES, 64, generator=torch.Generator().manual_seed(8))
    assert torch.equal(pipeline("x", src_audio=source, noise=by_hand, **REPAINT).audio, alone.audio)


def test_what_is_kept_is_what_is_computed(folder, pipeline):
    """Latents by the source's bytes, prompts and references by what they say: warm equals cold, bit for bit."""
    source, reference = audio(), audio(48_000 * 5, seed=9)
    options = {"src_audio": source, "reference_audios": [reference], "lyrics": "la", **REPAINT}
    warm = [pipeline("x", **options).audio for _ in range(2)][1]
    cold = AceStepPipeline.from_pretrained(folder)("x", **options).audio
    assert torch.equal(warm, cold)
    louder = pipeline("x", **{**options, "src_audio": 2 * source}).audio
    assert not torch.equal(louder, warm), "another source is another latent"
    other = pipeline("x", **{**options, "reference_audios": [2 * reference]}).audio
    assert not torch.equal(other, warm)
    moved = pipeline("x", **{**options, "reference_audios": [audio(48_000 * 40, seed=9)], "reference_seed": 5}).audio
    assert not torch.equal(moved, pipeline("x", **{**options, "reference_audios": [audio(48_000 * 40, seed=9)]}).audio)


def test_the_source_is_encoded_once(pipeline, monkeypatch):
    source = audio(seed=77)
    pipeline("x", src_audio=source, **REPAINT)
    monkeypatch.setattr(pipeline.loaded.vae, "mean_and_scale", lambda *_: pytest.fail("encoded again"))
    pipeline("y", src_audio=source.clone(), seed=4, **REPAINT)


def test_only_wanted_frames_are_decoded_and_they_are_those_of_the_whole(pipeline, monkeypatch):
    source = audio()
    request = {
        "task": "repaint",
        "frames": SAMPLES,
        "source": source,
        "regions": ((50, 100),),
        "num_inference_steps": 2,
    }
    whole, _ = drained(pipeline.stages(Request(**request)))
    asked = []
    decode_tiles = pipeline.loaded.vae.decode_tiles
    monkeypatch.setattr(
        pipeline.loaded.vae, "decode_tiles", lambda latent, *span: asked.append(span[:2]) or decode_tiles(latent, *span)
    )
    part, _ = drained(pipeline.stages(Request(**request, wanted=(96_001, 191_999))))
    assert asked == [(50, 100)]
    torch.testing.assert_close(part.audio, whole.audio[..., 96_001:191_999], rtol=0, atol=1e-5)


def test_stages_come_in_order_and_stopping_leaves_the_pipeline_usable(pipeline):
    request = Request(
        task="repaint", frames=SAMPLES, source=audio(seed=5), regions=((50, 100),), num_inference_steps=3, seeds=(1, 2)
    )
    stages = pipeline.stages(request)
    first = [next(stages) for _ in range(3)]
    assert [stage.phase for stage in first] == ["encoding", "diffusing", "diffusing"]
    stages.close()
    assert torch.is_grad_enabled()
    music, seen = drained(pipeline.stages(request))
    assert [(s.done, s.total) for s in seen if s.phase == "diffusing"] == [(n, 6) for n in range(1, 7)]
    assert [(s.done, s.total) for s in seen if s.phase == "decoding"] == [(n, 4) for n in range(1, 5)]
    assert not music.audio.requires_grad


def test_words_that_would_not_be_read_to_the_end_are_refused_at_once(pipeline):
    """256 tokens are read; with 257, tempo and key would be gone without a word."""
    one = pipeline.conditioner.texts(Request(frames=SAMPLES, prompt="1"), "text2music")[0]  # a digit is a token
    most = 257 - len(pipeline.loaded.text.tokenizer.encode(one).ids)
    pipeline.stages(Request(frames=SAMPLES, prompt="1" * most))
    with pytest.raises(OverLimit, match="prompt with tempo, key and length is 257 tokens, allowed is 1 to 256"):
        pipeline.stages(Request(frames=SAMPLES, prompt="1" * (most + 1)))
    with pytest.raises(OverLimit, match=r"lyrics is 2\d{3} tokens, allowed is 1 to 2048"):
        pipeline.stages(Request(frames=SAMPLES, lyrics="1" * 2048))


def test_lyrics_without_a_word_are_none(pipeline):
    """An empty file has a line's end."""
    told = {pipeline.conditioner.texts(Request(frames=SAMPLES, lyrics=each), "text2music")[1] for each in ("", " \n")}
    assert told == {"# Languages\nunknown\n\n# Lyric\n[Instrumental]<|endoftext|>"}


def test_codes_out_and_in_are_the_same_cover(pipeline):
    source = audio()
    codes = pipeline.codes(source)
    assert codes.count("<|audio_code_") == FRAMES // 5
    direct = pipeline("x", task_type="cover", src_audio=source, noise=noise(), num_inference_steps=2).latents
    spoken = pipeline("x", task_type="cover", audio_code_string=codes, noise=noise(), num_inference_steps=2).latents
    torch.testing.assert_close(spoken, direct, rtol=0, atol=1e-5)
    latent = pipeline(
        "x", task_type="cover", src_audio=source, noise=noise(), num_inference_steps=2, cover_mode="latent"
    )
    assert (latent.latents - direct).abs().max() > 1e-2


@pytest.mark.parametrize("frames", [100, 200])
def test_codes_are_cut_to_a_duration_or_followed_by_silence(pipeline, monkeypatch, frames):
    decoder, contexts = pipeline.loaded.model.decoder, []
    steered = decoder.steered
    monkeypatch.setattr(
        decoder, "steered", lambda x, m, context, p: contexts.append(context) or steered(x, m, context, p)
    )
    codes, options = pipeline.codes(audio()), {"task_type": "cover", "num_inference_steps": 1}
    whole = pipeline("x", audio_code_string=codes, **options)
    music = pipeline("x", audio_code_string=codes, duration=frames / 25, **options)
    assert (whole.audio.shape[-1], music.audio.shape[-1]) == (SAMPLES, frames * 1920)
    told, got = contexts[0][0, :, :64], contexts[1][0, :, :64]
    both = min(FRAMES, frames)
    assert torch.equal(got[:both], told[:both])
    assert torch.equal(got[both:], pipeline.loaded.silence[0, both : len(got)])


def times(steps, shift=3.0, start=1.0):
    return [shift * u / (1 + (shift - 1) * u) for u in (start * (1 - i / steps) for i in range(steps))]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"denoising_strength": 0.5}, times(4, start=0.5)),  # DiffSynth: all steps, from a lower u
        ({"cover_noise_strength": 0.4}, times(8)[6:]),  # the original: from the time nearest to 1 - 0.4 (.642857 or .5)
    ],
)
def test_both_noise_strengths_start_from_the_noised_source(pipeline, monkeypatch, options, expected):
    if "cover_noise_strength" in options:
        near = min(range(8), key=lambda i: abs(times(8)[i] - 0.6))
        expected = times(8)[near:]
    seen = []
    decoder = pipeline.loaded.model.decoder
    steered = decoder.steered
    monkeypatch.setattr(decoder, "modulation", lambda t, make=decoder.modulation: seen.append(float(t)) or make(t))
    starts = []
    monkeypatch.setattr(decoder, "steered", lambda x, *rest: starts.append(x) or steered(x, *rest))
    steps = 4 if "denoising_strength" in options else 8
    music = pipeline("x", task_type="cover", src_audio=audio(), noise=noise(), num_inference_steps=steps, **options)
    assert seen == pytest.approx(expected, abs=1e-6)
    assert music.steps == len(expected)
    clean = encoded(pipeline, audio())
    torch.testing.assert_close(starts[0], expected[0] * noise() + (1 - expected[0]) * clean, rtol=0, atol=1e-5)


def test_input_audio_is_where_text2music_begins(pipeline, monkeypatch):
    decoder, starts = pipeline.loaded.model.decoder, []
    steered = decoder.steered
    monkeypatch.setattr(decoder, "steered", lambda x, *rest: starts.append(x) or steered(x, *rest))
    given = audio(100 * 1920)
    pipeline("x", duration=6.0, input_audio=given, denoising_strength=0.5, noise=noise(), num_inference_steps=2)
    t = times(2, start=0.5)[0]
    clean = torch.cat([encoded(pipeline, given), pipeline.loaded.silence[:, 100:FRAMES]], dim=1)
    torch.testing.assert_close(starts[0], t * noise() + (1 - t) * clean, rtol=0, atol=1e-5)


def test_a_cover_of_its_source_begins_from_input_audio_where_both_are_given(pipeline, monkeypatch):
    decoder, seen = pipeline.loaded.model.decoder, []
    steered = decoder.steered
    monkeypatch.setattr(decoder, "steered", lambda x, m, c, p: seen.append((x, c)) or steered(x, m, c, p))
    source, given = audio(), audio(100 * 1920, seed=3)
    pipeline(
        "x", task_type="cover", cover_mode="latent", src_audio=source, input_audio=given, denoising_strength=0.5,
        noise=noise(), num_inference_steps=2,
    )  # fmt: skip
    (start, context), t = seen[0], times(2, start=0.5)[0]
    clean = torch.cat([encoded(pipeline, given), pipeline.loaded.silence[:, 100:FRAMES]], dim=1)
    torch.testing.assert_close(start, t * noise() + (1 - t) * clean, rtol=0, atol=1e-5)
    torch.testing.assert_close(context[..., :64], encoded(pipeline, source), rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_diffsynth_preset_has_its_mask_its_guidance_and_its_peak(base, monkeypatch):
    decoder, contexts = base.loaded.model.decoder, []
    steered = decoder.steered
    monkeypatch.setattr(
        decoder, "steered", lambda x, m, context, p: contexts.append(context) or steered(x, m, context, p)
    )
    options = {"src_audio": audio(), "noise": noise(), "cfg_scale": 4.0, "shift": 3.0, **REPAINT}
    music = base("x", preset="diffsynth", **options)
    assert contexts[0][..., 64:].unique().tolist() == [1]
    assert float(music.audio.abs().max()) == pytest.approx(10 ** (-1 / 20), abs=1e-6)
    plain = base("x", **{**options, "mask_mode": "ones", "repaint_blend_frames": 0, "guidance_mode": "cfg"})
    torch.testing.assert_close(music.latents, plain.latents, rtol=0, atol=1e-6)
    apg = base("x", **{**options, "mask_mode": "ones", "repaint_blend_frames": 0})
    assert (apg.latents - plain.latents).abs().max() > 1e-2


def test_plain_guidance_goes_past_the_conditional_velocity(base, monkeypatch):
    """One step from t = 1: x - v with v = v_u + 4 (v_c - v_u), each got from the model alone."""
    options = {"duration": 6.0, "noise": noise(), "num_inference_steps": 1, "guidance_mode": "cfg"}
    conditional = base("x", cfg_scale=1.0, **options).latents
    nothing = base("x", cfg_scale=0.0, **options).latents
    expected = nothing + 4 * (conditional - nothing)
    torch.testing.assert_close(base("x", cfg_scale=4.0, **options).latents, expected, rtol=0, atol=1e-4)
    outside = base("x", cfg_scale=4.0, cfg_interval=(0.0, 0.9), **options).latents
    assert torch.equal(outside, conditional), "t = 1 is outside the interval"


def test_plain_guidance_has_a_scale_of_its_own(base, pipeline):
    options = {"duration": 6.0, "noise": noise(), "num_inference_steps": 1}
    assert base("x", **options).guidance == 7.0
    assert base("x", preset="diffsynth", **options).guidance == 4.0
    assert base("x", guidance_mode="cfg", cfg_scale=2.0, **options).guidance == 2.0
    turbo = pipeline("x", guidance_mode="cfg", **options)
    assert (turbo.guidance, turbo.notes) == (1.0, ())


def test_several_references_are_several_tokens(pipeline):
    one, two = audio(48_000 * 3, seed=1), audio(48_000 * 3, seed=2)
    results = [
        pipeline("x", duration=6.0, noise=noise(), num_inference_steps=1, reference_audios=given).latents
        for given in ([], [one], [one, two], [two, one])
    ]
    for first, second in ((0, 1), (1, 2), (2, 3)):
        assert not torch.equal(results[first], results[second])


def test_an_xl_model_is_loaded_with_its_own_encoder_width(tmp_path):
    folder = checkpoints.write(
        tmp_path, name="acestep-v15-xl-base", turbo=False, encoder_hidden_size=16, encoder_intermediate_size=24,
        encoder_num_attention_heads=2, encoder_num_key_value_heads=1, fsq_dim=16,
    )  # fmt: skip
    pipeline = AceStepPipeline.from_pretrained(folder)
    assert (pipeline.variant.name, pipeline.variant.guidance) == ("xl-base", 7.0)
    before = pipeline("x", duration=6.0, noise=noise(), num_inference_steps=1).latents
    pipeline.loaded.model.encoder.timbre_encoder.special_token.data += 1
    pipeline.conditioner.forget()
    after = pipeline("x", duration=6.0, noise=noise(), num_inference_steps=1).latents
    assert (after - before).abs().max() > 1e-4, "the CLS token is used"


def test_numbers_that_are_not_finite_are_an_error_with_their_step(pipeline, monkeypatch):
    decoder, calls = pipeline.loaded.model.decoder, []
    steered = decoder.steered

    def broken(x, *rest):
        calls.append(x)
        return steered(x, *rest) * (torch.nan if len(calls) == 2 else 1)

    monkeypatch.setattr(decoder, "steered", broken)
    with pytest.raises(JobFailed, match="not finite in step 2 of 4, seed 3") as caught:
        pipeline("x", duration=6.0, num_inference_steps=4, seed=3)
    assert caught.value.code == "not_finite"


def test_out_of_memory_names_the_next_rung(pipeline, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB\nmore")

    monkeypatch.setattr(pipeline.loaded.model.decoder, "steered", full)
    with pytest.raises(OutOfMemory, match=r"CUDA out of memory\. Tried to allocate 2\.00 GiB") as caught:
        pipeline("x", duration=6.0)
    assert (caught.value.code, caught.value.next_rung) == ("oom", 1)
    assert "rung=1" in caught.value.hint


def test_a_rung_lower_is_carried_out_and_gives_the_same_as_that_precision(folder):
    plain = AceStepPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    lower = AceStepPipeline.from_pretrained(folder, device="cpu", rung=1)
    assert lower.loaded.dtype == torch.bfloat16
    assert lower.loaded.shelf is not None
    options = {"duration": 6.0, "noise": noise(), "num_inference_steps": 2}
    assert torch.equal(lower("x", **options).latents, plain("x", **options).latents)
    with pytest.raises(Refused, match="memory ran out on cpu with the last plan too") as caught:
        AceStepPipeline.from_pretrained(folder, device="cpu", rung=2)
    assert caught.value.code == "oom"
    with pytest.raises(Refused, match=r"at least 0\.\d GiB are needed, cpu has 0\.0 free"):
        AceStepPipeline.from_pretrained(folder, device="cpu", limit_bytes=10_000_000)


def test_diffsynths_vram_config_is_carried_out(folder, pipeline):
    states = ("offload", "onload", "preparing", "computation")
    config = {f"{state}_device": "cpu" for state in states} | {f"{state}_dtype": torch.float32 for state in states}
    placed = AceStepPipeline.from_pretrained(folder, vram_config=config, vram_limit=8.0)
    options = {"duration": 6.0, "noise": noise(), "num_inference_steps": 2}
    assert torch.equal(placed("x", **options).audio, pipeline("x", **options).audio)
    assert "stay (float32)" in placed.loaded.placement.words
    with pytest.raises(Refused, match=r"GiB are needed, 0\.0 are allowed on cpu"):
        AceStepPipeline.from_pretrained(folder, vram_config=config, vram_limit=0.01)


def test_bfloat16_is_near_float32(folder, pipeline):
    half = AceStepPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    options = {"duration": 6.0, "noise": noise(), "num_inference_steps": 4}
    exact, near = pipeline("x", **options).latents, half("x", **options).latents
    assert (exact - near).abs().mean() < 0.02 * exact.abs().mean()
    assert near.dtype == torch.float32


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"noise": torch.zeros(1, 150, 3)}, "the noise has 3 channels, the model's latents have 64"),
        ({"preset": "diffsynth", "src_audio": audio(), "task_type": "cover", "duration": "6"}, "duration is '6'"),
    ],
)
def test_wrong_arguments_are_named(pipeline, given, said):
    with pytest.raises(Refused, match=said):
        pipeline("x", **{"duration": 6.0, **given}, num_inference_steps=1)


def test_no_references_are_none_or_nothing(pipeline):
    one, two = (pipeline("x", duration=6.0, num_inference_steps=1, noise=noise(), reference_audios=each).latents
                for each in ((), None))  # fmt: skip
    assert torch.equal(one, two)


@pytest.mark.parametrize("loras", [["style.safetensors"], [("style.safetensors", "0.5")], [1], 3])
def test_wrong_loras_are_named(pipeline, loras):
    with pytest.raises(Refused, match=r"pairs of a file and its strength|strength is '0\.5', it must be a number"):
        pipeline.use_loras(loras)


def test_other_devices_are_refused(folder):
    for device in ("mps", "meta"):
        with pytest.raises(Refused, match=f"the device is {device}, it must be cpu or cuda"):
            AceStepPipeline.from_pretrained(folder, device=device)


def test_arrays_go_in_and_out(pipeline):
    music = pipeline("x", task_type="cover", src_audio=torch.from_numpy(audio().numpy()), num_inference_steps=1)
    assert music.audio.numpy().dtype == np.float32
    assert music.rate_hz == 48_000
