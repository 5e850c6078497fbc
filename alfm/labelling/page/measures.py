"""What the page says about how good the model is, as plain data. None of it is a number without its sentence."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from alfm.labelling.audit import AuditReport, estimate
from alfm.labelling.lamps import lamps

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner

NAMES = {"stable": "Predictions are stable", "advice": "Good enough", "gain": "More labels bring little"}
STATES = {True: "on", False: "off", None: "not-yet"}


def measures(target: float) -> dict[str, Callable[[ActiveLearner], Any]]:
    """Name -> what is called after a refit. target: the share of right predictions that is aimed at."""
    return {"lamps": Lit(target), "audit": audited}


def audited(learner: ActiveLearner) -> str | None:
    """What the audit says; None without one."""
    return str(estimate(learner)) if learner.state.window.size else None


class Lit:
    """The three lamps, looked at again when there is another model or another audit label."""

    def __init__(self, target: float) -> None:
        self.target = target
        self._of: AuditReport | None = None
        self._found: list[dict[str, str]] = []

    def __call__(self, learner: ActiveLearner) -> list[dict[str, str]]:
        now = estimate(learner)
        if now != self._of:
            self._of = now
            self._found = [
                {"name": NAMES[lamp.name], "state": STATES[lamp.on], "sentence": lamp.sentence}
                for lamp in lamps(learner, self.target)
            ]
        return self._found
