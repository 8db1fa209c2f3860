"""What a training shows the model is what inference shows it, task by task; and what a batch adds changes nothing."""

from dataclasses import replace

import checkpoints
import pytest
import torch
from trainingdata import write_songs

from punchin.engine import steering
from punchin.engine.conditioner import Conditioner
from punchin.engine.request import Request
from punchin.training import flow, sources
from punchin.training.batches import Collator
from punchin.training.dataset import Item
from punchin.training.examples import Example, Listener, sound
from punchin.training.objective import Objective
from punchin.training.settings import Settings

SECONDS = 7  # more than the least window, so that nothing is padded
XL = {"encoder_hidden_size": 16, "encoder_intermediate_size": 24, "encoder_num_attention_heads": 2,
      "encoder_num_key_value_heads": 1, "fsq_dim": 16}  # fmt: skip


@pytest.fixture(scope="module", params=["2B", "XL"])
def world(request, tmp_path_factory):
    """A small model of either structure, three recordings, and their examples."""
    root = tmp_path_factory.mktemp("objective")
    folder = checkpoints.write(root / "model", turbo=False, **(XL if request.param == "XL" else {}))
    songs = write_songs(root / "songs", 3, (SECONDS, SECONDS, SECONDS + 3.0))
    settings = Settings(kind="lora", dataset_base_path=str(songs), model=str(folder))
    loaded = sources.load(sources.where(settings), torch.device("cpu"), torch.float32)
    items = [
        Item(audio=songs / "0.wav", prompt="a bell", bpm=92.4, keyscale="F# minor", timesignature="3"),
        Item(audio=songs / "1.wav", prompt="two bells that fall for longer", lyrics="[Verse]\nah"),
        Item(audio=songs / "2.wav", prompt="three"),
    ]
    listener = Listener(loaded, ["text2music", "cover", "repaint"], None)
    return settings, loaded, items, [listener.example(item) for item in items], listener


def finish(stages):
    """The result of a generator of stages."""
    while True:
        try:
            next(stages)
        except StopIteration as end:
            return end.value


def shown_by_inference(loaded, item, x, t, **more):
    """The velocity that inference has at x and t."""
    asked = Request(frames=SECONDS * 48_000, prompt=item.prompt, lyrics=item.lyrics, bpm=item.bpm,
                    keyscale=item.keyscale, timesignature=item.timesignature, **more)  # fmt: skip
    conditioner = Conditioner(loaded)
    with torch.no_grad():
        clean = finish(conditioner.latent(asked.source)) if asked.source is not None else None
        way = finish(steering.branches(asked, clean, 8, conditioner, loaded.silence))[0]
        return loaded.model.decoder.velocity(x, t, way.context, way.condition)


@torch.no_grad()
def shown_by_training(loaded, batch):
    """x, t, and the velocity that the objective takes for it: found from what the loss is of a data that makes it 0."""
    objective, caught = Objective(loaded.model, loaded.silence), []
    real = flow.errors
    try:
        flow.errors = lambda velocity, *rest: caught.append(velocity) or real(velocity, *rest)
        objective(batch)
    finally:
        flow.errors = real
    return flow.noised(batch.data, batch.noise, batch.t), batch.t, caught[0]


@pytest.mark.parametrize("task", ["text2music", "cover", "repaint", "lego"])
@pytest.mark.parametrize("number", [0, 1])
def test_each_task_is_shown_as_inference_shows_it(world, task, number):
    settings, loaded, items, examples, listener = world
    item, example = items[number], examples[number]
    more = {"task": task} if task == "text2music" else {"task": task, "source": sound(item.audio)}
    if task == "lego":  # data with a task and a source of its own
        other = items[1 - number]
        item = replace(item, extra={"task_type": "lego", "src_audio": other.audio, "instrument": "drums"})
        example = listener.example(item)
        more |= {"source": sound(other.audio), "instruments": ("drums",)}
    share = {"cover_share": float(task == "cover"), "repaint_share": float(task == "repaint")}
    batch = Collator(replace(settings, **share), loaded.silence)([example], [5])
    if task == "repaint":
        inside = batch.hole[0].nonzero()[:, 0].tolist()
        assert inside == list(range(inside[0], inside[-1] + 1))
        assert 0.1 * SECONDS * 25 - 1 <= len(inside) <= 0.6 * SECONDS * 25 + 1
        more["regions"] = ((inside[0], inside[-1] + 1),)
    assert bool(batch.coded[0]) == (task == "cover")
    x, t, velocity = shown_by_training(loaded, batch)
    torch.testing.assert_close(velocity, shown_by_inference(loaded, item, x, t, **more), rtol=1e-4, atol=1e-5)
    if task != "text2music":
        plain = Collator(settings, loaded.silence)([examples[number]], [5])
        assert not torch.allclose(shown_by_training(loaded, plain)[2], velocity, atol=1e-4), "the check can fail"


def test_reference_audio_is_heard_as_inference_hears_it(world):
    settings, loaded, items, _, listener = world
    item = replace(items[0], extra={"reference_audios": [items[1].audio, items[2].audio]})
    batch = Collator(settings, loaded.silence)([listener.example(item)], [5])
    x, t, velocity = shown_by_training(loaded, batch)
    references = tuple(sound(each.audio) for each in items[1:])
    want = shown_by_inference(loaded, item, x, t, references=references)
    torch.testing.assert_close(velocity, want, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(want, shown_by_inference(loaded, item, x, t), atol=1e-4)


def test_own_reference_audio_is_a_clip_of_the_item(world):
    settings, loaded, _, examples, _ = world
    collator = Collator(replace(settings, reference_share=1.0), loaded.silence)
    one, other = (collator(examples[:1], [key]).clips for key in (5, 6))
    assert one.shape == (1, 750, 64)
    rows = {tuple(row.tolist()) for row in examples[0].latents}
    assert all(tuple(row.tolist()) in rows for row in one[0])
    assert not torch.equal(one, other), "another place each time"


def test_without_a_condition_it_is_the_unconditional_model(world):
    settings, loaded, _, examples, _ = world
    batch = Collator(replace(settings, condition_dropout=1.0), loaded.silence)([examples[0]], [5])
    assert batch.untold.tolist() == [True]
    x, t, velocity = shown_by_training(loaded, batch)
    context = torch.cat([batch.shown, batch.mask[..., None].expand_as(batch.shown)], -1)
    with torch.no_grad():
        nothing = Conditioner(loaded).unconditional()
        torch.testing.assert_close(
            velocity, loaded.model.decoder.velocity(x, t, context, nothing), rtol=1e-4, atol=1e-5
        )
    told = Collator(replace(settings, condition_dropout=0.25), loaded.silence)
    share = sum(bool(told([examples[0]], [key]).untold) for key in range(400)) / 400
    assert share == pytest.approx(0.25, abs=0.07)


@pytest.mark.parametrize("share", [{}, {"cover_share": 1.0}, {"repaint_share": 1.0}, {"reference_share": 1.0}])
def test_a_neighbour_in_the_batch_changes_nothing(world, share):
    """Prompts of different length: what pads them is masked."""
    settings, loaded, _, examples, _ = world
    collator, objective = Collator(replace(settings, **share), loaded.silence), Objective(loaded.model, loaded.silence)
    with torch.no_grad():
        alone = [float(objective(collator([each], [key]))) for key, each in enumerate(examples[:2])]
        both = objective.errors(collator(examples[:2], [0, 1]))
    assert both.tolist() == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_what_pads_a_shorter_item_is_silence_and_does_not_count(world, share):
    settings, loaded, _, examples, _ = world
    collator, objective = Collator(replace(settings, cover_share=share), loaded.silence), Objective(
        loaded.model, loaded.silence)  # fmt: skip
    batch = collator([examples[0], examples[2]], [0, 1])
    length, longer = (len(examples[n].latents) for n in (0, 2))
    assert (length, longer) == (SECONDS * 25, (SECONDS + 3) * 25)
    assert batch.counts.sum(1).tolist() == [length, longer]
    silence = loaded.silence[0, length:longer]
    shown = objective._shown(batch)[0, length:]
    torch.testing.assert_close(shown, silence, msg="padding is shown as silence, not as the codes of it")
    torch.testing.assert_close(batch.data[0, length:], silence)
    spoilt = replace(batch, data=batch.data.clone())
    spoilt.data[0, length:] += 9.0
    velocity = torch.zeros_like(batch.data)
    kept, wrong = (flow.errors(velocity, b.data, b.noise, b.weights, b.counts) for b in (batch, spoilt))
    assert torch.equal(kept, wrong)


def test_what_pads_an_item_is_noised_like_the_rest(world):
    """In a batch with a longer item, and in the least window: as inference begins, with a window of noise."""
    settings, loaded, _, examples, _ = world
    collator, length = Collator(settings, loaded.silence), len(examples[0].latents)
    alone, mixed = collator([examples[0]], [4]), collator([examples[0], examples[2]], [4, 5])
    assert torch.equal(mixed.noise[0, :length], alone.noise[0]), "the item's own noise is what it was"
    padding = mixed.noise[0, length:]
    assert padding.std(0).min() > 0.5
    assert padding.mean() == pytest.approx(0, abs=0.1)
    short = replace(examples[0], latents=examples[0].latents[:50])
    least, wider = collator([short], [4]).noise[0], collator([short, examples[2]], [4, 5]).noise[0]
    assert len(least) == 128
    assert least[50:].std(0).min() > 0.5
    assert torch.equal(wider[:128], least), "a neighbour changes no noise"


def test_every_seed_has_noise_of_its_own_and_validation_always_the_same(world):
    settings, loaded, _, examples, _ = world
    seeds = [0, 1, 2, 2**24, 2**32 - 1]
    collators = [Collator(replace(settings, seed=seed), loaded.silence) for seed in seeds]
    drawn = [each(examples[:1], [5]).noise for each in collators]
    assert all(not torch.equal(a, b) for n, a in enumerate(drawn) for b in drawn[:n])
    fixed = [each.at(examples[:1], 0.5, 5).noise for each in collators]
    assert all(torch.equal(fixed[0], each) for each in fixed[1:])


def test_outside_the_hole_a_repaint_counts_less(world):
    settings, loaded, _, examples, _ = world
    batch = Collator(replace(settings, repaint_share=1.0), loaded.silence)([examples[0]], [5])
    assert set(batch.counts[0][batch.hole[0]].tolist()) == {1.0}
    assert batch.counts[0][~batch.hole[0]].unique().tolist() == pytest.approx([0.2])
    assert torch.equal(batch.mask[0], batch.hole[0].float())


def test_an_example_comes_back_from_its_file(world, tmp_path):
    items, listener = world[2], world[4]
    extra = {"task_type": "cover", "src_audio": items[1].audio, "reference_audios": [items[2].audio]}
    made = listener.example(replace(items[0], extra=extra))
    made.save(tmp_path / "it.safetensors")
    back = Example.load(tmp_path / "it.safetensors")
    assert (back.task, list(back.captions)) == ("cover", ["cover"])
    for name in ("latents", "lyrics", "source"):
        assert torch.equal(getattr(back, name), getattr(made, name))
    assert torch.equal(back.references[0], made.references[0])
