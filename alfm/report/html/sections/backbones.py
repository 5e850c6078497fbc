"""Which backbone: caches of the same items beside one another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import ABOVE, SHARE, Table, TableCell
from alfm.report.html.known import Known
from alfm.report.html.parts import Chapter, Section
from alfm.report.html.pictures import WHOLE, Lines, P
from alfm.report.html.sections.ceiling import probe_of, same_head
from alfm.report.html.sections.learning import mean_curves
from alfm.results.backbones import NEAR, backbones, between_backbones
from alfm.results.same_items import Begun, Items, begun_with, items_of

if TYPE_CHECKING:
    import pandas as pd

_POINTS = Scale(digits=2, sign="+")


@dataclass(frozen=True)
class SameItems:
    """Settings that differ in their backbone only. known: by backbone; items: where a cache's ids could be read."""

    data: str
    rules: str
    stem: str
    known: Mapping[str, Known]
    items: Mapping[str, Items | None]

    @property
    def first(self) -> Known:
        """Any of them: they share metric and rules."""
        return next(iter(self.known.values()))

    @cached_property
    def runs(self) -> dict[str, pd.DataFrame]:
        """Of each backbone's best strategy that somebody can choose."""
        found = {}
        for name, one in self.known.items():
            best = next(iter(one.to_choose))
            found[name] = one.shared[one.shared["strategy"] == best]
        return found

    @cached_property
    def frame(self) -> pd.DataFrame:
        """`backbones` of them."""
        metric = self.first.metric
        probes = {name: (one, probe_of(one)) for name, one in self.known.items()}
        heads = {
            name: found.head
            for name, (one, found) in probes.items()
            if found is not None and metric in found.head and same_head(one, found)
        }
        return backbones(self.runs, metric, {name: head[metric] for name, head in heads.items()})

    @cached_property
    def begun(self) -> dict[str, Begun | None]:
        """Which items seeds began with; None where that cannot be read."""
        found: dict[str, Begun | None] = {}
        for name, df in self.runs.items():
            items = self.items[name]
            try:
                found[name] = None if items is None else begun_with(df, items)
            except (UserError, KeyError):
                found[name] = None
        return found

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """`between_backbones` of them."""
        return between_backbones(self.runs, self.first.metric, self.begun)


def same_items(knowns: Sequence[Known]) -> list[SameItems]:
    """Groups of at least two settings of one data set, the same rules and start, on caches of the same items.

    Where ids cannot be read, the data set's name and the number of test items, as far as it is known, tell it.
    """
    groups: dict[tuple[str, str], dict[str, Known]] = {}
    for one in knowns:
        if len(one.shared) and one.to_choose:
            setting = one.setting
            cache = f"cache {setting.names['cache'][:8]}"
            rules = ", ".join(word for word in setting.rules.split(", ") if word != cache)
            rules = ", ".join(filter(None, (rules, f"{setting.start} start" if setting.start else "")))
            own = groups.setdefault((setting.names["dataset"], rules), {})
            name = setting.names["model"]
            own[name if name not in own else f"{name} ({cache})"] = one
    found: list[SameItems] = []
    for (data, rules), known in groups.items():
        if len({one.setting.names["cache"] for one in known.values()}) < 2:
            continue
        items = {name: _items(one) for name, one in known.items()}
        for part in _parted(items):
            if len(part) > 1:
                stem = f"backbones{len(found) or ''}"
                own = {name: known[name] for name in part}
                found.append(SameItems(data, rules, stem, own, {name: items[name] for name in part}))
    return found


def _items(known: Known) -> Items | None:
    return next((found for folder in known.folders if (found := items_of(folder)) is not None), None)


def _parted(items: Mapping[str, Items | None]) -> list[list[str]]:
    """Backbones whose caches hold the same items, as far as is known, together."""
    parts: list[list[str]] = []
    for name, own in items.items():
        for part in parts:
            there = [items[other] for other in part]
            if all(own is None or other is None or own.same(other) for other in there):
                part.append(name)
                break
        else:
            parts.append([name])
    return parts


def chapter(group: SameItems) -> Chapter:
    """Backbones are compared as strategies are, each with the strategy that is best on it."""
    lead = [f"{group.data}, {group.rules}: the same items as {len(group.known)} backbones see them."]
    if any(one is None for one in group.items.values()):
        unread = [name for name, one in group.items.items() if one is None]
        lead.append(
            f"Ids could not be read of {', '.join(unread)}: that the items are the same is taken from the data set's "
            "name."
        )
    sections = [_side_by_side(group), _differences(group)]
    return Chapter(group.stem, f"Which backbone? {group.data}", sections, lead)


def _side_by_side(group: SameItems) -> Section:
    first = group.first
    scale = METRICS[first.metric].scale
    order = list(group.frame["backbone"])
    series = [
        one for name in order
        for one in mean_curves(group.runs[name].assign(strategy=name), first.metric, [name], scale.factor)
    ]  # fmt: skip
    title = f"{first.words.capitalize()}, each backbone with its best strategy: {group.data}"
    picture = Lines(f"{group.stem}-curves", title, first.words, series, first.scale)
    some = bool(group.frame["ceiling"].notna().any())
    header = ["backbone", "best strategy", "seeds", "AUBC", f"after {_labels(group)}"]
    header += ["all labels", "share of it", f"labels for {100 * NEAR:.0f} % of it"] if some else []
    rows = []
    for row in group.frame.itertuples():
        cells = [TableCell(row.backbone), TableCell(row.strategy), TableCell(row.seeds)]
        cells += [TableCell(row.area, scale), TableCell(row.final, scale)]
        if some and row.ceiling == row.ceiling:
            near = TableCell(row.near, WHOLE) if row.near == row.near else TableCell(row.labels, WHOLE, ABOVE)
            cells += [TableCell(row.ceiling, scale), TableCell(row.share, SHARE), near]
        elif some:
            cells += [TableCell(None)] * 3
        rows.append(cells)
    notes = [f"{first.words.capitalize()}, means over seeds. AUBC: mean over all rounds, the area under the curve."]
    notes.append(
        f"All labels: what the head reaches with the labels of the whole pool; {ABOVE}: not reached."
        if some
        else "What all labels reach is known once python -m alfm.probe has been run on these caches."
    )
    table = Table(f"Backbones: {group.data}", header, rows, notes, words=2)
    return Section(f"{group.stem}-curves", "Each with its best strategy", [], [picture, table])


def _labels(group: SameItems) -> str:
    most = sorted(set(group.frame["labels"]))
    return " or ".join(map(str, most)) + " labels"


def _differences(group: SameItems) -> Section:
    rows = []
    pairs = group.pairs
    for i, a in enumerate(group.frame["backbone"]):
        for b in group.frame["backbone"][i + 1 :]:
            (row,) = pairs[(pairs["a"] == a) & (pairs["b"] == b)].to_dict("records")
            rows.append(
                [
                    TableCell(a), TableCell(b), TableCell(f"by seed, {row['units']}" if row["paired"] else "means"),
                    *(TableCell(row[key], _POINTS) for key in ("difference", "low", "high")),
                    *(TableCell(row[key] if row["paired"] else None, WHOLE) for key in ("wins", "ties", "losses")),
                    TableCell(row["p"], P),
                ]
            )  # fmt: skip
    lead = ["By seed where both began with the same items, told by their ids."]
    if not pairs["paired"].all():
        lead.append("Means: the two began with other items, or ids do not tell; such a difference has no interval.")
    points = f"a minus b, {group.first.points}"
    header = ["a", "b", "compared", points, "low", "high", "wins", "ties", "losses", "p"]
    note = (
        "Of the mean over all rounds, above 0 where a is better, with its paired 95 % interval; p: Wilcoxon's signed "
        "ranks, unadjusted. Each has the strategy that came out best on it, so that small gaps flatter the backbone on "
        "which more strategies were tried."
    )
    table = Table(f"Every two backbones: {group.data}", header, rows, [note], words=3)
    return Section(f"{group.stem}-differences", "Every two backbones", lead, [table])
