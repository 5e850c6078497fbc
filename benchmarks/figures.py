"""Writes the tables of benchmarks/README.md from results/*.json, so that no figure in them is typed.

    python benchmarks/figures.py

A table stands between `<!-- NAME -->` and `<!-- end -->`; what is between them is replaced, the words around are not.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import audit
from machine import gib, markdown

HERE = Path(__file__).parent
Lines = Iterator[str]


def results(name: str) -> dict[str, Any]:
    """One results file."""
    return json.loads((HERE / "results" / name).read_text(encoding="utf-8"))


def only_pool(found: dict[str, Any]) -> dict[str, Any]:
    (pool,) = found["pools"].values()
    return pool


def when(found: dict[str, Any]) -> str:
    machine = found["machine"]
    return (
        f"Measured {machine['time'][:16].replace('T', ' ')} UTC at commit {str(machine['commit'])[:7]}, load average "
        f"{machine['load_average'][0]:g} before."
    )


# -- tables ----------------------------------------------------------------------------------------------------------


def speed_10k() -> Lines:
    found = results("speed-10k.json")
    pool = only_pool(found)
    one, none = (pool["standin"][workers] for workers in ("1", "0"))
    yield (
        f"{when(found)} Stand-in, one seed: {one['round']:.2f} s a round with one loader worker, "
        f"{none['round']:.2f} s with none."
    )
    yield ""
    rows = []
    for name, by in pool["rounds"].items():
        ours = by["5"]
        theirs = [5 * (s["round"] if ours["needs_head"] else s["fit"] + s["eval"]) for s in (one, none)]
        rows.append(
            [name, *(f"{t / ours['round']:.0f}" for t in theirs)]
            + [ours[part] for part in ("round", "fit", "query", "eval", "first_query")]
            + [by.get("1", {}).get("round")]
        )
    rows.sort(key=lambda row: -int(row[1]))
    yield from markdown(
        ["strategy", "x stand-in, 1 worker", "x stand-in, 0 workers", "round s", "fit", "query", "eval",
         "first query s", "round s, one replicate"], rows,
    )  # fmt: skip


def rounds_50k() -> Lines:
    found = results("speed-50k.json")
    yield when(found)
    yield ""
    rows = []
    for name, by in only_pool(found)["rounds"].items():
        five, one = by.get("5", {}), by.get("1", {})
        if five.get("status") != "ok":
            rows.append([name, five.get("status")])
            continue
        parts = [five[part] for part in ("round", "fit", "query", "eval", "first_query")]
        rows.append([name, *parts, one.get("round"), one.get("first_query"), gib(five["peak_bytes"])])
    rows.sort(key=lambda row: row[1] if isinstance(row[1], float) else math.inf)
    yield from markdown(
        ["strategy", "round s", "fit", "query", "eval", "first query s", "round s, one replicate",
         "first query s, one replicate", "peak GiB"], rows,
    )  # fmt: skip


def plain() -> Lines:
    found = results("speed-50k-plain.json")
    yield when(found)
    yield ""
    measured = only_pool(found)["plain"]
    rows = []
    for title, name, ours, theirs, wanted in (
        ("coreset, from nothing", "coreset", "fresh", "plain", 1.2),
        ("coreset, carried", "coreset", "carried", "plain_next", 0.2),
        ("badge", "badge", "fresh", "plain", 0.3),
        ("probcover, greedy / its pass", "probcover", "greedy", "pass", 0.2),
        ("maxherding, all / one of itself", "maxherding", "fresh", "plain", 3),
    ):
        one = measured[name]
        same = {True: "yes", False: "NO", None: "a draw"}[one.get("same_picks")]
        rows.append([title, one[ours] / one[theirs], wanted, one[ours], one[theirs], same, gib(one["our_peak_bytes"])])
    yield from markdown(
        ["selection", "ours / plain", "wanted at most", "ours s", "plain s", "same picks", "our peak GiB"], rows
    )


def fits() -> Lines:
    found = results("heads-timing.json")
    yield when(found)
    yield ""
    rows = []
    for one in found["timing"]:
        ours, theirs = one["ours"], one["scikit_learn"]
        rows.append([
            one["problem"], ours["five"] / theirs["seconds"], ours["five"], ours["one"],
            f"{theirs['seconds']:.3f} ({theirs['solver']})",
            f"{ours['relative_gap']:.1e} / {theirs['relative_gap']:.1e}", ours["warm_over_cold"],
        ])  # fmt: skip
    yield from markdown(
        ["problem", "five / one scikit-learn", "ours x5 s", "ours x1 s", "scikit-learn s",
         "objective gap, ours / scikit-learn", "warm / cold"], rows,
    )  # fmt: skip


def heads() -> Lines:
    found = results("heads.json")
    yield when(found)
    yield ""
    names = {"logistic (default)": "default", "dropout": "dropout", "adapter": "adapter"}
    names |= {f"soft, c={c}": f"soft, c={c}" for c in (1, 10, 100)}
    rows: list[list[Any]] = []
    for cell, by in found["cells"].items():
        cache, labels = cell.split(", ")
        rows.append([cache.split("/")[0], labels.split()[0], *(f"{100 * by[name]['mean']:.1f}" for name in names)])
    gaps = (found["gaps"][name] for name in names)
    rows.append(["mean gap (worst)", None, *(f"{gap['mean']:.2f} ({gap['worst']:.1f})" for gap in gaps)])
    rows.append([
        "seconds of all fits", None, *(sum(by[name]["fit_seconds"] for by in found["cells"].values()) for name in names)
    ])  # fmt: skip
    yield from markdown(["cache", "labels per class", *names.values()], rows)


def peers() -> Lines:
    found = results("speed-50k.json")
    pool = only_pool(found)
    rows = []
    for peer in pool["peers"]:
        name = peer["strategy"]
        ours = [pool["rounds"].get(name, {}).get(R, {}).get("first_query") for R in ("1", "5")]
        if peer["status"] == "ok":
            ratio = peer["seconds"] / ours[0] if ours[0] else None
            rows.append([name, peer["peer"], peer["seconds"], ours[0], ratio, ours[1]])
            continue
        asked = re.search(r"allocate (\S+ \S+)", peer.get("message") or "")
        why = f"out of memory: asked for {asked[1]}" if asked else "no answer" if peer["status"] == "timeout" else None
        rows.append([name, peer["library"].replace("_", "-"), why or peer["status"], ours[0], None, ours[1]])
    yield from markdown(
        ["strategy", "peer", "peer s", "ours, 1 replicate s", "peer / ours", "ours, 5 replicates s"], rows, words=2
    )


def roofline() -> Lines:
    found = results("roofline.json")
    limits = found["limits"]
    yield (
        f"{when(found)} Limits measured by the script: {limits['bandwidth'] / 1e9:.0f} GB/s and "
        f"{limits['matmul'] / 1e9:.0f} Gflop/s."
    )
    yield ""
    rows = [
        [k["name"], k["unit"], k["seconds"], k["bytes"] / 1e9, k["flops"] / 1e9, k["limit"], k["share"],
         k["plain_limit_seconds"] / k["seconds"] if k.get("plain_limit_seconds") else None]
        for k in found["kernels"]
    ]  # fmt: skip
    yield from markdown(
        ["kernel", "unit", "seconds", "GB", "Gflop", "nearer limit", "share", "plain limit / ours"], rows, words=2
    )


def growth() -> Lines:
    found = results("scale.json")
    yield when(found)
    yield ""
    parts = ("round", "query", "first_query")
    rows = [
        [p["strategy"], f"{p['items']:,}", str(p["replicates"]),
         *([p[part] for part in parts] + [gib(p["peak_bytes"])] if p["status"] == "ok" else [p["status"]])]
        for p in found["points"]
    ]  # fmt: skip
    yield from markdown(["strategy", "N", "R", "round s", "query s", "first query s", "peak GiB"], rows)
    yield ""
    yield "Exponents fitted to these (time, or memory above an idle process, as N^a and R^a) and how many points each:"
    yield ""
    columns = ["query ~ items", "round ~ items", "memory ~ items", "query ~ replicates", "round ~ replicates",
               "memory ~ replicates"]  # fmt: skip
    told = [
        [name, *(f"{fit[c][0]:.2f} ({fit[c][1]})" if fit.get(c) else None for c in columns)]
        for name, fit in found["exponents"].items()
    ]
    yield from markdown(["strategy", *columns], told)


def memory() -> Lines:
    found = results("memory.json")
    yield when(found)
    yield ""
    rows = []
    for name, by in sorted(only_pool(found)["strategies"].items()):
        for R, one in by.items():
            if one["status"] == "ok":
                sizes = [gib(one["whole_bytes"]), gib(one["query_bytes"])]
                rows.append([name, R, *sizes, ", ".join(f"{s:.3g}" for s in one["seconds"])])
            else:
                rows.append([name, R, one["status"]])
    yield from markdown(["strategy", "replicates", "whole GiB", "query GiB", "seconds (first, second query)"], rows)


def audit_holds() -> Lines:
    found = results("audit.json")
    yield when(found)
    yield ""
    _, columns, rows, note = audit.tables(found)[0]
    yield from markdown(columns, rows)
    yield ""
    yield note


def audit_others() -> Lines:
    _, columns, rows, note = audit.tables(results("audit.json"))[1]
    yield from markdown(columns, rows)
    yield ""
    yield note


TABLES: dict[str, Callable[[], Lines]] = {
    "speed-10k": speed_10k, "speed-50k": rounds_50k, "plain": plain, "fits": fits, "heads": heads,
    "peers": peers,
    "roofline": roofline, "growth": growth, "memory": memory,
    "audit": audit_holds, "audit-others": audit_others,
}  # fmt: skip


def main() -> None:
    page = HERE / "README.md"
    text = page.read_text(encoding="utf-8")
    for name, lines in TABLES.items():
        between = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        if not between.search(text):
            raise SystemExit(f"{page} has no place for the table {name}: <!-- {name} --> and <!-- end -->.")
        table = "\n" + "\n".join(lines()) + "\n\n"
        text = between.sub(lambda _, table=table: table, text)
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
