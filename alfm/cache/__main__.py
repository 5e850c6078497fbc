"""python -m alfm.cache info|verify|merge|convert PATH"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from alfm.cache.after import after_cache
from alfm.errors import UserError


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for a mistake or a damaged cache, 2 for bad usage."""
    parser = argparse.ArgumentParser("python -m alfm.cache", description="Look at, check and make feature caches.")
    commands = parser.add_subparsers(dest="command", required=True)
    info = commands.add_parser("info", help="shapes, classes and where a cache comes from")
    verify = commands.add_parser("verify", help="find flipped bits, truncation, NaN and missing parts")
    merge = commands.add_parser("merge", help="put the finished parts of an extraction together")
    convert = commands.add_parser("convert", help="make a cache from HDF5, .mat, .npz, .npy with labels, or Parquet")
    for command in (info, verify, merge, convert):
        command.add_argument("path", type=Path)
    convert.add_argument("target", type=Path, nargs="?", help="default: beside PATH, with the suffix .h5")
    convert.add_argument("--features", help="array or column of vectors")
    convert.add_argument("--labels", help="array or column of labels; for .npy a file of them, or FILE:COLUMN")
    convert.add_argument("--ids", help="array or column of ids; for .npy a file of them, or FILE:COLUMN")
    convert.add_argument("--split", help="array or column that says which split a row belongs to; for .npy a file")
    convert.add_argument(
        "--unlabelled",
        default="ask",
        help="a label that means there is none; null: all are classes, but for -1 in arrays, which always means none",
    )
    convert.add_argument("--encoding", help="of .csv and .txt files beside .npy; default: UTF-8")
    convert.add_argument("--test-fraction", type=float, help="cut this share, stratified, from train as test")
    convert.add_argument("--seed", type=int, default=0, help="of the test share")
    convert.add_argument("--dtype", default="auto", choices=("auto", "float16", "float32"))
    convert.add_argument("--force", action="store_true", help="replace the target")
    arguments = parser.parse_args(argv)
    run = {"info": _info, "verify": _verify, "merge": _merge, "convert": _convert}[arguments.command]
    try:
        return run(arguments)
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1


def _info(arguments: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from alfm.cache.reader import open_cache

    cache = open_cache(arguments.path, unlabelled=None)  # shown as it is
    out = Console(soft_wrap=True, highlight=False)
    out.print(Text(f"{cache.path}: {cache.num_classes} classes, D = {cache.dim}"))
    table = Table("split", "items", "views", "dtype", "labelled", "ids")
    for name in cache.splits:
        labelled = int((cache.labels(name) >= 0).sum())
        ids = "no" if cache.ids(name) is None else "yes"
        counts = (f"{cache.num_rows(name):,}", str(cache.num_views(name)), str(cache.dtype(name)), f"{labelled:,}")
        table.add_row(Text(name), *counts, ids)
    out.print(table)
    for remark in cache.remarks:
        out.print(Text(f"note: {remark}"))
    for key, value in sorted(cache.attributes.items()):
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        out.print(Text(f"{key}: {text if len(text) <= 300 else text[:297] + '...'}"))
    out.print(Text(f"fingerprint: {cache.fingerprint}"))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from alfm.cache.verify import verify

    verdict = verify(arguments.path)
    for line in verdict.checked:
        print(line)
    for problem in verdict.problems:
        print(f"PROBLEM {problem}")
    count = len(verdict.problems)
    print(f"{count} problem{'s' if count > 1 else ''}" if count else "sound")
    return 1 if verdict.problems else 0


def _merge(arguments: argparse.Namespace) -> int:
    from alfm.cache.merge import merge
    from alfm.cache.parts import PartsFolder
    from alfm.cache.writer import cannot_write

    path: Path = arguments.path
    target = path.with_name(path.name.removesuffix(".parts")) if path.name.endswith(".parts") else path
    try:
        with PartsFolder(target) as folder:
            if not folder.path.is_dir():
                raise UserError(f"There is no folder {folder.path} with parts to merge.")
            if not folder.claims.claim("finalise"):
                raise UserError(f"Another process is putting {target} together right now.")
            merged = merge(folder)
    except OSError as error:
        raise cannot_write(target, error) from error
    print(f"{target}: {', '.join(f'{name} {rows:,}' for name, rows in merged.rows.items())} items")
    return 0


def _convert(arguments: argparse.Namespace) -> int:
    from alfm.cache.convert import Options, convert

    names = ("features", "labels", "ids", "split", "test_fraction", "seed", "dtype", "encoding")
    given = {name: getattr(arguments, name) for name in names}
    options = Options(**given, unlabelled=_value(arguments.unlabelled))
    target = arguments.target or arguments.path.with_suffix(".h5")
    cache = convert(arguments.path, target, options, arguments.force, print)
    rows = ", ".join(f"{name} {cache.num_rows(name):,}" for name in cache.splits)
    print(f"{cache.path}: {rows} items, D = {cache.dim}, {cache.num_classes} classes")
    print(after_cache(cache, "--test-fraction 0.2 --force"))
    return 0


def _value(text: str) -> Any:
    """What `--unlabelled` says: a number, null, a text, or a list of them; as in the settings of the other commands."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, list):
        return [one if type(one) in (int, float, str) else str(one) for one in value]
    return value if value is None or type(value) in (int, float, str) else text


if __name__ == "__main__":
    sys.exit(main())
