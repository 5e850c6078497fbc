"""Seconds per active-learning round, beside peers and plain loops, on synthetic pools (see pools.py).

    python benchmarks/speed.py --pool 10k --json speed-10k.json
    python benchmarks/speed.py --pool 50k --strategies badge,coreset --parts rounds,plain

Parts: `rounds` (fit, query and eval of every strategy, 1 and 5 replicates), `standin` (a trainer, loader and checkpoint
per round; this project's own code), `peers` (scikit-activeml, small-text, scikit-learn), `plain` (loops one would write
first). Everything runs in a process of its own, one at a time; peers at each of --peer-threads, the best counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import machine
import peers
import plain
import pools
from machine import alone, comma, gib, numbers, report_problem, table

PARTS = ("rounds", "standin", "peers", "plain")
WANTED = {  # what five replicates may cost, relative to the plain loop
    "coreset, from nothing": ("fresh", "plain", 1.2),
    "coreset, carried": ("carried", "plain_next", 0.2),
    "badge": ("fresh", "plain", 0.3),
    "probcover, greedy / its pass": ("greedy", "pass", 0.2),
    "maxherding, all / one of itself": ("fresh", "plain", 3.0),
}


# -- jobs ------------------------------------------------------------------------------------------------------------


def ours(
    folder: str, strategy: str, classifier: str, replicates: int, labelled: int, batch: int, repeats: int,
    seconds: float, device: str,
) -> dict[str, Any]:  # fmt: skip
    """Rounds of the loop itself. Round 1 labels a random set; round 2's query makes what is made once per pool."""
    from alfm.config.parts import from_config
    from alfm.simulation.loop import run

    task = pools.task(folder, device)
    built = pools.strategy(strategy)
    budgets = [labelled] + [batch] * (repeats + 1)
    seeds = list(range(1, replicates + 1))
    rounds = []
    began = time.perf_counter()
    init = from_config("init_strategy", "random")
    for made in run(task, from_config("classifier", classifier), init, built, budgets, seeds):
        rounds.append({
            "labelled": made.num_labeled, "fit": made.fit_seconds, "query": made.query_seconds,
            "eval": made.eval_seconds, "filled": max(made.num_filled), "accuracy": made.metrics[0]["accuracy"],
        })  # fmt: skip
        each = (time.perf_counter() - began) / len(rounds)
        if len(rounds) >= 3 and time.perf_counter() - began + each > seconds:
            break
    steady = rounds[2:] or rounds[1:]
    median = {key: statistics.median(one[key] for one in steady) for key in ("fit", "query", "eval")}
    return median | {
        "round": statistics.median(one["fit"] + one["query"] + one["eval"] for one in steady),
        "first_query": rounds[1]["query"] if len(rounds) > 1 else None,
        "cold_fit": rounds[0]["fit"],
        "filled": max(one["filled"] for one in rounds[1:]) if len(rounds) > 1 else 0,
        "needs_head": bool(built.needs_head),
        "rounds": rounds,
    }


JOBS = {
    "ours": ours,
    "stand_in": peers.stand_in,
    "scikit_activeml": peers.scikit_activeml,
    "small_text": peers.small_text,
    "scikit_learn": peers.scikit_learn,
    "coreset": plain.coreset,
    "badge": plain.badge,
    "probcover": plain.probcover,
    "maxherding": plain.maxherding,
}


# -- the parts -------------------------------------------------------------------------------------------------------


class Benchmark:
    """One pool; every part adds to `result` and prints its table."""

    def __init__(self, options: argparse.Namespace, pool: str) -> None:
        self.options, self.spec = options, pools.POOLS[pool]
        self.folder = str(pools.make(self.spec, options.work))
        self.labelled, self.batch = options.labelled or self.spec.labelled, options.batch or self.spec.batch
        strategies = comma(options.strategies) if options.strategies else machine.strategy_names()
        self.strategies = [name for name in strategies if name not in comma(options.skip)]
        self.replicates = numbers(options.replicates)
        self.result: dict[str, Any] = {"pool": str(self.spec), "labelled": self.labelled, "batch": self.batch}

    def alone(self, what: str, threads: int | None = None, **arguments: Any) -> dict[str, Any]:
        o = self.options
        print(f"  {what} {arguments.get('strategy', '')} ...", file=sys.stderr, flush=True)
        arguments = {"folder": self.folder, "labelled": self.labelled, "batch": self.batch} | arguments
        return alone(
            __file__, what, {key: value for key, value in arguments.items() if value is not None},
            threads=threads or o.threads, timeout=o.timeout, memory_gib=o.memory,
        )  # fmt: skip

    def standin(self) -> None:
        for workers in (1, 0):
            self.result.setdefault("standin", {})[str(workers)] = self._best_threads(
                "stand_in", rounds=self.options.standin_rounds, workers=workers, seconds=self.options.timeout / 2,
                device=self.options.device,
            )  # fmt: skip
        columns = [
            "stand-in (trainer per round)", "round s", "fit s", "eval s", "query s", "epochs", "best threads", "status"
        ]  # fmt: skip
        rows = [
            [f"num_workers={w}", r.get("round"), r.get("fit"), r.get("eval"), r.get("query"),
             r["rounds"][0]["epochs"] if "rounds" in r else None, r.get("threads"), report_problem(r)]
            for w, r in self.result["standin"].items()
        ]  # fmt: skip
        table(f"Stand-in, ONE seed, {self.spec}, medians of rounds", columns, rows)

    def rounds(self) -> None:
        o = self.options
        for name in self.strategies:
            for R in self.replicates:
                self.result.setdefault("rounds", {}).setdefault(name, {})[str(R)] = self.alone(
                    "ours", strategy=name, classifier=o.classifier, replicates=R, repeats=o.repeats,
                    seconds=o.timeout / 2, device=o.device,
                )  # fmt: skip
        rows = []
        for name, by in self.result["rounds"].items():
            for R, one in by.items():
                ratios = [self._ratio(one, int(R), workers) for workers in ("1", "0")]
                rows.append([
                    name, R, *ratios, one.get("round"), one.get("fit"), one.get("query"), one.get("eval"),
                    one.get("first_query"), one.get("cold_fit"), gib(one.get("peak_bytes")), report_problem(one),
                ])  # fmt: skip
        columns = [
            "strategy", "R", "x stand-in, 1 worker", "x stand-in, 0 workers", "round s", "fit s", "query s", "eval s",
            "first query s", "cold fit s", "peak GiB", "status",
        ]  # fmt: skip
        note = (
            f"{o.threads} threads, device {o.device}, classifier {o.classifier}; {self.labelled} labels at the start, "
            f"{self.batch} a round; medians of up to {o.repeats} rounds after the first query, which also makes what "
            "is made once per pool. x stand-in: R rounds of the stand-in (without its query where ours needs no head) "
            "over one of ours for R replicates together."
        )
        table(f"Ours, R replicates together, {self.spec}", columns, rows, note)

    def _ratio(self, one: dict[str, Any], R: int, workers: str) -> float | None:
        other = self.result.get("standin", {}).get(workers, {})
        if "round" not in other or "round" not in one:
            return None
        seconds = other["fit"] + other["eval"] + (other["query"] if one["needs_head"] else 0)
        return R * seconds / one["round"]

    def peers(self) -> None:
        found: list[dict[str, Any]] = []
        o = self.options
        for library, known in (("scikit_activeml", peers.SCIKIT_ACTIVEML), ("small_text", peers.SMALL_TEXT)):
            for name in [name for name in self.strategies if name in known]:
                best = self._best_threads(library, strategy=name, repeats=o.repeats, seconds=o.peer_seconds)
                found.append({"strategy": name, "library": library} | best)
        fit = self._best_threads("scikit_learn", repeats=o.repeats, seconds=o.peer_seconds, batch=None)
        self.result["peers"], self.result["scikit_learn"] = found, fit
        rows = []
        for one in found:
            mine = self.result.get("rounds", {}).get(one["strategy"], {})
            first = [mine.get(R, {}).get("first_query") for R in ("1", "5")]
            ratios = [one["seconds"] / s if s and "seconds" in one else None for s in first]
            rows.append([
                one["strategy"], one.get("peer", one["library"]), *ratios, one.get("seconds"), *first,
                one["threads"], gib(one.get("peak_bytes")), report_problem(one),
            ])  # fmt: skip
        columns = [
            "strategy", "peer", "x ours, R=1", "x ours, R=5", "peer query s", "ours R=1 s", "ours R=5 s",
            "peer's best threads", "peer peak GiB", "peer status",
        ]  # fmt: skip
        note = (
            f"One query of {self.batch} items with {self.labelled} labels. Ours is the first query, with everything "
            "that is made once per pool (radius, graph, unit features); the peer's classifier is already fitted."
        )
        table(f"Peers, {self.spec}", columns, rows, note)
        mine = next(iter(self.result.get("rounds", {}).values()), {})
        fits = [[f"ours, logistic, R={R}, cold", one.get("cold_fit"), None, one.get("threads"), report_problem(one)]
                for R, one in mine.items()]  # fmt: skip
        other = [fit.get("peer", "scikit-learn"), fit.get("seconds"), fit.get("predict_seconds"), fit["threads"]]
        columns = ["head", "fit s", "pool s", "threads", "status"]
        note = "Each with its own defaults; heads.py --timing compares at the same objective. Ours makes its axes once."
        table(f"Fit on {self.labelled} labels, {self.spec}", columns, [*fits, [*other, report_problem(fit)]], note)

    def _best_threads(self, what: str, **arguments: Any) -> dict[str, Any]:
        """The peer at each thread count, fastest first; after a failure or a long run the others are not tried."""
        tried: list[dict[str, Any]] = []
        for threads in numbers(self.options.peer_threads):
            tried.append(self.alone(what, threads, **arguments))
            if tried[-1]["status"] != "ok" or tried[-1]["wall_seconds"] > self.options.peer_seconds * 2:
                break
        answered = [one for one in tried if one["status"] == "ok"]
        best = min(answered, key=lambda one: one["seconds"]) if answered else tried[-1]
        return best | {"tried": {str(one["threads"]): one.get("seconds", one["status"]) for one in tried}}

    def plain(self) -> None:
        o = self.options
        for name in ("coreset", "badge", "probcover", "maxherding"):
            if name in self.strategies:
                self.result.setdefault("plain", {})[name] = self.alone(
                    name, replicates=max(self.replicates), repeats=min(o.repeats, 3), device=o.device
                )
        rows = []
        for title, (mine, other, limit) in WANTED.items():
            one = self.result.get("plain", {}).get(title.split(",")[0])
            if one is not None:
                a, b = one.get(mine), one.get(other)
                ratio = a / b if a is not None and b else None
                peak = gib(one.get("our_peak_bytes"))
                rows.append([title, ratio, limit, a, b, one.get("same_picks"), peak, report_problem(one)])
        columns = [
            "selection", "ours / plain", "wanted at most", "ours s", "plain s", "same picks", "our peak GiB", "status"
        ]  # fmt: skip
        R = max(self.replicates)
        note = f"Ours: {R} replicates together. Plain: one replicate, {o.threads} threads, the same process."
        table(f"Against plain loops, {self.spec}, {self.labelled} labels, B={self.batch}", columns, rows, note)


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="10k", help=f"one or more of {', '.join(pools.POOLS)}")
    parser.add_argument("--parts", default=",".join(PARTS), help="which of these")
    parser.add_argument("--peers", action=argparse.BooleanOptionalAction, default=True, help="and the stand-in")
    parser.add_argument("--strategies", default="", help="a,b; default: every config")
    parser.add_argument("--skip", default="", help="strategies to leave out")
    parser.add_argument("--replicates", default="1,5")
    parser.add_argument("--repeats", type=int, default=5, help="rounds or queries a median is taken of")
    parser.add_argument("--classifier", default="logistic", help="config of our head")
    parser.add_argument("--labelled", type=int, help="labels at the start; default: the pool's")
    parser.add_argument("--batch", type=int, help="items asked for in a round; default: the pool's")
    parser.add_argument("--standin-rounds", type=int, default=3)
    parser.add_argument("--peer-threads", default="", help="thread counts tried for peers; default 1 and --threads")
    parser.add_argument("--peer-seconds", type=float, default=60.0, help="a peer is not repeated beyond this")
    options = parser.parse_args()
    if options.job:
        machine.serve(JOBS, options.job)
        return
    options.peer_threads = options.peer_threads or ",".join(map(str, sorted({options.threads, 1}, reverse=True)))
    if options.smoke:
        options.pool, options.repeats, options.standin_rounds = "tiny", 2, 1
    parts = [part for part in comma(options.parts) if options.peers or part not in ("peers", "standin")]
    unknown = [part for part in parts if part not in PARTS] + [p for p in comma(options.pool) if p not in pools.POOLS]
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; parts are {', '.join(PARTS)}, pools {', '.join(pools.POOLS)}")
    result: dict[str, Any] = {
        "benchmark": "speed", "machine": machine.describe(options.device), "threads": options.threads, "pools": {}
    }  # fmt: skip
    for pool in comma(options.pool):
        benchmark = Benchmark(options, pool)
        result["pools"][pool] = benchmark.result
        # the stand-in first: the rounds' table shows the ratio to it
        for part in sorted(parts, key=("standin", "rounds", "peers", "plain").index):
            getattr(benchmark, part)()
            machine.save(options.json, result)


if __name__ == "__main__":
    main()
