"""What the page says of how good the model is."""

from __future__ import annotations

import alfm
from alfm.labelling.page import measures as measured
from alfm.labelling.page.measures import measures


def test_lamps_are_looked_at_again_when_something_is_new(digits_cache, monkeypatch) -> None:
    learner = alfm.ActiveLearner(digits_cache, query_strategy="random", labels_in_cache="ignore")
    looked, lamps = [], measured.lamps
    monkeypatch.setattr(measured, "lamps", lambda *given: looked.append(given) or lamps(*given))
    lit, audited = measures(0.8)["lamps"], measures(0.8)["audit"]
    assert [lamp["state"] for lamp in lit(learner)] == ["not-yet"] * 3 and audited(learner) is None
    items = learner.ask(4)
    learner.tell(items[:3], ["a", "b", "a"])
    assert lit(learner)[0]["sentence"] == "There is no model yet." and len(looked) == 1  # in the middle of a batch
    learner.tell(items[3:], ["b"])
    learner.audit(2)
    learner.tell(learner.ask_audit(), ["a", "b"])
    assert [lamp["state"] for lamp in lit(learner)] == ["not-yet", "off", "not-yet"] and len(looked) == 2
    lit(learner)
    assert len(looked) == 2 and "2 audit labels" in audited(learner)
