"""A head whose options are chosen anew in each round, for each replicate, from the labels that there are.

Candidates are judged on labels that they were not trained on: those of cross-validation folds, or a validation set that
was paid for. What counts is the log-loss at its best temperature: accuracy is too coarse with few labels, and plain
log-loss looks for calibration, which cost up to two and a half points of accuracy (`benchmarks/tuning.py`). The head's
default is left only for one that is better by more than two standard errors: the best of seven is mostly luck.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.base import Classifier
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.views import on_all_views
from alfm.streams import stream
from alfm.threads import side_by_side

PER_CLASS = 3
"""Labels per class, below which nothing is chosen: folds would hold one of each."""

CERTAIN = 2.0
"""Standard errors by which another candidate must be better than the default. With one, four of 18 choices on cifar10
left it, and three of them for a worse head."""

TOGETHER = 1 << 18
"""Logits of the folds that are fitted as one batch on CPU."""

Options = Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """What was chosen for a seed's head of a round. score, default: accuracy on labels that it was not trained on, of
    what was chosen and of the head's default (NaN where nothing was tried); reason: why, in words."""

    seed: int
    round: int
    options: dict[str, float]
    score: float
    default: float
    reason: str


class Tried(NamedTuple):
    """How S candidates did on m items that they were not trained on: log-losses, each at the temperature that is best
    for all m, and hits, float64 (S, m)."""

    losses: np.ndarray
    hits: np.ndarray


Try = Callable[[Sequence[Options]], Tried]
"""Candidates -> how they did."""


class Search(Protocol):
    """Which candidates there are for a seed's head of a round, and how they did. space: option -> values to try."""

    def tried(
        self, seed: int, round: int, default: Options, space: Mapping[str, Sequence[float]], judge: Try
    ) -> tuple[list[Options], Tried]:
        """The candidates, `default` first, and how they did."""
        ...


@dataclass(frozen=True)
class Grid:
    """Every combination of the values."""

    def tried(
        self, seed: int, round: int, default: Options, space: Mapping[str, Sequence[float]], judge: Try
    ) -> tuple[list[Options], Tried]:
        """See `Search`."""
        every: list[Options] = [dict(zip(space, values, strict=True)) for values in product(*space.values())]
        candidates = [default, *(one for one in every if not _alike(one, default))]
        return candidates, judge(candidates)


@dataclass
class Tuned:
    """A classifier that chooses the options of another one. See `alfm.heads.base.Chooses`.

    space: option -> values; None: what the classifier itself says is worth trying. known: what has been chosen for a
    seed in a round, None where nothing has: it is taken as it is. choices: all that was chosen here, by seed and round.
    held_out: features (V, D) and classes (V,) that candidates are judged on instead of cross-validation folds.
    """

    classifier: Classifier
    search: Search = field(default_factory=Grid)
    folds: int = 5
    space: Mapping[str, Sequence[float]] | None = None
    known: Callable[[int, int], Choice | None] = lambda seed, round: None
    choices: dict[tuple[int, int], Choice] = field(default_factory=dict)
    held_out: tuple[Tensor, Tensor] | None = None

    def __post_init__(self) -> None:
        self._latest: dict[int, Choice] = {}
        self._own_held_out: dict[int, tuple[Tensor, Tensor]] = {}

    def judge_on(self, seed: int, rows: Tensor, targets: Tensor) -> None:
        """From now on a seed's candidates are judged on these pool rows, int64 (V,), or features (V, D), and their
        classes."""
        self._own_held_out[seed] = rows, targets

    def chosen(self, seed: int) -> Classifier:
        """The classifier with a seed's newest options, as its head was fitted."""
        return with_options(self.classifier, self._latest[seed].options) if seed in self._latest else self.classifier

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
        """See `Classifier`. Raises UserError for a classifier that has nothing to choose."""
        groups: dict[str, list[int]] = {}
        for r, choice in enumerate(self._choose(pool, rows, targets, num_classes, seeds, round)):
            self.choices[choice.seed, round] = self._latest[choice.seed] = choice
            groups.setdefault(json.dumps(choice.options, sort_keys=True), []).append(r)
        parts = []
        for group in groups.values():
            index = torch.tensor(group, device=rows.device)
            classifier = on_all_views(self.chosen(seeds[group[0]]), pool)
            parts.append(
                classifier.fit(
                    pool, rows[index], targets[index], num_classes, [seeds[r] for r in group], round,
                    None if weight is None else weight[index], None if previous is None else previous.of(group),
                )
            )  # fmt: skip
        order = np.argsort(np.concatenate(list(groups.values())))
        return parts[0] if len(parts) == 1 else LinearHead.joined(parts).of(order.tolist())

    def _choose(
        self, pool: Features, rows: Tensor, targets: Tensor, num_classes: int, seeds: Sequence[int], round: int
    ) -> list[Choice]:
        """One for each replicate; each depends on its own labels alone."""
        space = self.space if self.space is not None else space_of(self.classifier, num_classes)
        default = {name: default_of(self.classifier, name, num_classes) for name in space}
        found: dict[int, Choice] = {}
        asked: dict[int, list[_Fold]] = {}
        for r, seed in enumerate(seeds):
            valid = rows[r] >= 0
            here = self.known(seed, round)
            if here is not None:
                found[r] = dataclasses.replace(here, seed=seed, round=round)
                continue
            held = self._own_held_out.get(seed, self.held_out)
            labels = int(valid.sum()) if held is None else len(held[0])
            if labels < PER_CLASS * num_classes:
                few = f"kept: {labels} labels for {num_classes} classes, fewer than {PER_CLASS} per class"
                found[r] = Choice(seed, round, default, math.nan, math.nan, few)
            else:
                asked[r] = self._folds(rows[r, valid], targets[r, valid], held, seed, round)
        if asked:
            prepare(self.classifier, pool)

        def chosen(r: int) -> Choice:
            judge = partial(judged, self.classifier, pool, asked[r], num_classes, seeds[r], round)
            candidates, tried = self.search.tried(seeds[r], round, default, space, judge)
            best, why = choose(tried)
            scores = tried.hits.mean(1) if tried.hits.shape[1] else np.full(len(tried.hits), math.nan)
            return Choice(seeds[r], round, dict(candidates[best]), float(scores[best]), float(scores[0]), why)

        jobs = [partial(chosen, r) for r in asked]
        aside = isinstance(self.search, Grid) and isinstance(self.classifier, Logistic)  # a study has one writer
        done = side_by_side(jobs, pool.device) if aside and len(jobs) > 1 else [job() for job in jobs]
        found |= dict(zip(asked, done, strict=True))
        return [found[r] for r in range(len(seeds))]

    def _folds(
        self, rows: Tensor, targets: Tensor, held: tuple[Tensor, Tensor] | None, seed: int, round: int
    ) -> list[_Fold]:
        if held is not None:
            return [_Fold(rows, targets, *(one.to(rows.device) for one in held)).seen()]
        fold = torch.from_numpy(stratified(targets.cpu().numpy(), self.folds, stream(seed, round, "tuning folds")))
        fold = fold.to(rows.device)
        parts = ((fold != k, fold == k) for k in range(self.folds))
        return [_Fold(rows[own], targets[own], rows[out], targets[out]).seen() for own, out in parts]


class _Fold(NamedTuple):
    """Rows and classes to train on (n,), and to be judged on (m,), pool rows or features (m, D)."""

    rows: Tensor
    targets: Tensor
    asked: Tensor
    answers: Tensor

    def seen(self) -> _Fold:
        """Without items of a class that no training item has: no option can help them."""
        there = torch.isin(self.answers, self.targets)
        return self._replace(asked=self.asked[there], answers=self.answers[there])


def stratified(targets: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Fold of each item, int64 (n,): of each class the folds hold equally many, or one more."""
    order = rng.permutation(len(targets))
    order = order[np.argsort(targets[order], kind="stable")]
    fold = np.empty(len(targets), np.int64)
    fold[order] = np.arange(len(targets)) % folds
    return fold


def choose(tried: Tried) -> tuple[int, str]:
    """Which candidate, and why.

    The first one is left only for one whose loss is lower by more than CERTAIN standard errors of the difference, and
    that is not less accurate by more than a standard error.
    """
    if tried.losses.shape[1] < 2:
        return 0, "kept: fewer than two labels to judge on"
    gain, error = _paired(tried.losses[0] - tried.losses)
    hits, doubt = _paired(tried.hits - tried.hits[0])
    gain[hits < -doubt] = -math.inf
    best = int(gain.argmax())
    if gain[best] <= CERTAIN * error[best]:
        return 0, "kept: no other is better by more than chance would have it"
    return best, "chosen"


def _paired(differences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of (S, m), and their standard errors."""
    return differences.mean(1), differences.std(1, ddof=1) / math.sqrt(differences.shape[1])


def judged(
    classifier: Classifier,
    pool: Features,
    folds: Sequence[_Fold],
    num_classes: int,
    seed: int,
    round: int,
    candidates: Sequence[Options],
) -> Tried:
    """How candidates do on the folds' items, fold after fold.

    Strengths of a logistic head are fitted along a path, several folds as one batch while they are small; other
    candidates as so many replicates with the same seed.
    """
    answers = torch.cat([fold.answers for fold in folds])
    if isinstance(classifier, Logistic) and all(set(one) == {"strength"} for one in candidates):
        size = len(folds[0].rows) * num_classes
        many = devices.of(pool.device).at_once(len(folds), size, TOGETHER)
        many = -(-len(folds) // -(-len(folds) // many))  # 3 and 2 rather than 4 and 1
        order = np.argsort([one["strength"] for one in candidates], kind="stable")
        strengths = [candidates[i]["strength"] for i in order]
        jobs = [
            partial(_along, classifier, pool, folds[i : i + many], num_classes, strengths)
            for i in range(0, len(folds), many)
        ]
        logits = torch.cat(side_by_side(jobs, pool.device), 1)
        return scored(logits[torch.from_numpy(np.argsort(order))], answers)
    rows, targets = _together(folds)
    found = []
    for one in candidates:
        own = on_all_views(with_options(classifier, one), pool)
        head = own.fit(pool, rows, targets, num_classes, [seed] * len(folds), round)
        found.append(_logits(pool, folds, head))
    return scored(torch.stack(found), answers)


def _along(
    classifier: Logistic, pool: Features, folds: Sequence[_Fold], num_classes: int, strengths: Sequence[float]
) -> Tensor:
    """Logits (S, m, C). The folds are weightings of the same rows: one basis, and one product a step for all."""
    rows, place = torch.cat([fold.rows for fold in folds]).unique(return_inverse=True)
    targets = torch.empty_like(rows)
    targets[place] = torch.cat([fold.targets for fold in folds])
    own = torch.stack([torch.isin(rows, fold.rows) for fold in folds]).to(pool.dtype)
    rows, targets, weight = pool.training_rows(rows[None], targets[None], own)
    heads = classifier.along_strengths(pool, rows, targets, num_classes, strengths, weight)
    return torch.stack([_logits(pool, folds, head) for head in heads])


def _logits(pool: Features, folds: Sequence[_Fold], head: LinearHead) -> Tensor:
    """Logits (m, C) on the host of all folds' items, each under its own fold's head."""
    every = []
    for f, fold in enumerate(folds):
        x = fold.asked if fold.asked.is_floating_point() else pool.gather(fold.asked, plain=True)
        every.append(head.forward(x, f).cpu())
    return torch.cat(every)


def scored(logits: Tensor, answers: Tensor) -> Tried:
    """Logits (S, m, C) on the host and classes (m,): see `Tried`."""
    answers = answers.cpu()
    z = logits - logits.gather(2, answers.expand(len(logits), -1)[..., None])  # of the right class: 0
    spread = z.abs().median(2).values.mean(1).clamp_min(torch.finfo(z.dtype).tiny)  # its scale, roughly
    z = z / spread[:, None, None]
    low, high = torch.full_like(spread, -5.0), torch.full_like(spread, 5.0)  # of the inverse temperature's logarithm
    for _ in range(20):  # the loss is convex in it, and its slope is the mean of z under the model
        middle = (low + high) / 2
        slope = (torch.softmax(z * middle.exp()[:, None, None], 2) * z).sum(2).mean(1)
        low, high = torch.where(slope < 0, middle, low), torch.where(slope < 0, high, middle)
    losses = torch.logsumexp(z * high.exp()[:, None, None], 2)
    return Tried(losses.double().numpy(), (logits.argmax(2) == answers).double().numpy())


def _together(folds: Sequence[_Fold]) -> tuple[Tensor, Tensor]:
    """Training rows and classes of all folds, (F, n), padded with -1."""
    rows, targets = (
        torch.nn.utils.rnn.pad_sequence([fold[i] for fold in folds], batch_first=True, padding_value=-1)
        for i in range(2)
    )
    return rows, targets


def prepare(classifier: Classifier, pool: Features) -> None:
    """What is made once per pool, before jobs ask for it side by side."""
    if isinstance(classifier, Logistic):
        classifier.prepare(pool)


# -- options of a classifier -------------------------------------------------------------------------------------------


def space_of(classifier: Classifier, num_classes: int) -> Mapping[str, Sequence[float]]:
    """What is worth trying, as the classifier says itself. Raises UserError for one that says nothing."""
    told = getattr(classifier, "tuning_space", None)
    if told is None:
        raise UserError(
            f"tune=true: {type(classifier).__name__} does not say which of its options are worth choosing; say it with "
            "tune.space={OPTION:[VALUE,VALUE]}."
        )
    return told(num_classes)


def with_options(classifier: Classifier, options: Options) -> Classifier:
    """The same classifier with other options; a dotted name is an option of the classifier inside it."""
    own: dict[str, Any] = {}
    for name, value in options.items():
        outer, _, inner = name.partition(".")
        own[outer] = with_options(own.get(outer, getattr(classifier, outer)), {inner: value}) if inner else value
    made: Any = dataclasses.replace(cast(Any, classifier), **own)
    return cast(Classifier, made)


def default_of(classifier: Any, name: str, num_classes: int) -> float:
    """What an option is by default, as a number; where it has no default: what it is."""
    outer, _, inner = name.partition(".")
    known = {one.name: one for one in dataclasses.fields(classifier)} if dataclasses.is_dataclass(classifier) else {}
    if outer not in known:
        raise UserError(f"tune.space: {type(classifier).__name__} has no option {outer}; name one of its options.")
    if inner:
        return default_of(getattr(classifier, outer), inner, num_classes)
    default = known[outer].default
    value = getattr(classifier, outer) if default is dataclasses.MISSING else default
    if value == "auto":
        return float(dataclasses.replace(classifier, **{outer: "auto"}).inverse_l2(num_classes))
    try:
        return float(value)
    except (TypeError, ValueError):
        raise UserError(f"tune.space: {outer}={value} is no number, and only numbers can be chosen.") from None


def _alike(one: Options, other: Options) -> bool:
    return all(math.isclose(value, other[name], rel_tol=1e-9) for name, value in one.items())


def points(space: Mapping[str, Sequence[float]]) -> Iterator[tuple[str, float, float]]:
    """Option, its least and its largest value worth trying."""
    for name, values in space.items():
        yield name, min(values), max(values)
