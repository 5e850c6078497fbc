"""From a command line to the cells of a sweep.

Hydra's own `main` finds configs relative to a Python file, writes an `outputs/` folder and ends in tracebacks.
`run_hydra` composes the same configs through Hydra's compose API instead: it works as `python -m`, from a script and
from a test, writes nothing, and answers mistakes in one sentence. Nobody else asks Hydra's global state for anything.
"""

from __future__ import annotations

import argparse
import difflib
import itertools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfm.commands import typed
from alfm.config.cell import Cell
from alfm.config.paths import conf_dir, environment, folder_variables
from alfm.errors import UserError, nearest_names, say

if TYPE_CHECKING:
    from hydra.errors import OverrideParseException
    from omegaconf import DictConfig


def run_hydra(
    config_name: str,
    task: str,
    run: Callable[[list[Cell]], int],
    *,
    about: str = "",
    argv: list[str] | None = None,
) -> int:
    """Compose `conf/<config_name>.yaml` with the command line's overrides, `run` the cells, return the exit status.

    task: dotted name of the class whose objects run a cell; run: an engine's, see `alfm.engines.base`. Use it as
    `sys.exit(run_hydra("extract", "alfm.extraction.session.Extraction", Local().run))`. `argv` defaults to
    `sys.argv[1:]`; `about` is shown by `--help`.

    Options: `-m` makes a cell of every combination of `key=a,b`. `--config-dir DIR` adds a user's own config groups,
    `--cfg` prints the composed config, `--help` lists groups.

    A cell's config has no `hydra` node; `${hydra:runtime.choices.dataset}` and other references are resolved in it.
    Variables of `.env` are in `os.environ` while cells run, real ones winning, as are defaults of the four folders.

    Status: what `run` returns; 2 for a wrong command line, found for all cells before the first runs.
    """
    from hydra import initialize_config_dir

    arguments = _parse(config_name, about, sys.argv[1:] if argv is None else argv)
    try:
        extra = _config_dir(arguments.config_dir)
        if arguments.help:
            print(_help(config_name, about, extra))
            return 0
        with environment():
            with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
                sweep = [(words, *_compose(config_name, words, extra)) for words in _sweep(arguments)]
            if arguments.cfg:
                from omegaconf import OmegaConf

                print("---\n".join(OmegaConf.to_yaml(cfg) for _, cfg, _ in sweep), end="")
                return 0
            return run([_cell(task, *composed) for composed in sweep])
    except UserError as error:
        say(str(error))
        return 2
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
        raise UserError(_syntax(error)) from error
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
        raise UserError(_unreadable(error, arguments.overrides)) from error
    except HydraException as error:
        raise UserError(_syntax(error)) from error


def _compose(config_name: str, overrides: list[str], extra: Path | None) -> tuple[DictConfig, DictConfig]:
    """The composed config without and with its `hydra` node, or a `UserError` that names the nearest right names."""
    from hydra import compose
    from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    search = [f"hydra.searchpath=[file://{extra}]"] if extra else []
    none = [word.partition("=")[0] for word in overrides if word.endswith("=null")]
    none = [group for group in none if group in _groups(extra)]
    overrides = [word for word in overrides if word.partition("=")[0] not in none]  # Hydra knows null as a default only
    try:
        whole = compose(config_name, overrides=[*search, *overrides], return_hydra_config=True)
    except MissingConfigException as error:
        group, _, option = (error.missing_cfg_file or "?").rpartition("/")
        raise UserError(f"There is no {group}={option}: {nearest_names(option, _options(group, extra))}") from error
    except OverrideParseException as error:
        raise UserError(_unreadable(error, overrides)) from error
    except ConfigCompositionException as error:
        wrong = re.search(r"Could not (?:override|delete from config|append to config)[^']*'([^'@]+)", str(error))
        if wrong is None:
            raise UserError(_syntax(error)) from error
        raise UserError(_unknown_key(config_name, wrong.group(1).rstrip("."), overrides, search, extra)) from error
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_syntax(error)) from error
    for group in none:
        if (chosen := whole.hydra.runtime.choices.get(group)) is not None:
            raise UserError(f"{group}=null: one is needed, such as {group}={chosen}; --help lists them all.")
    cfg = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    with _hydra_node(whole):
        missing = sorted(OmegaConf.missing_keys(cfg))
    if missing:
        raise UserError(f"{' and '.join(missing)} must be given: add {' '.join(f'{key}=VALUE' for key in missing)}.")
    return cfg, whole


def _unknown_key(name: str, wrong: str, overrides: list[str], search: list[str], extra: Path | None) -> str:
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf import OmegaConf

    groups = _groups(extra)
    chosen = [word for word in overrides if word.partition("=")[0] in groups]
    try:
        cfg = compose(name, overrides=[*search, *chosen])
    except HydraException:  # two mistakes at once: the options of the first are then what is known
        cfg = compose(name)
    keys = sorted(_flatten(OmegaConf.to_container(cfg)))
    known = sorted({*keys, *map(str, cfg)})
    parent = wrong.rpartition(".")[0]
    siblings = [key for key in keys if key.rpartition(".")[0] == parent]
    if wrong in known or any(key.startswith(f"{wrong}.") for key in keys):
        return f"{wrong} holds settings: change one with {wrong}.KEY=VALUE, or add one with ++{wrong}.KEY=VALUE."
    near = difflib.get_close_matches(wrong, known, n=3, cutoff=0.5)
    hint = nearest_names(wrong, known if near else siblings or [key for key in known if "." not in key])
    return f"There is no setting {wrong}: {hint}"


def _flatten(node: Any, prefix: str = "") -> Iterator[str]:
    for key, value in node.items():
        if str(key).startswith("_"):
            continue
        if isinstance(value, dict) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _unreadable(error: OverrideParseException, words: list[str]) -> str:
    """What is wrong with a word that is no setting, and how to quote it: once for the shell, once for Hydra."""
    word = error.override
    key, equals, value = word.partition("=")
    if equals:
        quoted = typed(key, value)
        lists = value.startswith(("[", "{"))
        at = words.index(word) + 1 if word in words else len(words)
        rest = list(itertools.takewhile(lambda other: "=" not in other, words[at:]))
        if lists and rest and rest[-1].endswith(("]", "}")):
            return f"{word}: spaces in a list need quotes around the whole: {shlex.quote(' '.join([word, *rest]))}."
        if lists or quoted == word:  # quotes would not help
            return _syntax(error)
        return f"{word}: Hydra reads that only in quotes: {quoted}."
    at = words.index(word) if word in words else 0
    key, equals, start = words[at - 1].partition("=") if at else ("", "", "")
    if not equals:
        return f"{word!r} is no setting: settings are written key=value."
    whole = " ".join([start, *itertools.takewhile(lambda other: "=" not in other, words[at:])])
    if "/" not in whole:
        return f"{word!r} is no setting: settings are written key=value, a value with spaces in quotes."
    return f"{word!r} is no setting; if it belongs to the path before it, quote the whole: {typed(key, whole)}."


def _syntax(error: BaseException) -> str:
    """Hydra's own message, in one sentence."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if lines and lines[0].startswith("Ambiguous value"):
        return (
            f"{lines[0].rstrip('.')}: to run all of them add -m, to pass a list write key=[a,b], and one value with a "
            """comma in quotes: 'key="a,b"'."""
        )
    return " ".join(lines[:2]) or type(error).__name__


def _groups(extra: Path | None) -> dict[str, list[str]]:
    """Config groups and their options, the user's own included."""
    groups: dict[str, set[str]] = {}
    for root in filter(None, (conf_dir(), extra)):
        for file in root.rglob("*.yaml"):
            group = file.parent.relative_to(root).as_posix()
            if group != ".":
                groups.setdefault(group, set()).add(file.stem)
    return {group: sorted(options) for group, options in sorted(groups.items())}


def _options(group: str, extra: Path | None) -> list[str]:
    return _groups(extra).get(group, [])


def _help(config_name: str, about: str, extra: Path | None) -> str:
    config = (conf_dir() / f"{config_name}.yaml").read_text()
    used = re.findall(r"^\s*-\s*(?:override\s+)?/?([\w/]+)(?:@[\w.]+)?:", config, re.MULTILINE)
    groups = "\n".join(
        f"  {group}: {', '.join(options)}" for group, options in _groups(extra).items() if group in used or not used
    )
    return (
        f"{about.strip()}\n\nUse: python -m alfm.{config_name} [OPTIONS] [group=option ...] [key=value ...]\n"
        "  -m                sweep: run every combination of key=a,b\n"
        "  --config-dir DIR  also look for config groups in DIR\n"
        "  --cfg             print the composed config and stop\n\n"
        f"Groups\n{groups}\n\nSettings (conf/{config_name}.yaml)\n{config}"
    ).lstrip()
