"""The array of one `.npy` file."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alfm.errors import UserError


def load_npy(path: Path) -> np.ndarray:
    """The array, mapped: the header's claim is checked against the file's size before memory is taken."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}.") from error
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged or holds Python objects, which are not loaded ({reason}).") from error
