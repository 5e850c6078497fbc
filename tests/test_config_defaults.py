"""One source of defaults: a config says what its class says, and a preset names here what it changes."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import MISSING
from typing import Any

import pytest
import yaml
from hydra.utils import get_object
from omegaconf import OmegaConf

from alfm.config.build import build
from alfm.config.paths import conf_dir
from alfm.datasets.audio import read_audio
from alfm.datasets.files import Decode, decode_text
from alfm.datasets.images import read_image

PRESETS = {"dbal": {"enable_dropout", "posterior"}, "dropout_joint": {"per_item"}}
"""Configs that set a class up as something else, and the options by which they do."""
CLASSES = ("classifier", "init_strategy", "query_strategy", "query_strategy/posterior", "stopping")

MODELS = {
    "": "open_clip pixels sentence_transformers timm transformers_audio transformers_text transformers_vision",
    "arch licence name": "all_minilm_l6_v2 bert_base hubert_base siglip2_vit_B16 siglip2_vit_L16 siglip2_vit_So400m14 "
    "vit_base_in21k",
    "arch licence name pooling": "clap_htsat dinov2_hf_S14 distilbert siglip2_hf_B16",
    "arch licence name seconds": "wav2vec2_base whisper_base",
    "arch licence name tag": "openai_vit_B16 openclip_vit_B16 openclip_vit_G14 openclip_vit_H14 openclip_vit_L14 "
    "openclip_vit_g14",
    "arch licence licence_page name": "dinov3_hf_S16 dinov3_vit_B16 dinov3_vit_H16 dinov3_vit_L16 dinov3_vit_S16",
    "arch crop_pct input_size kwargs licence name": "dino_vit_B14 dino_vit_L14 dino_vit_S14 dino_vit_g14",
}
DATASETS = {
    "": "digits image_folder table tar_shards torchvision",
    "column label_column modality": "hugging_face",
    "modality": "audio_folder text_folder",
    "column modality": "text_table",
    "licence": "cub200 tinyimagenet",
    "licence name": "amyloid_beta_unbal heart_failure",
    "balance licence name": "amyloid_beta_bal",
    "licence name test_fraction": "blood_smear colorectal_histology iicbu_hela iicbu_lymphoma malaria pap_smear_2019 "
    "pollen",
    "licence name pattern test_fraction": "cell_cycle pap_smear_2018",
    "licence name splits": "imagenet imagenet100",
    "exclude licence modality name split_lists": "speech_commands",
    "class_name licence name splits": "aircraft cars cifar10 cifar100 flowers food101 patch_camelyon svhn",
    "class_name kwargs licence name splits": "dtd inat2021 pets places365",
    "column label_column licence modality name path": "ag_news",
    "column label_column licence name path_format split_column": "colon_polyps",
    "column label_column licence name path_format test_fraction": "diabetic_retinopathy ham10000",
    "columns files label_column licence name separator": "domainnetreal",
}
"""The options that presets change, and the presets that do; places below DATASET_DIR and MODEL_CACHE_DIR aside."""


def options_of(kind: type) -> dict[str, Any]:
    """Options of a class and their defaults."""
    known = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    return {one.name: one.default_factory if one.default is MISSING else one.default for one in known if one.init}


def described(value: Any) -> Any:
    """What was built, as plain lists and dicts, so that equal options are equal."""
    if isinstance(value, list | tuple):
        return [described(one) for one in value]
    if isinstance(value, dict):
        return {key: described(one) for key, one in value.items()}
    if type(value).__module__.startswith("alfm."):
        return {"": type(value)} | {one: described(getattr(value, one)) for one in options_of(type(value))}
    return value


def config(group: str, name: str) -> dict[str, Any]:
    """`conf/<group>/<name>.yaml` with what its defaults list asks for; composing all by Hydra takes 20 s."""
    node = yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())
    for default in node.pop("defaults", []):
        (word, chosen), *_ = default.items() if isinstance(default, dict) else [(default, "")]
        place, _, path = word.strip("/").partition("@")
        if word in ("posterior", "after"):
            node[word] = config(f"{group}/{word}", chosen) | node.get(word, {})
        elif chosen and path and not word.startswith("override"):  # a strategy inside this one
            *outer, last = path.split(".")
            inside = node
            for part in outer:
                inside = inside.setdefault(part, {})
            inside[last] = config(place, chosen)
        elif isinstance(default, str) and default != "_self_":  # another config, here
            place, _, other = default.strip("/").removesuffix("@_here_").rpartition("/")
            node = config(place or group, other) | node
    return node | ({"path": "rows.txt"} if name in ("index_file", "replay") else {})


def named(group: str) -> list[tuple[str, str]]:
    return [(group, path.stem) for path in sorted((conf_dir() / group).glob("*.yaml"))]


@pytest.mark.parametrize(("group", "name"), [one for group in CLASSES for one in named(group)])
def test_a_class_has_the_defaults_of_its_config(group, name):
    """Python and the command line do the same when nothing is said; a head inside another one too."""
    built = build(OmegaConf.create(config(group, name)))
    needed = {one: getattr(built, one) for one, default in options_of(type(built)).items() if default is MISSING}
    left, right = described(built), described(type(built)(**needed))
    assert {option for option in left if left[option] != right[option]} == PRESETS.get(name, set())
    for inner in filter(dataclasses.is_dataclass, needed.values()):
        assert described(inner) == described(type(inner)())


@pytest.mark.parametrize("name", ["maxherding", "probcover", "typiclust"])
def test_a_cold_start_has_the_options_of_its_query_strategy(name):
    """Said once: the file of the cold start holds none of its own."""
    node = yaml.safe_load((conf_dir() / "init_strategy" / f"{name}.yaml").read_text())
    assert set(node) == {"defaults", "_target_"}
    assert config("init_strategy", name) == config("query_strategy", name)


def defaults_of(target: Any) -> dict[str, Any]:
    """What a data set's function or a backbone's class takes, what it hands on included; `...`: must be given."""
    makers = [one.__init__ for one in reversed(target.__mro__)] if isinstance(target, type) else [target]
    if any(one.kind is one.VAR_KEYWORD for one in inspect.signature(makers[-1]).parameters.values()):
        makers = [read_image, read_audio, decode_text, *makers]
    return {
        name: ... if one.default is one.empty else one.default
        for maker in makers
        for name, one in inspect.signature(maker).parameters.items()
    }


@pytest.mark.parametrize(
    ("group", "name", "changed"),
    [
        *(("model", name, words) for words, names in MODELS.items() for name in names.split()),
        *(("dataset", name, words) for words, names in DATASETS.items() for name in names.split()),
    ],
)
def test_a_preset_changes_what_is_named_here(group, name, changed):
    node = config(group, name)
    defaults = defaults_of(get_object(node.pop("_target_")))
    del node["_convert_"]
    lists = {option: list(value) for option, value in defaults.items() if isinstance(value, tuple)}
    other = {
        option
        for option, value in node.items()
        if value != (defaults | lists)[option]
        and value != "???"
        and not str(value).startswith("${oc.env:")
        and not (value is None and option in Decode.__annotations__)  # as whoever decodes an item has it
    }
    assert other == set(changed.split())


@pytest.mark.parametrize(("group", "table"), [("model", MODELS), ("dataset", DATASETS)])
def test_every_preset_is_named_here_once(group, table):
    names = [name for line in table.values() for name in line.split()]
    assert sorted(names) == sorted(name for _, name in named(group))
