"""Stage 1, one worker from start to end: from a cell to a feature cache, or to this worker's share of one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from alfm.backbones.base import Backbone
from alfm.cache import open_cache
from alfm.cache.merge import Merged
from alfm.cache.parts import PartsFolder
from alfm.cache.writer import cannot_write
from alfm.config.build import build, source_kind
from alfm.config.cell import Cell, as_cfg
from alfm.config.paths import cache_file, conf_dir
from alfm.datasets.base import Dataset, Split
from alfm.datasets.stored import stored_config
from alfm.devices import choose_device
from alfm.errors import UserError, nearest_names
from alfm.extraction.agreement import Job, agree, already_there, wanted_settings
from alfm.extraction.console import Console
from alfm.extraction.decoding import check_device, check_images
from alfm.extraction.encoding import Encoder, check_torch_images, choose_precision
from alfm.extraction.known import Known
from alfm.extraction.loading import Items, duplicates
from alfm.extraction.plan import Plan, choose_num_workers
from alfm.extraction.processes import Place, launch, this_process
from alfm.extraction.ray_actors import launch_on_ray
from alfm.extraction.runner import Runner, use_threads
from alfm.extraction.settings import Settings
from alfm.extraction.upload import Upload
from alfm.options import plain, read

_SUCH_AS = {"image": "dino_vit_S14", "text": "all_minilm_l6_v2", "audio": "wav2vec2_base"}
"""A model that takes it."""


class Extraction:
    """Embeds data sets, one after the other, in one process; keeps the last backbone, so that a sweep loads each once.

    A session of an engine: see `alfm.engines.base.Session`.
    """

    def __init__(self) -> None:
        self._loaded: dict[str, Backbone] = {}
        """At most one: what it was made from and the device it is on -> the backbone."""

    def key(self, cell: Cell) -> str:
        """Cells with the same backbone have the same."""
        return _model_key(cell.cfg())

    def run(self, cell: Cell) -> None:
        """Make the cache that a cell of conf/extract.yaml describes, or say that it is there. Raises UserError."""
        cfg = cell.cfg()
        given = read(Settings, cfg)
        devices, on_ray = given.devices, given.engine == "ray"
        if devices > 1 and ":" in str(cfg.device):
            raise UserError(
                f"devices={devices} device={cfg.device}: each worker takes a GPU of its own; give device=cuda."
            )
        here = this_process(cfg.get("shard"))
        if not on_ray:
            _refuse_ray(cfg.ray)
        if on_ray and here.world == 1:
            launch_on_ray(cell, devices, given.ray, _child)
            return
        if devices > 1 and here.world == 1:
            launch(cell.config, devices, _child)
            return
        if cfg.force and (here.world > 1 or here.shard is not None) and here.run is None:
            raise UserError(
                "force=true cannot be given to several workers, one would undo the others' work: delete the cache and "
                "its .parts folder instead."
            )
        self.work(cfg, here)

    def work(self, cfg: DictConfig, here: Place) -> None:
        """What one worker does: load, agree with the others on a plan, embed a share of the items, put it together."""
        console = Console(quiet=here.rank > 0)
        augment = build(cfg.augment, Callable, "augment") if cfg.get("augment") is not None else None
        dataset, splits, backbone, device = self._load(cfg, here)
        given = cfg.cache
        known = Known(plain(cfg.known))
        if known:
            known.check(dataset, backbone, cfg.decode)
            count = sum(map(len, splits.values()))
            splits = known.new(splits)
            console.known(known, count - sum(map(len, splits.values())), count)
            if not splits:
                return
        model = given.get("model") or (known.model_name(backbone) if known else backbone.name)
        target = cache_file(given.get("dataset") or dataset.name, model)
        if known:
            known.check_target(target, splits, bool(cfg.force))
        upload = Upload(given.get("upload"), target)
        if not cfg.force:
            upload.fetch()
        console.start(dataset, backbone, splits, device, target)
        if cfg.get("augment") and cfg.views == 1:
            console.note("augment= makes no difference without views: add views=8")
        channels_last = None if cfg.channels_last == "auto" else bool(cfg.channels_last)
        encoder = Encoder(backbone, device, choose_precision(str(cfg.precision), device), channels_last)
        if cfg.compile:
            check_torch_images(backbone, "compile=true", "compile=false")
        config, secrets = stored_config(plain(cfg.dataset))
        model_config, _ = stored_config(plain(cfg.model))
        job = Job(dataset, splits, backbone, encoder, config, known.digest(splits), model_config)
        wanted = wanted_settings(job, cfg)
        if already_there(target, wanted, bool(cfg.force), here.run):
            with PartsFolder(target, float(cfg.lease_seconds)) as folder:
                folder.tidy(finished=open_cache(target, unlabelled=None).attributes.get("run"))
            upload.finished()
            console.already_there(target, known)
            return
        if secrets:
            names = ", ".join(f"dataset.{name}" for name in secrets)
            console.note(f"not kept in the cache, since it looks like a secret: {names}")
        left_out = {name: duplicates(split.ids) for name, split in splits.items()}
        _check_duplicates(splits, left_out, str(cfg.on_error))
        folder = PartsFolder(target, float(cfg.lease_seconds))
        plan: Plan | None = None
        merged: Merged | None = None
        try:
            with folder:
                plan = agree(job, folder, wanted, bool(cfg.force), here.run)
                if plan is not None:
                    upload.begun(folder)
                    items = Items(splits, backbone, plan, augment, left_out)
                    merged = _embed(cfg, here, job, plan, folder, items, console, upload)
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
        upload.finished()
        console.finish(target, merged, dataset.left_out, known)

    def _load(self, cfg: DictConfig, here: Place) -> tuple[Dataset, dict[str, Split], Backbone, torch.device]:
        """What is embedded with what, checked, the backbone with its weights on the device."""
        device = choose_device(str(cfg.device), here.local_rank)
        if cfg.decode == "gpu":
            check_device(device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else threads that pin memory would open a context on the first GPU as well
        key = f"{_model_key(cfg)} on {device}, channels_last={cfg.channels_last}"
        # the last backbone again, as it is, when neither it nor the device changed
        backbone = self._loaded.get(key) or build(cfg.get("model"), source_kind("model"), "model")
        dataset: Dataset = build(cfg.get("dataset"), source_kind("dataset"), "dataset")
        splits = _chosen_splits(dataset, cfg.get("splits"))
        if backbone.modality != dataset.modality:
            raise UserError(
                f"{backbone.name} takes {backbone.modality} and {dataset.name} is {dataset.modality}: "
                f"choose a model= for that kind of data, such as model={_SUCH_AS[dataset.modality]}."
            )
        if cfg.decode == "gpu":
            check_images(dataset, splits, backbone, cfg.views)
        if key not in self._loaded:
            self._loaded.clear()  # before the next one is loaded: two large models may not fit
            backbone.load(device)
            if backbone.dim:  # else it is found in the data, and the next data set's may be another
                self._loaded[key] = backbone
        return dataset, splits, backbone, device


def _embed(
    cfg: DictConfig,
    here: Place,
    job: Job,
    plan: Plan,
    folder: PartsFolder,
    items: Items,
    console: Console,
    upload: Upload,
) -> Merged | None:
    """This worker's share of the parts; what was put together of all, None when others' are missing."""
    device = job.encoder.device
    use_threads(device, plan.settings["threads"])
    if cfg.compile:
        job.encoder.compile()
    console.plan(plan)
    rows = sum(map(len, job.splits.values()))
    num_workers = choose_num_workers(cfg.num_workers, device.type, rows, here.local_world)
    with console.progress(rows, folder, plan) as bar:
        runner = Runner(plan, folder, items, job.encoder, num_workers, cfg.on_error, bar.advance, bar.settled)
        runner.finished = lambda part: upload.finished_part(folder, part)
        return runner.run(here.shard)


def _child(config: dict[str, Any], here: Place) -> None:
    Extraction().work(as_cfg(config), here)


def _model_key(cfg: DictConfig) -> str:
    return json.dumps(plain(cfg.get("model")), sort_keys=True, default=str)


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


def _check_duplicates(splits: Mapping[str, Split], repeated: Mapping[str, dict[int, str]], on_error: str) -> None:
    for name, rows in repeated.items():
        if rows and on_error == "stop":
            raise UserError(
                f"{len(rows)} ids occur more than once in {name}, such as {splits[name].ids[next(iter(rows))]!r}: "
                "a pick could not be found again. Make them unique, or keep the first of each with on_error=skip."
            )


def _refuse_ray(given: DictConfig) -> None:
    """Raises UserError where `ray.` says more than conf/extract.yaml does."""
    plain_ones = OmegaConf.load(conf_dir() / "extract.yaml").ray
    for name, value in plain(given).items():
        if value != plain_ones[name]:
            raise UserError(
                f"ray.{name}={value}: Ray runs nothing without engine=ray; add it, or leave ray.{name} out."
            )
