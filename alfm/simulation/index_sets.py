"""Index sets: which training items a run begins with, validates on and picks from, as files that list their numbers.

TorchAL (Munjal et al. 2022, arXiv 2002.09564) keeps them as `partition_1/lSet_CIFAR10.npy`, beside `valSet_CIFAR10.npy`
and `uSet_CIFAR10.npy`: they are read as they lie on disk, and every run writes its own in the same way.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from alfm.cache.reader import FeatureCache
from alfm.errors import UserError
from alfm.files import replacing
from alfm.options import PathName, Seed, checked
from alfm.results.rounds_file import Row
from alfm.results.run_folder import SETS
from alfm.simulation.item_numbers import Counted, ItemNumbers

STEMS = {"labelled": "lSet", "validation": "valSet", "unlabelled": "uSet"}
"""What files of a folder begin with."""
_SUFFIXES = (".npy", ".txt", ".csv")
_UNPICKLE = "np.save(f, np.load(f, allow_pickle=True).astype(int))"  # runs what is in the file: the user's to decide


@dataclass(frozen=True)
@checked
class IndexSets:
    """`index_sets.`: where the files are. A file that is named stands before the folder's.

    folder, partition: `<folder>/partition_<partition>/`, or the folder itself; numbers: see `ItemNumbers`.
    """

    folder: PathName | None = None
    partition: Seed | None = None
    labelled: PathName | None = None
    validation: PathName | None = None
    unlabelled: PathName | None = None
    numbers: Counted | None = None

    @property
    def given(self) -> bool:
        """Is anything asked for?"""
        return any(one is not None for one in (self.folder, self.partition, *self._named().values()))

    def absolute(self) -> IndexSets:
        """The same from whatever working folder."""
        paths = {name: path for name, path in {"folder": self.folder, **self._named()}.items() if path is not None}
        whole: dict[str, Any] = {name: str(Path(path).expanduser().absolute()) for name, path in paths.items()}
        return replace(self, **whole)

    def files(self) -> dict[str, Path]:
        """The file of each set that there is. Raises UserError: no such folder or file, or none for the initial set."""
        named = {name: Path(path).expanduser() for name, path in self._named().items() if path is not None}
        if self.folder is None and self.partition is not None:
            raise UserError(
                f"index_sets.partition={self.partition}: say with index_sets.folder=FOLDER where partition_"
                f"{self.partition} lies."
            )
        found = {} if self.folder is None else _files_in(self._place())
        if self.folder is not None and "labelled" not in found | named:
            raise UserError(
                f"{self._place()} holds no lSet file ({', '.join(f'lSet*{suffix}' for suffix in _SUFFIXES)}): name the "
                "initial set with index_sets.labelled=FILE."
            )
        return found | named

    def read(self, cache: FeatureCache, split: str) -> Sets:
        """The sets as rows of a cache's split. Raises UserError: see `files`, `read_numbers` and `ItemNumbers`; an item
        in two sets."""
        lists = {name: (path, read_numbers(path)) for name, path in self.files().items()}
        _check_apart(lists)
        items = ItemNumbers(cache, split, self.numbers)
        labels = cache.labels(split)
        rows, gone = {}, {}
        for name, (path, numbers) in lists.items():
            own = items.rows(numbers, str(path))
            known = own >= 0
            known[known] = labels[own[known]] >= 0
            rows[name], gone[name] = own[known], int((~known).sum())
            if name == "labelled" and not known.any():
                raise UserError(
                    f"{path} lists no item that {cache.path} holds with a label: choose another initial set."
                )
        return Sets(
            rows.get("labelled"), rows.get("validation"), rows.get("unlabelled"),
            {name: str(path) for name, (path, _) in lists.items()}, {name: n for name, n in gone.items() if n},
            _digest({name: numbers for name, (_, numbers) in lists.items()}, self.numbers == "rows"), items,
        )  # fmt: skip

    def _named(self) -> dict[str, PathName | None]:
        return {name: getattr(self, name) for name in STEMS}

    def _place(self) -> Path:
        """The folder in which the sets lie."""
        folder = Path(str(self.folder)).expanduser()
        if not folder.is_dir():
            raise UserError(f"index_sets.folder={self.folder}: there is no such folder.")
        there = sorted(int(one.name[10:]) for one in folder.glob("partition_*") if one.name[10:].isdecimal())
        words = f"it has partitions {', '.join(map(str, there))}"
        if self.partition is None:
            if there and not any(folder.glob("lSet*")):
                raise UserError(
                    f"index_sets.folder={self.folder}: {words}; choose with index_sets.partition={there[0]}."
                )
            return folder
        if self.partition not in there:
            words = words if there else "it has no folder partition_1, partition_2, ..."
            raise UserError(f"There is no {folder / f'partition_{self.partition}'}: {words}.")
        return folder / f"partition_{self.partition}"


@dataclass(frozen=True)
class Sets:
    """Index sets as rows of a cache's split, int64 (n,) in the order listed, of items that have a label there.

    labelled: the initial set, validation: what is held out, unlabelled: what may be picked; None for a set that is not
    given. files: where each was read; absent: how many items of each the cache does not hold, or has no label for;
    content: a digest of the numbers listed; items: how numbers count.
    """

    labelled: np.ndarray | None
    validation: np.ndarray | None
    unlabelled: np.ndarray | None
    files: Mapping[str, str]
    absent: Mapping[str, int]
    content: str
    items: ItemNumbers

    def in_pool(self, rows: np.ndarray) -> np.ndarray:
        """Which of these rows int64 (n,) the pool holds, bool (n,): the initial set and what may be picked, which where
        it is not given is all but the validation set."""
        if self.unlabelled is None:
            return np.isin(rows, [] if self.validation is None else self.validation, invert=True)
        return np.isin(rows, self.unlabelled if self.labelled is None else [*self.labelled, *self.unlabelled])

    @property
    def sizes(self) -> dict[str, int]:
        """How many items each set has."""
        return {name: len(rows) for name in STEMS if (rows := getattr(self, name)) is not None}

    def described(self) -> dict[str, Any]:
        """What of them enters a run's hash."""
        return {"content": self.content, "items": self.sizes}


def read_numbers(path: Path) -> np.ndarray:
    """Numbers int64 (n,) that a file lists: .npy (never unpickled), .txt (apart by spaces, lines or commas, # begins a
    comment) or .csv (one column, with or without a header).

    Raises UserError: no such file, another kind of file, anything but different whole numbers from 0 on.
    """
    try:
        if path.suffix == ".npy":
            numbers = _from_npy(path)
        elif path.suffix == ".txt":
            lines = path.read_text(encoding="utf-8-sig").splitlines()
            numbers = _from_texts(
                path, [w for line in lines for w in re.split(r"[\s,;]+", line.partition("#")[0]) if w]
            )
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8-sig") as text:
                numbers = _from_texts(path, _one_column(path, list(csv.reader(text))))
        else:
            raise UserError(f"{path}: index sets are read from {', '.join(_SUFFIXES)} files; save it as one of them.")
    except FileNotFoundError:
        raise UserError(f"There is no {path}: correct the path, or leave that index set out.") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} cannot be read ({error}): write the list again.") from None
    if len(numbers) and numbers.min() < 0:
        raise UserError(f"{path} lists {numbers.min()}: items are numbered from 0 on, correct the list.")
    values, counts = np.unique(numbers, return_counts=True)
    if (counts > 1).any():
        twice = values[counts > 1]
        raise UserError(f"{path} lists item {twice[0]} {counts.max()} times ({len(twice)} such items): list each once.")
    return numbers


def _from_npy(path: Path) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, MemoryError) as error:
        if "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled Python objects, which are not loaded because they could run anything: if you "
                f"trust it, save its numbers with python -c \"import numpy as np; f='{path}'; {_UNPICKLE}\"."
            ) from None
        raise UserError(f"{path} is no .npy file that can be read ({error}): save it again with numpy.save.") from None
    if array.ndim != 1 or array.dtype.kind not in "iu" and array.size:
        raise UserError(
            f"{path} holds {array.dtype} of shape {array.shape}: a vector of whole numbers is needed, one per item."
        )
    return array.astype(np.int64)


def _one_column(path: Path, rows: Sequence[Sequence[str]]) -> list[str]:
    """The cells of a table's only column, without its header."""
    rows = [row for row in rows if any(cell.strip() for cell in row)]
    if rows and max(map(len, rows)) > 1 and len(rows) > 1:
        raise UserError(f"{path} has {max(map(len, rows))} columns: one is needed, the numbers of the items.")
    cells = [cell.strip() for row in rows for cell in row]
    return cells[1:] if cells and not re.fullmatch(r"[-+]?\d.*", cells[0]) else cells


def _from_texts(path: Path, texts: Sequence[str]) -> np.ndarray:
    wrong = next((text for text in texts if not re.fullmatch(r"-?\d{1,18}", text)), None)
    if wrong is not None:
        raise UserError(f"{path} lists {wrong[:40]!r}: whole numbers are needed, one for each item.")
    return np.array([int(text) for text in texts], dtype=np.int64)


def _files_in(place: Path) -> dict[str, Path]:
    """The file of each set that lies there; the same list as .npy and .txt is read once, as .npy."""
    found = {}
    for name, stem in STEMS.items():
        files = [one for one in sorted(place.glob(f"{stem}*")) if one.suffix in _SUFFIXES]
        if len({one.stem for one in files}) > 1:
            names = " and ".join(one.name for one in files)
            raise UserError(f"{place} holds {names}: say which with index_sets.{name}=FILE.")
        if files:
            found[name] = min(files, key=lambda one: _SUFFIXES.index(one.suffix))
    return found


def _check_apart(lists: Mapping[str, tuple[Path, np.ndarray]]) -> None:
    """UserError where an item is in two sets."""
    names = list(lists)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            both = np.intersect1d(lists[first][1], lists[second][1])
            if len(both):
                raise UserError(
                    f"{lists[first][0]} and {lists[second][0]} both list item {both[0]} ({len(both)} such items): take "
                    "it out of one of them."
                )


def _digest(lists: Mapping[str, np.ndarray], rows: bool = False) -> str:
    """Equal for the same sets, in whatever order or kind of file their numbers are; rows: numbers are said to count the
    cache's rows, and may mean other items."""
    digest = hashlib.sha256(b"rows" if rows else b"")
    for name in STEMS:
        if name in lists:
            digest.update(name.encode() + np.sort(lists[name]).astype("<i8").tobytes())
    return digest.hexdigest()[:16]


# ---- what a run writes -----------------------------------------------------------------------------------------------


def write_sets(
    run: Path, dataset: str, items: ItemNumbers, pool: np.ndarray, validation: np.ndarray, seed: int, picks: np.ndarray,
    first: Row,
) -> None:  # fmt: skip
    """The sets that a replicate began with, as `<run>/index_sets/partition_<seed>/lSet_<DATASET>.npy` and so on.

    pool, validation int64: rows of the cache that may be picked, and that a file holds out; picks: the replicate's, in
    order, those of its `first` round at least: validation labels that were paid for come first among them. Sets that
    are there are left alone. Raises UserError where they cannot be written.
    """
    place = run / SETS / f"partition_{seed}"
    if place.exists():
        return
    paid, charged = int(first["num_labeled"]), int(first.get("num_validation", 0))
    known = len(items.numbers)
    sets = {
        "labelled": picks[charged:paid],
        "validation": np.concatenate([validation, picks[:charged]]),
        "unlabelled": np.setdiff1d(pool, picks[:paid]),
    }
    building = place.with_name(f".{place.name}.part")
    name = re.sub(r"[^\w.+=@-]", "_", dataset).upper()
    try:
        building.mkdir(parents=True, exist_ok=True)
        for which, rows in sets.items():
            with replacing(building / f"{STEMS[which]}_{name}.npy") as file:
                np.save(file, items.numbers[rows[rows < known]].astype(_narrow(items.count)), allow_pickle=False)
        building.rename(place)
    except OSError as error:
        raise UserError(f"cannot write {place}: {error.strerror or error}; make room and run again.") from None


def _narrow(count: int) -> type[np.signedinteger[Any]]:
    return np.int32 if count < 2**31 else np.int64
