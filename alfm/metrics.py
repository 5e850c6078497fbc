"""Test measures of one replicate after each round, and areas under the budget curve.

All six measures of a replicate are worked out on the device of its logits and cross to the host in one transfer.
What depends on the labels alone is prepared once per run (`TestLabels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # reports need the names below, not torch: it is imported where logits are at hand
    import torch

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "nll", "ece")
LOWER_IS_BETTER = frozenset({"nll", "ece"})
ECE_BINS = 15
_BLOCK = 1 << 22  # float64 numbers held per block: 32 MiB, whatever T and C are


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


def evaluate(logits: torch.Tensor, labels: torch.Tensor, prepared: TestLabels | None = None) -> dict[str, float]:
    """The measures of ONE replicate; see `evaluate_all`."""
    return evaluate_all([logits], labels, prepared)[0]


def evaluate_all(
    logits: Iterable[torch.Tensor], labels: torch.Tensor, prepared: TestLabels | None = None
) -> list[dict[str, float]]:
    """The measures of several replicates, each computed as if alone, with one transfer to the host for all.

    `logits`: floating (T, C) per replicate (an (R, T, C) tensor will do, and so will a generator that makes one at
    a time); `labels` int64 (T,) on the same device, unlabelled rows left out by the caller; `prepared`: these
    labels' `TestLabels`. Returns one dictionary per replicate with the keys of `METRICS`, as fractions (not
    percent) except `nll` in nats:

    - `accuracy`, of the class with the largest logit (ties: the lower class);
    - `balanced_accuracy`, mean recall over the classes present in the labels (Brodersen et al. 2010), as in
      scikit-learn;
    - `macro_f1`, mean F1 over the classes present in the labels: scikit-learn's
      `f1_score(average="macro", labels=<classes present>, zero_division=0)`;
    - `macro_auroc`, mean one-vs-rest area over classes with both positives and negatives, ties counted half (the
      Mann-Whitney form, Hanley & McNeil 1982); NaN if there is no such class. Ranked by log p: the order of p, but
      small probabilities that would underflow stay apart;
    - `nll`, mean negative log-likelihood;
    - `ece`, expected calibration error with 15 equal-width bins, closed on the right, on the largest probability
      (Guo et al. 2017, arXiv 1706.04599, eq. 3).

    Raises ValueError for shapes that do not fit, for labels outside the classes and for NaN or +Inf logits. Costs
    O(T C log T) and, beside the logits, 32 MiB blocks.
    """
    import torch

    rows = []
    for one in logits:
        if one.ndim != 2 or len(one) != len(labels):
            raise ValueError(f"logits {tuple(one.shape)} do not fit {len(labels)} labels: want (T, C)")
        if prepared is None:
            prepared = TestLabels.prepare(labels, one.shape[1])
        if one.shape[1] != len(prepared.counts):
            raise ValueError(f"{one.shape[1]} classes, but labels were prepared for {len(prepared.counts)}")
        rows.append(_measures(one.detach(), prepared))
    if not rows:
        return []
    numbers = torch.stack(rows).tolist()
    nll = METRICS.index("nll")
    for replicate, row in enumerate(numbers):
        if row[nll] != row[nll]:
            raise ValueError(f"logits of replicate {replicate} hold NaN or Inf")
    return [dict(zip(METRICS, row, strict=True)) for row in numbers]


def _measures(logits: torch.Tensor, test: TestLabels) -> torch.Tensor:
    """logits (T, C) -> float64 (6,) on the same device, in the order of `METRICS`."""
    import torch

    total, num_classes = logits.shape
    top, predicted = logits.max(dim=1)  # torch.max promises the first of equal maxima
    top = top.double()
    # log p = (logit - top) - log_sum
    log_sum = torch.empty_like(top)
    shifted = None
    step = max(1, _BLOCK // num_classes)
    for first in range(0, total, step):
        shifted = logits[first : first + step].double() - top[first : first + step, None]
        log_sum[first : first + step] = shifted.exp().sum(dim=1).log_()
    whole = shifted if step >= total else None

    hit = predicted == test.labels
    ones = torch.ones_like(predicted)
    zeros = torch.zeros(num_classes, dtype=torch.int64, device=logits.device)
    true_positive = zeros.scatter_add(0, test.labels, hit.to(torch.int64)).double()
    called = zeros.scatter_add(0, predicted, ones).double()
    # absent classes divide by one and are masked: indexing with `present` would wait for the device
    recall = true_positive / test.counts.clamp(min=1)
    f1 = 2 * true_positive / (called + test.counts).clamp(min=1)

    own = logits.gather(1, test.labels[:, None]).squeeze(1).double()
    confidence = (-log_sum).exp()
    return torch.stack(
        [
            hit.double().mean(),
            (recall * test.present).sum() / test.num_present,
            (f1 * test.present).sum() / test.num_present,
            _macro_auroc(logits, whole, top, log_sum, test),
            (log_sum - (own - top)).mean(),
            _calibration_error(confidence, hit),
        ]
    )


def _macro_auroc(
    logits: torch.Tensor,
    shifted: torch.Tensor | None,
    top: torch.Tensor,
    log_sum: torch.Tensor,
    test: TestLabels,
) -> torch.Tensor:
    """Mean one-vs-rest area, float64 (). `shifted`: float64 (T, C) logits minus `top` when they fit one block.

    Only positives need a rank, counted from both sides so that a tie counts half.
    """
    if not test.blocks:
        return top.new_full((), float("nan"))
    areas, scored = top.new_zeros(()), 0
    for block in test.blocks:
        if shifted is not None:
            columns = shifted if block.classes is None else shifted[:, block.classes]
        else:
            columns = logits if block.classes is None else logits[:, block.classes]
            columns = columns.double() - top[:, None]
        columns = (columns - log_sum[:, None]).t().contiguous()  # (k, T) log p
        queries = columns.gather(1, block.positives)
        ranks = _twice_ranks(columns, queries, block.padding)
        twice = ranks.masked_fill_(block.padding, 0).sum(dim=1).double()
        # among the positives themselves, pairs and selves come to P^2 / 2
        wins = (twice - block.num_positive.square()) / 2
        areas = areas + (wins / (block.num_positive * block.num_negative)).sum()
        scored += len(block.num_positive)
    return areas / scored


def _twice_ranks(columns: torch.Tensor, queries: torch.Tensor, padding: torch.Tensor) -> torch.Tensor:
    """How many values of its row lie below each query, plus how many do not lie above: int64 (k, P).

    `columns` float64 (k, T), `queries` float64 (k, P) out of the same rows, `padding` bool (k, P): those that do not
    matter. Rows are sorted and queries looked up. On a CPU numpy's vectorised sort takes them in float32, at half
    the time: rounding keeps the order, so a query that is alone at its rounded value has its exact rank, and the
    few that are not are counted. (A GPU would have to wait to learn which those are.)
    """
    import torch

    if columns.device.type == "cpu":
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
        ordered = columns.sort(dim=1).values
    return torch.searchsorted(ordered, queries) + torch.searchsorted(ordered, queries, right=True)


def _calibration_error(confidence: torch.Tensor, hit: torch.Tensor) -> torch.Tensor:
    """confidence float64 (T,), hit bool (T,) -> float64 (); sums by mask, so that a GPU repeats its last bit too."""
    import torch

    inner = torch.arange(1, ECE_BINS, dtype=torch.float64, device=confidence.device) / ECE_BINS
    of_item = torch.bucketize(confidence, inner)
    in_bin = of_item == torch.arange(ECE_BINS, device=confidence.device)[:, None]
    gap = (hit.double() - confidence)[None, :]
    return (gap * in_bin).sum(dim=1).abs().sum() / len(confidence)


def area_under_budget_curve(values: Sequence[float], num_labeled: Sequence[int], over: str = "rounds") -> float:
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
    if len(curve) == 1:
        return float(curve[0])
    if over == "rounds":
        return float(np.trapezoid(curve) / (len(curve) - 1))
    return float(np.trapezoid(curve, budget) / (budget[-1] - budget[0]))
