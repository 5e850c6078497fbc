"""The command line shared by the entry points: paths, sweeps, and mistakes answered in one sentence."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from alfm.config.build import build
from alfm.config.cell import Cell
from alfm.config.hydra import run_hydra
from alfm.config.paths import conf_dir, paths
from alfm.engines.local import Local
from alfm.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


class Remember:
    """A session that keeps the configs it is given, and does `task` with each."""

    def __init__(self, task, key) -> None:
        self.seen: list[DictConfig] = []
        self.task, self.of = task, key

    def key(self, cell: Cell):
        return self.of(cell.cfg())

    def run(self, cell: Cell) -> None:
        self.seen.append(cell.cfg())
        self.task(self.seen[-1])


def run(*words: str, task=lambda cfg: None, sort_key=lambda cfg: 0, about: str = "") -> tuple[int, list[DictConfig]]:
    session = Remember(task, sort_key)
    return run_hydra("extract", "", Local(session).run, about=about, argv=list(words)), session.seen


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("DATASET_DIR", "MODEL_CACHE_DIR", "FEATURE_CACHE_DIR", "LOG_DIR"):
        monkeypatch.delenv(name, raising=False)


def test_paths_come_from_env_file_and_the_real_environment_wins(tmp_path: Path, monkeypatch) -> None:
    assert (paths().features, paths().logs) == (Path("features"), Path("logs"))
    (tmp_path / ".env").write_text("FEATURE_CACHE_DIR=/from/file\nLOG_DIR=/logs/file\n")
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert paths().features == Path("/from/file")
    monkeypatch.setenv("FEATURE_CACHE_DIR", "/from/shell")
    assert (paths().features, paths().logs) == (Path("/from/shell"), Path("/logs/file"))


def test_configs_can_use_the_folders_and_the_environment_is_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOG_DIR=/logs/file\n")
    before = dict(os.environ)
    inside: dict[str, str] = {}
    run(task=lambda cfg: inside.update(os.environ))
    assert inside["LOG_DIR"] == "/logs/file" and inside["DATASET_DIR"] == "./data"
    assert dict(os.environ) == before


def test_nothing_is_written(tmp_path: Path) -> None:
    status, seen = run("-m", "seed=1,2")
    assert status == 0 and len(seen) == 2
    assert list(tmp_path.iterdir()) == []
    assert Path.cwd() == tmp_path


def test_choices_resolve_and_hydra_is_not_in_the_config() -> None:
    seen = []
    run("+chosen=${hydra:runtime.choices.dataset}", task=lambda cfg: seen.append((cfg.chosen, "hydra" in cfg)))
    assert seen == [("digits", False)]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["dataset=digit"], "There is no dataset=digit: did you mean digits"),
        (["datset=digits"], "There is no setting datset: did you mean dataset"),
        (["batchsize=3"], "did you mean batch_size"),
        (["cache.dtyp=float32"], "did you mean cache.dtype"),
        (["dataset.sed=3"], "did you mean dataset.seed"),
        (["dataset=image_folder"], "dataset.root must be given: add dataset.root=VALUE"),
        (["model=dino_vit_S14", "model.kwargs={a:1}"], "model.kwargs holds settings: change one with"),
        (["seed=1,2"], "to run all of them add -m"),
        (["-m", "seed=1,2", "modl=x"], "did you mean model"),
        (["nonsense"], "nonsense"),
        (["--config-dir", "/does/not/exist"], "there is no such folder"),
        (["dataset=digits", "dataset=pixels"], "dataset"),
    ],
)
def test_a_wrong_command_line_is_answered_in_one_sentence(words: list[str], says: str, capsys) -> None:
    status, seen = run(*words)
    err = capsys.readouterr().err
    assert status == 2 and not seen
    assert says in err and "Traceback" not in err and err.count("\n") == 1


def test_unknown_options_are_bad_usage(capsys) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--multi")
    assert ended.value.code == 2


def test_sweeps_keep_equal_keys_together() -> None:
    _, seen = run("-m", "dataset.name=a,b", "model.name=x,y", sort_key=lambda cfg: cfg.model.name)
    assert [(cfg.model.name, cfg.dataset.name) for cfg in seen] == [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")]


def test_a_failed_job_of_a_sweep_fails_the_sweep_after_the_others(capsys) -> None:
    def task(cfg: DictConfig) -> None:
        if cfg.seed == 1:
            raise UserError("seed 1 is unlucky")
        if cfg.seed == 2:
            raise KeyError("a bug")

    status, seen = run("-m", "seed=1,2,3", task=task)
    err = capsys.readouterr().err
    assert status == 1 and len(seen) == 3
    assert "Error: seed 1 is unlucky" in err and "2 of 3 jobs failed: seed=1; seed=2" in err
    assert run("-m", "seed=3,4", task=task)[0] == 0


def test_single_jobs(capsys) -> None:
    def fail(error: BaseException):
        def task(cfg: DictConfig) -> None:
            raise error

        return task

    assert run(task=fail(UserError("one sentence")))[0] == 1
    assert capsys.readouterr().err == "Error: one sentence\n"
    assert run(task=fail(KeyboardInterrupt()))[0] == 130
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run(task=fail(ZeroDivisionError()))


def test_own_groups_from_another_folder(tmp_path: Path, capsys) -> None:
    (tmp_path / "mine" / "dataset").mkdir(parents=True)
    (tmp_path / "mine" / "dataset" / "leaves.yaml").write_text("_target_: collections.OrderedDict\nsize: 3\n")
    _, seen = run("--config-dir", "mine", "dataset=leaves", "dataset.size=4")
    assert seen[0].dataset.size == 4
    assert run("--config-dir", "mine", "dataset=leafes")[0] == 2
    assert "did you mean leaves" in capsys.readouterr().err
    assert run("--config-dir", "mine", "--help")[0] == 0
    assert "leaves" in capsys.readouterr().out


def test_help_and_cfg(capsys) -> None:
    assert run("--help", about="Embeds.")[0] == 0
    out = capsys.readouterr().out
    assert "Embeds." in out and "digits" in out and "on_error" in out
    status, seen = run("--cfg", "seed=7")
    assert status == 0 and not seen
    assert OmegaConf.create(capsys.readouterr().out).seed == 7


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from alfm.extract import main; main(['--help']); "
        "assert not {'torch', 'timm', 'pandas', 'sklearn', 'matplotlib'} & set(sys.modules), sorted(sys.modules)"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr


def test_build_unwraps_mistakes() -> None:
    def node(target: str, **given: object) -> DictConfig:
        return OmegaConf.create({"_target_": target, **given})

    assert build(node("builtins.dict", a=[1, {"b": 2}])) == {"a": [1, {"b": 2}]}
    with pytest.raises(UserError, match="There is no alfm.nothing.Here"):
        build(node("alfm.nothing.Here"))
    with pytest.raises(UserError, match="was not given what it takes.*colour"):
        build(node("fractions.Fraction", colour=3))
    with pytest.raises(UserError, match="Pixels size=0: a whole number between 1 and 10000, a list of 2,"):
        build(node("alfm.backbones.pixels.Pixels", size=0))
    with pytest.raises(ZeroDivisionError):
        build(node("fractions.Fraction", numerator=1, denominator=0))


def test_the_configs_are_found_in_the_checkout() -> None:
    assert (conf_dir() / "extract.yaml").is_file() and conf_dir().is_absolute()


AL_TRAIN = ["query_strategy=random", "seeds=[1]", "iterations.n=2", "device=cpu"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["iterations.exp=maybe"], "iterations.exp=maybe: true or false is needed"),
        (["force=maybe"], "force=maybe: true or false is needed"),
        (["budget.per_class=abc"], "budget.per_class=abc: true or false is needed"),
        (["splits.pool=train", "splits.test=train"], "are the same split"),
        (["iterations.n=1e11"], "iterations.n=100000000000.0: a whole number between 1 and 1000000 is needed"),
        (["iterations.n=100000000000"], "iterations.n=100000000000: a whole number"),
        (["iterations=null"], "iterations=null: this holds settings, give n=... and exp=..."),
        (["budget.init=nan"], "budget.init=nan: a number above 0"),
        (["seeds=-1"], "seeds=-1: a list of whole numbers that are not negative"),
        (["seeds=[]"], "seeds=[]"),
        (["seeds=[1,1]"], "different"),
        (["cache=3"], "cache=3: a path or null is needed"),
        (["device=null"], "device=null: auto, cpu, cuda, cuda:1 or mps is needed"),
        (["memory=disk"], "memory=disk: auto, device, host or file is needed"),
        (["query_strategy=null"], "query_strategy=null: one is needed"),
        (["init_strategy=null"], "init_strategy=null: one is needed"),
        (["classifier=null"], "classifier=null: one is needed"),
        (["classifier.strength=0"], "classifier.strength=0: a number between 1e-10 and 1e9 or auto is needed"),
        (["query_strategy=batchbald", "query_strategy.max_samples=nan"], "query_strategy.max_samples=nan"),
        (["query_strategy=margins", "query_strategy.posterior=3"], "query_strategy.posterior"),
        (["query_strategy._target_=os.system"], "Hydra lets no config call it"),
        (["query_strategy._target_=alfm.heads.logistic.Logistic"], "gives a Logistic and a Strategy is needed"),
        (["classifier._target_=alfm.strategies.random.Random"], "Random"),
        (["dataset=null"], "dataset=null: one is needed"),
        (["model=null"], "model=null: one is needed"),
    ],
)
def test_wrong_values_of_al_train_are_refused_before_anything_starts(words, says, digits_cache, capsys, monkeypatch):
    import alfm.al_train

    opened = []
    monkeypatch.setattr("h5py.File", lambda *a, **k: opened.append(a))
    assert alfm.al_train.main([*AL_TRAIN, f"cache={digits_cache}", *words]) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not opened


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["num_workers=1000000"], "num_workers=1000000: a whole number between 0 and"),
        (["devices=1000000"], "devices=1000000"),
        (["threads=0"], "threads=0"),
        (["batch_size=-1"], "batch_size=-1"),
        (["part_size=1e30"], "part_size=1e+30"),
        (["views=0"], "views=0"),
        (["lease_seconds=nan"], "lease_seconds=nan"),
        (["force=maybe"], "force=maybe"),
        (["cache=3"], "cache=3: this holds settings, give dtype=... and dataset=... and model=..."),
        (["cache.dtype=int8"], "cache.dtype=int8: auto, float16 or float32 is needed"),
        (["precision=float8"], "precision=float8"),
        (["device=null"], "device=null"),
        (["shard=3"], "shard=3"),
        (["seed=-1"], "seed=-1"),
        (["on_error=null"], "on_error=null: stop or skip is needed"),
        (["splits=3"], "splits=3"),
        (["dataset=null"], "dataset=null: one is needed"),
        (["model=null"], "model=null: one is needed"),
        (["dataset._target_=os.system"], "dataset._target_=os.system: Hydra lets no config call it"),
        (["model._target_=builtins.dict"], "gives a dict and a Backbone is needed"),
        (["+augment._target_=fractions.Fraction", "views=2"], "gives a Fraction and a Callable is needed"),
    ],
)
def test_wrong_values_of_extract_are_refused_before_anything_starts(words, says, capsys, monkeypatch):
    import alfm.extract

    built = []
    monkeypatch.setattr("alfm.backbones.pixels.Pixels.load", lambda *a: built.append(a))
    assert alfm.extract.main(words) in (1, 2)
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1 and not built


@pytest.mark.parametrize(
    "words",
    [
        ["dataset=image_folder", "dataset.root=/my", "photos", "here", "seed=1"],
        ["dataset=image_folder", "dataset.root=/my photos/(1)"],
        ["-m", "dataset=image_folder", "dataset.root=/my", "photos"],
        ["dataset=image_folder", "dataset.root=/gr\u00fc\u00dfe"],
    ],
)
def test_a_path_that_needs_quotes_is_answered_with_the_quoted_setting(words: list[str], capsys) -> None:
    assert run(*words)[0] == 2
    typed = shlex.split(capsys.readouterr().err.rstrip("\n.").rpartition(": ")[2])
    status, seen = run("dataset=image_folder", *typed)
    meant = " ".join(word for word in words if "/" in word or word in ("photos", "here"))
    assert status == 0 and seen[0].dataset.root == meant.removeprefix("dataset.root=")


def test_a_word_that_is_no_setting(capsys) -> None:
    assert run("digits")[0] == run("dataset=digits", "pixels")[0] == 2
    assert capsys.readouterr().err.count("is no setting: settings are written key=value") == 2
    assert run("dataset=digits", "model.+size=3")[0] == 2
    assert "in quotes" not in capsys.readouterr().err  # which would change nothing


def test_a_list_with_spaces_is_shown_in_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    status, seen = run("dataset=digits", "splits=[train,", "test]", "device=cpu")
    assert status == 2 and not seen
    assert "quotes around the whole: 'splits=[train, test]'." in capsys.readouterr().err
    assert run("dataset=digits", "splits=[train, test]", "device=cpu")[0] == 0


def test_capitals_apart_the_same_name_is_offered_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("model=dino_vit_s14")[0] == 2
    assert "did you mean dino_vit_S14" in capsys.readouterr().err
