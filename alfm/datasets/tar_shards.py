"""WebDataset shards: tar files whose members with one stem make one item (Aizman et al. 2019, arXiv 2001.01858)."""

from __future__ import annotations

import glob
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

from alfm.datasets.assemble import check_apart, fingerprint, labels_from_values, stratified_share
from alfm.datasets.base import Dataset, ItemError, Modality
from alfm.datasets.files import Decode, decode_item, decode_options, find_encoding
from alfm.datasets.folder import ENDINGS
from alfm.datasets.ids import escape, file_stem
from alfm.datasets.intensity import settle
from alfm.datasets.labels import ASK
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
    decode = decode_options(modality, decode)
    wanted = {ending.lower().lstrip(".") for ending in (endings or ENDINGS[modality])}
    label_ending, _, label_field = (label or "").partition(":")
    label_ending = label_ending.lower().lstrip(".")
    fields: Counter[str] = Counter()
    tables: dict[str, list[tuple[int, int, int, str]]] = {}
    values: dict[str, list[Any]] = {}
    shards: dict[str, list[str]] = {}
    for split, patterns in splits.items():
        shards[split] = _expand(root, [patterns] if isinstance(patterns, str) else list(patterns), split)
    check_apart("dataset.splits", shards)
    for split in splits:
        tables[split], values[split] = [], []
        for number, shard in enumerate(shards[split]):
            found, labelled = _index(shard, wanted, label_ending)
            prefix = escape(os.path.splitext(os.path.relpath(shard, root or None))[0])
            for stem, (offset, size) in found.items():
                tables[split].append((number, offset, size, f"{prefix}/{escape(stem)}"))
                values[split].append(_label(shard, labelled.get(stem), label_field, stem, fields))
        if not tables[split]:
            raise UserError(f"the shards of split {split!r} hold no {modality} ({', '.join(sorted(wanted)[:6])}, ...)")
    remarks: list[str] = []
    if label_ending:
        _check_found(label_ending, label_field, fields, sum(map(len, values.values())), remarks)
    labels, names = labels_from_values(values, classes, unlabelled, remarks=remarks)
    if test_fraction is not None:
        if "test" in tables or "train" not in tables:
            raise UserError(f"dataset.test_fraction cuts train; there are the splits {', '.join(tables)}")
        first, second = stratified_share(labels["train"], test_fraction, seed)
        whole, whole_labels = tables["train"], labels["train"]
        tables["train"], tables["test"] = [whole[i] for i in first], [whole[i] for i in second]
        labels["train"], labels["test"] = whole_labels[first], whole_labels[second]
        shards["test"] = shards["train"]
    built = {
        split: TarSplit(
            shards[split],
            np.array([row[0] for row in rows], np.int32),
            np.array([row[1] for row in rows], np.int64),
            np.array([row[2] for row in rows], np.int64),
            [row[3] for row in rows],
            labels[split],
            modality,
            decode,
        )
        for split, rows in tables.items()
    }
    sizes = (part.size.tobytes() for part in built.values())
    first_shard = next(iter(shards.values()))[0]
    derived = file_stem(os.path.basename(os.path.dirname(os.path.abspath(first_shard))))
    options = sorted(decode.items())
    reading = settle(modality, built, decode)
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
    )


def _expand(root: str, patterns: list[str], split: str) -> list[str]:
    """Braces and globs -> existing files in the given order (globs sorted)."""
    found: list[str] = []
    for pattern in patterns:
        for one in _braces(os.path.join(root, pattern)):
            matches = sorted(glob.glob(one)) if any(c in one for c in "*?[") else [one]
            missing = [m for m in matches if not os.path.isfile(m)]
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


def _index(shard: str, endings: set[str], label_ending: str) -> tuple[dict[str, tuple[int, int]], dict[str, tuple]]:
    """Where the items (by stem) and their labels' members lie: (offset, size) in bytes."""
    items: dict[str, tuple[int, int]] = {}
    labelled: dict[str, tuple[int, int]] = {}
    try:
        length = os.path.getsize(shard)
        with tarfile.open(shard, "r:") as archive:  # "r:" refuses compression: offsets would mean nothing
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                stem, _, ending = file.partition(".")
                if not member.isreg() or not stem:
                    continue
                if member.offset_data + member.size > length:
                    raise UserError(f"{shard} is truncated: {member.name} reaches beyond its end")
                key = f"{folder}/{stem}".lstrip("/")
                if ending.lower() in endings:
                    items[key] = (member.offset_data, member.size)
                if label_ending and ending.lower() == label_ending:
                    labelled[key] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{shard} cannot be read as an uncompressed tar file: {error}") from error
    return items, labelled


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


def _read(shard: str, offset: int, size: int) -> bytes:
    with open(shard, "rb") as file:
        file.seek(offset)
        return file.read(size)
