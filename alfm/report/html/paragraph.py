"""What the tables say, in plain sentences for somebody who has never seen such a report.

Every number and every name comes from the frames that the tables show; nothing is worked out here but which to name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.report.html.known import Known
from alfm.report.html.sections.backbones import SameItems
from alfm.results.backbones import NEAR
from alfm.results.matrix import MIN_CACHES
from alfm.results.setting import REFERENCE
from alfm.results.statistics import BANDS, MIN_SEEDS

if TYPE_CHECKING:
    import pandas as pd

BETTER, WORSE = "better", "worse"
_UNTESTED = ("too few seeds", "one start", "few starts")


def said_of(known: Known) -> list[str]:
    """Sentences about one setting: what to use, by how much and where it beats random, what it saves, and how sure."""
    if not len(known.shared):
        return ["Stopping rules could end all of these runs, so there are no whole curves to compare."]
    tests = known.tests
    if tests is None or not len(usable(known)):
        return [_what(known), *_without_tests(known), *_left_out(known)]
    tests = tests[tests["strategy"].isin(usable(known))]
    if tests["verdict"].isin(_UNTESTED).all():
        return [_what(known), *_too_few(known, tests), *_left_out(known)]
    said = [_what(known), *_best(known, tests), *_rest(tests), *_left_out(known)]
    effects = tests["smallest_effect"].dropna()
    if len(effects) and effects.max() > 0:
        said.append(
            f"With these seeds, a true gain of {_number(effects.max())} {known.points} over {REFERENCE} is found four "
            "times in five, whichever strategy has it; a smaller one may be missed."
        )
    return said


def usable(known: Known) -> list[str]:
    """Strategies that may be recommended, best area first."""
    return [name for name in known.to_choose if name != REFERENCE]


def _what(known: Known) -> str:
    labels, k = known.shared["num_labeled"], known.shared["strategy"].nunique()
    return (
        f"{known.setting.data}: {_count(k, 'strategy', 'strategies')}, from {int(labels.min())} to {int(labels.max())} "
        f"labels, {known.replicates}."
    )


def _left_out(known: Known) -> list[str]:
    """Runs of this setting that no sentence before is about, and why."""
    why = {
        f"with another cold start than {known.setting.start}": known.setting.own,
        "that stopping rules could end": known.setting.stopped,
    }
    named = {words: dict.fromkeys(map(str, runs["strategy"])) for words, runs in why.items() if len(runs)}
    return [f"Left out of this are runs {words}: {_listed(names)}." for words, names in named.items()]


def _without_tests(known: Known) -> list[str]:
    best = next(iter(usable(known) or known.strategies))
    said = [f"Nothing is said about gains over {REFERENCE}: {known.why_not or 'no strategy that can be used was run'}."]
    if known.matrix is None:
        return said
    rivals = _alike(known, best)
    said.append(f"Of those that were run, {best} has the best {known.metric.replace('_', ' ')}, averaged over rounds.")
    own = known.matrix[(known.matrix["a"] == best) & known.matrix["b"].isin(usable(known))]
    if len(own) and (least := int(own["units"].min())) < MIN_SEEDS:
        said.append(f"That is no verdict: it takes {MIN_SEEDS} seeds that differ, and here are {least}.")
    if rivals:
        said.append(f"Not told apart from {best}: {_listed(rivals)}.")
    return said


def _too_few(known: Known, tests: pd.DataFrame) -> list[str]:
    top = tests.iloc[0]
    many, units = int(tests["seeds"].max()), int(tests["units"].max())
    repeats = f", of which {units} differ" if units < many else ""
    said = [
        f"Whether any strategy beats {REFERENCE} cannot be told yet: tests need {MIN_SEEDS} seeds that differ, and "
        f"here are {many}{repeats}."
    ]
    if top["gap"] > 0:
        said.append(
            f"{top['strategy']} is ahead so far, by {_number(top['gap'])} {known.points}{_interval(top)}; that is no "
            "verdict."
        )
    return said


def _best(known: Known, tests: pd.DataFrame) -> list[str]:
    better = tests[tests["verdict"] == BETTER]
    if not len(better):
        return [f"No strategy is told apart from {REFERENCE} as better here: use {REFERENCE}, which costs nothing."]
    top = better.iloc[0]
    name, metric = str(top["strategy"]), known.metric.replace("_", " ")
    said = [
        f"Use {name} here: averaged over all rounds, its {metric} is {_number(top['gap'])} {known.points} better than "
        f"that of {REFERENCE}{_interval(top)}."
    ]
    if (seeds := int(top["seeds"])) < known.count:
        said.append(f"That is by the {seeds} seeds which {name} and {REFERENCE} have in common.")
    said += _where(known, name)
    said += _saved(known, name)
    if rivals := _alike(known, name):
        said.append(f"Not told apart from {name}: {_listed(rivals)}.")
    return said


def _where(known: Known, name: str) -> list[str]:
    if known.bands is None:
        return []
    own = known.bands[known.bands["strategy"] == name]
    last = len(known.gains[name][0])
    words: dict[str, list[str]] = {"ahead": [], "behind": [], "alike": [], "untested": []}
    for row in own.itertuples():
        first, end = BANDS[str(row.band)]
        place = f"{first} to {min(end, last)} (by {_number(abs(row.gap))})"
        if row.verdict in (BETTER, WORSE):
            words["ahead" if row.verdict == BETTER else "behind"].append(place)
        else:
            words["untested" if row.verdict in _UNTESTED else "alike"].append(f"{first} to {min(end, last)}")
    parts = []
    if words["ahead"]:
        parts.append(f"ahead of {REFERENCE} in rounds {_listed(words['ahead'])}")
    if words["alike"]:
        parts.append(f"not told apart from it in rounds {_listed(words['alike'])}")
    if words["behind"]:
        parts.append(f"behind it in rounds {_listed(words['behind'])}")
    if words["untested"]:
        parts.append(f"not tested in rounds {_listed(words['untested'])}, where too few seeds differ")
    return [f"It is {'; '.join(parts)}."] if parts else []


def _saved(known: Known, name: str) -> list[str]:
    """In the first round with half of the labels."""
    table = known.efficiency
    if table is None:
        return []
    own = table[table["strategy"] == name].sort_values("num_labeled")
    row = own.iloc[int(np.searchsorted(own["num_labeled"], own["num_labeled"].iloc[-1] / 2))]
    used, most = int(row["num_labeled"]), int(own["num_labeled"].iloc[-1])
    needed = round(float(row["efficiency"]) * used)
    if row["bound"] == ">":
        return [
            f"With {used} labels it is better than {REFERENCE} is with {most}, the most that was tried: it saves more "
            f"than {most - used} labels there."
        ]
    if needed <= used:
        return [f"With {used} labels it saves none: {REFERENCE} is as good with as many."]
    return [
        f"With {used} labels it is as good as {REFERENCE} with {needed}: it saves {needed - used} labels there, "
        f"{round(100 * (needed - used) / needed)} %."
    ]


def _rest(tests: pd.DataFrame) -> list[str]:
    said = []
    named = {
        f"not better than {REFERENCE}": f"Not told apart from {REFERENCE}",
        WORSE: f"Worse than {REFERENCE}",
        BETTER: f"Better than {REFERENCE} too",
    }
    for verdict, words in named.items():
        names = list(tests.loc[tests["verdict"] == verdict, "strategy"])
        names = names[1:] if verdict == BETTER else names
        if names:
            said.append(f"{words}: {_listed(names)}.")
    if names := list(tests.loc[tests["verdict"].isin(_UNTESTED), "strategy"]):
        said.append(f"Too few seeds that differ for a verdict: {_listed(names)}.")
    return said


def _alike(known: Known, name: str) -> list[str]:
    """Strategies whose paired interval with `name` holds 0, or that have none, best first."""
    if known.matrix is None:
        return []
    own = known.matrix[known.matrix["a"] == name]
    near = set(own.loc[~((own["low"] > 0) | (own["high"] < 0)), "b"])
    return [other for other in usable(known) if other in near]


# -- over several settings ---------------------------------------------------------------------------------------------


def said_of_all(knowns: Sequence[Known], aggregate: pd.DataFrame | None) -> list[str]:
    """Sentences about settings together, where there are several with tests. aggregate: as from `aggregate`."""
    tested = [one for one in knowns if one.tests is not None]
    untested = [one.tests["verdict"].isin(_UNTESTED).all() for one in tested if one.tests is not None]
    if len(tested) < 2 or all(untested) or aggregate is None or not len(aggregate):
        return []
    usable_in = [set(usable(one)) & set(one.tests["strategy"]) for one in tested if one.tests is not None]
    everywhere = set.intersection(*usable_in)
    rows = aggregate[aggregate["strategy"].isin(everywhere)].sort_values("iqm", ascending=False, kind="stable")
    if not len(rows):
        return [f"No strategy was run in all {len(tested)} settings, so none is named for all of them."]
    top = rows.iloc[0]
    name = str(top["strategy"])
    begin = f"Over all {len(tested)} settings together"
    if top["iqm"] <= 0:
        return [f"{begin}, no strategy that was run in all of them gains over {REFERENCE}: use {REFERENCE}."]
    points = tested[0].points
    gain = f"{_number(top['iqm'])} {points}{_interval(top)}"
    said = [f"{begin}, {name} gains most over {REFERENCE}: {gain}, the mean of the middle half of all its runs."]
    if top["low"] != top["low"]:
        said.append(f"It has no interval: that takes {MIN_SEEDS} seeds that differ in every setting.")
    near = rows.iloc[1:]
    if names := [str(other) for other in near.loc[near["high"] >= top["low"], "strategy"]]:
        said.append(f"Intervals that overlap with its own: {_listed(names)}.")
    own = _verdicts(tested, name)
    words = [f"better than {REFERENCE} in {len(own.get(BETTER, []))} of {len(tested)}"]
    if names := [data for verdict in own if verdict not in (BETTER, WORSE, *_UNTESTED) for data in own[verdict]]:
        words.append(f"not told apart from it on {_listed(names)}")
    if names := own.get(WORSE, []):
        words.append(f"worse on {_listed(names)}")
    if names := [data for verdict in own if verdict in _UNTESTED for data in own[verdict]]:
        words.append(f"not tested on {_listed(names)}, where too few seeds differ")
    said.append(f"It is {', '.join(words)}.")
    if names := sorted(set.union(*usable_in) - everywhere):
        said.append(f"Not run in all of them: {_listed(names)}.")
    if len(tested) < MIN_CACHES:
        said.append(f"That is for these {len(tested)} alone: verdicts over data sets take {MIN_CACHES} of them.")
    return said


def _verdicts(tested: Sequence[Known], name: str) -> dict[str, list[str]]:
    """On which data a strategy has which verdict."""
    where: dict[str, list[str]] = {}
    for one in tested:
        assert one.tests is not None
        (verdict,) = one.tests.loc[one.tests["strategy"] == name, "verdict"]
        where.setdefault(str(verdict), []).append(one.setting.data)
    return where


def said_of_backbones(group: SameItems) -> list[str]:
    """Sentences about caches of the same items: which backbone, by how much, and how near its ceiling labels come."""
    frame, pairs, metric = group.frame, group.pairs, group.first.metric.replace("_", " ")
    best, second = frame.iloc[0], frame.iloc[1]
    (row,) = pairs[(pairs["a"] == best["backbone"]) & (pairs["b"] == second["backbone"])].to_dict("records")
    worse = row["difference"] < 0  # over the seeds that both have, which need not be all
    row |= {"low": -row["high"], "high": -row["low"]} if worse else {}
    said = [
        f"{group.data}: of {len(frame)} backbones {best['backbone']} is best, with {best['strategy']}: averaged over "
        f"all rounds, its {metric} is {_number(abs(row['difference']))} {group.first.points} "
        f"{'worse' if worse else 'better'} than that of the next, {second['backbone']} with "
        f"{second['strategy']}{_interval(row)}."
    ]
    if not row["paired"]:
        said.append("The two did not begin with the same items: that is a difference of means, and no verdict.")
    elif row["units"] < MIN_SEEDS:
        said.append(f"That is over {_count(row['units'], 'seed', 'seeds')}, too few for a verdict.")
    elif row["low"] <= 0 <= row["high"]:
        said.append("The interval holds 0: the two are not told apart.")
    if best["share"] == best["share"]:
        near = (
            f"; {100 * NEAR:.0f} % of it took {int(best['near'])}" if best["near"] == best["near"] else
            f"; {100 * NEAR:.0f} % of it was not reached"
        )  # fmt: skip
        said.append(
            f"With {int(best['labels'])} labels {best['backbone']} comes to {100 * best['share']:.1f} % of what all "
            f"labels reach{near}."
        )
    return said


def _interval(row: Any) -> str:
    if row["low"] != row["low"]:
        return ""
    return f" (95 % interval {_number(row['low'])} to {_number(row['high'])})"


def _number(value: float) -> str:
    """One digit after the point, two where the first would be all there is."""
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"


def _listed(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
