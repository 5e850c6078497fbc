"""What a page is made of: chapters of sections, each with sentences, tables and pictures, in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from alfm.report.cells import Table
from alfm.report.html.pictures import Picture


@dataclass(frozen=True)
class Section:
    """`anchor`: unique on the page, and how its files are named; lead: sentences above what it shows."""

    anchor: str
    title: str
    lead: Sequence[str]
    blocks: Sequence[Table | Picture] = ()


@dataclass(frozen=True)
class Chapter:
    """Sections about one setting, or about all together."""

    anchor: str
    title: str
    sections: Sequence[Section] = ()
    lead: Sequence[str] = field(default_factory=list)
    short: str = ""

    @property
    def entry(self) -> str:
        """What the table of contents calls it."""
        return self.short or self.title
