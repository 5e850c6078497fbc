"""Rules over runs: what they are told, that watching changes nothing, and where their verdicts lie."""

from __future__ import annotations

import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml

import alfm
from alfm.al_train import main as al_train
from alfm.config.parts import from_config
from alfm.errors import UserError
from alfm.features.features import Features
from alfm.heads.logistic import Logistic
from alfm.report.__main__ import main as report
from alfm.report.stops import stops_of
from alfm.results.load import load_runs
from alfm.results.pairing import paired_curves
from alfm.results.setting import settings_of
from alfm.results.verdicts import ENDED, NEVER, read_verdicts
from alfm.simulation.loop import learners_of, play, schedule
from alfm.simulation.task import Task
from alfm.simulation.watch import Watch, Watching
from alfm.stopping import ClassificationChange, LabellingBudget
from alfm.stopping.__main__ import main as watch_again
from alfm.stopping.base import Rule
from alfm.strategies.random import Random


@pytest.fixture(scope="module")
def task(digits_arrays) -> Task:
    x, y, test_x, test_y = (part[:200] for part in digits_arrays)
    return Task(Features(x), torch.from_numpy(y), Features(test_x), torch.from_numpy(test_y), 10)


class Listener(Rule):
    """Keeps what it is told, by replicate; rules are copied for each, so that a list of the class collects it."""

    needs = ("predictions", "probabilities", "answers", "gains", "audit")
    from_second = ("batch",)
    heard: list = []  # noqa: RUF012

    def _look(self, shown):
        self.heard.append((id(self), shown))


def played(task, watching, seeds=(1, 2), done=None, rounds=6):
    strategies = Random(), from_config("query_strategy", "margins")
    learner = learners_of(task, Logistic(), *strategies, list(seeds))
    watch = Watch(watching, task, list(seeds))
    return list(play(learner, task, schedule(rounds, 20, 10), done, watch)), watch, learner


def test_what_a_rule_is_told_of_a_run(task):
    Listener.heard = []
    made, watch, learner = played(task, Watching({"listener": Listener()}, sample=50, audit=30), seeds=[7])
    shown = [what for _, what in Listener.heard]
    picks = np.concatenate([one.picks[0] for one in made])
    stop_set, audit = watch._replicates[0].stop_set.numpy(), watch._replicates[0].audit.numpy()
    assert len(set(stop_set)) == 50 and len(set(audit)) == 30 and stop_set.max() < 200
    labels = task.labels.numpy()
    for t, what in enumerate(shown):
        known = picks[: 20 + 10 * t]
        new = known[-10:] if t else known
        assert what.answers.tolist() == labels[new].tolist()
        assert (what.batch is None) == (t == 0)
        assert np.array_equal(what.predictions < 0, np.isin(stop_set, known))
        assert np.array_equal(np.isnan(what.audit), np.isin(audit, known))
        assert what.probabilities.shape == (50 - np.isin(stop_set, known).sum(), 10)
        assert np.array_equal(what.probabilities.argmax(1), what.predictions[what.predictions >= 0])
        assert len(what.gains) == (2 if t == 0 else 1)
    gains = [what.gains[-1] for what in shown]
    assert shown[0].gains[0] > gains[0] > 0 and all(a >= b for a, b in zip(gains, gains[1:], strict=False))
    last = learner.head.forward(task.pool.gather(torch.from_numpy(stop_set)), 0).argmax(1).numpy()
    free = shown[-1].predictions >= 0
    assert np.array_equal(last[free], shown[-1].predictions[free])


def test_the_batch_is_seen_by_the_model_that_asked_for_it(task):
    Listener.heard = []
    made, _, learner = played(task, Watching({"listener": Listener()}, sample=50, audit=30), seeds=[7], rounds=2)
    before = learners_of(task, Logistic(), Random(), Random(), [7])
    list(play(before, task, [20], made[0].picks))
    logits = before.head.forward(task.pool.gather(torch.from_numpy(made[1].picks[0])), 0)
    assert np.allclose(Listener.heard[1][1].batch, logits.double().softmax(1).numpy())


def test_watching_changes_nothing_and_seeds_do_not_notice_each_other(task):
    rules = {"change": ClassificationChange(threshold=0.1), "budget": LabellingBudget(labels=40)}
    made, watch, _ = played(task, Watching(rules, sample=60))
    plain, _, _ = played(task, Watching({}))
    assert all(np.array_equal(a.picks, b.picks) and a.metrics == b.metrics for a, b in zip(made, plain, strict=True))
    _, alone, _ = played(task, Watching(rules, sample=60), seeds=[2])
    assert alone.verdicts() == [one for one in watch.verdicts() if one.seed == 2]
    budget = [one for one in watch.verdicts() if one.rule == "budget"]
    assert [(one.round, one.labels, one.charged, one.reason) for one in budget] == [
        (3, 40, 0, "40 labels, of 40 to spend")
    ] * 2
    done = np.concatenate([one.picks for one in made[:3]], 1)
    _, resumed, _ = played(task, Watching(rules, sample=60), done=done)
    assert resumed.verdicts() == watch.verdicts()


def test_a_replicate_ends_at_the_first_rule_and_the_others_go_on(task):
    class Late(Rule):
        def _look(self, shown):
            return "late enough" if self.round == 4 and len(set(shown.answers)) < 10 else None

    rules = {"change": ClassificationChange(threshold=0.0), "late": Late()}
    made, watch, learner = played(task, Watching(rules, ends=True, sample=20), seeds=[1, 2, 3], rounds=5)
    whole, _, _ = played(task, Watching({}), seeds=[1, 2, 3], rounds=5)
    for r, why in enumerate(learner.ended):
        own = [one.picks[one.replicates.index(r)] for one in made if r in one.replicates]
        assert np.array_equal(
            np.concatenate(own), np.concatenate([one.picks[r] for one in whole])[: 20 + 10 * (len(own) - 1)]
        )
        mine = {one.rule: one for one in watch.verdicts() if one.seed == r + 1}
        fired = [name for name, one in mine.items() if one.round is not None]
        assert why == (f"stopped by {fired[0]}: {mine[fired[0]].reason}" if fired else "all rounds done")
        assert {one.reason for name, one in mine.items() if name not in fired} <= {ENDED if fired else NEVER}
    assert any(why.startswith("stopped by late: late enough") for why in learner.ended)


def test_an_audit_is_charged_for_the_labels_that_were_not_bought_anyway(task):
    class Auditor(Rule):
        needs = ("audit",)

        def _look(self, shown):
            return "seen" if self.round == 3 else None

    made, watch, _ = played(task, Watching({"auditor": Auditor()}, audit=30), seeds=[7])
    bought = np.concatenate([one.picks[0] for one in made[:3]])
    (verdict,) = watch.verdicts()
    assert verdict.labels == 40 and verdict.charged == 30 - np.isin(watch._replicates[0].audit.numpy(), bought).sum()
    assert 0 < verdict.charged < 30


# ---- from the command line -------------------------------------------------------------------------------------------

RUN = ["query_strategy=margins", "init_strategy=random", "seeds=[1,2]", "iterations.n=5", "device=cpu"]
RULES = ["stopping=[classification_change,labelling_budget]", "stopping.classification_change.threshold=0.2",
         "stopping.labelling_budget.labels=30", "stopping.sample=50"]  # fmt: skip


@pytest.fixture
def cache(tmp_path, digits_arrays) -> str:
    path = tmp_path / "digits" / "pixels.h5"
    path.parent.mkdir()
    x, y, test_x, test_y = digits_arrays
    with h5py.File(path, "w") as file:
        file["train/features"], file["train/labels"] = x[:150], y[:150]
        file["test/features"], file["test/labels"] = test_x[:80], test_y[:80]
    return f"cache={path}"


def runs(tmp_path) -> list[Path]:
    return sorted(file.parent for file in (tmp_path / "log_dir").rglob("rounds.csv"))


def picks(folder: Path) -> dict[str, list[int]]:
    with np.load(folder / "picks.npz") as stored:
        return {seed: stored[seed].tolist() for seed in stored}


def test_observed_verdicts_lie_beside_a_run_that_is_what_it_was(cache, tmp_path, capsys):
    assert al_train([cache, *RUN]) == 0
    (folder,) = runs(tmp_path)
    plain = picks(folder)
    capsys.readouterr()
    assert al_train([cache, *RUN, *RULES]) == 0  # found again by its hash: replayed
    assert runs(tmp_path) == [folder] and picks(folder) == plain
    out = capsys.readouterr().out
    assert "Already done" in out and "Watching finished seeds once more, heads alone: 1, 2" in out
    assert "Stopping rules: digits / pixels" in out
    replayed = read_verdicts(folder)
    assert {(one.seed, one.rule) for one in replayed} == {
        (seed, rule) for seed in (1, 2) for rule in ("classification_change", "labelling_budget")
    }
    assert [(one.round, one.labels) for one in replayed if one.rule == "labelling_budget"] == [(3, 30)] * 2
    assert al_train([cache, *RUN, *RULES, "force=true"]) == 0  # made anew, watched as it goes
    assert read_verdicts(folder) == replayed and picks(folder) == plain
    (folder / "stopping.csv").unlink()
    capsys.readouterr()
    assert watch_again([str(tmp_path / "log_dir"), *RULES]) == 0
    assert sorted(read_verdicts(folder), key=lambda one: one.key) == sorted(replayed, key=lambda one: one.key)
    assert watch_again([*RULES]) == 0
    assert "nothing new" in capsys.readouterr().out


def test_rules_end_replicates_in_a_run_of_its_own(cache, tmp_path, capsys):
    assert al_train([cache, *RUN]) == 0
    (whole,) = runs(tmp_path)
    assert al_train([cache, *RUN, *RULES, "stopping.mode=stop"]) == 0
    (stopped,) = set(runs(tmp_path)) - {whole}
    for seed, own in picks(stopped).items():
        assert own == picks(whole)[seed][: len(own)] and len(own) <= 30
    assert read_verdicts(whole) == [] and {one.seed for one in read_verdicts(stopped)} == {1, 2}
    # the report: whole curves stay whole, the stop is told beside them
    assert al_train([cache, *RUN, "query_strategy=random"]) == 0
    df = load_runs(tmp_path / "log_dir")
    (setting,) = settings_of(df)
    assert setting.shared["round"].max() == 5 and set(setting.stopped["path"]) == {str(stopped)}
    with pytest.raises(UserError, match="stopping rules may have ended margins early"):
        paired_curves(df)
    stops = stops_of(setting, "accuracy")
    assert set(stops["how"]) == {"stopped"} and set(stops["whole labels"]) == {50}
    one = stops[stops["fired"] & (stops["seed"] == 1)].iloc[0]
    rows = df[(df["path"] == str(whole)) & (df["seed"] == 1)].set_index("round")["accuracy"]
    assert one["accuracy"] == rows[one["round"]] and one["given up"] == rows[5] - rows[one["round"]]
    assert one["saved"] == 1 - one["labels"] / 50
    capsys.readouterr()
    assert report([]) == 0
    assert ", ended" in capsys.readouterr().out
    assert (tmp_path / "log_dir" / "report" / "digits-pixels-accuracy-stopping.csv").exists()
    assert report([str(stopped)]) == 0  # nothing else is there


def test_never_is_an_outcome_of_its_own(cache, tmp_path, capsys):
    words = ["stopping=[kappa_pairs,labelling_budget]", "stopping.labelling_budget.labels=20"]
    assert al_train([cache, *RUN, *words]) == 0
    (folder,) = runs(tmp_path)
    with open(folder / "stopping.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["rule"] == "kappa_pairs"]
    assert [(row["round"], row["labels"], row["charged"], row["reason"]) for row in rows] == [
        ("", "", "0", "never")
    ] * 2
    line = next(line for line in capsys.readouterr().out.splitlines() if "kappa_pairs" in line)
    assert line.split() == ["margins", "kappa_pairs", "0", "2"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["stopping.mode=stop"], "stopping.mode=stop: name a rule"),
        (["stopping.mode=halt"], "stopping.mode=halt"),
        (["stopping=kappa_pairs", "stopping.kappa_pairs.threshold=3"], "stopping.kappa_pairs.threshold=3"),
        (["stopping=changing_confidence", "stopping.changing_confidence.mode=0.9"], "mode=0.9: D or N"),
        (["+stopping.tresh=3"], "There is no setting stopping.tresh"),
        (["stopping=kappa_pair"], "There is no stopping=kappa_pair: did you mean kappa_pairs"),
    ],
)
def test_mistakes_are_told_in_a_sentence(cache, capsys, words, sentence):
    assert al_train([cache, *RUN, *words]) in (1, 2)
    assert sentence in capsys.readouterr().err


def test_the_command_refuses_what_is_not_its_own(cache, tmp_path, capsys):
    assert al_train([cache, *RUN, "iterations.n=2"]) == 0
    (folder,) = runs(tmp_path)
    with pytest.raises(SystemExit):
        watch_again(["seeds=[3]"])
    assert "seeds=[3]: of al_train's settings only stopping, cache" in capsys.readouterr().err
    assert watch_again([str(tmp_path / "nowhere")]) == 1
    other = tmp_path / "digits" / "other.h5"
    with h5py.File(cache.removeprefix("cache=")) as source, h5py.File(other, "w") as file:
        for name in ("train", "test"):
            file[f"{name}/features"] = source[name]["features"][()][::-1]
            file[f"{name}/labels"] = source[name]["labels"][()][::-1]
    capsys.readouterr()
    assert watch_again([str(folder), "stopping=max_rounds", f"cache={other}"]) == 1
    assert "is not the cache that this run was made on" in capsys.readouterr().err
    config = yaml.safe_load((folder / "config.yaml").read_text())
    del config["stopping"], config["keep_geometry"]  # as an earlier version had it
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    assert watch_again([str(folder), "stopping=max_rounds", "stopping.max_rounds.rounds=2"]) == 0
    assert [one.round for one in read_verdicts(folder)] == [2, 2]


def test_a_users_own_rule_needs_a_class_and_a_file(cache, tmp_path, monkeypatch):
    (tmp_path / "conf" / "stopping").mkdir(parents=True)
    (tmp_path / "conf" / "stopping" / "mine.yaml").write_text("# @package stopping.mine\n_target_: mine_rule.Mine\n")
    (tmp_path / "conf" / "stopping" / "bare.yaml").write_text("_target_: mine_rule.Mine\n")
    (tmp_path / "mine_rule.py").write_text(
        "from alfm.stopping import Rule\n\n\nclass Mine(Rule):\n    needs = ('answers',)\n\n"
        "    def _look(self, shown):\n        return 'two' if self.round == 2 else None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--config-dir", str(tmp_path / "conf"), cache, *RUN, "iterations.n=3"]
    assert al_train([*words, "stopping=mine"]) == 0
    (folder,) = runs(tmp_path)
    assert {(one.rule, one.round, one.reason) for one in read_verdicts(folder)} == {("mine", 2, "two")}
    assert al_train([*words, "stopping=bare", "force=true"]) == 1
    assert alfm.load_runs(folder)["stopping"].unique().tolist() == ["{}"]
