"""Joins reader, mapper and writer over the parts this worker can claim, then waits for the others and finalises."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from alfm.cache.layout import rows_not_finite
from alfm.cache.merge import Merged, merge
from alfm.cache.parts import PartsFolder
from alfm.datasets.ids import escape
from alfm.errors import UserError
from alfm.extraction.decoding import Decoder
from alfm.extraction.encoding import Encoder, Pending
from alfm.extraction.loading import BatchRows, Items, Loaded, load, tasks_of
from alfm.extraction.plan import Plan
from alfm.extraction.storing import Encoded, Store

_POLL_SECONDS = 0.3


class Runner:
    """One worker. `advance(rows)` is called with every batch, `settled(rows)` with what all workers have finished."""

    def __init__(
        self,
        plan: Plan,
        folder: PartsFolder,
        items: Items,
        encoder: Encoder,
        num_workers: int,
        on_error: str = "stop",
        advance: Callable[[int], None] = lambda rows: None,
        settled: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self.plan, self.folder, self.items, self.encoder = plan, folder, items, encoder
        self.num_workers, self.on_error, self.advance, self.settled = num_workers, on_error, advance, settled
        self.finished: Callable[[int], None] = lambda part: None
        """Called with each part that this worker has finished, in another thread."""
        self.decoder = Decoder(encoder.backbone, encoder.device) if items.for_decoder else None
        self.labels = {name: np.asarray(split.labels) for name, split in items.splits.items()}
        self.ids: dict[str, Sequence[str]] = {name: storable(split.ids) for name, split in items.splits.items()}

    def run(self, shard: tuple[int, int] | None = None) -> Merged | None:
        """Compute parts until none of this worker's share is left, then finalise if all shares are done.

        Returns what was merged, or None when parts of other shards are missing. An error may come from another worker
        having finished and removed the folder: ask `PartsFolder.finished_by_another`.
        """
        share = range(len(self.plan.parts)) if shard is None else range(shard[0], len(self.plan.parts), shard[1])
        self.compute(share)
        return self.finalise() if set(range(len(self.plan.parts))) <= self.folder.done() else None

    def compute(self, share: range) -> None:
        """Until all parts of `share` are there: compute what can be claimed, wait for what others are at."""
        while not set(share) <= self.folder.done():
            first = self.folder.claim_first(share)
            if first is None:
                self._settle()
                time.sleep(_POLL_SECONDS)  # the rest is in other hands; a dead one's parts fall to us
            else:
                self._work(first, share)

    def finalise(self) -> Merged:
        """Merge the parts, once no other worker is at it."""
        while not self.folder.claims.claim("finalise"):
            time.sleep(_POLL_SECONDS)
        return merge(self.folder, self.plan.attributes)

    def _work(self, first: int, share: range) -> None:
        """Reader -> mapper -> writer, one batch behind the device so that it always has the next one."""
        pending: tuple[Loaded, Pending] | None = None
        device = self.encoder.device
        spread = self.plan.settings.get("spread", 0.0)  # a plan made by an earlier version has none
        with Store(self.folder, self.labels, self.ids, self._dtype(), self._finished_part, spread) as store:
            for loaded in load(self.items, self._tasks(first, share), self.num_workers, device):
                loaded = self._decoded(loaded)
                self._check(loaded)
                started = None
                if loaded.rows:
                    views = self.plan.views(loaded.task.split)
                    size, full = len(loaded.rows) * views, self.plan.batch_size * views
                    started = (loaded, self.encoder.start(loaded.batch, size, full))
                if pending is not None:
                    store.put(self._finish(*pending))
                pending = started
                if started is None:
                    store.put(self._nothing(loaded))
            if pending is not None:
                store.put(self._finish(*pending))

    def _tasks(self, first: int, share: range) -> Iterator[BatchRows]:
        part: int | None = first
        while part is not None:
            yield from tasks_of(part, self.plan)
            part = self.folder.claim_first(share)

    def _decoded(self, loaded: Loaded) -> Loaded:
        """With images in place of files, where the device decodes."""
        if self.decoder is None or loaded.batch is None:
            return loaded
        batch, failures, on_cpu = self.decoder.decode(loaded.batch, self.items.splits[loaded.task.split], loaded.rows)
        lost = {place for place, _ in failures}
        kept = [place for place in range(len(loaded.rows)) if place not in lost]
        return loaded._replace(
            batch=batch,
            rows=[loaded.rows[place] for place in kept],
            marks=[loaded.marks[place] for place in kept],
            failures=[*loaded.failures, *((loaded.rows[place], reason) for place, reason in failures)],
            on_cpu=on_cpu,
        )

    def _check(self, loaded: Loaded) -> None:
        if loaded.mistake is not None:
            self.folder.give_up(loaded.mistake)
            raise UserError(loaded.mistake)
        if loaded.failures and self.on_error == "stop":
            row, reason = loaded.failures[0]
            item = self.ids[loaded.task.split][row]
            named = reason if item in reason else f"{item}: {reason}"
            raise UserError(f"{named.rstrip('.')}. Leave such items out with on_error=skip.")

    def _finish(self, loaded: Loaded, pending: Pending) -> Encoded:
        features, events = self.encoder.finish(pending)
        task, rows, marks, views = loaded.task, loaded.rows, loaded.marks, self.plan.views(loaded.task.split)
        if views > 1:
            features = features.reshape(len(rows), views, -1)
        skipped = self._skipped(loaded)
        bad = rows_not_finite(features)
        if bad.any():
            ids = [self.ids[task.split][rows[index]] for index in np.flatnonzero(bad)]
            if self.on_error == "stop":
                raise UserError(
                    f"{self.encoder.backbone.name} gives NaN or Inf for {ids[0]}, in float32 too: look at that item, "
                    "or leave such items out with on_error=skip."
                )
            skipped += [(item, "the model gives NaN or Inf") for item in ids]
            kept = np.flatnonzero(~bad).tolist()
            features, rows, marks = features[kept], [rows[place] for place in kept], [marks[place] for place in kept]
        self.advance(task.stop - task.start)
        return Encoded(task, rows, features, skipped, events, marks, loaded.on_cpu)

    def _nothing(self, loaded: Loaded) -> Encoded:
        self.advance(loaded.task.stop - loaded.task.start)
        skipped = self._skipped(loaded)
        return Encoded(loaded.task, [], np.empty((0, 0), np.float32), skipped, [], on_cpu=loaded.on_cpu)

    def _skipped(self, loaded: Loaded) -> list[tuple[str, str]]:
        ids = self.ids[loaded.task.split]
        return [(ids[row], reason) for row, reason in loaded.failures]

    def _finished_part(self, part: int) -> None:
        self.finished(part)
        self._settle()

    def _settle(self) -> None:
        parts = self.plan.parts
        self.settled(sum(parts[index].stop - parts[index].start for index in self.folder.done()))

    def _dtype(self) -> np.dtype[Any]:
        return np.dtype(self.plan.settings["dtype"])


def storable(ids: Sequence[str]) -> Sequence[str]:
    """`ids` as they are, or all of them escaped when a name among them is no UTF-8 (see `alfm.datasets.ids`).

    All or none, so that the way back is known. `UserError` for a NUL character, which HDF5 strings end at.
    """
    wrong = next((text for text in ids if "\0" in text), None)
    if wrong is not None:
        raise UserError(f"The id {wrong!r} has a NUL character, which cannot be stored.")
    try:
        for text in ids:
            text.encode("utf-8")
    except UnicodeEncodeError:
        return [escape(text) for text in ids]
    return ids


def use_threads(device: torch.device, threads: int | None) -> None:
    """Fix the threads of the forward pass on the CPU: the order of its sums can depend on their number."""
    if device.type == "cpu" and threads:
        torch.set_num_threads(threads)
