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
    cells = [[*table.header], ["---"] + ["---:"] * (len(table.header) - 1), *table.texts]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells]
