"""The next batch for arrays of one's own, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, overload

import numpy as np
import torch
from torch import Tensor

from alfm.config.parts import from_config
from alfm.config.paths import conf_dir
from alfm.devices import full_precision
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.passes import Draws
from alfm.heads.views import on_all_views
from alfm.one_shot.given import Labels, allowed_of, features_of, labels_of, log_probabilities
from alfm.one_shot.outside_model import OutsideDraws, OutsideHead, OutsideQuery, mean_log_p
from alfm.strategies.ask import ask_on_host
from alfm.strategies.base import Need, Strategy
from alfm.strategies.query import Query

WOULD_DO: dict[Need, str] = {
    "features": "margins, entropy, uncertainty, falcun, powermargins or powerentropy",
    "embedding": "margins, entropy, uncertainty, cluster_margin, uherding or tcm",
    "labels": "margins, entropy, badge, clue, uherding or typiclust",
    "probabilities": "random, typiclust, maxherding, probcover, coreset or uherding",
    "draws": "margins, entropy, uncertainty, badge, clue or uherding",
    "head": "margins, badge, clue, uherding, vessal or typiclust",
}
"""Where something is missing: strategies that do without it. Tests hold each of them to that."""


@overload
def select_batch(
    features: Any, labels: Any = ..., n: int = ..., query_strategy: str | Strategy = ..., *,
    probabilities: Any = ..., classifier: Any = ..., candidates: Any = ..., return_scores: Literal[False] = ...,
    seed: int = ..., round: int | None = ..., classes: Sequence[Any] | None = ..., num_classes: int | None = ...,
) -> np.ndarray: ...  # fmt: skip
@overload
def select_batch(
    features: Any, labels: Any = ..., n: int = ..., query_strategy: str | Strategy = ..., *,
    probabilities: Any = ..., classifier: Any = ..., candidates: Any = ..., return_scores: Literal[True],
    seed: int = ..., round: int | None = ..., classes: Sequence[Any] | None = ..., num_classes: int | None = ...,
) -> tuple[np.ndarray, np.ndarray]: ...  # fmt: skip
@full_precision()
def select_batch(
    features: Any,
    labels: Any = None,
    n: int = 1,
    query_strategy: str | Strategy = "uherding",
    *,
    probabilities: Any = None,
    classifier: Any = None,
    candidates: Any = None,
    return_scores: bool = False,
    seed: int = 0,
    round: int | None = None,
    classes: Sequence[Any] | None = None,
    num_classes: int | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Rows to label next, the most wanted first: int64 (B,), B = n or all that is left where that is less.

        rows = select_batch(embeddings, labels, 20, "uherding")  # with a head of ours
        rows = select_batch(embeddings, labels, 20, "badge", probabilities=model.predict_proba(x))
        rows = select_batch(None, None, 20, "margins", probabilities=p)
        rows, scores = select_batch(None, None, 20, "bald", probabilities=draws, return_scores=True)

    features: (N, D), NumPy, torch, a table or lists; on its device and in its precision. With `probabilities` it is
    your model's embedding of the items, what its last layer sees. None where `query_strategy` works without.
    labels: one for each item, None, NaN, -1 or "" where it is unknown: class numbers from 0 on, or names. None: nothing
    is labelled yet. Rows with a label are never picked.
    n: how many. query_strategy: a name as in `query_strategy=`, or a `Strategy`.

    Where predictions come from, one of three:
      - nothing given: a head of ours is fitted on the labelled rows by `classifier` (a name as in `classifier=`, or a
        `Classifier`; `logistic` by default). The picks are those of `Learner.ask` with this seed, in this round, after
        it was told the labelled rows in ascending order at once.
      - probabilities: your model's, (N, C), rows summing to 1; or (M, N, C) of M draws, each one model for all items,
        for the Bayesian strategies (bald, batchbald, dbal, epig, powerbald, qbc), whose `posterior` they stand for. To
        other strategies the mean of the draws is the prediction. No head of ours is fitted, so uherding takes
        them as calibrated. Columns are `classes`, or class numbers, or the labels' names in sorted order.
      - classifier: a scikit-learn classifier, which a clone of is fitted on the labelled rows, for strategies that need
        probabilities and no embedding.

    candidates: row numbers or a mask (N,): what may be picked; the others still count as part of the pool.
    return_scores: also the strategy's score of every item, float (N,), higher = sooner, NaN for those not to be picked.
    seed, round: address the random draws (round: 1 without labels, else 2). classes: what labels may be, in the order
    of columns. num_classes: C, where more classes are known than labels tell.

    Raises UserError, one sentence, for a strategy that needs what was not given, for scores of a strategy that has
    none, for strategies that look at hidden labels, and for arrays that do not fit together.
    """
    if not isinstance(n, (int, np.integer)) or isinstance(n, bool) or n < 1:
        raise UserError(f"n={n!r}: ask for a whole number of items, one or more.")
    for name, number, least in (("seed", seed, 0), ("round", round, 1)):
        if number is not None and (not isinstance(number, (int, np.integer)) or number < least):
            raise UserError(f"{name}={number!r}: give a whole number from {least} on.")
    strategy = strategy_of(query_strategy)
    if strategy.oracle:
        raise UserError(f"{strategy.name} looks at hidden labels, which only a simulation has; choose another.")
    if return_scores and not callable(getattr(strategy, "score", None)):
        raise UserError(f"{strategy.name} gives items no score of their own: leave return_scores out.")
    if probabilities is not None and classifier is not None:
        raise UserError("probabilities and classifier are two models: give one of the two.")
    pool = None if features is None else features_of(features)
    log_p = None
    if probabilities is not None:
        like = None if pool is None else torch.empty(0, dtype=pool.dtype, device=pool.device)
        log_p = log_probabilities(probabilities, None if pool is None else pool.N, like)
    N = _items(pool, log_p, labels)
    known = labels_of(labels, N, classes)
    C = _how_many(known, num_classes, log_p)
    outside = None if classifier is None else _of_scikit_learn(classifier)
    if outside is not None:
        _require(strategy, pool, known, None, "a scikit-learn classifier")
        assert pool is not None
        log_p = _fitted_elsewhere(outside, pool, known, C)
    elif log_p is not None:
        _require(strategy, pool, known, log_p, "probabilities")
    elif pool is None and strategy.needs != ():
        raise UserError(
            f"{strategy.name} works from features or from predictions: give features, or probabilities of your own "
            "model; without either, random would do."
        )
    if round is None:
        round = 2 if len(known.rows) else 1
    if pool is None:  # its strategy asks for none: as many items, which nobody looks at
        like = torch.empty(0) if log_p is None else log_p
        pool = Features(torch.zeros(N, 1, dtype=like.dtype, device=like.device), like.device)
    query = _query(strategy, pool, known, allowed_of(candidates, N, known.rows), C, seed, round, log_p, classifier)
    picks = ask_on_host(strategy, query, int(n))[0][0].numpy()
    if not return_scores:
        return picks
    scores = cast(Any, strategy).score(query)[0].double().cpu().numpy()
    return picks, np.where(query.available[0].cpu().numpy(), scores, np.nan)


def strategy_of(given: str | Strategy) -> Strategy:
    """A strategy by the name of its config, a cold start's where it is one only, or itself."""
    if isinstance(given, Strategy):
        return given
    if not isinstance(given, str):
        raise UserError(f"query_strategy must be a name or a Strategy, not {type(given).__name__}.")
    groups = ("query_strategy", "init_strategy")
    group = next((one for one in groups if (conf_dir() / one / f"{given}.yaml").is_file()), groups[0])
    return from_config(group, given)


def _items(pool: Features | None, log_p: Tensor | None, labels: Any) -> int:
    if pool is not None:
        return pool.N
    if log_p is not None:
        return log_p.shape[1]
    if labels is None:
        raise UserError("There are neither features nor probabilities nor labels: give what there is to pick from.")
    return len(labels)


def _how_many(known: Labels, num_classes: int | None, log_p: Tensor | None) -> int:
    """C, which columns of probabilities say where there are some."""
    if log_p is None:
        return max(known.classes, num_classes or 0, 2)
    C = log_p.shape[-1]
    if num_classes not in (None, C):
        raise UserError(f"num_classes={num_classes}, but the probabilities have {C} columns: leave num_classes out.")
    if known.names is not None and len(known.names) != C:
        raise UserError(
            f"The probabilities have {C} columns, but there are {len(known.names)} classes: say what each column is by "
            "classes=[...]."
        )
    if known.classes > C:
        row = known.rows[known.codes >= C][0]
        raise UserError(f"Row {row} has a label beyond the {C} columns of the probabilities: give a column for each.")
    return C


def _query(
    strategy: Strategy,
    pool: Features,
    known: Labels,
    allowed: np.ndarray,
    C: int,
    seed: int,
    round: int,
    log_p: Tensor | None,
    classifier: Any,
) -> Query:
    def there(x: np.ndarray) -> Tensor:
        return torch.from_numpy(x)[None].to(pool.device)

    rows, targets, available = there(known.rows), there(known.codes), there(allowed)
    if log_p is not None:
        head = cast(LinearHead, OutsideHead(mean_log_p(log_p)))
        given = cast(Draws, OutsideDraws(log_p)) if len(log_p) > 1 else None
        return OutsideQuery(pool, rows, targets, available, C, [seed], round, head, given=given)
    ours, fitted = on_all_views(_of_ours(classifier), pool), None
    asks = strategy.needs_head or strategy.needs is None or not set(strategy.needs) <= {"features", "labels"}
    if asks and len(known.rows):
        fitted = ours.fit(pool, rows, targets, C, [seed], round - 1)
    elif strategy.needs_head:
        _refuse(strategy, "labels" if "labels" in (strategy.needs or ()) else "probabilities", "probabilities")
    return Query(pool, rows, targets, available, C, [seed], round, fitted, ours)


# ---- models ---------------------------------------------------------------------------------------------------------


def _of_ours(classifier: Any) -> Classifier:
    if classifier is None or isinstance(classifier, str):
        return from_config("classifier", classifier or "logistic")
    ours = getattr(classifier, "recipe", classifier)  # what `alfm.heads.estimator` wraps
    if not isinstance(ours, Classifier):
        raise UserError(
            f"classifier must be a name, a Classifier of ours or a scikit-learn classifier, not "
            f"{type(classifier).__name__}."
        )
    return ours


def _of_scikit_learn(classifier: Any) -> Any:
    """The classifier if it is one of scikit-learn's kind, and no head of ours."""
    from sklearn.base import BaseEstimator

    from alfm.heads.estimator import HeadClassifier

    if isinstance(classifier, HeadClassifier) or not isinstance(classifier, BaseEstimator):
        return None
    if not hasattr(classifier, "predict_proba"):
        raise UserError(
            f"{type(classifier).__name__} has no predict_proba, which strategies work from: choose a classifier that "
            "gives probabilities, or wrap it in CalibratedClassifierCV."
        )
    return classifier


def _fitted_elsewhere(classifier: Any, pool: Features, known: Labels, C: int) -> Tensor:
    """Log probabilities (1, N, C) of a clone, fitted on the labelled rows with the labels as the user wrote them."""
    from sklearn.base import clone

    name = type(classifier).__name__
    if not len(known.rows):
        raise UserError(f"{name} is fitted on labelled rows, and there are none: give labels, or probabilities=.")
    x = pool.gather(torch.arange(pool.N, device=pool.device), plain=True).cpu().numpy()
    y = np.array(known.values.tolist())
    try:
        fitted = clone(classifier).fit(x[known.rows], y)
        found = np.asarray(fitted.predict_proba(x), np.float64)
    except UserError:
        raise
    except Exception as error:  # anybody's classifier
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{name} could not be fitted on {len(known.rows)} labelled rows: {why}") from error
    place = {value: code for value, code in zip(y.tolist(), known.codes.tolist(), strict=True)}
    p = np.zeros((pool.N, C))
    p[:, [place[value] for value in np.asarray(fitted.classes_).tolist()]] = found
    return log_probabilities(p, pool.N, torch.empty(0, dtype=pool.dtype, device=pool.device))


def _require(strategy: Strategy, pool: Features | None, known: Labels, log_p: Tensor | None, model: str) -> None:
    """Refuses a strategy that works from what a model from elsewhere did not bring."""
    needs = strategy.needs
    if needs is None:
        raise UserError(
            f"{strategy.name} does not say what it works from (Strategy.needs), so {model} cannot serve it: leave them "
            "out, or write `needs` into its class."
        )
    elsewhere = model != "probabilities"
    missing: dict[Need, bool] = {
        "head": True,
        "draws": log_p is None or len(log_p) == 1,
        "embedding": elsewhere or pool is None,
        "features": pool is None,
        "labels": not len(known.rows),
    }
    others: Need = "features" if pool is None else "embedding"  # which would do whatever else is there
    for need, absent in missing.items():
        if need in needs and absent:
            _refuse(strategy, need, others if elsewhere or pool is None else need, elsewhere)


def _refuse(strategy: Strategy, need: Need, others: Need, elsewhere: bool = False) -> None:
    give = {
        "features": "features: give them",
        "embedding": "your model's embedding: give it as features",
        "labels": "labelled rows: give labels",
        "probabilities": "predictions, and nothing is labelled: give labels, or probabilities of your own model",
        "draws": "draws of several models: give probabilities (M, N, C), or leave them out for draws of ours",
        "head": "the weights of a head of ours: leave your model's out, so that one is fitted",
    }
    if elsewhere:
        give["draws"] = "draws, which this classifier has not: give probabilities (M, N, C)"
        give["embedding"] = "an embedding, which this classifier has not: give probabilities, and features beside them"
        give["head"] = "the weights of a head of ours: leave your classifier out, so that one is fitted"
    raise UserError(f"{strategy.name} works from {give[need]}; without, {WOULD_DO[others]} would do.")
