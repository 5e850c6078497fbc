"""Tables and curves of finished runs."""

from alfm.report.curves import plot_curves

__all__ = ["plot_curves"]
