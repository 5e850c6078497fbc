"""Shared by all tests: real data that scikit-learn bundles, and the environment of a user with nothing set."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

# Small products on busy cores: torch's own threads would wait for each other far longer than they compute. Two, so that
# jobs side by side are exercised.
torch.set_num_threads(2)


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test writes outside its own folder, whatever the user's environment or .env says."""
    for name in ("DATASET_DIR", "MODEL_CACHE_DIR", "FEATURE_CACHE_DIR", "LOG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("COLUMNS", raising=False)  # workers of pytest-xdist have it


@pytest.fixture(scope="session")
def digits_arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """train x, train y, test x, test y: 8 x 8 digits in [0, 1], stratified 70 / 30."""
    x, y = load_digits(return_X_y=True)
    parts = train_test_split((x / 16).astype(np.float32), y.astype(np.int64), test_size=0.3, stratify=y, random_state=0)
    return parts[0], parts[2], parts[1], parts[3]


@pytest.fixture(scope="session")
def digits_cache(digits_arrays, tmp_path_factory) -> Path:
    """A cache as other people have them: features and labels only."""
    path = tmp_path_factory.mktemp("cache") / "digits" / "pixels.h5"
    path.parent.mkdir()
    x, y, test_x, test_y = digits_arrays
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = x.astype(np.float16), y
        file["test/features"], file["test/labels"] = test_x.astype(np.float16), test_y
    return path


@pytest.fixture(scope="session")
def digits_task(digits_arrays):
    from alfm.features.features import Features
    from alfm.simulation.task import Task

    x, y, test_x, test_y = digits_arrays
    return Task(Features(x), torch.from_numpy(y), Features(test_x), torch.from_numpy(test_y), 10)
