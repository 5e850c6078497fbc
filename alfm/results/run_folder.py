"""The folder of one run: configuration, rounds table, picks, environment; written so that a kill loses one round.

    <LOG_DIR>/<dataset>/<model>/<query_strategy>-<hash>/
        config.yaml       the configuration, and under `run:` the names, the hash and the cache's fingerprint
        rounds.csv        one row per seed and round (`rounds_file.columns`)
        picks.npz         one int64 array per seed, named by the seed, in the order picked
        progress.json     which seeds are finished, why they ended, and a checksum of each one's rows and picks
        environment.json  one entry per session that worked here: versions, device, threads, cache, commit, time
        index_sets/       what each seed began with, held out and could pick from, see `alfm.simulation.index_sets`
        tuning.csv        the options chosen for each round's head, and tuning.journal, Optuna's trials; where they were
        stopping.csv      where stopping rules would have ended each seed, or did; only where rules were asked

Every file is replaced by one rename, the picks before the rounds, so `rounds.csv` never claims picks that are not
there. Nothing is flushed to the disk's platters each round: a killed process loses at most the round in flight, a
power cut may lose the last seconds, and what it leaves is checked when it is read.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml

from alfm.errors import UserError
from alfm.files import replacing
from alfm.results import tuning_file
from alfm.results.rounds_file import Row, as_row, checksum, columns, fault, read_rounds, written
from alfm.results.run_hash import FORMAT, HASH_IGNORES, run_hash
from alfm.results.verdicts import FILE, Verdict, keep_verdicts, read_verdicts

NAMES = ("dataset", "model", "query_strategy", "init_strategy", "classifier")
SETS = "index_sets"
_YAML = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same, several times as fast where libyaml is there
_FILES = (
    "rounds.csv",
    "picks.npz",
    "progress.json",
    "config.yaml",
    "environment.json",
    FILE,
    tuning_file.FILE,
    tuning_file.JOURNAL,
)


@dataclass
class State:
    """What a run folder holds of each seed: its rows, its picks int64 (n,) in order; and of finished ones why they
    ended, and a checksum. `columns`: of its table, in their order."""

    rows: dict[int, list[Row]] = field(default_factory=dict)
    picks: dict[int, np.ndarray] = field(default_factory=dict)
    finished: dict[int, str] = field(default_factory=dict)
    checksums: dict[int, str] = field(default_factory=dict)
    columns: tuple[str, ...] = field(default_factory=columns)


class RunFolder:
    """One run on disk, held by one process at a time. Make it with `RunFolder.open`; use it as a context manager.

    A replicate's state is its picks in order and its rows, one per round from the cold start on; the picks up to a
    row's `num_labeled` are the labelled set that row measured.
    """

    def __init__(self, path: Path, lock: int | None) -> None:
        self.path = path
        self._lock = lock
        self._state = State()
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
        about: Mapping[str, Any] | None = None,
    ) -> RunFolder:
        """Find or make the run's folder and take its lock.

        `config`: the resolved configuration, plain dicts, lists, strings, numbers; its keys in `ignore` (top level,
        or dotted) do not enter the hash. `config["seeds"]` is stored as the union with the seeds already there.
        `environment`: what `alfm.results.environment.environment_of` returns, one session more in `environment.json`.
        `force`: start over. `behaviour`: see `run_hash`; kept as `run.behaviour`. `about`: what else is kept under
        `run:`, outside the hash.

        Raises UserError if another process works in this folder, if the folder is damaged, or cannot be made.
        """
        names = dict(zip(NAMES, (dataset, model, query_strategy, init_strategy, classifier), strict=True))
        digest = run_hash(config, cache_fingerprint, ignore, behaviour)
        path = Path(log_dir).joinpath(*(folder_name(n) for n in (dataset, model)))
        path = path / f"{folder_name(query_strategy)}-{digest[:8]}"
        try:
            path.mkdir(parents=True, exist_ok=True)
            folder = cls(path, take_lock(path))
        except OSError as error:
            raise UserError(f"cannot make the run folder {path}: {error.strerror or error}") from None
        try:
            if force:
                _empty(path)
            folder._state = read_state(path)
            run = {**names, "hash": digest, "cache_fingerprint": cache_fingerprint, "format": FORMAT}
            run |= about or {}
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
        return list(self._state.rows)

    def completed_seeds(self) -> dict[int, str]:
        """Finished seeds and why each ended, as given to `finish`."""
        return dict(self._state.finished)

    def progress(self, seed: int) -> tuple[np.ndarray, list[Row]]:
        """Picks int64 (n,) in the order picked and the rows so far; both empty for a seed not begun."""
        picks = self._state.picks.get(seed)
        return (np.empty(0, np.int64) if picks is None else picks.copy()), [*self._state.rows.get(seed, [])]

    def append(self, rows: Iterable[Mapping[str, float | int]], picks: Mapping[int, np.ndarray]) -> None:
        """Store one round: a row (`rounds_file.columns`) for each replicate, and its NEW picks, int64 (B,).

        Raises ValueError for a row that does not follow from what is stored: a wrong column, a round that is not
        the seed's next, `num_labeled` other than the number of picks, a pick made twice, a finished seed.
        """
        state = self._state
        order = columns(state.columns)
        new_rows = {int(row["seed"]): row for row in (as_row(given, order) for given in rows)}
        if set(new_rows) != {int(seed) for seed in picks}:
            raise ValueError(f"rows of seeds {sorted(new_rows)} but picks of seeds {sorted(picks)}")
        new_picks = {seed: self._followed(row, picks[seed]) for seed, row in new_rows.items()}
        state.picks.update(new_picks)
        state.columns = order
        for seed, row in new_rows.items():
            state.rows.setdefault(seed, []).append(row)
        self._begin()
        self._write_picks()
        _replace(self.path / "rounds.csv", written((row for own in state.rows.values() for row in own), order))

    def _followed(self, row: Row, picks: np.ndarray) -> np.ndarray:
        """A seed's picks with those of its next round, int64 (n + B,); ValueError where the round does not follow."""
        seed = int(row["seed"])
        if seed in self._state.finished:
            raise ValueError(f"seed {seed} is finished")
        old = self._state.picks.get(seed, np.empty(0, np.int64))
        together = np.concatenate([old, np.asarray(picks, dtype=np.int64).reshape(-1)])
        why = fault([*self._state.rows.get(seed, [])[-1:], row], together)
        if why:
            raise ValueError(f"seed {seed}: {why}")
        return together

    def finish(self, seeds: Iterable[int], reason: str) -> None:
        """Mark replicates as done, for example `"all rounds done"`, `"pool exhausted"` or what a stopping rule said.

        Until then a replicate counts as interrupted, however many rows it has. From then on its rows and picks must be
        what they are now, or the folder is damaged; seeds finished by versions that kept no checksum are left alone.
        """
        state = self._state
        for seed in seeds:
            if seed not in state.rows:
                raise ValueError(f"seed {seed} has no rows: it cannot be finished")
            state.finished[int(seed)] = reason
            state.checksums[int(seed)] = checksum(state.rows[seed], state.picks[seed])
        text = json.dumps({"finished": state.finished, "checksums": state.checksums}, indent=1)
        _replace(self.path / "progress.json", text.encode())

    @property
    def state(self) -> State:
        """What is stored, as it stands; not to be changed."""
        return self._state

    def verdicts(self) -> list[Verdict]:
        """What stopping rules have said of seeds of this run."""
        return read_verdicts(self.path)

    def keep(self, verdicts: Iterable[Verdict]) -> None:
        """Store what stopping rules said of seeds, in place of what the same rules said of them before."""
        keep_verdicts(self.path, verdicts)

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

    def _write_picks(self) -> None:
        data = io.BytesIO()
        named: dict[str, Any] = {str(seed): picks for seed, picks in self._state.picks.items()}
        np.savez(data, **named)
        _replace(self.path / "picks.npz", data.getvalue())


def folder_name(name: str) -> str:
    """`name` with the characters that file systems dislike replaced by "_"; letters of all scripts stay, unlike in the
    names of caches (`alfm.datasets.ids.file_stem`).
    """
    return re.sub(r"[^\w.+=@-]", "_", name).strip(".") or "_"


def read_state(path: Path) -> State:
    """A run folder's state; UserError naming the folder when its files do not fit together."""
    if not (path / "rounds.csv").exists():  # new, or killed before the first round was whole
        return State()
    if not (path / "config.yaml").exists():
        raise _damaged(path, "config.yaml is missing")
    # read in the order opposite to the writing, so that a run at work can be looked at
    finished, checksums = _read_progress(path)
    try:
        rows, order = read_rounds(path / "rounds.csv")
    except (OSError, ValueError, csv.Error) as error:
        raise _damaged(path, f"rounds.csv cannot be read ({error})") from None
    state = State(rows, _read_picks(path, rows), finished, checksums, order)
    _check(path, state)
    return state


def _read_progress(path: Path) -> tuple[dict[int, str], dict[int, str]]:
    """Finished seeds and why they ended, and their checksums."""
    file = path / "progress.json"
    try:
        progress = json.loads(file.read_text()) if file.exists() else {}
        finished = {int(seed): str(why) for seed, why in progress.get("finished", {}).items()}
        return finished, {int(seed): str(text) for seed, text in progress.get("checksums", {}).items()}
    except (OSError, ValueError, AttributeError):
        raise _damaged(path, "progress.json cannot be read") from None


def _read_picks(path: Path, rows: Mapping[int, Sequence[Row]]) -> dict[int, np.ndarray]:
    """Picks of the seeds that have rows, int64 (n,), up to each one's last row."""
    try:
        with np.load(path / "picks.npz", allow_pickle=False) as stored:
            picks = {seed: stored[str(seed)] for seed in rows}
    except Exception as error:  # a broken archive raises half a dozen kinds
        raise _damaged(path, f"picks.npz cannot be read ({error})") from None
    for seed, own in picks.items():
        if own.dtype != np.int64 or own.ndim != 1:
            raise _damaged(path, f"picks of seed {seed} are not a vector of int64")
        # picks are written first: a kill in between leaves a round's picks without its row
        picks[seed] = own[: max(0, int(rows[seed][-1]["num_labeled"]))]
    return picks


def _check(path: Path, state: State) -> None:
    """UserError where rows, picks and the marks of finished seeds do not fit together."""
    for seed, own in state.rows.items():
        if why := fault(own, state.picks[seed]):
            raise _damaged(path, f"seed {seed}: {why}")
    if not set(state.finished) <= set(state.rows):
        raise _damaged(path, "progress.json names finished seeds that have no rows")
    for seed, kept in state.checksums.items():
        if seed not in state.finished or kept != checksum(state.rows[seed], state.picks[seed]):
            raise _damaged(path, f"rounds.csv or picks.npz is not what it was when seed {seed} was finished")


def read_config(path: Path) -> dict[str, Any]:
    """The `config.yaml` of a run folder; UserError when it is none."""
    try:
        config = yaml.load((path / "config.yaml").read_text(), _YAML)
        run = config["run"]
        for name in (*NAMES, "hash", "cache_fingerprint"):
            run[name]
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise _damaged(path, f"config.yaml cannot be read ({error!r})") from None
    return config


def read_picks(path: Path) -> dict[int, np.ndarray]:
    """What each seed of a run folder has picked, rows of its cache int64 (n,), checked as when the run goes on.

    Raises UserError for a damaged folder.
    """
    return read_state(path).picks


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"the run folder {path} is damaged: {what}; delete it, or run again with force=true")


def _replace(file: Path, data: bytes) -> None:
    """Write beside `file` and rename over it; UserError when the disk is full or read-only."""
    try:
        with replacing(file) as handle:
            handle.write(data)
    except OSError as error:
        raise UserError(f"cannot write {file}: {error.strerror or error}; make room and run again") from None


def _empty(path: Path) -> None:
    """Remove the run's files; the rounds first, so that a kill in here leaves no half run."""
    try:
        for name in _FILES:
            (path / name).unlink(missing_ok=True)
        if (path / SETS).exists():
            shutil.rmtree(path / SETS)
    except OSError as error:
        raise UserError(f"cannot empty the run folder {path}: {error.strerror or error}") from None


def take_lock(path: Path) -> int | None:
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
