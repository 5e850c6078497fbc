"""Stage 1: embed a data set with a frozen backbone, into one feature cache.

    python -m alfm.extract dataset=digits model=pixels
    python -m alfm.extract -m dataset=cifar10,dtd model=dino_vit_S14,openclip_vit_B16

An interrupted run goes on where it was when the same command is given again. Any number of processes and hosts may run
the same command at once: they divide the work.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfm.config.build import build
from alfm.config.hydra import run_hydra
from alfm.config.paths import paths
from alfm.errors import UserError, nearest_names
from alfm.options import Name, check, plain, read

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from alfm.backbones.base import Backbone
    from alfm.datasets.base import Dataset, Split

_loaded: dict[str, Backbone] = {}
"""The last backbone, so that a sweep loads each once."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_hydra("extract", extract, sort_key=_model_key, about=__doc__ or "", argv=argv)


def extract(cfg: DictConfig) -> None:
    """Make the cache that `cfg` (conf/extract.yaml) describes, or say that it is there. `UserError` for mistakes."""
    from alfm.extraction.processes import launch, this_process
    from alfm.extraction.settings import Settings

    devices = read(Settings, cfg).devices
    if devices > 1 and ":" in str(cfg.device):
        raise UserError(f"devices={devices} device={cfg.device}: each worker takes a GPU of its own; give device=cuda.")
    here = this_process(cfg.get("shard"))
    if devices > 1 and here.world == 1:
        launch(cfg, devices, _child)
        return
    if cfg.force and (here.world > 1 or here.shard is not None) and here.run is None:
        raise UserError(
            "force=true cannot be given to several workers, one would undo the others' work: delete the cache and its "
            ".parts folder instead."
        )
    _extract(cfg, here)


def cache_path(cfg: DictConfig) -> Path:
    """Where the cache of `cfg.dataset` and `cfg.model` lies: `<FEATURE_CACHE_DIR>/<dataset>/<model>.h5`.

    Names come from `cfg.cache.dataset` and `cfg.cache.model` (where there is such a group), then from what the data set
    and the backbone call themselves; nothing is loaded on a device, and a `name` in the config saves building at all.
    """
    given = cfg.get("cache")
    given = given if hasattr(given, "get") else {}
    return _path(*(given.get(group) or _own_name(cfg, group) for group in ("dataset", "model")))


def _own_name(cfg: DictConfig, group: str) -> str:
    node = cfg.get(group)
    name = node.get("name") if hasattr(node, "get") else None
    if name is not None:
        check(group, "name", name, Name, ".")
        return name
    return build(node, _kind(group), group).name


def _kind(group: str) -> type:
    from alfm.backbones.base import Backbone
    from alfm.datasets.base import Dataset

    return {"dataset": Dataset, "model": Backbone}[group]


# ---- one worker -----------------------------------------------------------------------------------------------------


def _extract(cfg: DictConfig, here: Any) -> None:
    from alfm.cache import open_cache
    from alfm.cache.parts import PartsFolder
    from alfm.cache.writer import cannot_write
    from alfm.devices import choose_device
    from alfm.extraction.agreement import Job, agree, already_there, wanted_settings
    from alfm.extraction.console import Console
    from alfm.extraction.encoding import Encoder, choose_precision
    from alfm.extraction.loading import Items, duplicates
    from alfm.extraction.plan import choose_num_workers
    from alfm.extraction.runner import Runner, use_threads

    console = Console(quiet=here.rank > 0)
    augment = build(cfg.augment, Callable, "augment") if cfg.get("augment") is not None else None
    device = choose_device(str(cfg.device), here.local_rank)
    if device.type == "cuda":
        import torch

        torch.cuda.set_device(device)  # else threads that pin memory would open a context on the first GPU as well
    built = _backbone(cfg, device)
    dataset: Dataset = build(cfg.get("dataset"), _kind("dataset"), "dataset")
    splits = _chosen_splits(dataset, cfg.get("splits"))
    backbone = _ready(built, dataset, device, _loaded_key(cfg, device))
    given = cfg.cache
    target = _path(given.get("dataset") or dataset.name, given.get("model") or backbone.name)
    console.start(dataset, backbone, splits, device, target)
    if cfg.get("augment") and cfg.views == 1:
        console.note("augment= makes no difference without views: add views=8")

    encoder = Encoder(backbone, device, choose_precision(str(cfg.precision), device))
    job = Job(dataset, splits, backbone, encoder)
    wanted = wanted_settings(job, cfg)
    if already_there(target, wanted, bool(cfg.force), here.run):
        with PartsFolder(target, float(cfg.lease_seconds)) as folder:
            folder.tidy(finished=open_cache(target, unlabelled=None).attributes.get("run"))
        console.already_there(target)
        return
    left_out = {name: duplicates(split.ids) for name, split in splits.items()}
    _check_duplicates(splits, left_out, str(cfg.on_error))
    folder = PartsFolder(target, float(cfg.lease_seconds))
    plan = merged = None
    try:
        with folder:
            plan = agree(job, folder, wanted, bool(cfg.force), here.run)
            if plan is not None:
                use_threads(device, plan.settings["threads"])
                console.plan(plan)
                items = Items(splits, backbone, plan, augment, left_out)
                rows = sum(map(len, splits.values()))
                num_workers = choose_num_workers(cfg.num_workers, device.type, rows, here.local_world)
                with console.progress(rows, folder, plan) as bar:
                    runner = Runner(plan, folder, items, encoder, num_workers, cfg.on_error, bar.advance, bar.settled)
                    merged = runner.run(here.shard)
                if merged is None and not target.exists():
                    console.share_done(folder, plan)
                    return
    except (OSError, UserError) as error:
        if plan is not None and folder.finished_by_another():
            merged = None  # what failed is that the folder went away under us
        elif isinstance(error, UserError):
            raise
        else:
            raise cannot_write(target, error) from error
    console.finish(target, merged, dataset.left_out)


def _child(container: dict[str, Any], here: Any) -> None:
    from omegaconf import OmegaConf

    _extract(OmegaConf.create(container), here)


# ---- checks ---------------------------------------------------------------------------------------------------------


def _chosen_splits(dataset: Dataset, chosen: Any) -> dict[str, Split]:
    names = list(dataset.splits) if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
    for name in names:
        if name not in dataset.splits:
            raise UserError(f"{dataset.name} has no split {name!r}: {nearest_names(name, list(dataset.splits))}")
    splits = {name: dataset.splits[name] for name in names}
    for name, split in splits.items():
        if not len(split) == len(split.labels) == len(split.ids):
            raise UserError(
                f"{name} of {dataset.name} has {len(split)} items, {len(split.labels)} labels and {len(split.ids)} ids."
            )
        largest, classes = int(split.labels.max(initial=-1)), dataset.classes
        if classes and largest >= len(classes):
            raise UserError(f"{name} of {dataset.name} has label {largest} and there are {len(classes)} classes.")
    if not sum(map(len, splits.values())):
        raise UserError(f"{dataset.name} has no items in {', '.join(names) or 'any split'}.")
    return splits


def _check_duplicates(splits: dict[str, Split], repeated: dict[str, dict[int, str]], on_error: str) -> None:
    for name, rows in repeated.items():
        if rows and on_error == "stop":
            raise UserError(
                f"{len(rows)} ids occur more than once in {name}, such as {splits[name].ids[next(iter(rows))]!r}: "
                "a pick could not be found again. Make them unique, or keep the first of each with on_error=skip."
            )


def _path(dataset: str, model: str) -> Path:
    from alfm.datasets.ids import file_stem

    return paths().features / file_stem(dataset) / f"{file_stem(model)}.h5"


# ---- the backbone ---------------------------------------------------------------------------------------------------


def _model_key(cfg: DictConfig) -> str:
    return json.dumps(plain(cfg.get("model")), sort_keys=True, default=str)


def _loaded_key(cfg: DictConfig, device: torch.device) -> str:
    return f"{_model_key(cfg)} on {device}"


def _backbone(cfg: DictConfig, device: torch.device) -> Backbone:
    """The backbone, not loaded yet; the last one again, as it is, when neither it nor the device changed."""
    return _loaded.get(_loaded_key(cfg, device)) or build(cfg.get("model"), _kind("model"), "model")


def _ready(backbone: Backbone, dataset: Dataset, device: torch.device, key: str) -> Backbone:
    """The backbone with its weights on the device."""
    if backbone.modality != dataset.modality:
        raise UserError(
            f"{backbone.name} takes {backbone.modality} and {dataset.name} is {dataset.modality}: "
            "choose a model= for that kind of data."
        )
    if key not in _loaded:
        _loaded.clear()  # before the next one is loaded: two large models may not fit
        backbone.load(device)
        if backbone.dim:  # else it is found in the data, and the next data set's may be another
            _loaded[key] = backbone
    return backbone


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and forked readers do not mix
    # threads that wait for each other shall not spin: readers and other jobs need the cores
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
