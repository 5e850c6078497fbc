"""The command line shared by the entry points: paths, sweeps, and mistakes answered in one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from alfm.errors import UserError
from alfm.settings import build, conf_dir, paths, run_hydra

ROOT = Path(__file__).resolve().parents[1]


def run(*words: str, task=None, **options) -> tuple[int, list[DictConfig]]:
    seen: list[DictConfig] = []

    def remember(cfg: DictConfig) -> None:
        seen.append(cfg)
        if task:
            task(cfg)

    return run_hydra("extract", remember, argv=list(words), **options), seen


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
    with pytest.raises(UserError, match="model.size=0"):
        build(node("alfm.backbones.pixels.Pixels", size=0))
    with pytest.raises(ZeroDivisionError):
        build(node("fractions.Fraction", numerator=1, denominator=0))


def test_the_configs_are_found_in_the_checkout() -> None:
    assert (conf_dir() / "extract.yaml").is_file() and conf_dir().is_absolute()
