"""Items worth labelling for a model of one's own: tiny random ones of every kind."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import alfm
from alfm.datasets.base import Audio
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.features.spaces import RAW
from alfm.heads.linear import LinearHead
from alfm.heads.logistic import Logistic
from alfm.one_shot.active_sampler import ActiveSampler
from alfm.one_shot.select_batch import strategy_of
from alfm.one_shot.vessal_stream import VessalStream
from alfm.strategies.ask import ask
from alfm.strategies.query import Query

transformers = pytest.importorskip("transformers")

WORDS = [
    "the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "tree", "and",
    "then", "big", "small", "red", "blue", "it", "was", "very", "not",
]  # fmt: skip
rng = np.random.default_rng(0)
SENTENCES = [" ".join(rng.choice(WORDS, rng.integers(2, 9))) for _ in range(60)]


def tokenizer(side: str = "right", pad: bool = True):
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    padding = {"pad_token": "[PAD]"} if pad else {}
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="[UNK]", padding_side=side, model_max_length=16, **padding
    )


def gpt2(pad: int | None = 0):
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=22, n_positions=32, n_embd=16, n_layer=2, n_head=2, num_labels=3, pad_token_id=pad
    )
    return transformers.GPT2ForSequenceClassification(config)


def bert():
    torch.manual_seed(2)
    config = transformers.BertConfig(
        vocab_size=22, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, num_labels=3,
        max_position_embeddings=32, label2id={"bad": 0, "fair": 1, "good": 2},
        id2label={0: "bad", 1: "fair", 2: "good"},
    )  # fmt: skip
    return transformers.BertForSequenceClassification(config)


MODELS = {"gpt2": gpt2, "bert": bert}


class Net(nn.Module):
    """Logits of a linear layer on a hidden one; and what a model may offer beside."""

    def __init__(self, gives: str = "logits") -> None:
        super().__init__()
        torch.manual_seed(3)
        self.hidden, self.dropout, self.last = nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, 3)
        self.gives, self.largest = gives, 0
        if gives == "methods":
            self.get_embedding_dim = lambda: 8
            self.get_outputs_and_embeddings = self._both

    def _both(self, x):
        embedding = self.dropout(torch.relu(self.hidden(x)))
        self.largest = max(self.largest, len(x))
        assert not torch.is_grad_enabled()
        return self.last(embedding), embedding

    def forward(self, x):
        logits, embedding = self._both(x)
        return {"logits": logits, "pair": (logits, embedding), "dict": {"logits": logits, "embedding": embedding}}[
            "logits" if self.gives == "methods" else self.gives
        ]


def points(n: int = 80) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(size=(n, 5)).astype(np.float32))


@pytest.mark.parametrize("kind", MODELS)
def test_the_snippet(kind):
    model, made = MODELS[kind](), tokenizer()
    sampler = alfm.ActiveSampler("classification", (model, made), 10)
    valuable = sampler.select(SENTENCES)
    assert len(valuable) == 10 and valuable == [SENTENCES[i] for i in valuable.indices]
    assert valuable.indices == sorted(set(valuable.indices))
    assert valuable.indices == sampler.select(SENTENCES).indices
    assert len(ActiveSampler("classification", (model, made), 100).select(SENTENCES)) == 60


@pytest.mark.parametrize("kind", MODELS)
def test_the_padding_side_makes_no_difference(kind):
    model = MODELS[kind]()
    left = ActiveSampler("classification", (model, tokenizer("left")), 12).select(SENTENCES)
    right = ActiveSampler("classification", (model, tokenizer("right")), 12, batch_size=3).select(SENTENCES)
    assert left.indices == right.indices
    if kind == "gpt2":  # as it comes: no padding token anywhere
        bare = gpt2(pad=None)
        alone = ActiveSampler("classification", (bare, tokenizer(pad=False)), 12).select(SENTENCES)
        assert alone.indices == left.indices and bare.config.pad_token_id is None


@pytest.mark.parametrize("kind", MODELS)
def test_embedding_and_logits_are_the_models_own(kind):
    """The embedding times the last layer is the logits, for each sentence as if it were alone."""
    model, made = MODELS[kind]().eval(), tokenizer()
    sampler = ActiveSampler("classification", (model, made), 5)
    ((_, chunk, said),) = sampler._answers(SENTENCES)
    last = model.score if kind == "gpt2" else model.classifier
    with torch.no_grad():
        for i, text in enumerate(chunk):
            alone = model(**made(text, return_tensors="pt")).logits[0]
            torch.testing.assert_close(said.logits[i], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(last(said.embedding), said.logits, rtol=1e-4, atol=1e-5)


def test_forms_of_items_and_of_collections():
    """The same sentences in every form are the same picks; a text is read up to what the model has places for."""
    sampler = ActiveSampler("classification", (bert(), tokenizer()), 7)
    expected = sampler.select(SENTENCES).indices
    made = tokenizer()
    forms = {
        "pairs": [(s, i % 3) for i, s in enumerate(SENTENCES)],
        "dicts": [{"text": s, "label": 1} for s in SENTENCES],
        "other names": [{"idx": i, "headline": s} for i, s in enumerate(SENTENCES)],
        "tokenised": [dict(made(s)) | {"label": 1} for s in SENTENCES],
        "array": np.array(SENTENCES),
        "series": pd.Series(SENTENCES, index=range(100, 160)),
        "frame": pd.DataFrame({"sentence": SENTENCES, "label": 0}),
        "tuple": tuple(SENTENCES),
    }
    for name, items in forms.items():
        chosen = sampler.select(items)
        assert chosen.indices == expected, name
        if name not in ("frame", "array", "series"):
            assert chosen == [items[i] for i in expected]
    assert sampler.select(iter(SENTENCES), length=60).indices == expected
    assert sampler.select((s for s in SENTENCES), length=60) == [SENTENCES[i] for i in expected]
    long = sampler.select([" ".join(WORDS * 9), *SENTENCES])
    assert len(long) == 7
    endless = tokenizer()
    endless.model_max_length = int(1e30)
    unsaid = ActiveSampler("classification", (bert(), endless), 2).select([" ".join(WORDS * 9), *SENTENCES])
    assert len(unsaid) == 2
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_dict({"sentence": SENTENCES, "label": [0] * 60})
    assert sampler.select(table).indices == expected
    assert sampler.select(table["sentence"]).indices == expected
    assert sampler.select(table.to_iterable_dataset(), length=60).indices == expected


class Numbered(torch.utils.data.Dataset):
    def __len__(self):
        return 80

    def __getitem__(self, i):
        assert i < 80
        return points()[i], i % 3


@pytest.mark.parametrize("gives", ["logits", "pair", "dict", "methods"])
def test_torch_modules(gives):
    net = Net(gives)
    expected = ActiveSampler("classification", Net(), 9).select(points()).indices
    sampler = ActiveSampler("classification", net, 9, batch_size=4)
    for items in (points(), points().numpy(), list(points()), [(x, 0) for x in points()], Numbered()):
        assert sampler.select(items).indices == expected
    halved = ActiveSampler("classification", (net, lambda x: x / 2), 9).select(2 * points())
    assert halved.indices == expected
    assert net.largest <= 32 and sampler.probe.model is net


def test_the_model_stays_as_it_was():
    net = Net()
    net.train()
    net.hidden.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    ActiveSampler("classification", net, 5).select(points())
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None for p in net.parameters()) and torch.is_grad_enabled()
    with pytest.raises(UserError):
        ActiveSampler("classification", net, 5).select([torch.full((5,), float("nan"))])
    assert [module.training for module in net.modules()] == modes
    assert not any(module._forward_hooks for module in net.modules())
    half = Net().to(torch.bfloat16)
    assert len(ActiveSampler("classification", half, 5).select(points().to(torch.bfloat16))) == 5


def test_images_and_recordings():
    torch.manual_seed(4)
    vit = transformers.ViTForImageClassification(
        transformers.ViTConfig(
            image_size=16, patch_size=8, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
            intermediate_size=24, num_labels=3,
        )
    )  # fmt: skip
    processor = transformers.ViTImageProcessor(size={"height": 16, "width": 16})
    images = [
        Image.fromarray(rng.integers(0, 255, (9 + i % 3, 12, 3), dtype=np.uint8)).convert("L" if i % 5 == 0 else "RGB")
        for i in range(20)
    ]
    sampler = ActiveSampler("classification", (vit, processor), 6)
    chosen = sampler.select(images)
    assert len(chosen) == 6 and chosen.indices == sampler.select([{"image": x, "label": 0} for x in images]).indices

    wav2vec = transformers.Wav2Vec2ForSequenceClassification(
        transformers.Wav2Vec2Config(
            hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, conv_dim=(8, 8),
            conv_kernel=(10, 4), conv_stride=(8, 4), num_feat_extract_layers=2, num_conv_pos_embeddings=8,
            num_conv_pos_embedding_groups=2, classifier_proj_size=12, num_labels=3,
        )
    )  # fmt: skip
    extractor = transformers.Wav2Vec2FeatureExtractor()
    sounds = [rng.normal(size=400 + 100 * (i % 3)).astype(np.float32) for i in range(12)]
    sampler = ActiveSampler("classification", (wav2vec, extractor), 4)
    chosen = sampler.select(sounds)
    assert len(chosen) == 4
    for form in (
        [{"audio": {"array": s, "sampling_rate": 16000}} for s in sounds],
        [{"array": s, "sampling_rate": 16000} for s in sounds],
        [Audio(s, 16000) for s in sounds],
    ):
        assert sampler.select(form).indices == chosen.indices
    with pytest.raises(UserError, match="Item 1 is recorded at 8000 Hz and the model listens at 16000"):
        sampler.select([sounds[0], Audio(sounds[1], 8000)])


@pytest.mark.parametrize("name", ["margins", "badge", "random", "typiclust", "uherding", "cal", "dcom", "clue", "bait"])
def test_other_strategies_see_probabilities_and_embedding(name):
    net = Net().eval()
    pairs = [(x, i % 3) for i, x in enumerate(points(12) + 0.1)]
    chosen = ActiveSampler("classification", net, 6, name, seed=2).select(points(), labeled_data=pairs)
    x = torch.cat([points(), torch.stack([one for one, _ in pairs])])
    with torch.no_grad():
        embedding = torch.relu(net.hidden(x))
        p = torch.softmax(net.last(embedding).double(), 1)
    labels = [-1] * 80 + [label for _, label in pairs]
    picks = alfm.select_batch(embedding, labels, 6, name, probabilities=p, seed=2)
    assert chosen.indices == sorted(picks.tolist())
    rate = ActiveSampler("classification", net, 0.1, name).select(points(), labeled_data=pairs)
    assert len(rate) == 8
    bare = [one for one, _ in pairs]
    if name in ("cal", "dcom", "bait"):
        with pytest.raises(UserError, match=f"{name} works from labels: give labeled_data as pairs"):
            ActiveSampler("classification", net, 6, name).select(points(), labeled_data=bare)
    else:
        assert len(ActiveSampler("classification", net, 6, name).select(points(), labeled_data=bare)) == 6


@pytest.mark.parametrize("name", ["alfamix", "dropquery", "bald", "batchbald", "epig", "dbal", "powerbald"])
def test_draws_and_weights_are_those_of_the_last_layer(name):
    """As if it were a fitted head on the embedding."""
    net = Net().eval()
    pairs = [(x, i % 3) for i, x in enumerate(points(12) + 0.1)]
    chosen = ActiveSampler("classification", net, 6, name, seed=2).select(points(), labeled_data=pairs)
    with torch.no_grad():
        pool = Features(torch.relu(net.hidden(torch.cat([points(), torch.stack([one for one, _ in pairs])]))))
    head = LinearHead([RAW], net.last.weight.detach()[None], net.last.bias.detach()[None])
    rows, free = torch.arange(80, 92)[None], (torch.arange(92) < 80)[None]
    recipe = Logistic(strength=1.0)  # whose precision is 1
    query = Query(pool, rows, torch.arange(12)[None] % 3, free, 3, [2], 2, head, recipe)
    assert chosen.indices == sorted(ask(strategy_of(name), query, 6)[0][0].tolist())
    if name == "alfamix":
        with pytest.raises(UserError, match="alfamix works from labels: give labeled_data as pairs"):
            ActiveSampler("classification", net, 6, name).select(points())
    else:
        assert len(ActiveSampler("classification", net, 6, name).select(points())) == 6


def test_labels_are_names_where_the_model_has_them():
    sampler = ActiveSampler("classification", (bert(), tokenizer()), 5, "dcom")
    named = [(s, ["bad", "fair", "good"][i % 3]) for i, s in enumerate(SENTENCES[:12])]
    numbered = [{"text": s, "label": i % 3} for i, s in enumerate(SENTENCES[:12])]
    chosen = sampler.select(SENTENCES[12:], labeled_data=named)
    assert chosen.indices == sampler.select(SENTENCES[12:], labeled_data=numbered).indices
    with pytest.raises(UserError, match="the label 'awful': the model knows class numbers from 0 to 2"):
        sampler.select(SENTENCES[12:], labeled_data=[("the cat", "awful")])


def test_many_labelled_and_many_asked():
    x = torch.from_numpy(np.random.default_rng(6).normal(size=(44_000, 5)).astype(np.float32))
    taught = [(one, 0) for one in x[4000:]]
    assert len(taught) == 40_000
    for name in ("vessal", "margins"):
        chosen = ActiveSampler("classification", Net(), 300, name, batch_size=2048).select(x[:4000], taught)
        assert len(chosen) == len(set(chosen.indices)) == 300 and chosen.indices[-1] < 4000


def test_a_stream_is_seen_once_and_not_held():
    import gc
    import weakref

    alive, most = weakref.WeakSet(), 0

    class Item:
        def __init__(self, x):
            self.x = x

    def stream():
        nonlocal most
        for x in points(600).repeat(2, 1):
            item = Item(x)
            alive.add(item)
            most = max(most, len(alive))
            yield item

    sampler = ActiveSampler("classification", (Net(), lambda item: item.x), 0.04, batch_size=2)
    chosen = sampler.select(stream())
    gc.collect()
    assert most <= 3 * 32 + len(chosen) and 20 < len(chosen) < 90
    assert [one.x.tolist() for one in chosen] == [points(600)[i % 600].tolist() for i in chosen.indices]

    drawn = []
    few = ActiveSampler("classification", Net(), 3, batch_size=1)
    assert len(few.select((drawn.append(1) or x for x in points()), length=10)) == 3
    assert len(drawn) < 80  # it ends when it has what it wants
    assert few.select([]) == [] and few.select(iter([]), length=3) == []


def test_a_rate_is_the_streams():
    net = Net().eval()
    with torch.no_grad():
        embedding = torch.relu(net.hidden(points()))
        taken = VessalStream(rate=0.1, seed=7).take(embedding, net.last(embedding))
    sampler = ActiveSampler("classification", net, 0.1, seed=7, batch_size=5)
    assert sampler.select(points()).indices == np.flatnonzero(taken).tolist()
    assert sampler.select(iter(points())).indices == np.flatnonzero(taken).tolist()


class Silent(nn.Module):
    def forward(self, x):
        return torch.tanh(x[:, :3])


class One(nn.Module):
    def forward(self, x):
        return x[:, :1]


def text_model():
    return (bert(), tokenizer())


MISTAKES = {
    "'regression' cannot be sampled for": lambda: ActiveSampler("regression", Net(), 5),
    "model must be .model, processor. or a model; got 3": lambda: ActiveSampler("classification", (1, 2, 3), 5),
    "must be a torch.nn.Module, not str": lambda: ActiveSampler("classification", "bert", 5),
    "budget=0: ask for one": lambda: ActiveSampler("classification", Net(), 0),
    "budget=1.5: a rate lies between 0 and 1": lambda: ActiveSampler("classification", Net(), 1.5),
    "boss looks at hidden labels": lambda: ActiveSampler("classification", Net(), 5, "boss"),
    "qbc works from refits": lambda: ActiveSampler("classification", Net(), 5, "qbc"),
    "alfamix works from the weights": lambda: ActiveSampler("classification", Net("pair"), 5, "alfamix").select(
        points(), [(points()[0], 1)]),
    "must make items ready; int cannot": lambda: ActiveSampler("classification", (Net(), 3), 5),
    "one for regression": lambda: ActiveSampler("classification", transformers.BertForSequenceClassification(
        transformers.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1,
                                intermediate_size=8, num_labels=1)), 5),
    "a single text": lambda: ActiveSampler("classification", text_model(), 5).select("the cat"),
    "this is a mapping": lambda: ActiveSampler("classification", text_model(), 5).select({"train": SENTENCES}),
    "not int": lambda: ActiveSampler("classification", text_model(), 5).select(5),
    "An iterator does not say how many": lambda: ActiveSampler("classification", Net(), 5).select(iter(points())),
    "margins looks at every item before it picks": lambda: ActiveSampler("classification", Net(), 5, "margins").select(
        iter(points())),
    "Item 1 must have one text to read; it has a and b": lambda: ActiveSampler(
        "classification", text_model(), 5).select(["the", {"a": "x", "b": "y"}]),
    "Item 0 .int. cannot be made ready": lambda: ActiveSampler("classification", text_model(), 5).select([3, 4]),
    "Silent gives logits, but no linear layer": lambda: ActiveSampler("classification", Silent(), 5).select(points()),
    "outputs of shape .32, 1. for 32 items": lambda: ActiveSampler("classification", (nn.Sequential(nn.Linear(5, 1))),
                                                                    5).select(points()),
    "NaN or infinite numbers": lambda: ActiveSampler("classification", Net(), 5).select(points() * float("inf")),
}  # fmt: skip


@pytest.mark.parametrize("sentence", MISTAKES)
def test_mistakes_are_answered_in_one_sentence(sentence):
    with pytest.raises(UserError, match=sentence) as said:
        MISTAKES[sentence]()
    assert "\n" not in str(said.value)
