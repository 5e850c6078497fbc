"""Exported heads say what the fitted ones say: as torch modules, as state_dicts, as ONNX."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from torch import Tensor

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.adapter import Adapter
from alfm.heads.dropout import Dropout
from alfm.heads.export import export, load_module
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.heads.modules import Mix, as_module, spelt
from alfm.heads.propagation import Propagated

KINDS = {
    "logistic": Logistic(),
    "logistic standard": Logistic(scaling="standard"),
    "logistic none": Logistic(scaling="none"),
    "dropout": Dropout(max_epochs=20),
    "adapter": Adapter(max_epochs=20),
    "propagated": Propagated(Logistic(), k=5),
    "propagated dropout": Propagated(Dropout(max_epochs=20), k=5),
}
LINEAR = {"logistic standard", "logistic none", "dropout", "propagated dropout"}
NAMES = ["cat", "dog", "Ærø", "=cmd()"]


def fitted(kind: str) -> tuple[LinearHead, Features]:
    """Two replicates' heads on features with a dead column, an outlying one and a zero row."""
    rng = np.random.default_rng(3)
    y = rng.integers(4, size=90)
    x = rng.normal(size=(4, 12))[y] * 1.5 + rng.normal(size=(90, 12)) + 0.5
    x[:, 3], x[:, 5] = 0.0, 100 + 30 * x[:, 5]
    x[7] = 0.0
    pool = Features(x.astype(np.float32))
    rows = torch.stack([torch.arange(30), torch.arange(40, 70)])
    return KINDS[kind].fit(pool, rows, torch.from_numpy(y)[rows], 4, [5, 6], round=2), pool


def wanted(head: LinearHead, pool: Features, r: int) -> Tensor:
    """Logits in float64, from the head's own parts."""
    space = head.spaces[r]
    phi = space(pool.features).double()
    return phi @ head.weight[r].double().T + head.bias[r].double()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("r", [0, 1])
def test_a_state_dict_gives_the_same_logits(kind, r, tmp_path):
    head, pool = fitted(kind)
    path = export(head, tmp_path / "head.pt", NAMES, r)
    state = torch.load(path, weights_only=True)
    about = json.loads((tmp_path / "head.json").read_text(encoding="utf-8"))
    assert about["classes"] == NAMES and about["features"] == 12
    scope = {"torch": torch, "alfm": __import__("alfm.heads.modules")}
    module = eval(about["module"], scope)  # what the file beside says, typed
    module.load_state_dict(state)
    with torch.no_grad():
        torch.testing.assert_close(module.eval()(pool.features).double(), wanted(head, pool, r), rtol=1e-4, atol=1e-4)
    loaded, names = load_module(path)
    assert names == NAMES and spelt(loaded) == about["module"] and not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded(pool.features), module(pool.features))
    if kind in LINEAR:
        linear = torch.nn.Linear(12, 4)
        linear.load_state_dict(state)
        with torch.no_grad():
            assert torch.equal(linear(pool.features), module(pool.features))
    assert sorted(one.name for one in tmp_path.iterdir()) == ["head.json", "head.pt"]


@pytest.mark.parametrize("kind", KINDS)
def test_onnx_gives_the_same_probabilities(kind, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    head, pool = fitted(kind)
    path = export(head, tmp_path / "head.onnx", NAMES, 1)
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == NAMES
    logits, probabilities = session.run(["logits", "probabilities"], {"features": pool.features.numpy()})
    expected = wanted(head, pool, 1)
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(probabilities, torch.softmax(expected, 1), rtol=1e-3, atol=1e-5)
    one = session.run(["probabilities"], {"features": pool.features[:1].numpy()})[0]  # any number of items
    np.testing.assert_allclose(one, probabilities[:1], rtol=1e-5)


def test_what_is_refused(tmp_path, monkeypatch):
    head, _ = fitted("logistic")
    with pytest.raises(UserError, match="4 classes, but 1 names"):
        export(head, tmp_path / "head.pt", ["a"])
    with pytest.raises(UserError, match=r"neither in .pt .* nor in .onnx"):
        export(head, tmp_path / "head.bin", NAMES)

    class Own:
        shared = True

        def __call__(self, x):
            return x

    with pytest.raises(UserError, match="A head on Own features"):
        as_module(LinearHead([Own()], head.weight[:1], head.bias[:1]))
    (tmp_path / "bad.pt").write_bytes(b"no zip")
    with pytest.raises(UserError, match="no exported head"):
        load_module(tmp_path / "bad.pt")
    torch.save({"other": torch.zeros(2)}, tmp_path / "bad.pt")
    (tmp_path / "bad.json").write_text('{"classes": ["a"]}')
    with pytest.raises(UserError, match="A state with other is none of a head"):
        load_module(tmp_path / "bad.pt")
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(UserError, match="needs the package onnx"):
        export(head, tmp_path / "head.onnx", NAMES)


def test_an_adapter_keeps_its_gate():
    head, pool = fitted("adapter")
    module = as_module(head)
    assert isinstance(module[0], Mix) and not list(p for p in module.parameters() if p.dtype != torch.float32)
