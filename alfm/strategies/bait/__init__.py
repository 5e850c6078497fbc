"""BAIT: the Fisher information of the pool, exactly per class or by the rank-one form."""

from alfm.strategies.bait.bait import Bait

__all__ = ["Bait"]
