"""`python -m alfm.probe`: what all labels reach, kept beside the runs, and mistakes told in a sentence."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import alfm
from alfm.heads.dropout import Dropout
from alfm.heads.logistic import Logistic
from alfm.metrics import METRICS
from alfm.probe import main
from alfm.results.probe_file import read_probe
from alfm.simulation.ceiling import ceiling_of


@pytest.fixture
def caches(tmp_path, digits_arrays) -> list[Path]:
    """One data set, two layers: digits, and digits of which half the pixels are gone."""
    x, y, test_x, test_y = digits_arrays
    found = []
    for name, columns in (("whole", slice(None)), ("half", slice(0, 64, 4))):
        path = tmp_path / "features" / "digits" / f"{name}.h5"
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for split, a, b in (("train", x, y), ("test", test_x, test_y)):
                file[f"{split}/features"], file[f"{split}/labels"] = a[:, columns], b
        found.append(path)
    return found


def folder(path: Path) -> Path:
    return Path(os.environ["LOG_DIR"]) / path.parent.name / path.stem


def test_caches_are_compared_and_what_was_found_is_kept(caches, capsys, digits_arrays):
    whole, half = caches
    assert main([str(whole), str(half), "device=cpu"]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines() if line.strip().startswith("digits/")]
    assert [line[0] for line in lines] == ["digits/whole", "digits/half"]
    probe, other = (read_probe(folder(path)) for path in caches)
    assert probe is not None and other is not None
    assert set(probe.head) == set(METRICS) and probe.labels == probe.items == len(digits_arrays[0])
    assert probe.head["accuracy"] > other.head["accuracy"] > 0.5 and probe.knn["accuracy"] > 0.95
    assert lines[0][1:] == [
        str(probe.labels), "64", "10", f"{100 * probe.head['accuracy']:.1f}", f"{100 * probe.knn['accuracy']:.1f}",
        str(probe.knn["k"]),
    ]  # fmt: skip
    assert probe.cache_fingerprint == alfm.FeatureCache(whole).fingerprint
    task = alfm.Simulation(whole, "cpu")
    rows = torch.arange(task.pool.N)[None]
    head = Logistic().fit(task.pool, rows, task.labels[rows], 10, [1])
    assert task.measure(head)[0] == probe.head


def test_what_is_kept_is_not_worked_out_again_but_for_another_head_or_cache(caches, monkeypatch):
    import alfm.probe as command

    calls = []
    real = command.ceiling_of
    monkeypatch.setattr(command, "ceiling_of", lambda *a: calls.append(a) or real(*a))
    words = [str(caches[1].parent), "device=cpu"]  # a folder of caches
    for more, expected in (([], 2), ([], 2), (["classifier.strength=3.0"], 4), (["classifier.strength=3.0"], 4),
                           (["classifier.strength=3.0", "force=true"], 6)):  # fmt: skip
        assert main([*words, *more]) == 0
        assert len(calls) == expected
    probe = read_probe(folder(caches[0]))
    assert probe is not None and probe.classifier["strength"] == 3.0


def test_what_does_not_fit_in_memory_is_fitted_in_blocks_or_on_a_sample(caches):
    task = alfm.Simulation(caches[0], "cpu")
    whole = ceiling_of(task, Logistic())
    blocks = ceiling_of(task, Logistic(), most_bytes=1000)
    assert blocks.how.endswith("block by block") and blocks.labels == task.pool.N
    assert abs(blocks.head["nll"] - whole.head["nll"]) < 0.01 and blocks.knn == whole.knn
    some = ceiling_of(task, Dropout(max_epochs=20), most_bytes=100 * (4 * 64 + 80) * 4)
    assert some.labels == 100 and some.how.startswith("100 random labels of")


def test_other_metrics_and_heads(caches, capsys):
    words = [str(caches[1]), "device=cpu", "classifier=dropout", "classifier.max_epochs=20"]
    assert main([*words, "--metric", "nll"]) == 0
    out = capsys.readouterr().out
    assert "nll on the test split" in out and "dropout" in out and "nll asks for probabilities" in out


def broken(path: Path, **parts) -> str:
    with h5py.File(path, "w") as file:
        for name, values in parts.items():
            file[name.replace("__", "/")] = values
    return str(path)


def test_mistakes_are_told_in_a_sentence_and_stop_no_other_cache(caches, tmp_path, capsys):
    x, y = np.random.default_rng(0).normal(size=(20, 3)).astype("float32"), np.arange(20) % 2
    given = {
        "no_test.h5": ({"train__features": x, "train__labels": y}, "has no split 'test'"),
        "no_labels.h5": (
            {"train__features": x, "train__labels": y * 0 - 1, "test__features": x, "test__labels": y},
            "holds no labelled item",
        ),
        "many.h5": (
            {"train__features": x, "train__labels": np.eye(20, 4), "test__features": x, "test__labels": y},
            "labels",
        ),
    }
    paths = [broken(tmp_path / name, **parts) for name, (parts, _) in given.items()]
    assert main([*paths, str(tmp_path / "nowhere.h5"), str(caches[1]), "device=cpu"]) == 1
    shown = capsys.readouterr()
    lines = [line for line in shown.err.splitlines() if line]
    assert len(lines) == 4 and "There is no feature cache" in lines[3]
    for line, (_, sentence) in zip(lines, given.values(), strict=False):
        assert sentence in line
    assert "digits/half" in shown.out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["device=cpu"], "name a cache"),
        (["x.h5", "seeds=[3]"], "seeds=[3]: of al_train's settings only classifier"),
        (["x.h5", "--metric", "acuracy"], "no metric 'acuracy': did you mean accuracy"),
    ],
)
def test_a_wrong_command_line_is_refused(words, sentence, capsys):
    with pytest.raises(SystemExit):
        main(words)
    assert sentence in capsys.readouterr().err


def test_a_wrong_head_is_one_mistake(caches, capsys):
    assert main([*map(str, caches), "classifier.strength=-1"]) == 1
    assert capsys.readouterr().err.count("classifier.strength=-1") == 1
    assert main([str(caches[0]), "classifier=logistik"]) == 2
    assert "There is no classifier=logistik: did you mean logistic?" in capsys.readouterr().err


def test_a_damaged_file_is_named(caches, tmp_path):
    place = tmp_path / "logs"
    place.mkdir()
    (place / "probe.json").write_text(json.dumps({"format": 1}))
    with pytest.raises(alfm.UserError, match="probe.json cannot be read"):
        read_probe(place)
    assert read_probe(tmp_path / "nowhere") is None
