"""A fitted head in a file, so that what was trained can be used elsewhere: a plain `state_dict`, or ONNX.

export(head, "head.pt", classes)  # and head.json beside it: class names, and the module that loads it
export(head, "head.onnx", classes)  # features -> logits, probabilities; class names in its metadata
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alfm.errors import UserError
from alfm.files import replacing
from alfm.heads.linear import LinearHead
from alfm.heads.modules import TINY, Mix, as_module, empty_like, spelt

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18


def export(head: LinearHead, path: Path | str, classes: Sequence[str], r: int = 0) -> Path:
    """Writes replicate r's head: `.pt` a state_dict, with a `.json` beside it; `.onnx` a model; whole or not at all.

    head: as a classifier's `fit` gave it, of any kind of ours; classes: C names in the order of its logits. Both take
    raw features (b, D) float32, scaled by nobody. Returns the path. Raises UserError for another ending, a wrong number
    of names, a head on a user's own space, or ONNX without the package `onnx`.
    """
    path, names = Path(path), [str(name) for name in classes]
    if len(names) != head.C:
        raise UserError(f"The head knows {head.C} classes, but {len(names)} names were given: give one for each.")
    if path.suffix not in (".pt", ".onnx"):
        raise UserError(
            f"{path} ends neither in .pt (a state_dict) nor in .onnx: give the file one of the two endings."
        )
    module = as_module(head, r)
    if path.suffix == ".onnx":
        model = to_onnx(module, names)
        with replacing(path) as file:
            file.write(model.SerializeToString())
        return path
    about = {"classes": names, "features": _width(module), "module": spelt(module)}
    with replacing(path) as file:
        torch.save(module.state_dict(), file)
    with replacing(path.with_suffix(".json")) as file:
        file.write(json.dumps(about, indent=2, ensure_ascii=False).encode() + b"\n")
    return path


def load_module(path: Path | str) -> tuple[nn.Module, list[str]]:
    """The module in evaluation mode, features (b, D) -> logits (b, C), and the class names of an exported `.pt`.

    Nothing is unpickled. Raises UserError when the two files are not what `export` wrote.
    """
    path = Path(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        names = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["classes"]
        module = empty_like(state)
        module.load_state_dict(state)
    except UserError:
        raise
    except Exception as error:  # torch has a new exception for each way in which a file can be wrong
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} and the .json beside it are no exported head: {first}; export it again.") from None
    return module, names


def to_onnx(module: nn.Module, classes: Sequence[str]) -> ModelProto:
    """features (b, D) float -> logits (b, C), probabilities (b, C); metadata `classes`: a JSON list of names."""
    try:
        from onnx import TensorProto, checker, helper, numpy_helper
    except ImportError:
        raise UserError(
            "An ONNX file needs the package onnx: pip install 'alfm[onnx]', or export a .pt file."
        ) from None

    graph = _Graph(numpy_helper.from_array, helper.make_node)
    logits = graph.through(module, "features", "logits")
    graph.node("Softmax", [logits], "probabilities", axis=1)
    D, C = _width(module), len(classes)

    def value(name: str, width: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["items", width])

    body = helper.make_graph(
        graph.nodes, "head", [value("features", D)], [value("logits", C), value("probabilities", C)], graph.constants
    )
    opset = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(body, opset_imports=opset, producer_name="alfm", ir_version=9)
    helper.set_model_props(model, {"classes": json.dumps(list(classes), ensure_ascii=False)})
    checker.check_model(model)
    return model


class _Graph:
    """Nodes and constants of a model, as they are met."""

    def __init__(self, tensor: Any, node: Any) -> None:
        self._tensor, self._node = tensor, node
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def constant(self, name: str, value: Tensor) -> str:
        self.constants.append(self._tensor(value.detach().cpu().numpy(), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.nodes.append(self._node(kind, list(inputs), [output], **attributes))
        return output

    def through(self, module: nn.Module, x: str, output: str) -> str:
        """What a module makes of the value x, under the name `output`."""
        if isinstance(module, nn.Sequential):
            for place, part in enumerate(module):
                x = self.through(part, x, output if place == len(module) - 1 else f"{output}_{place}")
            return x
        if isinstance(module, nn.Linear):
            weight, bias = (
                self.constant(f"{output}_weight", module.weight),
                self.constant(f"{output}_bias", module.bias),
            )
            return self.node("Gemm", [x, weight, bias], output, transB=1)
        if isinstance(module, nn.BatchNorm1d):
            assert module.running_mean is not None and module.running_var is not None
            shift = self.constant(f"{output}_shift", module.running_mean)
            scale = self.constant(f"{output}_scale", module.running_var.sqrt())
            return self.node("Div", [self.node("Sub", [x, shift], f"{output}_centred"), scale], output)
        if isinstance(module, nn.RMSNorm):
            square = self.node("Mul", [x, x], f"{output}_square")
            axes = self.constant(f"{output}_axes", torch.tensor([1]))
            mean = self.node("ReduceMean", [square, axes], f"{output}_mean", keepdims=1)
            least = self.node("Add", [mean, self.constant(f"{output}_tiny", torch.tensor(TINY))], f"{output}_least")
            return self.node("Div", [x, self.node("Sqrt", [least], f"{output}_rms")], output)
        assert isinstance(module, Mix)
        down = self._gelu(self.through(module.down, x, f"{output}_down"))
        up = self._gelu(self.through(module.up, down, f"{output}_up"))
        step = self.node("Sub", [up, x], f"{output}_step")
        gate = self.constant(f"{output}_gate", torch.sigmoid(module.alpha))
        return self.node("Add", [x, self.node("Mul", [step, gate], f"{output}_gated")], output)

    def _gelu(self, x: str) -> str:
        """x / 2 (1 + erf(x / sqrt(2)))."""
        root = self.constant(f"{x}_root", torch.tensor(0.5**0.5))
        erf = self.node("Erf", [self.node("Mul", [x, root], f"{x}_scaled")], f"{x}_erf")
        one = self.node("Add", [erf, self.constant(f"{x}_one", torch.tensor(1.0))], f"{x}_sum")
        half = self.node("Mul", [x, self.constant(f"{x}_half", torch.tensor(0.5))], f"{x}_halved")
        return self.node("Mul", [half, one], f"{x}_gelu")


def _width(module: nn.Module) -> int:
    """D, the raw features that a module takes."""
    last = module[-1] if isinstance(module, nn.Sequential) else module
    assert isinstance(last, nn.Linear)
    return last.in_features
