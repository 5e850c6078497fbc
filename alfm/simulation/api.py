"""From a feature cache to learning curves, as one Python call."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from annotated_types import Ge, Le

from alfm.cache.reader import FeatureCache
from alfm.config.build import build
from alfm.config.parts import KINDS, called, node_of
from alfm.config.paths import conf_dir
from alfm.errors import UserError
from alfm.features.features import Memory
from alfm.heads.base import Classifier
from alfm.options import Count, Device, Labels, Rounds, checked
from alfm.results.conditions import as_config, condition_columns, config_of_class
from alfm.results.load import budget_text, picks_fingerprints, start_fingerprint
from alfm.results.run_hash import hashed_config
from alfm.results.verdicts import Verdict
from alfm.simulation.budgets import Listed, Unit, budgets_of
from alfm.simulation.cached_task import Simulation
from alfm.simulation.given_rules import Given, config_of_rules, rules_given
from alfm.simulation.index_sets import IndexSets
from alfm.simulation.loop import Round
from alfm.simulation.oracle import OracleOptions
from alfm.simulation.pools import PoolOptions
from alfm.simulation.replicates import run_replicates
from alfm.simulation.settings import Tune
from alfm.simulation.tuning import reused_of, tuned
from alfm.simulation.validation import validation_set
from alfm.simulation.watch import Watching
from alfm.strategies.base import Strategy
from alfm.strategies.given_rows import GivenRows

if TYPE_CHECKING:
    import pandas as pd

SEEDS = (1, 10, 100, 1000, 10000)


def _named(group: str, given: Any) -> tuple[str, dict[str, Any], Any]:
    """What `simulate` was given for a group, a config's name or an object: its name, its config, the object."""
    from omegaconf import OmegaConf

    name = given if isinstance(given, str) else config_of_class(type(given), conf_dir() / group)
    node = {} if name is None else node_of(group, name)
    plain: Any = OmegaConf.to_container(node, resolve=True) if node else {}
    if isinstance(given, str):
        return given, plain, called(build(node, KINDS.get(group), group), given)
    return name or type(given).__name__.lower(), as_config(given, plain), given


@checked
def simulate(
    cache: FeatureCache | Simulation | str | Path,
    query_strategy: str | Strategy = "uherding",
    *,
    init_strategy: str | Strategy = "random",
    classifier: str | Classifier = "logistic",
    seeds: Sequence[int] = SEEDS,
    rounds: Rounds = 20,
    init: Labels = 1,
    step: Labels = 1,
    per_class: bool = True,
    doubling: bool = False,
    unit: Unit | None = None,
    schedule: Listed | None = None,
    pool: PoolOptions | Mapping[str, Any] | None = None,
    oracle: OracleOptions | Mapping[str, Any] | None = None,
    stopping: Given = (),
    stopping_mode: Literal["observe", "stop"] = "observe",
    stopping_sample: Count = 1000,
    stopping_audit: Count = 200,
    device: Device = "auto",
    memory: Memory = "auto",
    index_sets: IndexSets | None = None,
    tune: bool | Tune = False,
    validation: Annotated[int, Ge(0), Le(10**9)] = 0,
) -> pd.DataFrame:
    """Simulated active learning on cached features with known labels; no result is written.

    cache: a path, an open cache, or a `Simulation` (kept between calls, so that features are loaded once).
    Strategies and classifier: names of configs, or objects. Returns one row per seed and round with the columns of
    `rounds.csv` and those by which `load_runs` tells runs apart (dataset, model, query_strategy, init_strategy,
    classifier, budget, cache, the conditions with the options of strategies and head, initial, picked), so that frames
    can be concatenated and given to `alfm.results.statistics` and the report; objects are described by their options.

    unit, schedule: see `budgets_of`. pool, oracle: what is made of the pool's items and what its annotator gets wrong,
    options by name as in conf/al_train.yaml; a `Simulation` has its own.

    stopping: rules that watch, names of configs or objects of `alfm.stopping`; a mapping names them, where two are of
    a kind. What they say is `frame.attrs["stopping"]`, a dict for each seed and rule as in a run's stopping.csv (see
    `alfm.results.verdicts.Verdict`), ready for a DataFrame of its own. stopping_mode="stop": a replicate ends at the
    first rule that says so; stopping_sample, stopping_audit: items of the stop set and of an audit.

    index_sets: files that say what is labelled to begin with, held out and picked from (for a path or an open cache);
    runs that differ in their partition alone are one paired design.

    tune: the head's options are chosen in each round for each replicate, as `Tune` says; what was chosen is
    `frame.attrs["tuning"]`, a dict for each seed and round. validation: so many items, drawn for each seed, are paid
    for and not trained on.

    Raises UserError for what a user can put right.
    """
    import pandas as pd

    if isinstance(cache, Simulation) and not (pool is None and oracle is None):
        raise UserError("simulate pool= and oracle= are a Simulation's own: give them to Simulation(PATH, pool=...).")
    if isinstance(cache, Simulation):
        task = cache
    else:
        task = Simulation(cache, device, memory, index_sets=index_sets, pool=pool, oracle=oracle)
    given = {"query_strategy": query_strategy, "init_strategy": init_strategy, "classifier": classifier}
    named = {group: _named(group, one) for group, one in given.items()}
    built = {group: one for group, (_, _, one) in named.items()}
    budgets = budgets_of(task.num_classes, rounds, init, step, per_class, doubling, unit, schedule, task.pool.N)
    if task.initial is not None:
        name, node, _ = named["init_strategy"]
        built["init_strategy"] = task.given_start(name)
        named["init_strategy"] = (GivenRows.name, node, None)
        budgets = task.given_budgets(budgets, schedule is not None)
    rules = rules_given(stopping)
    if not rules and stopping_mode == "stop":
        raise UserError("simulate stopping_mode=stop: name a rule that says when, such as stopping='kappa_pairs'.")
    watching = Watching(rules, stopping_mode == "stop", stopping_sample, stopping_audit) if rules else None
    picks: dict[int, list[np.ndarray]] = {}
    verdicts: list[Verdict] = []

    def remember(made: Round, group: Sequence[int]) -> None:
        for seed, new in zip(group, made.picks, strict=True):
            picks.setdefault(seed, []).append(task.cache_rows[new])

    held = validation_set(validation, "labels", task.num_classes, task.pool.N, budgets[0])
    tuning = Tune(enabled=tune) if isinstance(tune, bool) else tune
    plain_classifier = built["classifier"]
    reused = reused_of(tuning, len(budgets), plain_classifier)
    if tuning.active:
        built["classifier"] = tuned(tuning, plain_classifier, task, seeds, None, reused)
    rows = list(
        run_replicates(
            task, budgets=budgets, seeds=[int(seed) for seed in seeds], on_round=remember, watching=watching,
            on_verdicts=verdicts.extend, validation=held, **built,
        )
    )  # fmt: skip
    config = {
        **{group: config for group, (_, config, _) in named.items()},
        "budget": {"init": init, "step": step, "per_class": per_class, "unit": unit, "schedule": schedule},
        "iterations": {"n": rounds, "exp": doubling},
        "splits": task.splits,
        "pool": asdict(task.pool_options),
        "oracle": asdict(task.oracle_options),
        "train_views": task.train_views,
        "warm_start": True,
        "stopping": {
            "mode": stopping_mode, "sample": stopping_sample, "audit": stopping_audit, **config_of_rules(rules),
        },
    }  # fmt: skip
    if tuning.active:
        said = {name.rstrip("_"): value for name, value in asdict(tuning).items()}
        config["tune"] = said if reused is None else said | {"choices": reused.digest}
    if validation:
        config["validation"] = {"size": validation, "unit": "labels"}
    if task.sets is not None and task.index_sets is not None:
        config["index_sets"] = {"partition": task.index_sets.partition, **task.sets.described()}
    path, fingerprint = task.cache.path.absolute(), task.cache.fingerprint
    frame = pd.DataFrame(rows).assign(
        dataset=path.parent.name, model=path.stem, **{group: name for group, (name, _, _) in named.items()},
        budget=budget_text(config, []), cache=fingerprint,
        pool=json.dumps(task.about["pool"], sort_keys=True) if "pool" in task.about else "",
        **condition_columns(hashed_config(config), task.behaviour(**built | {"classifier": plain_classifier})),
    )  # fmt: skip
    frame["initial"] = frame["seed"].map({seed: start_fingerprint(own[0], fingerprint) for seed, own in picks.items()})
    for seed, own in picks.items():
        up_to = np.cumsum([len(new) for new in own]).tolist()
        frame.loc[frame["seed"] == seed, "picked"] = picks_fingerprints(np.concatenate(own), up_to, fingerprint)
    if tuning.active:
        frame.attrs["tuning"] = [asdict(choice) for choice in built["classifier"].choices.values()]
    frame.attrs["stopping"] = [asdict(verdict) for verdict in verdicts]
    return frame
