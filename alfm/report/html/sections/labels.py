"""What labels bought: labels saved, regret, classes seen, and what was filled at random."""

from __future__ import annotations

from alfm.metrics import Scale
from alfm.report.cells import ABOVE, BELOW, Table, TableCell
from alfm.report.html.known import ORACLE, Known, shown
from alfm.report.html.parts import Section
from alfm.report.html.pictures import WHOLE, Bars, Lines, Series
from alfm.report.html.sections.learning import mean_curves
from alfm.results.setting import REFERENCE

_RATIO = Scale(digits=2)


def efficiency(known: Known) -> Section | None:
    """How many labels random needs to be as good."""
    table = known.efficiency
    if table is None or not len(table):
        return None
    names = [name for name in known.strategies if name != REFERENCE]
    none = float("nan")
    series = []
    for name in names:
        own = table[table["strategy"] == name]
        reached = own["efficiency"].where(own["bound"] != ABOVE)  # where random never gets there, no number is known
        series.append(Series(name, own["num_labeled"].tolist(), reached.tolist(), [none] * len(own)))
    title = f"Labels {REFERENCE} needs to be as good, over labels used: {known.setting.data}"
    cells = {(r.strategy, r.num_labeled): TableCell(r.efficiency, _RATIO, r.bound) for r in table.itertuples()}
    x = sorted(set(table["num_labeled"]))
    rows = [[TableCell(n, WHOLE), *(cells.get((s, n), TableCell(None)) for s in names)] for n in x]
    note = f"{ABOVE}: {REFERENCE} never gets there, with the most labels that were tried; {BELOW}: it began there."
    data = Table(title, ["labels", *map(shown, names)], rows, [note])
    y = f"times as many labels for {REFERENCE}"
    picture = Lines(f"{known.stem}-efficiency", title, y, series, _RATIO, levels={"no gain": 1.0}, data=data)
    lead = [
        f"At 2, {REFERENCE} needs twice the labels to be as good. Read off {REFERENCE}'s mean curve, best so far; a "
        f"curve ends where {REFERENCE} never gets there."
    ]
    return Section(f"{known.stem}-efficiency", "Labels saved", lead, [picture])


def oracle(known: Known) -> Section | None:
    """How far from what could be had, where an oracle was run."""
    found, why = known.regrets
    if why:
        return Section(f"{known.stem}-regret", "Regret", [why])
    if not found:
        return None
    rows = [[TableCell(name), TableCell(found[name], _RATIO)] for name in sorted(found, key=found.__getitem__)]
    lead = [
        f"{ORACLE} looks at hidden labels: what it reaches can be had. Regret is the share of its lead over "
        f"{REFERENCE} that is missing: 0 as good as {ORACLE}, 1 as good as {REFERENCE}."
    ]
    table = Table(f"Regret: {known.setting.data}", ["strategy", "regret"], rows)
    return Section(f"{known.stem}-regret", "Regret", lead, [table])


def coverage(known: Known) -> Section | None:
    """How many classes have a label."""
    if "num_classes" not in known.shared or known.shared["num_classes"].isna().all():
        return None
    series = list(mean_curves(known.shared, "num_classes", known.strategies))
    title = f"Classes with at least one label: {known.setting.data}"
    picture = Lines(f"{known.stem}-classes", title, "classes seen", series, Scale(digits=1))
    return Section(f"{known.stem}-classes", "Classes seen", ["Mean over seeds, with 95 % intervals."], [picture])


def filled(known: Known) -> Section | None:
    """What strategies left open."""
    numbers = known.numbers
    if not (numbers["filled"] > 0).any():
        return None
    rows = {str(r.strategy): [100 * r.filled] for r in numbers.itertuples() if r.filled > 0}
    title = f"Picks that completed a batch at random: {known.setting.data}"
    x = "% of all picks, drawn at random because the strategy left them open"
    picture = Bars(f"{known.stem}-filled", title, x, rows, ["filled at random"], Scale(digits=1, unit="%"))
    most = {r.strategy: 100 * numbers["most filled"].to_list()[i] for i, r in enumerate(numbers.itertuples())}
    top = max(rows, key=lambda name: most[name])
    lead = [f"Most in one round: {top}, {most[top]:.0f} %."]
    return Section(f"{known.stem}-filled", "Filled at random", lead, [picture])
