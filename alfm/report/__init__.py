"""Tables and curves of finished runs: a table is made of typed cells, and drawn by a renderer."""

from alfm.report.cells import Table, TableCell
from alfm.report.curves import plot_curves
from alfm.report.terminal import print_summary

__all__ = ["Table", "TableCell", "plot_curves", "print_summary"]
