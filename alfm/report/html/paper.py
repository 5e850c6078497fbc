"""Pictures for papers, as SVG and PDF."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.report.curves import COLOURS, Style
from alfm.report.html.pictures import Bars, Diagram, Forest, Lines, Matrix, Picture, Points
from alfm.results.setting import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ENDINGS = (".svg", ".pdf")
_GREY = "#5f636b"
_PARTS = ("#0072B2", "#E69F00", "#7F7F7F", "#009E73")


def write_picture(picture: Picture, styles: Mapping[str, Style], stem: Path) -> list[Path]:
    """`stem` with each of `ENDINGS`; what was written. The same picture gives the same bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    files: list[Path] = []
    if not ENDINGS:
        return files
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": picture.name, "pdf.fonttype": 42, "font.size": 8}):
        figure = Figure(figsize=size(picture), layout="constrained")
        axes = figure.subplots()
        axes.spines[["top", "right"]].set_visible(False)
        draw(picture, axes, styles)
        axes.set_title(picture.title, fontsize=8, parse_math=False)
        for ending in ENDINGS:
            file = stem.with_name(stem.name + ending)
            date = {"Date": None} if ending == ".svg" else {"CreationDate": None}
            figure.savefig(file, metadata=date)
            figure.set_layout_engine("none")  # laid out once
            files.append(file)
    return files


def size(picture: Picture) -> tuple[float, float]:
    """In inches."""
    if isinstance(picture, Lines):
        return 6.6, max(3.2, 0.6 + 0.15 * len(picture.series))
    if isinstance(picture, Matrix):
        return 1.6 + 0.72 * len(picture.names), 1.0 + 0.5 * len(picture.names)
    if isinstance(picture, Diagram):
        return 6.0, 1.2 + 0.12 * len(picture.ranks) + 0.12 * len(picture.cliques())
    if isinstance(picture, Points):
        return 6.6, 3.6
    return 5.0, 0.9 + 0.2 * len(picture.rows)


@singledispatch
def draw(picture: Any, axes: Axes, styles: Mapping[str, Style]) -> None:
    """Onto the axes. styles: as from `styles_of`, by strategy."""
    raise TypeError(f"no way to draw {type(picture).__name__}")


def _plain(name: str) -> str:
    """A name as text: a dollar sign begins no formula."""
    return name.replace("$", r"\$")


@draw.register(Lines)
def _lines(picture: Lines, axes: Axes, styles: Mapping[str, Style]) -> None:
    for one in picture.series:
        style = {"color": _GREY, **styles.get(one.name, {}), "markersize": 2.5, "linewidth": 1.2}
        middle, half = np.array(one.middle), np.array(one.half)
        axes.plot(one.x, middle, label=_plain(one.name), zorder=3 if one.name == REFERENCE else 2, **style)
        if np.isfinite(half).any():
            axes.fill_between(one.x, middle - half, middle + half, color=style["color"], linewidth=0, alpha=0.1)
    for name, height in picture.levels.items():
        axes.axhline(height, color=_GREY, linestyle=(0, (4, 3)), linewidth=0.9)
        axes.annotate(
            _plain(name),
            (1, height),
            xycoords=("axes fraction", "data"),
            ha="right",
            va="bottom",
            fontsize=6,
            color=_GREY,
        )
    if picture.zero:
        axes.axhline(0, color="black", linewidth=0.8)
    if picture.span is not None:
        axes.set_ylim(*picture.span)
    axes.set_xlabel(picture.x), axes.set_ylabel(picture.y)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=7, handlelength=3)


@draw.register(Forest)
def _forest(picture: Forest, axes: Axes, styles: Mapping[str, Style]) -> None:
    for i, one in enumerate(picture.rows):
        own = styles.get(one.name, {}).get("color", "black")
        axes.plot([one.low, one.high], [i, i], color=_GREY, linewidth=1.2)
        axes.plot([one.middle], [i], "o", color=own, markersize=4.5)
    axes.axvline(picture.nothing, color="black", linestyle=(0, (4, 3)), linewidth=0.8)
    _names(axes, [one.name for one in picture.rows])
    axes.set_xlabel(picture.x)
    axes.grid(alpha=0.25, axis="x")


@draw.register(Bars)
def _bars(picture: Bars, axes: Axes, styles: Mapping[str, Style]) -> None:
    left = np.zeros(len(picture.rows))
    for i, part in enumerate(picture.parts):
        width = np.array([values[i] for values in picture.rows.values()])
        axes.barh(range(len(picture.rows)), width, left=left, label=part, color=_PARTS[i % len(_PARTS)], height=0.7)
        left += width
    _names(axes, list(picture.rows))
    axes.set_xlabel(picture.x)
    if len(picture.parts) > 1:
        axes.legend(frameon=False, fontsize=7)


@draw.register(Points)
def _points(picture: Points, axes: Axes, styles: Mapping[str, Style]) -> None:
    for i, group in enumerate(dict.fromkeys(row[0] for row in picture.rows)):
        own = [row for row in picture.rows if row[0] == group]
        marker = "osD^vP*X"[i // len(COLOURS) % 8 if i >= len(COLOURS) else i % 8]
        axes.plot(
            [r[2] for r in own],
            [r[3] for r in own],
            marker,
            color=COLOURS[i % len(COLOURS)],
            label=_plain(group),
            markersize=4,
        )
    axes.axhline(0, color=_GREY, linestyle=(0, (1, 2)), linewidth=0.8)
    axes.set_xlabel(picture.x), axes.set_ylabel(picture.y)
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0, frameon=False, fontsize=7)


@draw.register(Diagram)
def _diagram(picture: Diagram, axes: Axes, styles: Mapping[str, Style]) -> None:
    cliques = picture.cliques()
    last = int(np.ceil(max(picture.ranks.values())))
    axes.plot([1, last], [0, 0], color="black", linewidth=1)
    for tick in range(1, last + 1):
        axes.plot([tick, tick], [0, 0.3], color="black", linewidth=1)
        axes.text(tick, 0.4, str(tick), ha="center", va="bottom", fontsize=7)
    top = 1.0 + 0.5 * len(cliques)
    for name, rank, row, left in picture.places():
        end = 0.7 if left else last + 0.3
        axes.plot([rank, rank, end], [0, -(top + row), -(top + row)], color=_GREY, linewidth=0.8)
        word = f" {name}, {rank:.1f} "
        axes.text(end, -(top + row), _plain(word), ha="right" if left else "left", va="center", fontsize=7)
    for i, (first, second) in enumerate(cliques):
        axes.plot([first - 0.04, second + 0.04], [-0.5 * (i + 1)] * 2, color="black", linewidth=2.5)
    axes.plot([1, 1 + picture.critical_difference], [1.9, 1.9], color=COLOURS[1], linewidth=2)
    axes.text(1, 2.1, f"critical difference {picture.critical_difference:.2f}", fontsize=7, color=COLOURS[1])
    axes.set_xlim(0.7 - 0.28 * last, last + 0.3 + 0.28 * last)
    axes.set_axis_off()


@draw.register(Matrix)
def _matrix(picture: Matrix, axes: Axes, styles: Mapping[str, Style]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    k, cells = len(picture.names), picture.cells()
    values = np.full((k, k), np.nan)
    for i, a in enumerate(picture.names):
        for j, b in enumerate(picture.names):
            if (one := cells.get((a, b))) is not None:
                values[i, j] = one["difference"]
                lines = [f"{one['difference']:+.2f}"]
                if one["low"] == one["low"]:
                    lines.append(f"{one['low']:+.1f} to {one['high']:+.1f}")
                lines.append(f"{one['wins']:.0f}/{one['ties']:.0f}/{one['losses']:.0f}")
                if one["p"] == one["p"]:
                    lines.append(p_text(one["p"]))
                axes.text(j, i, "\n".join(lines), ha="center", va="center", fontsize=5, linespacing=1.15)
    shades = LinearSegmentedColormap.from_list("gap", ["#f3b391", "#ffffff", "#94c4e4"])
    axes.imshow(values, cmap=shades, vmin=-picture.largest, vmax=picture.largest, aspect="auto")
    names = [_plain(name) for name in picture.names]
    axes.set_xticks(range(k), names, rotation=40, ha="right"), axes.set_yticks(range(k), names)
    axes.tick_params(length=0)


def p_text(p: float) -> str:
    """A p as it is printed in a cell."""
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}" if p < 0.001 else f"p = {p:.3f}"


def _names(axes: Axes, names: list[str]) -> None:
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.5, -0.5)
