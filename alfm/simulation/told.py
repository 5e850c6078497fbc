"""What callbacks are told of a run's rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from alfm.callbacks.base import Callback, Round, Run, SeedRound
from alfm.errors import UserError
from alfm.simulation.loop import Round as Made


class Telling:
    """Hands rounds on, as soon as they are stored. UserError for what a callback raises."""

    def __init__(self, callbacks: Mapping[str, Callback], run: Run, cache_rows: np.ndarray) -> None:
        self.callbacks, self.run, self.cache_rows = callbacks, run, cache_rows

    def __call__(self, made: Made, seeds: Sequence[int]) -> None:
        reasons = made.reasons or [made.ended] * len(seeds)
        told = Round(
            made.round,
            [
                SeedRound(seed, made.num_labeled, made.metrics[i], self.cache_rows[made.picks[i]], reasons[i])
                for i, seed in enumerate(seeds)
            ],
            made.fit_seconds, made.query_seconds, made.eval_seconds,
        )  # fmt: skip
        for name, callback in self.callbacks.items():
            try:
                callback.on_round(self.run, told)
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"callback.{name} failed after round {told.round} ({type(error).__name__}: {error}): the round is "
                    "stored, so mend it, or leave it out, and run again."
                ) from error
