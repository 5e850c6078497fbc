"""The settings of conf/al_train.yaml beside its groups: what each may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Lt, MinLen

from alfm.errors import UserError
from alfm.options import Count, Device, Means, Name, PathName, Rounds, Seed, checked, shown
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
    train_views: bool
    warm_start: bool
    device: Device
    memory: Literal["auto", "device", "host", "file"]
    keep_geometry: bool
    force: bool

    def __post_init__(self) -> None:
        if not isinstance(self.seeds, int) and len(set(self.seeds)) < len(self.seeds):
            raise UserError(f"seeds={shown(self.seeds)}: give different ones, a seed twice is the same run twice.")
