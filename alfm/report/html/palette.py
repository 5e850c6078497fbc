"""The page's colours, light (and on paper) and dark: strategies' eight are those of all pictures (Okabe & Ito 2008)."""

from __future__ import annotations

from alfm.report.curves import COLOURS

_LINES_IN_THE_DARK = ("#4aa3e0", "#ff8a3d", "#2fc296", "#e3a3c6", "#9fd6f8", "#ffc04d", "#a6a9ae", "#b39be6")

LIGHT = {
    "paper": "#f6f4f0", "card": "#fffefb", "ink": "#23262b", "quiet": "#5f636b", "line": "#dedad2", "well": "#edeae4",
    "tint": "#0f6b62", "wash": "#dcebe7", "up": "#8fc3e8", "down": "#f2b08c", "good": "#1d6b41", "bad": "#a02020",
    **{f"c{i}": colour for i, colour in enumerate(COLOURS)},
}  # fmt: skip
DARK = {
    "paper": "#15171a", "card": "#1d2024", "ink": "#e9e6e0", "quiet": "#a3a7ae", "line": "#33373d", "well": "#121416",
    "tint": "#6fcbbd", "wash": "#213c38", "up": "#1f5f8f", "down": "#8f4a20", "good": "#66cf95", "bad": "#ff8f85",
    **{f"c{i}": colour for i, colour in enumerate(_LINES_IN_THE_DARK)},
}  # fmt: skip
