"""`python -m alfm.select` from start to end: labels in, the next batch out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Gt, Le, MinLen

from alfm.commands import command, setting
from alfm.config.cell import Cell
from alfm.errors import UserError
from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.audit import estimate
from alfm.labelling.imported import import_labels, unread
from alfm.labelling.items import Items
from alfm.labelling.label_files import LabelFile, check_there
from alfm.labelling.label_files import read as read_labels
from alfm.labelling.lamps import lamps
from alfm.labelling.opening import open_learner, set_audit
from alfm.labelling.status import Item
from alfm.labelling.written.asked import Asked, path_of
from alfm.labelling.written.class_folders import write_links
from alfm.labelling.written.contact_sheet import write_sheet
from alfm.labelling.written.jsonl import write_lines
from alfm.labelling.written.label_studio import Server, write_config, write_tasks
from alfm.labelling.written.left_out import write_left_out
from alfm.labelling.written.next_csv import OURS, is_table, write_next
from alfm.options import Count, Means, Name, PathName, checked, read

Form = Literal["csv", "html", "label_studio", "jsonl", "folders"]
_Paths = Annotated[PathName | Annotated[Sequence[PathName], MinLen(1)] | None, Means("a path, a list of them or null")]
_AGAIN = ("n", "target", "out", "formats", "items", "dataset.root", "annotator", "url_prefix", "device", "memory")
"""Words that a next call needs again; the state holds the others."""


@dataclass(frozen=True)
@checked
class Settings:
    """What conf/select.yaml has beside what makes the learner."""

    labels: _Paths
    annotator: Name
    n: Count
    target: Annotated[float, Gt(0), Le(1)]
    out: PathName
    formats: Sequence[Form]
    url_prefix: str | None


class Selecting:
    """Selects batches, one after the other, in one process. A session of an engine: see `alfm.engines.base.Session`."""

    def key(self, cell: Cell) -> str:
        """Cells on the same pool have the same."""
        return str(cell.cfg().cache)

    def run(self, cell: Cell) -> None:
        """One question, for a cell of conf/select.yaml: what was labelled is read, the next batch written and said.
        Raises UserError."""
        given = read(Settings, cell.cfg())
        out = Path(given.out).expanduser()
        _make(out)
        paths = _several(given.labels)
        for path in paths:
            check_there(path)  # before a state is begun
        learner = open_learner(cell)
        items = learner.items
        files = [read_labels(path, items, learner.classes) for path in paths]
        for file in files:
            print("\n".join([f"Read {file}", *(f"  {line}" for line in [*file.notes, *file.listed])]))
            print(f"  {import_labels(learner, file, given.annotator)}")
        set_audit(cell, learner)
        left = write_left_out(out / "left_out.csv", files)
        if left is not None:
            print(f"  What was left out, line by line: {left}")
        _refuse_unread(learner, items, out, given, [Path(file.source) for file in files])
        status = learner.status()
        print(status)
        if items.why_unseen is not None:
            print(items.why_unseen)
        asked = _ask(learner, given.n)
        if not asked.items:
            print("Every item has a label or was skipped: nothing is left to ask for.")
        for line in _write(out, given.formats, asked, learner, items, given.url_prefix):
            print(line)
        if learner.state.window.size:
            print(estimate(learner))
        if status.round:
            print("\n".join(f"  {lamp}" for lamp in lamps(learner, given.target)))
        typed = [word for word in cell.words if word.partition("=")[0] in _AGAIN]
        state = [] if learner.journal is None else [setting("state", learner.journal.folder)]
        if asked.items:
            answers = str(out / "next.csv") if "csv" in given.formats else "YOUR_EXPORT"
            print(f"Next: {command('select', *state, *typed, setting('labels', answers))}")
        else:
            print(f"Next: {command('predict', *state)}")


def _ask(learner: ActiveLearner, n: int) -> Asked:
    """The next batch, or what is open of it, with the open items of the audit among it."""
    picks = learner.ask(n)
    batches = learner.state.batches
    last = batches[-1] if batches else None
    return Asked(
        mixed(picks, learner.ask_audit()),
        last.round if last else 0,
        last.labels if last else learner.state.digest(),
        learner.classes,
    )


def mixed(picks: Sequence[Item], audit: Sequence[Item]) -> list[Item]:
    """Both in their order, spread evenly among each other: so that nobody sees which is which."""
    placed = [((index + 0.5) / len(group), item) for group in (picks, audit) for index, item in enumerate(group)]
    return [item for _, item in sorted(placed, key=lambda each: each[0])]


def _write(
    out: Path, forms: Sequence[Form], asked: Asked, learner: ActiveLearner, items: Items, url_prefix: str | None
) -> list[str]:
    """The batch in every form that is wanted; sentences on where."""
    audit = sum(item.purpose == "audit" for item in asked.items)
    kinds = f" ({len(asked.items) - audit} that the strategy wants, {audit} of the audit)" if audit else ""
    said = [f"Round {asked.round}: {len(asked.items)} items to label{kinds}."]
    if "csv" in forms:
        write_next(out / "next.csv", asked, items)
        said.append(f"  {out / 'next.csv'}: fill in the column label (? where it cannot be told)")
    if "html" in forms:
        write_sheet(out / "next.html", asked, items)
        said.append(f"  {out / 'next.html'}: the same to look at")
    paths = []
    if {"label_studio", "jsonl"} & set(forms):
        paths = [path for row in range(items.N) if (path := path_of(items, row)) is not None]
    server = Server(paths, url_prefix)
    if "label_studio" in forms and asked.classes:
        write_tasks(out / "next.label_studio.json", asked, items, server, f"alfm round {asked.round}")
        write_config(out / "label_studio.xml", asked.classes, items)
        said.append(
            f"  {out / 'next.label_studio.json'}: tasks to import, {out / 'label_studio.xml'}: their configuration"
        )
        said += [f"  {server.said}"] if server.said is not None and items.modality in ("image", "audio") else []
    elif "label_studio" in forms:
        said.append("  nothing for Label Studio yet, which must know the classes: name them with classes=[...]")
    if "jsonl" in forms:
        write_lines(out / "next.jsonl", asked, items, server)
        said.append(f"  {out / 'next.jsonl'}: lines for Prodigy and doccano")
    if "folders" in forms:
        state = learner.state
        told = [(item, label) for item in state.items if (label := state.label_of(item)) is not None]
        count = write_links(out / "labelled", told, items)
        said.append(f"  {out / 'labelled'}: links to {count:,} labelled items, a folder per class")
    return said


def _refuse_unread(learner: ActiveLearner, items: Items, out: Path, given: Settings, seen: Sequence[Path]) -> None:
    """`UserError` where something that would be written over holds labels that nobody has read. seen: files that were
    given, so that what is left out of them has been told."""
    for name, form in (("next.csv", "csv"), ("labelled", "folders")):
        place = out / name
        if form not in given.formats or not place.exists():
            continue
        try:
            found: LabelFile = read_labels(place, items, learner.classes)
        except UserError as error:
            if form == "csv" and is_table(place, OURS):
                raise UserError(
                    f"{place} would be written over, and it cannot be read: {error}; or move it."
                ) from error
            continue  # not ours, or nothing in it: whoever writes it says so
        count = unread(learner, found, given.annotator)
        if not any(place.samefile(other) for other in seen):
            count += len(found.left_out)
        if form == "folders":
            count = sum(learner.state.label_of(told.item) != told.label for told in found.acts)
        if count:
            raise UserError(
                f"{place} holds {count:,} labels that were not read and would be lost: add "
                f"{setting('labels', place)}, or move it."
            )


def _several(paths: _Paths) -> list[str | Path]:
    if paths is None:
        return []
    return [paths] if isinstance(paths, str | Path) else list(paths)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made: {error.strerror}.") from error
