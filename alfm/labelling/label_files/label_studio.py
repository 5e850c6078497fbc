"""Exports of Label Studio: its raw JSON, with all that happened to a task, and JSON_MIN (see `csv_table` for its CSV).

Tasks are found by `data.alfm_id`, or by the file or text they show: their order and their `id` are Label Studio's own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from alfm.errors import UserError
from alfm.labelling import strict_json
from alfm.labelling.label_files.matching import Keys, Matcher
from alfm.labelling.label_files.told import Gathering, LabelFile, class_of

FROM_NAME = "label"
"""What the question is called in the configuration that we write."""
_MEDIA = ("image", "audio", "path", "filename")


def is_raw(records: Sequence[Any]) -> bool:
    """Whether a list of JSON objects is a raw export."""
    return any(isinstance(one, dict) and isinstance(one.get("data"), dict) for one in records)


def is_min(records: Sequence[Any]) -> bool:
    """Whether it is JSON_MIN."""
    return any(isinstance(one, dict) and "annotation_id" in one for one in records)


def read_raw(source: str, tasks: Sequence[Any], matcher: Matcher, classes: Collection[str]) -> LabelFile:
    """Every annotator's newest annotation of a task is a vote, a cancelled one a skip. Drafts and predictions are no
    labels. `UserError` for several choices in an annotation, and for several questions in a task."""
    said = Gathering(source, matcher, classes, last_word=True)
    question = _question(source, tasks)
    for number, task in enumerate(tasks, start=1):
        where = f"task {number}"
        if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
            said.leave_out(where, str(task)[:40], "it is no task of Label Studio")
            continue
        keys, open_draft = _keys(task["data"]), bool(task.get("drafts"))
        annotations = [one for one in _list(task, "annotations", "completions") if isinstance(one, dict)]
        if not annotations:
            said.count("drafts, which are no labels" if open_draft else "without a label")
        for one in annotations:
            annotator = annotator_name(one.get("completed_by"))
            when = str(one.get("updated_at") or one.get("created_at") or "")
            if one.get("was_cancelled"):
                said.add(where, keys, "skip", None, annotator, when)
                continue
            chosen = [
                result.get("value")
                for result in _list(one, "result")
                if isinstance(result, dict) and result.get("type") == "choices" and result.get("from_name") == question
            ]
            label = class_of(_joined(chosen), f"{source}, {where}")
            if label is None:
                said.count("annotations without a choice")
            else:
                said.add(where, keys, "label", label, annotator, when)
    return said.done()


def read_min(source: str, rows: Sequence[Any], matcher: Matcher, classes: Collection[str]) -> LabelFile:
    """One row per annotation; what was skipped is not in it, what is untouched has no label."""
    said = Gathering(source, matcher, classes, last_word=True)
    for number, row in enumerate(rows, start=1):
        where = f"row {number}"
        if not isinstance(row, dict):
            said.leave_out(where, str(row)[:40], "it is no row of Label Studio")
            continue
        label = class_of(row.get(FROM_NAME, row.get("choice")), f"{source}, {where}")
        if label is None:
            said.count("without a label")
            continue
        when = str(row.get("updated_at") or row.get("created_at") or "")
        said.add(where, _keys(row), "label", label, annotator_name(row.get("annotator")), when)
    own = [row for row in rows if isinstance(row, dict)]
    if rows and not said.file.acts and not any(FROM_NAME in row or "choice" in row for row in own):
        raise UserError(
            f"{source} has no field {FROM_NAME!r}: name the <Choices> of the labelling configuration so "
            f'(name="{FROM_NAME}") and export again, or export JSON instead of JSON_MIN'
        )
    return said.done()


def annotator_name(value: Any) -> str | None:
    """A user as an export names them: a number, an address, or an object that holds both."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = strict_json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping):
        value = value.get("email") or value.get("id")
    return str(value) if value not in (None, "") else None


def class_in_cell(cell: str, where: str) -> str:
    """A cell of its CSV, which holds JSON where there are several choices. `UserError` for these."""
    if not cell.startswith('{"choices"'):
        return cell
    try:
        return class_of(strict_json.loads(cell), where) or ""
    except ValueError:
        return cell


def _question(source: str, tasks: Sequence[Any]) -> str:
    """The name of the one question: ours where it is there."""
    names = {
        str(result.get("from_name"))
        for task in tasks
        if isinstance(task, dict)
        for one in _list(task, "annotations", "completions")
        if isinstance(one, dict)
        for result in _list(one, "result")
        if isinstance(result, dict) and result.get("type") == "choices"
    }
    if len(names) > 1 and FROM_NAME not in names:
        raise UserError(
            f"{source} answers {len(names)} questions, {', '.join(sorted(names))}: name the one that holds the class "
            f'"{FROM_NAME}" in the labelling configuration and export again'
        )
    return FROM_NAME if FROM_NAME in names or not names else names.pop()


def _keys(data: Mapping[str, Any]) -> Keys:
    own, text = data.get("alfm_id"), data.get("text")
    name = next((data[key] for key in _MEDIA if isinstance(data.get(key), str)), None)
    return Keys(None if own is None else str(own), None, name, text if isinstance(text, str) else None)


def _joined(values: Sequence[Any]) -> Any:
    """The choices of all results of one question together."""
    return [choice for value in values if isinstance(value, dict) for choice in _list(value, "choices")]


def _list(task: Mapping[str, Any], *names: str) -> list[Any]:
    return next((task[name] for name in names if isinstance(task.get(name), list)), [])
