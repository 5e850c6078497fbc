"""Heads that train on the augmented views of their items, wherever they are fitted: in a round or in a strategy."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from alfm.features.features import Features
from alfm.heads.base import Chooses, Classifier, Reweighted
from alfm.heads.linear import LinearHead


def on_all_views(classifier: Classifier, pool: Features) -> Classifier:
    """`classifier`, or where the pool holds views one that gives each labelled item's views to it.

    The learner fits its heads with it and hands it to the strategies, so no refit can leave the views out. A
    classifier that says it `chooses_views` finds them itself, given plain items.
    """
    if pool.views is None or isinstance(classifier, Chooses) or getattr(classifier, "chooses_views", False):
        return classifier
    return ReweightedOnViews(classifier) if isinstance(classifier, Reweighted) else OnViews(classifier)


class OnViews:
    """A classifier fitted on all views of the rows that it is given; see `Features.training_rows`."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier

    def fit(
        self,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        num_classes: int,
        seeds: Sequence[int],
        round: int = 0,
        weight: Tensor | None = None,
        previous: LinearHead | None = None,
    ) -> LinearHead:
        """See `Classifier`."""
        rows, targets, weight = pool.training_rows(rows, targets, weight)
        return self.classifier.fit(pool, rows, targets, num_classes, seeds, round, weight, previous)


class ReweightedOnViews(OnViews):
    """The same for a classifier that fits many heads on the same rows."""

    classifier: Reweighted  # type: ignore[assignment]  # both: `on_all_views` has seen to it

    def fit_reweighted(
        self, pool: Features, rows: Tensor, targets: Tensor, num_classes: int, weight: Tensor, start: LinearHead
    ) -> LinearHead:
        """See `Reweighted`."""
        rows, targets, share = pool.training_rows(rows, targets, weight)
        assert share is not None
        return self.classifier.fit_reweighted(pool, rows, targets, num_classes, share, start)
