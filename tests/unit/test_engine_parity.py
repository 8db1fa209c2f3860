"""Whole-pipeline latents equal diffusers' where diffusers is right: same weights, same noise, the VAE's mean on both
sides, fp32."""

import checkpoints
import pytest
import torch

from punchin.engine import request
from punchin.engine.pipeline import AceStepPipeline

SECONDS = 6.4  # 160 frames: over the shortest window, so that both sides have one length
WORDS = {"bpm": 97, "keyscale": "F# minor", "timesignature": "3", "vocal_language": "en"}


@pytest.fixture(scope="module")
def turbo(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("turbo"), turbo=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return pair(tmp_path_factory.mktemp("base"), name="acestep-v15-base", turbo=False)


def pair(root, **options):
    from diffusers.models.autoencoders import autoencoder_oobleck

    mean = autoencoder_oobleck.OobleckDiagonalGaussianDistribution
    mean.sample = lambda self, generator=None: self.mode()
    folder = checkpoints.write(root, **options)
    return AceStepPipeline.from_pretrained(folder), checkpoints.diffusers_pipeline(folder)


def noise(frames=160):
    return torch.randn(1, frames, 64, generator=torch.Generator().manual_seed(1))


def audio(seconds=SECONDS, seed=2):
    return 0.3 * torch.randn(2, round(seconds * 48_000), generator=torch.Generator().manual_seed(seed))


def both(pipelines, prompt="dusty rhodes", lyrics="[verse]\nla la", ours=None, theirs=None, steps=4, **common):
    mine, oracle = pipelines
    expected = oracle(
        prompt=prompt, lyrics=lyrics, num_inference_steps=steps, output_type="latent", **WORDS,
        **{"latents": noise(), "audio_duration": None, **common, **(theirs or {})},
    ).audios  # fmt: skip
    music = mine(
        prompt, lyrics=lyrics, num_inference_steps=steps, **WORDS, **{"noise": noise(), **common, **(ours or {})}
    )
    return music.latents, expected


def close(pair):
    ours, theirs = pair
    assert ours.shape == theirs.shape
    assert theirs.abs().max() > 1, "the comparison must not be of nothing"
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_text2music(turbo, shift):
    close(both(turbo, ours={"duration": SECONDS}, theirs={"audio_duration": SECONDS}, shift=shift))


def test_text2music_with_apg_and_its_interval_mirrored(base):
    close(
        both(
            base, steps=6, shift=1.0,
            ours={"duration": SECONDS, "cfg_scale": 5.0, "cfg_interval": (0.3, 0.9)},
            theirs={
                "audio_duration": SECONDS, "guidance_scale": 5.0, "cfg_interval_start": 0.1, "cfg_interval_end": 0.7,
            },
        )
    )  # fmt: skip


@pytest.mark.parametrize(("start", "end"), [(2.0, 4.0), (0.0, 1.2), (5.0, 6.4)])
def test_repaint_without_injection_and_blend(turbo, start, end):
    source = audio()
    close(
        both(
            turbo, task_type="repaint", src_audio=source,
            ours={"repainting_ranges": [(start, end)], "repaint_injection": 0.0, "repaint_blend_frames": 0},
            theirs={"repainting_start": start, "repainting_end": end},
        )
    )  # fmt: skip


def test_repaint_with_a_reference(turbo, monkeypatch):
    """diffusers takes the start, the second third's start and the end of the reference; ours are drawn by seed."""
    reference = audio(31.0, seed=5)
    thirds = torch.cat(
        [reference[:, :480_000], reference[:, 496_000:976_000], reference[:, -480_000:]], dim=1
    )  # fmt: skip
    monkeypatch.setattr("punchin.engine.tasks.reference_clips", lambda audio, seed: thirds)
    close(
        both(
            turbo, task_type="repaint", src_audio=audio(),
            ours={
                "repainting_ranges": [(2.0, 4.0)], "repaint_injection": 0.0, "repaint_blend_frames": 0,
                "reference_audios": [reference],
            },
            theirs={"repainting_start": 2.0, "repainting_end": 4.0, "reference_audio": reference},
        )
    )  # fmt: skip


@pytest.mark.parametrize("frames", [160, 163])  # 163 frames are no whole number of codes
def test_cover(turbo, frames):
    close(
        both(
            turbo, task_type="cover", src_audio=audio(frames / 25),
            ours={"noise": noise(frames)}, theirs={"latents": noise(frames)},
        )
    )  # fmt: skip


def test_cover_from_codes(turbo):
    codes = request.code_string(torch.randint(64_000, (32,), generator=torch.Generator().manual_seed(3)).tolist())
    close(
        both(
            turbo, ours={"audio_code_string": codes, "task_type": "cover"},
            theirs={"audio_codes": codes, "audio_duration": SECONDS},
        )
    )  # fmt: skip


@pytest.mark.parametrize("task", ["lego", "extract", "complete"])
def test_stem_tasks_on_base(base, task):
    theirs = {"complete_track_classes": ["drums"]} if task == "complete" else {"track_name": "drums"}
    close(
        both(
            base, task_type=task, src_audio=audio(), shift=1.0, ours={"instrument": "drums", "cfg_scale": 4.0},
            theirs={**theirs, "guidance_scale": 4.0},
        )
    )  # fmt: skip


def test_lego_hears_its_region(base):
    source = audio()
    close(
        both(
            base, task_type="lego", src_audio=source, shift=1.0,
            ours={"instrument": "bass", "cfg_scale": 4.0, "repainting_ranges": [(2.0, 4.0)]},
            theirs={
                "track_name": "bass", "guidance_scale": 4.0, "repainting_start": 2.0, "repainting_end": 4.0,
            },
        )
    )  # fmt: skip


def test_the_decoded_audio_too(turbo):
    mine, oracle = turbo
    music = mine("dusty", duration=SECONDS, noise=noise(), num_inference_steps=2)
    with torch.no_grad():
        expected = oracle.vae.decode(music.latents.transpose(1, 2)).sample
    assert music.audio.shape == (1, 2, round(SECONDS * 48_000))
    torch.testing.assert_close(music.audio, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
