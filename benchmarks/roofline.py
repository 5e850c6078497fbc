"""How near each kernel comes to this machine's limits: bytes over memory bandwidth, operations over the matmul rate.

    python benchmarks/roofline.py --pool 50k --json roofline.json
    python benchmarks/roofline.py --pool 50k --device cuda

The limits are measured here: bandwidth as the best of copy, triad and a read-only product over arrays far larger than
the caches, the rate as the best square float32 product (TF32 off), on CPU also with one product per core. A kernel's
bytes are the least it must move with nothing kept in a cache between its sweeps; its operations are those of its
products. Share = the time the nearer limit allows over the time taken; above 1 a block stayed in a cache between
sweeps. Lazy kernels (k-center, D^2 sampling) do a part of the plain loop's work: "plain limit" is what the machine
would allow the plain loop.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import machine
import numpy as np
import pools
from machine import comma, drain, table


@dataclass
class Kernel:
    """One measurement. seconds, bytes and flops of one `unit`; plain_*: of the plain loop where ours does less."""

    name: str
    unit: str
    seconds: float
    bytes: float
    flops: float
    plain_bytes: float | None = None
    plain_flops: float | None = None
    note: str = ""


def timed(device: str, fn: Callable[[], Any], repeats: int) -> float:
    """Median seconds of fn, after one call to warm up."""
    fn()
    times = []
    for _ in range(repeats):
        began = drain(device)
        fn()
        times.append(drain(device) - began)
    return statistics.median(times)


# -- the machine's limits --------------------------------------------------------------------------------------------


def limits(device: str, small: bool) -> dict[str, float]:
    """Bytes per second and floating-point operations per second, float32, as measured now."""
    import torch

    from alfm.threads import side_by_side

    length = (1 << 22) if small else (1 << 28) if device.startswith("cuda") else (1 << 26)
    a, b, c = (torch.ones(length, device=device) for _ in range(3))
    matrix, vector = a.view(-1, 1024), torch.ones(1024, device=device)
    size = 4.0 * length
    found = {
        "copy": 2 * size / timed(device, lambda: c.copy_(a), 7),
        "triad": 3 * size / timed(device, lambda: torch.add(a, b, alpha=2.0, out=c), 7),
        "read": size / timed(device, lambda: matrix @ vector, 7),
    }
    rates = {}
    for n in (256, 512) if small else (1024, 2048, 4096):
        x, y = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
        out = torch.empty(n, n, device=device)
        rates[f"matmul {n}"] = 2.0 * n**3 / timed(device, lambda x=x, y=y, out=out: torch.mm(x, y, out=out), 7)
        if not device.startswith("cuda"):  # a product per core, as replicates run: faster than one product on all cores
            cores = torch.get_num_threads()
            jobs = [partial(torch.mm, x, y, out=torch.empty_like(out)) for _ in range(cores)]
            seconds = timed(device, lambda jobs=jobs: side_by_side(jobs, torch.device(device)), 7)
            rates[f"matmul {n}, one per core"] = cores * 2.0 * n**3 / seconds
    return found | rates | {"bandwidth": max(found.values()), "matmul": max(rates.values())}


# -- the kernels -----------------------------------------------------------------------------------------------------


class Setting:
    """The pool, five heads on it, and the numbers the byte counts are made of."""

    def __init__(self, spec: pools.Spec, folder: str, device: str, replicates: int, repeats: int) -> None:
        import torch

        from alfm.heads.logistic import Logistic

        self.spec, self.device, self.R, self.repeats = spec, device, replicates, repeats
        self.task = pools.task(folder, device)
        self.pool = self.task.pool
        self.N, self.D, self.C, self.n, self.B = self.pool.N, self.pool.D, spec.classes, spec.labelled, spec.batch
        starts = [np.random.default_rng(r).choice(self.N, self.n, replace=False) for r in range(replicates)]
        self.rows = torch.from_numpy(np.stack(starts)).to(device)
        self.targets = self.task.labels[self.rows]
        self.classifier = Logistic()
        self.head = self.classifier.fit(self.pool, self.rows, self.targets, self.C, list(range(replicates)))
        self.phi = self.pool.vectors(self.head.spaces[0])
        self.available = torch.ones(replicates, self.N, dtype=torch.bool, device=device).scatter_(1, self.rows, False)

    def time(self, fn: Callable[[], Any]) -> float:
        return timed(self.device, fn, self.repeats)


def head_step(s: Setting) -> Kernel:
    """One L-BFGS step of every replicate: two products with the labelled rows, sweeps over logits and history."""
    from alfm.heads.logistic import Logistic

    def steps(count: int) -> float:
        head = Logistic(tolerance=0.0, max_iterations=count)
        return s.time(lambda: head.fit(s.pool, s.rows, s.targets, s.C, list(range(s.R))))

    few, many, history = 10, 30, 8
    seconds = max(steps(many) - steps(few), 1e-9) / (many - few)
    k = min(s.D, s.n) if 2 * s.n <= s.D else s.D
    # X read twice; logits, probabilities and step written and read about eight times; the history read twice
    moved = 4.0 * s.R * (2 * s.n * k + 8 * s.n * s.C + 4 * history * k * s.C)
    operations = s.R * (4.0 * s.n * k * s.C + 8.0 * history * k * s.C)
    return Kernel("head fit, one step", f"step, {s.R} replicates", seconds, moved, operations)


def pool_pass(s: Setting) -> Kernel:
    """Logits and margins of the whole pool for every replicate."""
    from alfm.acquisition import margin_uncertainty

    seconds = s.time(lambda: s.pool.map(lambda phi, logits, rows, r: margin_uncertainty(logits), s.head))
    moved = 4.0 * (s.N * s.D + s.R * (s.C * s.D + s.N))
    return Kernel("pool pass (margins)", f"pass, {s.R} replicates", seconds, moved, 2.0 * s.R * s.N * s.D * s.C)


def contrast(s: Setting) -> Kernel:
    """CAL's pass: logits and distances to the labelled items of every replicate, the ten nearest of each item."""
    from alfm.strategies.cal import Cal
    from alfm.strategies.query import Query

    query = Query(
        s.pool, s.rows, s.targets, s.available, s.C, list(range(s.R)), 2, head=s.head, classifier=s.classifier
    )
    seconds = s.time(lambda: Cal().select(query, s.B))
    moved = 4.0 * (s.N * s.D + s.R * ((s.C + s.n) * s.D + s.N))
    operations = 2.0 * s.R * s.N * (s.D * (s.C + s.n) + 10 * s.C)
    return Kernel("CAL query", f"query, {s.R} replicates", seconds, moved, operations, note="selection is not counted")


def kcenter_plain(s: Setting) -> Kernel:
    """What every pick of the plain loop does: one product of the pool with one centre."""
    import torch

    x = s.pool.raw.matrix
    if x is None:
        x = torch.cat([block for _, block in s.pool.raw.blocks()])
    sq, near = torch.linalg.vecdot(x, x), torch.full((s.N,), torch.inf, device=x.device)
    seconds = s.time(lambda: torch.minimum(near, sq - 2 * (x @ x[0]) + sq[0], out=near).argmax())
    return Kernel("k-center step, plain", "pick", seconds, 4.0 * (s.N * s.D + 3 * s.N), 2.0 * s.N * s.D)


def kcenter(s: Setting) -> Kernel:
    """Picks of the lazy traversal after the first pass, per pick."""
    from alfm.geometry.kcenter import FarthestFirst

    seconds, evaluated, before = [], 0, 0
    for _ in range(s.repeats):
        state = FarthestFirst(s.pool.raw)
        state.add(s.rows[0])
        state.select(s.available[0], 1)  # the first pass
        allowed, before = s.available[0] & ~state.is_centre, state.evaluated
        began = drain(s.device)
        state.select(allowed, s.B)
        seconds.append(drain(s.device) - began)
        evaluated = state.evaluated - before
    each = evaluated / s.B
    return Kernel(
        "k-center step, lazy", "pick", statistics.median(seconds) / s.B, 4.0 * each * s.D, 2.0 * each * s.D,
        4.0 * s.N * s.D, 2.0 * s.N * s.D, f"{evaluated / (s.N * s.B):.2%} of the plain distances",
    )  # fmt: skip


def badge(s: Setting) -> Kernel:
    """Draws of D^2 sampling on gradient embeddings, per pick, without the pool pass for the norms."""
    import torch

    from alfm.geometry.d2_sampling import D2Samplers
    from alfm.strategies.parts.gradients import prediction_error

    def sq_norm(phi: Any, logits: Any, rows: slice, r: int) -> Any:
        error = prediction_error(logits)
        return torch.linalg.vecdot(error, error) * torch.linalg.vecdot(phi, phi)

    def factors(rows: Any) -> tuple[Any, Any]:
        x = s.phi.rows(rows)
        return prediction_error(s.head.logits(x, 0)), x

    sq, seconds, evaluated = s.pool.map(sq_norm, s.head)[0], [], 0
    for i in range(s.repeats):
        began = drain(s.device)
        samplers = D2Samplers([sq], factors, [s.available[0]], [s.B], [np.random.default_rng(i)])
        samplers.begin("largest", "norms")
        while samplers.draw():
            pass
        seconds.append(drain(s.device) - began)
        evaluated = samplers.each[0].evaluated
    each, width = evaluated / s.B, s.D + s.C
    return Kernel(
        "BADGE step", "pick", statistics.median(seconds) / s.B, 4.0 * each * width, 2.0 * each * width,
        4.0 * s.N * width, 2.0 * s.N * width, f"{evaluated / (s.N * s.B):.2%} of the plain distances",
    )  # fmt: skip


def _subset(s: Setting) -> Any:
    """Unit features of at most 20,000 items, for passes over all pairs."""
    from alfm.features.features import Features

    return Features(next(x for _, x in s.pool.raw_blocks(min(s.N, 20_000))), s.device).unit


def _pairs(s: Setting, name: str, unit: Any, run: Callable[[], Any], replicates: int = 1, note: str = "") -> Kernel:
    """A symmetric pass: every pair's product once, N^2 D operations; blocks of products stay in the caches."""
    what = f"pass, N={unit.N:,}" + (f", {replicates} replicates" if replicates > 1 else "")
    seconds = timed(s.device, run, 1)
    return Kernel(name, what, seconds, 4.0 * unit.N * s.D, float(unit.N) ** 2 * s.D, note=note)


def radius_pass(s: Setting) -> Kernel:
    """Distance of every item to the nearest of another pseudo-class."""
    import torch

    from alfm.geometry.max_coverage import purity_distances

    unit = _subset(s)
    pseudo = torch.arange(unit.N, device=unit.device) % s.C
    return _pairs(s, "coverage pass (radius)", unit, lambda: purity_distances(unit, pseudo))


def coverage_pass(s: Setting) -> Kernel:
    """The balls of the purity radius, as compressed rows."""
    from alfm.geometry.kmeans import kmeans
    from alfm.geometry.max_coverage import Cover, purity_distances, purity_radius

    unit = _subset(s)
    x = next(x for _, x in unit.blocks(unit.N))
    pseudo = kmeans(x, min(s.C, unit.N), np.random.default_rng(0)).assignment
    radius = purity_radius(purity_distances(unit, pseudo))
    edges = int(Cover(unit, radius).degrees.sum())
    note = f"{edges / unit.N:.3g} items in a ball"
    return _pairs(s, "coverage pass (balls)", unit, lambda: Cover(unit, radius), note=note)


def herding_gains(s: Setting) -> Kernel:
    """Exact first gains of MaxHerding for all replicates."""
    import torch

    from alfm.geometry.herding import first_gains
    from alfm.geometry.kernels import RBF

    unit = _subset(s)
    kappa = torch.full((s.R, unit.N), 0.5, device=unit.device)
    note = "exp and the replicates' comparisons (both directions) are not counted"
    return _pairs(s, "herding, first gains", unit, lambda: first_gains(unit, RBF(1.0), kappa), s.R, note)


def kmeans_step(s: Setting) -> Kernel:
    """One assignment and update of k-means on unit features, k = B."""
    from alfm.geometry.kmeans import kmeans

    x = s.pool.unit.matrix
    x = next(x for _, x in s.pool.unit.blocks(s.N)) if x is None else x

    def run(iterations: int) -> float:
        return s.time(lambda: kmeans(x, s.B, np.random.default_rng(0), None, iterations, 0.0, "random"))

    few, many = 3, 9
    seconds = max(run(many) - run(few), 1e-9) / (many - few)
    return Kernel(
        "k-means iteration", f"k={s.B}", seconds, 4.0 * (s.N * s.D + 2 * s.B * s.D), 2.0 * s.N * s.B * s.D,
        note="later iterations move only the rows that changed cluster",
    )  # fmt: skip


def dropout_pass(s: Setting) -> Kernel:
    """BALD's pool pass: masks per item and pass, 20 passes, every replicate."""
    from alfm.acquisition import mean_log_probabilities
    from alfm.posteriors.base import pool_pass as passes
    from alfm.posteriors.dropout import DropoutPosterior

    posterior = DropoutPosterior()
    draws = posterior.bind(s.pool, s.head, s.classifier, s.rows, s.targets, list(range(s.R)), 1)
    fn = lambda logits, rows, r: mean_log_probabilities(logits)[:, 0]  # noqa: E731
    seconds = timed(s.device, lambda: passes(s.pool, draws, fn), 1)
    M = posterior.passes
    moved = 4.0 * (s.N * s.D + s.R * s.N)
    return Kernel(
        f"MC-dropout pass, M={M}", f"pass, {s.R} replicates", seconds, moved, s.R * M * s.N * s.D * (2.0 * s.C + 2),
        note="masks (two hashes per 64 features and pass) and softmax are not counted as operations",
    )  # fmt: skip


KERNELS = {
    "head": head_step, "pool": pool_pass, "cal": contrast, "kcenter-plain": kcenter_plain, "kcenter": kcenter,
    "badge": badge, "radius": radius_pass, "coverage": coverage_pass, "herding": herding_gains, "kmeans": kmeans_step,
    "dropout": dropout_pass,
}  # fmt: skip


def main() -> None:
    parser = machine.parser(__doc__ or "")
    parser.add_argument("--pool", default="50k", help=f"one of {', '.join(pools.POOLS)}")
    parser.add_argument("--kernels", default=",".join(KERNELS), help="which of these")
    parser.add_argument("--replicates", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    import torch

    torch.set_num_threads(options.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    if options.smoke:
        options.pool, options.repeats = "tiny", 2
    spec = pools.POOLS[options.pool]
    folder = str(pools.make(spec, options.work))
    limit = limits(options.device, options.smoke)
    result: dict[str, Any] = {
        "benchmark": "roofline", "machine": machine.describe(options.device), "threads": options.threads,
        "pool": str(spec), "limits": limit, "kernels": [],
    }  # fmt: skip
    table(
        f"Limits of this machine, {options.threads} threads, {options.device}, float32",
        ["measured", "value", "unit"],
        [[key, value / 1e9, "Gflop/s" if "matmul" in key else "GB/s"] for key, value in limit.items()],
    )
    setting = Setting(spec, folder, options.device, options.replicates, options.repeats)
    rows = []
    for name in comma(options.kernels):
        began = time.perf_counter()
        try:
            kernel = KERNELS[name](setting)
        except (ImportError, AttributeError, TypeError, RuntimeError) as error:
            # a kernel that is not there, or not so any more, is a line of the table
            rows.append([name, None, None, None, None, None, None, None, None, f"{type(error).__name__}: {error}"[:90]])
            result["kernels"].append({"name": name, "error": str(error)})
            continue
        memory, products = kernel.bytes / limit["bandwidth"], kernel.flops / limit["matmul"]
        allowed = max(memory, products)
        plain = None
        if kernel.plain_bytes is not None and kernel.plain_flops is not None:
            plain = max(kernel.plain_bytes / limit["bandwidth"], kernel.plain_flops / limit["matmul"])
        nearer = "bandwidth" if memory > products else "matmul"
        rows.append([
            kernel.name, kernel.unit, kernel.seconds, kernel.bytes / 1e9, kernel.flops / 1e9, nearer,
            allowed / kernel.seconds, plain, plain / kernel.seconds if plain else None, kernel.note,
        ])  # fmt: skip
        result["kernels"].append(
            vars(kernel) | {"limit": nearer, "share": allowed / kernel.seconds, "plain_limit_seconds": plain,
                            "bandwidth": kernel.bytes / kernel.seconds, "rate": kernel.flops / kernel.seconds,
                            "measured_for": time.perf_counter() - began}
        )  # fmt: skip
        machine.save(options.json, result)
    columns = [
        "kernel", "unit", "seconds", "GB moved", "Gflop", "nearer limit", "share of it", "plain limit s",
        "plain limit / ours", "note",
    ]  # fmt: skip
    table(f"Kernels, {spec}, {spec.labelled} labels, B={spec.batch}", columns, rows)
    machine.save(options.json, result)


if __name__ == "__main__":
    main()
