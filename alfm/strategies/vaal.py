"""VAAL: Sinha, Ebrahimi & Darrell 2019, "Variational adversarial active learning" (1904.00370)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from alfm.spaces import Scaled
from alfm.strategies.base import Query, Strategy, stack_picks
from alfm.strategies.batch import highest
from alfm.strategies.embedding import per_replicate

Layers = list[tuple[Tensor, Tensor]]


@dataclass(eq=False)
class Vaal(Strategy):
    """The items that a discriminator is surest are not labelled, lowest "labelled" probability first (algorithm 2).

    A variational autoencoder of the features (latent 32) and a discriminator of its latent means are trained in turn:
    the autoencoder on reconstruction + `beta` KL of labelled and unlabelled items + `adversarial` x the loss of making
    the discriminator call both labelled (eqs. 1-3), the discriminator on telling them apart (eq. 4).

    Here the input is the standardised frozen feature, so the networks are small: one hidden layer of `hidden` each
    (there convolutions on images), Adam, `steps` minibatches of `batch` labelled and `batch` unlabelled items, drawn
    with replacement. Squared errors and KL are summed per item, as in the evidence bound. Trained anew every round
    from a start of its own, so that a round is a function of pool and picks. It uses no head, and asks for one only
    because it needs labelled items. Cost: steps x 12 batch D hidden operations per replicate, then one pool pass of
    N D hidden.
    """

    stochastic = True
    latent: int = 32
    beta: float = 1.0
    adversarial: float = 1.0
    hidden: int = 128
    steps: int = 60
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
        autoencoder = torch.optim.Adam(nets.autoencoder, self.lr, fused=True)
        discriminator = torch.optim.Adam(nets.discriminator, self.lr, fused=True)
        for step in range(self.steps):
            x = standard(pool.gather(chosen[step]))
            loss, mu = nets.autoencoder_loss(x, noise[step], self.beta, self.adversarial)
            _descend(autoencoder, nets.autoencoder, loss)
            _descend(discriminator, nets.discriminator, nets.discriminator_loss(mu.detach(), is_labelled))
        with torch.no_grad():
            return torch.cat([-nets.judge(nets.encode(standard(x))[0]) for _, x in pool.raw_blocks()])


def _descend(optimiser: torch.optim.Optimizer, parameters: list[Tensor], loss: Tensor) -> None:
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimiser.step()


class Networks:
    """Encoder D -> hidden -> 2 latent, decoder latent -> hidden -> D, discriminator latent -> hidden -> hidden -> 1."""

    def __init__(
        self, D: int, hidden: int, latent: int, draws: torch.Generator, dtype: torch.dtype, device: torch.device
    ) -> None:
        def layers(*sizes: int) -> Layers:
            made = []
            for a, b in zip(sizes[:-1], sizes[1:], strict=True):
                w = (2 * torch.rand(b, a, generator=draws) - 1).div_(math.sqrt(a)).to(device, dtype)
                made.append((w.requires_grad_(), torch.zeros(b, dtype=dtype, device=device, requires_grad=True)))
            return made

        self.encoder, self.decoder = layers(D, hidden, 2 * latent), layers(latent, hidden, D)
        self.judging = layers(latent, hidden, hidden, 1)
        self.autoencoder = [p for layer in self.encoder + self.decoder for p in layer]
        self.discriminator = [p for layer in self.judging for p in layer]

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent, (b, latent) each."""
        mu, log_var = forward(self.encoder, x).chunk(2, 1)
        return mu, log_var.clamp(-10, 10)

    def judge(self, mu: Tensor) -> Tensor:
        """Logit of "labelled", (b,)."""
        return forward(self.judging, mu)[:, 0]

    def autoencoder_loss(self, x: Tensor, noise: Tensor, beta: float, adversarial: float) -> tuple[Tensor, Tensor]:
        """Loss of one minibatch x (b, D), noise (b, latent), and the latent means."""
        mu, log_var = self.encode(x)
        error = forward(self.decoder, mu + noise * (0.5 * log_var).exp()) - x
        kl = 0.5 * (mu.square() + log_var.exp() - 1 - log_var).sum(1)
        fooled = F.softplus(-self.judge(mu))  # -log of the probability "labelled"
        return (error.square().sum(1) + beta * kl + adversarial * fooled).mean(), mu

    def discriminator_loss(self, mu: Tensor, is_labelled: Tensor) -> Tensor:
        """Binary cross-entropy of one minibatch, both halves alike."""
        return F.binary_cross_entropy_with_logits(self.judge(mu), is_labelled)


def forward(layers: Layers, x: Tensor) -> Tensor:
    """Linear layers with ReLU between them."""
    for i, (w, b) in enumerate(layers):
        x = torch.addmm(b, x.relu() if i else x, w.T)
    return x
