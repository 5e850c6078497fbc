"""Jobs of a sweep one after the other, in this process."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alfm.config.build import causes_of
from alfm.errors import UserError

if TYPE_CHECKING:
    from omegaconf import DictConfig

# ---- running --------------------------------------------------------------------------------------------------------


@dataclass
class Job:
    words: list[str]
    cfg: DictConfig
    """What the task gets."""
    whole: DictConfig
    """The same with Hydra's own node, for `${hydra:...}`."""

    def enter(self) -> DictConfig:
        """Let `${hydra:...}` resolve to this job's values."""
        from hydra.core.hydra_config import HydraConfig

        HydraConfig.instance().set_config(self.whole)
        return self.cfg


def run_jobs(jobs: list[Job], task: Callable[[DictConfig], None], sort_key: Callable[[DictConfig], Any] | None) -> int:
    if sort_key is not None and len(jobs) > 1:
        ranks: dict[Any, int] = {}
        places = [ranks.setdefault(sort_key(job.enter()), len(ranks)) for job in jobs]
        jobs = [jobs[index] for index in sorted(range(len(jobs)), key=places.__getitem__)]
    failed = []
    for number, job in enumerate(jobs, 1):
        if len(jobs) > 1:
            print(f"[{number}/{len(jobs)}] {' '.join(job.words)}", flush=True)
        try:
            task(job.enter())
        except KeyboardInterrupt:
            say("Interrupted. The same command goes on from here.", "")
            return 130
        except Exception as error:
            mistake = next((cause for cause in causes_of(error) if isinstance(cause, UserError)), None)
            if mistake is None and len(jobs) == 1:
                raise
            if mistake is None:
                traceback.print_exc()
            say(str(mistake or f"{type(error).__name__}: {error}"))
            failed.append(" ".join(job.words))
    if failed and len(jobs) > 1:
        say(f"{len(failed)} of {len(jobs)} jobs failed: {'; '.join(failed)}")
    return 1 if failed else 0


def say(text: str, head: str = "Error: ") -> None:
    print(head + text, file=sys.stderr, flush=True)
