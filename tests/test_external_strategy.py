"""What a user adds in a package of their own: a strategy, a data set, a backbone, named by `_target_` alone.

And the other way round: alfm installed from its wheel, used from another folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import alfm.al_train
import alfm.extract
from alfm.cache.reader import open_cache
from alfm.results import load_runs

PACKAGE = {
    "strategy.py": '''
import torch
from alfm import Strategy

class Farthest(Strategy):
    """The items whose features are longest, among every `step`-th row."""

    needs_head = False

    def __init__(self, step):
        self.step = step

    def select(self, query, budget):
        length = torch.cat([x.norm(dim=1) for _, x in query.pool.raw_blocks()])
        length[torch.arange(len(length)) % self.step != 0] = -1.0
        length = length.expand(query.R, -1).masked_fill(~query.available, -torch.inf)
        return length.topk(budget).indices
''',
    "data.py": '''
import numpy as np
from PIL import Image
from alfm.datasets.base import Dataset

class Stripes:
    """Noise with a bright stripe whose place is the class."""

    def __init__(self, count, seed):
        self.rng_seed, self.labels = seed, np.arange(count) % 3
        self.ids = [f"stripes/{seed}/{i}" for i in range(count)]

    def __len__(self):
        return len(self.ids)

    def load(self, index):
        image = np.random.default_rng([self.rng_seed, index]).integers(0, 90, (6, 6), dtype=np.uint8)
        image[2 * self.labels[index]] = 200
        return Image.fromarray(image)

def stripes(count):
    splits = {"train": Stripes(count, 0), "test": Stripes(count, 1)}
    return Dataset("stripes", "image", splits, ["top", "middle", "bottom"], f"stripes-{count}")
''',
    "model.py": """
import numpy as np
import torch

class RowMeans:
    modality, name, dim, fingerprint = "image", "row_means", 6, "row-means-1"
    provenance = {"pooling": "mean over columns"}

    def __init__(self, scale):
        self.scale = scale

    def load(self, device):
        pass

    def preprocess(self, item):
        return torch.from_numpy(np.asarray(item, dtype=np.float32))

    def collate(self, items):
        return torch.stack(items)

    def encode(self, batch):
        return batch.mean(2) * self.scale
""",
}
CONFIGS = {
    "query_strategy/farthest.yaml": {"_target_": "mylab.strategy.Farthest", "step": 2},
    "dataset/stripes.yaml": {"_target_": "mylab.data.stripes", "count": 60},
    "model/row_means.yaml": {"_target_": "mylab.model.RowMeans", "scale": 0.01},
}


@pytest.fixture
def mylab(tmp_path, monkeypatch) -> Path:
    """A package `mylab` and its configs; returns the folder of the configs."""
    package = tmp_path / "site" / "mylab"
    package.mkdir(parents=True)
    for name, text in {"__init__.py": "", **PACKAGE}.items():
        (package / name).write_text(text)
    for name, content in CONFIGS.items():
        file = tmp_path / "myconf" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(yaml.safe_dump(content))
    monkeypatch.syspath_prepend(package.parent)
    yield tmp_path / "myconf"
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


def test_a_strategy_of_ones_own_runs_from_a_config(mylab, digits_cache):
    words = ["--config-dir", str(mylab), f"cache={digits_cache}", "seeds=[1,2]", "iterations.n=3"]
    assert alfm.al_train.main([*words, "query_strategy=farthest", "query_strategy.step=3"]) == 0
    runs = load_runs(os.environ["LOG_DIR"])
    assert set(runs["query_strategy"]) == {"farthest"} and (runs["num_filled"] == 0).all()
    with np.load(Path(runs["path"].iloc[0]) / "picks.npz") as picks:
        for seed in ("1", "2"):
            first, later = picks[seed][:10], picks[seed][10:]
            length = np.linalg.norm(open_cache(digits_cache).features("train").astype(np.float32), axis=1)
            length[np.arange(len(length)) % 3 != 0] = -1
            length[first] = -np.inf
            assert set(later) == set(np.argsort(-length)[:20])


def test_a_strategy_of_ones_own_sweeps_beside_ours_and_is_a_cold_start(mylab, digits_cache):
    (mylab / "init_strategy").mkdir()
    shutil.copy(mylab / "query_strategy" / "farthest.yaml", mylab / "init_strategy")
    words = ["-m", "--config-dir", str(mylab), f"cache={digits_cache}", "seeds=[1]", "iterations.n=2"]
    assert alfm.al_train.main([*words, "query_strategy=farthest,margins", "init_strategy=farthest"]) == 0
    runs = load_runs(os.environ["LOG_DIR"])
    assert set(runs["query_strategy"]) == {"farthest", "margins", "random"} and runs["initial"].nunique() == 1


def test_a_data_set_and_a_backbone_of_ones_own_run_through_both_stages(mylab):
    chosen = ["--config-dir", str(mylab), "dataset=stripes", "model=row_means"]
    assert alfm.extract.main([*chosen, "num_workers=0", "cache.dtype=float32"]) == 0
    cache = open_cache(Path(os.environ["FEATURE_CACHE_DIR"]) / "stripes" / "row_means.h5")
    assert cache.class_names == ["top", "middle", "bottom"] and cache.ids("test")[7] == "stripes/1/7"
    from mylab.data import Stripes

    plain = [np.asarray(Stripes(60, 1).load(i), dtype=np.float32).mean(1) * 0.01 for i in range(60)]
    np.testing.assert_allclose(cache.features("test"), np.stack(plain), atol=1e-6)
    assert alfm.al_train.main([*chosen, "query_strategy=farthest", "seeds=[1]", "iterations.n=4"]) == 0
    runs = load_runs(os.environ["LOG_DIR"])
    assert set(runs["dataset"]) == {"stripes"} and set(runs["model"]) == {"row_means"}
    assert runs["accuracy"].iloc[-1] == 1.0  # the brightest row is the class


def test_a_target_that_is_not_there_is_named(mylab, digits_cache, capsys):
    (mylab / "query_strategy" / "gone.yaml").write_text("_target_: mylab.strategy.Gone\n")
    words = ["--config-dir", str(mylab), f"cache={digits_cache}", "seeds=[1]"]
    assert alfm.al_train.main([*words, "query_strategy=gone"]) == 1
    assert "There is no mylab.strategy.Gone" in capsys.readouterr().err
    assert alfm.al_train.main([*words, "query_strategy=fartest"]) == 2
    assert "farthest" in capsys.readouterr().err


def test_an_installed_wheel_finds_its_configs_from_any_folder(tmp_path, digits_cache):
    root = Path(alfm.__file__).resolve().parent.parent
    if not (root / "pyproject.toml").exists():
        pytest.skip("alfm is installed: there is nothing to build it from")
    pytest.importorskip("setuptools", minversion="77", reason="builds the wheel without an index")
    source = tmp_path / "source"  # a copy, because building leaves folders behind
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(root / "alfm", source / "alfm", ignore=ignored)
    shutil.copytree(root / "conf", source / "conf", ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "LICENSE"):
        shutil.copy(root / name, source)
    (source / "README.md").write_text("The wheel's description.\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    made = subprocess.run(
        [*pip, "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    (wheel,) = tmp_path.glob("alfm-*.whl")
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    installed = tmp_path / "site" / "alfm"
    for kind, ours, theirs in (("*.yaml", root / "conf", installed / "conf"), ("*.py", root / "alfm", installed)):
        missing = {f.relative_to(ours) for f in ours.rglob(kind)} - {f.relative_to(theirs) for f in theirs.rglob(kind)}
        few = ", ".join(sorted(map(str, missing))[:5])
        assert not missing, f"{len(missing)} files are not in the wheel ([tool.setuptools] in pyproject.toml): {few}"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site"), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-m", "alfm.al_train", f"cache={digits_cache}", "seeds=[1]", "iterations.n=2"],
        cwd=elsewhere, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert str(tmp_path / "log_dir") in run.stdout and not list(elsewhere.iterdir())
    which = "import alfm.settings; print(alfm.settings.conf_dir())"
    found = subprocess.run(
        [sys.executable, "-c", which], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert Path(found.stdout.strip()) == (tmp_path / "site" / "alfm" / "conf").resolve()
