"""Do the report's statistics cry wolf, or are they deaf?

A bank of random runs on a real cache: several streams from each of many initial sets, so that nothing but chance tells
two of them apart. Each draw takes some of the initial sets, gives one stream of each to "random" and one to each of
eleven strategies, and asks the report's functions what they make of them. A test at 5 % may find something in 67 of
1,000 draws (the 99 % bound), and one that finds something in fewer than 20 is deaf. Then one strategy is lifted.

    python benchmarks/false_alarms.py --cache features/cifar10/fastvit_t8.h5 --out logs/false_alarms --json PATH

Bank and draws are stored as they are made: with `--seconds` it ends after so many, and goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import describe, markdown

from alfm.metrics import areas_over_rounds
from alfm.results.against_random import against_random, runs_against_random
from alfm.results.aggregate import aggregate
from alfm.results.matrix import comparison_matrix
from alfm.results.pairing import Curves
from alfm.results.power import smallest_effect
from alfm.results.statistics import (
    ALPHA,
    better_in_bands,
    better_than_random,
    penalty_matrix,
    ranks_over_seeds,
    wilcoxon_holm,
)  # fmt: skip
from alfm.strategies.base import Strategy
from alfm.strategies.random import Random

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from alfm.strategies.query import Query

NAMES = ["random", *(f"strategy {i}" for i in range(1, 12))]
ONE = NAMES[1]
BOUND, FLOOR = 0.067, 0.02
CONTINUOUS = ("area, t-test", "low band, t-test", "middle band, t-test", "high band, t-test", "last round, t-test")
"""Tests whose p may be anything, so that at 5 % they find something in about 50 of 1,000 draws."""


class SameStarts(Strategy):
    """Cold starts drawn at random, the same ones for seeds that leave the same remainder by `starts`."""

    name = "same_starts"
    needs = ()
    needs_head = False
    stochastic = True

    def __init__(self, starts: int) -> None:
        self.starts = starts

    def select(self, query: Query, budget: int) -> Tensor:
        return Random().select(replace(query, seeds=[seed % self.starts for seed in query.seeds]), budget)


def main() -> int:
    arguments = parse()
    until = time.monotonic() + arguments.seconds
    arguments.out.mkdir(parents=True, exist_ok=True)
    files = [arguments.out / f"stream-{k:02}.csv" for k in range(len(NAMES))]
    fill_bank(arguments, files, until)
    if any(not file.exists() for file in files):
        print("the bank is not full yet: start again")
        return 1
    bank = read_bank(files)
    n = arguments.seeds
    found = drawn(arguments.out / f"draws-{n}.csv", arguments.draws, until, lambda t: wolf(bank, n, t))
    planted = drawn(arguments.out / f"planted-{n}.csv", arguments.draws, until, lambda t: deaf(bank, n, t))
    if min(len(found), len(planted)) < arguments.draws:
        print(f"{len(found)} and {len(planted)} of {arguments.draws} draws are made: start again")
        return 1
    lines, result = told(found, planted, bank.spread, arguments)
    print("\n".join(lines))
    if arguments.json:
        about = {"machine": describe("cpu"), "replicates": len(bank.accuracy) * len(NAMES), **result}
        arguments.json.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("logs/false_alarms"), help="where bank and draws go")
    parser.add_argument("--starts", type=int, default=36, help="initial sets in the bank, of twelve streams each")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seeds", type=int, default=20, help="initial sets of one draw")
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so many, to be started again")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures here")
    return parser.parse_args()


# -- bank and draws ----------------------------------------------------------------------------------------------------


def fill_bank(arguments: argparse.Namespace, files: list[Path], until: float) -> None:
    """Runs the streams that are not there yet; one file each."""
    import alfm

    missing = [(k, file) for k, file in enumerate(files) if not file.exists()]
    task = alfm.Simulation(arguments.cache) if missing else None
    for k, file in missing:
        if time.monotonic() > until:
            return
        start = SameStarts(arguments.starts)
        seeds = [k * arguments.starts + i for i in range(arguments.starts)]
        rows = alfm.simulate(task, "random", init_strategy=start, seeds=seeds, rounds=arguments.rounds)
        part = file.with_suffix(".part")
        rows.assign(stream=k, seed=rows["seed"] % arguments.starts).to_csv(part, index=False)
        part.rename(file)
        print(f"stream {k + 1} of {len(files)}", flush=True)


def read_bank(files: list[Path]) -> Bank:
    import pandas as pd

    bank = pd.concat([pd.read_csv(file, keep_default_na=False) for file in files])
    return Bank(bank.sort_values(["seed", "stream", "round"], ignore_index=True))


class Bank:
    """Frames of `streams`, sorted by start, stream and round, and what of them curves are made of."""

    def __init__(self, frame: pd.DataFrame) -> None:
        shape = frame["seed"].nunique(), len(NAMES), -1
        self.frame = frame
        self.accuracy = frame["accuracy"].to_numpy().reshape(shape)
        self.picked = frame["picked"].to_numpy(dtype=object).reshape(shape)
        self.initial = frame["initial"].to_numpy(dtype=object).reshape(shape)[:, 0, 0]
        self.num_labeled = frame["num_labeled"].to_numpy().reshape(shape)[0, 0]

    def dealt(self, seeds: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Some initial sets (seeds,), and which stream of each every strategy gets (seeds, strategies)."""
        chosen = rng.choice(len(self.accuracy), seeds, replace=False)
        return chosen, rng.permuted(np.tile(np.arange(len(NAMES)), (seeds, 1)), axis=1)

    def curves(self, chosen: np.ndarray, dealt: np.ndarray) -> Curves:
        """As `paired_curves` has them, which every fiftieth draw is held against."""
        values, picked = (of[chosen[:, None], dealt].swapaxes(0, 1) for of in (self.accuracy, self.picked))
        return Curves(
            NAMES, chosen.tolist(), self.num_labeled, values, "accuracy", self.initial[chosen], picked
        )  # fmt: skip

    def rows(self, chosen: np.ndarray, dealt: np.ndarray) -> pd.DataFrame:
        """The same as the report reads it from run folders."""
        rounds = self.accuracy.shape[2]
        places = np.arange(len(self.frame)).reshape(self.accuracy.shape)
        at = places[chosen[:, None], dealt].swapaxes(0, 1)  # strategy, seed, round
        names = np.repeat(NAMES, len(chosen) * rounds)
        return self.frame.iloc[at.ravel()].assign(query_strategy=names).drop(columns="stream")

    @property
    def spread(self) -> float:
        """Standard deviation of the difference of two streams from one initial set, in points of area."""
        return float(100 * np.sqrt(2 * areas_over_rounds(self.accuracy).var(axis=1, ddof=1).mean()))


def drawn(file: Path, draws: int, until: float, draw: Any) -> pd.DataFrame:
    """What every draw found, those of earlier starts with it."""
    import pandas as pd

    known = pd.read_csv(file) if file.exists() else pd.DataFrame()
    new: list[Mapping[str, Any]] = []
    for t in range(len(known), draws):
        if time.monotonic() > until:
            break
        new.append(draw(t))
    table = pd.concat([known, pd.DataFrame(new)], ignore_index=True)
    if len(table):
        table.to_csv(file, index=False)
    return table


def wolf(bank: Bank, seeds: int, t: int) -> dict[str, bool]:
    """Which tests found something where there is nothing."""
    hand = bank.dealt(seeds, np.random.default_rng([0, t]))
    curves = bank.curves(*hand)
    verdicts, bands = against_random(curves), better_in_bands(curves)
    if t % 50 == 0:
        same_from_runs(bank.rows(*hand), verdicts, bands)
    pair = replace(curves, strategies=NAMES[:2], values=curves.values[:2], picked=curves.picked[:2])
    pairs = comparison_matrix(pair).set_index(["a", "b"])
    last = penalty_matrix(pair, checkpoints=[-1])
    gains = aggregate({"one": pair}, seed=t).set_index("strategy").loc[ONE]
    own = bands[bands["strategy"] == ONE].set_index("band")["p"]
    families = bands.groupby("band")
    return {
        "area, t-test": float(verdicts.set_index("strategy").loc[ONE, "p"]) < ALPHA,
        **{f"{band} band, t-test": float(own[band]) < ALPHA for band in own.index},
        "last round, t-test": last.loc[ONE, "random"] + last.loc["random", ONE] > 0,
        "area, Wilcoxon": float(pairs.loc[(ONE, "random"), "p"]) < ALPHA,
        "ranks, Friedman": ranks_over_seeds(curves).friedman_p < ALPHA,
        "interquartile mean, interval": not gains["low"] <= 0 <= gains["high"],
        "improvement, interval": not gains["improvement_low"] <= 0.5 <= gains["improvement_high"],
        "any of eleven better, area, Holm": (verdicts["verdict"] == "better").any(),
        "any of eleven better or worse, area, Holm": (verdicts["p_holm"] < ALPHA).any(),
        **{f"any of eleven, {band} band, Holm": (own["p_holm"] < ALPHA).any() for band, own in families},
        "any of 66 pairs, Wilcoxon, Holm": (wilcoxon_holm(curves)["p_holm"] < ALPHA).any(),
    }


def same_from_runs(df: pd.DataFrame, verdicts: pd.DataFrame, bands: pd.DataFrame) -> None:
    """The report's way from runs to the same numbers; an AssertionError where it is another."""
    for one, other in ((runs_against_random(df), verdicts), (better_than_random(df), bands)):
        keys = [key for key in ("band", "strategy") if key in other]
        one, other = (table.sort_values(keys)[["gap", "p", "p_holm"]].to_numpy() for table in (one, other))
        np.testing.assert_allclose(one, other)


def deaf(bank: Bank, seeds: int, t: int) -> dict[str, bool]:
    """Is `ONE` found better where it is lifted? By two points, with the bank's spread and with one of two points, and
    by what the report would say that the design finds with 80 %."""
    curves, spread = bank.curves(*bank.dealt(seeds, np.random.default_rng([1, t]))), bank.spread
    pair = replace(
        curves, strategies=NAMES[:2], seeds=curves.seeds[:10], values=curves.values[:2, :10],
        initial=curves.initial[:10], picked=curves.picked[:2, :10],
    )  # fmt: skip
    promised = smallest_effect(spread, seeds, ALPHA / (len(NAMES) - 1))
    return {
        "two points, the bank's spread": better(lifted(curves, 1.0, 2.0)),
        "two points, a spread of two points": better(lifted(curves, 2.0 / spread, 2.0)),
        "two points, a spread of two points, ten seeds and no other strategy": better(lifted(pair, 2.0 / spread, 2.0)),
        f"{promised:.2f} points, which the design finds with 80 %": better(lifted(curves, 1.0, promised)),
    }


def lifted(curves: Curves, stretch: float, points: float) -> Curves:
    """`ONE` with its differences from random stretched, and so many points added to every round."""
    values = curves.values.copy()
    values[1] = values[0] + stretch * (values[1] - values[0]) + points / 100
    return replace(curves, values=values)


def better(curves: Curves) -> bool:
    """As the report says it, Holm's correction over all strategies there included."""
    return str(against_random(curves).set_index("strategy").loc[ONE, "verdict"]) == "better"


# -- what is told ------------------------------------------------------------------------------------------------------


def told(
    found: pd.DataFrame, planted: pd.DataFrame, spread: float, arguments: argparse.Namespace
) -> tuple[list[str], dict[str, Any]]:
    draws = arguments.draws
    counts = {name: int(found[name].sum()) for name in found}
    shares = {name: float(planted[name].mean()) for name in planted}
    bound, floor = round(BOUND * draws), round(FLOOR * draws)
    rows = []
    for name, count in counts.items():
        least = floor if name in CONTINUOUS else 0
        rows.append([name, count, f"{least} to {bound}", "" if least <= count <= bound else "!"])
    lines = [
        f"{draws} draws of {arguments.seeds} of {arguments.starts} initial sets, {len(NAMES)} streams each; standard "
        f"deviation of the difference of two streams {spread:.2f} points of area.",
        "",
        *markdown(["test", "found something", "wanted", ""], rows),
        "",
        *markdown(["planted in one of eleven strategies", "found"], [[name, f"{s:.1%}"] for name, s in shares.items()]),
    ]
    return lines, {"draws": draws, "seeds": arguments.seeds, "spread": spread, "found": counts, "planted": shares}


if __name__ == "__main__":
    sys.exit(main())
