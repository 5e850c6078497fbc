"""The items worth labelling for a model of one's own, in one pass over them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.heads.linear import LinearHead
from alfm.one_shot.probe import Probe, Said
from alfm.one_shot.reading import CHUNK, Reader, as_sequence, chunks, in_order, label_of
from alfm.one_shot.select_batch import WOULD_DO, select_batch, strategy_of
from alfm.one_shot.vessal_stream import VessalStream
from alfm.options import Count, Seed, checked
from alfm.posteriors import Ensemble
from alfm.strategies.ask import ask_on_host
from alfm.strategies.base import Strategy
from alfm.strategies.query import Query
from alfm.strategies.vessal import Vessal


class Selected(list[Any]):
    """The chosen items, in the order in which they came; indices: their places there."""

    def __init__(self, items: list[Any], indices: list[int]) -> None:
        super().__init__(items)
        self.indices = indices


class ActiveSampler:
    """Which unlabelled items a classification model should be taught.

        sampler = ActiveSampler("classification", (model, tokenizer), 100)
        valuable = sampler.select(sentences)  # 100 of them; valuable.indices: which

    problem_type: "classification". model: (model, processor) or a model alone. The model is a sequence, image or audio
    classification model of Hugging Face with its tokenizer, image processor, feature extractor or processor; or any
    torch module that gives logits and has a linear layer last, gives (logits, embedding), or offers
    `get_outputs_and_embeddings(inputs)` (and `get_embedding_dim()`), with a function that makes one item ready, or with
    tensors and arrays as items. It is asked where it is, in batches of `batch_size`, without gradients, in evaluation
    mode; its mode is put back.
    budget: a count; or a rate, a float between 0 and 1.
    query_strategy: `vessal` (VeSSAL), for which the items are a stream in their own order; or any other by its name or
    as a `Strategy`, asked as `select_batch` asks it, with the model's probabilities and its embedding as features.
    Those that work from draws or weights (bald, alfamix, ..) take the model's own last layer, where it is a linear one:
    draws are made around it by the strategy's `posterior`. Ensembles of refits (qbc) cannot serve.
    seed: of the random draws.
    """

    @checked
    def __init__(
        self,
        problem_type: str,
        model: Any,
        budget: int | float,
        query_strategy: str | Strategy = "vessal",
        *,
        batch_size: Count = 32,
        seed: Seed = 0,
    ) -> None:
        """Raises UserError for another problem, for what is no model, no budget or no strategy that can serve."""
        if problem_type != "classification":
            raise UserError(
                f"{problem_type!r} cannot be sampled for: strategies here work from class probabilities; give "
                '"classification" and a model that gives logits.'
            )
        if isinstance(model, (tuple, list)):
            if len(model) != 2:
                raise UserError(f"model must be (model, processor) or a model; got {len(model)} parts.")
            model, processor = model
        else:
            processor = None
        if not isinstance(model, nn.Module):
            raise UserError(f"The model must be a torch.nn.Module, not {type(model).__name__}.")
        _refuse_other_problems(model)
        if isinstance(budget, float) and not 0 < budget < 1:
            raise UserError(f"budget={budget}: a rate lies between 0 and 1; a count is a whole number.")
        if isinstance(budget, int) and budget < 1:
            raise UserError(f"budget={budget}: ask for one item or more.")
        self.strategy = strategy_of(query_strategy)
        _refuse_strategy(self.strategy)
        self.budget, self.batch_size, self.seed = budget, batch_size, seed
        self.probe = Probe(model)
        self.reader = Reader(processor, model, batch_size)

    @checked
    def select(self, items: Any, labeled_data: Any = (), length: Annotated[int, Ge(1)] | None = None) -> Selected:
        """The chosen items in input order, `.indices` beside them: `budget` of them, or all where there are fewer.

        items: a list, an array, a data set (by number), or an iterator, which is gone through once and of which only
        what was chosen is held. An item is a text, an image, a recording or a tensor; a pair (item, label); a dict with
        one of these; or a dict of what the model takes (`input_ids`, ..). labeled_data: what the model was taught, in
        the same forms; VeSSAL, which looks at the stream alone, does without, other strategies count it as labelled.
        length: how many items an iterator has, for VeSSAL with a count.

        A rate takes about that share by VeSSAL, and that share, rounded, by other strategies. Raises UserError for an
        iterator and a strategy that looks at everything before it picks, or a count of unknown length.
        """
        known = as_sequence(items)
        with self.probe.ready():
            if isinstance(self.strategy, Vessal):
                return self._streamed(items, len(known) if known is not None else length)
            if known is None:
                raise UserError(
                    f"{self.strategy.name} looks at every item before it picks, and an iterator's are gone by then: "
                    "give a list or a data set, or take vessal."
                )
            return self._compared(known, labeled_data)

    def _streamed(self, items: Any, length: int | None) -> Selected:
        assert isinstance(self.strategy, Vessal)
        rate = self.budget if isinstance(self.budget, float) else self.strategy.rate
        count = None if isinstance(self.budget, float) else int(self.budget)
        if rate is None and length is None:
            raise UserError(
                "An iterator does not say how many items it has: say so by select(items, length=...), or give a rate "
                "such as 0.01 as the budget."
            )
        stream = VessalStream(count, None if rate is not None else length, rate, self.strategy.ridge, self.seed)
        chosen, indices = [], []
        for first, chunk, said in self._answers(items):
            for place in np.flatnonzero(stream.take(said.embedding, said.logits)):
                chosen.append(chunk[place])
                indices.append(first + int(place))
            if stream.full:
                break
        return Selected(chosen, indices)

    def _compared(self, items: Any, labelled: Any) -> Selected:
        own, taught = self._all(items), self._all(labelled)
        N = len(own.logits)
        if not N:
            return Selected([], [])
        said = own if taught is None or not len(taught.logits) else _joined(own, taught)
        n = max(1, round(self.budget * N)) if isinstance(self.budget, float) else int(self.budget)
        labels = np.concatenate([np.full(N, -1), self._labels(labelled, said.logits.shape[1])])
        if {"head", "draws"} & set(self.strategy.needs or ()):
            picks = ask_on_host(self.strategy, self._query(said.embedding, labels), n)[0][0].numpy()
        else:
            p = torch.softmax(said.logits.double(), 1)
            picks = select_batch(said.embedding, labels, n, self.strategy, probabilities=p, seed=self.seed)
        indices = sorted(picks.tolist())
        return Selected([items[place] for place in indices], indices)

    def _query(self, embedding: Tensor, labels: np.ndarray) -> Query:
        """A query about the model's own last layer, a linear head on its embedding."""
        layer = self.probe.last_layer
        if layer is None:
            raise UserError(
                f"{self.strategy.name} works from the weights of the last layer, which a model that gives embeddings "
                "of its own does not show: let it give logits alone, by a linear layer."
            )
        head = LinearHead([RAW], layer[0][None], layer[1][None])
        known = torch.from_numpy(np.flatnonzero(labels >= 0))[None]
        codes, free = torch.from_numpy(labels)[known], torch.from_numpy(labels < 0)[None]
        round = 2 if known.numel() else 1
        return Query(Features(embedding), known, codes, free, head.C, [self.seed], round, head, LastLayer())

    def _all(self, items: Any) -> Said:
        parts = [said for _, _, said in self._answers(items)]
        if not parts:
            return Said(torch.empty(0, 0), torch.empty(0, 0))
        return Said(torch.cat([one.logits for one in parts]), torch.cat([one.embedding for one in parts]))

    def _answers(self, items: Any) -> Iterator[tuple[int, list[Any], Said]]:
        """Chunk after chunk: the number of its first item, its items, what the model says of them in their order."""
        first = 0
        for chunk in chunks(in_order(items), CHUNK * self.batch_size):
            logits: Tensor | None = None
            embedding: Tensor | None = None
            for batch in self.reader.batches(chunk, first):
                said = self.probe.say(batch.inputs, first + batch.places[0])
                if logits is None or embedding is None:
                    logits = said.logits.new_empty(len(chunk), said.logits.shape[1])
                    embedding = said.embedding.new_empty(len(chunk), said.embedding.shape[1])
                logits[batch.places], embedding[batch.places] = said
            assert logits is not None and embedding is not None
            yield first, chunk, Said(logits, embedding)
            first += len(chunk)

    def _labels(self, labelled: Any, C: int) -> np.ndarray:
        """Class numbers of what the model was taught; 0 where none is said and only items matter."""
        given = [label_of(item) for item in in_order(labelled)]
        if (not given or any(one is None for one in given)) and "labels" in (self.strategy.needs or ()):
            raise UserError(f"{self.strategy.name} works from labels: give labeled_data as pairs (item, label).")
        numbers = getattr(getattr(self.probe.model, "config", None), "label2id", None) or {}
        codes = [0 if one is None else numbers.get(one, one) for one in given]
        wrong = next((one for one in codes if not isinstance(one, (int, np.integer)) or not 0 <= one < C), None)
        if wrong is not None:
            raise UserError(f"labeled_data holds the label {wrong!r}: the model knows class numbers from 0 to {C - 1}.")
        return np.array(codes, np.int64).reshape(-1)


class LastLayer:
    """The classifier of a head that nobody fits here; posteriors take a prior of precision 1 around it."""

    def fit(self, *given: Any, **more: Any) -> LinearHead:
        raise RuntimeError("the model's last layer is not fitted here")

    def inverse_l2(self, num_classes: int) -> float:
        return 1.0


def _joined(first: Said, second: Said) -> Said:
    return Said(torch.cat([first.logits, second.logits]), torch.cat([first.embedding, second.embedding]))


def _refuse_other_problems(model: nn.Module) -> None:
    config = getattr(model, "config", None)
    kind = getattr(config, "problem_type", None)
    if kind in ("regression", "multi_label_classification") or getattr(config, "num_labels", 2) == 1:
        name = str(kind or "regression").replace("_", " ")
        raise UserError(f"This model is one for {name}: only models that choose one of several classes can be asked.")


def _refuse_strategy(strategy: Strategy) -> None:
    why = ""
    if strategy.oracle:
        why = "looks at hidden labels"
    elif strategy.needs is None:
        why = "does not say what it works from (Strategy.needs)"
    elif isinstance(getattr(strategy, "posterior", None), Ensemble) and "draws" in strategy.needs:
        why = "works from refits of a head of ours"
    if why:
        raise UserError(f"{strategy.name} {why}, which a model of yours does not give: {WOULD_DO['head']} would do.")
