"""From a command line to the cells of a sweep.

Hydra's own `main` finds configs relative to a Python file, writes an `outputs/` folder and ends in tracebacks.
`run_hydra` composes the same configs through Hydra's compose API instead: it works as `python -m`, from a script and
from a test, writes nothing, and answers mistakes in one sentence. Nobody else asks Hydra's global state for anything.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfm.config.cell import Cell
from alfm.config.experiments import GROUP as EXPERIMENT
from alfm.config.experiments import with_experiment
from alfm.config.launching import Launcher, for_launcher, launcher_of
from alfm.config.mistakes import syntax, unknown_key, unreadable
from alfm.config.paths import conf_dir, environment, folder_variables, groups_of
from alfm.errors import UserError, nearest_names, say

if TYPE_CHECKING:
    from omegaconf import DictConfig


SWITCHES = ("tune",)
"""Settings that are turned on by their name and have settings of their own."""


def run_hydra(
    config_name: str,
    task: str,
    run: Callable[[list[Cell]], int],
    *,
    about: str = "",
    argv: list[str] | None = None,
    complete: Callable[[list[list[str]]], tuple[list[list[str]], str]] | None = None,
    launch: Callable[[Launcher, list[Cell]], int] | None = None,
) -> int:
    """Compose `conf/<config_name>.yaml` with the command line's overrides, `run` the cells, return the exit status.

    task: dotted name of the class whose objects run a cell; run: an engine's, see `alfm.engines.base`. Use it as
    `sys.exit(run_hydra("extract", "alfm.extraction.session.Extraction", Local().run))`. `argv` defaults to
    `sys.argv[1:]`; `about` is shown by `--help`. complete: what the cells of a sweep become, as the words of each, and
    a sentence about it for the user, "" for none. launch: has the cells of a sweep run instead where the command line
    names one of Hydra's launchers (`alfm.config.launching`); None: none can be named.

    Options: `-m` makes a cell of every combination of `key=a,b`, and so does al_train's `experiment=NAME`, which stands
    for other words (`alfm.config.experiments`). `--config-dir DIR` adds a user's own config groups, `--cfg` prints the
    composed config, `--help` lists groups.

    A cell's config has no `hydra` node; `${hydra:runtime.choices.dataset}` and other references are resolved in it.
    Variables of `.env` are in `os.environ` while cells run, real ones winning, as are defaults of the four folders.

    Status: what `run` returns; 2 for a wrong command line, found for all cells before the first runs.
    """
    from hydra import initialize_config_dir

    arguments = _parse(config_name, about, sys.argv[1:] if argv is None else argv)
    try:
        extra = _config_dir(arguments.config_dir)
        if config_name == "al_train":
            arguments.overrides, experiment = with_experiment(arguments.overrides, extra)
            arguments.multirun |= experiment
        if arguments.help:
            print(_help(config_name, about, extra))
            return 0
        about_launcher, arguments.overrides = for_launcher(arguments.overrides)
        if about_launcher and (launch is None or not arguments.multirun):
            advice = "leave it out" if launch is None else "add -m"
            raise UserError(f"{about_launcher[0]}: launchers run the cells of a sweep; {advice}.")
        with environment():
            with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
                launcher = launcher_of(about_launcher, extra) if about_launcher else None
                cells, remark = _sweep(arguments), ""
                if complete is not None and arguments.multirun:
                    cells, remark = complete(cells)
                sweep = [(words, *_compose(config_name, words, extra)) for words in cells]
            if remark:
                print(f"{'# ' if arguments.cfg else ''}{remark}", flush=True)
            if arguments.cfg:
                from omegaconf import OmegaConf

                print("---\n".join(OmegaConf.to_yaml(cfg) for _, cfg, _ in sweep), end="")
                return 0
            made = [_cell(task, *composed) for composed in sweep]
            return run(made) if launcher is None or launch is None else launch(launcher, made)
    except UserError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:  # before a cell is begun, while packages are loaded
        say("Interrupted.", "")
        return 130
    except BrokenPipeError:  # `... --help | head`: nobody is listening any more, the interpreter's last flush included
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _cell(task: str, words: list[str], cfg: DictConfig, whole: DictConfig) -> Cell:
    """Plain data of what `_compose` has made."""
    from omegaconf import OmegaConf

    with _hydra_node(whole):
        config: Any = OmegaConf.to_container(cfg, resolve=True)
    choices = {str(group): option for group, option in whole.hydra.runtime.choices.items()}
    own = {group: option for group, option in choices.items() if not group.startswith("hydra/")}
    return Cell(task, config, own, tuple(words), str(Path.cwd()), folder_variables())


@contextmanager
def _hydra_node(whole: DictConfig) -> Iterator[None]:
    """Let `${hydra:...}` look into this config, and for nobody else. UserError when a `${...}` leads nowhere."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf.errors import OmegaConfBaseException

    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = whole  # type: ignore[assignment]
    try:
        yield
    except OmegaConfBaseException as error:
        raise UserError(syntax(error)) from error
    finally:
        HydraConfig.instance().cfg = before


# ---- the command line -----------------------------------------------------------------------------------------------


def _parse(config_name: str, about: str, argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(f"python -m alfm.{config_name}", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("--cfg", action="store_true")
    parser.add_argument("-h", "--help", action="store_true")
    arguments = parser.parse_intermixed_args(argv)
    if arguments.cfg and "job" in arguments.overrides:  # Hydra's own spelling is `--cfg job`
        arguments.overrides.remove("job")
    return arguments


def _config_dir(given: str | None) -> Path | None:
    if given is None:
        return None
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(f"--config-dir {given}: there is no such folder.")
    return folder


def _sweep(arguments: argparse.Namespace) -> list[list[str]]:
    """One list of overrides per cell."""
    if not arguments.multirun:
        return [arguments.overrides]
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.global_hydra import GlobalHydra
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException, OverrideParseException

    try:
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        return BasicSweeper.split_arguments(parser.parse_overrides(arguments.overrides), None)[0]
    except OverrideParseException as error:
        raise UserError(unreadable(error, arguments.overrides)) from error
    except HydraException as error:
        raise UserError(syntax(error)) from error


def _compose(config_name: str, overrides: list[str], extra: Path | None) -> tuple[DictConfig, DictConfig]:
    """The composed config without and with its `hydra` node, or a `UserError` that names the nearest right names."""
    from hydra import compose
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[file://{extra}]"] if extra else []
    overrides = [_switched(word) for word in overrides]
    none = [word.partition("=")[0] for word in overrides if word.endswith("=null")]
    none = [group for group in none if group in groups_of(extra)]
    overrides = [word for word in overrides if word.partition("=")[0] not in none]  # Hydra knows null as a default only
    try:
        whole = compose(config_name, overrides=[*search, *overrides], return_hydra_config=True)
    except MissingConfigException as error:
        group, _, option = (error.missing_cfg_file or "?").rpartition("/")
        raise UserError(
            f"There is no {group}={option}: {nearest_names(option, groups_of(extra).get(group, []))}"
        ) from error
    except OverrideParseException as error:
        raise UserError(unreadable(error, overrides)) from error
    except ConfigCompositionException as error:
        wrong = re.search(r"Could not (?:override|delete from config|append to config)[^']*'([^'@]+)", str(error))
        if wrong is None:
            raise UserError(syntax(error)) from error
        raise UserError(unknown_key(config_name, wrong.group(1).rstrip("."), overrides, search, extra)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(syntax(error)) from error
    except (TypeError, ValueError) as error:  # a number or a truth value in the place of a name: Hydra's own ends there
        groups = groups_of(extra)
        split = [word.lstrip("+").partition("=") for word in overrides]
        for group, value in ((key.partition("@")[0], value) for key, _, value in split):
            known = groups.get(group, [])
            if known and any(name.strip() not in known for name in value.strip("[]").split(",")):
                raise UserError(f"There is no {group}={value}: {nearest_names(value, known)}") from error
        raise
    for group in none:
        if (chosen := whole.hydra.runtime.choices.get(group)) is not None:
            raise UserError(f"{group}=null: one is needed, such as {group}={chosen}; --help lists them all.")
    cfg = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    with _hydra_node(whole):
        missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given: add {' '.join(f'{key}=VALUE' for key in missing)}.")
    return cfg, whole


def _switched(word: str) -> str:
    """`tune=true`, a switch that has settings of its own, as `tune.enabled=true`."""
    key, equals, value = word.partition("=")
    return f"{key}.enabled={value}" if key in SWITCHES and equals and not value.startswith("{") else word


def _help(config_name: str, about: str, extra: Path | None) -> str:
    config = (conf_dir() / f"{config_name}.yaml").read_text()
    used = [EXPERIMENT] if config_name == "al_train" else []
    used += re.findall(r"^\s*-\s*(?:override\s+)?/?([\w/]+)(?:@[\w.]+)?:", config, re.MULTILINE)
    groups = "\n".join(
        f"  {group}: {', '.join(options)}" for group, options in groups_of(extra).items() if group in used or not used
    )
    return (
        f"{about.strip()}\n\nUse: python -m alfm.{config_name} [OPTIONS] [group=option ...] [key=value ...]\n"
        "  -m                sweep: run every combination of key=a,b\n"
        "  --config-dir DIR  also look for config groups in DIR\n"
        "  --cfg             print the composed config and stop\n\n"
        f"Groups\n{groups}\n\nSettings (conf/{config_name}.yaml)\n{config}"
    ).lstrip()
