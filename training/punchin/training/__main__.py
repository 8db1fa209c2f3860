"""`python -m punchin.training full|lora|validate`: the command line of a training.

Options have DiffSynth-Studio's names, with underscores or with hyphens. Talk goes to stderr.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal, Union, get_args, get_origin, get_type_hints

from punchin.protocol.errors import BadUsage, Cancelled, OverLimit, PunchinError
from punchin.protocol.holder import Holder
from punchin.protocol.usage import Parser
from punchin.training.console import Line
from punchin.training.memory import enough
from punchin.training.settings import Settings, names, out
from punchin.training.stopping import stoppable

HELP: Final = {
    "dataset_base_path": "folder of the audio; without metadata, the dataset itself",
    "dataset_metadata_path": ".json, .jsonl or .csv: audio, prompt, and what is known of lyrics, bpm, keyscale, "
    "timesignature, vocal_language; or the original repository's dataset JSON",
    "dataset_repeat": "how often an epoch goes through the dataset",
    "dataset_num_workers": "batches fetched ahead",
    "data_file_keys": "keys that hold paths",
    "extra_inputs": "further keys to use: reference_audios, src_audio, task_type, instrument",
    "max_audio_duration": "seconds of each file that are used",
    "skip_bad": "leave out files that cannot be used, and say how many",
    "validation_metadata_path": "held-out items for the validation loss",
    "validation_count": "or: how many of the dataset to hold out",
    "model": "a model's name or folder (base)",
    "model_paths": "JSON list of the model's files or folders",
    "model_id_with_origin_paths": "ids with file patterns, comma-separated: ACE-Step/Ace-Step1.5:vae/*.safetensors",
    "tokenizer_path": "the text encoder's tokenizer, if apart",
    "silence_latent_path": "silence_latent.pt, if apart",
    "fp8_models": "frozen parts to keep in 8 bits: dit, conditioner, text_encoder",
    "initialize_model_on_cpu": "read the model to the CPU first",
    "device": "cuda, cuda:1 or cpu",
    "param_dtype": "in which trained weights are kept",
    "task": "sft; sft:data_process writes latents and text states; sft:train trains on them",
    "trainable_models": "full: dit, conditioner, comma-separated (dit)",
    "lora_base_model": "lora: dit",
    "lora_target_modules": "layers that get a LoRA, by the end of their names",
    "lora_rank": "rank",
    "lora_alpha": "alpha (the rank)",
    "lora_dropout": "share of inputs dropped in training",
    "lora_checkpoint": "a LoRA to go on from",
    "preset_lora_path": "a LoRA to write into the weights first",
    "preset_lora_model": "and into which part",
    "learning_rate": "1e-4 for lora, 1e-5 for full",
    "weight_decay": "of AdamW",
    "num_epochs": "epochs",
    "max_steps": "or fewer steps",
    "batch_size": "items in a batch, padded with silence to the longest",
    "gradient_accumulation_steps": "batches in a step",
    "find_unused_parameters": "for several processes",
    "use_gradient_checkpointing": "compute layers again instead of keeping them",
    "use_gradient_checkpointing_offload": "and keep their inputs on the CPU",
    "timesteps": "diffsynth's 1,000 weighted times, or the original's logit_normal with condition dropout",
    "min_timestep_boundary": "first part of diffsynth's times, from noise on",
    "max_timestep_boundary": "last part",
    "condition_dropout": "how often the condition is taken away (0, with logit_normal 0.15)",
    "cover_share": "share of items shown their own audio codes",
    "repaint_share": "share of items with a hole to fill",
    "reference_share": "share of items with reference audio of their own",
    "lr_scheduler": "diffsynth (5 steps at a third; with lr_warmup_steps, those instead), constant, linear, cosine",
    "lr_warmup_steps": "steps to the peak",
    "max_grad_norm": "clip gradients at this norm; 0 does not",
    "ema_decay": "keep a moving average of the weights, and save that; 0 does not",
    "seed": "of everything random",
    "output_path": "folder of checkpoints and state; the same command goes on from there",
    "remove_prefix_in_ckpt": "taken off the names in diffsynth's files",
    "save_steps": "steps between checkpoints (each epoch)",
    "state_steps": "steps between states to go on from (200)",
    "save_formats": "lora: diffsynth, peft, diffusers; full: diffsynth, diffusers, punchin",
    "sample_steps": "steps between sample takes",
    "sample_prompt": "what they play (the first item's prompt)",
    "sample_duration": "their seconds",
    "validation_steps": "steps between validations (each epoch)",
}


def parser() -> Parser:
    """The command line."""
    made = Parser(prog="punchin train", description="Train a LoRA, or all weights, of any ACE-Step model that is here.")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="full|lora|validate")
    for verb, about in (
        ("full", "train all weights of a part"),
        ("lora", "train a LoRA"),
        ("validate", "render the data's prompts again, and write a page with audio and spectrograms"),
    ):
        one = verbs.add_parser(verb, help=about, description=about)
        hints = get_type_hints(Settings)
        for name in names():
            if name != "kind":
                _add(one, name, hints[name])
        if verb == "validate":
            one.add_argument("--lora", help="a LoRA to use")
            one.add_argument("--checkpoint", help="a full training's checkpoint to use")
            one.add_argument("--count", type=int, default=8, help="how many prompts")
    return made


def _add(one: argparse.ArgumentParser, name: str, hint: Any) -> None:
    """One option for one setting, with the setting's own default."""
    flags = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
    if hint is bool:
        one.add_argument(*flags, dest=name, action="store_true", default=argparse.SUPPRESS, help=HELP[name])
        return
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    kind = next(each for each in kinds if each is not type(None))
    chosen: dict[str, Any] = {"choices": get_args(kind)} if get_origin(kind) is Literal else {"type": kind}
    chosen |= {"required": name == "dataset_base_path", "help": HELP[name]}
    one.add_argument(*flags, dest=name, default=argparse.SUPPRESS, **chosen)


def main(arguments: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # the data is fetched in threads of our own
    line = Line()
    try:
        found = parser().read(sys.argv[1:] if arguments is None else arguments, sys.stdout)
        if found is None:
            return 0
        given = vars(found)
        verb = given.pop("verb")
        own = {name: given.pop(name) for name in ("lora", "checkpoint", "count") if name in given}
        settings = _settings(verb, given)
        with stoppable() as told, enough():
            holder = Holder(told)
            if verb == "validate":
                print(_validated(settings, line, holder, **own))
                return 0
            from punchin.training.run import train

            train(settings, line, holder.stop, holder.device)
    except Cancelled as error:
        line.say(str(error))
        return error.exit_code
    except PunchinError as error:
        line.say(f"error: {error}" + (f"\n  {error.hint}" if error.hint else ""))
        return error.exit_code
    return 0


def _settings(verb: str, given: Mapping[str, Any]) -> Settings:
    try:
        return Settings(kind="lora" if verb == "lora" else "full", **given)
    except OverLimit as error:  # on a command line a number out of bounds is a wrong command line
        raise BadUsage(str(error), error.hint) from error


def _validated(
    settings: Settings, line: Line, holder: Holder, count: int, lora: str | None = None, checkpoint: str | None = None
) -> str:
    """Write the page; returns its path."""
    from msgspec import structs

    from punchin.engine.model import AceStep
    from punchin.training import adapters, run, trainer, validation

    if count < 1:
        raise BadUsage(f"count is {count}; it must be 1 or more")
    if settings.lora_checkpoint is not None:
        raise BadUsage("lora_checkpoint is where a training begins; nothing is trained", "give the LoRA as `--lora`")

    def device(outline: AceStep) -> None:
        adapters.check(outline, settings)
        validation.check(outline, lora, checkpoint)
        holder.device()

    items, loaded = run.ready(settings, device, line.say, holder.stop)
    adapters.fuse_preset(loaded.model, settings)
    trainer.in_eighths(loaded, settings)
    variant = structs.replace(loaded.variant, stems=True)  # what a training taught is asked of it, whatever it began as
    pipe = validation.AceStepPipeline(replace(loaded, variant=variant))
    validation.apply(loaded, pipe, lora, checkpoint)
    line.say(f"rendering {min(count, len(items))} prompts with {loaded.folders.dit.name}")
    return str(validation.page(settings, loaded, pipe, items[:count], out(settings), holder.stop, line.say))


if __name__ == "__main__":
    sys.exit(main())
