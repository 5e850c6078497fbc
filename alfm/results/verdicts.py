"""`stopping.csv` of a run folder: where each stopping rule would have ended each replicate, or did."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from alfm.errors import UserError
from alfm.files import replacing

FILE = "stopping.csv"
NEVER = "never"
"""Reason of a rule that did not fire in a whole run: an outcome, not the last round."""
ENDED = "ended before"
"""Reason of a rule that had not fired when another one ended the replicate."""
STOPPED = "stopped by "
"""How the reason begins for which a run folder marks a replicate as finished that a rule has ended."""


@dataclass(frozen=True)
class Verdict:
    """What a rule said of a seed. options: the rule's, as JSON with sorted keys.

    round, labels: where it said stop and how many were trained on there, None where it never did; charged: further
    labels that it was told, those of an audit; reason: its sentence, `NEVER` or `ENDED`.
    """

    seed: int
    rule: str
    options: str
    round: int | None
    labels: int | None
    charged: int
    reason: str

    @property
    def key(self) -> tuple[int, str, str]:
        """A later verdict on the same replaces this one."""
        return self.seed, self.rule, self.options


def options_text(options: Mapping[str, Any]) -> str:
    """`Verdict.options` of a rule's options."""
    return json.dumps(dict(options), sort_keys=True)


def read_verdicts(folder: Path) -> list[Verdict]:
    """What a run folder holds; empty where nobody has watched. UserError for a file that cannot be read."""
    file = folder / FILE
    if not file.exists():
        return []
    names = [one.name for one in fields(Verdict)]
    try:
        with file.open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text)
            if reader.fieldnames != names:
                raise ValueError(f"its columns are {', '.join(reader.fieldnames or ['none'])}")
            return [_verdict(row) for row in reader]
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read ({error}); delete it, and watch the run again") from None


def keep_verdicts(folder: Path, new: Iterable[Verdict]) -> None:
    """Write them beside those that are there, in place of those on the same; UserError when that cannot be written."""
    known = {one.key: one for one in [*read_verdicts(folder), *new]}
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Verdict)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(one) for one in known.values())
    try:
        with replacing(folder / FILE) as handle:
            handle.write(text.getvalue().encode())
    except OSError as error:
        raise UserError(f"cannot write {folder / FILE}: {error.strerror or error}; make room and run again") from None


def unjudged(verdicts: Sequence[Verdict], rules: Mapping[str, str], seeds: Iterable[int]) -> list[int]:
    """Seeds that some rule (its name -> its options' text) has said nothing of."""
    known = {one.key for one in verdicts}
    return [seed for seed in seeds if any((seed, *rule) not in known for rule in rules.items())]


def _verdict(row: Mapping[str, str]) -> Verdict:
    number = {name: int(row[name]) if row[name] else None for name in ("round", "labels")}
    return Verdict(
        int(row["seed"]), row["rule"], row["options"], number["round"], number["labels"], int(row["charged"]),
        row["reason"],
    )  # fmt: skip
