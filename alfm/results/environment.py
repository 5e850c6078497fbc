"""What a session ran on, for `environment.json` and for benchmark tables."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any


def environment_of(device: str, cache_path: str | Path, cache_fingerprint: str, seeds: Sequence[int]) -> dict[str, Any]:
    """What a session ran on: versions, device, threads, cache, git commit of a checkout (else None), UTC time."""
    import datetime
    import platform
    from importlib import metadata

    import torch

    from alfm import devices

    versions = {"python": platform.python_version()}
    for package in ("alfm", "torch", "numpy", "scipy", "scikit-learn", "faiss-gpu", "faiss-cpu", "h5py"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seeds": [int(seed) for seed in seeds],
        "device": device,
        "accelerator": devices.of(device).accelerator,
        "machine": platform.platform(),
        "threads": torch.get_num_threads(),
        "versions": versions,
        "cache": str(cache_path),
        "cache_fingerprint": cache_fingerprint,
        "git_commit": _git_commit(),
    }


@cache
def _git_commit() -> str | None:
    """Commit of the checkout this package runs from, as it was when first asked, like the modules that are loaded.

    None when installed, even inside somebody's repository.
    """
    import subprocess

    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
