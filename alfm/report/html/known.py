"""What the functions of `alfm.results` say of one setting, asked once; sections and sentences read it here."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.stops import stops_of
from alfm.results.against_random import runs_against_random
from alfm.results.matrix import matrix_of
from alfm.results.pairing import Curves, paired_curves
from alfm.results.pairs import curves_of
from alfm.results.replays import replayed
from alfm.results.replicates import REPLICATE, counted, units
from alfm.results.setting import REFERENCE, Setting, summary
from alfm.results.statistics import better_than_random, label_efficiency, mean_interval, regret

if TYPE_CHECKING:
    import pandas as pd

ORACLE = "boss"


def shown(strategy: str) -> str:
    """A strategy's name in tables of gains: one that knows hidden labels is not to be taken for one of the others."""
    return f"{strategy} (oracle)" if strategy.partition(" (")[0] == ORACLE else strategy


@dataclass(frozen=True)
class Known:
    """One setting. stem: of its files. What cannot be told is None, and `why_not` says why in a sentence."""

    setting: Setting
    metric: str
    stem: str

    @property
    def shared(self) -> pd.DataFrame:
        """Runs with the cold start that most strategies have; empty where rules could end all runs."""
        return self.setting.shared

    @property
    def strategies(self) -> list[str]:
        """Best area first."""
        return [str(name) for name in self.numbers["strategy"]]

    @property
    def to_choose(self) -> list[str]:
        """Those that somebody can choose, best area first: neither the oracle nor a replay of another run's picks."""
        kinds = self.shared.drop_duplicates("strategy").set_index("strategy")
        query, options = kinds["query_strategy"], kinds["query_options"]
        return [s for s in self.strategies if query[s] not in (ORACLE, "replay") and replayed(options[s]) is None]

    @cached_property
    def numbers(self) -> pd.DataFrame:
        """`summary` of them."""
        return summary(self.shared, self.metric)

    @cached_property
    def _compared(self) -> tuple[pd.DataFrame | None, pd.DataFrame | None, str]:
        if self.shared["strategy"].nunique() < 2:
            return None, None, "there is one strategy, and nothing to compare it with"
        try:
            matrix = matrix_of(self.shared, self.metric, "strategy")
            if REFERENCE not in set(self.shared["strategy"]):
                return matrix, None, f"{REFERENCE} was not run, so that no gain over it can be told"
            return matrix, runs_against_random(self.shared, self.metric, "strategy"), ""
        except UserError as reason:
            return None, None, str(reason)

    @property
    def matrix(self) -> pd.DataFrame | None:
        """`matrix_of` them."""
        return self._compared[0]

    @property
    def tests(self) -> pd.DataFrame | None:
        """`runs_against_random` of them."""
        return self._compared[1]

    @property
    def why_not(self) -> str:
        """Why there is no matrix or no test against random; empty where there are both."""
        return self._compared[2]

    @cached_property
    def bands(self) -> pd.DataFrame | None:
        """`better_than_random` in the bands of rounds."""
        return None if self.tests is None else better_than_random(self.shared, metric=self.metric, label="strategy")

    @cached_property
    def curves(self) -> Curves | None:
        """All strategies over the seeds and rounds that all of them have."""
        if self.matrix is None:
            return None
        try:
            return paired_curves(self.shared, self.metric, "strategy")
        except UserError:  # no seed is common to all of them
            return None

    @cached_property
    def pairs(self) -> dict[str, Curves]:
        """Each strategy with random: curves that hold both, over the replicates and rounds that the two have."""
        if self.tests is None:
            return {}
        both = [(name, REFERENCE) for name in self.strategies if name != REFERENCE]
        return {name: curves for name, _, curves in curves_of(self.shared, both, self.metric, "strategy")}

    @cached_property
    def gains(self) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Strategy -> labels, points above random and half of the 95 % t-interval, each (T,)."""
        found = {}
        for name, curves in self.pairs.items():
            gap = 100 * curves.sign * (curves.of(name) - curves.of(REFERENCE))
            at = [curves.strategies.index(one) for one in (name, REFERENCE)]
            of_round = [units(curves.initial, *curves.picked[at, :, t]) for t in range(gap.shape[1])]
            ends = [mean_interval(gap[:, t], unit=unit) for t, unit in enumerate(of_round)]
            middle, half = np.array(ends).T
            found[name] = (curves.num_labeled, middle, half)
        return found

    @cached_property
    def efficiency(self) -> pd.DataFrame | None:
        """`label_efficiency` of each strategy beside random."""
        import pandas as pd

        tables = {id(curves): label_efficiency(curves) for curves in self.pairs.values()}
        own = [tables[id(curves)].query("strategy == @name") for name, curves in self.pairs.items()]
        return pd.concat(own, ignore_index=True) if own else None

    @cached_property
    def regrets(self) -> tuple[dict[str, float], str]:
        """`regret` beside the oracle, or why there is none; neither where no oracle was run."""
        if self.curves is None or not {ORACLE, REFERENCE} <= set(self.curves.strategies):
            return {}, ""
        try:
            return regret(self.curves, ORACLE, REFERENCE), ""
        except UserError as reason:
            return {}, f"No regret: {reason}."

    @cached_property
    def stops(self) -> pd.DataFrame:
        """`stops_of` the setting."""
        return stops_of(self.setting, self.metric)

    @property
    def scale(self) -> Scale:
        """How the metric is shown, for numbers that are in that unit already."""
        given = METRICS[self.metric].scale
        return Scale(digits=given.digits, unit=given.unit)

    @property
    def words(self) -> str:
        """The metric in words, with its unit."""
        unit = METRICS[self.metric].scale.unit
        return self.metric.replace("_", " ") + (f" ({unit})" if unit else "")

    @property
    def points(self) -> str:
        """What a difference of 1 is called."""
        return "points" if METRICS[self.metric].scale.unit == "%" else "hundredths"

    @property
    def folders(self) -> list[Path]:
        """Run folders of the setting, those that rules could end too."""
        parts = (self.setting.shared, self.setting.own, self.setting.stopped)
        return [Path(path) for path in dict.fromkeys(p for part in parts if "path" in part for p in part["path"])]

    @property
    def count(self) -> int:
        """How many replicates there are, of all strategies together."""
        return len(self.shared[[c for c in REPLICATE if c in self.shared]].drop_duplicates())

    @property
    def replicates(self) -> str:
        """The same in words."""
        return counted(self.count, self.shared["draw"].nunique() if "draw" in self.shared else 1)
