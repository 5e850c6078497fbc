"""VAAL (Sinha et al. 2019): the losses of one minibatch in plain NumPy."""

from __future__ import annotations

import numpy as np

Layers = list[tuple[np.ndarray, np.ndarray]]


def mlp(layers: Layers, x: np.ndarray) -> np.ndarray:
    """Linear layers with ReLU between them."""
    for i, (w, b) in enumerate(layers):
        x = (np.maximum(x, 0) if i else x) @ w.T + b
    return x


def autoencoder_loss(
    encoder: Layers,
    decoder: Layers,
    judging: Layers,
    x: np.ndarray,
    noise: np.ndarray,
    beta: float,
    adversarial: float,
) -> float:
    """Mean over items of squared error + beta KL(q || N(0, I)) - adversarial log D(mu)."""
    total = 0.0
    for item, eps in zip(x, noise, strict=True):
        code = mlp(encoder, item[None])[0]
        mu, variance = code[: len(eps)], np.exp(code[len(eps) :])
        decoded = mlp(decoder, (mu + eps * np.sqrt(variance))[None])[0]
        kl = sum(0.5 * (m**2 + v - np.log(v) - 1) for m, v in zip(mu, variance, strict=True))
        labelled = 1 / (1 + np.exp(-mlp(judging, mu[None])[0, 0]))
        total += ((decoded - item) ** 2).sum() + beta * kl - adversarial * np.log(labelled)
    return float(total / len(x))


def discriminator_loss(judging: Layers, mu: np.ndarray, is_labelled: np.ndarray) -> float:
    """Binary cross-entropy."""
    p = 1 / (1 + np.exp(-mlp(judging, mu)[:, 0]))
    return float(-np.mean(np.where(is_labelled == 1, np.log(p), np.log(1 - p))))
