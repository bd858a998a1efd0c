"""A layer's matrix rounded in slabs of rows, wherever there is a processor for one.

Rows are independent once the moments of the input, and their factor, are known. Slabs have a fixed
number of rows, so what comes out does not depend on who rounds them, and the memory of a layer is
that of its weights, its moments and one slab.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from qcomp.errors import QcompError
from qcomp.passes.quantize.error_feedback.descent import descend, output_errors
from qcomp.passes.quantize.error_feedback.factor import Factor, inverse_factor
from qcomp.passes.quantize.grids import Grid, Grids

if TYPE_CHECKING:
    from qcomp.passes.quantize.error_feedback.layerwise import ErrorFeedback
    from qcomp.workers import Workers

__all__ = ["Problem", "RoundedRows", "Shared", "round_matrix"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
Factors = dict[tuple[float, bool], Factor | None]

_SLAB = 1 << 23
"""Weights that are rounded at once, in whole rows (float32: 32 MB)."""


@dataclass(slots=True, eq=False)
class Shared:
    """What all rows of all layers that read one input share.

    Attributes:
        hessian: H float32[K, K].
        drift: D float32[K, K], None where calibration is symmetric.
        factors: Of H, by damping and whether its columns are ordered by importance.
        folder: Where other processes find it, once it was written there.
    """

    hessian: Floats
    drift: Floats | None
    factors: Factors = field(default_factory=dict)
    folder: Path | None = None

    @property
    def importance(self) -> Floats:
        """diag(H) float32[K]."""
        return np.einsum("ii->i", self.hessian).copy()

    def factor(self, damping: float, order: npt.NDArray[np.intp] | None) -> Factor | None:
        """As :meth:`Problem.factor`."""
        return _factor(self.hessian, self.factors, damping, order)

    def stored(self, folder: Path) -> StoredShared:
        """Write it, once, for other processes to map."""
        if self.folder is None:
            folder.mkdir(parents=True)
            self.folder = folder
            np.save(folder / "hessian.npy", self.hessian)
            if self.drift is not None:
                np.save(folder / "drift.npy", self.drift)
        kept: list[tuple[tuple[float, bool], float | None]] = []
        for index, (key, factor) in enumerate(self.factors.items()):
            kept.append((key, None if factor is None else factor.damping))
            if factor is not None and not (self.folder / f"upper{index}.npy").exists():
                np.save(self.folder / f"upper{index}.npy", factor.upper)
                np.save(self.folder / f"dead{index}.npy", factor.dead)
        return StoredShared(str(self.folder), self.drift is not None, tuple(kept))

    def forget(self) -> None:
        """Remove what was written."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None


@dataclass(frozen=True, slots=True)
class StoredShared:
    """The same in a folder: what is sent to another process."""

    folder: str
    drifts: bool
    factors: tuple[tuple[tuple[float, bool], float | None], ...]

    def mapped(self) -> Shared:
        """Map it.

        Raises:
            QcompError: This machine does not see the folder.
        """
        folder = Path(self.folder)
        if not folder.is_dir():
            raise QcompError(
                f"a worker does not see the folder '{folder}'",
                hint="workers on other machines need the same file system: name a folder there "
                "with --cache",
            )
        factors: Factors = {}
        for index, (key, damping) in enumerate(self.factors):
            factors[key] = None
            if damping is not None:
                upper = _mapped(folder / f"upper{index}.npy")
                factors[key] = Factor(upper, damping, np.load(folder / f"dead{index}.npy"))
        drift = _mapped(folder / "drift.npy") if self.drifts else None
        return Shared(_mapped(folder / "hessian.npy"), drift, factors)


def _mapped(path: Path) -> Any:  # float32 or float64
    # Kernels know arrays that can be written; what is written stays in this process.
    return np.load(path, mmap_mode="c").view(np.ndarray)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """Rows of one matrix to round.

    Attributes:
        weight: float32[N, K], rows are output channels.
        hessian: H float32[K, K].
        drift: D float32[K, K], None where calibration is symmetric.
        importance: diag(H) float32[K].
        nearest: Grids fitted to the weight as it is.
        label: Of the layer, for messages.
        factors: Of H, found for other layers of the same input.
        mean: Mean magnitude of the weights of the whole matrix; of these rows by default.
    """

    weight: Floats
    hessian: Floats
    drift: Floats | None
    importance: Floats
    nearest: Grids
    label: str
    factors: Factors = field(default_factory=dict)
    mean: float | None = None

    def factor(self, damping: float, order: npt.NDArray[np.intp] | None) -> Factor | None:
        """The factor of the inverse of H, its rows and columns in ``order``; None if H has none.

        Args:
            damping: Share of the mean diagonal.
            order: As they are, or by ``importance``.
        """
        return _factor(self.hessian, self.factors, damping, order)


def _factor(
    hessian: Floats, known: Factors, damping: float, order: npt.NDArray[np.intp] | None
) -> Factor | None:
    key = (damping, order is not None)
    if key not in known:
        ordered = hessian if order is None else hessian[np.ix_(order, order)]
        known[key] = inverse_factor(ordered, damping)
    return known[key]


@dataclass(frozen=True, slots=True, eq=False)
class RoundedRows:
    """What became of some rows.

    Attributes:
        levels: uint8[N, K].
        scale: float32[N, B].
        zero: float32[N, B].
        rounded: Their squared output error rounded to nearest.
        left: Their squared output error now.
        total: Their squared output.
        kept: Rows where rounding to nearest was better and stayed.
        warning: What is to be said about them, "" for nothing.
    """

    levels: Bytes
    scale: Floats
    zero: Floats
    rounded: float
    left: float
    total: float
    kept: int
    warning: str


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    method: ErrorFeedback
    grid: Grid
    weight: Floats
    shared: Shared | StoredShared
    label: str
    mean: float


def round_matrix(
    method: ErrorFeedback,
    grid: Grid,
    weight: Floats,
    shared: Shared,
    label: str,
    workers: Workers | None,
    folder: Path | None,
) -> RoundedRows:
    """Round a matrix in slabs of rows.

    Args:
        method: Chooses the levels.
        grid: What they are levels of.
        weight: float32[N, K], rows are output channels.
        shared: Moments of its input; factors that are found go there.
        label: Of the layer, for messages.
        workers: Where slabs are rounded; here by default.
        folder: A free place for what other processes have to see.
    """
    step = max(1, _SLAB // max(1, weight.shape[1]))
    handed: Shared | StoredShared = shared
    if workers is not None and workers.apart and folder is not None:
        method.prepare(shared)
        handed = shared.stored(folder)
    mean = float(np.abs(weight).mean()) if weight.size else 0.0
    slabs = (
        _Slab(method, grid, weight[start : start + step], handed, label, mean)
        for start in range(0, len(weight), step)
    )
    if handed is shared or workers is None:
        return _joined(weight, grid, map(_round, slabs))
    return _joined(weight, grid, workers.map(_round, slabs, f"the layer '{label}'"))


def _joined(weight: Floats, grid: Grid, parts: Iterator[RoundedRows]) -> RoundedRows:
    """The slabs in order as one."""
    levels = np.empty(weight.shape, dtype=np.uint8)
    found: list[RoundedRows] = []
    start = 0
    for part in parts:
        levels[start : start + len(part.levels)] = part.levels
        start += len(part.levels)
        found.append(part)
    if not found:
        count = -(-weight.shape[1] // max(1, grid.size(weight.shape[1])))
        empty = np.empty((0, count), np.float32)
        return RoundedRows(levels, empty, empty, 0.0, 0.0, 0.0, 0, "")
    return RoundedRows(
        levels,
        np.concatenate([p.scale for p in found]),
        np.concatenate([p.zero for p in found]),
        sum(p.rounded for p in found),
        sum(p.left for p in found),
        sum(p.total for p in found),
        sum(p.kept for p in found),
        next((p.warning for p in found if p.warning), ""),
    )


def _round(slab: _Slab) -> RoundedRows:
    """Round some rows."""
    method, weight = slab.method, np.ascontiguousarray(slab.weight)
    shared = slab.shared.mapped() if isinstance(slab.shared, StoredShared) else slab.shared
    hessian, drift = shared.hessian, shared.drift
    nearest = slab.grid.fitted(weight, shared.importance)
    plain = nearest.round(weight)
    problem = Problem(
        weight,
        hessian,
        drift,
        shared.importance,
        nearest,
        slab.label,
        shared.factors,
        slab.mean,
    )
    found, grids, warning = method.choose(problem)
    better = descend(
        weight, found, grids, hessian, drift, sweeps=method.sweeps, refits=method.refits
    )
    found, grids, after = better.levels, better.grids, better.errors
    before = output_errors(weight, nearest.real(plain), hessian, drift)
    worse = after > before
    return RoundedRows(
        np.where(worse[:, None], plain, found),
        np.where(worse[:, None], nearest.scale, grids.scale),
        np.where(worse[:, None], nearest.zero, grids.zero),
        float(before.sum()),
        float(np.minimum(before, after).sum()),
        float(np.einsum("nk,nk->", weight @ hessian, weight, dtype=np.float64)),
        int(worse.sum()),
        warning,
    )
