"""Every sentence of the paragraph is read back and held against the frames that the tables show."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from alfm.report.html.known import Known
from alfm.report.html.paragraph import said_of, said_of_all, said_of_backbones
from alfm.report.html.sections.backbones import SameItems, same_items
from alfm.results.aggregate import aggregate
from alfm.results.backbones import backbones
from alfm.results.setting import settings_of
from alfm.results.statistics import BANDS, MIN_SEEDS

ROUNDS = 16


def known(
    gains: dict[str, float],
    seeds: int = 12,
    metric: str = "accuracy",
    one_start: bool = False,
    data: str = "digits",
    late: float | None = None,
    noise: float = 0.01,
    model: str = "pixels",
    level: float = 0.5,
    fewer: int = 0,
    **columns: dict[str, str],
) -> Known:
    """Runs of made-up strategies. gains: by how much each is better than random, in the metric's unit; late: the same
    after round 7, for all but random; fewer: seeds less for the last; columns: by strategy, and for "others"."""
    rows = []
    sign = -1 if metric in ("nll", "ece") else 1
    for s, (name, gain) in enumerate(gains.items()):
        for seed in range(seeds - fewer * (s == len(gains) - 1)):
            for t in range(ROUNDS):
                draw = np.random.default_rng([s, 0 if one_start else seed, t])
                shift = gain if late is None or t < 7 or name == "random" else late
                value = level + sign * (0.02 * t + (shift + noise * draw.normal() if t else 0.0))
                start = 0 if one_start else seed
                place = f"{start}" if t == 0 else f"{name}-{start}-{t}"
                rows.append(
                    {
                        "query_strategy": name, "seed": seed, "round": t + 1, "num_labeled": 10 * (t + 1),
                        metric: value, "dataset": data, "model": model, "cache": model, "initial": str(start),
                        "picked": place,
                        "fit_seconds": 1.0, "query_seconds": 1.0, "eval_seconds": 1.0, "num_replicates": seeds,
                        "num_filled": 0, "peak_memory_bytes": 10,
                    }
                    | {column: of.get(name, of["others"]) for column, of in columns.items()}
                )  # fmt: skip
    (setting,) = settings_of(pd.DataFrame(rows))
    return Known(setting, metric, "x")


SITUATIONS: dict[str, Callable[[], Known]] = {
    "one is better": lambda: known({"random": 0, "margins": 0.03, "coreset": -0.03, "badge": 0.0}),
    "two are alike": lambda: known({"random": 0, "margins": 0.03, "entropy": 0.03}),
    "nothing is better": lambda: known({"random": 0, "margins": 0.0, "badge": 0.001}, noise=0.05),
    "all are worse": lambda: known({"random": 0, "margins": -0.05, "badge": -0.02}),
    "ahead and then behind": lambda: known({"random": 0, "margins": 0.1}, late=-0.02),
    "never as good": lambda: known({"random": 0, "margins": 0.4}),
    "few seeds": lambda: known({"random": 0, "margins": 0.03, "badge": 0.01}, seeds=3),
    "few seeds, all behind": lambda: known({"random": 0, "margins": -0.03}, seeds=3),
    "one seed": lambda: known({"random": 0, "margins": 0.03}, seeds=1),
    "one start": lambda: known({"random": 0, "margins": 0.03}, one_start=True),
    "one strategy": lambda: known({"margins": 0.03}),
    "random alone": lambda: known({"random": 0}),
    "without random": lambda: known({"margins": 0.03, "badge": 0.0, "entropy": 0.03}),
    "lower is better": lambda: known({"random": 0, "margins": 0.03, "badge": -0.03}, metric="nll"),
    "equal": lambda: known({"random": 0, "margins": 0, "badge": 0}, noise=0),
    "an oracle": lambda: known({"random": 0, "boss": 0.1, "margins": 0.02}),
    "an oracle alone": lambda: known({"random": 0, "boss": 0.1}),
    "fewer seeds of one": lambda: known({"random": 0, "badge": 0.0, "margins": 0.03}, seeds=14, fewer=3),
    "hardly any of one": lambda: known({"margins": 0.03, "badge": 0.03, "coreset": 0.0}, fewer=11),
    "another start": lambda: known(
        {"random": 0, "margins": 0.03, "tcm": 0.03}, init_strategy={"tcm": "typiclust", "others": "random"}
    ),
    "ended by rules": lambda: known(
        {"random": 0, "margins": 0.03, "tcm": 0.03}, stopping={"tcm": "stop: delta_f", "others": ""}
    ),
    "a stranger's name": lambda: known({"random": 0, "<b>a, b</b> and c": 0.03, "badge": 0.0}),
}


@cache
def in_situation(name: str) -> Known:
    return SITUATIONS[name]()


@pytest.mark.parametrize("situation", SITUATIONS)
def test_every_sentence_is_true_to_the_frames(situation: str) -> None:
    one = in_situation(situation)
    said = said_of(one)
    assert said
    for sentence in said:
        checks = [check for pattern, check in CHECKS.items() if (found := re.fullmatch(pattern, sentence))]
        assert len(checks) == 1, f"no check, or several, for: {sentence}"
        found = next(found for pattern in CHECKS if (found := re.fullmatch(pattern, sentence)))
        checks[0](one, found)


def test_what_is_said_first() -> None:
    def advice(situation: str) -> str:
        return said_of(in_situation(situation))[1]

    assert advice("one is better").startswith("Use margins here")
    assert advice("nothing is better").endswith("use random, which costs nothing.")
    assert "cannot be told yet" in advice("few seeds")
    assert "cannot be told yet" in advice("one start")
    assert advice("without random").startswith("Nothing is said about gains over random")
    assert advice("lower is better").startswith("Use margins here: averaged over all rounds, its nll is")
    assert advice("an oracle").startswith("Use margins here")  # nobody can use boss
    assert not any("boss" in sentence for sentence in said_of(in_situation("an oracle"))[1:])


# -- a check for every kind of sentence --------------------------------------------------------------------------------

N = r"(-?[\d.]*\d)"


def names(text: str) -> list[str]:
    """The names of a list, "a, b and c", of names without commas."""
    return re.split(r", | and ", text)


def near(said: str, value: float) -> bool:
    digits = len(said.partition(".")[2])
    return abs(float(said) - value) <= 0.5 * 10**-digits + 1e-9


def row(frame: Any, strategy: str) -> Any:
    return frame.set_index("strategy").loc[strategy]


def usable(one: Known) -> pd.DataFrame:
    assert one.tests is not None
    return one.tests[~one.tests["strategy"].isin(["boss", "replay"])]


def check_what(one: Known, found: re.Match[str]) -> None:
    _, count, first, last, seeds = found.groups()
    assert int(count) == one.shared["strategy"].nunique()
    assert (int(first), int(last)) == (one.shared["num_labeled"].min(), one.shared["num_labeled"].max())
    assert int(seeds) == one.shared["seed"].nunique()


def check_use(one: Known, found: re.Match[str]) -> None:
    name, metric, gap, points, low, high = found.groups()
    best = row(one.tests, name)
    assert best["verdict"] == "better"
    assert metric == one.metric and points == ("hundredths" if metric == "nll" else "points")
    assert near(gap, best["gap"]) and near(low, best["low"]) and near(high, best["high"])
    better = usable(one).query("verdict == 'better'")
    assert best["gap"] == better["gap"].max()


def check_bands(one: Known, found: re.Match[str]) -> None:
    name = usable(one).iloc[0]["strategy"]
    assert one.bands is not None
    own = one.bands[one.bands["strategy"] == name]
    kinds = {"ahead": "better", "behind": "worse", "not told": "not better than random"}
    told = 0
    for part in found[1].split("; "):
        kind = next(verdict for word, verdict in kinds.items() if part.startswith(word))
        for first, last, gap in re.findall(r"(\d+) to (\d+)(?: \(by ([\d.]+)\))?", part):
            (band,) = [band for band, (begin, _) in BANDS.items() if begin == int(first)]
            assert int(last) == min(BANDS[band][1], ROUNDS)
            (there,) = own[own["band"] == band].to_dict("records")
            assert there["verdict"] == kind
            assert not gap or near(gap, abs(there["gap"]))
            told += 1
    assert told == len(own)


def check_saved(one: Known, found: re.Match[str]) -> None:
    used, needed, saved, share = found.groups()
    (there,) = best_efficiency(one, int(used))
    assert there["bound"] != ">"
    assert int(needed) == round(there["efficiency"] * int(used))
    assert int(saved) == int(needed) - int(used)
    assert near(share, 100 * int(saved) / int(needed))


def check_saved_more(one: Known, found: re.Match[str]) -> None:
    used, most, saved = map(int, found.groups())
    (there,) = best_efficiency(one, used)
    assert there["bound"] == ">" and most == one.shared["num_labeled"].max() and saved == most - used


def check_saved_none(one: Known, found: re.Match[str]) -> None:
    (there,) = best_efficiency(one, int(found[1]))
    assert there["efficiency"] * int(found[1]) < int(found[1]) + 0.5


def best_efficiency(one: Known, used: int) -> list[dict[str, Any]]:
    assert one.efficiency is not None
    name = usable(one).iloc[0]["strategy"]
    half = one.shared["num_labeled"].max() / 2
    assert used == min(n for n in one.shared["num_labeled"] if n >= half)
    table = one.efficiency
    return table[(table["strategy"] == name) & (table["num_labeled"] == used)].to_dict("records")


def check_alike(one: Known, found: re.Match[str]) -> None:
    name = found[1]
    assert one.matrix is not None
    own = one.matrix[(one.matrix["a"] == name) & ~one.matrix["b"].isin(["random", "boss"])]
    assert set(names(found[2])) == set(own[~((own["low"] > 0) | (own["high"] < 0))]["b"])


def of_verdict(verdict: str) -> Callable[[Known, re.Match[str]], None]:
    def check(one: Known, found: re.Match[str]) -> None:
        there = list(usable(one).query("verdict == @verdict")["strategy"])
        assert names(found[1]) == (there[1:] if verdict == "better" else there)

    return check


def check_none(one: Known, found: re.Match[str]) -> None:
    assert not (usable(one)["verdict"] == "better").any()


def check_effect(one: Known, found: re.Match[str]) -> None:
    assert near(found[1], usable(one)["smallest_effect"].max())


def check_too_few(one: Known, found: re.Match[str]) -> None:
    least, many, differ = found.groups()
    assert int(least) == MIN_SEEDS and int(many) == one.shared["seed"].nunique()
    units = usable(one)["units"].max()
    assert units < MIN_SEEDS and (int(differ) if differ else int(many)) == units


def check_so_far(one: Known, found: re.Match[str]) -> None:
    name, gap, _, low, high = found.groups()
    there = row(one.tests, name)
    assert there["gap"] == usable(one)["gap"].max() > 0 and near(gap, there["gap"])
    assert (low is None) == np.isnan(there["low"])
    assert low is None or (near(low, there["low"]) and near(high, there["high"]))


def check_in_common(one: Known, found: re.Match[str]) -> None:
    assert row(one.tests, found[2])["seeds"] == int(found[1]) < one.shared["seed"].nunique()


def check_no_verdict(one: Known, found: re.Match[str]) -> None:
    assert one.matrix is not None
    best = one.numbers.iloc[0]["strategy"]
    assert one.matrix[one.matrix["a"] == best]["units"].min() == int(found[2]) < int(found[1]) == MIN_SEEDS


def check_left_out(one: Known, found: re.Match[str]) -> None:
    runs = one.setting.stopped if found[1].startswith("that") else one.setting.own
    assert names(found[2]) == list(runs["strategy"].unique())


def check_nothing(one: Known, found: re.Match[str]) -> None:
    assert one.tests is None or not len(usable(one))


def check_best_mean(one: Known, found: re.Match[str]) -> None:
    areas = one.numbers.set_index("strategy")["AUBC over rounds mean"]
    assert areas[found[1]] == (areas.min() if found[2] == "nll" else areas.max())


CHECKS: dict[str, Callable[[Known, re.Match[str]], None]] = {
    rf"(.+): {N} strateg(?:y|ies), from {N} to {N} labels, {N} seeds?\.": check_what,
    rf"Use (.+) here: averaged over all rounds, its (\w+) is {N} (\w+) better than that of random \(95 % interval "
    rf"{N} to {N}\)\.": check_use,
    r"It is ((?:ahead|behind|not told).*)\.": check_bands,
    rf"With {N} labels it is as good as random with {N}: it saves {N} labels there, {N} %\.": check_saved,
    rf"With {N} labels it is better than random is with {N}, the most that was tried: it saves more than {N} labels "
    r"there\.": check_saved_more,
    rf"With {N} labels it saves none: random is as good with as many\.": check_saved_none,
    r"Not told apart from (?!random)(.+?): (.+)\.": check_alike,
    r"Not told apart from random: (.+)\.": of_verdict("not better than random"),
    r"Worse than random: (.+)\.": of_verdict("worse"),
    r"Better than random too: (.+)\.": of_verdict("better"),
    r"No strategy is told apart from random as better here: use random, which costs nothing\.": check_none,
    rf"With these seeds, a true gain of {N} \w+ over random is found four times in five, whichever strategy has it; a "
    r"smaller one may be missed\.": check_effect,
    rf"Whether any strategy beats random cannot be told yet: tests need {N} seeds that differ, and here are (\d+)"
    r"(?:, of which (\d+) differ)?\.": check_too_few,
    rf"(.+) is ahead so far, by {N} (\w+)(?: \(95 % interval {N} to {N}\))?; that is no verdict\.": check_so_far,
    r"Nothing is said about gains over random: (.+)\.": check_nothing,
    rf"That is by the {N} seeds which (.+) and random have in common\.": check_in_common,
    rf"That is no verdict: it takes {N} seeds that differ, and here are {N}\.": check_no_verdict,
    r"Left out of this are runs (with another cold start than \w+|that stopping .+): (.+)\.": check_left_out,
    r"Of those that were run, (.+) has the best (\w+), averaged over rounds\.": check_best_mean,
}


# -- over data sets ----------------------------------------------------------------------------------------------------


def test_over_data_sets() -> None:
    ones = [
        known({"random": 0, "margins": 0.03, "badge": 0.01}, data="a"),
        known({"random": 0, "margins": 0.03, "badge": 0.0}, data="b"),
        known({"random": 0, "margins": -0.03, "badge": 0.0}, data="c"),
        known({"random": 0, "margins": 0.0, "badge": 0.0}, data="d", noise=0.05),
    ]
    frame = aggregate({one.setting.data: one.curves for one in ones if one.curves is not None})
    first, second, third = said_of_all(ones, frame)
    found = re.fullmatch(
        rf"Over all 4 settings together, (\w+) gains most over random: {N} points \(95 % interval {N} to {N}\), the "
        r"mean of the middle half of all its runs\.",
        first,
    )
    assert found
    top = row(frame, found[1])
    assert top["iqm"] == frame["iqm"].max()
    assert near(found[2], top["iqm"]) and near(found[3], top["low"]) and near(found[4], top["high"])
    assert found[1] == "margins"
    verdicts = {one.setting.data: row(one.tests, "margins")["verdict"] for one in ones}
    assert verdicts == {
        "a / pixels": "better", "b / pixels": "better", "c / pixels": "worse", "d / pixels": "not better than random"
    }  # fmt: skip
    assert second == "It is better than random in 2 of 4, not told apart from it on d / pixels, worse on c / pixels."
    assert third == "That is for these 4 alone: verdicts over data sets take 6 of them."


def test_over_data_sets_nothing_is_said_without_tests_or_a_winner() -> None:
    few = [known({"random": 0, "margins": 0.03}, seeds=3, data=data) for data in "ab"]
    assert said_of_all(few, None) == []
    alone = [known({"random": 0, "margins": 0.03}, data="a")]
    assert said_of_all(alone, None) == []
    worse = [known({"random": 0, "margins": -0.03}, data=data) for data in "ab"]
    frame = aggregate({one.setting.data: one.curves for one in worse if one.curves is not None})
    assert said_of_all(worse, frame) == [
        "Over all 2 settings together, no strategy that was run in all of them gains over random: use random."
    ]


def test_over_data_sets_the_winner_need_not_be_told_apart_and_what_is_not_tested_is_said() -> None:
    ones = [
        known({"random": 0, "margins": 0.03, "badge": 0.029, "epig": 0.0}, data="a"),
        known({"random": 0, "margins": 0.03, "badge": 0.03}, data="b", seeds=4),
    ]
    frame = aggregate({one.setting.data: one.curves for one in ones if one.curves is not None})
    first, *others = said_of_all(ones, frame)
    assert re.fullmatch(rf"Over all 2 settings together, (margins|badge) gains most over random: {N} points, .*", first)
    assert others == [
        "It has no interval: that takes 10 seeds that differ in every setting.",
        "It is better than random in 1 of 2, not tested on b / pixels, where too few seeds differ.",
        "Not run in all of them: epig.",
        "That is for these 2 alone: verdicts over data sets take 6 of them.",
    ]
    near = [known({"random": 0, "margins": 0.03, "badge": 0.0299}, data=data) for data in "ab"]
    frame = aggregate({one.setting.data: one.curves for one in near if one.curves is not None})
    (found,) = [
        found for one in said_of_all(near, frame) if (found := re.match(r"Intervals that overlap .*: (\w+)", one))
    ]
    assert {found[1], frame["strategy"][0]} == {"margins", "badge"}


# -- over backbones ----------------------------------------------------------------------------------------------------


def group(levels: dict[str, float], seeds: int = 12, paired: bool = True, ceiling: float | None = None) -> SameItems:
    """Settings on caches of the same items. levels: where each backbone's curves begin."""
    ones = [known({"random": 0, "margins": 0.03}, seeds=seeds, model=m, level=level) for m, level in levels.items()]
    (found,) = same_items(ones)
    begun = {(draw, seed): frozenset({f"item {seed}"}) for draw in ("",) for seed in range(seeds)}
    found.__dict__["begun"] = {name: begun if paired else None for name in levels}
    if ceiling is not None:
        found.__dict__["frame"] = backbones(found.runs, "accuracy", dict.fromkeys(levels, ceiling))
    return found


GROUPS: dict[str, Callable[[], SameItems]] = {
    "one is best": lambda: group({"clip": 0.5, "dino": 0.55, "pixels": 0.3}),
    "alike": lambda: group({"clip": 0.5, "dino": 0.5}),
    "other beginnings": lambda: group({"clip": 0.5, "dino": 0.55}, paired=False),
    "few seeds": lambda: group({"clip": 0.5, "dino": 0.55}, seeds=3),
    "a ceiling": lambda: group({"clip": 0.5, "dino": 0.55}, ceiling=0.9),
    "a ceiling far away": lambda: group({"clip": 0.5, "dino": 0.55}, ceiling=1.0),
}


@pytest.mark.parametrize("name", GROUPS)
def test_every_sentence_about_backbones_is_true_to_the_frames(name: str) -> None:
    one = GROUPS[name]()
    said = said_of_backbones(one)
    for sentence in said:
        found = [
            (check, match) for pattern, check in OF_BACKBONES.items() if (match := re.fullmatch(pattern, sentence))
        ]
        assert len(found) == 1, f"no check, or several, for: {sentence}"
        found[0][0](one, found[0][1])
    words = {"alike": "not told apart", "other beginnings": "difference of means", "few seeds": "too few",
             "a ceiling": "95 % of it took", "a ceiling far away": "not reached"}  # fmt: skip
    assert {key for key, word in words.items() if word in " ".join(said)} == {name} & words.keys()


def best_pair(one: SameItems) -> Any:
    first, second = one.frame["backbone"][:2]
    (row,) = one.pairs.query("a == @first and b == @second").to_dict("records")
    return row


def check_backbone(one: SameItems, found: re.Match[str]) -> None:
    data, count, best, strategy, metric, gap, second, other, low, high = found.groups()
    assert (data, int(count), metric) == (one.data, len(one.known), "accuracy")
    first, next_ = one.frame.iloc[0], one.frame.iloc[1]
    assert [best, strategy, second, other] == [
        first["backbone"],
        first["strategy"],
        next_["backbone"],
        next_["strategy"],
    ]
    areas = {name: k.numbers.set_index("strategy")["AUBC over rounds mean"].max() for name, k in one.known.items()}
    assert areas[best] == max(areas.values()) and near(gap, 100 * (areas[best] - areas[second]))
    row = best_pair(one)
    assert near(gap, row["difference"]) and (low is None) == (not row["paired"])
    assert low is None or (near(low, row["low"]) and near(high, row["high"]))


def check_ceiling(one: SameItems, found: re.Match[str]) -> None:
    labels, name, share, took = found.groups()
    best = one.frame.iloc[0]
    assert name == best["backbone"] and int(labels) == best["labels"]
    assert near(share, 100 * best["final"] / best["ceiling"])
    mean = one.runs[name].groupby("num_labeled")["accuracy"].mean()
    there = mean.index[mean >= 0.95 * best["ceiling"]]
    assert int(took) == there[0] if took else not len(there)


def holds(true: Callable[[Any], bool]) -> Callable[[SameItems, re.Match[str]], None]:
    def check(one: SameItems, found: re.Match[str]) -> None:
        assert true(best_pair(one))

    return check


OF_BACKBONES: dict[str, Callable[[SameItems, re.Match[str]], None]] = {
    rf"(\w+): of {N} backbones (\w+) is best, with (\w+): averaged over all rounds, its (\w+) is {N} points better "
    rf"than that of the next, (\w+) with (\w+)(?: \(95 % interval {N} to {N}\))?\.": check_backbone,
    r"The two did not begin with the same items: that is a difference of means, and no verdict\.":
        holds(lambda row: not row["paired"]),
    rf"That is over {N} seeds?, too few for a verdict\.": holds(lambda row: row["units"] < MIN_SEEDS),
    r"The interval holds 0: the two are not told apart\.": holds(lambda row: row["low"] <= 0 <= row["high"]),
    rf"With {N} labels (\w+) comes to {N} % of what all labels reach; 95 % of it (?:took {N}|was not reached)\.":
        check_ceiling,
}  # fmt: skip


def test_replays_are_not_advised() -> None:
    import json

    one = known({"random": 0, "margins, picked with dino": 0.05, "margins": 0.03})
    again = one.shared["query_strategy"] == "margins, picked with dino"
    of = json.dumps({"of": {"dataset": "digits", "model": "dino", "run": "margins-1"}})
    runs = one.shared.assign(query_options=np.where(again, of, "{}"))
    (setting,) = settings_of(runs.drop(columns="strategy"))
    one = Known(setting, "accuracy", "x")
    assert one.strategies[0].startswith("margins, picked with dino") and one.to_choose == ["margins", "random"]
    assert said_of(one)[1].startswith("Use margins here")


def test_a_strategy_with_seeds_of_its_own_takes_nothing_from_the_others() -> None:
    both = known({"random": 0, "margins": 0.03}).shared
    alone = known({"badge": 0.0}).shared.assign(seed=lambda df: df["seed"] + 100)
    (setting,) = settings_of(pd.concat([both, alone]))
    one = Known(setting, "accuracy", "x")
    assert one.tests is not None and one.matrix is not None
    assert row(one.tests, "margins")["verdict"] == "better"
    assert row(one.tests, "badge")[["seeds", "verdict"]].tolist() == [0, "too few seeds"]
    assert set(zip(one.matrix["a"], one.matrix["b"], strict=True)) == {("random", "margins"), ("margins", "random")}
    assert "Too few seeds that differ for a verdict: badge." in said_of(one)
