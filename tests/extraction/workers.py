"""What a spawned worker may do, for the tests of `launch`. Imports nothing heavy, so that starting one is quick."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from alfm.errors import UserError


def mistaken(container: dict[str, Any], place: Any) -> None:
    if place.rank == 1:
        raise UserError("the second is wrong")
    time.sleep(600)


def broken(container: dict[str, Any], place: Any) -> None:
    print(1 / 0)


def killed(container: dict[str, Any], place: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def placed(container: dict[str, Any], place: Any) -> None:
    Path(container["out"], f"{place.rank}").write_text(f"{place.local_rank} {place.world} {place.run}")
