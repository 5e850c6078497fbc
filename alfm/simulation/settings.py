"""The settings of conf/al_train.yaml beside its groups: what each may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt, MinLen

from alfm.errors import UserError
from alfm.options import Count, Device, Fits, Means, Name, PathName, Rounds, Seed, checked, shown
from alfm.simulation.budgets import Budget
from alfm.simulation.index_sets import IndexSets
from alfm.simulation.oracle import OracleOptions
from alfm.simulation.pools import PoolOptions

_Label = Annotated[int, Ge(-(2**63)), Lt(2**63)]


@dataclass(frozen=True)
@checked
class Splits:
    """`splits.`: which are the pool and the test set, and which labels mean none."""

    pool: Name
    test: Name
    unlabelled: Annotated[
        _Label | Sequence[_Label] | Literal["ask"] | None, Means("a whole number, a list of them, ask or null")
    ]


@dataclass(frozen=True)
@checked
class Iterations:
    """`iterations.`: how many rounds, and whether the budget doubles."""

    n: Rounds
    exp: bool


@dataclass(frozen=True)
@checked
class Stopping:
    """`stopping.`: what its rules do, and the items that they look at."""

    mode: Literal["observe", "stop"]
    sample: Count
    audit: Count


@dataclass(frozen=True)
@checked
class Tune:
    """`tune.`: how a head's options are chosen; `tune.from` and `tune.seed`: those of another run instead."""

    enabled: bool = True
    by: Literal["grid", "optuna"] = "grid"
    folds: Annotated[int, Ge(2), Le(100)] = 5
    trials: Fits = 50
    from_: PathName | None = None
    seed: Seed | None = None
    space: Annotated[
        Mapping[str, Sequence[float]] | None,
        Means("a mapping from options to lists of numbers, such as {strength:[1,10]},"),
    ] = None

    def __post_init__(self) -> None:
        if self.seed is not None and self.from_ is None:
            raise UserError(f"tune.seed={self.seed}: name the run whose seed this is with tune.from=RUN.")
        if not self.active and (self.by, self.folds, self.trials, self.space) != ("grid", 5, 50, None):
            raise UserError("tune.by, folds, trials and space count where heads are tuned: add tune=true.")
        if self.from_ is not None and (self.by, self.folds, self.trials, self.space) != ("grid", 5, 50, None):
            raise UserError("tune.from= uses what another run chose: leave tune.by, folds, trials and space out.")

    @property
    def active(self) -> bool:
        return self.enabled or self.from_ is not None


@dataclass(frozen=True)
@checked
class Held:
    """`validation.`: items that are paid for and not trained on."""

    size: Annotated[float, Ge(0), Le(10**9)] = 0
    unit: Literal["labels", "class", "share"] = "labels"


_SEEDS = Means("a list of whole numbers that are not negative, such as seeds=[1,10,100],")


@dataclass(frozen=True)
@checked
class Settings:
    """See conf/al_train.yaml."""

    cache: PathName | None
    splits: Splits
    seeds: Annotated[Seed | Annotated[Sequence[Seed], MinLen(1)], _SEEDS]
    iterations: Iterations
    budget: Budget
    pool: PoolOptions
    oracle: OracleOptions
    stopping: Stopping
    index_sets: IndexSets
    tune: Tune
    validation: Held
    train_views: bool
    warm_start: bool
    device: Device
    memory: Literal["auto", "device", "host", "file"]
    keep_geometry: bool
    force: bool

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int) and len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds={shown(self.seeds)}: give different ones, a seed twice is the same run twice.")
