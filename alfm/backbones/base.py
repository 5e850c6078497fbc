"""What a backbone is to the extraction: an item in, a feature vector out."""

from __future__ import annotations

from typing import Any, Protocol

import torch


class Backbone(Protocol):
    """A frozen encoder. Built by its config's `_target_`; `load` brings weights onto the device, once."""

    name: str
    """File stem of the cache: architecture + tag + checkpoint stem + pooling, safe for file systems."""
    modality: str
    """`image`, `text` or `audio`: must equal the data set's."""
    dim: int
    """D. Known after `load`; 0 for a backbone whose D depends on the items, until its first `encode`."""
    fingerprint: str
    """Changes when weights, architecture, pooling or preprocessing change. Known after `load`."""
    provenance: dict[str, Any]
    """For the cache: preprocessing, layer, pooling, weights' licence, checkpoint. Known after `load`."""

    def load(self, device: torch.device) -> None:
        """Build the model, eval mode, on `device`. `UserError` when weights cannot be had."""
        ...

    def preprocess(self, item: Any) -> Any:
        """One item, in a worker process (so picklable, without the weights) -> what `collate` takes."""
        ...

    # a backbone that may be run with decode=gpu also has
    #   preprocess_decoded(image): uint8 RGB (3, H', W') on any device -> what `preprocess` gives, there

    def collate(self, items: list[Any]) -> Any:
        """A list of preprocessed items -> one batch: a tensor or a dict of tensors on the CPU."""
        ...

    def encode(self, batch: Any) -> torch.Tensor:
        """A batch on the device -> (B, D) features, any float dtype. Under inference mode and autocast."""
        ...
