"""`python -m alfm.report [LOG_DIR_OR_RUNS...]`: tables, statistics and learning curves of finished runs.

One table per setting (data set, model, head with its options, budget, splits and all else but the strategies), for the
cold start that most of its strategies share; runs with another cold start are shown in a second one and never enter a
test. Seeds that picked the same items count once.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alfm.commands import command
from alfm.errors import UserError, nearest_names
from alfm.metrics import METRICS
from alfm.report.cells import Renderer
from alfm.report.curves import plot_setting, styles_of
from alfm.report.latex import show as as_latex
from alfm.report.markdown import show as as_markdown
from alfm.report.over_caches import tables_over
from alfm.report.tables import tables_of
from alfm.report.terminal import show as on_terminal
from alfm.results.setting import Setting, apart, settings_of, summary

if TYPE_CHECKING:
    import pandas as pd

RENDERERS: Mapping[str, Renderer] = {"table": on_terminal, "markdown": as_markdown, "latex": as_latex}
"""How tables are drawn, by `--format`."""
_LONGEST_STEM = 120  # of a file's name, to which the metric, the table and the ending are added


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0, 1 (a user's mistake) or 2 (a wrong command line)."""
    parser = argparse.ArgumentParser("python -m alfm.report", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("paths", nargs="*", type=Path, metavar="LOG_DIR_OR_RUN", help="default: LOG_DIR")
    parser.add_argument("--out", type=Path, help="folder for curves and test tables (default: report/ in LOG_DIR)")
    parser.add_argument("--metric", default="accuracy", help=f"one of {', '.join(METRICS)}")
    parser.add_argument("--format", default="table", choices=(*RENDERERS, "csv"))
    parser.add_argument("--html", type=Path, metavar="FILE", help="write the report as one page, its files beside it")
    arguments = parser.parse_args(argv)
    if arguments.metric not in METRICS:
        parser.error(f"no metric {arguments.metric!r}: {nearest_names(arguments.metric, list(METRICS))}")
    try:
        if arguments.html is not None:
            _page(arguments.paths, arguments.html, arguments.metric, sys.argv[1:] if argv is None else argv)
        else:
            _report(arguments.paths, arguments.out, arguments.metric, arguments.format)
    except UserError as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 1
    return 0


def _report(paths: list[Path], out: Path | None, metric: str, style: str) -> None:
    paths = paths or _logs()
    runs, left_out = _shown_runs(paths, metric)
    settings = list(settings_of(runs))
    written = _tables(settings, out or paths[0] / "report", metric, style)
    # standard output stays a clean table where another program reads it
    where = sys.stdout if style == "table" else sys.stderr
    for sentence in [*apart(settings), *left_out, *(f"Written: {file}" for file in written)]:
        print(sentence, file=where)


def _page(paths: list[Path], file: Path, metric: str, words: Sequence[str]) -> None:
    """The same as a page; prints what was written."""
    from alfm.config.typed_again import cache_of, typed_again
    from alfm.report.html.page import FOLDER, Origin, check_libraries, write_page

    check_libraries()
    if file.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--html {file}: a page's name ends in .html, for example --html {file.with_suffix('.html')}")
    paths = paths or _logs()
    runs, left_out = _shown_runs(paths, metric)
    settings = list(settings_of(runs))
    origin = Origin(command("report", *words), lambda folder, config: typed_again(config, cache_of(folder)))
    written = write_page(settings, _stems(settings), metric, file, [*apart(settings), *left_out], origin)
    for sentence in left_out:
        print(sentence, file=sys.stderr)
    beside = file.with_name(file.stem + FOLDER)
    print(f"Written: {file}, and {len(written) - 1} figures and tables in {beside}")


def _logs() -> list[Path]:
    """Where runs lie when nobody says."""
    from alfm.config.paths import paths

    return [paths().logs]


def _shown_runs(paths: Sequence[Path], metric: str) -> tuple[pd.DataFrame, list[str]]:
    """Replicates that are finished and measured the metric, and a sentence about the others; UserError without any."""
    from alfm.results.load import load_runs

    df = load_runs(paths, finished_only=False)
    done = df["finished"]
    if not done.any():
        raise UserError(f"no finished run in {', '.join(map(str, paths))}; start al_train again to continue them")
    measured = df[metric].notna().groupby([df["path"], df["seed"]]).transform("any")
    if not (done & measured).any():
        raise UserError(f"no finished run in {', '.join(map(str, paths))} has measured {metric}; give another --metric")
    left_out = []
    for which, why in ((~done, "are not finished"), (done & ~measured, f"have not measured {metric}")):
        if count := len(df.loc[which, ["path", "seed"]].drop_duplicates()):
            names = ", ".join(sorted({Path(path).name for path in df.loc[which, "path"]}))
            left_out.append(f"Left out: {count} replicates that {why} ({names}).")
    return df[done & measured], left_out


def _tables(settings: Sequence[Setting], out: Path, metric: str, style: str) -> list[Path]:
    """Print them; the files, with the curves, that were written to `out`."""
    show = RENDERERS.get(style)
    stems = _stems(settings)
    written = []
    for setting, stem in zip(settings, stems, strict=True):
        tables, full = tables_of(setting, metric)
        for table in tables:
            if show is not None:
                show(table)
        for name, frame in full.items():
            written.append(_write_csv(frame, out / f"{stem}-{metric}-{name}.csv"))
    tables, full = tables_over(settings, metric)
    written += [_write_csv(frame, out / f"{name}-{metric}.csv") for name, frame in full.items()]
    if show:
        for table in tables:
            show(table)
    else:
        print(_csv(settings, metric), end="")
    styles = styles_of(settings)
    pictures = (
        (one, out / f"{stem}-{metric}.png") for one, stem in zip(settings, stems, strict=True) if len(one.shared)
    )
    return written + [plot_setting(one, file, metric, styles) for one, file in pictures]


def _csv(settings: Sequence[Setting], metric: str) -> str:
    """Every setting's numbers, unrounded, in one table."""
    import pandas as pd

    everything = []
    for setting in settings:
        for part in filter(len, (setting.shared, setting.own)):
            about = {**setting.names, "metric": metric, "own_cold_start": part is setting.own}
            everything.append(_by_quarter(summary(part, metric).assign(**about)))
    if not everything:
        return ""
    return pd.concat(everything, ignore_index=True).to_csv(index=False)


def _by_quarter(numbers: pd.DataFrame) -> pd.DataFrame:
    """Settings have different budgets: in one CSV their columns are named by the quarter, the labels beside them."""
    places = [c.removesuffix(" mean") for c in numbers if c.startswith("after ") and c.endswith(" mean")]
    renamed: dict[str, str] = {}
    for quarter, place in zip(range(5 - len(places), 5), places, strict=True):
        renamed |= {f"{place} mean": f"quarter {quarter} mean", f"{place} std": f"quarter {quarter} std"}
        numbers = numbers.assign(**{f"quarter {quarter} labels": int(place.removeprefix("after "))})
    return numbers.rename(columns=renamed).rename(columns=lambda name: name.replace(" ", "_"))


def _write_csv(table: pd.DataFrame, file: Path) -> Path:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        table.to_csv(file, index=table.index.dtype == object or str(table.index.dtype).startswith("str"))
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}") from None
    return file


def _stems(settings: Sequence[Setting]) -> list[str]:
    """File names: data set and model, and what else is needed to tell settings of the same two apart."""
    from alfm.results.run_folder import folder_name

    stems = []
    for setting in settings:
        same = [other for other in settings if other.data == setting.data]
        parts = [setting.names["dataset"], setting.names["model"]]
        for part in ("classifier", "head", "budget", "rest"):
            values = [one.names.get(part) or getattr(one, part, "") for one in same]
            if len(set(values)) > 1:
                parts.append(str(setting.names.get(part) or getattr(setting, part, "")))
        stems.append(folder_name("-".join(filter(None, parts)).replace(" ", "_")))
    for i, stem in enumerate(stems):
        if len(stem) > _LONGEST_STEM or stems.count(stem) > 1:
            digest = hashlib.sha256(repr(settings[i].names).encode()).hexdigest()[:8]
            stems[i] = f"{stem[:_LONGEST_STEM]}-{digest}"
    return stems


if __name__ == "__main__":
    sys.exit(main())
