"""What the page says about how good the model is, as plain data. None of it is a number without its sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alfm.labelling.audit import estimate

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner


def measures(target: float) -> dict[str, Callable[[ActiveLearner], Any]]:
    """Name -> what is called after a refit. target: the share of right predictions that is aimed at."""
    return {"lamps": lambda learner: not_yet(), "audit": audited}


def audited(learner: ActiveLearner) -> str | None:
    """What the audit says; None without one."""
    return str(estimate(learner)) if learner.state.window.size else None


def not_yet() -> list[dict[str, str]]:
    """Three lamps that are not lit."""
    names = ("Predictions are stable", "Good enough", "More labels are worth it")
    return [{"name": name, "state": "not-yet", "sentence": "Not yet: too little is labelled."} for name in names]
