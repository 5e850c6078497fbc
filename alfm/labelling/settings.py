"""The settings that conf/select.yaml, conf/predict.yaml and conf/label.yaml have in common: what each may be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import MinLen

from alfm.options import Device, Means, Name, PathName, Seed, Whole, checked

_Paths = Annotated[PathName | Annotated[Sequence[PathName], MinLen(1)] | None, Means("a path, a list of them or null")]
_Names = Annotated[
    Annotated[Sequence[str | int], MinLen(1)] | None, Means("a list of names, such as classes=[cat,dog], or null")
]


@dataclass(frozen=True)
@checked
class Opening:
    """What makes a learner of a cell: see `alfm.labelling.opening`."""

    cache: _Paths
    split: Name
    state: PathName | None
    labels_in_cache: Literal["use", "ignore"]
    classes: _Names
    annotator: Name
    audit: Whole | None
    seed: Seed
    warm_start: bool
    device: Device
    memory: Literal["auto", "device", "host", "file"]
    items: PathName | None
