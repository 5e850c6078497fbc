"""What workers agree on before the first part is made, and whether a cache is already the one that is wanted."""

from __future__ import annotations

import json
import platform
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from alfm.backbones.base import Backbone
from alfm.cache import open_cache
from alfm.cache.parts import PartsFolder
from alfm.datasets.base import Dataset, Split
from alfm.errors import UserError, nearest_names
from alfm.extraction.dtype import choose_dtype
from alfm.extraction.encoding import Encoder, choose_batch_size
from alfm.extraction.plan import UNSAID, Plan, choose_part_size, choose_threads, differences

_IDENTITY = (
    "dataset", "dataset_fingerprint", "model", "model_fingerprint", "splits", "dtype",
    "decode", "new_items", "views", "view_splits", "augment", "seed",
)  # fmt: skip
"""What makes two finished caches the same; the rest of the settings decides only the last bits."""

_POLL_SECONDS = 0.1


@dataclass
class Job:
    """What is embedded with what, on which device (the encoder's)."""

    dataset: Dataset
    splits: Mapping[str, Split]
    backbone: Backbone
    encoder: Encoder
    config: Mapping[str, Any] = field(default_factory=dict)
    """The data set's config, as far as it may be kept."""
    new_items: str | None = None
    """Tells one choice of items from another, where others were known."""
    model_config: Mapping[str, Any] = field(default_factory=dict)
    """The model's, so that new items can be embedded alike."""


def wanted_settings(job: Job, cfg: DictConfig) -> dict[str, Any]:
    """The settings that all workers must share, `auto` where an existing run may decide. `UserError` for bad ones."""
    dataset, backbone, splits = job.dataset, job.backbone, job.splits
    views = cfg.views
    view_splits = [cfg.view_splits] if isinstance(cfg.view_splits, str) else list(cfg.view_splits or ())
    augment = cfg.get("augment")
    if views > 1 and (strange := [name for name in view_splits if name not in dataset.splits and name != "train"]):
        raise UserError(f"view_splits={strange}: {nearest_names(strange[0], list(dataset.splits))}")
    if views > 1 and view_splits and not set(view_splits) & set(splits):
        raise UserError(f"views={views}: no split of view_splits={view_splits} is embedded; there are {list(splits)}.")
    if views > 1 and augment is None:
        raise UserError(f"views={views} needs an augmentation: add augment=randaugment.")
    if views > 1 and dataset.modality != "image":
        raise UserError(f"views={views}: only images can be augmented, {dataset.name} is {dataset.modality}.")
    return {
        "dataset": dataset.name,
        "dataset_fingerprint": dataset.fingerprint,
        "model": backbone.name,
        "model_fingerprint": backbone.fingerprint,
        "intensity_range": dataset.intensity_range,
        "splits": [[name, len(split)] for name, split in splits.items()],
        "new_items": job.new_items,
        "dtype": cfg.cache.dtype,
        "views": views,
        "view_splits": [name for name in splits if name in view_splits] if views > 1 else [],
        "augment": OmegaConf.to_container(augment, resolve=True) if views > 1 else None,
        "seed": cfg.seed if views > 1 else None,
        "device": job.encoder.device.type,
        "precision": job.encoder.precision,
        "threads": cfg.threads if job.encoder.device.type == "cpu" else None,
        **{key: None if cfg.get(key, usual) == usual else cfg[key] for key, usual in UNSAID.items()},
        "batch_size": cfg.batch_size,
        "part_size": cfg.part_size,
    }


def agree(job: Job, folder: PartsFolder, wanted: dict[str, Any], force: bool, run: str | None) -> Plan | None:
    """The plan that everyone here works to: the one on disk if it agrees with `wanted`, else a new one.

    None when another worker has finished the cache meanwhile: nothing is left to do. A plan on disk that differs is
    removed or raises `UserError`: see `_start_over`.
    """
    while True:
        there = folder.read_manifest()
        if there is None:
            settings = _resolve(job, wanted)
            plan = Plan(settings, _attributes(job, settings), run or uuid.uuid4().hex)
            try:
                first = folder.create_manifest(plan.manifest())
            except FileNotFoundError:  # the folder went away as we wrote into it: whoever finished removed it
                if not folder.target.exists():
                    raise
                continue
            if first:
                if already_there(folder.target, wanted, force, run):  # finished between our first look and now
                    folder.remove()
                    return None
                return plan
            continue  # somebody else was first: theirs decides what auto means
        settings = {key: there["settings"].get(key) if value == "auto" else value for key, value in wanted.items()}
        found = differences(settings, there["settings"], list(settings))
        if not found:
            folder.go_on()
            mine = {"dataset_config": dict(job.config)} if job.config else {}  # earlier versions kept none
            return Plan(there["settings"], {**mine, **there["attributes"]}, there["run"])
        if not _start_over(folder, there["run"], found, force):
            time.sleep(_POLL_SECONDS)  # another worker is doing so


def _start_over(folder: PartsFolder, run: str, found: str, force: bool) -> bool:
    """Remove the parts of `run`, whose settings differ (`found`), when `force` says so or nothing of them is worth
    keeping: none is done, or the run gave up on a mistake in its settings. `UserError` otherwise, and when somebody is
    at work there. False while another worker is removing them.
    """
    try:
        if others := folder.claims.live_workers():
            raise UserError(f"Another run is at work in {folder.path} ({others[0]}), with other settings ({found}).")
        parts = len(folder.done())
        if parts and not force and not folder.given_up():
            raise UserError(
                f"{folder.path} was begun with other settings ({found}): give the same to go on, or add force=true, "
                f"which throws away the {parts} parts that are done."
            )
        if not folder.claims.claim("start over"):
            return False
        manifest = folder.read_manifest()
        if manifest is not None and manifest["run"] == run:  # else another worker has begun anew meanwhile
            folder.remove()
            folder.claims.close()  # they lay in that folder
    except FileNotFoundError:  # another worker has removed it
        folder.claims.close()
    return True


def _resolve(job: Job, wanted: dict[str, Any]) -> dict[str, Any]:
    """`wanted` with a number in place of every `auto`."""
    settings = dict(wanted)
    if settings["threads"] is not None:
        settings["threads"] = choose_threads(settings["threads"])
    if settings["batch_size"] == "auto":
        size = choose_batch_size(job.encoder, lambda count: first_batch(job.splits, job.backbone, count))
        settings["batch_size"] = max(1, size // settings["views"])
    rows = sum(rows for _, rows in settings["splits"])
    settings["part_size"] = choose_part_size(settings["part_size"], settings["batch_size"], rows)
    return settings | choose_dtype(settings["dtype"], job.splits, job.encoder, settings["batch_size"])


def _attributes(job: Job, settings: dict[str, Any]) -> dict[str, Any]:
    """What the finished file says about itself."""
    dataset, backbone = job.dataset, job.backbone
    versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for package in ("alfm", "numpy", "h5py", "torchvision", "timm", "open_clip_torch", "transformers"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    provenance = {key: value for key, value in backbone.provenance.items() if value is not None}
    described = {key: value for key, value in settings.items() if value is not None and value != []}
    names = {"class_names": list(dataset.classes)} if dataset.classes else {}
    config = {"dataset_config": dict(job.config)} if job.config else {}
    config |= {"model_config": dict(job.model_config)} if job.model_config else {}
    return {
        **{f"dataset_{key}": value for key, value in dataset.notes.items()},
        "dataset_licence": dataset.licence or "unknown",
        "modality": dataset.modality,
        **provenance,
        **described,
        **names,
        **config,
        "versions": versions,
    }


def already_there(target: Path, wanted: dict[str, Any], force: bool, run: str | None) -> bool:
    """Whether the cache is there and the same. `UserError` when it is there and differs."""
    if not target.exists():
        return False
    try:
        there = dict(open_cache(target, unlabelled=None).attributes)
    except UserError:
        if force:
            return False
        raise
    if force:
        return run is not None and there.get("run") == run
    for key in ("splits", "augment"):
        there[key] = json.loads(there[key]) if isinstance(there.get(key), str) else there.get(key)
    here = {key: None if value == [] else value for key, value in wanted.items()}  # as it is described in the file
    if here["dtype"] == "auto":
        here["dtype"] = there.get("dtype")
    if found := differences(here, there, _IDENTITY):
        raise UserError(
            f"{target} is another cache ({found}). Give it another name with cache.dataset=NAME or cache.model=NAME, "
            "or replace it with force=true."
        )
    return True


def first_batch(splits: Mapping[str, Split], backbone: Backbone, count: int) -> Any:
    """For measuring speed: `count` times the first readable item, collated."""
    for split in splits.values():
        for row in range(min(len(split), 100)):
            try:
                item = backbone.preprocess(split.load(row))
            except UserError:
                raise
            except Exception:  # a damaged item is dealt with when its turn comes
                continue
            return backbone.collate([item] * count)
    raise UserError("None of the first 100 items of any split can be read.")
