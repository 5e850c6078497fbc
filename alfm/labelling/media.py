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
    if raw[:3] == b"ID3" or (len(raw) > 1 and raw[0] == 0xFF and raw[1] & 0xE6 == 0xE2):  # layer III
        return "audio/mpeg"
    for start, kind in (
        (b"\xff\xd8\xff", "image/jpeg"), (b"\x89PNG\r\n\x1a\n", "image/png"), (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"), (b"OggS", "audio/ogg"), (b"fLaC", "audio/flac"),
    ):  # fmt: skip
        if raw.startswith(start):
            return kind
    return "application/octet-stream"


def plays(raw: bytes) -> bool:
    """Whether browsers play it, of what `media_type` calls audio: not the rarer codings inside WAV."""
    if raw[:4] != b"RIFF":
        return True
    at = 12
    while at + 10 <= len(raw) and raw[at : at + 4] != b"fmt ":
        at += 8 + int.from_bytes(raw[at + 4 : at + 8], "little")
    return int.from_bytes(raw[at + 8 : at + 10], "little") in (1, 3, 0xFFFE)


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
