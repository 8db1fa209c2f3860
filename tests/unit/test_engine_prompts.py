"""Prompts are the original's, letter by letter."""

import itertools

import pytest

from punchin.engine import prompts
from punchin.protocol.errors import OverLimit, Refused


@pytest.fixture(scope="module")
def oracle():
    from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline

    return AceStepPipeline


def test_a_whole_prompt_as_written_in_the_training_data():
    text = prompts.caption_prompt(
        prompts.instruction("repaint"), "dusty rhodes", prompts.metas(97.35, "F# minor", "4", 29.96)
    )
    assert text == (
        "# Instruction\nRepaint the mask area based on the given conditions:\n\n# Caption\ndusty rhodes\n\n# Metas\n"
        "- bpm: 97\n- timesignature: 4\n- keyscale: F# minor\n- duration: 29 seconds\n<|endoftext|>\n"
    )


@pytest.mark.parametrize("task", prompts.TASKS)
def test_instructions_equal_diffusers(oracle, task):
    assert prompts.instruction(task) == oracle._get_task_instruction(task)
    if task in ("extract", "lego"):
        assert prompts.instruction(task, ["backing_vocals"]) == oracle._get_task_instruction(task, "backing_vocals")
    if task == "complete":
        names = ["drums", "bass"]
        assert prompts.instruction(task, names) == oracle._get_task_instruction(task, complete_track_classes=names)


def test_metas_and_prompts_equal_diffusers(oracle):
    for bpm, key, signature, seconds in itertools.product(
        (None, 30, 97, 300), (None, "", "C major", "B♭ minor"), (None, "", "3"), (None, 0, 0.9, 29.99, 600)
    ):
        ours = prompts.metas(bpm, key, signature, seconds)
        assert ours == oracle._build_metadata_string(bpm, key, signature, seconds)
        text, lyrics = oracle._format_prompt(
            oracle, "a caption", "[verse]\nla", "en", seconds, "Do this", bpm, key, signature
        )
        assert prompts.caption_prompt("Do this", "a caption", ours) == text
        assert prompts.lyric_prompt("[verse]\nla", "en") == lyrics


def test_fractional_tempo_is_rounded_to_nearest():
    assert [prompts.metas(bpm).split("\n")[0] for bpm in (96.5, 97.35, 97.5, 30.0)] == [
        "- bpm: 97", "- bpm: 97", "- bpm: 98", "- bpm: 30",
    ]  # fmt: skip


def test_bad_words_are_refused_with_what_is_allowed():
    with pytest.raises(OverLimit, match="tempo is 29 bpm, allowed is 30 to 300"):
        prompts.metas(29)
    with pytest.raises(Refused, match="key 'H moll'"):
        prompts.metas(keyscale="H moll")
    with pytest.raises(Refused, match="allowed is 2, 3, 4, 6"):
        prompts.metas(timesignature="5")
    with pytest.raises(Refused, match="unknown instrument 'kazoo'") as caught:
        prompts.instruments("drums, kazoo")
    assert "backing_vocals" in caught.value.hint
    with pytest.raises(Refused, match="repaint takes no instrument"):
        prompts.instruction("repaint", ["drums"])
    with pytest.raises(Refused, match="takes one instrument, 2 were given"):
        prompts.instruction("lego", ["drums", "bass"])
    assert prompts.instruments("Backing Vocals, DRUMS") == ("backing_vocals", "drums")
