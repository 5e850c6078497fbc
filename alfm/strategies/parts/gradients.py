"""The gradient of the loss by the head's weights, g = d (outer) phi: its part that the logits decide."""

from __future__ import annotations

import torch
from torch import Tensor


def prediction_error(logits: Tensor) -> Tensor:
    """d = p - e_y with y the predicted class; (.., C) -> (.., C). p_y - 1 from the others: exact for certain items."""
    y = logits.argmax(-1, keepdim=True)
    others = torch.softmax(logits, -1).scatter_(-1, y, 0)
    return others.scatter_(-1, y, -others.sum(-1, keepdim=True))
