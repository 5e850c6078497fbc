"""Weights: from a hub, from a file, or from a seed; and what identifies them afterwards."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

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
        reason = _first_line(error)
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


@contextlib.contextmanager
def from_hub(model: str, licence_page: str | None = None, hint: str = "") -> Iterator[None]:
    """Around a download: no endless retries where the hub cannot be reached, and one plain sentence on failure.

    Weights that are in the hub's local cache load all the same. `UserError` names the model, the reason, the
    file option, and for gated weights the licence page and `HF_TOKEN`.
    """
    from huggingface_hub import constants

    unreachable = _unreachable(constants.ENDPOINT)
    offline = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = offline or unreachable is not None
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)  # the libraries report each failed attempt; the reason is given once, below
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except UserError:
        raise
    except Exception as error:
        reason = unreachable or ("HF_HUB_OFFLINE is set" if offline else _first_line(error))
        text = f"the weights of {model} could not be had ({reason})"
        gated = any(word in repr(_causes(error)) for word in ("Gated", "gated", "401", "403"))
        if gated or licence_page:
            page = licence_page or f"https://huggingface.co/{model}"
            text += f"; they need an accepted licence ({page}) and your token in HF_TOKEN"
        raise UserError(f"{text}; or put a file on disk and give {hint or 'model.checkpoint=PATH'}") from error
    finally:
        constants.HF_HUB_OFFLINE = offline
        logging.disable(disabled)


def _unreachable(endpoint: str) -> str | None:
    """Why the hub's host cannot be reached, as far as the name service tells at once; None when it may be."""
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return None  # the proxy resolves names
    host = endpoint.split("//")[-1].split("/")[0].split(":")[0]
    try:
        socket.getaddrinfo(host, 443)
        return None
    except OSError:
        return f"no network: the host {host} is not found"


def _causes(error: BaseException) -> list[str]:
    chain: list[str] = []
    current: BaseException | None = error
    while current is not None and len(chain) < 10:
        chain.append(f"{type(current).__name__}: {current}")
        current = current.__cause__ or current.__context__
    return chain


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]
