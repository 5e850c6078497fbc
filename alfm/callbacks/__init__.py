"""What is told of a run as it goes on: one method, called after every round."""

from alfm.callbacks.base import Callback, Round, Run, SeedRound
from alfm.callbacks.tensorboard import TensorBoard

__all__ = ["Callback", "Round", "Run", "SeedRound", "TensorBoard"]
