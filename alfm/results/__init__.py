"""Run folders, and what follows from finished runs: which may be compared, their numbers, and tests of them."""

from alfm.results.load import load_picks, load_runs, load_stops
from alfm.results.pairing import Curves, paired_curves
from alfm.results.run_folder import RunFolder
from alfm.results.setting import Setting, settings_of, summary

__all__ = [
    "Curves",
    "RunFolder",
    "Setting",
    "load_picks",
    "load_runs",
    "load_stops",
    "paired_curves",
    "settings_of",
    "summary",
]
