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
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alfm.errors import UserError, nearest_names
from alfm.settings import build, paths, run_hydra

if TYPE_CHECKING:
    import torch
    from omegaconf import DictConfig

    from alfm.backbones.base import Backbone
    from alfm.datasets.base import Dataset, Split
    from alfm.extraction.plan import Plan

_IDENTITY = ("dataset", "dataset_fingerprint", "model", "model_fingerprint", "splits", "dtype", "views", "augment")
"""What makes two finished caches the same; the rest of the settings decides only the last bits."""
_NOT_DESCRIBED = ("view_splits", "seed")

_loaded: dict[str, Backbone] = {}
"""The last backbone, so that a sweep loads each once."""


def main(argv: list[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    return run_hydra("extract", extract, sort_key=_model_key, about=__doc__ or "", argv=argv)


def extract(cfg: DictConfig) -> None:
    """Make the cache that `cfg` (conf/extract.yaml) describes, or say that it is there. `UserError` for mistakes."""
    from alfm.extraction.processes import launch, this_process

    devices = _positive("devices", cfg.devices)
    here = this_process(cfg.get("shard"))
    if devices > 1 and here.world == 1:
        launch(cfg, devices, _child)
        return
    if cfg.force and (here.world > 1 or here.shard is not None) and here.run is None:
        raise UserError(
            "force=true cannot be given to several workers, one would undo the others' work: delete the cache instead."
        )
    _extract(cfg, here)


def cache_path(cfg: DictConfig) -> Path:
    """Where the cache of `cfg.dataset` and `cfg.model` lies: `<FEATURE_CACHE_DIR>/<dataset>/<model>.h5`.

    Names come from `cfg.cache.dataset` and `cfg.cache.model` (where there is such a group), then from what the data set
    and the backbone call themselves; nothing is loaded on a device, and a `name` in the config saves building at all.
    """
    given = cfg.get("cache")
    given = given if hasattr(given, "get") else {}
    dataset = given.get("dataset") or cfg.dataset.get("name") or build(cfg.dataset).name
    model = given.get("model") or cfg.model.get("name") or build(cfg.model).name
    return _path(dataset, model)


# ---- one worker -----------------------------------------------------------------------------------------------------


def _extract(cfg: DictConfig, here: Any) -> None:
    from alfm.cache.parts import PartsFolder
    from alfm.cache.writer import cannot_write
    from alfm.extraction.console import Console
    from alfm.extraction.encoding import Encoder, choose_device, choose_precision
    from alfm.extraction.loading import Items, duplicates
    from alfm.extraction.plan import choose_num_workers
    from alfm.extraction.runner import Runner, use_threads

    _check_choices(cfg)
    console = Console(quiet=here.rank > 0)
    dataset: Dataset = build(cfg.dataset)
    splits = _chosen_splits(dataset, cfg.get("splits"))
    device = choose_device(str(cfg.device), here.local_rank)
    backbone = _backbone(cfg, dataset, device)
    given = cfg.cache
    target = _path(given.get("dataset") or dataset.name, given.get("model") or backbone.name)
    console.start(dataset, backbone, splits, device, target)

    precision = choose_precision(str(cfg.precision), device)
    augment = build(cfg.augment) if cfg.get("augment") else None
    wanted = _wanted(cfg, dataset, backbone, splits, device, precision)
    if _already_there(target, wanted, bool(cfg.force), here.run):
        console.already_there(target)
        return
    encoder = Encoder(backbone, device, precision)
    left_out = {name: duplicates(split.ids) for name, split in splits.items()}
    _check_duplicates(splits, left_out, str(cfg.on_error))
    try:
        with PartsFolder(target, float(cfg.lease_seconds)) as folder:
            plan = _agree(cfg, folder, wanted, dataset, backbone, splits, encoder, here.run)
            use_threads(device, plan.settings["threads"])
            items = Items(splits, backbone, plan, augment, left_out)
            rows = sum(map(len, splits.values()))
            num_workers = choose_num_workers(cfg.num_workers, device.type, rows, here.local_world)
            with console.progress(rows, folder, plan) as bar:
                runner = Runner(plan, folder, items, encoder, num_workers, cfg.on_error, bar.advance, bar.settled)
                merged = runner.run(here.shard)
            if merged is None and not target.exists():
                console.share_done(folder, plan)
                return
    except OSError as error:
        raise cannot_write(target, error) from error
    console.finish(target, merged)


def _child(container: dict[str, Any], here: Any) -> None:
    from omegaconf import OmegaConf

    _extract(OmegaConf.create(container), here)


def _wanted(
    cfg: DictConfig,
    dataset: Dataset,
    backbone: Backbone,
    splits: dict[str, Split],
    device: torch.device,
    precision: str,
) -> dict[str, Any]:
    """The settings that all workers must share, `auto` where an existing run may decide."""
    from omegaconf import OmegaConf

    views = _positive("views", cfg.views)
    augment = cfg.get("augment")
    if views > 1 and augment is None:
        raise UserError(f"views={views} needs an augmentation: add augment=randaugment.")
    if views > 1 and dataset.modality != "image":
        raise UserError(f"views={views}: only images can be augmented, {dataset.name} is {dataset.modality}.")
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "model": backbone.name,
        "model_fingerprint": backbone.fingerprint,
        "splits": [[name, len(split)] for name, split in splits.items()],
        "dtype": cfg.cache.dtype,
        "views": views,
        "view_splits": [name for name in cfg.view_splits if name in splits] if views > 1 else [],
        "augment": OmegaConf.to_container(augment, resolve=True) if views > 1 else None,
        "seed": cfg.seed if views > 1 else None,
        "device": device.type,
        "precision": precision,
        "threads": cfg.threads if device.type == "cpu" else None,
        "batch_size": _positive("batch_size", cfg.batch_size, auto=True),
        "part_size": _positive("part_size", cfg.part_size, auto=True),
    }


def _agree(
    cfg: DictConfig,
    folder: Any,
    wanted: dict[str, Any],
    dataset: Dataset,
    backbone: Backbone,
    splits: dict[str, Split],
    encoder: Any,
    run: str | None,
) -> Plan:
    """The plan that everyone here works to: the one on disk if it agrees with `wanted`, else a new one."""
    from alfm.extraction.plan import Plan, differences

    while True:
        there = folder.read_manifest()
        if there is None:
            settings = _resolve(wanted, backbone, splits, encoder)
            attributes = _attributes(settings, dataset, backbone)
            plan = Plan(settings, attributes, run or uuid.uuid4().hex)
            if folder.create_manifest(plan.manifest()):
                return plan
            continue  # somebody else was first: theirs decides what auto means
        settings = {key: there["settings"].get(key) if value == "auto" else value for key, value in wanted.items()}
        found = differences(settings, there["settings"], list(settings))
        if not found:
            return Plan(there["settings"], there["attributes"], there["run"])
        if not cfg.force or (others := folder.claims.live_workers()):
            at_work = f" Another run is at work there ({others[0]})." if cfg.force else ""
            hint = "" if cfg.force else " Give the same settings to go on, or force=true to start over."
            raise UserError(f"{folder.path} was begun with other settings ({found}).{hint}{at_work}")
        folder.remove()


def _resolve(wanted: dict[str, Any], backbone: Backbone, splits: dict[str, Split], encoder: Any) -> dict[str, Any]:
    """`wanted` with a number in place of every `auto`."""
    from alfm.extraction.encoding import choose_batch_size
    from alfm.extraction.loading import Items
    from alfm.extraction.plan import Plan, choose_part_size, choose_threads
    from alfm.extraction.runner import first_batch

    settings = dict(wanted)
    if settings["threads"] is not None:
        settings["threads"] = choose_threads(settings["threads"])
    if settings["batch_size"] == "auto":
        items = Items(splits, backbone, Plan(settings, {}, ""))
        size = choose_batch_size(encoder, lambda count: first_batch(items)(count))
        settings["batch_size"] = max(1, size // settings["views"])
    rows = sum(rows for _, rows in settings["splits"])
    settings["part_size"] = choose_part_size(settings["part_size"], settings["batch_size"], rows)
    return settings


def _attributes(settings: dict[str, Any], dataset: Dataset, backbone: Backbone) -> dict[str, Any]:
    """What the finished file says about itself."""
    import platform
    from importlib.metadata import PackageNotFoundError, version

    import torch

    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("alfm", "numpy", "h5py", "torchvision", "timm", "open_clip_torch", "transformers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    provenance = {key: value for key, value in backbone.provenance.items() if value is not None}
    described = {key: value for key, value in settings.items() if value is not None and key not in _NOT_DESCRIBED}
    names = {"class_names": list(dataset.classes)} if dataset.classes else {}
    return {
        **{f"dataset_{key}": value for key, value in dataset.notes.items()},
        "dataset_licence": dataset.licence or "unknown",
        "modality": dataset.modality,
        **provenance,
        **described,
        **names,
        "versions": versions,
    }


def _already_there(target: Path, wanted: dict[str, Any], force: bool, run: str | None) -> bool:
    """Whether the cache is there and the same. `UserError` when it is there and differs."""
    from alfm.cache import open_cache
    from alfm.extraction.plan import differences

    if not target.exists():
        return False
    try:
        there = dict(open_cache(target).attributes)
    except UserError:
        if force:
            return False
        raise
    if force:
        return run is not None and there.get("run") == run
    for key in ("splits", "augment"):
        there[key] = json.loads(there[key]) if isinstance(there.get(key), str) else there.get(key)
    if found := differences(wanted, there, _IDENTITY):
        raise UserError(
            f"{target} is another cache ({found}). Give it another name with cache.dataset=NAME or cache.model=NAME, "
            "or replace it with force=true."
        )
    return True


# ---- checks ---------------------------------------------------------------------------------------------------------


def _check_choices(cfg: DictConfig) -> None:
    for key, value, known in (
        ("on_error", cfg.on_error, ["stop", "skip"]),
        ("cache.dtype", cfg.cache.dtype, ["float16", "float32"]),
    ):
        if value not in known:
            raise UserError(f"{key}={value}: use {' or '.join(known)}.")
    for key in ("threads", "num_workers"):
        value = cfg[key]
        if value != "auto" and (not isinstance(value, int) or value < (1 if key == "threads" else 0)):
            raise UserError(f"{key}={value}: give a whole number, or auto.")


def _positive(name: str, value: Any, auto: bool = False) -> Any:
    if auto and value == "auto":
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{name}={value}: give a whole number above 0{', or auto' if auto else ''}.")
    return value


def _chosen_splits(dataset: Dataset, chosen: Any) -> dict[str, Split]:
    names = list(dataset.splits) if chosen is None else [chosen] if isinstance(chosen, str) else list(chosen)
    for name in names:
        if name not in dataset.splits:
            raise UserError(f"{dataset.name} has no split {name!r}: {nearest_names(name, list(dataset.splits))}")
    splits = {name: dataset.splits[name] for name in names}
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
    from omegaconf import OmegaConf

    return json.dumps(OmegaConf.to_container(cfg.model, resolve=True), sort_keys=True, default=str)


def _backbone(cfg: DictConfig, dataset: Dataset, device: torch.device) -> Backbone:
    """The backbone on its device; the last one again when neither changed."""
    key = f"{_model_key(cfg)} on {device}"
    if key not in _loaded:
        _loaded.clear()  # before the next one is built: two large models may not fit
        backbone: Backbone = build(cfg.model)
        if backbone.modality != dataset.modality:
            raise UserError(
                f"{backbone.name} takes {backbone.modality} and {dataset.name} is {dataset.modality}: "
                "choose a model= for that kind of data."
            )
        backbone.load(device)
        _loaded[key] = backbone
    backbone = _loaded[key]
    if backbone.modality != dataset.modality:
        raise UserError(f"{backbone.name} takes {backbone.modality} and {dataset.name} is {dataset.modality}.")
    return backbone


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # its threads and forked readers do not mix
    sys.exit(main())
