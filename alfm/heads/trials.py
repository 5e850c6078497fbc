"""Candidates drawn at random by Optuna, their study kept in a file (extra `tune`).

Trial t of a seed's round draws from a stream of its own, so that a search that was killed goes on to what it would have
found.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alfm.errors import UserError
from alfm.heads.tuned import Options, Tried, Try, points
from alfm.streams import integer

TOGETHER = 10
"""Trials that are fitted, and stored, together."""


@dataclass
class Trials:
    """Search `tune.by=optuna`: so many random trials between the least and the largest value worth trying, on a
    logarithmic scale where both are positive and far apart.

    file: a journal that studies are kept in, one for each seed and round; None: in memory. What the trials were worth
    is taken from it where it is there.
    """

    number: int = 50
    file: Path | None = None
    _storage: Any = field(default=None, init=False, repr=False)

    def tried(
        self, seed: int, round: int, default: Options, space: Mapping[str, Sequence[float]], judge: Try
    ) -> tuple[list[Options], Tried]:
        """See `alfm.heads.tuned.Search`. Raises UserError without Optuna, and for a journal that is none."""
        optuna = _optuna()
        study = optuna.create_study(
            storage=self._store(), study_name=f"seed {seed}, round {round}", direction="minimize", load_if_exists=True
        )
        known = {int(one.user_attrs["number"]): one for one in study.trials if one.state.is_finished()}
        candidates: list[Options] = [default]
        found = [judge([default])]
        for start in range(0, self.number, TOGETHER):
            numbers = range(start, min(start + TOGETHER, self.number))
            drawn = [_drawn(optuna, integer(seed, round, f"tuning trial {t}"), space) for t in numbers]
            stored = [known.get(t) for t in numbers]
            if all(one is not None for one in stored):
                tried = _read(stored)
            else:
                tried = judge(drawn)
                for t, own, losses, hits in zip(numbers, drawn, *tried, strict=True):
                    if t not in known:
                        _store(optuna, study, t, own, space, losses, hits)
            candidates += drawn
            found.append(tried)
        return candidates, Tried(*(np.concatenate(one) for one in zip(*found, strict=True)))

    def _store(self) -> Any:
        """The journal, opened once."""
        if self._storage is None and self.file is not None:
            from optuna.storages import JournalStorage
            from optuna.storages.journal import JournalFileBackend

            held: Any = _Held()
            try:
                _whole_lines(self.file)
                self._storage = JournalStorage(JournalFileBackend(str(self.file), lock_obj=held))
            except (OSError, ValueError, KeyError) as error:
                raise UserError(f"{self.file} cannot be read ({error}); run again with force=true.") from None
        return self._storage


class _Held:
    """A run's folder has one process at a time already; a lock file would outlive a killed one."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _optuna() -> Any:
    try:
        import optuna
    except ImportError:
        raise UserError("tune.by=optuna needs Optuna: pip install 'alfm[tune]'.") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna


def _scales(optuna: Any, space: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    return {
        name: optuna.distributions.FloatDistribution(low, high, log=low > 0 and high > 20 * low)
        for name, low, high in points(space)
    }


def _drawn(optuna: Any, seed: int, space: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """One random point, by Optuna's own sampler."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    return dict(study.ask(_scales(optuna, space)).params)


def _store(
    optuna: Any,
    study: Any,
    number: int,
    params: Options,
    space: Mapping[str, Sequence[float]],
    losses: np.ndarray,
    hits: np.ndarray,
) -> None:
    """One finished trial, written whole."""
    texts = {"losses": json.dumps(losses.tolist()), "hits": json.dumps(hits.astype(int).tolist())}
    study.add_trial(
        optuna.trial.create_trial(
            params=dict(params), distributions=_scales(optuna, space), value=float(losses.mean()),
            user_attrs={"number": number, "accuracy": float(hits.mean()), **texts},
        )
    )  # fmt: skip


def _read(stored: Sequence[Any]) -> Tried:
    texts = [[json.loads(one.user_attrs[name]) for one in stored] for name in ("losses", "hits")]
    return Tried(*(np.array(one, dtype=np.float64) for one in texts))


def _whole_lines(file: Path) -> None:
    """Cut a line off that a kill left half written."""
    if not file.exists():
        return
    with file.open("rb+") as lines:
        data = lines.read()
        end = data.rfind(b"\n") + 1
        if end < len(data):
            lines.truncate(end)
