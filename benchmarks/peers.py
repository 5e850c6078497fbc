"""Peers for `speed.py`: scikit-activeml, small-text, scikit-learn, and a stand-in for the trainer-per-round approach.

Each function is one job in a process of its own (see `machine.alone`). A peer's query is timed with its classifier
already fitted, on the same arrays, labelled rows and batch as ours, with this project's defaults where the peer has
the option. The libraries are called, never copied; the stand-in is this project's own code.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pools

# our strategy -> the peer's class and the options that make it do the same
SCIKIT_ACTIVEML: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("RandomSampling", {}),
    "uncertainty": ("UncertaintySampling", {"method": "least_confident"}),
    "entropy": ("UncertaintySampling", {"method": "entropy"}),
    "margins": ("UncertaintySampling", {"method": "margin_sampling"}),
    "bald": ("GreedyBALD", {"sample_predictions_method_name": "sample_proba"}),
    "batchbald": ("BatchBALD", {"sample_predictions_method_name": "sample_proba"}),
    "qbc": ("QueryByCommittee", {"method": "vote_entropy"}),
    "coreset": ("CoreSet", {}),
    "badge": ("Badge", {}),
    "typiclust": ("TypiClust", {"k": 20}),
    "probcover": ("ProbCover", {}),  # n_classes is added
    "maxherding": ("MaxHerding", {"metric": "rbf", "metric_dict": {"gamma": 1.0}}),
    "dropquery": ("DropQuery", {"dropout_rate": 0.75, "n_dropout_samples": 3}),
    "clue": ("Clue", {"method": "entropy"}),
    "falcun": ("Falcun", {"gamma": 10}),
    "cal": ("ContrastiveAL", {"nearest_neighbors_dict": {"n_neighbors": 10}}),
}
SMALL_TEXT: dict[str, tuple[str, dict[str, Any]]] = {
    "random": ("RandomSampling", {}),
    "uncertainty": ("LeastConfidence", {}),
    "entropy": ("PredictionEntropy", {}),
    "margins": ("BreakingTies", {}),
    "bald": ("BALD", {"dropout_samples": 20}),
    "coreset": ("GreedyCoreset", {"distance_metric": "euclidean", "normalize": False}),
    "centroid": ("EmbeddingKMeans", {}),
    "cal": ("ContrastiveActiveLearning", {"k": 10, "pbar": None}),
}


def repeated(once: Callable[[int], None], repeats: int, seconds: float) -> dict[str, Any]:
    """Median wall time of up to `repeats` calls, fewer when they have used up `seconds`."""
    times: list[float] = []
    while len(times) < repeats and (not times or sum(times) + times[-1] < seconds):
        began = time.perf_counter()
        once(len(times))
        times.append(time.perf_counter() - began)
    return {"seconds": statistics.median(times), "all_seconds": times}


def scikit_activeml(
    folder: str, strategy: str, labelled: int, batch: int, repeats: int, seconds: float
) -> dict[str, Any]:
    """One query of `batch` items by scikit-activeml; the classifier (logistic regression) is fitted beforehand."""
    import skactiveml.pool
    from skactiveml.classifier import SklearnClassifier
    from sklearn.ensemble import BaggingClassifier
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    X, rows, labels = _inputs(folder, labelled)
    C = int(labels.max()) + 1
    y = np.full(len(X), np.nan)
    y[rows] = labels[rows]

    class WithDropout(SklearnClassifier):
        """Logistic regression that also predicts under input dropout, 20 passes: (passes, items, classes)."""

        def sample_proba(self, X: np.ndarray, passes: int = 20, drop: float = 0.75) -> np.ndarray:
            rng = np.random.default_rng(0)
            keep = np.float32(1 / (1 - drop))
            masked = (X * (rng.random(X.shape, dtype=np.float32) >= drop) * keep for _ in range(passes))
            return np.stack([self.predict_proba(x) for x in masked])

    name, options = SCIKIT_ACTIVEML[strategy]
    if strategy == "probcover":
        options = options | {"n_classes": C}
    inputs: dict[str, Any] = {}
    if strategy == "qbc":
        committee = BaggingClassifier(LogisticRegression(max_iter=200), n_estimators=5)
        inputs = {"ensemble": SklearnClassifier(committee, classes=range(C)), "fit_ensemble": True}
    elif strategy not in ("random", "coreset", "typiclust", "probcover", "maxherding"):
        clf = WithDropout(LogisticRegression(max_iter=200), classes=range(C)).fit(X[rows], y[rows])
        ensemble = strategy in ("bald", "batchbald")
        word = "ensemble" if ensemble else "estimator" if strategy == "clue" else "clf"
        inputs = {word: clf, f"fit_{word}": False}

    def once(i: int) -> None:
        picks = getattr(skactiveml.pool, name)(random_state=i, **options).query(X=X, y=y, batch_size=batch, **inputs)
        assert len(np.unique(picks)) == batch

    return {"peer": f"scikit-activeml {name}"} | repeated(once, repeats, seconds)


def small_text(folder: str, strategy: str, labelled: int, batch: int, repeats: int, seconds: float) -> dict[str, Any]:
    """One query of `batch` items by small-text; probabilities come from a logistic regression fitted beforehand."""
    import small_text as library
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    X, rows, labels = _inputs(folder, labelled)
    model = LogisticRegression(max_iter=200).fit(X[rows], labels[rows])

    class Frozen:
        """What small-text asks of a classifier: probabilities, embeddings, and passes under dropout."""

        def predict_proba(self, dataset: Any, dropout_sampling: int = 1) -> np.ndarray:
            if dropout_sampling == 1:
                return model.predict_proba(dataset.x)
            rng = np.random.default_rng(0)
            masks = (rng.random(dataset.x.shape, dtype=np.float32) >= 0.75 for _ in range(dropout_sampling))
            return np.stack([model.predict_proba(dataset.x * mask * np.float32(4)) for mask in masks], axis=1)

        def embed(self, dataset: Any, return_proba: bool = False, pbar: Any = None) -> Any:
            return (dataset.x, self.predict_proba(dataset)) if return_proba else dataset.x

    name, options = SMALL_TEXT[strategy]
    dataset = library.SklearnDataset(X, labels)
    unlabelled = np.setdiff1d(np.arange(len(X)), rows)

    def once(i: int) -> None:
        np.random.seed(i)  # the library draws from NumPy's global stream
        made = getattr(library, name)(**options)
        picks = made.query(Frozen(), dataset, unlabelled, rows, labels[rows], n=batch)
        assert len(np.unique(picks)) == batch

    return {"peer": f"small-text {name}"} | repeated(once, repeats, seconds)


def scikit_learn(folder: str, labelled: int, repeats: int, seconds: float) -> dict[str, Any]:
    """LogisticRegression with its defaults: fit in float64 on the labelled rows, then probabilities of the pool."""
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore")
    X, rows, labels = _inputs(folder, labelled)
    x = X[rows].astype(np.float64)
    model = LogisticRegression(max_iter=1000)
    fit = repeated(lambda i: model.fit(x, labels[rows]), repeats, seconds)
    predict = repeated(lambda i: model.predict_proba(X), repeats, seconds)
    return {
        "peer": "scikit-learn LogisticRegression", "seconds": fit["seconds"], "predict_seconds": predict["seconds"],
        "all_seconds": fit["all_seconds"],
    }  # fmt: skip


def _inputs(folder: str, labelled: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Features float32 (N, D), labelled rows int64, labels int64 (N,)."""
    X, labels = pools.arrays(folder)
    rows = np.random.default_rng(1).choice(len(X), labelled, replace=False)
    return X.astype(np.float32, copy=False), rows, labels


# -- the trainer-per-round approach ------------------------------------------------------------------------------------


def stand_in(
    folder: str, labelled: int, batch: int, rounds: int, workers: int, seconds: float, device: str
) -> dict[str, Any]:
    """STAND-IN, this project's own code: active learning of ONE seed with a trainer, loader and checkpoint per round.

    The head is Gupte et al. 2024 (arXiv 2401.14555): dropout 0.75, batch normalisation, linear; AdamW 1e-2 / 1e-2;
    batches of 4096; at most 400 epochs; early stop (patience 20, min_delta 1e-3) and checkpoint on training loss.
    A round: a Trainer fits, the best checkpoint is loaded, a Trainer tests, a Trainer predicts the unlabelled pool,
    and the smallest margins are asked for. Kinder than common practice: features are in memory, no logger, no bar.
    """
    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
    from torch.utils.data import DataLoader, TensorDataset
    from torchmetrics.classification import (
        MulticlassAccuracy,
        MulticlassAUROC,
        MulticlassCalibrationError,
        MulticlassF1Score,
    )  # fmt: skip

    warnings.simplefilter("ignore")
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)

    class Head(pl.LightningModule):
        def __init__(self, dim: int, classes: int) -> None:
            super().__init__()
            self.net = torch.nn.Sequential(
                torch.nn.Dropout(0.75), torch.nn.BatchNorm1d(dim, affine=False), torch.nn.Linear(dim, classes)
            )
            self.measures = torch.nn.ModuleList([
                MulticlassAccuracy(classes, average="micro"), MulticlassAccuracy(classes), MulticlassF1Score(classes),
                MulticlassAUROC(classes), MulticlassCalibrationError(classes),
            ])  # fmt: skip

        def training_step(self, batch: Any, index: int) -> Any:
            loss = torch.nn.functional.cross_entropy(self.net(batch[0]), batch[1])
            self.log("train_loss", loss, on_step=False, on_epoch=True)
            return loss

        def test_step(self, batch: Any, index: int) -> None:
            logits = self.net(batch[0])
            self.log("test_nll", torch.nn.functional.cross_entropy(logits, batch[1]))
            for i, measure in enumerate(self.measures):
                measure(logits.softmax(1), batch[1])
                self.log(f"test_{i}", measure, on_step=False, on_epoch=True)

        def predict_step(self, batch: Any, index: int) -> Any:
            return self.net(batch[0]).softmax(1)

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), lr=1e-2, weight_decay=1e-2)

    features, labels = (torch.from_numpy(a) for a in pools.arrays(folder))
    test = TensorDataset(*(torch.from_numpy(a) for a in pools.arrays(folder, "test")))
    features = features.float()
    C = int(labels.max()) + 1
    kind = {"accelerator": "gpu" if device.startswith("cuda") else "cpu", "devices": 1, "logger": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False}
    pl.seed_everything(0, workers=True, verbose=False)
    rows = torch.randperm(len(features))[:labelled]
    measured: list[dict[str, float]] = []

    def loader(data: Any, shuffle: bool = False) -> Any:
        return DataLoader(data, batch_size=4096, shuffle=shuffle, num_workers=workers)

    began = time.perf_counter()
    for number in range(rounds):
        clock = time.perf_counter()
        with tempfile.TemporaryDirectory() as keep:
            model = Head(features.shape[1], C)
            checkpoint = ModelCheckpoint(dirpath=keep, monitor="train_loss", save_top_k=1)
            stop = EarlyStopping("train_loss", min_delta=1e-3, patience=20, check_on_train_epoch_end=True)
            extra = {"log_every_n_steps": 1, "num_sanity_val_steps": 0}
            trainer = pl.Trainer(max_epochs=400, callbacks=[checkpoint, stop], **extra, **kind, **quiet)
            trainer.fit(model, loader(TensorDataset(features[rows], labels[rows]), shuffle=True))
            epochs = trainer.current_epoch
            state = torch.load(checkpoint.best_model_path, weights_only=True)["state_dict"]
            model.load_state_dict(state)
        fitted = time.perf_counter()
        accuracy = pl.Trainer(**kind, **quiet).test(model, loader(test), verbose=False)[0]["test_0"]
        tested = time.perf_counter()
        left = torch.ones(len(features), dtype=torch.bool)
        left[rows] = False
        left = left.nonzero()[:, 0]
        parts = pl.Trainer(**kind, **quiet).predict(model, loader(TensorDataset(features[left])))
        top = torch.cat(parts).topk(2, dim=1).values
        rows = torch.cat([rows, left[(top[:, 1] - top[:, 0]).topk(batch).indices]])
        asked = time.perf_counter()
        measured.append({
            "labelled": len(rows) - batch, "epochs": epochs, "accuracy": accuracy,
            "fit": fitted - clock, "eval": tested - fitted, "query": asked - tested, "round": asked - clock,
        })  # fmt: skip
        if number >= 1 and asked - began + measured[-1]["round"] > seconds:
            break
    median = {key: statistics.median(m[key] for m in measured) for key in ("fit", "eval", "query", "round")}
    return {
        "peer": f"stand-in, num_workers={workers}", "workers": workers, "rounds": measured, "seconds": median["round"]
    } | median  # fmt: skip
