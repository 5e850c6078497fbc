"""What a run learnt from, in words: how rare its rare classes are, what was left out, what its annotator got wrong."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def pool_words(options: Mapping[str, Any], facts: Iterable[str | Mapping[str, int]]) -> str:
    """For example "exponential imbalance 100:1 (5 to 500 items per class, 7512 of 10000 left out), 20 % wrong answers".

    options: the `pool` and `oracle` nodes of a configuration. facts: what runs said of their pools
    (`alfm.simulation.pools.Made.facts`), as they stand in run frames; "" for a pool that is as the cache has it.
    """
    texts = dict.fromkeys(one if isinstance(one, str) else json.dumps(one) for one in facts if one)
    told = [json.loads(one) for one in texts]
    pool, oracle = options.get("pool") or {}, options.get("oracle") or {}
    words = [_imbalance(pool, told), _copies(pool, told), *_answers(oracle)]
    return ", ".join(filter(None, words))


def _imbalance(pool: Mapping[str, Any], told: list[Mapping[str, int]]) -> str:
    if not pool.get("imbalance"):
        return ""
    how = f"{pool['ratio']:g}:1" if pool.get("ratio") is not None else f"exponent {pool.get('exponent'):g}"
    name = {"power_law": "power-law"}.get(pool["imbalance"], pool["imbalance"])
    if not told:
        return f"{name} imbalance {how}"
    least, most = min(one["least"] for one in told), max(one["most"] for one in told)
    out = _range(one["left_out"] for one in told)
    whole = _range(one["items"] - one["copies"] + one["left_out"] for one in told)
    inside = [f"{least} to {most} items per class", f"{out} of {whole} left out"]
    if lone := max(one["lone"] for one in told):
        inside.append(f"one item kept of {lone} {'class' if lone == 1 else 'classes'} that had none left")
    return f"{name} imbalance {how} ({', '.join(inside)})"


def _copies(pool: Mapping[str, Any], told: list[Mapping[str, int]]) -> str:
    if not pool.get("duplicates"):
        return ""
    return f"{_range(one['copies'] for one in told) if told else format(100 * pool['duplicates'], 'g') + ' %'} copies"


def _answers(oracle: Mapping[str, Any]) -> list[str]:
    words = []
    if oracle.get("noise"):
        words.append(f"{100 * oracle['noise']:g} % wrong answers")
    if oracle.get("confusion"):
        words.append(f"answers confused by {Path(str(oracle['confusion'])).name}")
    if oracle.get("abstain"):
        words.append(f"{100 * oracle['abstain']:g} % unanswered")
    return words


def _range(numbers: Iterable[int]) -> str:
    found = list(numbers)
    return " to ".join(map(str, dict.fromkeys([min(found), max(found)])))
