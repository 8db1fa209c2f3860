"""Everything that a training is told, checked: DiffSynth-Studio's options under their own names, and Punchin's own.

`Settings` is one frozen value; the command line makes one, and so may Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import inf
from pathlib import Path
from typing import Any, Final, Literal, get_args

from punchin.protocol.errors import BadUsage
from punchin.protocol.limits import REGION, SEED, Limit

Kind = Literal["full", "lora"]
Task = Literal["sft", "sft:data_process", "sft:train"]
Schedule = Literal["diffsynth", "constant", "linear", "cosine"]

COMPONENTS: Final = {"dit": "decoder", "conditioner": "encoder", "tokenizer_model": "tokenizer"}  # DiffSynth's names
TARGETS: Final = "q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj"
FORMATS: Final[Mapping[Kind, tuple[str, ...]]] = {
    "lora": ("diffsynth", "peft", "diffusers"),
    "full": ("diffsynth", "diffusers", "punchin"),
}

RANK = Limit("lora_rank", 1, 1024, "")
RATE = Limit("learning_rate", 1e-12, 1, "")
SHARE = Limit("share", 0, 1, "")
DECAY = Limit("weight_decay", 0, 1, "")  # times the rate it is taken off each weight: never more than all of it
EMA = Limit("ema_decay", 0, 0.999999, "")
COUNT = Limit("", 1, 1_000_000_000, "")
_COUNTS: Final = (
    "num_epochs", "dataset_repeat", "gradient_accumulation_steps", "batch_size", "save_steps", "sample_steps",
    "validation_steps", "max_steps", "state_steps",
)  # fmt: skip
_SHARES: Final = ("condition_dropout", "cover_share", "repaint_share", "reference_share")
# What may differ between the calls of one training: where it runs and what it shows, not what it computes.
_FREE: Final = frozenset({
    "num_epochs", "max_steps", "save_steps", "sample_steps", "validation_steps", "dataset_num_workers", "state_steps",
    "output_path", "device", "initialize_model_on_cpu", "sample_prompt", "sample_duration", "find_unused_parameters",
    "use_gradient_checkpointing", "use_gradient_checkpointing_offload", "save_formats", "remove_prefix_in_ckpt",
})  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One training. Paths are strings, as they were given; `None` is the default of the kind."""

    kind: Kind
    # data
    dataset_base_path: str
    dataset_metadata_path: str | None = None
    dataset_repeat: int = 1
    dataset_num_workers: int = 0
    data_file_keys: str = "audio"
    extra_inputs: str | None = None
    max_audio_duration: float | None = None
    skip_bad: bool = False
    validation_metadata_path: str | None = None
    validation_count: int = 0
    # models
    model: str | None = None
    model_paths: str | None = None
    model_id_with_origin_paths: str | None = None
    tokenizer_path: str | None = None
    silence_latent_path: str | None = None
    fp8_models: str | None = None
    initialize_model_on_cpu: bool = False
    device: str | None = None
    param_dtype: Literal["float32", "bfloat16"] = "float32"
    # what is trained
    task: Task = "sft"
    trainable_models: str | None = None
    lora_base_model: str | None = None
    lora_target_modules: str = TARGETS
    lora_rank: int = 32
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_checkpoint: str | None = None
    preset_lora_path: str | None = None
    preset_lora_model: str | None = None
    # how
    learning_rate: float | None = None
    weight_decay: float = 0.01
    num_epochs: int = 1
    max_steps: int | None = None
    batch_size: int = 1
    gradient_accumulation_steps: int = 1
    find_unused_parameters: bool = False
    use_gradient_checkpointing: bool = False
    use_gradient_checkpointing_offload: bool = False
    timesteps: Literal["diffsynth", "logit_normal"] = "diffsynth"
    min_timestep_boundary: float = 0.0
    max_timestep_boundary: float = 1.0
    condition_dropout: float | None = None
    cover_share: float = 0.0
    repaint_share: float = 0.0
    reference_share: float = 0.0
    lr_scheduler: Schedule = "diffsynth"
    lr_warmup_steps: int = 0
    max_grad_norm: float = 0.0
    ema_decay: float = 0.0
    seed: int = 0
    # what comes out
    output_path: str = "./models"
    remove_prefix_in_ckpt: str = "pipe.dit."
    save_steps: int | None = None
    state_steps: int | None = None
    save_formats: str | None = None
    sample_steps: int | None = None
    sample_prompt: str | None = None
    sample_duration: float = 15.0
    validation_steps: int | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_words()
        if self.kind == "lora":
            RANK.check(self.lora_rank, "choose a rank such as 16 or 32")
            if not self.targets:
                raise BadUsage("lora_target_modules names no layer", f"for example {TARGETS}")
            if not 0 < self.alpha < inf or self.lora_dropout == 1:
                raise BadUsage(
                    f"lora_alpha is {self.alpha:g} and lora_dropout {self.lora_dropout:g}: nothing would be learned",
                    "lora_alpha must be above 0, such as the rank, and lora_dropout below 1",
                )
        self._check_preset()
        if self.min_timestep_boundary >= self.max_timestep_boundary:
            raise BadUsage(
                f"timesteps from {self.min_timestep_boundary:g} to {self.max_timestep_boundary:g} are none; "
                "min_timestep_boundary must be below max_timestep_boundary"
            )
        if self.timesteps != "diffsynth" and (self.min_timestep_boundary, self.max_timestep_boundary) != (0.0, 1.0):
            raise BadUsage(
                f"timesteps from {self.min_timestep_boundary:g} to {self.max_timestep_boundary:g} are parts of "
                f"diffsynth's, timesteps is {self.timesteps}",
                "leave min_timestep_boundary and max_timestep_boundary out, or take `--timesteps diffsynth`",
            )
        if self.cover_share + self.repaint_share > 1:
            raise BadUsage(
                f"cover_share and repaint_share are {self.cover_share + self.repaint_share:g} together, over 1"
            )

    @property
    def targets(self) -> list[str]:
        """The layers that get a LoRA."""
        return [each.strip() for each in self.lora_target_modules.split(",") if each.strip()]

    @property
    def trained(self) -> tuple[str, ...]:
        """DiffSynth's names of the components that are trained."""
        named = self.lora_base_model if self.kind == "lora" else self.trainable_models
        return tuple(each.strip() for each in (named or "dit").split(",") if each.strip())

    @property
    def formats(self) -> tuple[str, ...]:
        """The forms in which a checkpoint is written."""
        given = self.save_formats or ("diffsynth,peft" if self.kind == "lora" else "diffsynth")
        return tuple(each.strip() for each in given.split(",") if each.strip())

    @property
    def rate(self) -> float:
        """The peak learning rate: 1e-4 for a LoRA and 1e-5 for all weights unless told, as DiffSynth's scripts."""
        return self.learning_rate if self.learning_rate is not None else {"lora": 1e-4, "full": 1e-5}[self.kind]

    @property
    def alpha(self) -> float:
        """LoRA's alpha: the rank unless told."""
        return float(self.lora_rank if self.lora_alpha is None else self.lora_alpha)

    @property
    def dropout(self) -> float:
        """How often the condition is taken away: 0.15 with the original's times unless told, else 0."""
        default = 0.15 if self.timesteps == "logit_normal" else 0.0
        return default if self.condition_dropout is None else self.condition_dropout

    def fixed(self) -> dict[str, Any]:
        """What must be the same to go on from a state."""
        return {name: value for name, value in asdict(self).items() if name not in _FREE}

    def _check_numbers(self) -> None:
        RATE.check(self.rate)
        DECAY.check(self.weight_decay)
        EMA.check(self.ema_decay)
        SEED.check(self.seed)
        for name in _COUNTS:
            value = getattr(self, name)
            if value is not None:
                replace(COUNT, name=name).check(value)
        for name in (*_SHARES, "lora_dropout", "min_timestep_boundary", "max_timestep_boundary"):
            value = getattr(self, name)
            if value is not None and not SHARE.low <= value <= SHARE.high:
                raise BadUsage(f"{name} is {value:g}, allowed is 0 to 1")
        for name in ("max_grad_norm", "lr_warmup_steps", "dataset_num_workers", "validation_count"):
            if not getattr(self, name) >= 0:  # nor NaN
                raise BadUsage(f"{name} is {getattr(self, name):g}; it cannot be below 0")
        if self.max_audio_duration is not None and not self.max_audio_duration >= 1:
            raise BadUsage(f"max_audio_duration is {self.max_audio_duration:g} s; it must be 1 s or more")
        if not REGION.low <= self.sample_duration <= REGION.high:  # now, not hours later at the first sample
            allowed = f"{REGION.low:g} to {REGION.high:g}"
            raise BadUsage(f"sample_duration is {self.sample_duration:g} s, allowed is {allowed}")

    def _check_preset(self) -> None:
        if not self.preset_lora_path:
            return
        if not self.preset_lora_model:
            raise BadUsage("preset_lora_path needs preset_lora_model", "add `--preset_lora_model dit`")
        if self.preset_lora_model not in COMPONENTS:
            raise BadUsage(f"preset_lora_model is {self.preset_lora_model!r}", f"one of: {', '.join(COMPONENTS)}")
        whole = [form for form in self.formats if form in ("diffusers", "punchin")]
        if self.kind == "full" and self.fp8_models and whole:  # the base's files do not have the preset in them
            raise BadUsage(
                f"save_formats {', '.join(whole)} with preset_lora_path would lose what fp8_models rounds away",
                "leave fp8_models out, or take `--save_formats diffsynth`",
            )

    def _check_words(self) -> None:
        for name, allowed in (("task", Task), ("lr_scheduler", Schedule)):
            if getattr(self, name) not in get_args(allowed):
                raise BadUsage(f"{name} is {getattr(self, name)!r}, allowed is {', '.join(get_args(allowed))}")
        known = ("dit", "conditioner") if self.kind == "full" else ("dit",)
        what = "trainable_models" if self.kind == "full" else "lora_base_model"
        if not self.trained:
            raise BadUsage(f"{what} names nothing to train", f"one of: {', '.join(known)}")
        if not self.formats:
            raise BadUsage("save_formats names none: nothing would be kept", f"one of: {', '.join(FORMATS[self.kind])}")
        for name in self.trained:
            if name not in known:
                raise BadUsage(f"{what} names {name!r}, which is not trained here", f"one of: {', '.join(known)}")
        for form in self.formats:
            if form not in FORMATS[self.kind]:
                raise BadUsage(f"save_formats names {form!r}", f"one of: {', '.join(FORMATS[self.kind])}")


def names() -> list[str]:
    """All settings by name."""
    return [field.name for field in fields(Settings)]


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`name: before -> now` for each setting that is not the same."""
    every = sorted(before.keys() | now.keys())
    return [f"{name}: {before.get(name)!r} -> {now.get(name)!r}" for name in every if before.get(name) != now.get(name)]


def out(settings: Settings) -> Path:
    """The output folder."""
    return Path(settings.output_path).expanduser()
