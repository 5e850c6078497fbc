"""Pictures as JSON for the page's plotting library, plotly.js.

Colours are names of the page's palette ("$ink", "$c3", "$c3/0.2" with an opacity), which the page fills in for light,
dark and paper. Names of runs are a stranger's text: plotly.js reads some HTML, so they are escaped.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from functools import partial, singledispatch
from html import escape as html_escape
from typing import Any

from alfm.report.curves import COLOURS, DASHES, Style
from alfm.report.html.pictures import Bars, Diagram, Forest, Lines, Points
from alfm.results.setting import REFERENCE

Json = dict[str, Any]
escape = partial(html_escape, quote=False)  # plotly.js reads no name of a quotation mark
_DASHED = {dash: name for dash, name in zip(DASHES, ("solid", "dash", "dot", "dashdot"), strict=True)}
_LONGEST = 26  # characters of a name on an axis, before it goes on below
_ROW = 26  # pixels


def colour(style: Mapping[str, Any] | None) -> str:
    """The palette's name for a style of `styles_of`."""
    if style is None or style["color"] not in COLOURS:
        return "$ink"
    return f"$c{COLOURS.index(style['color'])}"


def dash(style: Mapping[str, Any] | None) -> str:
    """Likewise of its line."""
    return "dash" if style is None or style["linestyle"] == "--" else _DASHED[style["linestyle"]]


def _label(name: str) -> str:
    return "<br>".join(map(escape, textwrap.wrap(name, _LONGEST, break_long_words=True) or [""]))


def _numbers(values: Any) -> list[float | None]:
    """JSON has no NaN; six digits are more than a screen shows."""
    return [None if not math.isfinite(v) else float(f"{v:.6g}") for v in map(float, values)]


@singledispatch
def draw(picture: Any, styles: Mapping[str, Style]) -> Json:
    """`data`, `layout` and `height` of a picture. styles: as from `styles_of`, by strategy."""
    raise TypeError(f"no way to draw {type(picture).__name__}")


@draw.register(Lines)
def _lines(picture: Lines, styles: Mapping[str, Style]) -> Json:
    data: list[Json] = []
    for one in picture.series:
        style = styles.get(one.name)
        own = colour(style)
        low = [m - h for m, h in zip(one.middle, one.half, strict=True)]
        high = [m + h for m, h in zip(one.middle, one.half, strict=True)]
        if any(map(math.isfinite, one.half)):
            there = [i for i, h in enumerate(one.half) if math.isfinite(h)]
            data.append(
                {
                    "x": [one.x[i] for i in there] + [one.x[i] for i in reversed(there)],
                    "y": _numbers([high[i] for i in there] + [low[i] for i in reversed(there)]),
                    "type": "scatter", "mode": "lines", "line": {"width": 0}, "fill": "toself", "hoverinfo": "skip",
                    "fillcolor": f"{own}/{0.14 if len(picture.series) <= 6 else 0.09}", "meta": [one.name, "band"],
                }
            )  # fmt: skip
        text = [
            f"{picture.unit.text(m)}" + (f" ± {h:.{picture.unit.digits}f}" if h == h else "")
            for m, h in zip(one.middle, one.half, strict=True)
        ]
        data.append(
            {
                "x": list(one.x), "y": _numbers(one.middle), "type": "scatter", "mode": "lines+markers",
                "name": escape(one.name), "meta": [one.name, "line"], "text": text,
                "hovertemplate": "<b>%{fullData.name}</b><br>%{x} labels: %{text}<extra></extra>",
                "line": {"color": own, "dash": dash(style), "width": 2.5 if one.name == REFERENCE else 1.8},
                "marker": {"size": 4},
            }
        )  # fmt: skip
    layout = _layout(picture.x, picture.y)
    if picture.span is not None:
        layout["yaxis"] |= {"range": list(picture.span)}
    layout["shapes"] = [_across(0.0, "$ink", "solid")] if picture.zero else []
    layout["annotations"] = []
    for name, height in picture.levels.items():
        layout["shapes"].append(_across(height, "$quiet", "dash"))
        layout["annotations"].append(
            {
                "xref": "paper", "x": 1, "xanchor": "right", "y": height, "yanchor": "bottom", "showarrow": False,
                "text": escape(name), "font": {"size": 11, "color": "$quiet"},
            }
        )  # fmt: skip
    if picture.levels:  # a line across does not widen the axis by itself
        x = [v for one in picture.series for v in one.x]
        data.append(
            {
                "x": [min(x, default=0)] * len(picture.levels), "y": _numbers(picture.levels.values()),
                "hoverinfo": "skip", "type": "scatter", "mode": "markers", "marker": {"opacity": 0}, 
                "meta": ["", "level"],
            }
        )  # fmt: skip
    return {"data": data, "layout": layout, "height": 440}


@draw.register(Forest)
def _forest(picture: Forest, styles: Mapping[str, Style]) -> Json:
    rows = list(picture.rows)
    digits = picture.unit.digits
    data = [
        {
            "x": _numbers(one.middle for one in rows), "y": [_label(one.name) for one in rows],
            "type": "scatter", "mode": "markers", "meta": ["", "line"],
            "marker": {"size": 9, "color": [colour(styles.get(one.name)) for one in rows]},
            "error_x": {
                "type": "data", "symmetric": False, "color": "$quiet", "thickness": 1.6, "width": 4,
                "array": _numbers(one.high - one.middle for one in rows),
                "arrayminus": _numbers(one.middle - one.low for one in rows),
            },
            "text": [
                f"{one.middle:.{digits}f}"
                + (f" ({one.low:.{digits}f} to {one.high:.{digits}f})" if one.low == one.low else "")
                + (f"<br>{escape(one.word)}" if one.word else "")
                for one in rows
            ],
            "hovertemplate": "<b>%{y}</b><br>%{text}<extra></extra>",
        }
    ]  # fmt: skip
    layout = _layout(picture.x, "")
    layout["yaxis"] |= {"autorange": "reversed", "type": "category", "showgrid": True}
    layout["shapes"] = [_down(picture.nothing)]
    layout["hovermode"] = "closest"
    return {"data": data, "layout": layout, "height": 90 + _ROW * max(2, len(rows))}


@draw.register(Bars)
def _bars(picture: Bars, styles: Mapping[str, Style]) -> Json:
    names = [_label(name) for name in picture.rows]
    data = [
        {
            "x": _numbers(values[i] for values in picture.rows.values()), "y": names, "type": "bar", "orientation": "h",
            "name": part, "meta": ["", "bar"], "marker": {"color": f"$c{(0, 5, 6, 2)[i % 4]}"},
            "hovertemplate": f"<b>%{{y}}</b><br>{escape(part)}: %{{x:.3g}} {picture.unit.unit}<extra></extra>",
        }
        for i, part in enumerate(picture.parts)
    ]  # fmt: skip
    layout = _layout(picture.x, "")
    layout |= {"barmode": "stack", "hovermode": "closest", "showlegend": len(picture.parts) > 1}
    layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    layout["yaxis"] |= {"autorange": "reversed", "type": "category"}
    return {"data": data, "layout": layout, "height": 120 + _ROW * max(2, len(names))}


@draw.register(Points)
def _points(picture: Points, styles: Mapping[str, Style]) -> Json:
    data: list[Json] = []
    marks = ("circle", "square", "diamond", "cross", "x", "triangle-up", "star", "pentagon")
    for i, group in enumerate(dict.fromkeys(row[0] for row in picture.rows)):
        own = [row for row in picture.rows if row[0] == group]
        data.append(
            {
                "x": _numbers(row[2] for row in own), "y": _numbers(row[3] for row in own), "type": "scatter",
                "mode": "markers", "name": escape(group), "meta": ["", "point"], "text": [escape(r[1]) for r in own],
                "marker": {"size": 9, "symbol": marks[i // 8 % 8 if i > 7 else i % 8], "color": f"$c{i % 8}"},
                "hovertemplate": "<b>%{fullData.name}</b>, %{text}<br>%{x:.1f}, %{y:.2f}<extra></extra>",
            }
        )  # fmt: skip
    layout = _layout(picture.x, picture.y)
    layout |= {"hovermode": "closest", "showlegend": True, "shapes": [_across(0.0, "$quiet", "dot")]}
    layout["legend"] = {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0}
    return {"data": data, "layout": layout, "height": 460}


@draw.register(Diagram)
def _diagram(picture: Diagram, styles: Mapping[str, Style]) -> Json:
    lines: list[tuple[list[float], list[float], str, float]] = []
    notes: list[Json] = []
    last = math.ceil(max(picture.ranks.values(), default=2))
    places = picture.places()
    top = 1.0 + 0.5 * len(picture.cliques())
    for name, rank, row, left in places:
        depth = -(top + row)
        end = 0.7 if left else last + 0.3
        lines.append(([rank, rank, end], [0, depth, depth], "$quiet", 1.2))
        notes.append(
            {
                "x": end, "y": depth, "xanchor": "right" if left else "left", "showarrow": False, "yanchor": "middle",
                "text": f"{_label(name)} {rank:.1f}", "font": {"size": 12},
            }
        )  # fmt: skip
    for i, (first, second) in enumerate(picture.cliques()):
        lines.append(([first - 0.04, second + 0.04], [-0.5 * (i + 1)] * 2, "$ink", 4))
    lines.append(([1, 1 + picture.critical_difference], [0.9, 0.9], "$c1", 3))
    notes.append(
        {
            "x": 1 + picture.critical_difference / 2, "y": 0.95, "yanchor": "bottom", "showarrow": False,
            "text": f"critical difference {picture.critical_difference:.2f}", "font": {"size": 12, "color": "$c1"},
        }
    )  # fmt: skip
    data = [
        {"x": x, "y": y, "type": "scatter", "mode": "lines", "line": {"color": c, "width": w}, "hoverinfo": "skip",
         "meta": ["", "rank"]}
        for x, y, c, w in lines
    ]  # fmt: skip
    layout = _layout("average rank, 1 is best", "")
    wide = 0.28 * last
    layout["xaxis"] |= {"range": [0.7 - wide, last + 0.3 + wide], "tickvals": list(range(1, last + 1))}
    layout["xaxis"] |= {"side": "top", "showgrid": False}
    deepest = min(y for _, ys, _, _ in lines for y in ys)
    layout["yaxis"] |= {"visible": False, "range": [deepest - 0.7, 2.2]}
    layout |= {"annotations": notes, "hovermode": False}
    return {"data": data, "layout": layout, "height": 150 + int(26 * (2.2 - deepest))}


def _layout(x: str, y: str) -> Json:
    return {
        "xaxis": {"title": {"text": escape(x)}, "automargin": True},
        "yaxis": {"title": {"text": escape(y)}, "automargin": True},
        "showlegend": False, "hovermode": "closest",
    }  # fmt: skip


def _across(height: float, line: str, style: str) -> Json:
    place: Json = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": height, "y1": height}
    return {**place, "line": {"color": line, "width": 1.2, "dash": style}}


def _down(x: float) -> Json:
    place: Json = {"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x}
    return {**place, "line": {"color": "$ink", "width": 1.2, "dash": "dash"}}
