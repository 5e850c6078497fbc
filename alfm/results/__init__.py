"""Run folders, and what follows from finished runs."""

from alfm.results.load import load_runs
from alfm.results.run_folder import RunFolder

__all__ = ["RunFolder", "load_runs"]
