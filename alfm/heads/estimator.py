"""A head as a scikit-learn estimator: for pipelines, grids, cross-validation, and `classifier=` of `select_batch`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from alfm.devices import full_precision
from alfm.errors import UserError, nearest_names
from alfm.features.features import Features
from alfm.heads.adapter import Adapter
from alfm.heads.base import Classifier
from alfm.heads.dropout import Dropout
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.passes import logits_of
from alfm.heads.propagation import Propagated

NAMED: dict[str, Callable[[], Classifier]] = {
    "logistic": Logistic,
    "dropout": Dropout,
    "adapter": Adapter,
    "propagated": lambda: Propagated(Logistic()),
}


class HeadClassifier(ClassifierMixin, BaseEstimator):
    """Any classifier of this package by scikit-learn's rules.

        HeadClassifier("dropout").fit(x, y).predict_proba(x_new)

    classifier: a name as in `classifier=`, or a `Classifier`. seed: of what is drawn at random in a fit (`logistic`
    draws nothing). Features are scaled by the statistics of what `fit` was given, as a pool's are by the pool's.
    After `fit`: `classes_`, `n_features_in_`, and `head_`, the `LinearHead` (see `alfm.heads.export`). float64 features
    are computed in float64. Passes `sklearn.utils.estimator_checks.check_estimator`.
    """

    def __init__(self, classifier: str | Classifier = "logistic", seed: int = 0) -> None:
        self.classifier = classifier
        self.seed = seed

    @property
    def recipe(self) -> Classifier:
        """The classifier that `fit` fits with. Raises UserError for an unknown name."""
        if isinstance(self.classifier, str):
            if self.classifier not in NAMED:
                raise UserError(f"There is no classifier={self.classifier}: {nearest_names(self.classifier, [*NAMED])}")
            return NAMED[self.classifier]()
        return self.classifier

    @full_precision()
    def fit(self, X: Any, y: Any) -> Self:
        """X (n, D), finite numbers; y (n,) classes of any kind that sorts."""
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        pool = Features(_writable(X))
        rows, targets = torch.arange(len(X))[None], torch.from_numpy(codes.reshape(1, -1)).long()
        self.head_: LinearHead = self.recipe.fit(pool, rows, targets, len(self.classes_), [self.seed])
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Logits (n, C); of two classes the second's less the first's, (n,)."""
        logits = self._logits(X).numpy()
        return logits[:, 1] - logits[:, 0] if logits.shape[1] == 2 else logits

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities (n, C), columns as `classes_`."""
        return torch.softmax(self._logits(X), 1).numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The likeliest class of each item, (n,)."""
        best = self._logits(X).argmax(1).numpy()
        return self.classes_[best]

    @full_precision()
    def _logits(self, X: Any) -> Tensor:
        check_is_fitted(self)
        dtype = np.float64 if self.head_.weight.dtype == torch.float64 else np.float32
        X = validate_data(self, X, dtype=dtype, reset=False)
        return logits_of(Features(_writable(X)), self.head_, 0)


def _writable(X: np.ndarray) -> np.ndarray:
    """X, or a copy where torch could not share its memory."""
    return np.require(X, requirements="W")
