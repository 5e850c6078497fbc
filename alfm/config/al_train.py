"""The configuration of `al_train` as it stands in conf/, with some choices made; nothing heavy is imported for it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from alfm.config.paths import conf_dir

if TYPE_CHECKING:
    from omegaconf import DictConfig


@cache
def al_train(words: tuple[str, ...]) -> DictConfig:
    """With these words of a command line, and its `hydra` node.

    Composed once per process and not to be changed: it takes tenths of a second, and the files stay as they are. Raises
    Hydra's own errors for words that it does not take.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    before = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(config_dir=str(conf_dir()), version_base="1.3"):
            return compose("al_train", overrides=list(words), return_hydra_config=True)
    finally:
        GlobalHydra.instance().clear()
        GlobalHydra.instance().hydra = before
