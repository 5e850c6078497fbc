"""Labels that the model contradicts with confidence: worth a second look.

Confident learning (Northcutt, Jiang & Chuang 2021, 1911.00068) on probabilities out of fold, from the learner's own
kind of head. The confident joint counts labels against classes: an item counts as the class of its largest probability
among those of which it has at least as much as, on average, the items that people called so. It estimates how many
labels of each class are wrong; so many of the class's items with the least probability of it are disputed, where
another class has more ("prune by class": of the paper's rules the one that left out fewest planted mistakes).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.views import on_all_views
from alfm.streams import integer, stream

if TYPE_CHECKING:
    from alfm.labelling.active_learner import ActiveLearner

FOLDS = 5


@dataclass(frozen=True)
class Disputed:
    """An item whose label a head that has not seen it contradicts.

    probability: of the label, lowest for what is most likely wrong; suggestion: the class that has the largest, and
    confidence: how large that is.
    """

    item: str
    label: str
    probability: float
    suggestion: str
    confidence: float


def disputed(learner: ActiveLearner, folds: int = FOLDS) -> list[Disputed]:
    """Labels to look at again, the most doubtful first; empty while there are too few to tell.

    Of what is trained on alone: audit labels that were corrected only where the model disagrees would flatter it.
    """
    with learner.still() as state:
        training, names, items, seed = (
            learner.training_set(),
            state.training_classes,
            state.items,
            state.settings["seed"],
        )
    if not training.rows:
        return []
    rows, targets = torch.tensor(training.rows), torch.tensor(training.targets)
    probabilities, judged = out_of_fold(
        learner.features, rows, targets, max(len(names), 2), learner.classifier, seed, folds
    )
    given = targets.numpy()
    doubtful = np.zeros(len(given), bool)
    doubtful[judged] = contradicted(probabilities[judged], given[judged])
    found = [
        Disputed(
            items[training.rows[i]], names[given[i]], float(probabilities[i, given[i]]),
            names[int(probabilities[i].argmax())], float(probabilities[i].max()),
        )
        for i in np.flatnonzero(doubtful).tolist()
    ]  # fmt: skip
    return sorted(found, key=lambda one: one.probability)


def contradicted(probabilities: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Which labels are disputed, bool (n,).

    probabilities: float64 (n, C) of heads that have not seen the item; given: int64 (n,), its label.
    """
    n, C = probabilities.shape
    own = probabilities[np.arange(n), given]
    counts = np.bincount(given, minlength=C)
    usual = np.where(counts > 0, np.bincount(given, own, minlength=C) / np.maximum(counts, 1), np.inf)
    sure = np.where(probabilities >= usual, probabilities, -1.0)
    counted = sure.max(1, initial=-1.0) >= 0
    joint = np.zeros((C, C))
    np.add.at(joint, (given[counted], sure[counted].argmax(1)), 1)
    np.fill_diagonal(joint, joint.diagonal().clip(1))  # a class is never wrong throughout
    wrong = np.round(counts * (1 - joint.diagonal() / joint.sum(1))).astype(int)
    order = np.lexsort((own, given))  # by class, the least probable first
    place = np.empty(n, np.int64)
    place[order] = np.arange(n) - (np.cumsum(counts) - counts)[given[order]]
    return (place < wrong[given]) & (own < probabilities.max(1, initial=0.0))


def out_of_fold(
    pool: Features,
    rows: Tensor,
    targets: Tensor,
    num_classes: int,
    classifier: Classifier,
    seed: int = 0,
    folds: int = FOLDS,
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities float64 (n, C) of each labelled item from a head fitted without its fold; bool (n,): which count.

    rows, targets: int64 (n,), on the pool's device. Folds hold equally many of each class, drawn by seed, and are
    fitted side by side. An item whose class has no label outside its fold is not judged: no head without it knows the
    class.
    """
    rows, targets = rows.to(pool.device), targets.to(pool.device)
    given = targets.cpu().numpy()
    fold = folds_of(given, folds, seed)
    parts = [np.flatnonzero(fold != k) for k in range(folds)]
    judged = np.zeros(len(given), bool)
    for k, part in enumerate(parts):
        known = np.unique(given[part])
        judged[fold == k] = np.isin(given[fold == k], known) & (len(known) > 1)
    probabilities = np.zeros((len(given), num_classes))
    fitted = [k for k, part in enumerate(parts) if judged[fold == k].any()]
    if not fitted:
        return probabilities, judged
    index = torch.nn.utils.rnn.pad_sequence(
        [torch.from_numpy(parts[k]) for k in fitted], batch_first=True, padding_value=-1
    ).to(pool.device)
    kept = index >= 0
    head = on_all_views(classifier, pool).fit(
        pool, rows[index.clamp_min(0)].where(kept, -1), targets[index.clamp_min(0)].where(kept, -1), num_classes,
        [integer(seed, k, "fold") for k in fitted],
    )  # fmt: skip
    for r, k in enumerate(fitted):
        held = torch.from_numpy(np.flatnonzero(fold == k)).to(pool.device)
        logits = head.logits(pool.vectors(head.spaces[r]).rows(rows[held], plain=True), r)
        probabilities[fold == k] = torch.softmax(logits.double(), 1).cpu().numpy()
    return probabilities, judged


def folds_of(given: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each item, int64 (n,) in [0, folds): each class dealt out in turn, in random order."""
    order = stream(seed, 0, "folds").permutation(len(given))
    order = order[np.argsort(given[order], kind="stable")]
    fold = np.empty(len(given), np.int64)
    fold[order] = np.arange(len(given)) % folds
    return fold
