"""What the values of a label column are: a number, a name, nothing, or something that only its owner can tell."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from alfm.errors import UserError

ASK = "ask"
"""`unlabelled`: values that look like "no label" beside others are asked about (tables)."""
BELOW_ZERO = "below zero"
"""`unlabelled`: negative numbers are no labels (the convention of caches)."""

NOTHING = {"nan", "-nan", "none", "null", "na", "n/a", "#n/a", "<na>", "nat", "n.a.", "?"}
"""What programs write for nothing; in lower case."""
_FILLS = {99, 127, 255, 999, 9999, 32767, 65535, 2**31 - 1, 2**32 - 1, 2**63 - 1}
"""Numbers that stand for nothing where they lie far above all others."""
_NUMBER = re.compile(r"-?\d+(\.0+)?", re.ASCII)


@dataclass(frozen=True)
class Value:
    """One value: its whole number, where it is one (`"007"` is none: it would come back as 7), and its text."""

    number: int | None
    written: str

    @property
    def said(self) -> str:
        """For messages."""
        return repr(self.written) if self.number is None else str(self.number)


def read_value(value: Any) -> Value | None:
    """One cell -> what it says, None for nothing (None, NaN, an empty text). `UserError` for what is no class."""
    if isinstance(value, (bytes, bytearray)):
        try:
            value = bytes(value).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"label {value!r} is not UTF-8 text: give class names as text") from error
    if isinstance(value, str):
        text = str(value)
        if not text.strip().strip("\ufeff"):
            return None
        if _NUMBER.fullmatch(text):
            whole, _, rest = text.partition(".")
            if text in (str(int(whole)) if not rest else str(float(text)), "-0.0"):
                return Value(int(whole), text)
        return Value(None, text)
    if value is None:
        return None
    if isinstance(value, (bool, np.bool_, int, np.integer)):
        return Value(int(value), str(int(value)))
    if isinstance(value, (float, np.floating)):
        if np.isnan(value):
            return None
        if not math.isfinite(value) or value != int(value):
            raise UserError(f"label {value} is not a class: single-label classification needs whole numbers or names")
        return Value(int(value), str(int(value)))
    if isinstance(value, (list, tuple, set, dict, np.ndarray)):
        raise UserError(f"label {value!r}: several labels per item (multi-label) are not supported")
    text = str(value)
    return None if text in ("", "<NA>", "NaT") else Value(None, text)


def unlabelled_values(
    counts: Mapping[Value, int], classes: Sequence[str], unlabelled: Any, option: str, remarks: list[str]
) -> set[Value]:
    """The values (given with how often they occur) that mean "no label".

    `unlabelled`: `ASK`, `BELOW_ZERO`, None (no value does), or the value or values that do. Names among `classes` are
    classes. `option` is the setting to be named. `UserError` where only the owner can tell; a remark for a value that
    was given and does not occur.
    """
    if unlabelled is None:
        return set()
    if unlabelled not in (ASK, BELOW_ZERO):
        return _given(counts, unlabelled, option, remarks)
    taken: set[Value] = set()
    strange = {value for value in counts if value.number is None and value.written.strip().casefold() in NOTHING}
    below = {value for value in counts if value.number is not None and value.number < 0}
    if unlabelled == BELOW_ZERO:
        taken = below
    else:
        strange |= below
        if not classes:
            strange |= _far(counts.keys() - strange)
    strange = {value for value in strange if value.written not in classes and str(value.number) not in classes}
    others = counts.keys() - strange - taken
    if not strange or (not others and len({_same(value) for value in strange}) == 1):
        return taken | strange  # nothing but one such value: an unlabelled data set
    total = sum(counts[value] for value in strange)
    listed = ", ".join(sorted({value.said for value in strange}))
    beside = f" beside {len(others):,} other value{'s' if len(others) != 1 else ''}" if others else ""
    raise UserError(
        f"{total:,} label{'s are' if total != 1 else ' is'} {listed}{beside}: say {typed(option, strange)} if that "
        f"means no label, or {option}=null if it is a class"
    )


def typed(option: str, values: Iterable[Value]) -> str:
    """`option=VALUE` or `option=[VALUE, ...]` as it is typed in a shell, quotes included."""
    words: dict[str, None] = {}
    for value in sorted(values, key=lambda value: (value.number is None, value.number or 0, value.written)):
        text = value.written.strip()
        if value.number is not None:
            words[str(value.number)] = None
        elif text.casefold() in ("nan", "-nan"):
            words["NaN"] = None  # read by Hydra as a number, which stands for every way of writing it
        elif re.fullmatch(r"[A-Za-z][A-Za-z/]*", text) and text.casefold() != "null":
            words[text] = None
        else:
            words[f"'{text}'"] = None
    whole = f"{option}={next(iter(words)) if len(words) == 1 else '[' + ','.join(words) + ']'}"
    return f'"{whole}"' if re.search(r"[^\w./=-]", whole) else whole


def _given(counts: Mapping[Value, int], unlabelled: Any, option: str, remarks: list[str]) -> set[Value]:
    found: set[Value] = set()
    several = isinstance(unlabelled, (list, tuple, set))
    if any(isinstance(one, (Mapping, list, tuple)) for one in (unlabelled if several else [unlabelled])):
        raise UserError(f"{option}={unlabelled}: give a label or a list of labels, null or {ASK}")
    for one in unlabelled if several else [unlabelled]:
        wanted = "nan" if isinstance(one, float) and math.isnan(one) else one
        meant = read_value(wanted)
        here = {value for value in counts if meant is not None and _same(value) == _same(meant)}
        if not here:
            remarks.append(f"{option}={wanted}: no label has this value")
        found |= here
    return found


def _same(value: Value) -> Any:
    """Equal for what one `unlabelled` stands for: a number, a word for nothing in any case, else the very text."""
    if value.number is not None:
        return value.number
    word = value.written.strip().casefold()
    return "nan" if word == "-nan" else word if word in NOTHING else ("text", value.written)


def _far(values: Iterable[Value]) -> set[Value]:
    """A usual fill number far above classes that are counted 0, 1, 2, ... or 1, 2, ... without a gap."""
    found = {value.number for value in values}
    numbers = sorted(number for number in found if number is not None)
    if None in found or len(numbers) < 3:
        return set()
    *rest, top = numbers
    far = top in _FILLS and top > rest[-1] + 1 and rest[0] in (0, 1) and rest[-1] - rest[0] == len(rest) - 1
    return {value for value in values if value.number == top} if far else set()
