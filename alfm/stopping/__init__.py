"""When to stop labelling: rules that look at what each round shows, on NumPy arrays.

>>> from alfm import stopping
>>> rule = stopping.KappaPairs(window=3, threshold=0.99)
>>> reason = rule.update(predictions=[0, 1, 1])  # None, or a sentence

Names are loaded when first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alfm.lazy import lazy

if TYPE_CHECKING:
    from alfm.stopping.base import Rule
    from alfm.stopping.changing_confidence import ChangingConfidence
    from alfm.stopping.classification_change import ClassificationChange
    from alfm.stopping.coverage_gain import CoverageGain
    from alfm.stopping.delta_f import DeltaF
    from alfm.stopping.forecast import Forecast
    from alfm.stopping.kappa_average import KappaAverage
    from alfm.stopping.kappa_pairs import KappaPairs
    from alfm.stopping.labelling_budget import LabellingBudget
    from alfm.stopping.learning_curve import Outlook, outlook
    from alfm.stopping.max_confidence import MaxConfidence
    from alfm.stopping.max_rounds import MaxRounds
    from alfm.stopping.min_expected_error import MinExpectedError
    from alfm.stopping.overall_uncertainty import OverallUncertainty
    from alfm.stopping.performance_convergence import PerformanceConvergence
    from alfm.stopping.selected_accuracy import SelectedAccuracy
    from alfm.stopping.time_limit import TimeLimit
    from alfm.stopping.uncertainty_convergence import UncertaintyConvergence
    from alfm.stopping.variance import Variance

_HOMES = {
    "alfm.stopping.base": ("Rule",),
    "alfm.stopping.changing_confidence": ("ChangingConfidence",),
    "alfm.stopping.classification_change": ("ClassificationChange",),
    "alfm.stopping.coverage_gain": ("CoverageGain",),
    "alfm.stopping.delta_f": ("DeltaF",),
    "alfm.stopping.forecast": ("Forecast",),
    "alfm.stopping.kappa_average": ("KappaAverage",),
    "alfm.stopping.kappa_pairs": ("KappaPairs",),
    "alfm.stopping.labelling_budget": ("LabellingBudget",),
    "alfm.stopping.max_confidence": ("MaxConfidence",),
    "alfm.stopping.max_rounds": ("MaxRounds",),
    "alfm.stopping.min_expected_error": ("MinExpectedError",),
    "alfm.stopping.learning_curve": ("Outlook", "outlook"),
    "alfm.stopping.overall_uncertainty": ("OverallUncertainty",),
    "alfm.stopping.performance_convergence": ("PerformanceConvergence",),
    "alfm.stopping.selected_accuracy": ("SelectedAccuracy",),
    "alfm.stopping.time_limit": ("TimeLimit",),
    "alfm.stopping.uncertainty_convergence": ("UncertaintyConvergence",),
    "alfm.stopping.variance": ("Variance",),
}

__all__ = [
    "ChangingConfidence", "ClassificationChange", "CoverageGain", "DeltaF", "Forecast", "KappaAverage", "KappaPairs",
    "LabellingBudget", "MaxConfidence", "MaxRounds", "MinExpectedError", "Outlook", "OverallUncertainty",
    "PerformanceConvergence", "Rule", "SelectedAccuracy", "TimeLimit", "UncertaintyConvergence", "Variance", "outlook",
]  # fmt: skip

if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy(__name__, _HOMES)
