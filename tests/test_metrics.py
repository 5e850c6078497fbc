from __future__ import annotations

import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from reference.uherding import calibration_error as reference_error
from sklearn import metrics as sk

import alfm.metrics as module
from alfm import devices
from alfm.metrics import (
    METRICS,
    Metric,
    Scale,
    TestLabels,
    area_under_budget_curve,
    calibration_error,
    evaluate,
    evaluate_all,
)
from alfm.report.__main__ import main
from alfm.results.run_folder import RunFolder


def reference(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
    """The same measures with scikit-learn and plain loops, in float64."""
    log_p = torch.log_softmax(logits.double(), dim=1).numpy()
    p = np.exp(log_p)
    y = labels.numpy()
    predicted = logits.numpy().argmax(axis=1)
    present = np.unique(y)
    areas = [sk.roc_auc_score(y == c, log_p[:, c]) for c in range(p.shape[1]) if 0 < (y == c).sum() < len(y)]
    ece = 0.0
    confidence = p.max(axis=1)
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs((predicted == y)[inside].mean() - confidence[inside].mean())
    return {
        "accuracy": sk.accuracy_score(y, predicted),
        "balanced_accuracy": np.mean([(predicted[y == c] == c).mean() for c in present]),
        "macro_f1": sk.f1_score(y, predicted, labels=present, average="macro", zero_division=0),
        "macro_auroc": float(np.mean(areas)) if areas else math.nan,
        "nll": -log_p[np.arange(len(y)), y].mean(),
        "ece": ece,
    }


def case(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    logits = 3 * torch.randn(301, 7, generator=generator)
    labels = torch.randint(0, 7, (301,), generator=generator)
    logits[torch.arange(301), labels] += 2
    if kind == "ties":  # duplicate rows: equal probabilities for different labels
        logits = logits[torch.randint(0, 40, (301,), generator=generator)]
    elif kind == "near":  # tied in float32, apart in float64: two items' log p differ by less than a float32 step
        logits[200] = logits[3] + 1e-8 * torch.arange(7)
        logits = logits.double()
        logits[201] = logits[4] + 1e-9 * torch.arange(7).double()
        logits[202] = logits[5] - 1e-9 * torch.arange(7).double()
    elif kind == "absent":  # two classes never occur, though they are predicted
        labels = labels % 5
    elif kind == "rare":  # one positive in a class, most of the rest in another
        labels = torch.where(torch.rand(301, generator=generator) < 0.9, 3, labels)
        labels[labels == 6] = 0
        labels[17] = 6
    elif kind == "extreme":  # probabilities that underflow float64
        logits = logits * 300
    elif kind == "binary":
        logits, labels = logits[:, :2], labels % 2
    return logits, labels


KINDS = ["plain", "near", "ties", "absent", "rare", "extreme", "binary"]


@pytest.mark.parametrize("kind", KINDS)
def test_equals_scikit_learn(kind: str) -> None:
    logits, labels = case(kind)
    got, want = evaluate(logits, labels), reference(logits, labels)
    assert list(got) == list(METRICS)
    for name in METRICS:
        assert got[name] == pytest.approx(want[name], abs=1e-9), name


@pytest.mark.parametrize("kind", KINDS)
def test_small_blocks_give_the_same(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = case(kind)
    want = evaluate(logits, labels)
    monkeypatch.setattr(module, "_BLOCK", 700)  # two classes, a hundred rows at a time
    assert len(TestLabels.prepare(labels, logits.shape[1]).blocks) > (kind != "binary")
    assert evaluate(logits, labels) == pytest.approx(want, abs=1e-12)


def test_near_ties_are_told_apart() -> None:
    # the positive's log p is above the negative's by less than float32 can show
    logits = torch.tensor([[1 + 1e-10, 0.0], [1.0, 0.0], [0.3, 0.0]], dtype=torch.float64)
    assert evaluate(logits, torch.tensor([0, 1, 1]))["macro_auroc"] == 1.0
    assert evaluate(logits, torch.tensor([1, 0, 0]))["macro_auroc"] == 0.0


def test_float32_softmax_would_have_tied() -> None:
    # both confident rows have p = 1 in float32; the truly positive one is the surer
    logits = torch.tensor([[30.0, 0.0], [25.0, 0.0], [0.0, 0.0]])
    labels = torch.tensor([0, 1, 1])
    assert torch.softmax(logits, 1)[:2, 0].eq(1).all()
    assert evaluate(logits, labels)["macro_auroc"] == 1.0


def test_replicates_together_equal_each_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(3, 200, 5, generator=generator)
    labels = torch.randint(0, 5, (200,), generator=generator)
    together = evaluate_all(logits, labels, TestLabels.prepare(labels, 5))
    assert together == [evaluate(one, labels) for one in logits]
    assert evaluate_all([], labels) == []


@pytest.mark.parametrize("kind", ["plain", "ties"])
def test_replicates_measured_at_once_have_the_numbers_they_have_alone(kind: str) -> None:
    logits, labels = case("plain")
    logits = torch.stack([logits, -2 * logits, logits.round()] if kind == "plain" else [logits.round(), logits.sign()])
    prepared = TestLabels.prepare(labels, logits.shape[-1])
    at_once = evaluate_all([logits[:1], logits[1:]], labels, prepared)
    for one, wanted in zip(at_once, evaluate_all(logits, labels), strict=True):
        assert one == pytest.approx(wanted, rel=1e-12, abs=1e-15)
    logits[1, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="replicate 1"):
        evaluate_all([logits], labels, prepared)


def test_what_is_kept_between_rounds_is_a_threads_own_and_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where looks cost a wait: measures are taken in memory that is written again."""
    here = replace(devices.of("cpu"), looks_are_free=False)
    monkeypatch.setattr(devices, "of", lambda x: here)
    generator = torch.Generator().manual_seed(2)
    several = [torch.randn(2, 50, 4, generator=generator) for _ in range(40)]
    labels = torch.randint(0, 4, (50,), generator=generator)
    prepared, wanted = TestLabels.prepare(labels, 4), [evaluate_all(one, labels) for one in several]
    with torch.inference_mode():
        assert evaluate_all([several[0]], labels, prepared) == wanted[0]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: evaluate_all([one], labels, prepared), several))
    assert found == wanted and prepared.graphs
    other = pickle.loads(pickle.dumps(prepared))
    assert not other.graphs and evaluate_all([several[1]], labels, other) == wanted[1]


def test_one_class_in_the_labels_has_no_area() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    got = evaluate(logits, torch.tensor([0, 0]))
    assert math.isnan(got["macro_auroc"])
    assert (got["accuracy"], got["balanced_accuracy"]) == (0.5, 0.5)


def test_tied_logits_count_as_the_lower_class() -> None:
    assert evaluate(torch.zeros(4, 3), torch.tensor([0, 0, 1, 2]))["accuracy"] == 0.5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_callers_logits_are_left_alone(dtype: torch.dtype) -> None:
    logits, labels = case("plain")
    logits = logits.to(dtype)
    before = logits.clone()
    evaluate(logits, labels)
    assert torch.equal(logits, before)


def test_half_precision_logits() -> None:
    logits, labels = case("plain")
    half = logits.half()
    assert evaluate(half, labels) == pytest.approx(evaluate(half.float(), labels), abs=1e-12)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_logits_are_refused(bad: float) -> None:
    logits, labels = case("plain")
    broken = logits.clone()
    broken[4, 2] = bad
    with pytest.raises(ValueError, match="replicate 1 hold NaN or Inf"):
        evaluate_all([logits, broken], labels)


def test_unfitting_input_is_refused() -> None:
    logits, labels = case("plain")
    with pytest.raises(ValueError, match="do not fit"):
        evaluate(logits[:-1], labels)
    with pytest.raises(ValueError, match=r"\[0, 7\)"):
        evaluate(logits, labels - 1)
    with pytest.raises(ValueError, match="prepared for 9"):
        evaluate(logits, labels, TestLabels.prepare(labels, 9))
    with pytest.raises(ValueError, match="non-empty"):
        evaluate(logits[:0], labels[:0])


def test_only_one_transfer_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = case("plain")
    prepared = TestLabels.prepare(labels, 7)
    calls = []
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "nonzero", "cpu"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, _name=name, _original=original, **kwargs):
            calls.append(_name)
            return _original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    evaluate_all([logits, logits, logits], labels, prepared)
    on_the_way = ["nonzero"] * 3  # ranks on a CPU: no transfer there
    assert [name for name in calls if name != "nonzero"] == ["tolist"]
    assert [name for name in calls if name == "nonzero"] == on_the_way


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_gpu_agrees(kind: str) -> None:
    logits, labels = case(kind)
    assert evaluate(logits.cuda(), labels.cuda()) == pytest.approx(evaluate(logits, labels), abs=1e-9)


def test_areas_under_the_budget_curve() -> None:
    assert area_under_budget_curve([0.0, 1.0, 1.0], [10, 20, 40]) == pytest.approx(0.75)
    # by labels: (10 * 0.5 + 20 * 1) / 30
    assert area_under_budget_curve([0.0, 1.0, 1.0], [10, 20, 40], over="labels") == pytest.approx(25 / 30)
    assert area_under_budget_curve([0.3], [10]) == 0.3
    for values, labels, over in (([], [], "rounds"), ([1, 2], [3, 3], "rounds"), ([1, 2], [1, 2], "budget")):
        with pytest.raises(ValueError):
            area_under_budget_curve(values, labels, over)


def test_a_metric_is_one_value_wherever_it_is_used(tmp_path: Path, monkeypatch, capsys) -> None:
    """One entry more in METRICS, and rounds, tables, tests and curves know it, shown in its own scale."""

    def doubt(of):
        """Mean of 1 minus the largest probability."""
        return (1 - of.confidence).mean()

    monkeypatch.setitem(
        METRICS, "doubt", Metric("doubt", doubt, higher_is_better=False, scale=Scale(1000, 2, "permille"))
    )
    measured = evaluate(torch.eye(4, 3), torch.tensor([0, 1, 2, 0]))
    assert list(measured)[-1] == "doubt" and 0 < measured["doubt"] < 1
    for strategy, level in (("random", 1.0), ("margins", 0.5)):
        names = {"query_strategy": strategy, "init_strategy": "random", "classifier": "logistic"}
        config = {"query_strategy": strategy, "seeds": [1]}
        with RunFolder.open(tmp_path, dataset="d", model="m", config=config, cache_fingerprint="c", **names) as folder:
            for n in (1, 2):
                seconds = {"fit_seconds": 0, "query_seconds": 0, "eval_seconds": 0}
                row = {"seed": 1, "round": n, "num_labeled": n, **measured, "doubt": level / n, **seconds}
                row |= {"num_replicates": 1, "num_filled": 0, "peak_memory_bytes": 0}
                folder.append([row], {1: np.array([n])})
            folder.finish([1], "done")
    assert main([str(tmp_path), "--metric", "doubt", "--format", "markdown"]) == 0
    said = capsys.readouterr().out
    first = said.split("**Against")[0]
    names = [line.split(" | ")[0].strip("| ") for line in first.splitlines() if line.startswith("|")]
    assert names == ["strategy", "---", "margins", "random"]  # the lower, the better
    assert "| margins | 500.00 | 250.00 | 375.00 |" in said
    assert "doubt in permille after n labels" in said
    assert (tmp_path / "report" / "d-m-doubt.png").stat().st_size > 1000


def test_calibration_errors_of_many_temperatures_are_the_definition_and_those_of_each_alone() -> None:
    rng = np.random.default_rng(0)
    logits, labels = 5 * rng.normal(size=(60, 4)), rng.integers(4, size=60)
    temperatures = [1.0, 1.7, 6.0, 20.0]
    hit = torch.from_numpy(logits.argmax(1) == labels)
    confidence = torch.stack([torch.softmax(torch.from_numpy(logits) / t, 1).amax(1) for t in temperatures])
    found = calibration_error(confidence, hit)
    np.testing.assert_allclose(found.numpy(), [reference_error(logits / t, labels) for t in temperatures], atol=1e-12)
    assert found.tolist() == [float(calibration_error(one, hit)) for one in confidence]
    assert float(calibration_error(torch.ones(1, dtype=torch.float64), torch.tensor([True]))) == 0.0
