"""The texts that ACE-Step 1.5 was trained on: instruction, caption and metas in one prompt, lyrics in another.

Every newline counts. Unknown metas are `N/A`; the templates, instructions and names are the original's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from punchin.protocol import limits
from punchin.protocol.errors import Refused
from punchin.protocol.order import Task

CAPTION_PROMPT: Final = "# Instruction\n{}\n\n# Caption\n{}\n\n# Metas\n{}<|endoftext|>\n"
LYRIC_PROMPT: Final = "# Languages\n{}\n\n# Lyric\n{}<|endoftext|>"
METAS: Final = "- bpm: {}\n- timesignature: {}\n- keyscale: {}\n- duration: {} seconds\n"
INSTRUMENTAL: Final = "[Instrumental]"  # what stands for no lyrics
UNKNOWN: Final = "N/A"
DEFAULT_DURATION_S: Final = 30  # what the prompt says when nobody knows

INSTRUMENTS: Final = (
    "woodwinds", "brass", "fx", "synth", "strings", "percussion",
    "keyboard", "guitar", "bass", "drums", "backing_vocals", "vocals",
)  # fmt: skip
SIGNATURES: Final = ("2", "3", "4", "6")
TASKS: Final[tuple[Task, ...]] = ("text2music", "repaint", "cover", "lego", "extract", "complete")

_INSTRUCTIONS: Final[dict[Task, str]] = {
    "text2music": "Fill the audio semantic mask based on the given conditions:",
    "cover": "Generate audio semantic tokens based on the given conditions:",
    "repaint": "Repaint the mask area based on the given conditions:",
    "extract": "Extract the track from the audio:",
    "lego": "Generate the track based on the audio context:",
    "complete": "Complete the input track:",
}
_NAMED: Final[dict[Task, str]] = {
    "extract": "Extract the {} track from the audio:",
    "lego": "Generate the {} track based on the audio context:",
    "complete": "Complete the input track with {}:",
}
_KEYSCALE: Final = re.compile(r"[A-G](#|b|♯|♭)? (major|minor)")


def instruments(text: str) -> tuple[str, ...]:
    """The instruments that `text` names, comma-separated, in any case. Refused for one that no model knows."""
    names = tuple(name.strip().lower().replace(" ", "_") for name in text.split(",") if name.strip())
    for name in names:
        if name not in INSTRUMENTS:
            raise Refused(f"unknown instrument {name!r}", f"one of: {', '.join(INSTRUMENTS)}", code="instrument")
    return names


def instruction(task: Task, names: Sequence[str] = ()) -> str:
    """What the model is told to do. `names`: one instrument for lego and extract, some for complete, else none."""
    if not names:
        return _INSTRUCTIONS[task]
    if task not in _NAMED:
        raise Refused(f"{task} takes no instrument, {', '.join(names)} was given", code="instrument")
    if task != "complete" and len(names) > 1:
        raise Refused(f"{task} takes one instrument, {len(names)} were given: {', '.join(names)}", code="instrument")
    return _NAMED[task].format(" | ".join(name.upper() for name in names))


def metas(
    bpm: float | None = None,
    keyscale: str | None = None,
    timesignature: str | None = None,
    duration_s: float | None = None,
) -> str:
    """The metadata lines. bpm is rounded to a whole number, duration_s cut to whole seconds (30 when None or 0).

    keyscale like `F# minor`; timesignature is the numerator, `2`, `3`, `4` or `6`. None, empty and `N/A` all say
    `N/A`. Raises OverLimit or Refused for what the model was never told.
    """
    if bpm is not None:
        limits.TEMPO.check(bpm)
    if keyscale not in (None, "", UNKNOWN) and not _KEYSCALE.fullmatch(keyscale or ""):
        raise Refused(f"key {keyscale!r} is not a key", "write it like `C major` or `F# minor`", code="key")
    if timesignature not in (None, "", UNKNOWN, *SIGNATURES):
        raise Refused(f"time signature {timesignature!r}, allowed is {', '.join(SIGNATURES)}", code="signature")
    return METAS.format(
        UNKNOWN if bpm is None else int(bpm + 0.5),
        timesignature or UNKNOWN,
        keyscale or UNKNOWN,
        int(duration_s) if duration_s else DEFAULT_DURATION_S,
    )


def caption_prompt(instruction: str, caption: str, metas: str) -> str:
    """The text whose hidden states the model attends to."""
    return CAPTION_PROMPT.format(instruction if instruction.endswith(":") else f"{instruction}:", caption, metas)


def lyric_prompt(lyrics: str, language: str = "unknown") -> str:
    """The text whose token embeddings the lyric encoder reads. language: an ISO code or `unknown`."""
    return LYRIC_PROMPT.format(language, lyrics)
