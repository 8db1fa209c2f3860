"""Examples in the order of training: which step sees which items, on which process, and where they come from.

An epoch is a shuffle of the dataset, repeated `dataset_repeat` times. Each process takes its part of each batch, so a
batch does not depend on how many processes share it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Final, Protocol

import torch

from punchin.protocol.errors import Cancelled, PunchinError, Refused
from punchin.protocol.limits import Limit
from punchin.protocol.order import Task
from punchin.training import state
from punchin.training.dataset import Item
from punchin.training.examples import Example, Listener, checked, recordings

NAMED: Final = 5  # bad files in one message
CURE: Final = "repair or remove what is named, or train without such files: `--skip_bad`"
EPOCH: Final = Limit("items in an epoch", 1, 10_000_000, "")  # their order is in memory
CACHE_BYTES: Final = 4 * 2**30  # of examples kept in memory: about 2,000 songs


class Shelf(Protocol):
    """Where examples are taken from, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int) -> Example: ...

    def made_of(self, number: int) -> str:
        """What tells an example from one of other audio, metadata, options or model."""
        ...


class Recordings:
    """Examples made from items when they are first asked for, and then kept."""

    def __init__(self, items: Sequence[Item], listener: Listener) -> None:
        self._items, self._listener = items, listener
        self._kept = OrderedDict[int, Example]()

    def __len__(self) -> int:
        """How many there are."""
        return len(self._items)

    def __getitem__(self, number: int) -> Example:
        """The example of an item. Raises Refused where its audio cannot be used."""
        if number not in self._kept:
            self._kept[number] = self._listener.example(self._items[number])
            while len(self._kept) > 1 and sum(map(_bytes, self._kept.values())) > CACHE_BYTES:
                self._kept.popitem(last=False)
        return self._kept[number]

    def made_of(self, number: int) -> str:
        """See `Listener.made_of`."""
        return self._listener.made_of(self._items[number])


class Processed:
    """Examples that `sft:data_process` wrote below a folder, for a model whose text encoder is `width` wide and a
    training that draws `used`.
    """

    def __init__(self, folder: Path, width: int, used: Sequence[Task]) -> None:
        if not folder.is_dir():
            raise Refused(f"there is no dataset folder {folder}", code="dataset")
        self._width, self._used = width, used
        self._paths = sorted(processed(folder), key=_number)
        if not self._paths:
            hint = "make them with `--task sft:data_process --output_path THIS`"
            raise Refused(f"{folder} holds no processed examples", hint, code="dataset")

    def __len__(self) -> int:
        """How many there are."""
        return len(self._paths)

    def __getitem__(self, number: int) -> Example:
        """One of them. Raises Refused where it is broken, or made with another text encoder or for other tasks."""
        example, path = Example.load(self._paths[number]), self._paths[number]
        if example.lyrics.shape[1] != self._width:
            widths = f"{example.lyrics.shape[1]} wide, the model's text encoder {self._width}"
            raise Refused(f"{path} is of another model: {widths}", "process the data with this one", code="dataset")
        for task in self._used if example.task is None else ():
            if task not in example.captions:
                raise Refused(
                    f"{path} knows the prompts of {', '.join(example.captions)}, the training wants {task}",
                    "process the data again with the same cover_share and repaint_share",
                    code="dataset",
                )
        return example

    def made_of(self, number: int) -> str:
        """What stands in its file."""
        return state.facts_of(self._paths[number]).get("made_of", "")


def processed(folder: Path) -> list[Path]:
    """The processed examples in a folder, `PROCESS/NUMBER.safetensors`; a training's own files may lie beside them."""
    return [path for path in folder.glob("*/*.safetensors") if path.stem.isdecimal() and path.parent.name.isdecimal()]


def _number(path: Path) -> tuple[int, Path]:
    """What a processed example is sorted by: its number in the dataset, whichever process wrote it."""
    return int(path.stem), path


def _bytes(example: Example) -> int:
    every = [example.latents, example.lyrics, *example.captions.values(), *example.references]
    return sum(each.nbytes for each in every) + (0 if example.source is None else example.source.nbytes)


def there(
    items: Sequence[Item], *, skip_bad: bool, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False
) -> list[Item]:
    """The items whose recordings can be opened and are long enough; headers alone are read, so it takes no time.

    Raises Refused with how many cannot, and which; with `skip_bad` only where none is left. Raises Cancelled where
    `stop` says so.
    """
    good: list[Item] = []
    bad: list[str] = []
    for number, item in enumerate(items, 1):
        if stop():
            raise Cancelled(f"stopped while item {number} of {len(items)} was looked for; nothing was written")
        try:
            for path in recordings(item):
                checked(path)
            good.append(item)
        except Refused as error:
            bad.append(str(error))
    if bad and not skip_bad:
        named = "; ".join(bad[:NAMED]) + (f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else "")
        raise Refused(f"{len(bad)} of {len(items)} items cannot be used: {named}", CURE, code="audio")
    for reason in bad:
        say(f"skipped: {reason}")
    if bad:
        say(f"{len(bad)} of {len(items)} skipped")
    if not good:
        raise Refused(f"none of the {len(items)} items can be used", code="dataset")
    return good


def usable(
    shelf: Shelf, *, skip_bad: bool, say: Callable[[str], None], stop: Callable[[], bool] = lambda: False,
    show: Callable[[str], None] = lambda text: None,
) -> list[int]:  # fmt: skip
    """The numbers of the examples that can be used, each tried once. Without `skip_bad`, the first bad one is raised.

    say: told what is skipped. show: told how far it is, with each item. Raises Refused, with how many are bad, where
    none is left; Cancelled where `stop` says so.
    """
    good: list[int] = []
    bad: list[PunchinError] = []
    for number in range(len(shelf)):
        if stop():
            raise Cancelled(f"stopped while item {number + 1} of {len(shelf)} was read; nothing was written")
        show(f"reading item {number + 1} of {len(shelf)}")
        try:
            shelf[number]
            good.append(number)
        except Refused as error:
            if not skip_bad:
                raise Refused(str(error), CURE, code="audio") from error
            bad.append(error)
            say(f"skipped: {error}")
    if bad:
        say(f"{len(bad)} of {len(shelf)} skipped")
    if not good:
        raise Refused(f"none of the {len(shelf)} items can be used", code="dataset")
    return good


class Order:
    """Which items each step takes: groups of `accumulate` batches of `batch` items over `processes`."""

    def __init__(
        self, numbers: Sequence[int], seed: int, *, repeat: int, batch: int, processes: int, accumulate: int
    ) -> None:
        self.numbers, self.seed, self.repeat = list(numbers), seed, repeat
        self.batch, self.processes, self.accumulate = batch, processes, accumulate
        EPOCH.check(len(self.numbers) * repeat, "lower dataset_repeat, and raise num_epochs")
        self._epoch = lru_cache(maxsize=2)(self._shuffled)  # two: the next one's first items are fetched ahead

    @property
    def batches_in_epoch(self) -> int:
        """Batches, each over all processes; the last is filled up from the epoch's start."""
        return -(-len(self.numbers) * self.repeat // (self.batch * self.processes))

    @property
    def steps_in_epoch(self) -> int:
        """Steps of the optimizer."""
        return -(-self.batches_in_epoch // self.accumulate)

    def step(self, step: int, process: int) -> list[tuple[list[int], list[int]]]:
        """What a process does in step `step` (from 0): for each batch the items, and a key for each of them."""
        epoch, inside = divmod(step, self.steps_in_epoch)
        shuffled = self._epoch(epoch)
        wide = self.batch * self.processes
        whole: list[tuple[list[int], list[int]]] = []
        last = min((inside + 1) * self.accumulate, self.batches_in_epoch)
        for number in range(inside * self.accumulate, last):
            first = number * wide + process * self.batch
            places = range(first, first + self.batch)
            base = epoch * self.batches_in_epoch * wide
            whole.append(([shuffled[place % len(shuffled)] for place in places], [base + place for place in places]))
        return whole

    def _shuffled(self, epoch: int) -> list[int]:
        every = [number for number in self.numbers for _ in range(self.repeat)]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        return [every[place] for place in torch.randperm(len(every), generator=generator).tolist()]


def ahead(shelf: Shelf, wanted: Iterator[list[int]], workers: int) -> Iterator[list[Example]]:
    """The examples of each list of numbers, the next list being fetched while one is used; 0 workers: in turn."""
    if not workers:
        for numbers in wanted:
            yield [shelf[number] for number in numbers]
        return
    with ThreadPoolExecutor(1) as thread:  # one: examples are made with one model, in order
        coming: list[Future[list[Example]]] = []
        for numbers in wanted:
            coming.append(thread.submit(lambda some=numbers: [shelf[number] for number in some]))
            if len(coming) > workers:
                yield coming.pop(0).result()
        for future in coming:
            yield future.result()
