"""What a torch model says of a batch: its logits, and the embedding that its last layer sees."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from alfm.errors import UserError
from alfm.one_shot.reading import Inputs


class Said(NamedTuple):
    """logits (b, C) and embedding (b, D), float32 on the host."""

    logits: Tensor
    embedding: Tensor


class Probe:
    """A classification model, asked without being changed.

    The embedding comes from the model itself where it gives one: `get_outputs_and_embeddings(inputs)`, a pair (logits,
    embedding), or a dict with both. Else it is what went into the linear layer that made the logits; where that layer
    sees every token, at the token whose logits the model gave.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._layer: nn.Linear | None = None
        self._names = _argument_names(model)

    @property
    def last_layer(self) -> tuple[Tensor, Tensor] | None:
        """Weight (C, D) and bias (C,) of the layer that makes logits of embeddings, float32; None where not known.

        It is found when the model is first asked; whoever gives embeddings of its own keeps it to itself.
        """
        if self._layer is None:
            return None
        weight, bias = self._layer.weight, self._layer.bias
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return weight.detach().float().cpu(), bias.detach().float().cpu()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters(), torch.empty(0)).device

    @contextmanager
    def ready(self) -> Iterator[None]:
        """In evaluation mode and without gradients; every module's mode and the padding token are put back."""
        modes = [(module, module.training) for module in self.model.modules()]
        config: Any = getattr(self.model, "config", None)
        no_padding = config is not None and getattr(config, "pad_token_id", 0) is None
        try:
            self.model.eval()
            if no_padding:
                config.pad_token_id = -1  # nothing is padded: no token is one of padding
            with torch.no_grad():
                yield
        finally:
            for module, mode in modes:
                module.training = mode
            if no_padding:
                config.pad_token_id = None

    def say(self, inputs: Inputs, first: int) -> Said:
        """Of b items; first: the number of the first of them, for complaints. UserError for what is no answer."""
        inputs = _moved(inputs, self.device)
        ask = getattr(self.model, "get_outputs_and_embeddings", None)
        if ask is not None:
            logits, embedding = ask(inputs)
        else:
            logits, embedding = self._asked(inputs, first)
        b = len(next(iter(inputs.values()))) if isinstance(inputs, Mapping) else len(inputs)
        if logits.ndim != 2 or len(logits) != b or logits.shape[1] < 2:
            raise UserError(
                f"The model gives outputs of shape {tuple(logits.shape)} for {b} items: only classification models can "
                "be asked, with logits (items, classes) of two classes or more."
            )
        embedding = embedding.flatten(1)
        if len(embedding) != b:
            raise UserError(
                f"The model gives embeddings of shape {tuple(embedding.shape)} for {b} items: one for each."
            )
        stated = getattr(self.model, "get_embedding_dim", None)
        if stated is not None and stated() != embedding.shape[1]:
            raise UserError(
                f"get_embedding_dim() says {stated()}, but embeddings have {embedding.shape[1]} numbers: correct it."
            )
        said = Said(logits.float().cpu(), embedding.float().cpu())
        _finite(said.logits, first)
        _finite(said.embedding, first)
        return said

    def _asked(self, inputs: Inputs, first: int) -> tuple[Tensor, Tensor]:
        seen: list[tuple[nn.Linear, Tensor, Tensor]] = []

        def note(module: nn.Linear, given: tuple[Tensor, ...], made: Tensor) -> None:
            seen.append((module, given[0], made))

        layers = [module for module in self.model.modules() if isinstance(module, nn.Linear)]
        hooks = [one.register_forward_hook(note) for one in (layers if self._layer is None else [self._layer])]
        try:
            if isinstance(inputs, Mapping):
                kept = {name: value for name, value in inputs.items() if not self._names or name in self._names}
                out = self.model(**kept)
            else:
                out = self.model(inputs)
        finally:
            for hook in hooks:
                hook.remove()
        logits, embedding = _parts(out)
        if embedding is not None:
            return logits, embedding
        _finite(logits, first)  # or nothing would equal them
        for module, given, made in reversed(seen):
            found = _behind(logits, given, made)
            if found is not None:
                self._layer = module
                return logits, found
        raise UserError(
            f"{type(self.model).__name__} gives logits, but no linear layer of it makes them: let it return (logits, "
            "embedding), or offer get_outputs_and_embeddings."
        )


def _parts(out: Any) -> tuple[Tensor, Tensor | None]:
    """Logits, and the embedding where a model gives one, of what `forward` returns."""
    if isinstance(out, Tensor):
        return out, None
    if isinstance(out, Mapping):
        if "logits" not in out:
            raise UserError(f"The model gives {', '.join(map(str, out))} and no logits: give a classification model.")
        return out["logits"], next((out[name] for name in ("embedding", "embeddings") if name in out), None)
    if isinstance(out, (tuple, list)) and out and all(isinstance(one, Tensor) for one in out[:2]):
        pair = len(out) == 2 and out[1].ndim >= 2 and len(out[1]) == len(out[0])
        return out[0], out[1] if pair else None
    raise UserError(f"The model returns {type(out).__name__}: logits, or (logits, embedding), are needed.")


def _behind(logits: Tensor, given: Tensor, made: Tensor) -> Tensor | None:
    """What a layer saw, (b, D), if it made the logits (b, C): for each item, or for each of its tokens."""
    if made.shape[-1] != logits.shape[-1] or len(made) != len(logits):
        return None
    made = made.to(logits.dtype)
    if made.ndim == 2:
        return given if torch.equal(made, logits) else None
    if made.ndim != 3:
        return None
    same = (made == logits[:, None]).all(2)
    if not bool(same.any(1).all()):
        return None
    place = torch.arange(made.shape[1], device=made.device)
    last = torch.where(same, place, -1).amax(1)
    return given[torch.arange(len(given), device=given.device), last]


def _finite(numbers: Tensor, first: int) -> None:
    if not bool(torch.isfinite(numbers).all()):
        raise UserError(
            f"The model gives NaN or infinite numbers among {len(numbers)} items from item {first} on: look at them."
        )


def _moved(inputs: Inputs, device: torch.device) -> Inputs:
    if isinstance(inputs, Mapping):
        return {name: value.to(device) for name, value in inputs.items()}
    return inputs.to(device)


def _argument_names(model: nn.Module) -> set[str]:
    """What `forward` takes by name; nothing where it takes anything."""
    arguments = inspect.signature(model.forward).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in arguments):
        return set()
    return {one.name for one in arguments}
