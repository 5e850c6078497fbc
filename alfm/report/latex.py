r"""Tables as LaTeX, with the rules of the package booktabs."""

from __future__ import annotations

from alfm.report.cells import Table

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$", "|": r"$|$",
}  # fmt: skip


def show(table: Table) -> None:
    """Print it, the title and the notes as comments and text around the grid."""
    print(document(table))


def document(table: Table) -> str:
    """A `tabular` to be put into a paper with `\\input`, its title as a comment and its notes below."""
    notes = "".join(f"\n\\par\\footnotesize {escaped(note)}" for note in table.notes)
    return f"% {' '.join(table.title.split())}\n" + "\n".join(lines(table)) + notes + "\n"


def lines(table: Table) -> list[str]:
    """The grid alone."""
    sides = "".join("l" if i < table.words else "r" for i in range(len(table.header)))
    rows = [[*map(escaped, row)] for row in (table.header, *table.texts)]
    head, *body = (" & ".join(row) + r" \\" for row in rows)
    return [f"\\begin{{tabular}}{{{sides}}}", r"\toprule", head, r"\midrule", *body, r"\bottomrule", r"\end{tabular}"]


def escaped(text: str) -> str:
    """What LaTeX would read as a command, as it is to be seen."""
    return "".join(_SPECIAL.get(one, one) for one in " ".join(text.split()))
