"""Items that were not in the pool, embedded with the pool's backbone: only those that no cache holds yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from alfm.backbones.base import Backbone
from alfm.cache import FeatureCache, open_cache
from alfm.config.build import build, source_kind
from alfm.config.cell import Cell, as_cfg
from alfm.config.paths import cache_file, conf_dir
from alfm.datasets.base import Dataset
from alfm.errors import UserError
from alfm.extraction.session import Extraction
from alfm.labelling.active_learner import ActiveLearner
from alfm.labelling.item_sources import stored_config

_OURS = "alfm.backbones."
_PLAIN = {"_target_", "_convert_"}


def embedded(cell: Cell, learner: ActiveLearner) -> list[tuple[FeatureCache, set[str]]]:
    """Caches of the data set that a cell of conf/predict.yaml names, and the ids in it; none where it names none.

    They lie where extraction puts them, `<model>-new-1.h5` and so on: each time only what is new is embedded. Raises
    UserError.
    """
    if cell.config.get("dataset") is None:
        return []
    pool = learner.caches[0][0]
    model = _model(cell, pool)
    dataset: Dataset = build(as_cfg(cell.config).dataset, source_kind("dataset"), "dataset")
    backbone: Backbone = build(as_cfg({"model": model}).model, source_kind("model"), "model")
    ids = {item for split in dataset.splits.values() for item in split.ids}
    there: list[FeatureCache] = []
    while (path := cache_file(dataset.name, f"{backbone.name}-new-{len(there) + 1}")).exists():
        there.append(open_cache(path))
    known = [cache for cache, _ in learner.caches] + there
    if ids - {item for cache in known for split in cache.splits for item in cache.ids(split) or []}:
        _extract(cell, model, path, known, pool)
        there.append(open_cache(path))
    return [(cache, ids) for cache in there]


def _extract(cell: Cell, model: Mapping[str, Any], path: Path, known: list[FeatureCache], pool: FeatureCache) -> None:
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "extract.yaml"))
    del config["defaults"]
    config |= {
        "dataset": cell.config["dataset"],
        "model": dict(model),
        "augment": None,
        "device": cell.config["device"],
        "decode": pool.attributes.get("decode", "pil"),
    }
    config["cache"] |= {"dataset": path.parent.name, "model": path.stem}
    config["known"] = [str(cache.path) for cache in known if all(cache.ids(split) for split in cache.splits)]
    config["known"] = config["known"] or None
    Extraction().run(replace(cell, config=config))


def _model(cell: Cell, pool: FeatureCache) -> Mapping[str, Any]:
    """The config of the backbone: what was typed, else what the cache says, as far as that may be called."""
    if cell.config.get("model") is not None:
        return dict(cell.config["model"])
    stored = stored_config(pool, "model_config")
    hint = "say which with model=NAME (and the model. settings it was made with)."
    if stored is None:
        raise UserError(f"{pool.path} does not say with which backbone it was made: {hint}")
    if not str(stored.get("_target_")).startswith(_OURS) or _calls(stored):
        raise UserError(f"{pool.path} names a backbone that is no part of alfm, which is not called: {hint}")
    return stored


def _calls(config: Mapping[str, Any]) -> bool:
    """Whether something inside would be called, or code from elsewhere be run."""
    strange = [key for key, value in config.items() if key.startswith("_") and key not in _PLAIN]
    trusts = any("trust" in key and value for key, value in config.items())
    return (
        bool(strange) or trusts or any("_target_" in str(value) for key, value in config.items() if key not in _PLAIN)
    )
