"""`tuning.csv` of a run folder: which options were chosen for each seed's head in each round, and why."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from alfm.errors import UserError
from alfm.files import replacing

FILE = "tuning.csv"
JOURNAL = "tuning.journal"
"""Of Optuna's studies."""
_PLACE, _SAID = ("seed", "round"), ("score", "default", "reason")


@dataclass(frozen=True)
class Tuning:
    """One round of one seed. options: what its head was fitted with; score, default: accuracy on labels that it was not
    trained on, of these options and of the head's default, NaN where nothing was tried; reason: in words."""

    seed: int
    round: int
    options: dict[str, float]
    score: float
    default: float
    reason: str

    @property
    def key(self) -> tuple[int, int]:
        return self.seed, self.round


def read_tuning(folder: Path) -> list[Tuning]:
    """What a run folder holds; empty where nothing was tuned. UserError for a file that cannot be read."""
    file = folder / FILE
    if not file.exists():
        return []
    try:
        with file.open(newline="", encoding="utf-8") as text:
            reader = csv.DictReader(text)
            names = tuple(reader.fieldnames or ())
            if names[:2] != _PLACE or names[-3:] != _SAID:
                raise ValueError(f"its columns are {', '.join(names) or 'none'}")
            return [
                Tuning(
                    int(row["seed"]), int(row["round"]), {name: float(row[name]) for name in names[2:-3]},
                    float(row["score"]), float(row["default"]), row["reason"],
                )
                for row in reader
            ]  # fmt: skip
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise UserError(f"{file} cannot be read ({error}); delete it, and run again") from None


def keep_tuning(folder: Path, new: Iterable[Tuning]) -> None:
    """Write rounds beside those that are there, in place of the same ones; UserError when that cannot be written."""
    known = {one.key: one for one in [*read_tuning(folder), *new]}
    if not known:
        return
    names = list(next(iter(known.values())).options)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_PLACE, *names, *_SAID])
    writer.writerows(
        [one.seed, one.round, *(one.options[name] for name in names), one.score, one.default, one.reason]
        for one in known.values()
    )
    try:
        with replacing(folder / FILE) as handle:
            handle.write(text.getvalue().encode())
    except OSError as error:
        raise UserError(f"cannot write {folder / FILE}: {error.strerror or error}; make room and run again") from None


def digest(choices: Iterable[Tuning]) -> str:
    """Equal for the same options in the same rounds."""
    plain = json.dumps(sorted((one.round, sorted(one.options.items())) for one in choices))
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
