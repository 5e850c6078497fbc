"""Where Triton does not run, torch's own operations do."""

from __future__ import annotations

import pytest
import torch

from alfm.fused import operation


@pytest.mark.parametrize(
    "problem", [RuntimeError("Failed to find C compiler.\nSpecify one"), ImportError(""), OSError()]
)
def test_a_system_without_a_compiler_is_told_once(problem: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> None:
        raise problem

    monkeypatch.setattr(operation, "kernel", lambda module, name: fails)
    runs, said = operation.runs.__wrapped__, str(problem).partition("\n")[0] or repr(problem)
    with pytest.warns(RuntimeWarning) as told:
        assert not runs(torch.device("cpu"))
    assert str(told[0].message).startswith(f"Triton does not run on cpu ({said}): torch's own operations are used")
    monkeypatch.setattr(operation, "kernel", lambda module, name: lambda x, *others: x.sum())
    assert runs(torch.device("cpu"))


@pytest.mark.parametrize("triton_runs", [True, False])
def test_a_kernel_or_the_text(triton_runs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = {}
    monkeypatch.setattr(operation._LIBRARY, "define", lambda schema: None)
    monkeypatch.setattr(operation._LIBRARY, "impl", lambda name, made, where: registered.update({where: made}))
    monkeypatch.setattr(operation, "find_spec", lambda name: object())
    monkeypatch.setattr(operation, "runs", lambda device: triton_runs)
    monkeypatch.setattr(operation, "kernel", lambda module, name: lambda x: (module, name))
    monkeypatch.setattr("alfm.devices.Device.current", lambda self: torch.no_grad())
    operation.define("twice(Tensor x) -> Tensor", lambda x: 2 * x, "several")
    assert registered["CUDA"](torch.tensor(4)) == (("several", "twice") if triton_runs else 8)


def test_on_a_system_without_triton_there_is_the_text_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    registered = []
    monkeypatch.setattr(operation._LIBRARY, "define", lambda schema: None)
    monkeypatch.setattr(operation._LIBRARY, "impl", lambda name, made, where: registered.append(where))
    monkeypatch.setattr(operation, "find_spec", lambda name: None)
    operation.define("once(Tensor x) -> Tensor", lambda x: x)
    assert registered == ["CompositeExplicitAutograd"] and not operation.runs.__wrapped__(torch.device("cpu"))
