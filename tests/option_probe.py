"""One worker of `test_every_option.py`: `python option_probe.py FOLDER PART PARTS` prints what it found as JSON.

It feeds nine kinds of values to every option of every config of its share, in this process, under limits: address
space, time for each input, and no process or connection started. Outside an option's declared type and range a value
must be refused in one sentence; inside, what is built must run and give finite numbers, or say in one sentence why not.
Of data sets and models, configs of one class are many: the first gets all values, the others two each.
"""

from __future__ import annotations

import collections
import contextlib
import copy
import itertools
import json
import math
import os
import resource
import shutil
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

VALUES = [None, math.nan, math.inf, -1, 0, 10**12, 1e300, "words", [3], {"a": 1}, True, 1, 0.5]
ADDRESS_SPACE = 16 << 30
SECONDS = 15
"""Of computing, for one input."""
GROUPS = ("query_strategy", "init_strategy", "classifier")


class Stuck(BaseException):
    """The time for one input is over."""


def limited() -> None:
    """No more memory than this, no process, no connection."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    most = ADDRESS_SPACE if hard == resource.RLIM_INFINITY else min(hard, ADDRESS_SPACE)
    resource.setrlimit(resource.RLIMIT_AS, (most, hard))

    def refuse(event: str, arguments: tuple[Any, ...]) -> None:
        if event in ("os.fork", "os.posix_spawn", "socket.connect", "socket.getaddrinfo"):
            raise OSError(f"{event} is not allowed here")

    def stop(*_: Any) -> None:
        raise Stuck

    sys.addaudithook(refuse)
    signal.signal(signal.SIGPROF, stop)


# ---- what a declaration allows, told without pydantic ----------------------------------------------------------------


def allowed(hint: Any, value: Any) -> bool:
    """Is `value` inside the type and range that `hint` declares?"""
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin is Annotated:
        return allowed(inner[0], value) and all(_inside(note, value) for note in inner[1:])
    if origin in (Union, types.UnionType):
        return any(allowed(one, value) for one in inner)
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if hint is type(None) or hint is None:
        return value is None
    if hint is bool or hint is str:
        return type(value) is hint
    if hint is int:
        return type(value) is int
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(inner) and all(map(allowed, inner, value))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return isinstance(value, dict) and all(allowed(inner[0], k) and allowed(inner[1], v) for k, v in value.items())
    if isinstance(origin, type) and issubclass(origin, Sequence):
        return isinstance(value, list) and all(allowed(inner[0], one) for one in value)
    return False  # a class: none of the values is of one


def _inside(note: Any, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    sized = isinstance(value, str | list | dict)
    checks = {
        "gt": lambda end: not number or value > end,
        "ge": lambda end: not number or value >= end,
        "lt": lambda end: not number or value < end,
        "le": lambda end: not number or value <= end,
        "min_length": lambda end: not sized or len(value) >= end,
        "max_length": lambda end: not sized or end is None or len(value) <= end,
    }
    return all(check(getattr(note, name)) for name, check in checks.items() if hasattr(note, name))


def ends(hint: Any) -> list[float]:
    """The closed ends of a number's range: further values that are inside."""
    notes = [note for one in (hint, *get_args(hint)) if get_origin(one) is Annotated for note in get_args(one)]
    if float not in notes:
        return []
    return [end for note in notes for name in ("ge", "le") if (end := getattr(note, name, None)) is not None]


def declared(target: str) -> dict[str, Any]:
    """Name -> annotation of what a `_target_` takes, with what its constructor hands on to the class above it."""
    from hydra.utils import get_object

    from alfm.options import options_of

    made = get_object(target)
    found: dict[str, Any] = {}
    for one in reversed(made.__mro__) if isinstance(made, type) else [made]:
        if one is not object and (not isinstance(one, type) or "__init__" in vars(one)):
            found |= options_of(one)
    return found


# ---- inputs ---------------------------------------------------------------------------------------------------------


class Probe:
    def __init__(self, folder: Path) -> None:
        self.folder, self.count = folder, collections.Counter[str]()
        self.failures: list[str] = []
        self.ran: set[tuple[str, str, str]] = set()
        self.asked: set[tuple[str, str]] = set()

    def node(self, cfg: Any, group: str, path: str, run: Callable[[Any], None], once: bool) -> None:
        """Every option of the config node at `path` of `cfg`, and of the nodes inside it."""
        from omegaconf import OmegaConf

        node = OmegaConf.select(cfg, path)
        target = node["_target_"]
        hints = declared(target)
        for key in list(node):
            if str(key).startswith("_"):
                continue
            if key not in hints:
                self.failures.append(f"{path}.{key}: {target} declares no such option")
                continue
            inner = node._get_node(key)
            if OmegaConf.is_dict(inner) and "_target_" in inner:
                self.node(cfg, group, f"{path}.{key}", run, once)
            values = [*VALUES, *ends(hints[key])]
            if once and (target, str(key)) in self.asked:
                turn = self.count["inputs"] % len(VALUES)
                values = [VALUES[turn], VALUES[turn - 6]]
            self.asked.add((target, str(key)))
            called = _called(node)
            for turn, value in enumerate(values, self.count["inputs"]):
                inside = allowed(hints[key], value)
                seen = (target, str(key), repr(value))
                if inside and seen in self.ran:
                    continue  # the same class was asked the same already
                self.ran.add(seen)
                through_hydra = inside or turn % 8 == 0  # which takes longer than what it calls
                self.one(cfg, f"{path}.{key}", value, inside, run if through_hydra else partial(called, key))

    def one(self, cfg: Any, path: str, value: Any, inside: bool, run: Callable[[Any], None]) -> None:
        """`run(cfg)` with one setting changed: a sentence outside, a run or a sentence inside."""
        from omegaconf import OmegaConf

        from alfm.datasets.base import ItemError
        from alfm.errors import UserError

        parent, _, key = path.rpartition(".")
        owner = OmegaConf.select(cfg, parent) if parent else cfg
        before = copy.deepcopy(owner._get_node(key))  # a leaf is changed in place
        self.count["inputs"] += 1
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            owner[key] = value
            run(cfg)
            signal.setitimer(signal.ITIMER_PROF, 0)
            self.count["runs"] += 1
            if not inside:
                self.failures.append(f"{path}={value!r} was taken")
        except (UserError, ItemError) as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            text = str(error)
            self.count["sentences"] += 1
            if "\n" in text.strip() or not text.strip() or len(text) > 900:
                self.failures.append(f"{path}={value!r}: no sentence: {text!r}")
            if not inside and f"{key}=" not in text and f"{key}." not in text:
                self.failures.append(f"{path}={value!r}: the sentence does not name it: {text}")
        except Stuck:
            self.failures.append(f"{path}={value!r}: no answer within {SECONDS} s of computing")
        except Exception as error:
            signal.setitimer(signal.ITIMER_PROF, 0)
            where = traceback.extract_tb(error.__traceback__)[-1]
            self.failures.append(f"{path}={value!r}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            owner._set_item_impl(key, before)


def _called(node: Any) -> Callable[[str, Any], None]:
    """What calls the `_target_` of a node as Hydra would, given the name of an option and a config that has it."""
    from hydra.utils import get_object, instantiate
    from omegaconf import OmegaConf

    target = get_object(node["_target_"])
    options = {key: value for key, value in OmegaConf.to_container(node, resolve=True).items() if key[0] != "_"}
    inner = {key: instantiate(node[key], _convert_="all") for key in options if OmegaConf.is_config(node[key])}

    def call(key: str, _: Any) -> None:
        target(**options | inner | OmegaConf.to_container(OmegaConf.masked_copy(node, key)))

    return call


def composed(name: str, *words: str) -> Any:
    """A config as the command line makes it, open for any change."""
    from omegaconf import OmegaConf

    cfg = cell(name, *words).cfg()
    OmegaConf.set_struct(cfg, False)
    return cfg


def cell(name: str, *words: str) -> Any:
    """The cell that a command line makes."""
    import alfm.al_train
    import alfm.extract
    from alfm.config.hydra import run_hydra

    cells: list[Any] = []
    task = {"al_train": alfm.al_train.TASK, "extract": alfm.extract.TASK}[name]
    assert run_hydra(name, task, lambda made: cells.extend(made) or 0, argv=list(words)) == 0
    return cells[0]


def units(folder: Path) -> Iterator[tuple[str, Callable[[Probe], None]]]:
    """Everything there is to try, in pieces that can be shared out."""
    from alfm.config.paths import conf_dir

    conf = conf_dir()
    for group in GROUPS:
        for file in sorted((conf / group).glob("*.yaml")):
            if file.stem != "replay":  # needs a run
                yield f"{group}={file.stem}", _strategy(folder, group, file.stem)
    for file in sorted((conf / "stopping").glob("*.yaml")):
        yield f"stopping={file.stem}", _rule(folder, file.stem)
    for file in sorted((conf / "query_strategy" / "posterior").glob("*.yaml")):
        yield f"posterior={file.stem}", _strategy(folder, "query_strategy", "bald", f"/posterior={file.stem}")
    for group in ("dataset", "model"):
        names = sorted(
            (file.stem for file in (conf / group).glob("*.yaml")), key=lambda name: name not in REQUIRED[group]
        )
        yield group, _described(folder, group, names)
    yield "al_train", _top(folder, "al_train")
    yield "extract", _top(folder, "extract")


def _strategy(folder: Path, group: str, name: str, posterior: str = "") -> Callable[[Probe], None]:
    def probe(all_of: Probe) -> None:
        from alfm.config.build import build
        from alfm.config.parts import KINDS

        words = [f"{group}={name}", *([f"{group}{posterior}"] if posterior else [])]
        words += [f"init_strategy.path={folder}/rows.txt"] if name == "index_file" else []
        words += ["classifier.max_epochs=12"] if name in ("adapter", "dropout") else []  # some never stop
        cfg = composed("al_train", *words)
        task = _task(folder)

        def run(cfg: Any) -> None:
            built = build(cfg[group], KINDS[group], group)
            if type(built).__name__ == "Boss":
                built.batches, built.sub_pool = min(built.batches, 3), min(built.sub_pool, 20)
            _rounds(task, {group: built})

        all_of.node(cfg, group, group, run, once=False)

    return probe


def _rule(folder: Path, name: str) -> Callable[[Probe], None]:
    def probe(all_of: Probe) -> None:
        from alfm.config.build import build
        from alfm.simulation.watch import Watching
        from alfm.stopping.base import Rule

        cfg = composed("al_train", f"stopping={name}")

        def run(cfg: Any) -> None:
            _rounds(_task(folder), {"watching": Watching({name: build(cfg.stopping[name], Rule, f"stopping.{name}")})})

        all_of.node(cfg, "stopping", f"stopping.{name}", run, once=False)

    return probe


_tasks: dict[Path, Any] = {}


def _task(folder: Path) -> Any:
    from alfm.simulation.cached_task import Simulation

    if folder not in _tasks:
        _tasks[folder] = Simulation(folder / "tiny" / "points.h5", device="cpu")
    return _tasks[folder]


def _rounds(task: Any, built: dict[str, Any]) -> None:
    """Two rounds of one replicate; every number that comes out is finite."""
    from alfm.heads.logistic import Logistic
    from alfm.simulation.replicates import run_replicates
    from alfm.strategies.margins import Margins
    from alfm.strategies.random import Random

    given = {"classifier": Logistic(), "init_strategy": Random(), "query_strategy": Margins(), **built}
    rows = list(run_replicates(task, budgets=[6, 6], seeds=[1], **given))
    assert [row["num_labeled"] for row in rows] == [6, 12]
    for row in rows:
        assert all(math.isfinite(value) for value in row.values()), row
        assert 0 <= row["accuracy"] <= 1 and row["nll"] >= 0, row


REQUIRED = {
    "dataset": {
        "image_folder": ["dataset.root={folder}/photos"],
        "audio_folder": ["dataset.root={folder}/photos"],
        "text_folder": ["dataset.root={folder}/photos"],
        "table": ["dataset.path={folder}/table.csv", "dataset.column=text", "dataset.modality=text"],
        "text_table": ["dataset.path={folder}/table.csv", "dataset.label_column=label"],
        "tar_shards": ["dataset.splits={{train: x.tar}}"],
        "hugging_face": ["dataset.path=nobody/nothing"],
        "torchvision": ["dataset.class_name=CIFAR10"],
    },
    "model": dict.fromkeys(
        [f"transformers_{kind}" for kind in ("vision", "text", "audio")]
        + ["timm", "open_clip", "sentence_transformers"],
        ["model.arch=nobody/nothing"],
    ),
}


def _described(folder: Path, group: str, names: list[str]) -> Callable[[Probe], None]:
    def probe(all_of: Probe) -> None:
        from alfm.config.build import build, source_kind
        from alfm.config.paths import conf_dir

        first = composed("extract")
        for name in names:
            words = [word.format(folder=folder) for word in REQUIRED[group].get(name, [])]
            cfg = composed("extract", f"{group}={name}", *words) if words else first
            if not words:  # the rest is what it was
                cfg[group] = _with_defaults(conf_dir() / group / f"{name}.yaml")

            def run(cfg: Any) -> None:
                made = build(cfg[group], source_kind(group), group)
                if group == "dataset":
                    for split in made.splits.values():
                        split.load(0)

            all_of.node(cfg, group, group, run, once=True)

    return probe


def _with_defaults(file: Path) -> Any:
    """The node that a data set's or a model's file describes, as Hydra puts it together."""
    from omegaconf import OmegaConf

    node = OmegaConf.load(file)
    names = node.pop("defaults", [])
    return OmegaConf.merge(*(_with_defaults(file.with_stem(name)) for name in names if name != "_self_"), node)


def _top(folder: Path, name: str) -> Callable[[Probe], None]:
    def probe(all_of: Probe) -> None:
        import h5py
        import numpy as np
        from omegaconf import OmegaConf

        import alfm.extraction.settings
        import alfm.simulation.settings
        from alfm.config.paths import cache_path
        from alfm.engines.base import open_session
        from alfm.options import options_of, read

        if name == "al_train":
            kind = alfm.simulation.settings.Settings
            cache = f"cache={folder}/tiny/points.h5"
            words = [cache, "query_strategy=margins", "seeds=[1]", "iterations.n=2", "device=cpu"]
            groups = ("dataset", "model", "classifier", "init_strategy", "query_strategy", "callback", "paths")
        else:
            kind = alfm.extraction.settings.Settings
            words = ["dataset=image_folder", f"dataset.root={folder}/photos", "device=cpu", "force=true", "threads=1"]
            groups = ("dataset", "model", "augment")
        first = cell(name, *words)
        cfg = first.cfg()
        OmegaConf.set_struct(cfg, False)
        session, turns = open_session(first.task), itertools.count()

        def run(cfg: Any) -> None:
            if next(turns) % 8:
                read(kind, cfg)  # where most are refused; one of eight goes the whole way there
            shutil.rmtree(os.environ["LOG_DIR"], ignore_errors=True)  # a run ends with a table of all that there are
            session.run(replace(first, config=OmegaConf.to_container(cfg, resolve=True)))
            if name == "al_train":
                return
            with h5py.File(cache_path(cfg)) as file:
                for split in {"train", "test"} & set(file):
                    assert np.isfinite(file[split]["features"][()]).all()

        def settings(kind: type, path: str) -> Iterator[tuple[str, Any]]:
            for option, hint in options_of(kind).items():
                option = option.rstrip("_")  # a keyword of Python's
                if isinstance(hint, type) and hasattr(hint, "__dataclass_fields__"):
                    yield f"{path}{option}", hint
                    yield from settings(hint, f"{path}{option}.")
                else:
                    yield f"{path}{option}", hint

        known = dict(settings(kind, ""))
        there = {str(key) for key in cfg if key not in groups}
        there |= {f"{key}.{inner}" for key in there if OmegaConf.is_dict(cfg[key]) for inner in cfg[key]}
        if there != set(known):
            all_of.failures.append(f"conf/{name}.yaml and its Settings differ: {there ^ set(known)}")
        for path, hint in known.items():
            for value in VALUES:
                all_of.one(cfg, path, value, allowed(hint, value), run)

    return probe


def main() -> None:
    folder, part, parts = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    wanted = sys.argv[4] if len(sys.argv) > 4 else ""
    limited()
    probe = Probe(folder)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # what runs print
        for place, (name, unit) in enumerate(units(folder)):
            if place % parts == part and wanted in name:
                unit(probe)
    print(json.dumps({**probe.count, "failures": probe.failures}))


if __name__ == "__main__":
    main()
