"""The tests of CUDA, in processes of their own: where this machine has none, a simulated device patches torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.mark.parametrize("name", sorted(path.stem for path in HERE.glob("on_*.py")))
def test_on_the_device(name: str) -> None:
    """`python -m pytest -p device.start tests/device/on_rounds.py` with tests/ in PYTHONPATH runs one by hand."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CUDA_VISIBLE"))}
    paths = os.pathsep.join([str(HERE.parent), str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-p", "device.start", "-p", "no:xdist", "-p", "no:cacheprovider", "-q"]
    ran = subprocess.run(
        [*command, str(HERE / f"{name}.py")], env=inherited | {"PYTHONPATH": paths}, cwd=HERE.parents[1],
        capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-5_000:]
