"""VAAL: Sinha, Ebrahimi & Darrell 2019, "Variational adversarial active learning" (1904.00370)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.optim.adam import adam

from alfm import devices
from alfm.features.features import Features
from alfm.heads.passes import together, visit
from alfm.heads.products import linear, mm
from alfm.options import checked
from alfm.strategies.base import Strategy
from alfm.strategies.parts.candidates import best, where
from alfm.strategies.query import Query
from alfm.threads import side_by_side

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8
LOG_VARIANCE = 10.0  # bound on the encoder's log variance, so that no minibatch overflows
PIECES = 8  # of a block of features, scored one by one: on CPU 1 MB, which stays in the caches
STAGE = 8  # steps of one replicate before a core turns to another: five replicates then keep two cores busy to the end

Standard = Callable[[Tensor], Tensor]


@dataclass(eq=False)
@checked
class Vaal(Strategy):
    """The items that a discriminator is surest are not labelled, lowest "labelled" probability first (algorithm 2).

    A variational autoencoder of the features (latent 32) and a discriminator of its latent means are trained in turn:
    the autoencoder on reconstruction + `beta` KL of labelled and unlabelled items + `adversarial` x the loss of making
    the discriminator call both labelled (eqs. 1-3), the discriminator on telling them apart (eq. 4).

    Here the input is the standardised frozen feature, so the networks are small: one hidden layer of `hidden` units
    each way (there convolutions on images), Adam, `steps` minibatches of `batch` labelled and `batch` unlabelled items
    drawn with replacement. Squared errors and KL are summed per item, as in the evidence bound. Everything is trained
    anew in every round from a start of its own, so that a round is a function of pool and picks. No head is used; one
    is asked for because labelled items are.
    Cost: O(h D (N + t b)) for h hidden units and t steps of b items; memory O(b D).
    Few steps tell covered from uncovered classes as well as many (benchmarks/notes/strategies.md).
    """

    needs = ("features", "labels")
    stochastic = True
    latent: Annotated[int, Ge(1), Le(4096)] = 32
    beta: Annotated[float, Ge(0), Le(1e3)] = 1.0
    adversarial: Annotated[float, Ge(0), Le(1e3)] = 1.0
    hidden: Annotated[int, Ge(1), Le(65_536)] = 128
    steps: Annotated[int, Ge(1), Le(10**6)] = 40
    batch: Annotated[int, Ge(1), Le(65_536)] = 64
    lr: Annotated[float, Ge(1e-8), Le(1)] = 5e-3

    def select(self, query: Query, budget: int) -> Tensor:
        return best(query, self.score(query), budget)

    def score(self, query: Query) -> Tensor:
        """-logit of "labelled", (R, N)."""
        pool = query.pool
        mean, sd = pool.moments
        inverse = torch.where(sd > 0, sd, torch.ones_like(sd)).reciprocal()

        def standard(x: Tensor) -> Tensor:
            return (x - mean).mul_(inverse)

        groups = together(query.R, devices.of(pool.device).at_once(query.R, STAGE * 2 * self.batch * pool.D, 1))
        free = where(query.available)
        training = [self._training(query, range(g.start, g.stop), free, standard) for g in groups]
        locks = [Lock() for _ in training]

        def proceed(i: int) -> Networks:
            with locks[i]:
                return next(training[i])

        stages = -(-self.steps // STAGE)
        jobs = [partial(proceed, i) for _ in range(stages) for i in range(len(groups))]
        nets = side_by_side(jobs, pool.device)[-len(groups) :]
        return scores(pool, nets, standard)

    def _training(
        self, query: Query, replicates: Sequence[int], free: Sequence[Tensor], standard: Standard
    ) -> Iterator[Networks]:
        """The networks of some replicates, again after every `STAGE` steps; free: every replicate's unlabelled rows.

        A step is of fixed shapes, for all of them at once, and a graph where there are any.
        """
        pool, R = query.pool, len(replicates)
        shapes = Networks.shapes(pool.D, self.hidden, self.latent)
        drawn = [self._drawn(shapes, query.counts[r], len(free[r]), query.key(r, "vaal")) for r in replicates]
        starts, places, noises = (torch.stack(own) for own in zip(*drawn, strict=True))
        nets = Networks(starts.to(pool.device, pool.dtype), shapes, self.latent)
        noises, places = noises.to(pool.device, pool.dtype), places.to(pool.device)
        unlabelled = pad_sequence([free[r] for r in replicates], batch_first=True)
        pairs = zip((query.some(query.rows, replicates), unlabelled), places.unbind(1), strict=True)
        chosen = torch.cat([rows.gather(1, at.flatten(1)).view_as(at) for rows, at in pairs], 2)
        is_labelled = torch.zeros(2 * self.batch, dtype=pool.dtype, device=pool.device)
        is_labelled[: self.batch] = 1.0
        x, noise = nets.own(noises.new_zeros(R, 2 * self.batch, pool.D)), nets.own(torch.zeros_like(noises[:, 0]))

        def step() -> None:
            nets.gradients(x, noise, is_labelled, self.beta, self.adversarial)
            nets.descend(self.lr)

        run = devices.of(pool.device).captured(step, nets.state)
        for some, own in zip(chosen.split(STAGE, 1), noises.split(STAGE, 1), strict=True):
            seen = standard(pool.gather(some.flatten(), plain=True)).unflatten(0, some.shape)
            for now in zip(nets.own(seen).unbind(-3), nets.own(own).unbind(-3), strict=True):
                if run is step:
                    x, noise = now
                else:  # a graph reads where it read
                    x.copy_(now[0])
                    noise.copy_(now[1])
                run()
            yield nets

    def _drawn(
        self, shapes: Sequence[tuple[int, int]], labelled: int, free: int, key: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A replicate's start (P,); which of its labelled and of its unlabelled items each minibatch holds, (2, steps,
        batch); and their noise (steps, 2 batch, latent)."""
        draws = torch.Generator().manual_seed(key)
        start = Networks.start(shapes, draws)
        places = [torch.randint(n, (self.steps, self.batch), generator=draws) for n in (labelled, free)]
        return start, torch.stack(places), torch.randn(self.steps, 2 * self.batch, self.latent, generator=draws)


def scores(pool: Features, nets: Sequence[Networks], standard: Standard) -> Tensor:
    """-logit of "labelled" by every replicate's networks, (R, N); a block is standardised once for all of them."""

    def score(rows: slice, x: Tensor, which: slice) -> Tensor:
        x = standard(x)
        return torch.cat([own.labelled_logit(x).neg_() for own in nets])

    size = min(pool.block_rows, max(256, pool.block_numbers // PIECES // pool.D))
    every = slice(0, sum(len(own.flat) for own in nets))
    return visit(pool.raw_blocks(size), [every], score, pool.N, pool.device)


class Networks:
    """Of R replicates: encoder D -> hidden -> 2 latent, decoder latent -> hidden -> D, judge latent -> hidden -> hidden
    -> 1.

    The encoder gives means and log variances; the judge, the discriminator, gives the logit of "labelled". Gradients
    are written out: on networks this small, autograd's bookkeeping takes longer than the products. Parameters (R, P),
    gradients and Adam's moments are flat, and every layer's matrices are views of them; a lone replicate's are without
    the R, since making views takes time too.
    """

    def __init__(self, flat: Tensor, shapes: Sequence[tuple[int, int]], latent: int) -> None:
        """flat: the parameters to begin with, (R, P), of layers of these `shapes`."""
        self.flat, self.latent = flat, latent
        self.slope, self.first, self.second = (torch.zeros_like(self.flat) for _ in range(3))
        self.step = torch.zeros((), device=flat.device)
        self.layers, self.slopes = (_layers(self.own(flat), shapes) for flat in (self.flat, self.slope))

    def own(self, x: Tensor) -> Tensor:
        """(R, ..), or (..) of a lone replicate."""
        return x[0] if len(self.flat) == 1 else x

    @staticmethod
    def shapes(D: int, hidden: int, latent: int) -> list[tuple[int, int]]:
        """What goes into each layer and comes out: encoder, decoder, judge."""
        coders = [(D, hidden), (hidden, 2 * latent), (latent, hidden), (hidden, D)]
        return [*coders, (latent, hidden), (hidden, hidden), (hidden, 1)]

    @staticmethod
    def start(shapes: Sequence[tuple[int, int]], draws: torch.Generator) -> Tensor:
        """One replicate's parameters before any step, (P,)."""
        start = []
        for a, b in shapes:
            start += [(2 * torch.rand(b * a, generator=draws) - 1) / math.sqrt(a), torch.zeros(b)]
        return torch.cat(start)

    @property
    def state(self) -> list[Tensor]:
        """What steps change, in place."""
        return [self.flat, self.slope, self.first, self.second, self.step]

    def labelled_logit(self, x: Tensor) -> Tensor:
        """Standardised features (b, D) -> (R, b)."""
        encoder, (w, bias), _, _, *judge = self.layers
        mu = linear(_hidden(x, *encoder), w[..., : self.latent, :], bias[..., : self.latent])
        return linear(_hidden(_hidden(mu, *judge[0]), *judge[1]), *judge[2])[..., 0].view(len(self.flat), -1)

    def gradients(self, x: Tensor, noise: Tensor, is_labelled: Tensor, beta: float, adversarial: float) -> None:
        """Gradients of both losses of a minibatch, means over its b items, left in `slope`.

        x (R, b, D), noise (R, b, latent), as `own` gives them; is_labelled (b,) in {0, 1}. Autoencoder:
        |decoded - x|^2 + beta KL - adversarial log D(mu), by encoder and decoder. Discriminator: binary cross-entropy,
        by the judge.
        """
        b = x.shape[-2]
        layers, slopes = self.layers, self.slopes
        encoded = _hidden(x, *layers[0])
        mu, raw = linear(encoded, *layers[1]).split(self.latent, -1)
        log_var = raw.clamp(-LOG_VARIANCE, LOG_VARIANCE)
        variance = log_var.exp()
        spread = variance.sqrt().mul_(noise)
        code = mu + spread
        decoded = _hidden(code, *layers[2])
        error = linear(decoded, *layers[3]).sub_(x).mul_(2 / b)
        one = _hidden(mu, *layers[4])
        two = _hidden(one, *layers[5])
        p = torch.sigmoid(linear(two, *layers[6]))  # (R, b, 1)

        d = _through(error, decoded, layers[3], slopes[3])
        d_code = _through(d, code, layers[2], slopes[2], relu=False)

        # The judge's output is one number, so one backward pass of d logit serves both losses: a row of it times the
        # derivative of the autoencoder's loss goes on into mu, times that of the discriminator's into the parameters.
        own, other = (p - is_labelled[:, None]).div_(b), (p - 1).mul_(adversarial / b)
        d_two = layers[6][0] * two.sign()
        d_one = mm(d_two, layers[5][0]).mul_(one.sign())
        d_mu = mm(d_one, layers[4][0]).mul_(other).add_(d_code).add_(mu, alpha=beta / b)
        for d, h, slope in ((own, two, slopes[6]), (d_two.mul_(own), one, slopes[5]), (d_one.mul_(own), mu, slopes[4])):
            _slopes(d, h, slope)

        d_log_var = d_code.mul_(spread).add_(variance.sub_(1), alpha=beta / b).mul_(0.5).mul_(raw == log_var)
        d = _through(torch.cat([d_mu, d_log_var], -1), encoded, layers[1], slopes[1])
        _slopes(d, x, slopes[0])

    def descend(self, lr: float) -> None:
        """One step of Adam (Kingma & Ba 2015) in one pass: torch's fused form."""
        adam(
            [self.flat],
            [self.slope],
            [self.first],
            [self.second],
            max_exp_avg_sqs=[],
            state_steps=[self.step],
            fused=True,
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=lr,
            weight_decay=0.0,
            eps=ADAM_EPS,
            maximize=False,
        )


Layer = tuple[Tensor, Tensor]


def _layers(flat: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Layer]:
    """Weights (.., b, a) and biases (.., b) of each layer a -> b, views of flat vectors (.., P)."""
    layers, at = [], 0
    for a, b in shapes:
        layers.append((flat[..., at : at + a * b].unflatten(-1, (b, a)), flat[..., at + a * b : at + a * b + b]))
        at += a * b + b
    return layers


def _hidden(x: Tensor, w: Tensor, bias: Tensor) -> Tensor:
    return linear(x, w, bias).relu_()


def _slopes(d: Tensor, x: Tensor, slope: Layer) -> None:
    """Gradient d (R, m, b) of a layer's output, its input x (R, m, a) -> gradients of weight and bias."""
    mm(d.mT, x, out=slope[0])
    torch.sum(d, -2, out=slope[1])


def _through(d: Tensor, x: Tensor, layer: Layer, slope: Layer, relu: bool = True) -> Tensor:
    """The same, and the gradient (R, m, a) of what went into the layer, before its ReLU if there was one."""
    _slopes(d, x, slope)
    d = mm(d, layer[0])
    return d.mul_(x.sign()) if relu else d  # the sign of what a ReLU gave is its slope
