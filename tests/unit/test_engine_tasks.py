"""What repaint keeps, where a cover lets go, what strength means: by definition, and against loops written out here."""

import itertools

import checkpoints
import pytest
import torch

from punchin.engine import tasks, tiny
from punchin.engine.condition import Tokens
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.prompts import caption_prompt, instruction, lyric_prompt, metas
from punchin.engine.request import Request
from punchin.training.recipes import bands
from punchin.training.recipes.figures import measure
from punchin.training.recipes.songs import HELD_OUT

FRAMES = 150
SAMPLES = FRAMES * 1920


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    return AceStepPipeline.from_pretrained(checkpoints.write(tmp_path_factory.mktemp("model")))


def audio(samples=SAMPLES, seed=2):
    return 0.3 * torch.randn(2, samples, generator=torch.Generator().manual_seed(seed))


def noise(frames=FRAMES, seed=1):
    return torch.randn(1, frames, 64, generator=torch.Generator().manual_seed(seed))


def encoded(pipeline, samples):
    with torch.no_grad():  # in one piece as the pipeline does: another tile would round otherwise
        return pipeline.loaded.vae.encode(samples[None], tile=168).mean


def drained(stages):
    while True:
        try:
            next(stages)
        except StopIteration as end:
            return end.value


def times(steps, shift=3.0):
    return [shift * u / (1 + (shift - 1) * u) for u in (1 - i / steps for i in range(steps))]


def condition(pipeline, task, prompt):
    model, text = pipeline.loaded.model, pipeline.loaded.text

    def tokens(states):
        return Tokens(states, torch.ones(states.shape[:2], dtype=torch.bool))

    words = caption_prompt(instruction(task), prompt, metas(duration_s=SAMPLES / 48_000))
    silence = pipeline.loaded.silence[:, :750]
    both = tokens(text.caption(words)), tokens(text.lyrics(lyric_prompt("[Instrumental]")))
    return model.encoder(*both, silence, torch.zeros(1, dtype=torch.long)).states


@pytest.mark.parametrize("strength", [0.0, 0.3, 0.5, 0.99, 1.0])
@torch.no_grad()
def test_a_cover_follows_its_source_for_a_part_of_the_steps_and_then_is_text2music(pipeline, strength):
    source, steps, model = audio(), 4, pipeline.loaded.model
    latent, silence = encoded(pipeline, source), pipeline.loaded.silence[:, :FRAMES]
    heard = model.detokenizer(model.tokenizer(latent).states)[:, :FRAMES]  # 150 frames are 30 whole codes
    ones = torch.ones_like(latent)
    x, schedule = noise(), times(steps)
    for step, t in enumerate(schedule):
        follows = step < int(steps * strength)
        context = torch.cat([heard if follows else silence, ones], dim=-1)
        told = condition(pipeline, "cover" if follows else "text2music", "dusty")
        x = x + ([*schedule, 0.0][step + 1] - t) * model.decoder(x, torch.tensor([t]), context, told)
    music = pipeline(
        "dusty", task_type="cover", src_audio=source, audio_cover_strength=strength, noise=noise(),
        num_inference_steps=steps,
    )  # fmt: skip
    torch.testing.assert_close(music.latents, x, rtol=0, atol=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.4, 1.0])
@torch.no_grad()
def test_repaint_leads_back_to_the_source_outside(pipeline, strength):
    """As DiffSynth: outside, and by 1 - strength inside, the velocity is the one towards the source."""
    source, steps, model = audio(), 4, pipeline.loaded.model
    latent, silence = encoded(pipeline, source), pipeline.loaded.silence[:, :FRAMES]
    inside = torch.zeros(1, FRAMES, 1)
    inside[:, 50:100] = 1
    shown = latent * (1 - inside * strength) + silence * inside * strength
    context = torch.cat([shown, inside.expand(-1, -1, 64)], dim=-1)
    told = condition(pipeline, "repaint", "dusty")
    x, schedule = noise(), times(steps)
    for step, t in enumerate(schedule):
        v = model.decoder(x, torch.tensor([t]), context, told)
        v = inside * strength * v + (1 - inside * strength) * (x - latent) / t
        x = x + ([*schedule, 0.0][step + 1] - t) * v
    music = pipeline(
        "dusty", task_type="repaint", src_audio=source, repainting_ranges=[(2.0, 4.0)], noise=noise(),
        repainting_strength=strength, repaint_blend_frames=0, num_inference_steps=steps,
    )  # fmt: skip
    torch.testing.assert_close(music.latents, x, rtol=0, atol=1e-4)
    outside = inside[0, :, 0] == 0
    assert torch.equal(music.latents[:, outside], latent[:, outside]), "outside the latent is the source's, bit by bit"


def test_outside_the_latent_is_the_source_noised_anew_at_each_step(pipeline):
    source = noise(seed=3)
    share = torch.zeros(1, FRAMES, 1)
    schedule = times(5)
    x = noise()
    velocity = tasks.held(
        lambda x, t: 1000 * torch.ones_like(x),
        tasks.Hold(source, share, torch.ones(1, FRAMES, 1), 1.0, False),
        schedule,
    )
    for t, after in zip(schedule, [*schedule[1:], 0.0], strict=True):
        x = x + (after - t) * velocity(x, t)
        torch.testing.assert_close(x, after * noise() + (1 - after) * source, rtol=0, atol=1e-5)


def test_injection_for_a_part_of_the_steps_then_a_blend(pipeline):
    """The original's balanced mode: held for half of the steps, free afterwards, blended at the end."""
    source, latent = audio(), encoded(pipeline, audio())
    common = {
        "prompt": "dusty", "task_type": "repaint", "src_audio": source, "repainting_ranges": [(2.0, 4.0)],
        "noise": noise(), "num_inference_steps": 4,
    }  # fmt: skip
    half = pipeline(**common, repaint_injection=0.5, repaint_blend_frames=10).latents
    raw = pipeline(**common, repaint_injection=0.0, repaint_blend_frames=0).latents
    assert torch.equal(half[:, :40], latent[:, :40])
    assert torch.equal(half[:, 110:], latent[:, 110:])
    assert (half[:, 50:100] - raw[:, 50:100]).abs().max() > 1e-3, "what was held is heard inside too"
    blended = pipeline(**common, repaint_injection=0.0, repaint_blend_frames=10).latents
    ramp = torch.arange(1, 11) / 11
    for frame, weight in [*zip(range(40, 50), ramp, strict=True), *zip(range(109, 99, -1), ramp, strict=True)]:
        expected = weight * raw[:, frame] + (1 - weight) * latent[:, frame]
        torch.testing.assert_close(blended[:, frame], expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(blended[:, 50:100], raw[:, 50:100])


def test_injection_outside_changes_no_strength_inside(pipeline):
    """The source is put back outside for all steps or for none: what is inside, at half its strength, is as far off."""
    source, latent = audio(), encoded(pipeline, audio())
    common = {
        "prompt": "dusty", "task_type": "repaint", "src_audio": source, "repainting_ranges": [(2.0, 4.0)],
        "noise": noise(), "num_inference_steps": 8, "repainting_strength": 0.5,
    }  # fmt: skip
    whole, nearly, free = (pipeline(**common, repaint_injection=each).latents for each in (1.0, 0.99, 0.0))
    torch.testing.assert_close(nearly[:, 50:100], whole[:, 50:100], rtol=0, atol=1e-5)
    far = [float((each[:, 50:100] - latent[:, 50:100]).norm()) for each in (whole, free)]
    full = pipeline(**{**common, "repainting_strength": 1.0}, repaint_injection=0.0).latents
    assert far[1] < 0.45 * float((full[:, 50:100] - latent[:, 50:100]).norm()), "led in each step, not mixed at the end"
    assert torch.equal(free[:, :38], latent[:, :38]), "blended at the end"
    for injection in (1.0, 0.5, 0.0):
        kept = pipeline(**{**common, "repainting_strength": 0.0}, repaint_injection=injection).latents
        assert torch.equal(kept, latent), "nothing of the model"


@pytest.mark.parametrize("blend", [0, 12])
def test_below_full_strength_no_injection_keeps_the_rest(pipeline, blend):
    source, latent = audio(), encoded(pipeline, audio())
    for strength in (0.0, 0.5):
        kept = pipeline(
            "dusty", task_type="repaint", src_audio=source, repainting_ranges=[(2.0, 4.0)], noise=noise(),
            num_inference_steps=2, repainting_strength=strength, repaint_injection=0.0, repaint_blend_frames=blend,
        ).latents  # fmt: skip
        assert torch.equal(kept[:, :38], latent[:, :38])
        assert torch.equal(kept, latent) is (strength == 0)


def test_what_was_never_music_is_the_models_at_any_strength():
    request = Request(
        task="repaint", frames=SAMPLES, source=audio(), regions=((100, FRAMES),), blank=(0, 30),
        repainting_strength=0.25, repaint_blend_frames=0,
    )  # fmt: skip
    hold = tasks.hold(request, noise())
    assert hold is not None
    assert hold.strength[0, :, 0].tolist() == [0.25] * (FRAMES - 30) + [1.0] * 30


def test_soft_edges_stay_inside_the_window_and_between_ranges():
    mask = torch.tensor([0, 1, 1, 0, 0, 1, 0.0])
    expected = torch.tensor([1 / 2, 1, 1, 2 / 3, 2 / 3, 1, 1 / 2])
    torch.testing.assert_close(tasks.soft_edges(mask, 2), expected)
    assert tasks.runs(mask) == [(1, 3), (5, 6)]
    assert tasks.runs(torch.ones(4)) == [(0, 4)]


def test_masks_are_explicit_and_silence_is_of_the_same_time(pipeline):
    silence = torch.arange(900.0)[None, :, None].expand(1, 900, 64)
    shown = -torch.ones(1, FRAMES, 64)
    repaint = Request(task="repaint", frames=SAMPLES, source=audio(), regions=((10, 20), (30, 40)))
    context = tasks.context(repaint, shown, silence)
    source, mask = context[0, :, 0], context[0, :, 64]
    assert mask.unique().tolist() == [0, 1]
    assert mask.nonzero().flatten().tolist() == [*range(10, 20), *range(30, 40)]
    assert source[10:20].tolist() == list(range(10, 20))
    assert source[:10].unique().tolist() == [-1]
    lego = Request(task="lego", frames=SAMPLES, source=audio(), regions=((10, 20),))
    assert tasks.context(lego, shown, silence)[0, :, 0].unique().tolist() == [-1], "lego hears its region"
    auto = Request(task="repaint", frames=SAMPLES, source=audio(), regions=((10, 20),), mask_mode="auto")
    assert tasks.context(auto, shown, silence)[0, :, 64].unique().tolist() == [2]


def test_a_short_source_is_continued_with_silence_outside_the_mask_and_cut_back(pipeline):
    source = audio(50 * 1920 - 700)
    request = Request(task="repaint", frames=source.shape[1], source=source, regions=((20, 50),))
    assert request.latents == 128
    assert tasks.region_mask(request)[50:].sum() == 0
    music = pipeline(
        "dusty", task_type="repaint", src_audio=source, repainting_ranges=[(0.8, -1)], num_inference_steps=2
    )
    assert music.audio.shape == (1, 2, source.shape[1])
    torch.testing.assert_close(music.latents[:, 100:], pipeline.loaded.silence[:, 100:128], rtol=0, atol=1e-5)


def test_silence_is_repeated_from_its_start_where_it_is_too_short():
    silence = torch.arange(4.0)[None, :, None]
    assert tasks.silence_for(silence, 10).flatten().tolist() == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert tasks.padded(-torch.ones(1, 2, 1), silence, 5).flatten().tolist() == [-1, -1, 2, 3, 0]


def test_reference_clips_come_from_each_third_by_seed():
    reference = torch.arange(60 * 48_000, dtype=torch.float32).expand(2, -1)
    clips = tasks.reference_clips(reference, 3)
    assert clips.shape == (2, 30 * 48_000)
    starts = clips[0, :: 10 * 48_000].tolist()
    for number, start in enumerate(starts):
        assert number * 20 * 48_000 <= start <= (number + 1) * 20 * 48_000 - 10 * 48_000
        piece = clips[0, number * 480_000 : (number + 1) * 480_000]
        assert torch.equal(piece, reference[0, int(start) : int(start) + 480_000])
    assert torch.equal(tasks.reference_clips(reference, 3), clips)
    assert not torch.equal(tasks.reference_clips(reference, 4), clips)
    short = torch.arange(48_000, dtype=torch.float32).expand(2, -1)
    assert tasks.reference_clips(short, 0).shape == (2, 30 * 48_000)


@pytest.fixture(scope="module")
def follower(tmp_path_factory):
    """A model that goes where its context points: its velocity is (x - shown) over the root mean square of that."""
    folder = checkpoints.write(tmp_path_factory.mktemp("follower"), hidden_size=128, fsq_dim=128, num_hidden_layers=2)
    pipeline = AceStepPipeline.from_pretrained(folder)
    decoder = pipeline.loaded.model.decoder
    for module in (*decoder.layers, decoder.time_embed, decoder.time_embed_r):
        for parameter in module.parameters():
            parameter.data.zero_()
    decoder.scale_shift_table.data.zero_()
    decoder.norm_out.weight.data.fill_(1)
    first, last = decoder.proj_in[1], decoder.proj_out[1]
    for layer in (first, last):
        layer.weight.data.zero_()
        layer.bias.data.zero_()
    for tap in range(2):
        for channel in range(64):
            first.weight.data[64 * tap + channel, 128 + channel, tap] = 1
            first.weight.data[64 * tap + channel, channel, tap] = -1
            last.weight.data[64 * tap + channel, channel, tap] = 1
    return pipeline


@pytest.mark.parametrize("task", ["repaint", "cover"])
def test_more_strength_leads_farther_from_the_source(follower, task):
    source = audio()
    latent = encoded(follower, source)
    region = slice(50, 100) if task == "repaint" else slice(0, FRAMES)
    distances = []
    for strength in (0, 0.25, 0.5, 0.75, 1):
        options = (
            {"regions": ((50, 100),), "repainting_strength": strength}
            if task == "repaint"
            else {"audio_cover_strength": 1 - strength, "cover_mode": "latent"}
        )
        total = 0.0
        for first in (0, 10):
            request = Request(
                task=task, frames=SAMPLES, source=source, seeds=tuple(range(first, first + 10)),
                num_inference_steps=4, wanted=(0, 1920), **options,
            )  # fmt: skip
            latents = drained(follower.stages(request)).latents
            total += float((latents - latent)[:, region].square().mean((1, 2)).sqrt().sum())
        distances.append(total / 20)
    assert all(b > a for a, b in itertools.pairwise(distances)), distances


def test_repaint_at_strength_zero_is_the_round_trip_of_the_autoencoder(pipeline):
    source = audio()
    music = pipeline(
        "dusty", task_type="repaint", src_audio=source, repainting_ranges=[(2.0, 4.0)], repainting_strength=0.0,
        num_inference_steps=3,
    )  # fmt: skip
    with torch.no_grad():
        expected = pipeline.loaded.vae.decode(encoded(pipeline, source))
    torch.testing.assert_close(music.audio, expected, rtol=0, atol=1e-5)


def tones():
    """Three tones, struck every half a second, and what is said of them."""
    beat = torch.arange(SAMPLES) / 48_000
    struck = sum(torch.sin(2 * torch.pi * hz * beat) for hz in (220.0, 277.2, 329.6))
    sound = (0.1 * struck * torch.exp(-6 * (beat % 0.5))).expand(2, -1).contiguous()
    return sound, {"prompt": "electric piano chords"}


def part(number, stem=None):
    """One stem, or the mix, of a song that the shipped weights never heard, and what a session says of it."""
    score = measure.songs(HELD_OUT + number, 1)[0].score
    sound = next(measure.rendered([score], SAMPLES / 48_000, "cpu", [stem] if stem else ()))
    return sound, {"prompt": f"{score.genre.name}, electric piano", "bpm": score.bpm, "keyscale": score.key}


ALL, LEVELS = slice(None), slice(-bands.COUNT, None)  # of latents
SOURCES = {
    "repaint": ("repaint", tones, ALL),
    "cover of chords": ("cover", lambda: part(1, "chords"), ALL),
    "cover of a lead": ("cover", lambda: part(2, "lead"), ALL),
    "cover of drums": ("cover", lambda: part(3, "drums"), ALL),
    # The phases of a whole mix do not fit into a code's 16 bits: they are made up, more of them where it follows more.
    "cover of a mix": ("cover", lambda: part(0), LEVELS),
    "cover of another mix": ("cover", lambda: part(5), LEVELS),
}


@pytest.mark.nightly
@pytest.mark.parametrize("name", SOURCES)
def test_more_strength_leads_farther_on_the_shipped_weights_too(name):
    pipeline = AceStepPipeline.from_pretrained(tiny.ready())
    task, made, channels = SOURCES[name]
    source, said = made()
    latent = drained(pipeline.conditioner.latent(source))
    region = slice(50, 100) if task == "repaint" else slice(0, FRAMES)
    means = []
    for strength in (0, 0.25, 0.5, 0.75, 1):
        options = (
            {"regions": ((50, 100),), "repainting_strength": strength}
            if task == "repaint"
            else {"audio_cover_strength": 1 - strength}
        )
        total = 0.0
        for first in (0, 10):
            request = Request(
                task=task, frames=SAMPLES, source=source, seeds=tuple(range(first, first + 10)), wanted=(0, 1920),
                **said, **options,
            )  # fmt: skip
            latents = drained(pipeline.stages(request)).latents[:, :FRAMES]
            total += float((latents - latent)[:, region, channels].square().mean((1, 2)).sqrt().sum())
        means.append(total / 20)
    assert all(b > a for a, b in itertools.pairwise(means)), means
