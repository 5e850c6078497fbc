"""How near the ceiling of a backbone labels get: what its head reaches with all labels of the pool."""

from __future__ import annotations

import numpy as np

from alfm.errors import UserError
from alfm.metrics import METRICS, Scale
from alfm.report.cells import ABOVE, SHARE, Table, TableCell
from alfm.report.html.known import Known
from alfm.report.html.pictures import WHOLE
from alfm.results.backbones import NEAR
from alfm.results.probe_file import FILE, Probe, read_probe
from alfm.results.run_folder import read_config


def probe_of(known: Known) -> Probe | None:
    """What `alfm.probe` found on the cache of these runs; None where it was not asked, or see `no_ceiling`."""
    return _looked_for(known)[0]


def _looked_for(known: Known) -> tuple[Probe | None, str]:
    """What was found, or why what lies there is not used."""
    why = ""
    for place in dict.fromkeys(folder.parent for folder in known.folders):
        try:
            found = read_probe(place)
        except UserError as unreadable:
            why = f"No ceiling: {unreadable}"
            continue
        if found is not None and found.cache_fingerprint == known.setting.names["cache"]:
            return found, ""
        if found is not None:
            why = f"No ceiling: {place / FILE} is about another cache of that name; run python -m alfm.probe again."
    return None, why


def no_ceiling(known: Known) -> str:
    """Why what `alfm.probe` left is not shown as a ceiling, in a sentence; empty where it is, or nothing was left."""
    found, why = _looked_for(known)
    if found is None or same_head(known, found):
        return why
    return (
        "No ceiling: all labels of this cache were given to another head. python -m alfm.probe with "
        "the runs' classifier= gives it."
    )


def same_head(known: Known, found: Probe) -> bool:
    """Was the probe's head the runs'? By the options that both tell: later versions have more."""
    for folder in known.folders:
        if (folder / "config.yaml").exists():
            head = read_config(folder).get("classifier", {})
            return all(found.classifier[key] == head[key] for key in found.classifier.keys() & head.keys())
    return True


def ceilings(known: Known) -> dict[str, float]:
    """Heights of dashed lines, in the unit that is shown, by what reached them."""
    found = probe_of(known)
    if found is None:
        return {}
    factor = METRICS[known.metric].scale.factor
    reached = {f"head on {found.how}": found.head} if same_head(known, found) else {}
    reached["nearest neighbours"] = found.knn
    return {name: factor * of[known.metric] for name, of in reached.items() if known.metric in of}


def share_of_ceiling(known: Known) -> Table | None:
    """Which share of the ceiling so many labels reach, and how many 95 % of it took, by the mean over seeds."""
    found = probe_of(known)
    if found is None or not same_head(known, found):
        return None
    if known.metric not in found.head or not METRICS[known.metric].higher_is_better:
        return None
    ceiling = found.head[known.metric]
    places = [c.removesuffix(" mean") for c in known.numbers if c.startswith("after ") and c.endswith(" mean")]
    rows = []
    for row in known.numbers.to_dict("records"):
        own = known.shared[known.shared["strategy"] == row["strategy"]].groupby("num_labeled")[known.metric].mean()
        there = np.flatnonzero(own.to_numpy() >= NEAR * ceiling)
        took = TableCell(int(own.index[there[0]]), WHOLE) if len(there) else TableCell(int(own.index[-1]), WHOLE, ABOVE)
        rows.append([TableCell(row["strategy"]), *(TableCell(row[f"{p} mean"] / ceiling, SHARE) for p in places), took])
    shown = Scale(METRICS[known.metric].scale.factor, 1).text(ceiling)
    note = f"The ceiling is the head on {found.how}: {shown} {METRICS[known.metric].scale.unit}. {ABOVE}: not reached."
    return Table(f"Share of the ceiling: {known.setting.data}", ["strategy", *places, "labels for 95 %"], rows, [note])
