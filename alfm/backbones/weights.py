"""Weights from a file or from a seed, and what identifies them afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from alfm.datasets.hub import first_line
from alfm.errors import UserError


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random initialisation from `seed`, on the CPU; the caller's random state is as before afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would also seed the GPUs, for good
        yield


def read_state(path: str) -> dict[str, torch.Tensor]:
    """Tensors of a .safetensors file, or of what `torch.save` wrote (read with `weights_only=True`, never pickled).

    The usual wrappers (`state_dict`, `model`, ...) and the prefix `module.` are taken off. `UserError` otherwise.
    """
    if not os.path.isfile(path):
        raise UserError(f"model.checkpoint={path}: there is no such file")
    try:
        if path.endswith(".safetensors"):
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file raises nearly anything
        reason = first_line(error)
        raise UserError(
            f"model.checkpoint={path} cannot be read: {reason}; "
            "a safetensors file or a plain state dict saved by torch is needed"
        ) from error
    for key in ("state_dict_ema", "model_ema", "state_dict", "model", "teacher", "student"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not state or not all(torch.is_tensor(v) for v in state.values()):
        raise UserError(f"model.checkpoint={path} holds no state dict (names of tensors to tensors)")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def load_state(model: nn.Module, state: Mapping[str, torch.Tensor], path: str, spare: str = "") -> None:
    """Copy `state` into `model`; every weight must be there with its shape. Of what is left over, names that start
    with `spare` (a classifier that features do not need) are ignored; anything else is a `UserError`."""
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    missing = sorted(own.keys() - state.keys())
    spares = tuple(prefix for prefix in spare.split(",") if prefix)
    over = sorted(n for n in state.keys() - own.keys() if not (spares and n.startswith(spares)))
    shapes = sorted(n for n in own.keys() & state.keys() if own[n] != state[n].shape)
    if missing or over or shapes:
        found = [
            f"{len(names)} {what} (such as {names[0]})"
            for names, what in ((missing, "missing"), (over, "unknown"), (shapes, "of another shape"))
            if names
        ]
        raise UserError(
            f"model.checkpoint={path} does not fit this architecture: {', '.join(found)}; "
            "check model.arch and model.kwargs (num_classes, for instance)"
        )
    model.load_state_dict({name: state[name] for name in own})


def digest(model: nn.Module, identity: Mapping[str, Any]) -> str:
    """Fingerprint (32 hex digits) of the weights' values and of what else decides the features (`identity`)."""
    hasher = hashlib.blake2b(digest_size=16)
    hasher.update(json.dumps(identity, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        hasher.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()
