from __future__ import annotations

import h5py
import numpy as np
import pytest

import alfm


@pytest.fixture
def cache(tmp_path, digits_arrays):
    """Digits with two shifted copies of each image as views."""
    x, y, test_x, test_y = digits_arrays
    images = x.reshape(-1, 8, 8)
    views = np.stack([images, np.roll(images, 1, 2), np.roll(images, -1, 2)], 1).reshape(len(x), 3, 64)
    path = tmp_path / "digits" / "views.h5"
    path.parent.mkdir()
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = views, y
        file["test/features"], file["test/labels"] = test_x, test_y
    return path


@pytest.mark.parametrize("classifier", ["logistic", "dropout"])
def test_heads_train_on_views_and_everything_else_sees_plain_items(cache, classifier):
    frames = {
        on: alfm.simulate(
            alfm.Simulation(cache, "cpu", train_views=on), "random", classifier=classifier, seeds=[1], rounds=3
        )
        for on in (True, False)
    }
    assert not np.allclose(frames[True].accuracy, frames[False].accuracy)
    plain = alfm.Simulation(cache, "cpu", train_views=False)
    assert alfm.Simulation(cache, "cpu").pool.features.shape == plain.pool.features.shape


def test_propagation_refuses_views(cache):
    with pytest.raises(alfm.UserError, match="train_views=false"):
        alfm.simulate(alfm.Simulation(cache, "cpu"), "random", classifier="propagated", seeds=[1], rounds=1)
