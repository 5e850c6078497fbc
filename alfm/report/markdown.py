"""Tables as Markdown."""

from __future__ import annotations

from alfm.report.cells import Table


def show(table: Table) -> None:
    """Print it, its title in bold."""
    print(f"**{table.title}**\n")
    print("\n".join(lines(table)))
    print("".join(f"\n{note}\n" for note in table.notes))


def lines(table: Table) -> list[str]:
    """The grid alone."""
    sides = ["---" if i < table.words else "---:" for i in range(len(table.header))]
    cells = [[*table.header], sides, *table.texts]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
