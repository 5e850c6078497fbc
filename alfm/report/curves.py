"""Learning curves as images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alfm.errors import UserError
from alfm.metrics import METRICS
from alfm.results.pairing import check_metric
from alfm.results.setting import REFERENCE, Setting, settings_of, units_of
from alfm.results.statistics import mean_interval

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

# Okabe & Ito (2008), without the yellow that white paper swallows; with four dashings 32 lines stay apart
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#5D3A9B")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = ("o", "s", "^", "D")
Style = dict[str, Any]


def plot_curves(
    df: pd.DataFrame, path: str | Path, metric: str = "accuracy", styles: Mapping[str, Style] | None = None
) -> Path:
    """Draw the learning curves of ONE setting, mean and 95 % t-interval over seeds, as an image; returns its path.

    `df` as for `settings_of`; `styles`: as from `styles_of`, to make several pictures alike. Runs with a cold start
    of their own are drawn in a second panel. Seeds that picked the same items count once in the interval, and one such
    curve has none. Raises UserError for several settings at once, an unknown metric, an unknown kind of image, or a
    path that cannot be written.
    """
    check_metric(metric, df)
    settings = list(settings_of(df))
    if len(settings) != 1:
        raise UserError(f"one picture shows one setting, these runs are of {len(settings)}; draw them one at a time")
    return plot_setting(settings[0], path, metric, styles_of(settings) if styles is None else styles)


def plot_setting(setting: Setting, path: str | Path, metric: str, styles: Mapping[str, Style]) -> Path:
    """`plot_curves` of a setting as it stands, its strategies named as in the tables."""
    from matplotlib.figure import Figure  # no pyplot: nothing global, no window system

    path = Path(path)
    panels = [(f"{setting.start} start" if setting.start else "", setting.shared)]
    if len(setting.own):
        panels.append(("other cold starts", setting.own))
    sizes = [part.groupby(["strategy", "init_strategy"]).ngroups for _, part in panels]
    heights = [max(4.2, 1.0 + 0.2 * -(-size // _columns(size))) for size in sizes]
    figure = Figure(figsize=(6.0 + 1.7 * _columns(max(sizes)), sum(heights)), layout="constrained")
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, part) in zip(rows, panels, strict=True):
        _panel(axes, part, styles, metric, own=part is setting.own)
        axes.set_title(name, fontsize=9)
    figure.suptitle(setting.title, fontsize=10)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot draw {path}: {error}") from None
    return path


def styles_of(settings: Sequence[Setting]) -> dict[str, Style]:
    """A strategy looks the same in every picture of one report. The reference is black and dashed."""
    names = sorted({name for s in settings for part in (s.shared, s.own) for name in part["strategy"]} - {REFERENCE})
    styles: dict[str, Style] = {REFERENCE: {"color": "black", "linestyle": "--", "linewidth": 2.0}}
    for i, name in enumerate(names):
        styles[name] = nth_style(i)
    return styles


def nth_style(i: int) -> Style:
    """The i-th of many curves: eight colours, then the same with other dashes."""
    turn = i // len(COLOURS)
    return {
        "color": COLOURS[i % len(COLOURS)],
        "linestyle": DASHES[turn % len(DASHES)],
        "marker": _MARKERS[turn % len(_MARKERS)],
        "markersize": 3.5,
        "linewidth": 1.5,
    }


def _panel(axes: Axes, df: pd.DataFrame, styles: Mapping[str, Style], metric: str, own: bool) -> None:
    scale = METRICS[metric].scale
    drawn = []
    groups = list(df.groupby(["strategy", "init_strategy"]))
    for (strategy, start), run in groups:
        rounds = run.groupby("num_labeled")
        by_budget = [(n, scale.factor * part[metric].to_numpy(), units_of(part)) for n, part in rounds]
        x = np.array([n for n, *_ in by_budget])
        middle, half = np.array([mean_interval(values, unit=unit) for _, values, unit in by_budget]).T
        style = styles[strategy]
        label = f"{strategy} ({start})" if own else strategy
        label += _repeated(by_budget[-1][2])
        (line,) = axes.plot(x, middle, label=label, zorder=3 if strategy == REFERENCE else 2, **style)
        if np.isfinite(half).any():
            axes.fill_between(x, middle - half, middle + half, color=style["color"], linewidth=0, alpha=_haze(groups))
        drawn.append((np.nanmean(middle), line))
    drawn.sort(key=lambda pair: -METRICS[metric].sign * pair[0])
    axes.legend(
        handles=[line for _, line in drawn],  # best first, as in the table
        loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0, fontsize=8, frameon=False,
        ncols=_columns(len(groups)), handlelength=3.2,
    )  # fmt: skip
    axes.set_xlabel("labelled items")
    axes.set_ylabel(metric.replace("_", " ") + (f" ({scale.unit})" if scale.unit else ""))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _repeated(unit: np.ndarray) -> str:
    """What a legend says of seeds that repeat one another: why there is no interval, or a wide one."""
    different = unit.max() + 1
    if different == len(unit):
        return ""
    return ", one start" if different == 1 else f", {different} of {len(unit)} differ"


def _columns(strategies: int) -> int:
    """Of the legend."""
    return 1 if strategies <= 24 else 2


def _haze(groups: Sequence[object]) -> float:
    """Bands fade as they get many."""
    return 0.18 if len(groups) <= 6 else 0.10 if len(groups) <= 12 else 0.05
