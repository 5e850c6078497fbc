"""Test measures of replicates after each round, and areas under the budget curve.

A measure is one value, a `Metric` in `METRICS`: its name, its function, which direction is better and how it is shown.
Nothing else names it; a column of `rounds.csv`, `--metric` and the tables follow from there. All measures of
replicates are worked out on the device of their logits, one by one or several at once, and cross to the host in one
transfer; what several of them need is worked out once (`Outcome`), and what depends on the labels alone once per run
(`TestLabels`).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import get_ident
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # reports need the names below, not torch: it is imported where logits are at hand
    import torch

ECE_BINS = 15
_BLOCK = 1 << 22  # float64 numbers held per block: 32 MiB, whatever T and C are
_FEW = 1 << 20  # logits whose measures are launches more than work; what a graph of them holds is some times as much


@dataclass(frozen=True)
class _ClassBlock:
    """Classes whose ROC areas are found together.

    `classes` int64 (k,), or None for "all of them"; `positives` int64 (k, P): rows of each class's positives, padded
    with row 0; `padding` bool (k, P); `num_positive`, `num_negative` float64 (k,).
    """

    classes: torch.Tensor | None
    positives: torch.Tensor
    padding: torch.Tensor
    num_positive: torch.Tensor
    num_negative: torch.Tensor


@dataclass(frozen=True)
class TestLabels:
    """What the measures need of the test labels, made once: `TestLabels.prepare(labels, num_classes)`.

    `labels` int64 (T,); `counts` float64 (C,); `present` bool (C,); `blocks`: the classes with both positives and
    negatives, cut so that a block's (k, T) columns stay within a fixed number of bytes.
    """

    __test__ = False  # not a pytest class, whatever the name says

    labels: torch.Tensor
    counts: torch.Tensor
    present: torch.Tensor
    num_present: int
    blocks: tuple[_ClassBlock, ...]

    @cached_property
    def graphs(self) -> dict[Hashable, tuple[torch.Tensor, torch.Tensor, Callable[[], None]]]:
        """Of `_measures_again`: thread, device, shape and dtype -> logits, their measures, and what finds these."""
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "graphs"}

    @classmethod
    def prepare(cls, labels: torch.Tensor, num_classes: int) -> TestLabels:
        """`labels` int64 (T,), all within [0, num_classes); raises ValueError otherwise or when T = 0."""
        import torch

        if labels.ndim != 1 or not len(labels):
            raise ValueError(f"test labels must be a non-empty vector, got shape {tuple(labels.shape)}")
        host = labels.detach().cpu().numpy().astype(np.int64)
        if host.min() < 0 or host.max() >= num_classes:
            raise ValueError(f"test labels must lie in [0, {num_classes}), got {host.min()} to {host.max()}")
        counts = np.bincount(host, minlength=num_classes)
        by_class = np.argsort(host, kind="stable")
        start = np.concatenate([[0], np.cumsum(counts)])
        # largest classes first: a block is padded to its largest class
        scored = np.flatnonzero((counts > 0) & (counts < len(host)))
        scored = scored[np.argsort(-counts[scored], kind="stable")]
        per_block = max(1, _BLOCK // len(host))
        device = labels.device
        blocks = []
        for first in range(0, len(scored), per_block):
            classes = scored[first : first + per_block]
            whole = len(classes) == num_classes
            if whole:  # one block of every class needs no column selection
                classes = np.arange(num_classes)
            size = counts[classes]
            slot = np.arange(size.max())[None, :]
            padding = slot >= size[:, None]
            positives = np.where(padding, 0, by_class[np.where(padding, 0, start[classes][:, None] + slot)])
            blocks.append(
                _ClassBlock(
                    None if whole else torch.from_numpy(classes).to(device),
                    torch.from_numpy(positives).to(device),
                    torch.from_numpy(padding).to(device),
                    torch.from_numpy(size.astype(np.float64)).to(device),
                    torch.from_numpy((len(host) - size).astype(np.float64)).to(device),
                )
            )
        return cls(
            labels.to(torch.int64),
            torch.from_numpy(counts.astype(np.float64)).to(device),
            torch.from_numpy(counts > 0).to(device),
            int((counts > 0).sum()),
            tuple(blocks),
        )


@dataclass(frozen=True)
class Scale:
    """How a number is shown: times `factor`, with `digits` after the point, in `unit`; sign="+": with its sign."""

    factor: float = 1
    digits: int = 0
    unit: str = ""
    sign: str = ""

    def text(self, value: float) -> str:
        """Without the unit, which stands once, above the column."""
        return f"{self.factor * value:{self.sign}.{self.digits}f}"


PERCENT = Scale(100, 1, "%")
PLAIN = Scale(1, 3)


@dataclass(frozen=True)
class Metric:
    """A measure: `function` takes an `Outcome` and returns one number for each of its replicates, best a float64 (..)
    on its device; NaN where it is not defined."""

    name: str
    function: Callable[[Outcome], torch.Tensor | float]
    higher_is_better: bool = True
    scale: Scale = PERCENT

    @property
    def sign(self) -> int:
        """1 where a higher value is better, else -1."""
        return 1 if self.higher_is_better else -1


class Outcome:
    """Logits on the test items, and what follows from them, worked out when it is first asked for.

    `logits`: floating (.., T, C), of one replicate or with several in front; `test`: the labels, prepared.
    """

    def __init__(self, logits: torch.Tensor, test: TestLabels) -> None:
        self.logits, self.test = logits, test

    @cached_property
    def _largest(self) -> tuple[torch.Tensor, torch.Tensor]:
        values, classes = self.logits.max(dim=-1)  # torch.max promises the first of equal maxima
        return values.double(), classes

    @property
    def top(self) -> torch.Tensor:
        """The largest logit, float64 (.., T)."""
        return self._largest[0]

    @property
    def predicted(self) -> torch.Tensor:
        """Its class, int64 (.., T); of equal ones the lowest."""
        return self._largest[1]

    @cached_property
    def hit(self) -> torch.Tensor:
        """Is the predicted class the label? bool (.., T)."""
        return self.predicted == self.test.labels

    @cached_property
    def _sums(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        import torch

        total, num_classes = self.logits.shape[-2:]
        log_sum = torch.empty_like(self.top)
        shifted = None
        step = max(1, _BLOCK // num_classes)
        for first in range(0, total, step):
            part = slice(first, first + step)
            shifted = self.logits[..., part, :].double() - self.top[..., part, None]
            log_sum[..., part] = shifted.exp().sum(dim=-1).log_()
        return log_sum, shifted if step >= total else None

    @property
    def log_sum(self) -> torch.Tensor:
        """float64 (.., T): log p = (logits - top) - log_sum."""
        return self._sums[0]

    @property
    def shifted(self) -> torch.Tensor | None:
        """Logits minus `top`, float64 (.., T, C), where they fit one block."""
        return self._sums[1]

    @cached_property
    def confidence(self) -> torch.Tensor:
        """The largest probability, float64 (.., T)."""
        return (-self.log_sum).exp()

    @cached_property
    def true_positive(self) -> torch.Tensor:
        """Items of each class that are predicted so, float64 (.., C)."""
        return self._counted(self.test.labels.expand_as(self.predicted), self.hit.long())

    @cached_property
    def called(self) -> torch.Tensor:
        """How often each class is predicted, float64 (.., C)."""
        import torch

        return self._counted(self.predicted, torch.ones_like(self.predicted))

    def _counted(self, classes: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Sums of whole weights by class, both int64 (.., T): float64 (.., C)."""
        import torch

        zeros = torch.zeros((*classes.shape[:-1], len(self.test.counts)), dtype=torch.int64, device=classes.device)
        return zeros.scatter_add_(-1, classes, weight).double()

    def over_present(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over the classes that the labels hold: float64 (.., C) -> (..)."""
        # absent classes are masked: indexing with `present` would wait for the device
        return (values * self.test.present).sum(-1) / self.test.num_present


def accuracy(of: Outcome) -> torch.Tensor:
    """Of the class with the largest logit (ties: the lower class)."""
    return of.hit.double().mean(-1)


def balanced_accuracy(of: Outcome) -> torch.Tensor:
    """Mean recall over the classes present in the labels (Brodersen et al. 2010), as in scikit-learn."""
    return of.over_present(of.true_positive / of.test.counts.clamp(min=1))


def macro_f1(of: Outcome) -> torch.Tensor:
    """Mean F1 over the classes present in the labels: scikit-learn's `f1_score(average="macro", labels=<classes
    present>, zero_division=0)`."""
    return of.over_present(2 * of.true_positive / (of.called + of.test.counts).clamp(min=1))


def macro_auroc(of: Outcome) -> torch.Tensor:
    """Mean one-vs-rest area over classes with both positives and negatives, ties counted half (the Mann-Whitney form,
    Hanley & McNeil 1982); NaN if there is no such class. Ranked by log p: the order of p, but small probabilities that
    would underflow stay apart."""
    return _macro_auroc(of.logits, of.shifted, of.top, of.log_sum, of.test)


def nll(of: Outcome) -> torch.Tensor:
    """Mean negative log-likelihood, in nats."""
    labels = of.test.labels.expand_as(of.predicted)
    own = of.logits.gather(-1, labels[..., None]).squeeze(-1).double()
    return (of.log_sum - (own - of.top)).mean(-1)


def ece(of: Outcome) -> torch.Tensor:
    """Expected calibration error with 15 equal-width bins, closed on the right, on the largest probability (Guo et al.
    2017, arXiv 1706.04599, eq. 3)."""
    return calibration_error(of.confidence, of.hit)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("accuracy", accuracy),
        Metric("balanced_accuracy", balanced_accuracy),
        Metric("macro_f1", macro_f1),
        Metric("macro_auroc", macro_auroc),
        Metric("nll", nll, higher_is_better=False, scale=PLAIN),
        Metric("ece", ece, higher_is_better=False),
    )
}
"""What is measured after every round, in the order of the columns of `rounds.csv`."""
LOWER_IS_BETTER = frozenset(name for name, metric in METRICS.items() if not metric.higher_is_better)
"""Among this version's own metrics: the name that users of 0.1.0 know."""


def evaluate(logits: torch.Tensor, labels: torch.Tensor, prepared: TestLabels | None = None) -> dict[str, float]:
    """The measures of ONE replicate; see `evaluate_all`."""
    return evaluate_all([logits], labels, prepared)[0]


def evaluate_all(
    logits: Iterable[torch.Tensor], labels: torch.Tensor, prepared: TestLabels | None = None
) -> list[dict[str, float]]:
    """The measures of several replicates, each computed as if alone, with one transfer to the host for all.

    `logits`: floating (T, C) per replicate (an (R, T, C) tensor will do, and so will a generator that makes one at
    a time), or (R', T, C) for several, which are then measured together, in few launches on a GPU; `labels` int64 (T,)
    on the same device, unlabelled rows left out by the caller; `prepared`: these labels' `TestLabels`. Returns one
    dictionary per replicate with the keys of `METRICS`, as fractions (not percent) except `nll` in nats.

    Raises ValueError for shapes that do not fit, for labels outside the classes and for NaN or +Inf logits. Costs
    O(T C log T) and, beside the logits, 32 MiB blocks.
    """
    import torch

    from alfm import devices

    rows = []
    for one in logits:
        if one.ndim not in (2, 3) or one.shape[-2] != len(labels):
            raise ValueError(f"logits {tuple(one.shape)} do not fit {len(labels)} labels: want (T, C)")
        if prepared is None:
            prepared = TestLabels.prepare(labels, one.shape[-1])
        if one.shape[-1] != len(prepared.counts):
            raise ValueError(f"{one.shape[-1]} classes, but labels were prepared for {len(prepared.counts)}")
        again = one.ndim == 3 and one.numel() <= _FEW and not devices.of(one).looks_are_free
        measures = _measures_again if again else _measures
        rows.append(measures(one.detach(), prepared).view(-1, len(METRICS) + 1))
    if not rows:
        return []
    found = []
    for replicate, (*numbers, check) in enumerate(torch.cat(rows).tolist()):
        if check != check:
            raise ValueError(f"logits of replicate {replicate} hold NaN or Inf")
        found.append(dict(zip(METRICS, numbers, strict=True)))
    return found


def _measures_again(logits: torch.Tensor, test: TestLabels) -> torch.Tensor:
    """`_measures` of several replicates, round after round of the same shape: on a GPU a graph, which is kept."""
    import torch

    from alfm import devices

    kind = get_ident(), logits.device, logits.shape, logits.dtype
    if kind in test.graphs:
        held, found, again = test.graphs[kind]
        held.copy_(logits)
        again()
        return found.clone()
    with torch.inference_mode(False):  # they outlive whatever mode this is called in
        held = logits.clone()
        found = held.new_empty((*logits.shape[:-2], len(METRICS) + 1), dtype=torch.float64)

    def step() -> None:
        found.copy_(_measures(held, test))

    again = devices.of(logits).repeated(step)
    test.graphs[kind] = held, found, again
    return found.clone()


def _measures(logits: torch.Tensor, test: TestLabels) -> torch.Tensor:
    """float64 (.., len(METRICS) + 1) on the device: every measure, and what is NaN where a logit is NaN or Inf."""
    import torch

    of = Outcome(logits, test)
    check = of.log_sum.sum(-1)
    numbers = [metric.function(of) for metric in METRICS.values()]
    return torch.stack(
        [torch.as_tensor(x, dtype=check.dtype, device=check.device).expand_as(check) for x in numbers] + [check], -1
    )


def _macro_auroc(
    logits: torch.Tensor,
    shifted: torch.Tensor | None,
    top: torch.Tensor,
    log_sum: torch.Tensor,
    test: TestLabels,
) -> torch.Tensor:
    """Mean one-vs-rest area, float64 (..). `shifted`: float64 (.., T, C) logits minus `top` when they fit one block.

    Only positives need a rank, counted from both sides so that a tie counts half.
    """
    if not test.blocks:
        return top.new_full(top.shape[:-1], float("nan"))
    areas, scored = top.new_zeros(top.shape[:-1]), 0
    for block in test.blocks:
        if shifted is not None:
            columns = shifted if block.classes is None else shifted[..., block.classes]
        else:
            columns = logits if block.classes is None else logits[..., block.classes]
            columns = columns.double() - top[..., None]
        columns = (columns - log_sum[..., None]).mT.contiguous()  # (.., k, T) log p
        queries = columns.gather(-1, block.positives.expand(*top.shape[:-1], -1, -1))
        ranks = _twice_ranks(columns, queries, block.padding)
        twice = ranks.masked_fill_(block.padding, 0).sum(dim=-1).double()
        # among the positives themselves, pairs and selves come to P^2 / 2
        wins = (twice - block.num_positive.square()) / 2
        areas = areas + (wins / (block.num_positive * block.num_negative)).sum(-1)
        scored += len(block.num_positive)
    return areas / scored


def _twice_ranks(columns: torch.Tensor, queries: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """How many values of its row lie below each query, plus how many do not lie above: int64 (.., k, P).

    `columns` float64 (.., k, T), `queries` float64 (.., k, P) out of the same rows, `padding` bool (k, P): those that
    do not matter. Rows are sorted and queries looked up. On a CPU, where there is one replicate, numpy's vectorised
    sort takes them in float32, at half the time: rounding keeps the order, so a query that is alone at its rounded
    value has its exact rank, and the few that are not are counted. (A GPU would have to wait to learn which those are.)
    """
    import torch

    from alfm import devices

    if columns.ndim == 2 and devices.of(columns).looks_are_free:
        rounded = columns.float()
        rounded.numpy().sort(axis=1)
        below = torch.searchsorted(rounded, queries.float())
        ranks = below + torch.searchsorted(rounded, queries.float(), right=True)
        row, column = ((ranks - 2 * below > 1) & ~padding).nonzero(as_tuple=True)
        if len(row) <= len(columns):  # else there are many true ties, and sorting is the shorter way
            crowd, query = columns[row], queries[row, column, None]
            ranks[row, column] = (crowd < query).sum(dim=1) + (crowd <= query).sum(dim=1)
            return ranks
        ordered = torch.from_numpy(np.sort(columns.numpy(), axis=1))
    else:
        ordered = columns.sort(dim=-1).values
    return torch.searchsorted(ordered, queries) + torch.searchsorted(ordered, queries, right=True)


def calibration_error(confidence: torch.Tensor, hit: torch.Tensor) -> torch.Tensor:
    """Expected calibration error: confidence float64 (.., T), hit bool (T,) -> float64 (..).

    ECE_BINS equal bins, closed on the right. Sums by mask, so that a GPU repeats its last bit too: ECE_BINS numbers of
    memory for each of confidence.
    """
    import torch

    inner = torch.arange(1, ECE_BINS, dtype=torch.float64, device=confidence.device) / ECE_BINS
    of_item = torch.bucketize(confidence, inner)[..., None, :]
    in_bin = of_item == torch.arange(ECE_BINS, device=confidence.device)[:, None]
    gap = (hit.double() - confidence)[..., None, :]
    return (gap * in_bin).sum(dim=-1).abs().sum(dim=-1) / confidence.shape[-1]


def area_under_budget_curve(
    values: Sequence[float] | np.ndarray, num_labeled: Sequence[int] | np.ndarray, over: str = "rounds"
) -> float:
    """Area under one replicate's learning curve (AUBC; Zhan et al. 2021), in the unit of `values`.

    `values` (rounds,) and `num_labeled` (rounds,), strictly increasing. `over="rounds"`: trapezoids of width
    1 / (rounds - 1); `over="labels"`: trapezoids over the labels, divided by b_T - b_0. The two differ when the
    budget does not grow evenly. One round alone: its value. Raises ValueError for empty or unfitting input.
    """
    curve = np.asarray(values, dtype=np.float64)
    budget = np.asarray(num_labeled, dtype=np.float64)
    if curve.ndim != 1 or curve.shape != budget.shape or not len(curve):
        raise ValueError(f"want two vectors of one length, got {curve.shape} and {budget.shape}")
    if (np.diff(budget) <= 0).any():
        raise ValueError("num_labeled must increase from round to round")
    if over not in ("rounds", "labels"):
        raise ValueError(f'over must be "rounds" or "labels", not {over!r}')
    if over == "rounds" or len(curve) == 1:
        return float(areas_over_rounds(curve))
    return float(np.trapezoid(curve, budget) / (budget[-1] - budget[0]))


def areas_over_rounds(curves: np.ndarray) -> np.ndarray:
    """`area_under_budget_curve` over rounds of many curves at once, float64 (..., rounds) -> (...)."""
    rounds = curves.shape[-1]
    return curves[..., 0] if rounds == 1 else np.trapezoid(curves, axis=-1) / (rounds - 1)
