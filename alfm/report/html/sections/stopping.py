"""Where stopping rules would have ended runs."""

from __future__ import annotations

from alfm.metrics import METRICS, Scale
from alfm.report.cells import Table
from alfm.report.html.known import Known
from alfm.report.html.parts import Section
from alfm.report.html.pictures import Points
from alfm.report.stops import OBSERVED, rules_table, stop_tables


def stopping(known: Known) -> Section | None:
    """Labels saved and given up, a point for each rule and strategy; that a rule never fired is told in the table."""
    stops = known.stops
    if not len(stops):
        return None
    factor = METRICS[known.metric].scale.factor
    groups = stops[stops["fired"] & (stops["how"] == OBSERVED)].groupby(["rule", "strategy"], sort=False)
    rows = [
        (str(rule), str(strategy), float(100 * own["saved"].mean()), float(factor * own["given up"].mean()))
        for (rule, strategy), own in groups
    ]
    title = f"What stopping saves, and what it gives up: {known.setting.data}"
    unit = METRICS[known.metric].scale.unit
    y = f"{known.metric.replace('_', ' ')} given up" + (" (points)" if unit == "%" else "")
    picture = Points(
        f"{known.stem}-stops", title, "labels saved (%)", y, rows, (Scale(digits=1), Scale(digits=2, sign="+")), "rule"
    )
    tables, _ = stop_tables(known.setting, known.metric)
    blocks: list[Points | Table] = [picture] if rows else []
    ended = (stops["how"] != OBSERVED).any()
    lead = [
        "Rules did end some of these runs, which the tables call ended and the picture leaves out; elsewhere each "
        "rule only says where it would have."
        if ended
        else "Nothing ended these runs: each rule only says where it would have.",
        "To the right is more saved, higher is more "
        "given up against the whole budget, by the seeds in which the rule fired. One that never "
        "fired saves nothing and has no point.",
    ]
    return Section(
        f"{known.stem}-stops",
        "When to stop",
        lead,
        [*blocks, rules_table(stops, known.metric, known.setting.data), *tables],
    )
