"""What tuning changed."""

from __future__ import annotations

from alfm.report.html.known import Known
from alfm.report.html.parts import Section


def tuning(known: Known) -> Section | None:
    return None
