"""Items' features (a pool, a test set, a part of a pool) on a device, in any space, block by block.

What fitted heads say of them is found in the walks of `alfm.heads.passes`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, Literal, Protocol, TypeVar, cast

import numpy as np
import torch
from torch import Tensor

from alfm import devices
from alfm.errors import UserError
from alfm.features.kept import Kept
from alfm.features.spaces import RAW, UNIT, Centred, Scaled, Space, wide_unit_rows
from alfm.host_ops import finite_rows, widened
from alfm.threads import each_of

T = TypeVar("T")
Memory = Literal["auto", "device", "host", "file"]
LARGE = 1 << 30
"""Bytes of a float32 copy above which a pool keeps only one, that of the space that is asked for first, unless _MANY of
them fit into the free memory."""
_MANY = 16
_AHEAD = 8  # blocks that are made side by side before the first of them is seen
_COLUMNS = 64  # of a block that are widened together on CPU: all of them would be twice the block, and leave its caches
OFFSET = 0.999  # mean cosine above which float32 unit features differ by little more than their rounding


class RowReader(Protocol):
    """Features that stay in a file: shape (N, D), rows by range and by index, float16 or float32.

    One with a true attribute `checked` raises UserError where rows hold NaN or Inf: nobody has to look for them first.
    """

    shape: tuple[int, int]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows [start, stop) -> (stop - start, D)."""
        ...

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Rows int64 (m,), in any order -> (m, D)."""
        ...


class Mapped(Protocol):
    """What `Features.map` asks of fitted heads: see `alfm.heads.linear.LinearHead`."""

    def map(self, features: Features, fn: Callable[..., Tensor | tuple[Tensor, ...]]) -> Any: ...


class Vectors:
    """The pool's items in one space: (N, D'), float32, resident on the device or computed block by block.

    Geometry works on this. `matrix` is the resident (N, D') tensor, or None when the pool does not keep one.
    """

    def __init__(self, pool: Features, space: Space) -> None:
        self.pool, self.space = pool, space
        self.N, self.device = pool.N, pool.device
        self.matrix: Tensor | None = pool.materialise(space) if space.shared and pool.keeps(space) else None
        self._sq_norms: Tensor | None = None
        self._level: float | None = None

    @property
    def dim(self) -> int:
        """D', the dimension of this space."""
        if self.matrix is not None:
            return self.matrix.shape[1]
        return self.rows(torch.zeros(1, dtype=torch.int64, device=self.device)).shape[1]

    def rows(self, index: Tensor, plain: bool = False) -> Tensor:
        """Items by pool row, int64 (m,) -> (m, D') float32. Rows from N on are augmented views (see `Features`).

        plain: none of them is a view, so that a device with views need not be asked.
        """
        plain = plain or self.pool.views is None
        if self.matrix is not None and (plain or not bool((index >= self.N).any())):
            return self.matrix.index_select(0, index)  # faster than indexing
        return self.space(self.pool.gather(index, plain))

    def blocks(self, size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive (rows, (b, D') float32) over the whole pool."""
        yield from self.pool.made(self.at, size, held=self.held)

    @property
    def held(self) -> bool:
        """Are all coordinates in memory, so that a block is only looked up?"""
        return self.matrix is not None

    def at(self, rows: slice) -> Tensor:
        """Consecutive items, (b, D') float32: a block of `blocks`, made by whoever asks."""
        return self.space(self.pool.raw_block(rows)) if self.matrix is None else self.matrix[rows]

    @property
    def sq_norms(self) -> Tensor:
        """Squared lengths (N,) float32, computed once."""
        if self._sq_norms is None:
            norms = torch.empty(self.N, dtype=self.pool.dtype, device=self.device)

            def lengths(rows: slice) -> Tensor:
                x = self.at(rows)
                return torch.linalg.vecdot(x, x)

            for rows, found in self.pool.made(lengths):
                norms[rows] = found
            self._sq_norms = norms
        return self._sq_norms

    def arrays(self, question: str, make: Callable[[], Mapping[str, np.ndarray]]) -> Mapping[str, np.ndarray]:
        """What was found out about the items here, made once per cache where that is wanted; see `Kept.arrays`."""
        centred = " centred" if isinstance(self.space, Centred) else ""  # other coordinates give other answers
        return self.pool.kept.arrays(question + centred, make)

    @property
    def level(self) -> float:
        """A squared length that few items exceed by much: what the rounding of squared distances is measured by.

        1 in spaces of unit features; where these are centred, four times the median.
        """
        if self._level is None:
            self._level = 4 * float(self.sq_norms.median()) if isinstance(self.space, Centred) else 1.0
        return self._level


class PartViews:
    """Views of some items: views[rows, v] is read from the `whole` pool's (N, V - 1, D) when it is asked for."""

    def __init__(self, whole: Tensor | PartViews, rows: Tensor) -> None:
        self.whole, self.rows = whole, rows
        self.shape: tuple[int, ...] = (len(rows), *whole.shape[1:])

    def __getitem__(self, at: tuple[Tensor, Tensor]) -> Tensor:
        return self.whole[self.rows[at[0]], at[1]]


class Features:
    """N items' features, float16 or float32 (N, D), with one `memory=` setting for where they live.

    `device`: on the device as stored. `host`: in host memory as they are, blocks cross (pinned) when visited. `file`:
    read from a `RowReader`. `auto`: `device` when the features fit into half of the free memory, else `host`. Where
    there is room (a quarter of the free memory for float32 coordinates), coordinates of shared spaces are kept
    resident; of a `large` pool those of one space, its heads' as a rule, and others are made block by block (`held`
    says what was decided).
    Computation is in float32, or in float64 when the features are float64 (for checks against references).

    views: further views of the items, (N, V - 1, D), kept in host memory. Passes see the plain items only; heads may
    train on row i + v N, which is view v of item i.

    part_of: the pool whose items these are, which then says where distances are measured (`points`).

    fitted_as: the pool by whose statistics heads see these features: this one, but for parts that say otherwise.

    kept: where what is derived from these features is remembered, by default in memory only.
    """

    def __init__(
        self,
        features: np.ndarray | Tensor | RowReader,
        device: torch.device | str = "cpu",
        memory: Memory = "auto",
        block_rows: int | None = None,
        views: np.ndarray | PartViews | None = None,
        part_of: Features | None = None,
        kept: Kept | None = None,
        finite: bool = False,
    ) -> None:
        """Raises UserError for features that are not a float matrix, or that hold NaN or Inf; finite: nobody looks."""
        self.device = torch.device(device)
        if isinstance(features, np.ndarray):
            features = torch.from_numpy(np.ascontiguousarray(features))
        shape = tuple(features.shape)
        if len(shape) != 2 or shape[0] < 1 or shape[1] < 1:
            raise UserError(f"Features must be a matrix (items, dimensions) with at least one of each; got {shape}.")
        self.N, self.D = int(shape[0]), int(shape[1])
        there = devices.of(self.device)
        free = there.free_bytes()
        if isinstance(features, Tensor):
            if not features.is_floating_point():
                raise UserError(f"Features must be float16 or float32; got {features.dtype}.")
            if features.dtype == torch.bfloat16:
                features = features.float()
            if memory == "auto":
                stored = features.numel() * features.element_size()
                memory = "device" if stored * 2 <= free or there.numpy_reads else "host"
            if memory == "device":
                features = features.to(self.device)
        else:
            memory = "file"
        self.memory = memory
        self.features = features
        self.dtype = (
            features.dtype if isinstance(features, Tensor) and features.dtype == torch.float64 else torch.float32
        )
        copy = self.N * self.D * 4
        # One float32 copy per space in use (raw, unit, the head's) should fit beside what else runs.
        self.resident = memory == "device" and free >= 4 * copy
        self.large = copy > LARGE and free < _MANY * copy
        self._only: Space | None = None  # of a large pool: the space whose coordinates are kept
        self.block_numbers, self.joins_replicates = there.block_numbers, there.joins_replicates
        self.block_rows = block_rows or there.block_rows(self.D)
        self.kept = Kept() if kept is None else kept
        self._part_of, self.fitted_as = part_of, self
        self.views = torch.from_numpy(np.ascontiguousarray(views)) if isinstance(views, np.ndarray) else views
        if not finite:
            self._check_finite()

    # -- walking the features ------------------------------------------------------------------------------------

    def slices(self, size: int | None = None) -> Iterator[slice]:
        """Consecutive row ranges that cover the pool."""
        size = size or self.block_rows
        for start in range(0, self.N, size):
            yield slice(start, min(start + size, self.N))

    def raw_blocks(self, size: int | None = None) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive (rows, (b, D) float32 on the device), raw features."""
        yield from self.made(self.raw_block, size, held=self._is_stored(RAW))

    def made(
        self, make: Callable[[slice], T], size: int | None = None, held: bool = False
    ) -> Iterator[tuple[slice, T]]:
        """Consecutive (rows, make(rows)); but for what is `held`, and only looked up, some are made side by side."""
        if held:
            return ((rows, make(rows)) for rows in self.slices(size))
        return each_of(self.slices(size), make, self.device, _AHEAD)

    def raw_block(self, rows: slice) -> Tensor:
        """One of them. Reading a file and widening float16 take as long as a small product: jobs load their own."""
        if isinstance(self.features, Tensor):
            return self._over(self.features[rows])
        return self._over(torch.from_numpy(self.features.read(rows.start, rows.stop)))

    def _over(self, x: Tensor) -> Tensor:
        """A block of features, in float32 on the device.

        Only blocks are pinned, in memory that torch gives out again once they are across: the whole, pinned, would be a
        second copy of the pool, rounded up to a power of two.
        """
        return devices.of(self.device).sent(x).to(self.dtype)

    def gather(self, index: Tensor, plain: bool = False) -> Tensor:
        """Raw features of pool rows, int64 (m,) -> (m, D) float32 on the device; plain: see `Vectors.rows`."""
        if not plain and self.views is not None and bool((index >= self.N).any()):
            return self._gather_views(index)
        if isinstance(self.features, Tensor):
            return self._over(self.features.index_select(0, index.to(self.features.device)))
        return self._over(torch.from_numpy(self.features.take(index.cpu().numpy())))

    def _gather_views(self, index: Tensor) -> Tensor:
        assert self.views is not None
        view, row = torch.div(index, self.N, rounding_mode="floor"), index % self.N
        out = self.gather(row)
        other = view > 0
        x = self.views[row[other].cpu(), view[other].cpu() - 1]
        out[other] = self._over(x)
        return out

    def training_rows(
        self, rows: Tensor, targets: Tensor, weight: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """All views of each labelled row: rows (R, n V), targets (R, n V, ..), and weights (.., n V), a view's 1 / V.

        rows (R, n), padded with -1; targets (R, n) or (R, n, C); weight (.., n) or None. Without views: as given.
        """
        if self.views is None:
            return rows, targets, weight
        V = self.views.shape[1] + 1
        every = torch.cat([torch.where(rows >= 0, rows + v * self.N, -1) for v in range(V)], 1)
        if weight is None:
            share = torch.full(every.shape, 1 / V, dtype=self.dtype, device=rows.device)
        else:
            share = torch.cat([weight / V] * V, -1)
        return every, torch.cat([targets] * V, 1), share

    def views_of(self, rows: Tensor) -> PartViews | None:
        """The views of some rows int64 (m,), for a pool of these alone; None without views."""
        return None if self.views is None else PartViews(self.views, rows.cpu())

    def materialise(self, space: Space) -> Tensor:
        """All coordinates of a space, (N, D') float32 on the device."""
        if self._is_stored(space):
            assert isinstance(self.features, Tensor)
            return self.features
        out: Tensor | None = None
        for rows, z in self.made(lambda rows: space(self.raw_block(rows))):
            if out is None:
                out = torch.empty(self.N, z.shape[1], dtype=self.dtype, device=self.device)
            out[rows] = z
        assert out is not None
        return out

    def keeps(self, space: Space) -> bool:
        """Are the coordinates of a shared space kept resident? Asking is deciding."""
        if not self.resident or not self.large or self._is_stored(space):
            return self.resident
        if self._only is None:
            self._only = space
        return self._only is space

    def _is_stored(self, space: Space) -> bool:
        return space is RAW and isinstance(self.features, Tensor) and self.features.dtype == self.dtype

    @property
    def held(self) -> str:
        """What of the features lies where, in a sentence."""
        size, copy = f"{self.N:,} x {self.D} features", f"{self.N * self.D * 4 / 2**30:.1f} GiB"
        if not isinstance(self.features, Tensor):
            return f"{size} are read from their file, block by block; no copy is kept"
        where = "on the device" if self.memory == "device" else "in the host's memory"
        kept = "one copy in float32 is kept" if self.large else "copies in float32 are kept"
        what = f"{kept} ({copy})" if self.resident else f"there is no room for copies in float32 ({copy})"
        return f"{size} lie {where} as {str(self.features.dtype).removeprefix('torch.')}; {what}"

    def vectors(self, space: Space) -> Vectors:
        """The pool in a space; shared spaces are made once and kept."""
        if not space.shared:
            return Vectors(self, space)
        return self.once(cast(Hashable, space), lambda: Vectors(self, space))

    @property
    def raw(self) -> Vectors:
        """Raw features."""
        return self.vectors(RAW)

    @property
    def unit(self) -> Vectors:
        """Unit features u = h / |h|."""
        return self.vectors(UNIT)

    def points(self, space: Space = UNIT) -> Vectors:
        """The pool for what asks for DISTANCES in a space: that space itself, less a constant where `offset`.

        Distances, means and balls are the same wherever the origin is; inner products, cosines and lengths are not.
        """
        return self.vectors(self.point_space(space))

    def point_space(self, space: Space = UNIT) -> Space:
        """The space of `points`."""
        return self._centred(space) if self.offset and space in (RAW, UNIT) else space

    @property
    def offset(self) -> bool:
        """Whether the mean cosine between items exceeds `OFFSET`: then float32 distances need another origin.

        False for float64 features. Depends on the features alone, not on blocks, threads or where features live.
        """
        return self._mean_direction is not None

    def origin(self, space: Space) -> Tensor | None:
        """What to subtract from a block of coordinates (b, D) for distances, where that is not nothing, as for RAW."""
        centred = self._centred(space) if self.offset and space is RAW else None
        return centred.shift if isinstance(centred, Scaled) else None

    def _centred(self, space: Space) -> Space:
        if self._part_of is not None:
            return self._part_of._centred(space)
        if space is RAW:
            return self.once("centred raw", lambda: Scaled(self.moments[0], torch.ones_like(self.moments[0])))
        mean = self._mean_direction
        assert mean is not None
        return self.once("centred", lambda: Centred(mean))

    @property
    def _mean_direction(self) -> Tensor | None:
        """The mean unit feature (D,) float64 on the host, if the features are float32 and have a common offset."""
        if self._part_of is not None:
            return self._part_of._mean_direction
        if self.dtype != torch.float32:
            return None
        return self.once("mean direction", self._find_mean_direction)

    def _find_mean_direction(self) -> Tensor | None:
        some = torch.linspace(0, self.N - 1, min(self.N, 1024), device=self.device).long()
        if float(wide_unit_rows(self.gather(some, plain=True)).mean(0).square().sum()) < 0.9:
            return None  # far from it: no pass
        # Whole numbers add up to the same sum in any order.
        scale = 2.0 ** (61 - max(self.N - 1, 1).bit_length())

        def part(rows: slice) -> Tensor:
            return wide_unit_rows(self.raw_block(rows)).mul_(scale).round_().long().sum(0)

        mean = torch.stack([own for _, own in self.made(part)]).sum(0).cpu().double() / (scale * self.N)
        return mean if float(mean.square().sum()) > OFFSET else None

    def once(self, key: Hashable, make: Callable[[], T]) -> T:
        """What depends on the features only (norms, graphs, radii, PCA) is made once; see `Kept.once`."""
        return self.kept.once(key, make)

    def map(self, fn: Callable[[Tensor, Tensor, slice, int], Tensor | tuple[Tensor, ...]], head: Mapped) -> Any:
        """One pass over the items with every replicate's logits.

        fn(phi (b, D'), logits (b, C), rows, r) -> (b, ...) or a tuple of such; returned stacked as (R, N, ...).
        A block is loaded once for all replicates. `fn` runs in several threads at once, so it must be pure. For
        functions of several replicates at a time see `alfm.heads.passes.walk`.
        """
        return head.map(self, fn)

    # -- statistics ----------------------------------------------------------------------------------------------

    @property
    def moments(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the raw features, each (D,) float32, accumulated in float64."""
        return self.once("moments", self._moments)

    def _moments(self) -> tuple[Tensor, Tensor]:
        width = _COLUMNS if devices.of(self.device).numpy_reads else self.D

        def sums(rows: slice) -> Tensor:
            return torch.cat([widened(x).sum(0) for x in self.raw_block(rows).split(width, 1)])

        total = widened(torch.zeros(self.D, device=self.device))
        for _, part in self.made(sums):
            total += part
        mean = total / self.N

        def squares(rows: slice) -> Tensor:
            some = zip(self.raw_block(rows).split(width, 1), mean.split(width), strict=True)
            return torch.cat([(widened(x) - m).square_().sum(0) for x, m in some])

        square = torch.zeros_like(total)
        for _, part in self.made(squares):
            square += part
        sd = (square / self.N).sqrt()
        return mean.to(self.device, self.dtype), sd.to(self.device, self.dtype)

    def _check_finite(self) -> None:
        # one vector from the start: small ones kept from each block would break up the memory that blocks come into
        if getattr(self.features, "checked", False):
            return
        finite = torch.empty(self.N, dtype=torch.bool, device=self.device)
        for rows, good in self.made(self._finite):
            finite[rows] = good
        if not bool(finite.all()):
            bad = (~finite).nonzero()[:, 0]
            raise UserError(
                f"{len(bad)} of {self.N} rows hold NaN or infinite features, first row {int(bad[0])}: "
                "extract them again, or leave those rows out."
            )

    def _finite(self, rows: slice) -> Tensor:
        if isinstance(self.features, Tensor):
            return finite_rows(self.features[rows])
        return finite_rows(torch.from_numpy(self.features.read(rows.start, rows.stop)))


Pool = Features  # as programs of before the two were told apart know it
