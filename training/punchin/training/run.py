"""`full` and `lora`: settings to a training, data made ready first. The one place where the parts of it meet."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import torch
from accelerate import PartialState
from accelerate.utils import gather_object

from punchin.engine import prompts
from punchin.engine.model import AceStep
from punchin.engine.pipeline import AceStepPipeline
from punchin.engine.released import Loaded
from punchin.engine.text import CAPTION_TOKENS, LYRIC_TOKENS
from punchin.protocol.errors import BadUsage, Cancelled, Refused
from punchin.protocol.limits import PROMPT, REGION
from punchin.protocol.order import Task
from punchin.session import audiofile
from punchin.training import adapters, dataset, outputs, sources, state
from punchin.training.console import Line, length
from punchin.training.dataset import Item
from punchin.training.examples import Listener, cuts_channels
from punchin.training.settings import Settings, out
from punchin.training.supply import NAMED, Processed, Recordings, Shelf, processed, there, usable
from punchin.training.trainer import Trainer, held_out, parts_in_eighths

VISIBLE: Final = os.environ.get("CUDA_VISIBLE_DEVICES")  # as it was given to this process; set below
HALF: Final = {"cuda": torch.bfloat16, "cpu": torch.float32}  # in which frozen weights are kept


def train(settings: Settings, line: Line, stop: Callable[[], bool], device: Callable[[], None] = lambda: None) -> None:
    """Do what `task` says: train, write processed examples, or train on those.

    device: called once all that needs no device is checked. Raises Cancelled where `stop` says so.
    """
    began, processes = time.monotonic(), _processes(settings)
    if settings.task != "sft:data_process":
        outputs.check(settings)
    say, show = (line.say, line.show) if processes.is_main_process else [lambda text: None] * 2
    together = partial(_any, stop)
    items = _items(settings, say, together)  # before the model: a wrong path shows at once
    apart = _apart(settings, say, together)
    place = sources.where(settings)
    adapters.check(sources.outline(place), settings)
    if settings.task != "sft:data_process":
        parts_in_eighths(settings, place.folders.dit)
        _check_sample(settings, place)
        if items is not None:
            held_out(settings, len(items))
    device()
    if together():
        raise Cancelled("stopped before the model was read; nothing was written")
    loaded = _loaded(settings, place, processes)
    listener = _listener(settings, loaded)
    _tell_cut(items or [], listener, say)
    if settings.task == "sft:data_process":
        assert items is not None
        with _alone(settings, processes):
            process_data(settings, items, loaded, line, stop, processes.process_index, processes.num_processes)
    else:
        shelf = _shelf(settings, items, loaded, listener)
        numbers = usable(shelf, skip_bad=settings.skip_bad, say=say, stop=together, show=show)
        trainer = Trainer(settings, loaded, shelf, numbers, line)
        trainer.validation = [shelf[number] for number in trainer.held]
        if apart:
            beside = Recordings(apart, listener)
            good = usable(beside, skip_bad=settings.skip_bad, say=say, stop=together, show=show)
            trainer.validation = [beside[number] for number in good]
        say(f"{len(numbers) - len(trainer.held)} items, {trainer.total:.0f} steps, {_size(trainer)} weights trained")
        first = listener.read_whole(replace(items[numbers[0]], extra={})) if items else None  # played from its words
        with _alone(settings, processes):
            trainer.run(together, lambda step: sample(settings, loaded, first, step))
    say(f"{out(settings)}: done in {length(time.monotonic() - began)}")


def _any(stop: Callable[[], bool]) -> bool:
    """Whether `stop` is true in any process: they end after the same step, else one would wait for ever.

    Every process must ask equally often.
    """
    return any(gather_object([stop()]))


def _alone(settings: Settings, processes: PartialState) -> AbstractContextManager[None]:
    """The output folder for this training; the first of its processes holds it for all."""
    return state.alone(out(settings)) if processes.is_main_process else nullcontext()


def ready(
    settings: Settings, device: Callable[[AceStep], None] = lambda outline: None,
    say: Callable[[str], None] = lambda text: None, stop: Callable[[], bool] = lambda: False,
) -> tuple[list[Item], Loaded]:  # fmt: skip
    """Dataset and model, as they are. Raises Cancelled for `stop`.

    device: called before the model is read, with its layers and their shapes, on the meta device.
    """
    processes = _processes(settings)
    items = there(_read(settings, settings.dataset_metadata_path, say), skip_bad=settings.skip_bad, say=say, stop=stop)
    place = sources.where(settings)
    parts_in_eighths(settings, place.folders.dit)
    device(sources.outline(place))
    return items, _loaded(settings, place, processes)


def _processes(settings: Settings) -> PartialState:
    """Which process this is of those that train together. `device`: cpu, cuda, or cuda:N for a single one."""
    kind, numbered, number = (settings.device or "cuda").partition(":")
    if kind not in HALF or (kind == "cpu" and numbered):
        raise BadUsage(f"device is {settings.device}; a training runs on cuda, cuda:N or cpu", "`--device cpu`")
    if numbered:
        os.environ["CUDA_VISIBLE_DEVICES"] = _chosen(number, VISIBLE)  # accelerate takes the first that it sees
    if settings.device is not None and kind == "cuda" and not torch.cuda.is_available():
        raise BadUsage(f"device is {settings.device}, and this machine has none that torch can use", "`--device cpu`")
    return PartialState(cpu=kind == "cpu" or not torch.cuda.is_available())


def _chosen(number: str, visible: str | None) -> str:
    """What CUDA_VISIBLE_DEVICES says for `cuda:NUMBER`: that one of those that are visible, where it names some."""
    if not number.isdecimal():
        raise BadUsage(f"device is cuda:{number}, and must be a number", "for example `--device cuda:1`")
    if visible is None:
        return number
    named = [each.strip() for each in visible.split(",") if each.strip()]
    if int(number) >= len(named):
        few = f"CUDA_VISIBLE_DEVICES is {visible!r}: {len(named)} devices, counted from 0"
        raise BadUsage(f"device is cuda:{number}, and {few}", "give a lower number, or name more devices there")
    return named[int(number)]


def _loaded(settings: Settings, place: sources.Where, processes: PartialState) -> Loaded:
    """The model. `initialize_model_on_cpu`: read there first, for machines where the GPU is short while reading."""
    device = torch.device(str(processes.device))
    return sources.load(place, device, HALF[device.type], first_on_cpu=settings.initialize_model_on_cpu)


def _items(settings: Settings, say: Callable[[str], None], stop: Callable[[], bool]) -> list[Item] | None:
    """The dataset; None for `sft:train` without metadata, which reads processed examples.

    `sft:data_process` keeps bad items in the list, for its numbers to stay what they are once those are repaired.
    """
    if settings.task == "sft:train" and settings.dataset_metadata_path is None:
        return None
    items = _read(settings, settings.dataset_metadata_path, say)
    good = there(items, skip_bad=settings.skip_bad, say=say, stop=stop)
    return items if settings.task == "sft:data_process" else good


def _apart(settings: Settings, say: Callable[[str], None], stop: Callable[[], bool]) -> list[Item]:
    """What `validation_metadata_path` holds out; nothing where it is not told, or nothing is trained."""
    if settings.validation_metadata_path is None or settings.task == "sft:data_process":
        return []
    items = _read(settings, settings.validation_metadata_path, say)
    return there(items, skip_bad=settings.skip_bad, say=say, stop=stop)


def _check_sample(settings: Settings, place: sources.Where) -> None:
    """Raise OverLimit where `sample_prompt` is longer than what is read: the first sample would, hours later."""
    if settings.sample_prompt and settings.sample_steps is not None:
        metas = prompts.metas(None, None, None, settings.sample_duration)
        words = prompts.caption_prompt(prompts.instruction("text2music"), settings.sample_prompt, metas)
        PROMPT.check(sources.text(place).length(words), "say `--sample_prompt` in fewer words")


def _tell_cut(items: Sequence[Item], listener: Listener, say: Callable[[str], None]) -> None:
    """Say which items are read or heard in part."""
    unread = "their ends are not read"
    for what, is_so in (
        (f"prompts are over {CAPTION_TOKENS} tokens; {unread}, nor bpm, time signature and key after them",
         listener.cuts_prompt),
        (f"lyrics are over {LYRIC_TOKENS} tokens; {unread}", listener.cuts_lyrics),
        (f"recordings are over {REGION.high:g} s; their ends are not heard", listener.cuts_audio),
        ("recordings have more than two channels; the first two are heard", cuts_channels),
    ):  # fmt: skip
        cut = [item.audio.name for item in items if is_so(item)]
        if cut:
            who = ", ".join(cut[:NAMED]) + (f" and {len(cut) - NAMED} more" if len(cut) > NAMED else "")
            say(f"{len(cut)} of {len(items)} {what}: {who}")


def _read(settings: Settings, metadata: str | None, say: Callable[[str], None]) -> list[Item]:
    base = Path(settings.dataset_base_path).expanduser()
    keys, extra = (_listed(each) for each in (settings.data_file_keys, settings.extra_inputs))
    files = [*keys, *(name for name in extra if name in ("reference_audios", "src_audio"))]
    return dataset.read(base, None if metadata is None else Path(metadata).expanduser(), files, extra, say)


def _listed(given: str | None) -> list[str]:
    return [each.strip() for each in (given or "").split(",") if each.strip()]


def _shelf(settings: Settings, items: Sequence[Item] | None, loaded: Loaded, listener: Listener) -> Shelf:
    if items is None:
        return Processed(Path(settings.dataset_base_path).expanduser(), loaded.text.width, _used(settings))
    return Recordings(items, listener)


def _listener(settings: Settings, loaded: Loaded) -> Listener:
    return Listener(loaded, _used(settings), settings.max_audio_duration)


def _used(settings: Settings) -> list[Task]:
    """The tasks whose prompts the training may draw for an item that asks for none."""
    used: list[Task] = ["text2music"]
    if settings.cover_share:
        used.append("cover")
    if settings.repaint_share:
        used.append("repaint")
    return used


def _size(trainer: Trainer) -> str:
    count = sum(p.numel() for p in trainer.parameters.values())
    return f"{count / 1e6:.1f} M" if count >= 1e6 else f"{count:,}"


def process_data(
    settings: Settings, items: Sequence[Item], loaded: Loaded, line: Line, stop: Callable[[], bool], process: int,
    processes: int,
) -> None:  # fmt: skip
    """Write `output_path/PROCESS/NUMBER.safetensors` for each item.

    What is there is kept, whichever process wrote it, unless audio, metadata, options or model have changed since:
    then it is made anew, or removed where the item is skipped. Raises Cancelled between two items where `stop` says so.
    """
    listener, folder, bad, anew = _listener(settings, loaded), out(settings), 0, 0
    before = _before(folder)
    if process == 0:
        _remove_later(before, len(items), line.say)
    for number, item in list(enumerate(items))[process::processes]:
        if stop():
            raise Cancelled(f"stopped after item {number} of {len(items)}; the same command goes on")
        try:
            made_of = listener.made_of(item)
            if _kept(before[number], made_of):
                continue
            anew += bool(before[number])
            listener.example(item).save(folder / str(process) / f"{number}.safetensors", made_of)
        except Refused as error:
            if not settings.skip_bad:
                raise
            for path in before[number]:
                path.unlink(missing_ok=True)  # else it would be trained on
            bad += 1
            line.say(f"skipped: {error}")
        line.show(f"processed {number + 1} of {len(items)}", now=number + 1 == len(items))
    if anew:
        line.say(f"{anew} of {len(items)} were made of other audio, metadata, options or model; they are made anew")
    if bad:
        line.say(f"{bad} of {len(items)} skipped")


def _before(folder: Path) -> Mapping[int, list[Path]]:
    """The examples that are there, by their numbers: one each, or several of trainings with other processes."""
    found = defaultdict[int, list[Path]](list)
    for path in sorted(processed(folder)):
        found[int(path.stem)].append(path)
    return found


def _kept(examples: Sequence[Path], made_of: str) -> bool:
    """Whether one of the examples of an item is made of the same; the others are removed."""
    same = [path for path in examples if state.facts_of(path).get("made_of") == made_of][:1]
    for path in examples:
        if path not in same:
            path.unlink()
    return bool(same)


def _remove_later(before: Mapping[int, Sequence[Path]], count: int, say: Callable[[str], None]) -> None:
    """Remove the examples of items beyond the dataset's end: they would be trained on."""
    gone = [path for number, paths in before.items() if number >= count for path in paths]
    for path in gone:
        path.unlink()
    if gone:
        say(f"examples removed of items that the dataset of {count} has no more: {len(gone)}")


@torch.no_grad()
def sample(settings: Settings, loaded: Loaded, item: Item | None, step: int) -> Path:
    """A take of the model as it is: of `sample_prompt`, or of an item's; `output_path/samples/step-N.wav`."""
    words = settings.sample_prompt or (item.prompt if item else "")
    told = {} if item is None or settings.sample_prompt else {
        "lyrics": item.lyrics, "bpm": item.bpm, "keyscale": item.keyscale, "timesignature": item.timesignature,
        "vocal_language": item.vocal_language,
    }  # fmt: skip
    device = loaded.device.type
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        music = AceStepPipeline(loaded)(words, duration=settings.sample_duration, seed=settings.seed, **told)
    folder = state.made(out(settings) / dataset.SAMPLES)
    audio = music.audio[0] / max(1.0, float(music.audio.abs().max()))
    return audiofile.write(folder / f"step-{step}.wav", audio.numpy(), music.rate_hz, "PCM_16")
