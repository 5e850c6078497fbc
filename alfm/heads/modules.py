"""A fitted head as an ordinary torch module on raw features, for programs that do not have this package."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from alfm.errors import UserError
from alfm.features.spaces import Raw, Scaled, Unit
from alfm.heads.adapter import Adapted
from alfm.heads.linear import LinearHead

TINY = float(torch.finfo(torch.float32).tiny)


class Mix(nn.Module):
    """(1 - g) x + g gelu(up(gelu(down(x)))), g = sigmoid(alpha): the adapter of `alfm.heads.adapter`."""

    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(features, width), nn.Linear(width, features)
        self.alpha = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(b, D) -> (b, D)."""
        mixed = nn.functional.gelu(self.up(nn.functional.gelu(self.down(x))))
        return torch.lerp(x, mixed, torch.sigmoid(self.alpha))


def as_module(head: LinearHead, r: int = 0) -> nn.Module:
    """Replicate r's head as a module in evaluation mode: raw features (b, D) float32 -> logits (b, C).

    A head whose space is a shift and a scale is one `torch.nn.Linear(D, C)` with both folded in (`dropout`, `logistic`
    with scaling `standard` or `none`). One that sees features at length 1, as the default does, is not linear in them:
    `Sequential(BatchNorm1d, RMSNorm, Linear)`, the parts that scale, normalise and map. `adapter`: `Sequential(Mix,
    Linear)`. Raises UserError for a space of a user's own.
    """
    space, weight, bias = head.spaces[r], _wide(head.weight[r]), _wide(head.bias[r])
    D = weight.shape[1]
    if isinstance(space, (Raw, Unit)):
        shift, scale, unit = torch.zeros(D).double(), torch.ones(D).double(), isinstance(space, Unit)
    elif isinstance(space, Scaled):
        shift, scale, unit = _wide(space.shift), _wide(space.scale), space.unit
    elif isinstance(space, Adapted):
        mix = Mix(D, len(space.params[1]))
        for own, given in zip((*mix.down.parameters(), *mix.up.parameters(), mix.alpha), space.params, strict=True):
            own.data = _wide(given).float()
        return nn.Sequential(mix, _linear(weight, bias, _wide(space.shift), _wide(space.scale))).eval()
    else:
        raise UserError(
            f"A head on {type(space).__name__} features has no module of torch's that does the same: export one of "
            "classifier=logistic, dropout, adapter or propagated."
        )
    if not unit:
        return _linear(weight, bias, shift, scale).eval()
    standard = nn.BatchNorm1d(D, eps=0.0, affine=False)
    standard.running_mean, standard.running_var = shift.float(), scale.square().float()
    # z / |z| = z / rms(z) / sqrt(D)
    same = torch.zeros(D).double(), torch.ones(D).double()
    last = _linear(weight / D**0.5, bias, *same)
    return nn.Sequential(standard, nn.RMSNorm(D, eps=TINY, elementwise_affine=False), last).eval()


def spelt(module: nn.Module) -> str:
    """What makes an empty module of the same kind, as one types it."""
    if isinstance(module, nn.Sequential):
        return f"torch.nn.Sequential({', '.join(spelt(part) for part in module)})"
    if isinstance(module, Mix):
        return f"alfm.heads.modules.Mix({module.down.in_features}, {module.down.out_features})"
    if isinstance(module, nn.BatchNorm1d):
        return f"torch.nn.BatchNorm1d({module.num_features}, eps=0.0, affine=False)"
    if isinstance(module, nn.RMSNorm):
        return f"torch.nn.RMSNorm({module.normalized_shape[0]}, eps={TINY!r}, elementwise_affine=False)"
    assert isinstance(module, nn.Linear)
    return f"torch.nn.Linear({module.in_features}, {module.out_features})"


def empty_like(state: dict[str, Tensor]) -> nn.Module:
    """The module, without its values, that a state of `as_module` is loaded into; UserError for another state."""
    names, shape = set(state), {name: tuple(value.shape) for name, value in state.items()}
    if names == {"weight", "bias"}:
        C, D = shape["weight"]
        return nn.Linear(D, C).eval()
    if {"0.running_mean", "2.weight"} <= names:
        C, D = shape["2.weight"]
        norm = nn.RMSNorm(D, eps=TINY, elementwise_affine=False)
        return nn.Sequential(nn.BatchNorm1d(D, eps=0.0, affine=False), norm, nn.Linear(D, C)).eval()
    if {"0.down.weight", "1.weight"} <= names:
        C, D = shape["1.weight"]
        return nn.Sequential(Mix(D, shape["0.down.weight"][0]), nn.Linear(D, C)).eval()
    raise UserError(f"A state with {', '.join(sorted(names)) or 'nothing'} is none of a head: export it again.")


def _linear(weight: Tensor, bias: Tensor, shift: Tensor, scale: Tensor) -> nn.Linear:
    """x -> weight ((x - shift) / scale) + bias as one layer; everything float64 on the host, folded there."""
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    folded = weight / scale
    layer.weight.data, layer.bias.data = folded.float(), (bias - folded @ shift).float()
    return layer


def _wide(x: Tensor | Sequence[float]) -> Tensor:
    return torch.as_tensor(x).detach().cpu().double()
