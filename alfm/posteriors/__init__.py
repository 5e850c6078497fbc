"""Posteriors over a head: feature dropout, ensembles, last-layer Laplace."""

from alfm.posteriors.base import Draws, Posterior, pool_pass
from alfm.posteriors.dropout import DropoutPosterior
from alfm.posteriors.ensemble import Ensemble
from alfm.posteriors.laplace import Laplace

__all__ = ["Draws", "DropoutPosterior", "Ensemble", "Laplace", "Posterior", "pool_pass"]
