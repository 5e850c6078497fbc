"""What a person watching an extraction sees."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from alfm.backbones.base import Backbone
from alfm.cache import FeatureCache, open_cache
from alfm.cache.after import after_cache
from alfm.cache.merge import Merged
from alfm.cache.parts import PartsFolder
from alfm.commands import command
from alfm.datasets.base import Dataset, Split
from alfm.datasets.counts import label_counts, label_gaps
from alfm.extraction.known import Known
from alfm.extraction.plan import Plan

_LISTED = 20
"""Items left out that are named one by one."""


class Console:
    """Prints for one worker; `quiet` ones (all but the first) print nothing."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.out = RichConsole(quiet=quiet, highlight=False, soft_wrap=True)

    def start(
        self, dataset: Dataset, backbone: Backbone, splits: Mapping[str, Split], device: Any, target: Path
    ) -> None:
        """Say what will be done."""
        sizes = ", ".join(f"{name} {len(split):,}" for name, split in splits.items())
        self.out.print(
            f"Embedding [bold]{escape(dataset.name)}[/] ({escape(sizes)}) with [bold]{escape(backbone.name)}[/] "
            f"on {_device_name(device)}"
        )
        for remark in dataset.remarks:
            self.out.print(f"note: {escape(remark)}")

    def known(self, known: Known, count: int, total: int) -> None:
        """Say how many items need not be embedded."""
        if count < total:
            self.out.print(f"Known: {count:,} of {total:,} items, from {escape(str(known))}")
            return
        self.out.print(f"Nothing new: all {total:,} items are in {escape(str(known))}")
        self.out.print(escape(f"Next:  {command('label', known.pool())}"))

    def plan(self, plan: Plan) -> None:
        """Say what the plan decided that nobody asked for."""
        if reason := plan.settings.get("dtype_reason"):
            self.out.print(f"Stored as {plan.settings['dtype']}: {escape(reason)}")

    def note(self, sentence: str) -> None:
        """Say something that a person should know."""
        self.out.print(f"note: {escape(sentence)}")

    def already_there(self, target: Path, known: Known) -> None:
        """Say that nothing needs doing."""
        self.out.print(f"Already cached: {escape(str(target))} (force=true embeds again)")
        if not self.quiet:
            cache = open_cache(target, unlabelled=None)
            if "dataset_config" not in cache.attributes:
                self.note(
                    "it was made by an earlier version and does not say where its items are: alfm.label shows them "
                    "when told so, with dataset.root=FOLDER or items=TABLE"
                )
            self._after(cache, known)

    @contextmanager
    def progress(self, rows: int, folder: PartsFolder, plan: Plan) -> Iterator[Bar]:
        """A live bar over all items, those of other workers included."""
        done = sum(plan.parts[index].stop - plan.parts[index].start for index in folder.done())
        if done:
            self.out.print(f"Going on: {done:,} of {rows:,} items are already done")
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
        )
        with Progress(*columns, console=self.out, disable=self.quiet) as progress:
            yield Bar(progress, rows, done)

    def share_done(self, folder: PartsFolder, plan: Plan) -> None:
        """Say that this shard is through and others are not."""
        self.out.print(
            f"This shard is done: {len(folder.done())} of {len(plan.parts)} parts are there. The cache is put together "
            f"by the shard that finishes last ({escape(str(folder.target))})."
        )

    def finish(self, target: Path, merged: Merged | None, left_out: Sequence[str], known: Known) -> None:
        """Say what was made, what was left out (by the data set: `left_out`, in sentences), and what to type next."""
        if merged is not None:
            table = Table("split", "items", "left out")
            for name, rows in merged.rows.items():
                table.add_row(escape(name), f"{rows:,}", f"{len(merged.skipped[name]):,}")
            self.out.print(table)
            skipped = [pair for pairs in merged.skipped.values() for pair in pairs]
            for item, reason in skipped[:_LISTED]:
                self.out.print(f"left out: {escape(item)} ({escape(reason)})")
            if len(skipped) > _LISTED:
                self.out.print(f"... and {len(skipped) - _LISTED} more: see <split>/skipped in the cache")
            if merged.on_cpu:
                kinds = ", ".join(f"{kind} {count:,}" for kind, count in merged.on_cpu.most_common())
                total = sum(merged.rows.values()) + len(skipped)
                self.note(f"decoded on the CPU: {merged.on_cpu.total():,} of {total:,} images ({kinds})")
            for event in merged.events[:5]:
                self.out.print(f"note: {escape(event)}")
            if len(merged.events) > 5:
                self.out.print(f"... and {len(merged.events) - 5} more such notes")
        for sentence in left_out:
            self.out.print(f"left out: {escape(sentence)}")
        self.out.print(f"Cache: [bold]{escape(str(target))}[/]")
        if not self.quiet:
            cache = open_cache(target)
            labels = {name: cache.labels(name) for name in cache.splits}
            for line in (*label_counts(labels, cache.class_names), *label_gaps(labels, cache.class_names)):
                self.out.print(escape(line))
            self._after(cache, known)

    def _after(self, cache: FeatureCache, known: Known) -> None:
        if known:
            self.out.print(escape(f"Next:  {command('label', known.pool(cache.path))}"))
        else:
            self.out.print(escape(after_cache(cache)))


class Bar:
    """`advance` by a batch of this worker; `settled` corrects the count by what all workers have finished."""

    def __init__(self, progress: Progress, rows: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task("items", total=rows, completed=done)

    def advance(self, rows: int) -> None:
        """This worker has embedded `rows` more items."""
        self._progress.advance(self._task, rows)

    def settled(self, rows: int) -> None:
        """All workers together have stored at least `rows` items."""
        task = self._progress.tasks[0]
        if rows > task.completed:
            self._progress.update(self._task, completed=rows)


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} items/s")


def _device_name(device: Any) -> str:
    if device.type == "cuda":
        import torch

        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)
