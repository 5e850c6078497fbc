"""The reader: which items, read and preprocessed in worker processes, collated into batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from alfm.backbones.base import Backbone
from alfm.datasets.base import ItemError, Split
from alfm.datasets.marks import content_mark
from alfm.errors import UserError
from alfm.extraction import decoding
from alfm.extraction.plan import Plan
from alfm.streams import integer


class BatchRows(NamedTuple):
    """Rows [start, stop) of a split: one batch of a part."""

    part: int
    split: str
    start: int
    stop: int
    last: bool
    """The last batch of its part."""


class Loaded(NamedTuple):
    """A batch, items before views: `rows` that were read, and (row, reason) of those that were not."""

    task: BatchRows
    rows: list[int]
    batch: Any
    failures: list[tuple[int, str]]
    mistake: str | None
    """A user's mistake that concerns the whole batch."""
    marks: Sequence[str] = ()
    """Of the content of each of `rows`: see `alfm.datasets.marks`."""
    on_cpu: Mapping[str, int] = {}
    """Images that were decoded on the CPU though a GPU decodes, counted by what they are."""


class Items(Dataset[Loaded]):
    """Answers a task with its batch. Runs in worker processes: an item's failure is returned, not raised."""

    def __init__(
        self,
        splits: Mapping[str, Split],
        backbone: Backbone,
        plan: Plan,
        augment: Any = None,
        left_out: Mapping[str, Mapping[int, str]] | None = None,
    ) -> None:
        self.splits, self.backbone, self.augment = splits, backbone, augment
        self.left_out = left_out or {}
        self.views = {name: plan.views(name) for name in splits}
        self.seed = plan.settings["seed"] or 0
        self.for_decoder = plan.settings.get("decode") == "gpu"
        """Batches are what `alfm.extraction.decoding.Decoder` takes."""

    def __getitem__(self, task: BatchRows) -> Loaded:
        split, left_out = self.splits[task.split], self.left_out.get(task.split, {})
        items: list[Any] = []
        rows: list[int] = []
        failures: list[tuple[int, str]] = []
        marks: list[str] = []
        for row in range(task.start, task.stop):
            if row in left_out:
                failures.append((row, left_out[row]))
                continue
            try:
                if self.for_decoder:
                    item, mark = decoding.read(split, row, self.backbone)
                    items.append(item)
                else:
                    item = split.load(row)
                    mark = content_mark(split, row, item)
                    items.extend(self._views(task.split, split, row, item))
                rows.append(row)
                marks.append(mark)
            except UserError as error:  # wrong for all items, such as a missing package
                return Loaded(task, [], None, [], str(error))
            except ItemError as error:
                failures.append((row, str(error)))
            except Exception as error:  # decoders raise nearly anything on a damaged file
                failures.append((row, f"{type(error).__name__}: {error}"))
        try:
            together = decoding.pack if self.for_decoder else self.backbone.collate
            return Loaded(task, rows, together(items) if items else None, failures, None, marks)
        except UserError as error:
            return Loaded(task, [], None, [], str(error))

    def _views(self, name: str, split: Split, row: int, item: Any) -> Iterator[Any]:
        """View 0 is the plain item; view v is augmented by draws that belong to (seed, split, id, v)."""
        plain = item.copy() if self.views[name] > 1 else item
        views = [self.backbone.preprocess(item)]
        for view in range(1, self.views[name]):
            before = torch.default_generator.get_state()
            torch.default_generator.manual_seed(integer(self.seed, view, f"augment {name} {split.ids[row]}"))
            try:
                views.append(self.backbone.preprocess(self.augment(plain)))
            finally:
                torch.default_generator.set_state(before)
        return iter(views)


def tasks_of(part: int, plan: Plan) -> Iterator[BatchRows]:
    """The batches of one part."""
    split, start, stop = plan.parts[part]
    for low in range(start, stop, plan.batch_size):
        high = min(low + plan.batch_size, stop)
        yield BatchRows(part, split, low, high, high == stop)


def load(items: Items, tasks: Iterable[BatchRows], num_workers: int, device: torch.device) -> Iterator[Loaded]:
    """Batches in the order of `tasks`, which is drawn from lazily as workers ask for more.

    Raises `UserError` when a worker process dies (usually for want of memory).
    """
    loader = DataLoader(
        items,
        batch_size=None,
        sampler=_Lazy(tasks),
        collate_fn=_as_it_is,
        num_workers=num_workers,
        prefetch_factor=2 if num_workers else None,
        pin_memory=device.type == "cuda",
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" in str(error) and "killed by signal" in str(error):
            raise UserError(
                "A worker process that reads items was killed, most likely for want of memory or of shared memory "
                "(/dev/shm): use fewer num_workers, or a smaller batch_size."
            ) from error
        raise


class _Lazy:
    """A sampler over an iterator that may only be walked once."""

    def __init__(self, tasks: Iterable[BatchRows]) -> None:
        self._tasks = tasks

    def __iter__(self) -> Iterator[BatchRows]:
        return iter(self._tasks)


def _as_it_is(loaded: Any) -> Any:
    return loaded


def duplicates(ids: Sequence[str]) -> dict[int, str]:
    """Rows whose id has been seen before, and what to say about each."""
    seen: set[str] = set()
    repeated: dict[int, str] = {}
    for row, text in enumerate(ids):
        if text in seen:
            repeated[row] = "its id was there before"
        seen.add(text)
    return repeated
