"""WebDataset shards: tar files whose members with one stem make one item (Aizman et al. 2019, arXiv 2001.01858)."""

from __future__ import annotations

import itertools
import json
import os
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Unpack

import numpy as np
from annotated_types import MinLen

from alfm.commands import typed
from alfm.datasets.assemble import check_apart, fingerprint, labels_from_values, stratified_share
from alfm.datasets.base import Dataset, ItemError, Modality
from alfm.datasets.files import Decode, decode_item, decode_options, find_encoding
from alfm.datasets.folder import ENDINGS
from alfm.datasets.ids import escape, file_stem
from alfm.datasets.intensity import settle
from alfm.datasets.labels import ASK
from alfm.datasets.left_out import endings_of
from alfm.datasets.places import fetched, is_file, is_url, matching, opened
from alfm.datasets.places import size as size_of
from alfm.errors import UserError, nearest_names
from alfm.options import Fraction, Seed, checked


@dataclass
class TarSplit:
    """Items inside tar files, read at their offsets; nothing is unpacked.

    `shard` int32 (N,), `offset` and `size` int64 (N,) bytes, `labels` int64 (N,).
    """

    shards: list[str]
    shard: np.ndarray
    offset: np.ndarray
    size: np.ndarray
    ids: list[str]
    labels: np.ndarray
    modality: Modality
    decode: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def encoded(self, index: int) -> bytes:
        """The item as it lies in its shard."""
        return _read(self.shards[self.shard[index]], int(self.offset[index]), int(self.size[index]))

    def load(self, index: int) -> Any:
        """The item. `ItemError` when it cannot be read or decoded."""
        try:
            raw = self.encoded(index)
        except OSError as error:
            raise ItemError(f"{self.ids[index]}: {error.strerror or error}") from error
        if not raw and self.modality != "text":
            raise ItemError(f"{self.ids[index]}: the file is empty (0 bytes)")
        return decode_item(raw, self.ids[index], self.modality, self.decode)


@checked
def tar_shards(
    splits: Annotated[Mapping[str, str | Sequence[str]], MinLen(1)],
    root: str = "",
    modality: Modality = "image",
    endings: Sequence[str] | None = None,
    label: str | None = "cls",
    name: str | None = None,
    test_fraction: Fraction | None = None,
    seed: Seed = 0,
    classes: Sequence[Any] | None = None,
    unlabelled: Any = ASK,
    licence: str | None = None,
    **decode: Unpack[Decode],
) -> Dataset:
    """Shards per split: paths, globs or braces ("train-{0000..0099}.tar") below `root`.

    An item is the member with one of the `endings` (default: those of the modality). Its label is the content of
    the member `<stem>.<label>` ("cls", "txt"), or a field of a JSON member ("json:species"); None for no labels.
    `unlabelled`: see `labels_from_values`.
    Ids: "<shard's path below root>/<stem>". The headers are read once, here; the shards must not be compressed.
    `decode`: options of `read_image` or `read_audio`. `UserError`: no shard, a damaged or compressed one, no item.
    """
    how = decode_options(modality, decode)
    wanted = {ending.lower().lstrip(".") for ending in (endings or ENDINGS[modality])}
    label_ending, _, label_field = (label or "").partition(":")
    label_ending = label_ending.lower().lstrip(".")
    shards = {
        split: _expand(root, [patterns] if isinstance(patterns, str) else list(patterns), split)
        for split, patterns in splits.items()
    }
    check_apart("dataset.splits", shards)
    tables: dict[str, list[_Row]] = {}
    values: dict[str, list[Any]] = {}
    met = _Met()
    for split in splits:
        tables[split], values[split] = _rows(shards[split], root, wanted, label_ending, label_field, met)
        if not tables[split]:
            raise UserError(f"the shards of split {split!r} hold no {modality} {_but(wanted, met.strangers)}")
    remarks = _empty_texts(tables) if modality == "text" else []
    if label_ending:
        _check_found(label_ending, label_field, met.fields, sum(map(len, values.values())), remarks)
    labels, names = labels_from_values(values, classes, unlabelled, remarks=remarks)
    if test_fraction is not None:
        if "test" in tables or "train" not in tables:
            raise UserError(f"dataset.test_fraction cuts train; there are the splits {', '.join(tables)}")
        _cut(tables, labels, test_fraction, seed)
        shards["test"] = shards["train"]
    built = {split: _built(shards[split], rows, labels[split], modality, how) for split, rows in tables.items()}
    sizes = (part.size.tobytes() for part in built.values())
    first_shard = next(iter(shards.values()))[0]
    derived = file_stem(os.path.basename(os.path.dirname(os.path.abspath(first_shard))))
    options = sorted(how.items())
    reading = settle(modality, built, how)
    mark = fingerprint(built, names, sizes, options, reading.marks)
    return Dataset(
        name or derived,
        modality,
        built,
        names,
        mark,
        licence,
        remarks=[*remarks, *reading.remarks],
        intensity_range=reading.range,
        left_out=_left_out(met.strangers, met.replaced, wanted, modality),
    )


_Row = tuple[int, int, int, str]
"""An item: the number of its shard, its offset and size in bytes, its id."""


@dataclass
class _Met:
    """Counted and collected over the shards of all splits."""

    fields: Counter[str] = field(default_factory=Counter)
    """See `_label`."""
    strangers: list[str] = field(default_factory=list)
    """Members of no item."""
    replaced: list[str] = field(default_factory=list)
    """Members whose item had one already."""


def _rows(
    shards: list[str], root: str, endings: set[str], label_ending: str, label_field: str, met: _Met
) -> tuple[list[_Row], list[Any]]:
    """The items of a split, and what the shards say of their labels; adds to `met`."""
    rows: list[_Row] = []
    values: list[Any] = []
    for number, shard in enumerate(shards):
        members = _index(shard, endings, label_ending)
        met.strangers += members.of_no_item()
        met.replaced += members.replaced
        below = shard.removeprefix(root).lstrip("/") if is_url(shard) else os.path.relpath(shard, root or None)
        prefix = escape(os.path.splitext(below)[0])
        for stem, (offset, size) in members.items.items():
            rows.append((number, offset, size, f"{prefix}/{escape(stem)}"))
            values.append(_label(shard, members.labelled.get(stem), label_field, stem, met.fields))
    return rows, values


def _but(endings: set[str], strangers: list[str]) -> str:
    """What was looked for where no item is, and the option that reads what is there instead."""
    dotted = sorted({ending for name in strangers if (ending := _dotted(name, endings))})[:3]
    hint = f"; to read such as {strangers[0]} say {typed('dataset.endings', dotted)}" if dotted else ""
    return f"({', '.join(sorted(endings)[:6])}, ...){hint}"


def _empty_texts(tables: Mapping[str, list[_Row]]) -> list[str]:
    """A sentence when there are texts of 0 bytes."""
    empty = [item_id for rows in tables.values() for _, _, size, item_id in rows if size == 0]
    return [f"texts that are empty: {len(empty):,}, the first {empty[0]}"] if empty else []


def _cut(tables: dict[str, list[_Row]], labels: dict[str, np.ndarray], fraction: float, seed: int) -> None:
    """Moves a share of train to test, in place."""
    first, second = stratified_share(labels["train"], fraction, seed)
    whole, whole_labels = tables["train"], labels["train"]
    tables["train"], tables["test"] = [whole[i] for i in first], [whole[i] for i in second]
    labels["train"], labels["test"] = whole_labels[first], whole_labels[second]


def _built(
    shards: list[str], rows: list[_Row], labels: np.ndarray, modality: Modality, decode: dict[str, Any]
) -> TarSplit:
    return TarSplit(
        shards,
        np.array([row[0] for row in rows], np.int32),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        [row[3] for row in rows],
        labels,
        modality,
        decode,
    )


def _expand(root: str, patterns: list[str], split: str) -> list[str]:
    """Braces and globs -> existing files in the given order (globs sorted)."""
    found: list[str] = []
    for pattern in patterns:
        for one in _braces(os.path.join(root, pattern)):
            matches = matching(one) if any(c in one for c in "*?[") else [one]
            missing = [m for m in matches if not is_file(m)]
            if missing:
                raise UserError(f"split {split!r}: there is no shard {missing[0]}")
            found.extend(matches)
    if not found:
        raise UserError(f"split {split!r}: no shard matches {', '.join(patterns)} below {root or '.'}")
    return found


def _braces(pattern: str) -> list[str]:
    """a-{08..10}.tar -> a-08.tar, a-09.tar, a-10.tar."""
    pieces = re.split(r"\{(\d+)\.\.(\d+)\}", pattern)
    choices = [[pieces[0]]]
    for start, stop, rest in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        choices.append([f"{i:0{len(start)}d}" for i in range(int(start), int(stop) + 1)])
        choices.append([rest])
    return ["".join(combination) for combination in itertools.product(*choices)]


@dataclass
class _Members:
    """Where a shard's items (by stem) and their labels' members lie, (offset, size) in bytes; and what is neither."""

    items: dict[str, tuple[int, int]] = field(default_factory=dict)
    labelled: dict[str, tuple[int, int]] = field(default_factory=dict)
    others: dict[str, list[str]] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)

    def of_no_item(self) -> list[str]:
        """Names of members whose stem is no item's."""
        return [name for stem, names in self.others.items() if stem not in self.items for name in names]


def _index(shard: str, endings: set[str], label_ending: str) -> _Members:
    members = _Members()
    try:
        length = size_of(shard)
        # "r:" refuses compression: offsets would mean nothing
        with opened(shard) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in archive:
                folder, _, base = member.name.rpartition("/")
                stem, _, ending = base.partition(".")
                if not member.isreg() or not stem:
                    continue
                if member.offset_data + member.size > length:
                    raise UserError(f"{shard} is truncated: {member.name} reaches beyond its end")
                key = f"{folder}/{stem}".lstrip("/")
                if ending.lower() in endings:
                    if key in members.items:
                        members.replaced.append(member.name)
                    members.items[key] = (member.offset_data, member.size)
                elif ending.lower() != label_ending:
                    members.others.setdefault(key, []).append(member.name)
                if label_ending and ending.lower() == label_ending:
                    members.labelled[key] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{shard} cannot be read as an uncompressed tar file: {error}") from error
    return members


def _dotted(name: str, endings: set[str]) -> str | None:
    """The ending of a member whose name has more dots than the convention allows, and an item's ending at its end."""
    ending = name.rpartition("/")[2].partition(".")[2].lower()
    return ending if "." in ending and ending.rpartition(".")[2] in endings else None


def _left_out(strangers: list[str], replaced: list[str], endings: set[str], modality: Modality) -> list[str]:
    """Sentences about members that are no items."""
    said = []
    dotted = [name for name in strangers if _dotted(name, endings)]
    if dotted:
        said.append(
            f"{len(dotted):,} members with more than one dot in their name, such as {dotted[0]}: an item's name ends "
            "at its first dot by the WebDataset convention; rename them, or name their endings with dataset.endings"
        )
    if others := [name for name in strangers if not _dotted(name, endings)]:
        said.append(f"{len(others):,} members that belong to no {modality}: {endings_of(others)}")
    if replaced:
        said.append(
            f"{len(replaced):,} {modality} members whose item had one already, such as {replaced[0]}: the last one is "
            "read"
        )
    return said


_MEMBERS = "\0members"
"""In the counts of fields: how many label members there are."""


def _label(shard: str, place: tuple[int, int] | None, label_field: str, stem: str, fields: Counter[str]) -> Any:
    """The value of one item's label, None where it has none; counts the members and the fields of JSON members."""
    if place is None:
        return None
    fields[_MEMBERS] += 1
    raw = _read(shard, *place)
    try:
        text = raw.decode(find_encoding(None, raw[:4])).strip()
        if not label_field:
            return text
        content = json.loads(text)
        fields.update(content.keys())
        return content.get(label_field)
    except (ValueError, AttributeError) as error:  # text in another encoding is among them
        what = f"JSON of {stem}" if label_field else f"label of {stem}"
        raise UserError(f"{shard}: the {what} cannot be read: {error}") from error


def _check_found(ending: str, label_field: str, fields: Counter[str], items: int, remarks: list[str]) -> None:
    """Says how many items have the label that was named. `UserError` when none has (of what is no mere default)."""
    members = fields.pop(_MEMBERS, 0)
    if not members and ending != "cls":
        raise UserError(f"dataset.label={ending}: no item has a member with this ending; null is for no labels")
    if members < items:
        remarks.append(f"items without a label (a member ending in .{ending}): {items - members:,} of {items:,}")
    if not label_field or not members:
        return
    if label_field not in fields:
        near = nearest_names(label_field, list(fields))
        raise UserError(f"dataset.label={ending}:{label_field}: no JSON member has this field; {near}")
    if fields[label_field] < members:
        without = members - fields[label_field]
        remarks.append(f"JSON members without the field {label_field!r}: {without:,} of {members:,}")


def _read(shard: str, offset: int, length: int) -> bytes:
    if is_url(shard):
        return fetched(shard, offset, length) if length else b""
    with open(shard, "rb") as file:
        file.seek(offset)
        return file.read(length)
