"""Linear head trained with strong input dropout (Gupte et al. 2024, arXiv 2401.14555), and its training loop.

The order matters: dropout acts on the RAW features, batch normalisation (no affine) comes after it, then the linear
layer. The loop below serves every head trained by this recipe; a `Network` says what stands after the normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from annotated_types import Ge, Le
from torch import Tensor

from alfm import devices
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import Scaled
from alfm.fused.masked import masked
from alfm.heads.linear import LinearHead
from alfm.heads.mixup import beta_quantiles, mixed, own_shares, partners
from alfm.options import Count, Drop, checked
from alfm.streams import hashes, stream
from alfm.threads import side_by_side

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8
MOMENTUM, NORM_EPS = 0.1, 1e-5  # torch.nn.BatchNorm1d's defaults


def effective_drop(p: float) -> float:
    """The drop probability masks really have: `keep_mask` works in steps of 1/256."""
    return round(p * 256) / 256


class Network(Protocol):
    """What stands before the normalisation: R replicates' maps of features to features of the same width."""

    def start(self, rng: np.random.Generator, dim: int) -> list[np.ndarray]:
        """One replicate's initial parameters, those that meet the input of shape (.., dim); [] for the identity."""
        ...

    def embed(self, params: list[Tensor], x: Tensor) -> Tensor:
        """Parameters (R, ...), features (R, n, D) -> (R, n, D)."""
        ...


class Trained(NamedTuple):
    """The linear layer, the network's parameters (R, ...), and shift and scale (R, D) of the normalisation."""

    weight: Tensor
    bias: Tensor
    inner: list[Tensor]
    shift: Tensor
    scale: Tensor


@dataclass(frozen=True)
@checked
class Recipe:
    """Dropout, AdamW and early stopping of Gupte et al. 2024 (arXiv 2401.14555).

    p: drop probability of an input feature (multiples of 1/256). An epoch improves when its training loss is below
    the best so far by more than `min_delta`; after `patience` epochs without improvement a replicate stops, and
    the parameters and running statistics of its last improving epoch are what is returned. Batches hold
    `batch_size` items in a shuffled order; a last batch of one item joins the one before it.

    Stronger regularisation, each off by default:
    averaging: so many epochs more after the early stop, whose iterates are averaged in place of the best one; the
    normalisation's statistics are then found anew, in as many passes. SWA: Izmailov et al. 2018 (arXiv 1803.05407), at
    the learning rate that there is.
    mixup: a of Beta(a, a) in mixup of features before dropout, see `alfm.heads.mixup`; 0 for none.
    views: where the pool holds augmented views, `random`: each step sees one of each item, instead of all.
    """

    p: Drop = 0.75
    lr: Annotated[float, Ge(1e-8), Le(10)] = 1e-2
    weight_decay: Annotated[float, Ge(0), Le(100)] = 1e-2
    max_epochs: Annotated[int, Ge(1), Le(10**6)] = 400
    batch_size: Annotated[int, Ge(2), Le(10**9)] = 4096
    patience: Count = 20
    min_delta: Annotated[float, Ge(-1e6), Le(1e6)] = 1e-3
    averaging: Annotated[int, Ge(0), Le(10**6)] = field(default=0, kw_only=True)
    mixup: Annotated[float, Ge(0), Le(100)] = field(default=0.0, kw_only=True)
    views: Literal["all", "random"] = field(default="all", kw_only=True)

    @property
    def chooses_views(self) -> bool:
        """It is to be given plain items, and looks for views itself: see `alfm.heads.views`."""
        return self.views == "random"

    def tuning_space(self, num_classes: int) -> Mapping[str, Sequence[float]]:
        """What is worth trying: nine ways, three learning rates with three shares of features dropped."""
        return {"lr": [1e-3, 1e-2, 1e-1], "p": [0.25, 0.5, 0.75]}

    def __post_init__(self) -> None:
        if self.lr * self.weight_decay > 1:
            raise UserError(
                f"classifier: lr={self.lr:g} times weight_decay={self.weight_decay:g} must not exceed 1, or weights "
                "change their sign at every step: lower one of the two."
            )


class Identity:
    """Nothing before the normalisation."""

    def start(self, rng: np.random.Generator, dim: int) -> list[np.ndarray]:
        return []

    def embed(self, params: list[Tensor], x: Tensor) -> Tensor:
        return x


def linear_start(rng: np.random.Generator, inputs: int, outputs: int) -> list[np.ndarray]:
    """Weight (outputs, inputs) and bias (outputs,) as torch.nn.Linear draws them: uniform within 1/sqrt(inputs)."""
    bound = 1 / math.sqrt(inputs)
    return [rng.uniform(-bound, bound, (outputs, inputs)), rng.uniform(-bound, bound, outputs)]


def softmax_loss(
    weight: Tensor, bias: Tensor, z: Tensor, target: Tensor, mass: Tensor
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Loss of a softmax layer and its gradient, written out (autograd costs more than the products here).

    weight (R, C, D), bias (R, C), z (R, n, D), target (R, n, C) soft labels times item weights, mass (R, n, 1) their
    sums over classes. Returns sum_i -target_i . log softmax(logits_i), shape (R,), its gradient for the logits
    (R, n, C), and for [weight, bias].
    """
    log_p = torch.log_softmax(torch.baddbmm(bias[:, None, :], z, weight.mT), dim=2)
    loss = -(target * log_p).sum((1, 2))
    residual = log_p.exp_().mul_(mass).sub_(target)
    return loss, residual, [torch.bmm(residual.mT, z), residual.sum(1)]


@dataclass(frozen=True)
@checked
class Dropout(Recipe):
    """Dropout head: input dropout, batch normalisation without affine, linear. Gupte et al. 2024 (2401.14555).

    A fresh fit each round (`previous` is ignored), as in the paper. See `train` for the rules at the edges.
    """

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
        """See `alfm.heads.base.Classifier`. Raises UserError when a replicate has no label."""
        done = train(self, Identity(), pool, rows, targets, num_classes, seeds, round, weight)
        spaces = [Scaled(a, s, shared=False) for a, s in zip(done.shift, done.scale, strict=True)]
        return LinearHead(spaces, done.weight, done.bias)


def train(
    recipe: Recipe,
    network: Network,
    pool: Features,
    rows: Tensor,
    targets: Tensor,
    num_classes: int,
    seeds: Sequence[int],
    round: int,
    weight: Tensor | None,
) -> Trained:
    """Train one network per replicate; arguments as `alfm.heads.base.Classifier.fit`.

    Masks, order and initial weights are addressed by (seed, round, epoch, position among the labelled items), so a
    replicate's fit does not depend on its neighbours. Rules where the paper is silent: a feature that is zero for
    every labelled item has weight zero, and the pool's mean and deviation in the fitted space (its own variance is
    zero, and normalisation would blow up what was never seen); with a single labelled item there is no variance at
    all, and the pool's moments normalise every feature. Raises UserError when a replicate has no label.
    """
    counts = (rows >= 0).sum(1).tolist()
    if min(counts) < 1:
        raise UserError(f"Replicate {counts.index(0)} has no labelled item: a classifier needs at least one.")
    device = pool.device
    rows, targets = rows.to(device), targets.to(device)
    weight = None if weight is None else weight.to(device, pool.dtype)
    fit = partial(_fit_group, recipe, network, pool, num_classes, round)
    if devices.of(device).joins_replicates and max(counts) <= recipe.batch_size:
        return fit(rows, targets, weight, list(seeds))
    pool.fitted_as.moments  # made once, before the jobs that need them  # noqa: B018
    jobs = []
    for r, seed in enumerate(seeds):  # one replicate at a time: R enters no product's shape
        place = (rows[r] >= 0).nonzero()[:, 0]
        w = None if weight is None else weight[r, place][None]
        jobs.append(partial(fit, rows[r, place][None], targets[r, place][None], w, [seed]))
    parts = side_by_side(jobs, device)
    return Trained(
        torch.cat([part.weight for part in parts]),
        torch.cat([part.bias for part in parts]),
        [torch.cat(p) for p in zip(*(part.inner for part in parts), strict=True)],
        torch.cat([part.shift for part in parts]),
        torch.cat([part.scale for part in parts]),
    )


def _fit_group(
    recipe: Recipe,
    network: Network,
    pool: Features,
    num_classes: int,
    round: int,
    rows: Tensor,
    targets: Tensor,
    weight: Tensor | None,
    seeds: list[int],
) -> Trained:
    run = _Run(recipe, network, pool, rows, targets, weight, num_classes)
    run.start([int(seed) for seed in seeds], round)
    return run.result()


class _Run:
    """Replicates trained together: all state in tensors with a leading R, one flat row of parameters each."""

    def __init__(
        self,
        recipe: Recipe,
        network: Network,
        pool: Features,
        rows: Tensor,
        targets: Tensor,
        weight: Tensor | None,
        num_classes: int,
    ) -> None:
        self.recipe, self.network, self.C = recipe, network, num_classes
        self.looks = devices.of(pool.device).steps_between_looks  # epochs from one to the next
        (self.R, self.n), self.D = rows.shape, pool.D
        self.drop = effective_drop(recipe.p)
        valid = self.valid = rows >= 0
        self.V = 1 if pool.views is None or not recipe.chooses_views else pool.views.shape[1] + 1
        every = torch.cat([rows.clamp_min(0) + v * pool.N for v in range(self.V)], 1)
        items = pool.gather(every.flatten()).view(self.R, self.V * self.n, self.D)
        items.mul_(valid.repeat(1, self.V)[:, :, None])
        self.unseen = (items == 0).all(1)
        self.x = items.div_(1 - self.drop)  # (R, V n, D), one view after the other
        self.position = (valid.cumsum(1) - 1).clamp_min(0)  # among the replicate's own items
        count = valid.sum(1, keepdim=True).to(self.x)
        self.share = (valid / count)[:, None, :]  # (R, 1, n): a product with it is the mean over items
        self.bessel = count / (count - 1).clamp_min(1)
        self.single = count == 1
        self.any_single = bool(self.single.any())
        mean, sd = pool.fitted_as.moments
        self.pool_mean, self.pool_var = mean, sd.square()
        self.target, self.mass = _weighted_targets(targets, valid, weight, num_classes, self.x.dtype)

    def start(self, seeds: list[int], round: int) -> None:
        """Initial state from the streams, then all epochs."""
        first = []
        for seed in seeds:
            rng = stream(seed, round, "head start")
            first.append([*linear_start(rng, self.D, self.C), *self.network.start(rng, self.D)])
        self.shapes = [a.shape for a in first[0]]
        like: dict[str, Any] = {"dtype": self.x.dtype, "device": self.x.device}
        self.flat = torch.tensor(np.stack([np.concatenate([a.ravel() for a in f]) for f in first]), **like)
        for w in self._split(self.flat):
            if w.ndim == 3 and w.shape[2] == self.D:
                w.masked_fill_(self.unseen[:, None, :], 0)
        self.m, self.v = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.mean = torch.zeros(self.R, self.D, **like)
        self.var = torch.ones(self.R, self.D, **like)
        if self.any_single:
            self.mean = torch.where(self.single, self.pool_mean, self.mean)
            self.var = torch.where(self.single, self.pool_var, self.var)
        self.best = self.flat.clone()
        self.best_mean, self.best_var = self.mean.clone(), self.var.clone()
        self.best_loss = torch.full((self.R,), math.inf, **like)
        self.wait = torch.zeros(self.R, dtype=torch.int64, device=self.x.device)
        self.active = torch.ones(self.R, dtype=torch.bool, device=self.x.device)
        self.epoch = torch.zeros(1, dtype=torch.int64, device=self.x.device)
        self.step_number = torch.zeros_like(self.epoch)
        self.averaged = torch.zeros_like(self.wait)
        self.average = torch.zeros_like(self.flat) if self.recipe.averaging else self.flat[:, :0]
        epochs = self.recipe.max_epochs + self.recipe.averaging
        per_epoch = len(_batches(self.n, self.recipe.batch_size))
        self.keys = self._keys("head masks", seeds, round, epochs)
        self.view_keys = self._keys("head views", seeds, round, epochs if self.V > 1 else 0)
        self.partner_keys = self._keys("head mixup", seeds, round, epochs if self.recipe.mixup else 0)
        self.share_keys = self._keys("head mixup shares", seeds, round, epochs if self.recipe.mixup else 0)
        if self.recipe.mixup:
            self.quantiles = torch.tensor(beta_quantiles(self.recipe.mixup), **like)
        t = np.arange(1, epochs * per_epoch + 1)
        self.step_size = torch.tensor(self.recipe.lr / (1 - BETA1**t), **like)
        self.root_scale = torch.tensor(1 / np.sqrt(1 - BETA2**t), **like)
        if per_epoch > 1:
            self.orders = torch.zeros(self.looks, self.n, dtype=torch.int64, device=self.x.device)
            self._epochs(self._shuffled_epoch, partial(self._shuffle, seeds[0], round))
        else:
            self._epochs(self._whole_epoch)
        if self.recipe.averaging:
            self.best, self.best_mean, self.best_var = self.average, self.mean, self.var
            self._find_statistics(seeds, round)

    def _keys(self, purpose: str, seeds: list[int], round: int, count: int) -> Tensor:
        """Keys of `count` passes for each replicate, int64 (R, count)."""
        if not count:
            return torch.empty(len(seeds), 0, dtype=torch.int64)  # nobody asks for them
        drawn = np.stack([stream(seed, round, purpose).integers(2**62, size=count) for seed in seeds])
        return torch.from_numpy(drawn).to(self.x.device)

    def result(self) -> Trained:
        weight, bias, *inner = (p.contiguous() for p in self._split(self.best))
        shift = torch.where(self.unseen, self.pool_mean, self.best_mean)
        var = torch.where(self.unseen, self.pool_var, self.best_var)
        return Trained(weight, bias, inner, shift, (var + NORM_EPS).sqrt())

    def _split(self, flat: Tensor) -> list[Tensor]:
        sizes = [math.prod(s) for s in self.shapes]
        return [p.view(-1, *s) for p, s in zip(flat.split(sizes, 1), self.shapes, strict=True)]

    def _step(self, at: Tensor | None, share: Tensor, bessel: Tensor, target: Tensor, mass: Tensor) -> Tensor:
        """Dropout, normalisation, gradient and one AdamW update on all items or those at (b,). Losses (R,)."""
        x = self._items(at, self.view_keys, self.epoch)
        if self.recipe.mixup:
            valid = self.valid if at is None else self.valid[:, at]
            rank = self.position if at is None else torch.arange(len(at), device=at.device)[None]
            place = self.position if at is None else at[None]
            partner = partners(self.partner_keys.index_select(1, self.epoch), rank, valid)
            own = own_shares(self.share_keys.index_select(1, self.epoch), place, valid, self.quantiles)
            x, target, mass = (mixed(values, partner, own) for values in (x, target, mass))
        x = self._dropped(x, at, self.keys, self.epoch)
        weight, bias, *inner = self._split(self.flat)
        R = self.R
        if not inner:
            z = self._normalise(x, share, bessel)
            loss, _, gradients = softmax_loss(weight, bias, z, target, mass)
        else:
            with torch.enable_grad():
                inner = [p.detach().requires_grad_() for p in inner]
                h = self.network.embed(inner, x).masked_fill(self.unseen[:, None, :], 0)
                z = self._normalise(h, share, bessel)
            loss, residual, gradients = softmax_loss(weight, bias, z.detach(), target, mass)
            gradients += torch.autograd.grad(z, inner, torch.bmm(residual, weight))
        gradient = torch.cat([g.reshape(R, -1) for g in gradients], 1)
        self.m.lerp_(gradient, 1 - BETA1)
        self.v.lerp_(gradient.square_(), 1 - BETA2)
        root = self.v.sqrt().mul_(self.root_scale.index_select(0, self.step_number)).add_(ADAM_EPS)
        self.flat.mul_(1 - self.recipe.lr * self.recipe.weight_decay)
        self.flat.addcdiv_(self.m * self.step_size.index_select(0, self.step_number), root, value=-1)
        self.step_number += 1
        return loss

    def _items(self, at: Tensor | None, keys: Tensor, number: Tensor) -> Tensor:
        """All items (R, n, D), or those at (b,); of several views one each, by the keys of a pass with this number."""
        if self.V == 1:
            return self.x if at is None else self.x[:, at]
        position, place = self.position, torch.arange(self.n, device=self.x.device)
        if at is not None:
            position, place = at[None], at
        view = (hashes(keys.index_select(1, number), position) >> 1 & (2**62 - 1)) % self.V  # of bits without a sign
        start = torch.arange(self.R, device=self.x.device)[:, None] * (self.V * self.n)
        index = (start + view * self.n + place).flatten()
        return self.x.view(-1, self.D).index_select(0, index).view(self.R, len(place), self.D)

    def _dropped(self, x: Tensor, at: Tensor | None, keys: Tensor, number: Tensor) -> Tensor:
        """Items with the masks of a pass."""
        return masked(keys, number, self.position if at is None else at[None], x, self.drop)

    def _normalise(self, h: Tensor, share: Tensor, bessel: Tensor, momentum: float = MOMENTUM) -> Tensor:
        """Batch normalisation without affine; running statistics as torch.nn.BatchNorm1d keeps them."""
        mean = torch.bmm(share, h)
        centred = h - mean
        var = torch.bmm(share, centred * centred)
        running_mean, running_var = mean.detach()[:, 0], var.detach()[:, 0] * bessel
        if self.any_single:
            alone = self.single[:, None]
            centred = torch.where(alone, h - self.pool_mean, centred)
            var = torch.where(alone, self.pool_var, var)
            running_mean = torch.where(self.single, self.pool_mean, running_mean)
            running_var = torch.where(self.single, self.pool_var, running_var)
        self.mean.lerp_(running_mean, momentum)
        self.var.lerp_(running_var, momentum)
        return centred * (var + NORM_EPS).rsqrt()

    def _end_epoch(self, loss: Tensor) -> None:
        """Early stopping on the device: a stopped replicate goes on moving, but its best state is frozen."""
        improved = (loss < self.best_loss - self.recipe.min_delta) & self.active
        self.best_loss.copy_(torch.where(improved, loss, self.best_loss))
        for best, now in ((self.best, self.flat), (self.best_mean, self.mean), (self.best_var, self.var)):
            best.copy_(torch.where(improved[:, None], now, best))
        self.wait.add_(1).mul_(~improved)
        if self.recipe.averaging:
            self._average()
            self.active &= self.epoch < self.recipe.max_epochs - 1
        self.active &= self.wait < self.recipe.patience
        self.epoch += 1

    def _average(self) -> None:
        """Of iterates of epochs after a replicate has stopped, the first so many."""
        more = ~self.active & (self.averaged < self.recipe.averaging)
        self.averaged += more
        share = (more / self.averaged.clamp_min(1)).to(self.flat)[:, None]
        self.average.lerp_(self.flat, share)

    def _find_statistics(self, seeds: list[int], round: int) -> None:
        """The normalisation's mean and variance under the averaged parameters: means over further passes."""
        passes = self.recipe.averaging
        keys = self._keys("head statistics", seeds, round, passes)
        view_keys = self._keys("head statistics views", seeds, round, passes if self.V > 1 else 0)
        _, _, *inner = self._split(self.average)
        done = 0
        for number in torch.arange(passes, device=self.x.device).split(1):
            for at, share, bessel in self._parts():
                x = self._dropped(self._items(at, view_keys, number), at, keys, number)
                if inner:
                    x = self.network.embed(inner, x).masked_fill(self.unseen[:, None, :], 0)
                done += 1
                self._normalise(x, share, bessel, 1 / done)

    def _parts(self, order: Tensor | None = None) -> list[tuple[Tensor | None, Tensor, Tensor]]:
        """The batches of a pass: places (b,), None for all at once; `share` and `bessel` of each."""
        slices = _batches(self.n, self.recipe.batch_size)
        if len(slices) == 1:
            return [(None, self.share, self.bessel)]
        order = torch.arange(self.n, device=self.x.device) if order is None else order
        like: dict[str, Any] = {"dtype": self.x.dtype, "device": self.x.device}
        found: list[tuple[Tensor | None, Tensor, Tensor]] = []
        for b, at in ((s.stop - s.start, order[s]) for s in slices):
            found.append((at, torch.full((1, 1, b), 1 / b, **like), torch.full((1, 1), b / (b - 1), **like)))
        return found

    def _whole_epoch(self) -> None:
        self._end_epoch(self._step(None, self.share, self.bessel, self.target, self.mass))

    def _shuffled_epoch(self) -> None:
        """More items than a batch holds: one replicate, batches in an order of their own every epoch."""
        order = self.orders.index_select(0, self.epoch % len(self.orders))[0]
        loss = torch.zeros_like(self.best_loss)
        for at, share, bessel in self._parts(order):
            assert at is not None
            mass = self.mass[:, at]
            total = mass.sum((1, 2), keepdim=True).clamp_min(torch.finfo(mass.dtype).tiny)
            part = self._step(at, share, bessel, self.target[:, at] / total, mass / total)
            loss += part * (len(at) / self.n)
        self._end_epoch(loss)

    def _epochs(self, one: Callable[[], None], prepare: Callable[[int, int], None] | None = None) -> None:
        """All epochs, each of which `one` is; prepare(start, stop) sees to those until the host looks again."""
        state = [self.flat, self.m, self.v, self.mean, self.var, self.best, self.best_mean, self.best_var]
        state += [self.best_loss, self.wait, self.active, self.epoch, self.step_number, self.averaged, self.average]
        epochs = self.keys.shape[1]
        epoch = devices.of(self.x).captured(one, state, (self.D, self.x.dtype, self.drop))
        for done in range(epochs):
            if prepare and done % self.looks == 0:
                prepare(done, min(done + self.looks, epochs))
            epoch()
            if self._stopped(done + 1):
                break

    def _shuffle(self, seed: int, round: int, start: int, stop: int) -> None:
        """The orders of these epochs."""
        orders = [stream(seed, round, f"head order {epoch}").permutation(self.n) for epoch in range(start, stop)]
        self.orders[: stop - start] = torch.from_numpy(np.stack(orders))

    def _stopped(self, done: int) -> bool:
        """Whether no replicate goes on, after so many epochs; looked at now and then only where a look takes a wait."""
        if done % self.looks:
            return False
        return not bool((self.active | (self.averaged < self.recipe.averaging)).any())


def _batches(n: int, size: int) -> list[slice]:
    """Consecutive slices of `size`; a last one of a single item joins the one before it."""
    starts = list(range(0, n, size))
    if len(starts) > 1 and n - starts[-1] == 1:
        starts.pop()
    return [slice(a, b) for a, b in zip(starts, [*starts[1:], n], strict=True)]


def _weighted_targets(
    targets: Tensor, valid: Tensor, weight: Tensor | None, num_classes: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Soft labels times item weights, normalised to total weight 1 per replicate: (R, n, C), and sums (R, n, 1)."""
    if targets.ndim == 2:
        targets = torch.nn.functional.one_hot(torch.where(valid, targets, 0), num_classes)
    share = valid.to(dtype) if weight is None else torch.where(valid, weight, 0).to(dtype)
    share = share / share.sum(1, keepdim=True).clamp_min(torch.finfo(dtype).tiny)
    target = torch.where(valid[:, :, None], targets.to(dtype), 0) * share[:, :, None]
    return target, target.sum(2, keepdim=True)
