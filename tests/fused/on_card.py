"""What can be tried of a kernel without a card: its numbers in Triton's interpreter, and that it compiles for one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


def interpreted(module: str) -> list[str]:
    """The lines that `compare()` of a module of tests prints, kernels interpreted on the CPU.

    In a process of its own: what triton brings along is interpreted too only where it is imported so.
    """
    pytest.importorskip("triton")
    env = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])}
    code = f"import {module} as tests; tests.compare()"
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout.splitlines()


def compiled(kernel: Any, types: Mapping[str, str], constants: Mapping[str, Any], **options: Any) -> Mapping[str, Any]:
    """The texts of a kernel down to a card's own code, `cubin`, which needs no card.

    types: of the arguments that are not int32; constants: of the compile-time ones.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {n: "constexpr" if n in constants else types.get(n, "i32") for n in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=dict(constants))
    made: Mapping[str, Any] = triton.compile(source, target=GPUTarget("cuda", 80, 32), options=options).asm
    assert len(made["cubin"]) > 1000
    return made
