"""Commands that are printed to be typed again: quoted for the shell and, inside a setting, for Hydra."""

from __future__ import annotations

import re
import shlex
from typing import Any

_PLAIN = re.compile(r"[A-Za-z0-9_./+@%:-]+( [A-Za-z0-9_./+@%:-]+)*")
"""What Hydra reads as one string without quotes."""


def command(module: str, *words: str) -> str:
    """`python -m alfm.<module>` and its words, each quoted for the shell where it needs to be."""
    return " ".join(["python", "-m", f"alfm.{module}", *map(shlex.quote, words)])


def setting(key: str, value: Any) -> str:
    """`key=value` as a word of a command line: numbers and lists as Hydra writes them, odd strings in its quotes."""
    return f"{key}={_value(value)}"


def typed(key: str, value: Any) -> str:
    """The same, quoted for the shell too: what a sentence tells a person to type."""
    return shlex.quote(setting(key, value))


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(_value, value)) + "]"
    text = str(value)
    if isinstance(value, int | float) or _PLAIN.fullmatch(text):
        return text
    # a backslash is one as long as no quote follows it
    escaped = re.sub(r'(\\*)"', lambda match: match.group(1) * 2 + r"\"", text)
    ending = re.search(r"\\*$", escaped)
    return f'"{escaped}{ending.group() if ending else ""}"'
