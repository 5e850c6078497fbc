"""The table of all query strategies, made from their configs, docstrings and behaviour.

    python -m alfm.strategies.catalogue                      print it as markdown
    python -m alfm.strategies.catalogue --write README.md    put it between <!-- strategies --> and <!-- /strategies -->
    python -m alfm.strategies.catalogue --check README.md    exit with status 1 when what stands there is not this table

One line and paper: the first comment of `conf/query_strategy/<name>.yaml`, "what it does (authors year)"; arXiv numbers
come from the docstring of the strategy's module. Cost: the sentence "Cost: ..." of the class docstring, in the words of
METHODS: N items, D features, C classes, B picks, n labelled, M draws; bytes are those beside the features and one
float32 copy of them in each space in use (4 N D).
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

HEADER = ("name", "picks", "paper", "cost", "needs labels", "needs a head")
BEGIN, END = "<!-- strategies -->", "<!-- /strategies -->"


@dataclass(frozen=True)
class Entry:
    """One row, in the order of `HEADER`."""

    name: str
    line: str
    paper: str
    cost: str
    labels: str
    head: str


def entries() -> list[Entry]:
    """Every config of `conf/query_strategy`, in alphabetical order; ValueError for one that does not say its cost."""
    return [_entry(path) for path in sorted((conf_dir() / "query_strategy").glob("*.yaml"))]


def _entry(path: Path) -> Entry:
    from alfm.config.parts import from_config

    text = path.read_text(encoding="utf-8")
    module, _, name = yaml.safe_load(text)["_target_"].rpartition(".")
    made = getattr(import_module(module), name)
    documented = import_module(made.__module__)
    line, paper = described(text.splitlines()[0])
    strategy = from_config("query_strategy", path.stem)
    passes = f", times {strategy.posterior.passes} passes" if getattr(strategy, "enable_dropout", False) else ""
    labels = "yes, hidden ones too" if strategy.oracle else "yes" if strategy.needs_head else "no"
    return Entry(
        f"`{path.stem}`",
        line,
        linked(paper, documented.__doc__ or "") or "baseline",
        cost_of(made.__doc__ or "", path.stem) + passes,
        labels,
        _head(strategy),
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
    """The sentence "Cost: ..." ("Cost per round: ...") of a docstring, on one line."""
    paragraphs = (" ".join(part.split()) for part in doc.split("\n\n"))
    told = next((part for part in paragraphs if re.search(r"\bCost\b.*?:", part)), "")
    found = re.search(r"\bCost( per \w+)?: (.+?)(?:\.(?= [A-Z`])|\.?$)", told)
    if found is None:
        raise ValueError(f"the docstring of {name} has no sentence 'Cost: ...'")
    return found[2] + (f"{found[1]}" if found[1] else "")


def _head(strategy: Strategy) -> str:
    """Whether a query after some labels looks at the fitted head: tried out, so that it cannot be out of date."""
    import torch

    from alfm.features.features import Features
    from alfm.heads.logistic import Logistic
    from alfm.strategies.query import Query

    if strategy.oracle:
        return "yes"
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
    return "no" if not looked else "yes" if strategy.needs_head else "if there is one"


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
    parser = argparse.ArgumentParser("python -m alfm.strategies.catalogue", description=(__doc__ or "").splitlines()[0])
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--check", type=Path, metavar="FILE", help="is the table in FILE this one?")
    which.add_argument("--write", type=Path, metavar="FILE", help="put the table into FILE")
    arguments = parser.parse_args(argv)
    table, file = markdown(entries()), arguments.check or arguments.write
    if file is None:
        print(table)
        return 0
    try:
        text = file.read_text(encoding="utf-8")
        stands = section(text, file)
        if arguments.write:
            file.write_text(text.replace(stands, table), encoding="utf-8")
        elif stands != table:
            raise UserError(
                f"The strategies in {file} are out of date: python -m alfm.strategies.catalogue --write {file}"
            )
    except (UserError, OSError) as mistake:
        print(f"Error: {mistake}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
