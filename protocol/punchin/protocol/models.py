"""The table of models that Punchin knows by name: hub repositories, sizes, licences and right defaults.

Sizes are of the DiT file alone (bf16), but `turbo`'s is with the shared parts, which its repository holds.
Defaults follow the original model registry: turbo 8 steps at shift 3 without guidance, base and sft 50 steps at
shift 1 with APG at 7.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct, structs

from punchin.protocol.errors import Refused
from punchin.protocol.order import Task

STEM_TASKS: Final[frozenset[Task]] = frozenset({"lego", "extract", "complete"})  # base models alone know them

Family = Literal["2b", "xl", "tiny", "identity"]


class Model(Struct, frozen=True, kw_only=True):
    """One model: where it comes from, what it weighs, and what it is asked with by default."""

    name: str
    folder: str  # below the models folder; the name by which the released layout calls the DiT
    family: Family
    repository: str = ""  # on Hugging Face and ModelScope alike
    size_bytes: int = 0
    memory_bytes: int = 0  # on the device, in bfloat16, with everything there while a minute is made
    least_memory_bytes: int = 0  # with parts taking turns and the DiT passing through layer by layer
    licence: str = "MIT"
    steps: int = 8
    shift: float = 3.0
    guidance: float = 1.0
    turbo: bool = True  # distilled: no guidance
    stems: bool = False  # knows STEM_TASKS
    like: str = ""  # of somebody's own model: the known one whose defaults, VAE and text encoder it has

    def knows(self, task: Task) -> bool:
        """Whether the model was trained for a task."""
        return self.stems or task not in STEM_TASKS

    def own(self, name: str, folder: str, size_bytes: int = 0) -> Model:
        """Somebody's own model `name`, which is like this one: with its defaults and its needs, from no repository."""
        new = {"name": name, "folder": folder, "size_bytes": size_bytes, "repository": "", "licence": ""}
        return structs.replace(self, **new, like=self.name)

    def check(self, task: Task) -> None:
        """Raise Refused for a task that the model does not know."""
        if not self.knows(task):
            said = "lego (layer)" if task == "lego" else task
            hint = "`punchin models pull base`, then `--model base`"
            raise Refused(f"{self.name} does not know {said}; only base models do", hint, code="task")


_2B, _XL = 4_787_800_000, 9_974_700_000
_MEMORY_2B, _MEMORY_XL, _LEAST = 6_800_000_000, 12_000_000_000, 1_500_000_000

MAIN: Final = "ACE-Step/Ace-Step1.5"  # `turbo`'s repository
SHARED: Final[Mapping[str, int]] = {"vae": 338_000_000, "Qwen3-Embedding-0.6B": 1_192_000_000}
"""Folders in it that all released models need, with their bytes."""

MODELS: tuple[Model, ...] = (
    Model(
        name="turbo",
        folder="acestep-v15-turbo",
        family="2b",
        repository=MAIN,
        size_bytes=_2B + sum(SHARED.values()),
        memory_bytes=_MEMORY_2B,
        least_memory_bytes=_LEAST,
    ),
    Model(
        name="turbo-shift1",
        folder="acestep-v15-turbo-shift1",
        family="2b",
        repository="ACE-Step/acestep-v15-turbo-shift1",
        size_bytes=_2B,
        memory_bytes=_MEMORY_2B,
        least_memory_bytes=_LEAST,
        shift=1.0,
    ),
    Model(
        name="turbo-shift3",
        folder="acestep-v15-turbo-shift3",
        family="2b",
        repository="ACE-Step/acestep-v15-turbo-shift3",
        size_bytes=_2B,
        memory_bytes=_MEMORY_2B,
        least_memory_bytes=_LEAST,
    ),
    Model(
        name="turbo-continuous",
        folder="acestep-v15-turbo-continuous",
        family="2b",
        repository="ACE-Step/acestep-v15-turbo-continuous",
        size_bytes=_2B,
        memory_bytes=_MEMORY_2B,
        least_memory_bytes=_LEAST,
    ),
    Model(
        name="base",
        folder="acestep-v15-base",
        family="2b",
        repository="ACE-Step/acestep-v15-base",
        size_bytes=_2B,
        memory_bytes=_MEMORY_2B,
        least_memory_bytes=_LEAST,
        steps=50,
        shift=1.0,
        guidance=7.0,
        turbo=False,
        stems=True,
    ),
    Model(
        name="sft",
        folder="acestep-v15-sft",
        family="2b",
        repository="ACE-Step/acestep-v15-sft",
        size_bytes=_2B,
        memory_bytes=_MEMORY_2B,
        least_memory_bytes=_LEAST,
        steps=50,
        shift=1.0,
        guidance=7.0,
        turbo=False,
    ),
    Model(
        name="xl-base",
        folder="acestep-v15-xl-base",
        family="xl",
        repository="ACE-Step/acestep-v15-xl-base",
        size_bytes=_XL,
        memory_bytes=_MEMORY_XL,
        least_memory_bytes=_LEAST,
        steps=50,
        shift=1.0,
        guidance=7.0,
        turbo=False,
        stems=True,
    ),
    Model(
        name="xl-sft",
        folder="acestep-v15-xl-sft",
        family="xl",
        repository="ACE-Step/acestep-v15-xl-sft",
        size_bytes=_XL,
        memory_bytes=_MEMORY_XL,
        least_memory_bytes=_LEAST,
        steps=50,
        shift=1.0,
        guidance=7.0,
        turbo=False,
    ),
    Model(
        name="xl-turbo",
        folder="acestep-v15-xl-turbo",
        family="xl",
        repository="ACE-Step/acestep-v15-xl-turbo",
        size_bytes=_XL,
        memory_bytes=_MEMORY_XL,
        least_memory_bytes=_LEAST,
    ),
    Model(
        name="punchin-tiny",
        folder="punchin-tiny",
        family="tiny",
        licence="GPL-3.0-or-later",
        guidance=5.0,
        turbo=False,  # trained with condition dropout, not distilled: it can be guided
        stems=True,
    ),
    Model(name="identity", folder="", family="identity", licence="GPL-3.0-or-later", stems=True),
)

BY_NAME: dict[str, Model] = {model.name: model for model in MODELS}
