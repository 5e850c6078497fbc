"""The writer: a background thread that turns features into parts on disk."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import NamedTuple

import numpy as np

from alfm.cache.layout import FLOAT16_MAX
from alfm.cache.parts import PartsFolder, PartWriter
from alfm.cache.rounding import Rounding
from alfm.cache.writer import cannot_write
from alfm.errors import UserError
from alfm.extraction.loading import BatchRows

_WAITING_BATCHES = 4
"""Batches between the device and the disk: all that is kept in memory of a part."""
_FLOAT32 = "use cache.dtype=float32 force=true, which makes the parts that are done again."


class Encoded(NamedTuple):
    """The features of one task: float32 (b, D) or (b, V, D) for the `rows` that have some."""

    task: BatchRows
    rows: Sequence[int]
    features: np.ndarray
    skipped: list[tuple[str, str]]
    events: list[str]
    marks: Sequence[str] = ()
    """Of the content of each of `rows`."""
    on_cpu: Mapping[str, int] = {}
    """See `Loaded.on_cpu`."""


class Store:
    """Takes batches part by part, in order, and finishes a part with its last batch. Use as a context manager."""

    def __init__(
        self,
        folder: PartsFolder,
        labels: Mapping[str, np.ndarray],
        ids: Mapping[str, Sequence[str]],
        dtype: np.dtype,
        finished: Callable[[int], None] = lambda part: None,
        spread: float = 0.0,
    ) -> None:
        """`spread`: of the features of the whole data set, as a sample told it (see `Rounding`)."""
        self._folder, self._labels, self._ids, self._dtype, self._finished = folder, labels, ids, dtype, finished
        self._queue: queue.Queue[Encoded | None] = queue.Queue(maxsize=_WAITING_BATCHES)
        self._error: BaseException | None = None
        self._part: PartWriter | None = None
        self._spread, self._rounding = spread, Rounding(dtype, spread)
        self._thread = threading.Thread(target=self._run, name="alfm-writer", daemon=True)

    def put(self, encoded: Encoded) -> None:
        """Hand over one batch; waits while the disk is behind. Raises what went wrong with an earlier one."""
        if not self._thread.is_alive() and self._error is None:
            self._thread.start()
        self._queue.put(encoded)
        self._raise()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
        if self._part is not None:
            self._part.abort()
        if kind is None:
            self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (encoded := self._queue.get()) is not None:
            if self._error is not None:
                continue  # keep taking, so that nobody waits for ever
            try:
                self._write(encoded)
            except FileNotFoundError as error:  # the folder is gone: the runner knows why
                self._error = error
            except OSError as error:
                self._error = cannot_write(self._folder.target, error)
            except BaseException as error:
                self._error = error

    def _write(self, encoded: Encoded) -> None:
        task, rows = encoded.task, np.asarray(encoded.rows, dtype=np.int64)
        if self._part is None:
            self._part = PartWriter(self._folder.part_path(task.part))
            self._rounding = Rounding(self._dtype, self._spread)
        ids = [self._ids[task.split][row] for row in rows]
        features = self._cast(encoded.features, ids)
        self._part.append(features, self._labels[task.split][rows], ids, encoded.marks)
        self._part.note(encoded.skipped, [f"part {task.part}: {event}" for event in encoded.events])
        self._part.count_on_cpu(encoded.on_cpu)
        if task.last:
            self._check_rounding(task)
            self._part.finish()
            self._part = None
            self._folder.count_computed(task.part)
            self._finished(task.part)

    def _cast(self, features: np.ndarray, ids: Sequence[str]) -> np.ndarray:
        if self._dtype == np.float16 and features.size:
            largest = np.abs(features.reshape(len(features), -1)).max(axis=1)
            if largest.max() > FLOAT16_MAX:
                worst = int(largest.argmax())
                raise UserError(f"The features of {ids[worst]} reach {largest[worst]:.4g}, beyond float16: {_FLOAT32}")
        self._rounding.add(features)
        return features.astype(self._dtype)

    def _check_rounding(self, task: BatchRows) -> None:
        if loss := self._rounding.loss():
            where = f"part {task.part} ({task.split}, to row {task.stop - 1})"
            raise UserError(f"{self._dtype} {loss} in {where}: {_FLOAT32}")
