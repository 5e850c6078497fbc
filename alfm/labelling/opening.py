"""From a command line to a learner: what a state folder holds stands, unless something else was typed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from alfm.commands import setting
from alfm.config.build import build
from alfm.config.cell import Cell
from alfm.config.parts import KINDS, called
from alfm.config.paths import paths
from alfm.errors import UserError
from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.journal import Journal
from alfm.labelling.parts import Part
from alfm.labelling.settings import Opening
from alfm.options import read


class Named(Protocol):
    """Settings by which a state is found."""

    @property
    def state(self) -> str | Path | None:
        """Its folder."""

    @property
    def cache(self) -> str | Path | Sequence[str | Path] | None:
        """The pool's caches."""


def state_folder(given: Named) -> Path:
    """Where the state lies: `state=`, else in the working folder a name that tells the first cache. Raises UserError.

    `<dataset>-<model>.labelling` for a cache where `alfm.extract` puts it, `<name>.labelling` for others.
    """
    if given.state is not None:
        return Path(given.state).expanduser()
    first = given.cache if given.cache is None or isinstance(given.cache, str | Path) else given.cache[0]
    if first is None:
        raise UserError("Which items? Name the pool with cache=PATH, or what was labelled before with state=FOLDER.")
    cache = Path(first).expanduser()
    folder, stem = os.path.split(os.path.abspath(cache))[0], cache.stem  # however it is spelt
    ours = os.path.dirname(folder) == os.path.abspath(paths().features)
    return Path(f"{os.path.basename(folder)}-{stem}.labelling" if ours else f"{stem}.labelling")


def open_learner(cell: Cell) -> ActiveLearner:
    """The learner that a cell of conf/select.yaml, predict.yaml or label.yaml means; makes its folder if need be.

    What was typed wins over what the folder holds, and is recorded there; seed, split and labels_in_cache are what they
    were when it was begun. Raises UserError.
    """
    given = read(Opening, cell.cfg())
    folder = state_folder(given)
    there = Journal.there(folder)
    learner = _go_on(cell, given, folder) if there else _begin(cell, given, folder)
    if there and given.classes is not None:
        for name in map(str, given.classes):
            learner.add_class(name, by=given.annotator)
    return learner


def set_audit(cell: Cell, learner: ActiveLearner) -> None:
    """The audit that a cell asks for. After people's files were read: what they chose to label is no random sample."""
    given = read(Opening, cell.cfg())
    if given.audit is not None:
        learner.audit(given.audit, by=given.annotator)


def _begin(cell: Cell, given: Opening, folder: Path) -> ActiveLearner:
    if given.cache is None:
        raise UserError(f"{folder} holds no labelling state: begin one with cache=PATH.")
    parts: dict[str, Any] = {group: _part(cell, group) for group in KINDS}
    return ActiveLearner(
        given.cache, **parts, seed=given.seed, folder=folder,
        classes=given.classes, split=given.split,
        labels_in_cache=given.labels_in_cache, warm_start=given.warm_start, **_how(cell, given),
    )  # fmt: skip


def _go_on(cell: Cell, given: Opening, folder: Path) -> ActiveLearner:
    """With what was typed otherwise than the folder has it."""
    typed = {word.partition("=")[0].lstrip("+~") for word in cell.words}
    changes: dict[str, Any] = {"warm_start": given.warm_start} if "warm_start" in typed else {}
    groups = {key.partition(".")[0].partition("/")[0] for key in typed} & KINDS.keys()
    if "query_strategy" in groups:
        groups.add("init_strategy")  # which the query strategy brings
    for group in groups:
        changes[group] = _part(cell, group)
    learner = ActiveLearner.load(folder, given.cache, **_how(cell, given))
    settings = learner.state.settings
    stands = {"seed": settings["seed"], "split": settings["caches"][0]["split"]}
    for name, old in (stands | {"labels_in_cache": settings["labels_in_cache"]}).items():
        if name in typed and getattr(given, name) != old:
            raise UserError(
                f"{setting(name, getattr(given, name))}: {folder} was begun with {setting(name, old)}, which stays; "
                "leave it out, or name another folder with state=."
            )
    for group in groups & {"query_strategy", "classifier"}:
        if group not in typed and cell.choices[group] != settings["names"][group]:
            raise UserError(
                f"{folder} goes on with {group}={settings['names'][group]}, whose options are not those of "
                f"{cell.choices[group]}: say {group}=NAME beside its options."
            )
    learner.change(**changes)
    return learner


def _how(cell: Cell, given: Opening) -> dict[str, Any]:
    dataset = cell.config.get("dataset") or {}
    return {"device": given.device, "memory": given.memory, "items": given.items, "root": dataset.get("root")}


def _part(cell: Cell, group: str) -> Part:
    name, config = str(cell.choices[group]), cell.config[group]
    return Part(name, config, called(build(cell.cfg().get(group), KINDS[group], group), name))
