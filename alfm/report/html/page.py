"""The page, and the files beside it: figures for papers and every table.

One file that opens from disk: the plotting library, its figures as JSON, styles and script are inside. Whatever runs
are called is text and nothing else, in the page's HTML, in its JSON and in its figures.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alfm.errors import UserError
from alfm.files import replacing
from alfm.report.cells import Table
from alfm.report.curves import Style, nth_style, styles_of
from alfm.report.html import paper
from alfm.report.html.exports import write_table
from alfm.report.html.interactive import colour, dash, draw
from alfm.report.html.known import Known, shown
from alfm.report.html.palette import DARK, LIGHT
from alfm.report.html.paper import p_text, write_picture
from alfm.report.html.paragraph import said_of, said_of_all, said_of_backbones
from alfm.report.html.parts import Chapter
from alfm.report.html.pictures import Lines, Matrix, Picture
from alfm.report.html.sections import (
    across,
    backbones,
    ceiling,
    comparisons,
    costs,
    labels,
    learning,
    repeat,
    stopping,
    transfer,
    tuning,
)
from alfm.results.setting import Setting

FOLDER = "_files"
"""Ends the name of the folder beside `report.html`: report_files."""


@dataclass(frozen=True)
class Origin:
    """report: the command that wrote the page; command: a run folder and its configuration -> what makes it again."""

    report: str
    command: Callable[[Path, Mapping[str, Any]], str]


def check_libraries() -> None:
    """UserError, with what to install, where one is missing."""
    try:
        import jinja2  # noqa: F401
        import plotly.offline  # noqa: F401
    except ModuleNotFoundError as missing:
        raise UserError(
            f"--html needs {missing.name}, which is not installed: pip install 'alfm[report]' brings all that it needs"
        ) from None


def write_page(
    settings: Sequence[Setting], stems: Sequence[str], metric: str, file: Path, notes: Sequence[str], origin: Origin
) -> list[Path]:
    """Write the page and what lies beside it; the files, the page first.

    stems: of each setting's files; notes: sentences about runs that are left out or kept apart. UserError where the
    disk refuses, or a library is missing.
    """
    check_libraries()
    knowns = [Known(setting, metric, stem) for setting, stem in zip(settings, stems, strict=True)]
    groups = across.together(knowns)
    chapters = [across.chapter(group) for group in groups]
    same = backbones.same_items(knowns)
    chapters += [backbones.chapter(group) for group in same]
    data = [known.setting.data for known in knowns]
    chapters += [_chapter(known, data.count(known.setting.data) == 1) for known in knowns]
    chapters += [one for one in (transfer.chapter(knowns), tuning.chapter(knowns)) if one]
    chapters.append(repeat.chapter(knowns, origin.command, origin.report))
    summary = [said_of_all(list(group.knowns.values()), group.aggregate) for group in groups]
    summary += [said_of_backbones(group) for group in same]
    summary += [said_of(known) for known in knowns]
    styles = _styles(settings, chapters)
    folder = file.with_name(file.stem + FOLDER)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        beside = [*_exported(chapters, styles, folder)]
        text = _rendered(chapters, [" ".join(one) for one in summary if one], metric, styles, notes, folder.name)
        with replacing(file) as handle:
            handle.write(text.encode())
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; give --html another place") from None
    return [file, *beside]


def _chapter(known: Known, alone: bool) -> Chapter:
    """All that is said of one setting; alone: no other is of its data."""
    title = known.setting.start_title
    if not len(known.shared):
        found = [stopping.stopping(known)]
    else:
        found = [
            learning.learning_curves(known, ceiling.ceilings(known)),
            learning.gain_over_random(known),
            comparisons.matrix(known),
            comparisons.verdicts(known),
            labels.efficiency(known),
            labels.oracle(known),
            labels.coverage(known),
            labels.filled(known),
            stopping.stopping(known),
            costs.costs(known),
            learning.other_starts(known),
        ]
    lead = [f"Not compared: {known.why_not}."] if len(known.shared) and known.why_not else []
    return Chapter(known.stem, title, [one for one in found if one], lead, known.setting.data if alone else "")


def _styles(settings: Sequence[Setting], chapters: Sequence[Chapter]) -> dict[str, Style]:
    """Of every strategy, whichever way it is called, and of the other curves: backbones, starts, replays."""
    styles = styles_of(settings)
    styles |= {shown(name): style for name, style in styles.items()}
    for _, block in _blocks(chapters):
        if isinstance(block, Lines):
            for name in (one.name for one in block.series):
                if name not in styles:
                    here = [styles[one.name] for one in block.series if one.name in styles]
                    styles[name] = next(style for style in map(nth_style, count()) if style not in here)
    return styles


def _blocks(chapters: Sequence[Chapter]) -> Iterator[tuple[str, Table | Picture]]:
    """Every table and picture and the stem of its files, each stem once."""
    seen: dict[str, int] = {}
    for chapter in chapters:
        for section in chapter.sections:
            for block in section.blocks:
                name = block.name if not isinstance(block, Table) else f"{section.anchor}-table"
                seen[name] = seen.get(name, 0) + 1
                yield (name if seen[name] == 1 else f"{name}-{seen[name]}"), block


def _exported(chapters: Sequence[Chapter], styles: Mapping[str, Style], folder: Path) -> Iterator[Path]:
    for stem, block in _blocks(chapters):
        if isinstance(block, Table):
            yield from write_table(block, folder / stem)
        else:
            yield from write_picture(block, styles, folder / stem)
            yield from write_table(block.table(), folder / stem)


# -- the page ----------------------------------------------------------------------------------------------------------


def _rendered(
    chapters: Sequence[Chapter], summary: Sequence[str], metric: str, styles: Mapping[str, Style], notes: Sequence[str],
    folder: str,
) -> str:  # fmt: skip
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    loader = PackageLoader("alfm.report.html")
    page = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    stems = {id(block): stem for stem, block in _blocks(chapters)}
    figures = {
        stem: draw(block, styles)
        for stem, block in _blocks(chapters)
        if not isinstance(block, Table | Matrix)
    }  # fmt: skip
    library = base64.b64encode(gzip.compress(get_plotlyjs().encode(), 9, mtime=0)).decode()
    return page.get_template("page.html").render(
        chapters=chapters, summary=summary, notes=notes, metric=metric.replace("_", " "), folder=quote(folder),
        light=LIGHT, dark=DARK, figures=Markup(_json(figures)), palettes=Markup(_json({"light": LIGHT, "dark": DARK})),
        library=Markup(library), script=Markup(loader.get_source(page, "page.js")[0]),
        style=Markup(loader.get_source(page, "page.css")[0]), stem_of=lambda block: stems[id(block)],
        kind_of=lambda block: type(block).__name__, is_lines=lambda block: isinstance(block, Lines),
        height_of=lambda stem: figures[stem]["height"], swatch=lambda name: _swatch(styles.get(name)), p_text=p_text,
        quoted=quote, pictures=[ending[1:] for ending in paper.ENDINGS],
    )  # fmt: skip


def _swatch(style: Style | None) -> dict[str, str]:
    """Colour and dashes of a legend's line."""
    dashes = {"solid": "none", "dash": "5 3", "dot": "1.5 2.5", "dashdot": "6 2.5 1.5 2.5"}
    return {"colour": f"var(--{colour(style)[1:]})", "dashes": dashes[dash(style)]}


def _json(found: Any) -> str:
    """JSON that ends no script: "<" is written as an escape."""
    return json.dumps(found, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
