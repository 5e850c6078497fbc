"""Curves in TensorBoard (extra `tensorboard`): `tensorboard --logdir LOG_DIR` while the run goes on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alfm.callbacks.base import Callback, Round, Run
from alfm.errors import UserError
from alfm.options import PathName, checked


@dataclass
@checked
class TensorBoard(Callback):
    """A curve per seed and metric over the labels paid for, and the seconds of each round over rounds.

    folder: where events go, one folder a run and seed; None: `tensorboard` in the run's own. UserError without the
    package.
    """

    folder: PathName | None = None

    def __post_init__(self) -> None:
        self._writers: dict[Path, Any] = {}

    def on_round(self, run: Run, round: Round) -> None:
        place = run.path / "tensorboard" if self.folder is None else Path(self.folder).expanduser() / run.path.name
        for one in round.seeds:
            writer = self._writer(place / f"seed-{one.seed}")
            for name, value in one.metrics.items():
                writer.add_scalar(name, value, one.num_labeled)
            writer.flush()
            if one.ended is not None:
                self._writers.pop(place / f"seed-{one.seed}").close()
        writer = self._writer(place)
        for part in ("fit", "query", "eval"):
            writer.add_scalar(f"seconds/{part}", getattr(round, f"{part}_seconds"), round.round)
        writer.flush()

    def _writer(self, place: Path) -> Any:
        if place not in self._writers:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as missing:
                raise UserError(
                    f"callback=tensorboard needs the package tensorboard ({missing}): pip install 'alfm[tensorboard]'."
                ) from None
            self._writers[place] = SummaryWriter(str(place))
        return self._writers[place]
