"""One recording: decoded with libsndfile, mono, float32."""

from __future__ import annotations

import io
from typing import BinaryIO

import numpy as np

from alfm.datasets.base import Audio, ItemError
from alfm.errors import UserError

_LOUDEST = 64.0
"""Samples as floats may exceed 1 where they were not clipped; beyond this they are whole numbers of some range."""


def read_audio(source: str | bytes | BinaryIO, item_id: str, max_seconds: float = 600.0) -> Audio:
    """Decode WAV, FLAC, OGG, MP3, ... to mono (the mean of the channels) at the file's own rate.

    `source`: a path, an open binary file, or the encoded bytes. At most the first `max_seconds` are read, so that
    memory stays bounded. Raises `ItemError` for files that cannot be decoded or that hold no samples, `UserError`
    when soundfile is not installed.
    """
    try:
        import soundfile
    except ImportError:
        raise UserError("reading audio needs soundfile: pip install 'alfm[audio]'") from None
    if isinstance(source, bytes):
        source = io.BytesIO(source)
    try:
        with soundfile.SoundFile(source) as file:
            rate = int(file.samplerate)
            samples = file.read(frames=int(max_seconds * rate), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, TypeError) as error:
        reason = str(error).replace(repr(source), "the data")
        raise ItemError(f"{item_id}: cannot be read as audio: {reason}") from error
    return mono(samples, rate, item_id)


def mono(samples: np.ndarray, rate: int, item_id: str) -> Audio:
    """Samples (T,) or (T, channels), integer or float -> `Audio`. `ItemError` when empty or not finite."""
    samples = np.asarray(samples)
    if samples.dtype.kind in "iu":  # unsigned ones are silent in the middle of their range
        half = float(
            np.iinfo(samples.dtype).max // 2 + 1 if samples.dtype.kind == "u" else -np.iinfo(samples.dtype).min
        )
        samples = samples.astype(np.float32) / half - (1.0 if samples.dtype.kind == "u" else 0.0)
    samples = samples.astype(np.float32, copy=False)
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if samples.ndim != 1 or len(samples) == 0:
        raise ItemError(f"{item_id}: the recording holds no samples")
    if not np.isfinite(samples).all():
        raise ItemError(f"{item_id}: the recording holds NaN or infinite samples")
    if (peak := float(np.abs(samples).max())) > _LOUDEST:
        raise ItemError(
            f"{item_id}: samples go up to {peak:.0f}, they must lie in [-1, 1]: divide whole numbers by their range"
        )
    return Audio(np.ascontiguousarray(samples), int(rate))
