"""`python -m alfm.stopping [LOG_DIR_OR_RUN ...] [stopping=[RULE,RULE]]`: what stopping rules say of finished runs.

Heads are fitted again on the stored picks and every rule is told what each round shows; nothing is asked, nothing of
the run changes, and what was said before is not worked out again. Verdicts are kept in each run's folder as
stopping.csv and shown here and by python -m alfm.report. Without stopping= all rules are asked but counts and time.
Settings are those of al_train: stopping.RULE.OPTION=VALUE, stopping.sample, stopping.audit, device, memory, and
cache=PATH for a cache that has moved.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alfm.config.build import build
from alfm.config.cell import Cell, as_cfg
from alfm.config.hydra import run_hydra
from alfm.config.paths import cache_path, environment, groups_of, paths
from alfm.config.typed_again import without_findings
from alfm.errors import UserError, say
from alfm.heads.base import Classifier
from alfm.options import read
from alfm.report.stops import stop_tables
from alfm.report.terminal import show
from alfm.results.load import load_runs, run_folders
from alfm.results.run_folder import read_config, read_state, take_lock
from alfm.results.setting import settings_of
from alfm.results.verdicts import keep_verdicts, read_verdicts, unjudged
from alfm.simulation.replay import replayed_verdicts
from alfm.simulation.session import Training, validation_of, watching_of
from alfm.simulation.settings import Settings
from alfm.simulation.tuning import tuned

COUNTS = ("labelling_budget", "max_rounds", "time_limit")
"""Rules that stop where they are told to."""
_OURS = ("stopping", "cache", "device", "memory")
_NESTED = ("splits", "iterations", "budget", "index_sets", "pool", "oracle")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; the exit status is 0, 1 (a user's mistake) or 2 (a wrong command line)."""
    parser = argparse.ArgumentParser(
        "python -m alfm.stopping", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("words", nargs="*", metavar="LOG_DIR_OR_RUN or SETTING", help="default: LOG_DIR, all rules")
    words = parser.parse_intermixed_args(argv).words
    settings = [word for word in words if "=" in word and not Path(word).exists()]
    for word in settings:
        if word.partition("=")[0].partition(".")[0] not in _OURS:
            parser.error(f"{word}: of al_train's settings only {', '.join(_OURS)} can be given here")
    if not any(word.startswith("stopping=") for word in settings):
        rules = [name for name in groups_of()["stopping"] if name not in COUNTS]
        settings.append(f"stopping=[{','.join(rules)}]")
    folders = [Path(word) for word in words if word not in settings]
    return run_hydra("al_train", "", lambda cells: _observe(folders, cells[0]), argv=settings)


def _observe(given: list[Path], asked: Cell) -> int:
    """All runs, one's failure stopping no other; their tables."""
    status, training = 0, Training()
    with environment():
        given = given or [paths().logs]
        try:
            folders = run_folders(given)
            for number, folder in enumerate(folders, 1):
                try:
                    _watch(training, folder, asked, f"[{number}/{len(folders)}] {folder}")
                except UserError as mistake:
                    say(f"{folder}: {mistake}")
                    status = 1
            for setting in settings_of(load_runs(given)):
                for table in stop_tables(setting, "accuracy")[0]:
                    show(table)
        except UserError as mistake:
            say(str(mistake))
            status = 1
    return status


def _watch(training: Training, folder: Path, asked: Cell, name: str) -> None:
    """What the rules say of the finished seeds of a run that they have not said yet. Raises UserError."""
    config, state = read_config(folder), read_state(folder)
    cfg = as_cfg(_completed(without_findings(config), asked.config))
    given = read(Settings, cfg)
    watching = watching_of(cfg.stopping, given.stopping)
    if watching is None:
        raise UserError("name a rule: stopping=kappa_pairs, or leave stopping= out for all of them.")
    seeds = unjudged(read_verdicts(folder), watching.options, state.finished)
    print(f"{name}: {f'{len(seeds)} seeds' if seeds else 'nothing new'}", flush=True)
    if not seeds:
        return
    task = training.task(Path(cfg.cache or cache_path(cfg)).expanduser().absolute(), given)
    if task.cache.fingerprint != config["run"]["cache_fingerprint"]:
        raise UserError(f"{task.cache.path} is not the cache that this run was made on: give that one with cache=PATH.")
    classifier = build(cfg.classifier, Classifier, "classifier")
    if given.tune.active:
        classifier = tuned(given.tune, classifier, task, seeds, folder)
    held = validation_of(given.validation, task)
    verdicts = list(replayed_verdicts(task, classifier, watching, state, seeds, given.warm_start, held))
    lock = take_lock(folder)
    try:
        keep_verdicts(folder, verdicts)
    finally:
        if lock is not None:
            os.close(lock)


def _completed(config: dict[str, Any], asked: dict[str, Any]) -> dict[str, Any]:
    """A stored configuration with what later versions know besides, and what is asked here."""
    whole = {**asked, **{key: value for key, value in config.items() if key != "run"}}
    whole |= {key: {**asked[key], **config.get(key, {})} for key in _NESTED}
    return (
        whole | {key: asked[key] for key in _OURS if key != "cache"} | {"cache": asked["cache"] or config.get("cache")}
    )


if __name__ == "__main__":
    sys.exit(main())
