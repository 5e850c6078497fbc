"""VAAL: Sinha, Ebrahimi & Darrell 2019, "Variational adversarial active learning" (1904.00370)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alfm.spaces import Scaled
from alfm.strategies.base import Query, Strategy, stack_picks
from alfm.strategies.batch import highest
from alfm.strategies.embedding import per_replicate

BETA1, BETA2, ADAM_EPS = 0.9, 0.999, 1e-8
LOG_VARIANCE = 10.0  # bound on the encoder's log variance, so that no minibatch overflows


@dataclass(eq=False)
class Vaal(Strategy):
    """The items that a discriminator is surest are not labelled, lowest "labelled" probability first (algorithm 2).

    A variational autoencoder of the features (latent 32) and a discriminator of its latent means are trained in turn:
    the autoencoder on reconstruction + `beta` KL of labelled and unlabelled items + `adversarial` x the loss of making
    the discriminator call both labelled (eqs. 1-3), the discriminator on telling them apart (eq. 4).

    Here the input is the standardised frozen feature, so the networks are small: one hidden layer of `hidden` units
    each way (there convolutions on images), Adam, `steps` minibatches of `batch` labelled and `batch` unlabelled items
    drawn with replacement. Squared errors and KL are summed per item, as in the evidence bound. Everything is trained
    anew in every round from a start of its own, so that a round is a function of pool and picks. No head is used; one
    is asked for because labelled items are. Cost: steps x 40 batch D hidden operations per replicate, then one pool
    pass of N D hidden. On two real caches 40 steps told covered from uncovered classes about as well as 500 (area under
    the ROC curve 0.69 on average, against 0.65).
    """

    stochastic = True
    latent: int = 32
    beta: float = 1.0
    adversarial: float = 1.0
    hidden: int = 128
    steps: int = 40
    batch: int = 64
    lr: float = 5e-3

    def select(self, query: Query, budget: int) -> Tensor:
        pool = query.pool
        mean, sd = pool.moments
        standard = Scaled(mean, torch.where(sd > 0, sd, torch.ones_like(sd)))
        score = torch.stack(per_replicate(query, lambda r: self._score(query, r, standard)))
        return stack_picks(highest(query, score, budget), budget, pool.device)

    def _score(self, query: Query, r: int, standard: Scaled) -> Tensor:
        """-logit of "labelled", (N,)."""
        pool, labelled = query.pool, query.labelled(r)
        unlabelled = query.available[r].nonzero()[:, 0]
        draws = torch.Generator().manual_seed(query.key(r, "vaal"))
        nets = Networks(pool.D, self.hidden, self.latent, draws, pool.dtype, pool.device)

        def batches(rows: Tensor) -> Tensor:
            place = torch.randint(len(rows), (self.steps * self.batch,), generator=draws)
            return rows[place.to(rows.device)].view(self.steps, self.batch)

        chosen = torch.cat([batches(labelled), batches(unlabelled)], 1)
        noise = torch.randn(self.steps, 2 * self.batch, self.latent, generator=draws).to(pool.device, pool.dtype)
        is_labelled = torch.zeros(2 * self.batch, dtype=pool.dtype, device=pool.device)
        is_labelled[: self.batch] = 1.0
        for step in range(self.steps):
            x = standard(pool.gather(chosen[step]))
            nets.gradients(x, noise[step], is_labelled, self.beta, self.adversarial)
            for net in (nets.encoder, nets.decoder, nets.judge):
                net.descend(self.lr, step + 1)
        return torch.cat([-nets.judge(nets.encoder(standard(x))[:, : self.latent])[:, 0] for _, x in pool.raw_blocks()])


class Networks:
    """Encoder D -> hidden -> 2 latent, decoder latent -> hidden -> D, judge latent -> hidden -> hidden -> 1.

    The encoder gives means and log variances; the judge, the discriminator, gives the logit of "labelled". Gradients
    are written out: on networks this small, autograd's bookkeeping takes longer than the products.
    """

    def __init__(
        self, D: int, hidden: int, latent: int, draws: torch.Generator, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.encoder = Perceptron((D, hidden, 2 * latent), draws, dtype, device)
        self.decoder = Perceptron((latent, hidden, D), draws, dtype, device)
        self.judge = Perceptron((latent, hidden, hidden, 1), draws, dtype, device)

    def gradients(
        self, x: Tensor, noise: Tensor, is_labelled: Tensor, beta: float, adversarial: float
    ) -> tuple[Tensor, Tensor]:
        """Both losses of a minibatch, means over its b items; their gradients are left in the networks.

        x (b, D), noise (b, latent), is_labelled (b,) in {0, 1}. Autoencoder: |decoded - x|^2 + beta KL - adversarial
        log D(mu), by encoder and decoder. Discriminator: binary cross-entropy, by the judge.
        """
        b = len(x)
        mu, raw = self.encoder(x).chunk(2, 1)
        log_var = raw.clamp(-LOG_VARIANCE, LOG_VARIANCE)
        variance = log_var.exp()
        spread = noise * variance.sqrt()
        error = self.decoder(mu + spread) - x
        logit = self.judge(mu)[:, 0]
        not_labelled = torch.sigmoid(-logit)
        to_fool = torch.nn.functional.softplus(-logit)
        kl = 0.5 * (mu.square() + variance - 1 - log_var).sum(1)
        autoencoder = (error.square().sum(1) + beta * kl + adversarial * to_fool).mean()
        discriminator = (to_fool + (1 - is_labelled) * logit).mean()

        d_code = self.decoder.backward(error.mul_(2 / b))
        d_judged = self.judge.backward((-adversarial / b) * not_labelled[:, None])
        self.judge.backward(((1 - not_labelled - is_labelled) / b)[:, None], into_input=False)
        d_log_var = 0.5 * (d_code * spread + (beta / b) * (variance - 1)) * (raw == log_var)
        d_mu = d_code + d_judged + (beta / b) * mu
        self.encoder.backward(torch.cat([d_mu, d_log_var], 1), into_input=False)
        return autoencoder, discriminator


class Perceptron:
    """Linear layers with ReLU between them; parameters, gradients and Adam's moments are one flat vector each."""

    def __init__(
        self, sizes: tuple[int, ...], draws: torch.Generator, dtype: torch.dtype, device: torch.device
    ) -> None:
        start = []
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            start += [(2 * torch.rand(b * a, generator=draws) - 1) / math.sqrt(a), torch.zeros(b)]
        self.flat = torch.cat(start).to(device, dtype)
        self.slope, self.first, self.second = (torch.zeros_like(self.flat) for _ in range(3))
        self.layers, self.slopes = (self._layers(flat, sizes) for flat in (self.flat, self.slope))
        self.inputs: list[Tensor] = []

    @staticmethod
    def _layers(flat: Tensor, sizes: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
        layers, at = [], 0
        for a, b in zip(sizes[:-1], sizes[1:], strict=True):
            layers.append((flat[at : at + a * b].view(b, a), flat[at + a * b : at + a * b + b]))
            at += a * b + b
        return layers

    def __call__(self, x: Tensor) -> Tensor:
        """(b, first size) -> (b, last size); remembers what `backward` needs."""
        self.inputs = []
        for i, (w, bias) in enumerate(self.layers):
            x = x.relu_() if i else x
            self.inputs.append(x)
            x = torch.addmm(bias, x, w.T)
        return x

    def backward(self, d: Tensor, into_input: bool = True) -> Tensor:
        """Gradient d of the output -> gradients of the parameters, and of the input if wanted."""
        for i in reversed(range(len(self.layers))):
            x, (w, _), (dw, db) = self.inputs[i], self.layers[i], self.slopes[i]
            torch.mm(d.T, x, out=dw)
            torch.sum(d, 0, out=db)
            if i or into_input:
                d = d @ w
            if i:
                d.masked_fill_(x <= 0, 0.0)
        return d

    def descend(self, lr: float, step: int) -> None:
        """One step of Adam (Kingma & Ba 2015); step counts from 1."""
        self.first.lerp_(self.slope, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(self.slope, self.slope, value=1 - BETA2)
        scale = (self.second / (1 - BETA2**step)).sqrt_().add_(ADAM_EPS)
        self.flat.addcdiv_(self.first, scale, value=-lr / (1 - BETA1**step))
