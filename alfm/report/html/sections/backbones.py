"""Which backbone: caches of the same items beside each other, and how near the ceiling labels get."""

from __future__ import annotations

from collections.abc import Sequence

from alfm.report.html.known import Known
from alfm.report.html.parts import Chapter


def ceilings(known: Known) -> dict[str, float]:
    return {}


def chapter(knowns: Sequence[Known]) -> Chapter | None:
    return None
