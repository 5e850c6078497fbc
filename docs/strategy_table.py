"""The table of all query strategies on docs/strategies.md, made from their configs, docstrings and behaviour.

    python docs/strategy_table.py            print it as markdown
    python docs/strategy_table.py --write    put it between <!-- strategies --> and <!-- /strategies --> of the page
    python docs/strategy_table.py --check    exit with status 1 when what stands there is not this table

One line and paper: the first comment of `conf/query_strategy/<name>.yaml`, "what it does (authors year)"; arXiv numbers
come from the docstring of the strategy's module. Cost: the sentence "Cost: O(...)" of the class docstring, in the
letters that the page explains.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from alfm.config.paths import conf_dir
from alfm.errors import UserError

if TYPE_CHECKING:
    from alfm.strategies.base import Strategy

PAGE = Path(__file__).with_name("strategies.md")
HEADER = ("name", "picks", "paper", "cost", "needs")
BEGIN, END = "<!-- strategies -->", "<!-- /strategies -->"


@dataclass(frozen=True)
class Entry:
    """One row, in the order of `HEADER`."""

    name: str
    line: str
    paper: str
    cost: str
    needs: str


def entries() -> list[Entry]:
    """Every config of `conf/query_strategy` that picks by itself, in alphabetical order; ValueError for one that does
    not say its cost."""
    paths = sorted((conf_dir() / "query_strategy").glob("*.yaml"))
    return [_entry(path) for path in paths if path.stem != "replay"]


def _entry(path: Path) -> Entry:
    from alfm.config.parts import from_config

    text = path.read_text(encoding="utf-8")
    module, _, name = yaml.safe_load(text)["_target_"].rpartition(".")
    made = getattr(import_module(module), name)
    documented = import_module(made.__module__)
    line, paper = described(text.splitlines()[0])
    strategy = from_config("query_strategy", path.stem)
    passes = f"{strategy.posterior.passes} passes of " if getattr(strategy, "enable_dropout", False) else ""
    return Entry(
        f"`{path.stem}`",
        line,
        linked(paper, documented.__doc__ or "") or "baseline",
        passes + cost_of(made.__doc__ or "", path.stem),
        needs(strategy),
    )


def described(comment: str) -> tuple[str, str]:
    """What a config's first comment, "# Does this (Authors 2020); a remark", says and cites ("" when nothing)."""
    words = comment.lstrip("# ").rstrip(".")
    cited = re.search(r" \(([^()]+)\)(?=$|;)", words)
    return (words.replace(cited[0], ""), cited[1]) if cited else (words, "")


def linked(paper: str, text: str) -> str:
    """Citations "A 2020; B et al. 2021" with links to the arXiv numbers that follow their first author in `text`."""
    parts = []
    for one in filter(None, re.split(r"(?<=\d{4})[;,] ", paper)):
        author = re.split(r"[ ,]", one)[0]
        number = re.search(rf"{re.escape(author)}\b.*?(\d{{4}}\.\d{{4,5}})", text, re.DOTALL)
        parts.append(f"[{one}](https://arxiv.org/abs/{number[1]})" if number else one)
    return "; ".join(parts)


def cost_of(doc: str, name: str) -> str:
    """The sentence "Cost: O(...)" of a docstring, on one line."""
    paragraphs = (" ".join(part.split()) for part in doc.split("\n\n"))
    found = re.search(r"\bCost: ([^\n]+?)(?:\.(?= [A-Z`])|\.?$)", "\n".join(paragraphs), re.MULTILINE)
    if found is None or "O(" not in found[1]:
        raise ValueError(f"the docstring of {name} has no sentence 'Cost: O(...)'")
    return found[1]


def needs(strategy: Strategy) -> str:
    """What a query looks at besides features: tried out on one, so that it cannot be out of date."""
    import torch

    from alfm.features.features import Features
    from alfm.heads.logistic import Logistic
    from alfm.strategies.query import Query

    if strategy.oracle:
        return "hidden labels"
    looked: list[bool] = []

    class Watched(Query):
        def __getattribute__(self, name: str) -> Any:
            if name == "head":
                looked.append(True)
            return super().__getattribute__(name)

    pool = Features(torch.randn(60, 6, generator=torch.Generator().manual_seed(0)))
    rows, targets = torch.arange(9)[None], torch.arange(9)[None] % 3
    available = torch.ones(1, pool.N, dtype=torch.bool)
    available[0, :9] = False
    classifier = Logistic()
    head = classifier.fit(pool, rows, targets, 3, [1], 4)
    strategy.select(Watched(pool, rows, targets, available, 3, [1], 9, head, classifier), 3)
    if strategy.needs_head:
        return "a head" if looked else "labels"
    return "a head if there is one" if looked else "nothing"


def markdown(rows: Sequence[Entry]) -> str:
    """The table between its marks."""
    lines = [HEADER, ("---",) * len(HEADER), *(astuple(row) for row in rows)]
    return "\n".join(
        [BEGIN, *("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines), END]
    )


def section(text: str, file: Path) -> str:
    """What stands between the marks, marks included; UserError when they are not there."""
    found = re.search(re.escape(BEGIN) + ".*?" + re.escape(END), text, re.DOTALL)
    if found is None:
        raise UserError(f"{file} has no {BEGIN} ... {END} for the table of strategies to stand between.")
    return found[0]


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0, 1 (a stale table, or no place for it) or 2 (a wrong command line)."""
    parser = argparse.ArgumentParser("python docs/strategy_table.py", description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--check", action="store_true", help="is the table on the page this one?")
    which.add_argument("--write", action="store_true", help="put the table on the page")
    parser.add_argument("page", type=Path, nargs="?", default=PAGE, help="default: docs/strategies.md")
    arguments = parser.parse_args(argv)
    table, page = markdown(entries()), arguments.page
    if not (arguments.check or arguments.write):
        print(table)
        return 0
    try:
        text = page.read_text(encoding="utf-8")
        stands = section(text, page)
        if arguments.write:
            page.write_text(text.replace(stands, table), encoding="utf-8")
        elif stands != table:
            raise UserError(f"The strategies in {page} are out of date: python docs/strategy_table.py --write {page}")
    except (UserError, OSError) as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
