"""Labels as folders of links: a folder per class, a link per item to its file. Links may be moved from one to another
and are read back with `labels=`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from alfm.datasets.ids import escape
from alfm.errors import UserError
from alfm.labelling.items import Items
from alfm.labelling.label_files.class_folders import folder_name
from alfm.labelling.written.asked import path_of

_OURS = ".alfm-links"
"""An empty file in a folder of ours."""


def write_links(folder: Path, labels: Iterable[tuple[str, str]], items: Items) -> int:
    """(item, class) -> links; returns how many. A folder of ours is replaced as a whole; `UserError` for another, and
    where one of its files is no link (somebody has put it there)."""
    _check_ours(folder)
    new = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    count = 0
    try:
        new.mkdir(parents=True)
        (new / _OURS).touch()
        for item, label in labels:
            if (path := path_of(items, items.row(item))) is not None:
                place = new / folder_name(label)
                place.mkdir(exist_ok=True)
                os.symlink(os.path.abspath(path), place / _free(place, os.path.basename(path), item))
                count += 1
        if folder.exists():
            shutil.rmtree(folder)
        os.rename(new, folder)
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise UserError(f"{folder} cannot be made: {error.strerror or error}.") from error
    return count


def _check_ours(folder: Path) -> None:
    if not os.path.lexists(folder):
        return
    if not (folder / _OURS).is_file() or folder.is_symlink():
        raise UserError(
            f"{folder} is there and was not written by this command: move it, or choose another out=FOLDER."
        )
    for place, _folders, files in os.walk(folder):
        real = [name for name in files if not os.path.islink(os.path.join(place, name)) and name != _OURS]
        if real:
            raise UserError(
                f"{os.path.join(place, real[0])} is a file, and all else in {folder} is links that are made anew: move "
                "it elsewhere."
            )


def _free(place: Path, name: str, item: str) -> str:
    """The file's name, or where another item of this class has it the whole id."""
    if not os.path.lexists(place / name):
        return name
    stem, ending = os.path.splitext(escape(item).replace("/", "__"))
    tries = (f"{stem}{f'.{n}' if n else ''}{ending}" for n in range(10**6))
    return next(name for name in tries if not os.path.lexists(place / name))
