"""The folder of one run: configuration, rounds table, picks, environment; written so that a kill loses one round.

    <LOG_DIR>/<dataset>/<model>/<query_strategy>-<hash>/
        config.yaml       the configuration, and under `run:` the names, the hash and the cache's fingerprint
        rounds.csv        one row per seed and round (`COLUMNS`)
        picks.npz         one int64 array per seed, named by the seed, in the order picked
        progress.json     which seeds are finished, why they ended, and a checksum of each one's rows and picks
        environment.json  one entry per session that worked here: versions, device, threads, cache, commit, time

Every file is replaced by one rename, the picks before the rounds, so `rounds.csv` never claims picks that are not
there. Nothing is flushed to the disk's platters each round: a killed process loses at most the round in flight, a
power cut may lose the last seconds, and what it leaves is checked when it is read.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml

from alfm.errors import UserError
from alfm.metrics import METRICS

COLUMNS = (
    "seed",
    "round",
    "num_labeled",
    *METRICS,
    "fit_seconds",
    "query_seconds",
    "eval_seconds",
    "num_replicates",
    "num_filled",
    "peak_memory_bytes",
)
_INTEGERS = frozenset({"seed", "round", "num_labeled", "num_replicates", "num_filled", "peak_memory_bytes"})
# What does not change a result, or is known by a better name: the folder's names and the cache's fingerprint stand
# for data set, model and cache.
HASH_IGNORES = (  # fmt: skip
    "seeds",
    "device",
    "memory",
    "keep_geometry",
    "force",
    "cache",
    "dataset",
    "model",
    "paths",  # in runs of version 0.1
    "run",
)
_NAMES = ("dataset", "model", "query_strategy", "init_strategy", "classifier")
# Options that came later: at this value a run is what it was before, and so is its hash.
LATER_OPTIONS: Mapping[str, Any] = {
    "init_strategy.rows": None,
    "query_strategy.rows": None,
    "splits.unlabelled": "ask",
}
_FILES = ("rounds.csv", "picks.npz", "progress.json", "config.yaml", "environment.json")
_FORMAT = 1

Row = dict[str, float | int]


class RunFolder:
    """One run on disk, held by one process at a time. Make it with `RunFolder.open`; use it as a context manager.

    A replicate's state is its picks in order and its rows, one per round from the cold start on; the picks up to a
    row's `num_labeled` are the labelled set that row measured.
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock
        self._rows: dict[int, list[Row]] = {}
        self._picks: dict[int, np.ndarray] = {}
        self._finished: dict[int, str] = {}
        self._checksums: dict[int, str] = {}
        # both go down with the session's first round: a session that only looks writes nothing
        self._config: Mapping[str, Any] | None = None
        self._environment: Mapping[str, Any] | None = None

    @classmethod
    def open(
        cls,
        log_dir: str | Path,
        *,
        dataset: str,
        model: str,
        query_strategy: str,
        init_strategy: str,
        classifier: str,
        config: Mapping[str, Any],
        cache_fingerprint: str,
        force: bool = False,
        environment: Mapping[str, Any] | None = None,
        ignore: Sequence[str] = HASH_IGNORES,
        behaviour: Mapping[str, int] | None = None,
    ) -> RunFolder:
        """Find or make the run's folder and take its lock.

        `config`: the resolved configuration, plain dicts, lists, strings, numbers; its keys in `ignore` (top level,
        or dotted) do not enter the hash. `config["seeds"]` is stored as the union with the seeds already there.
        `environment`: what `alfm.results.environment.environment_of` returns, one session more in `environment.json`.
        `force`: start over. `behaviour`: see `run_hash`; kept as `run.behaviour`.

        Raises UserError if another process works in this folder, if the folder is damaged, or cannot be made.
        """
        names = dict(zip(_NAMES, (dataset, model, query_strategy, init_strategy, classifier), strict=True))
        digest = run_hash(config, cache_fingerprint, ignore, behaviour)
        path = Path(log_dir).joinpath(*(file_name(n) for n in (dataset, model)))
        path = path / f"{file_name(query_strategy)}-{digest[:8]}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, _take_lock(path))
        except OSError as error:
            raise UserError(f"cannot make the run folder {path}: {error.strerror or error}") from None
        try:
            if force:
                _empty(path)
            folder._rows, folder._picks, folder._finished, folder._checksums = _read_state(path)
            run = {**names, "hash": digest, "cache_fingerprint": cache_fingerprint, "format": _FORMAT}
            if behaviour:
                run["behaviour"] = dict(behaviour)
            folder._config = {**folder._with_stored_seeds(config, digest), "run": run}
            folder._environment = environment
        except BaseException:
            folder.close()
            raise
        return folder

    @property
    def seeds(self) -> list[int]:
        """Seeds with at least one row, in the order they came."""
        return list(self._rows)

    def completed_seeds(self) -> dict[int, str]:
        """Finished seeds and why each ended, as given to `finish`."""
        return dict(self._finished)

    def progress(self, seed: int) -> tuple[np.ndarray, list[Row]]:
        """Picks int64 (n,) in the order picked and the rows so far; both empty for a seed not begun."""
        picks = self._picks.get(seed)
        return (np.empty(0, np.int64) if picks is None else picks.copy()), [*self._rows.get(seed, [])]

    def append(self, rows: Iterable[Mapping[str, float | int]], picks: Mapping[int, np.ndarray]) -> None:
        """Store one round: a row (`COLUMNS`) for each replicate, and each replicate's NEW picks, int64 (B,).

        Raises ValueError for a row that does not follow from what is stored: a wrong column, a round that is not
        the seed's next, `num_labeled` other than the number of picks, a pick made twice, a finished seed.
        """
        new_rows = {}
        for given in rows:
            if set(given) != set(COLUMNS):
                raise ValueError(f"a row must hold exactly {', '.join(COLUMNS)}")
            row = {name: int(given[name]) if name in _INTEGERS else float(given[name]) for name in COLUMNS}
            new_rows[int(row["seed"])] = row
        if set(new_rows) != {int(seed) for seed in picks}:
            raise ValueError(f"rows of seeds {sorted(new_rows)} but picks of seeds {sorted(picks)}")
        new_picks = {}
        for seed, row in new_rows.items():
            old = self._picks.get(seed, np.empty(0, np.int64))
            new_picks[seed] = np.concatenate([old, np.asarray(picks[seed], dtype=np.int64).reshape(-1)])
            stored = self._rows.get(seed, [])
            if seed in self._finished:
                raise ValueError(f"seed {seed} is finished")
            fault = _fault([*stored[-1:], row], new_picks[seed])
            if fault:
                raise ValueError(f"seed {seed}: {fault}")
        self._picks.update(new_picks)
        for seed, row in new_rows.items():
            self._rows.setdefault(seed, []).append(row)
        self._begin()
        self._write_picks()
        self._write_rows()

    def finish(self, seeds: Iterable[int], reason: str) -> None:
        """Mark replicates as done, for example `"all rounds done"`, `"pool exhausted"` or what a stopping rule said.

        Until then a replicate counts as interrupted, however many rows it has. From then on its rows and picks must be
        what they are now, or the folder is damaged; seeds finished by versions that kept no checksum are left alone.
        """
        for seed in seeds:
            if seed not in self._rows:
                raise ValueError(f"seed {seed} has no rows: it cannot be finished")
            self._finished[int(seed)] = reason
            self._checksums[int(seed)] = _checksum(self._rows[seed], self._picks[seed])
        text = json.dumps({"finished": self._finished, "checksums": self._checksums}, indent=1)
        _replace(self.path / "progress.json", text.encode())

    def close(self) -> None:
        """Release the lock; harmless when repeated."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _with_stored_seeds(self, config: Mapping[str, Any], digest: str) -> dict[str, Any]:
        if not (self.path / "config.yaml").exists():
            return dict(config)
        stored = read_config(self.path)
        if stored["run"]["hash"] != digest:
            raise UserError(f"{self.path} belongs to another configuration; move it away or use force=true")
        before, now = stored.get("seeds"), config.get("seeds")
        if not isinstance(before, list) or not isinstance(now, list):
            return dict(config)
        return {**config, "seeds": [*before, *(seed for seed in now if seed not in before)]}

    def _begin(self) -> None:
        if self._config is not None:
            text = yaml.safe_dump(dict(self._config), sort_keys=False, allow_unicode=True)
            _replace(self.path / "config.yaml", text.encode())
            self._config = None
        if self._environment is not None:
            file = self.path / "environment.json"
            try:
                sessions = json.loads(file.read_text())["sessions"] if file.exists() else []
            except (OSError, ValueError, KeyError, TypeError):
                raise _damaged(self.path, "environment.json cannot be read") from None
            text = json.dumps({"sessions": [*sessions, dict(self._environment)]}, indent=1)
            _replace(file, text.encode())
            self._environment = None

    def _write_rows(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rows in self._rows.values():  # repr of a float reads back as the same float
            writer.writerows([row[name] for name in COLUMNS] for row in rows)
        _replace(self.path / "rounds.csv", text.getvalue().encode())

    def _write_picks(self) -> None:
        data = io.BytesIO()
        np.savez(data, **{str(seed): picks for seed, picks in self._picks.items()})
        _replace(self.path / "picks.npz", data.getvalue())


def run_hash(
    config: Mapping[str, Any],
    cache_fingerprint: str,
    ignore: Sequence[str] = HASH_IGNORES,
    behaviour: Mapping[str, int] | None = None,
) -> str:
    """SHA-256 (hex) of what decides a run's picks: the configuration without `ignore`, and the cache.

    behaviour: where this version gives such a run other picks or curves than one before it, which mends it has and
    their numbers (see `Simulation.behaviour`); None or empty: the hash of the versions before.
    """
    parts = [_FORMAT, hashed_config(config, ignore), cache_fingerprint, *([dict(behaviour)] if behaviour else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def hashed_config(config: Mapping[str, Any], ignore: Sequence[str] = HASH_IGNORES) -> dict[str, Any]:
    """What of a configuration enters its run's hash, plain."""
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    for dotted in ignore:
        _drop(plain, dotted)
    for dotted, before in LATER_OPTIONS.items():
        _drop(plain, dotted, lambda value, before=before: value == before)
    return plain


def _drop(node: Any, dotted: str, where: Callable[[Any], bool] = lambda value: True) -> None:
    """Remove the entry a.b.c of nested dicts, if it is there and `where(value)`."""
    *parents, last = dotted.split(".")
    for key in parents:
        node = node.get(key) if isinstance(node, dict) else None
    if isinstance(node, dict) and last in node and where(node[last]):
        del node[last]


def file_name(name: str) -> str:
    """`name` with the characters that file systems dislike replaced by "_"."""
    return re.sub(r"[^\w.+=@-]", "_", name).strip(".") or "_"


def _read_state(path: Path) -> tuple[dict[int, list[Row]], dict[int, np.ndarray], dict[int, str], dict[int, str]]:
    """Rows, picks, finished seeds and their checksums; UserError naming the folder when they do not fit together."""
    rows_file, picks_file = path / "rounds.csv", path / "picks.npz"
    if not rows_file.exists():  # new, or killed before the first round was whole
        return {}, {}, {}, {}
    if not (path / "config.yaml").exists():
        raise _damaged(path, "config.yaml is missing")
    # read in the order opposite to the writing, so that a run at work can be looked at
    file = path / "progress.json"
    try:
        progress = json.loads(file.read_text()) if file.exists() else {}
        finished = {int(seed): str(why) for seed, why in progress.get("finished", {}).items()}
        checksums = {int(seed): str(text) for seed, text in progress.get("checksums", {}).items()}
    except (OSError, ValueError, AttributeError):
        raise _damaged(path, "progress.json cannot be read") from None
    rows: dict[int, list[Row]] = {}
    try:
        with rows_file.open(newline="") as file:
            reader = csv.reader(file)
            if tuple(next(reader, ())) != COLUMNS:
                raise _damaged(path, "rounds.csv does not have the expected columns")
            for line in reader:
                pairs = zip(COLUMNS, line, strict=True)
                row = {name: int(text) if name in _INTEGERS else float(text) for name, text in pairs}
                rows.setdefault(int(row["seed"]), []).append(row)
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, f"rounds.csv cannot be read ({error})") from None
    picks: dict[int, np.ndarray] = {}
    try:
        with np.load(picks_file, allow_pickle=False) as stored:
            for seed in rows:
                picks[seed] = stored[str(seed)]
    except Exception as error:  # a broken archive raises half a dozen kinds
        raise _damaged(path, f"picks.npz cannot be read ({error})") from None
    for seed, own in rows.items():
        if picks[seed].dtype != np.int64 or picks[seed].ndim != 1:
            raise _damaged(path, f"picks of seed {seed} are not a vector of int64")
        # picks are written first: a kill in between leaves a round's picks without its row
        picks[seed] = picks[seed][: max(0, int(own[-1]["num_labeled"]))]
        fault = _fault(own, picks[seed])
        if fault:
            raise _damaged(path, f"seed {seed}: {fault}")
    if not set(finished) <= set(rows):
        raise _damaged(path, "progress.json names finished seeds that have no rows")
    for seed, kept in checksums.items():
        if seed not in finished or kept != _checksum(rows[seed], picks[seed]):
            raise _damaged(path, f"rounds.csv or picks.npz is not what it was when seed {seed} was finished")
    return rows, picks, finished, checksums


def _checksum(rows: Sequence[Row], picks: np.ndarray) -> str:
    """Of one seed, so that others may go on: its rows as values, however they are written, and its picks int64 (n,)."""
    text = json.dumps([[[name, row[name]] for name in COLUMNS] for row in rows])
    return hashlib.sha256(text.encode() + picks.astype("<i8").tobytes()).hexdigest()[:32]


def _fault(rows: Sequence[Row], picks: np.ndarray) -> str | None:
    """Why consecutive rows of a seed and its picks up to the last of them do not fit together, or None."""
    for before, after in zip(rows, rows[1:], strict=False):
        if after["round"] != before["round"] + 1:
            return f"round {after['round']} follows round {before['round']}"
        if after["num_labeled"] <= before["num_labeled"]:
            return f"round {after['round']} has no new label"
    if rows[-1]["num_labeled"] != len(picks) or not len(picks):
        return f"round {rows[-1]['round']} has num_labeled {rows[-1]['num_labeled']}, but {len(picks)} picks"
    if picks.min() < 0 or len(np.unique(picks)) != len(picks):
        return "an item is picked twice or has a negative index"
    return None


def read_config(path: Path) -> dict[str, Any]:
    """The `config.yaml` of a run folder; UserError when it is none."""
    try:
        config = yaml.safe_load((path / "config.yaml").read_text())
        run = config["run"]
        for name in (*_NAMES, "hash", "cache_fingerprint"):
            run[name]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise _damaged(path, f"config.yaml cannot be read ({error!r})") from None
    return config


def read_picks(path: Path) -> dict[int, np.ndarray]:
    """What each seed of a run folder has picked, rows of its cache int64 (n,), checked as when the run goes on.

    Raises UserError for a damaged folder.
    """
    return _read_state(path)[1]


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"the run folder {path} is damaged: {what}; delete it, or run again with force=true")


def _replace(file: Path, data: bytes) -> None:
    """Write beside `file` and rename over it; UserError when the disk is full or read-only."""
    temporary = file.with_name(f".{file.name}.part")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, file)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; make room and run again") from None


def _empty(path: Path) -> None:
    """Remove the run's files; the rounds first, so that a kill in here leaves no half run."""
    try:
        for name in _FILES:
            (path / name).unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot empty the run folder {path}: {error.strerror or error}") from None


def _take_lock(path: Path) -> int | None:
    """An exclusive lock that the system drops when the process ends, however it ends; None where there is none."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes on one folder are not noticed there
        return None
    lock = os.open(path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(lock, 200, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise UserError(f"another process ({owner}) works in {path}; wait for it, or stop it and run again") from None
    except OSError:  # a file system without locks
        os.close(lock)
        return None
    import socket

    os.ftruncate(lock, 0)
    os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
    return lock
