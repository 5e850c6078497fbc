"""PALM learning curves (Machnio et al. 2025, arXiv 2507.15381): A(b) = top (1 - (1 - d)^((b + a)^beta)).

b: labels in rounds; top between 0 and 1: what can be reached; 0 < d < 1: how much of it a round covers; a: what was
known before, b + a > 0; beta > 0: how it goes on.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_SIZES = (24, 16, 12)  # of the first grid: level at the last point, level at the first one as a share of it, offset
_STEPS, _SHIFT, _ENOUGH = 40, 1e-6, 1e-8  # of the fit, for its slopes, and the share of the error that ends it
_LOW = np.array([-2.0, -5.0, np.log(0.01)])
_HIGH = np.array([9.0, 9.0, np.log(10.0)])


@dataclass(frozen=True, eq=False)
class Palm:
    """Curves that were fitted, one or several: every field has the same shape (...).

    Kept as top (1 - exp(-start ((b - first + offset) / offset)^beta)), which no parameter makes overflow: first is the
    first point's b, offset = first + a, start = -log(1 - d) offset^beta.
    """

    top: np.ndarray
    start: np.ndarray
    offset: np.ndarray
    beta: np.ndarray
    first: float

    @classmethod
    def of(cls, top: float, d: float, a: float, beta: float) -> Palm:
        """One curve by the paper's four parameters, from b = 1 on."""
        return cls(np.array(top), np.array(-np.log1p(-d) * (1 + a) ** beta), np.array(1 + a), np.array(beta), 1.0)

    def __call__(self, b: float | np.ndarray) -> np.ndarray:
        """Accuracy after b rounds' labels, (...)."""
        ratio = np.maximum((b - self.first + self.offset) / self.offset, 0)
        return self.top * -np.expm1(-self.start * ratio**self.beta)

    def split(self, at: int) -> tuple[Palm, Palm]:
        """Of (K,): the first `at` curves, and the others."""
        return self._some(slice(at)), self._some(slice(at, None))

    def _some(self, which: slice) -> Palm:
        return Palm(self.top[which], self.start[which], self.offset[which], self.beta[which], self.first)

    def reach(self, target: float) -> np.ndarray:
        """Rounds' labels after which the curve is at `target`, (...); infinity where it never is."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            needed = -np.log1p(-np.where(self.top > target, target / self.top, 0.0)) / self.start
            found = self.first + self.offset * (needed ** (1 / self.beta) - 1)
        return np.where(self.top > target, found, np.inf)


def fit_palm(b: np.ndarray, accuracy: np.ndarray) -> Palm:
    """Least squares. b: (T,) ascending; accuracy: (K, T), K curves -> `Palm` of (K,).

    A curve's shape is said by its levels at the first and the last point, as shares of the top, and by how far from
    zero it begins; the best top for a shape is a projection. From the best of a grid of shapes on, damped Gauss-Newton
    steps: no starting values to choose, and the same answer every time.
    """
    b, y = np.asarray(b, np.float64), np.atleast_2d(np.asarray(accuracy, np.float64))
    span = b[-1] - b[0]
    axes = [np.linspace(low, high, size) for low, high, size in zip(_LOW, _HIGH, _SIZES, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    shapes = _shape(grid, b, span)
    dot, square = y @ shapes.T, (shapes**2).sum(-1)
    top = np.clip(dot / square, 0, 1)
    best = grid[(top * (top * square - 2 * dot)).argmin(1)]  # (K, 3)
    damping = np.full(len(y), 1e-3)
    left = _residuals(best, b, span, y)
    for _ in range(_STEPS):
        moved = [(_residuals(best + shift, b, span, y) - left) / _SHIFT for shift in _SHIFT * np.eye(3)]
        slope = np.stack(moved, -1)  # (K, T, 3)
        normal, down = slope.mT @ slope, (slope.mT @ left[..., None])
        normal += (damping[:, None, None] * np.eye(3)) * (1e-9 + np.trace(normal, axis1=1, axis2=2)[:, None, None])
        step = np.clip(best - np.linalg.solve(normal, down)[..., 0], _LOW, _HIGH)
        tried = _residuals(step, b, span, y)
        error, now = (left**2).sum(-1), (tried**2).sum(-1)
        better = now < error
        best, left = np.where(better[:, None], step, best), np.where(better[:, None], tried, left)
        damping = np.clip(np.where(better, damping / 4, damping * 8), 1e-9, 1e6)
        if not (better & (now < (1 - _ENOUGH) * error) | ~better & (damping < 1)).any():
            break
    return Palm(_top(_shape(best, b, span), y), *_parameters(best, span), first=float(b[0]))


def _residuals(points: np.ndarray, b: np.ndarray, span: float, y: np.ndarray) -> np.ndarray:
    """What is left of y (K, T) by the curve at each point (K, 3) with its best top."""
    shape = _shape(points, b, span)
    return _top(shape, y)[:, None] * shape - y


def _parameters(points: np.ndarray, span: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Grid points (..., 3) -> start, offset, beta."""
    last = 1 / (1 + np.exp(-points[..., 0]))
    first = last / (1 + np.exp(-points[..., 1]))
    offset = span * np.exp(points[..., 2])
    start, end = -np.log1p(-first), -np.log1p(-last)
    return start, offset, np.log(end / start) / np.log1p(span / offset)


def _shape(points: np.ndarray, b: np.ndarray, span: float) -> np.ndarray:
    """Curves with top 1, (..., T)."""
    start, offset, beta = (one[..., None] for one in _parameters(points, span))
    return -np.expm1(-start * ((b - b[0] + offset) / offset) ** beta)


def _top(shape: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The best top for curves y (K, T) of these shapes (K, T) -> (K,)."""
    return np.clip((shape * y).sum(-1) / (shape**2).sum(-1), 0, 1)
