"""Hydra's launcher plugins behind our own command line: `-m hydra/launcher=joblib`, submitit_slurm, ray and others.

A launcher is an object of a plugin's that Hydra makes from conf/launch.yaml and what was typed of `hydra.`; it runs a
function once for each list of words. What it runs here is not composed from those words: cells were, before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from alfm.config.mistakes import syntax
from alfm.config.paths import paths
from alfm.cores import available_cores
from alfm.errors import UserError, nearest_names

if TYPE_CHECKING:
    from hydra.core.config_loader import ConfigLoader
    from omegaconf import DictConfig

_CONFIG = "launch"
_CHOICE = "hydra/launcher"
_PLUGINS = {
    "joblib": "launchers",
    "submitit_local": "launchers",
    "submitit_slurm": "launchers",
    "ray": "ray-launcher",
}
"""Launchers that are known, and the extra that brings each."""

_DEFAULTS = {
    "ray": [
        # a number cannot be said of a cluster that others started
        "++hydra.launcher.ray.init.object_store_memory=null",
        # what jobs print is in the sweep's folder
        "++hydra.launcher.ray.init.log_to_driver=false",
        # what is lost is launched once more by us, after the others
        "++hydra.launcher.ray.remote.max_retries=0",
    ]
}
"""Settings that a launcher needs to run our jobs; what is typed wins."""


@dataclass(frozen=True)
class Launcher:
    """One of Hydra's launchers, as the command line chose it."""

    name: str
    folder: Path
    """The sweep's own, absolute; there is nothing in it yet."""
    cells_per_job: int | None
    config: DictConfig
    _loader: ConfigLoader

    @property
    def all_at_once(self) -> bool:
        """Whether it starts all jobs that it is given at the same time."""
        return self.name == "submitit_local"

    def workers(self) -> int | None:
        """How many jobs run side by side; None where only the cluster knows."""
        settings = self.config.hydra.launcher
        if self.name == "joblib":
            from joblib import effective_n_jobs

            try:
                return int(effective_n_jobs(settings.n_jobs))
            except ValueError as error:
                raise UserError(f"hydra.launcher.n_jobs={settings.n_jobs}: {error}; give 2, or -1 for all.") from error
        if self.name == "submitit_slurm":
            return int(settings.array_parallelism)
        return available_cores() if self.name == "submitit_local" else None

    def start(self, task: Callable[[DictConfig], None], words: Sequence[Sequence[str]], first: int) -> None:
        """Run `task`, which can be pickled, once for each list of words, and wait; jobs are numbered from `first`.

        Raises whatever the launcher does where a job is lost, while others may still be at work.
        """
        from hydra._internal.callbacks import Callbacks
        from hydra.core.plugins import Plugins
        from hydra.types import HydraContext

        context = HydraContext(config_loader=self._loader, callbacks=Callbacks())
        plugin = Plugins.instance().instantiate_launcher(config=self.config, hydra_context=context, task_function=task)
        plugin.launch([list(each) for each in words], initial_job_idx=first)


def for_launcher(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What is said of a sweep's launcher, and the other words; nothing is where no launcher but Hydra's own is named.

    Raises UserError for `sweep.` without one.
    """
    ours = [word for word in words if word.lstrip("+~").startswith("sweep.")]
    words = [word.lstrip("+") if word.lstrip("+").startswith(f"{_CHOICE}=") else word for word in words]
    named = [word.partition("=")[2] for word in words if word.partition("=")[0] == _CHOICE]
    if not named or named[-1] == "basic":
        if ours:
            raise UserError(f"{ours[0]}: this process runs cells one after the other; add -m {_CHOICE}=joblib.")
        return [], list(words)
    hydras = [word for word in words if word.lstrip("+~").startswith(("hydra.", "hydra/"))]
    return [*hydras, *ours], [word for word in words if word not in (*hydras, *ours)]


def launcher_of(words: Sequence[str], extra: Path | None) -> Launcher:
    """The launcher that the first part of `for_launcher` describes. Hydra must be initialised.

    extra: a user's own folder of config groups. Raises UserError: no such launcher, its package is missing, a setting
    that it does not have.
    """
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from hydra.types import RunMode
    from omegaconf.errors import OmegaConfBaseException

    name = [word.partition("=")[2] for word in words if word.startswith(f"{_CHOICE}=")][-1]
    folder = _own_folder([word.partition("=")[2] for word in words if word.startswith("hydra.sweep.dir=")])
    search = [f"hydra.searchpath=[file://{extra}]"] if extra else []
    words = [
        *search,
        *_DEFAULTS.get(name, ()),
        *(word for word in words if not word.startswith("hydra.sweep.dir=")),
        _word(folder),
    ]
    loader = GlobalHydra.instance().config_loader()
    _check_installed(name, loader.get_group_options(_CHOICE))
    try:
        config = loader.load_configuration(_CONFIG, words, run_mode=RunMode.MULTIRUN)
    except (HydraException, OmegaConfBaseException) as error:
        plain = loader.load_configuration(_CONFIG, [*search, f"{_CHOICE}={name}"], run_mode=RunMode.MULTIRUN)
        for word in words:
            key = word.partition("=")[0]
            if key.startswith("hydra.launcher.") and key.split(".")[2] not in plain.hydra.launcher:
                near = nearest_names(key.split(".")[2], [str(one) for one in plain.hydra.launcher])
                raise UserError(f"{word}: hydra/launcher={name} has no such setting; {near}") from error
        raise UserError(syntax(error)) from error
    each = config.sweep.cells_per_job
    if each is not None and (not isinstance(each, int) or isinstance(each, bool) or each < 1):
        raise UserError(f"sweep.cells_per_job={each}: give a whole number from 1 on, or null.")
    return Launcher(name, folder, each, config, loader)


def _check_installed(name: str, known: Sequence[str]) -> None:
    from importlib.util import find_spec

    if name in _PLUGINS:
        plugin = name.partition("_")[0]
        if name not in known or find_spec(f"hydra_plugins.hydra_{plugin}_launcher") is None:
            raise UserError(f"{_CHOICE}={name} needs a package: pip install 'alfm[{_PLUGINS[name]}]'")
    elif name not in known:
        raise UserError(f"There is no {_CHOICE}={name}: there are {', '.join(_PLUGINS)}.")


def _own_folder(typed: Sequence[str]) -> Path:
    """Where a sweep keeps what it needs and says: `hydra.sweep.dir`, or a new one in LOG_DIR."""
    if typed:
        return Path(typed[-1].strip("'\"")).expanduser().absolute()
    return paths().logs.absolute() / "sweeps" / datetime.now().strftime("%Y-%m-%d_%H-%M-%S.%f")


def _word(folder: Path) -> str:
    text = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.sweep.dir='{text}'"
