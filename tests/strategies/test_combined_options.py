"""Options of strategies and cold starts: what can be combined, and what is answered in one sentence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pytest
import yaml
from strategies.factory import make_query
from strategies.test_properties import EASY, LABELLED, QUERIES, strategy

from alfm.al_train import main
from alfm.config.parts import called, from_config
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.strategies.ask import ask
from alfm.strategies.base import Strategy
from alfm.strategies.index_file import IndexFile
from alfm.testing import query_of


@pytest.mark.parametrize("posterior", ["dropout_joint", "laplace", "ensemble"])
@pytest.mark.parametrize("name", ["bald", "powerbald", "batchbald", "epig", "dbal", "qbc"])
def test_bayesian_strategies_take_any_posterior(name, posterior, digits_cache, capsys):
    words = [f"query_strategy={name}", f"query_strategy/posterior={posterior}", f"cache={digits_cache}"]
    assert main([*words, "seeds=[1]", "iterations.n=2", "budget.init=2", "device=cpu"]) == 0, capsys.readouterr().err


@pytest.mark.parametrize("name", ["batchbald", "epig"])
def test_a_mask_per_item_is_no_joint_draw(name, digits_cache, capsys):
    words = [f"query_strategy={name}", "query_strategy/posterior=dropout", f"cache={digits_cache}"]
    assert main([*words, "device=cpu"]) == 1
    assert "needs joint draws" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("qbc", {"measure": "kld"}, "did you mean kl"),
        ("coreset", {"metric": "l1"}, "l2"),
        ("coreset", {"space": "heads"}, "did you mean head"),
        ("bait", {"variant": "binnary"}, "did you mean binary"),
        ("alfamix", {"step": 0.0}, "between 0.001 and 1"),
        ("maxherding", {"width": 0.0}, "width=0.0"),
        ("probcover", {"delta": -1.0}, "delta=-1.0"),
        ("probcover", {"purity": 2.0}, "above 0 and of at most 1"),
        ("log_det", {"ridge": 0.0}, "ridge"),
        ("log_det", {"eta": 2.0}, "eta"),
        ("graph_cut", {"trade": -1.0}, "trade"),
    ],
)
def test_wrong_values_are_answered_in_one_sentence(name, options, says):
    with pytest.raises(UserError, match=says):
        from_config("query_strategy", name, **options)


@pytest.mark.parametrize("name", QUERIES)
def test_every_option_of_a_strategy_is_in_its_config(name, capsys):
    built = strategy("query_strategy", name)
    assert isinstance(built, Strategy)
    assert main([f"query_strategy={name}", "--cfg"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)["query_strategy"]
    hidden = {"strategies", "chunk"}  # objects and sizes that change no pick
    for option in dataclasses.fields(built) if dataclasses.is_dataclass(built) else ():
        assert option.name in shown or option.name in hidden


@pytest.mark.parametrize("name", QUERIES)
def test_asked_twice_the_same_question_gets_the_same_answer(name):
    """What is carried is a function of pool and labels: picks that were not labelled leave no trace."""
    x, y = EASY
    query = query_of(x, y, 6, LABELLED, (1,))
    first = ask(strategy("query_strategy", name), query, 8)[0].tolist()
    assert ask(strategy("query_strategy", name), query, 8)[0].tolist() == first


def test_replicates_with_different_numbers_of_labels_are_asked_for_what_the_poorest_has():
    query = make_query(N=20, C=3, rows=[[0, 1, 2, 3, 4], list(range(12))], seeds=(1, 2))
    for name in ("random", "margins", "badge"):
        picks, _ = ask(strategy("query_strategy", name), query, 100)
        assert picks.shape == (2, 8)


@pytest.mark.parametrize("form", ["txt", "npy", "two", "npz"])
def test_index_files(form, tmp_path):
    query = make_query(N=30, seeds=(1, 7))
    query.rows, query.targets = query.rows[:, :0], query.targets[:, :0]
    query.available[:] = True
    path = tmp_path / f"rows.{'npy' if form == 'two' else form}"
    wanted = [[5, 3, 8], [5, 3, 8]]
    if form == "txt":
        path.write_text("5\n3\n8\n9\n")
    elif form == "npy":
        np.save(path, np.array([5, 3, 8, 9]))
    elif form == "two":
        np.save(path, np.array([[5, 3, 8], [1, 2, 0]]))
        wanted[1] = [1, 2, 0]
    else:
        np.savez(path, **{"1": np.array([5, 3, 8, 9]), "7": np.array([1, 2])})
        wanted[1] = [1, 2]
    picks, filled = ask(IndexFile(str(path)), query, 3)
    assert picks[0].tolist() == wanted[0]
    assert picks[1, : len(wanted[1])].tolist() == wanted[1] and filled == [0, 3 - len(wanted[1])]


@pytest.mark.parametrize(
    "content", ["missing", "empty.npy", "broken.npz", "words.txt", "floats.npy", "far.txt", "twice.txt"]
)
def test_bad_index_files_are_answered_in_one_sentence(content, tmp_path):
    path = tmp_path / content
    if content in ("empty.npy", "broken.npz"):
        path.write_bytes(b"" if content == "empty.npy" else b"PK\x03\x04 nothing")
    elif content == "floats.npy":
        np.save(path, np.array([0.5, 1.5]))
    elif content != "missing":
        path.write_text({"words.txt": "a\nb\n", "far.txt": "3\n99\n", "twice.txt": "3\n3\n"}[content])
    query = make_query(N=30)
    with pytest.raises(UserError, match="pool rows"):
        ask(IndexFile(str(path)), query, 2)


def test_limits_of_a_class_from_before_options_were_checked():
    @dataclass
    class Mine(Strategy):
        limits = {"width": (0.0, 1.0)}
        width: float | None = 0.5

        def select(self, query, budget):
            raise NotImplementedError

    assert Mine().width == 0.5 and Mine(width=None).width is None
    with pytest.raises(UserError, match="mine width=2.0: must lie between 0 and 1"):
        Mine(width=2.0)


@pytest.mark.parametrize("group", ["query_strategy", "init_strategy"])
def test_a_strategy_is_called_what_the_user_types(group):
    """As its config where it was built from one, and as its class is, which is the config's name but for presets."""
    for path in (conf_dir() / group).glob("*.yaml"):
        options = {"path": "rows.txt"} if path.stem in ("index_file", "replay") else {}
        built = from_config(group, path.stem, **options)
        assert built.name == path.stem
        assert type(built).name == {"dbal": "entropy"}.get(path.stem, path.stem)
        assert "name" not in getattr(built, "__dataclass_fields__", {})


def test_errors_say_the_name_that_was_typed():
    query = make_query()
    query.head = None
    with pytest.raises(UserError, match="Query strategy 'dbal' needs a fitted head"):
        ask(from_config("query_strategy", "dbal"), query, 2)
    assert from_config("query_strategy", "dbal").varied(oversample=3).name == "dbal"


def test_a_class_of_ones_own_may_say_its_name_in_any_way():
    class Plain(Strategy):
        def select(self, query, budget):
            raise NotImplementedError

    class Said(Plain):
        name = "said_so"

    class Asked(Plain):
        @property
        def name(self):
            return "asked"

    class Below(Asked):
        pass

    assert [one().name for one in (Plain, Said, Asked, Below)] == ["plain", "said_so", "asked", "asked"]
    assert [called(one(), "typed").name for one in (Plain, Said, Asked)] == ["typed", "typed", "asked"]
