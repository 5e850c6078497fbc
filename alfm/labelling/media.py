"""Items as bytes for a browser, and what bytes are."""

from __future__ import annotations

import io
import wave
from typing import Any

import numpy as np


def media_type(raw: bytes) -> str:
    """By the first bytes; `application/octet-stream` for whatever a browser could take for a page."""
    if raw[:4] == b"RIFF" and raw[8:12] in (b"WAVE", b"WEBP"):
        return "audio/wav" if raw[8:12] == b"WAVE" else "image/webp"
    if raw[:2] == b"\xff\xfb" or raw[:2] in (b"\xff\xf3", b"\xff\xf2") or raw[:3] == b"ID3":
        return "audio/mpeg"
    for start, kind in (
        (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"), (b"OggS", "audio/ogg"), (b"fLaC", "audio/flac"),
    ):  # fmt: skip
        if raw.startswith(start):
            return kind
    return "application/octet-stream"


def encoded(item: Any) -> tuple[bytes, str]:
    """A loaded item as PNG, WAV or text, and its media type."""
    if isinstance(item, str):
        return item.encode("utf-8", "replace"), "text/plain; charset=utf-8"
    out = io.BytesIO()
    if hasattr(item, "samples"):
        return wav(item.samples, item.rate), "audio/wav"
    item.save(out, "PNG")
    return out.getvalue(), "image/png"


def wav(samples: np.ndarray, rate: int) -> bytes:
    """float (T,) in [-1, 1] as 16-bit mono WAV."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return out.getvalue()
