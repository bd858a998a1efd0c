"""Matrices rounded in slabs of rows, wherever there is a processor for one.

Rows are independent once the moments of the input, and their factor, are known, and so are the
matrices of layers that do not wait for each other. Slabs have a fixed number of rows, so what comes
out does not depend on who rounds them, and the memory of a layer is that of its weights, its
moments and one slab.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
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

__all__ = ["Matrix", "Problem", "Rounder", "RoundedRows", "Shared"]

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
FactorKey = tuple[float, bool]
"""Damping, and whether the columns are ordered by importance."""

Factors = dict[FactorKey, Factor | None]

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

    def order(self, ordered: bool) -> npt.NDArray[np.intp] | None:
        """Which column goes first, by importance; None for as they come."""
        return np.argsort(-self.importance, kind="stable") if ordered else None

    def stored(self, folder: Path) -> StoredShared:
        """Write it for other processes to map."""
        folder.mkdir(parents=True)
        self.folder = folder
        np.save(folder / "hessian.npy", self.hessian)
        if self.drift is not None:
            np.save(folder / "drift.npy", self.drift)
        return StoredShared(str(self.folder), self.drift is not None)

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
    factors: tuple[tuple[FactorKey, float | None], ...] = ()
    """Those that are there, with the damping that each took; None for none."""

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
        for key, damping in self.factors:
            factors[key] = None
            if damping is not None:
                upper = _mapped(folder / _file("upper", key))
                factors[key] = Factor(upper, damping, np.load(folder / _file("dead", key)))
        drift = _mapped(folder / "drift.npy") if self.drifts else None
        return Shared(_mapped(folder / "hessian.npy"), drift, factors)


def _file(name: str, key: FactorKey) -> str:
    damping, ordered = key
    return f"{name}-{damping!r}-{ordered}.npy"


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
class Matrix:
    """One matrix to round.

    Attributes:
        method: Chooses the levels.
        grid: What they are levels of.
        weight: float32[N, K], rows are output channels.
        shared: Moments of its input; factors that are found go there.
        label: Of the layer, for messages.
        asymmetric: Whether the method knows of the drift; errors always do.
    """

    method: ErrorFeedback
    grid: Grid
    weight: Floats
    shared: Shared
    label: str
    asymmetric: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class _Slab:
    method: ErrorFeedback
    grid: Grid
    weight: Floats
    shared: Shared | StoredShared
    label: str
    asymmetric: bool
    mean: float


class Rounder:
    """Rounds matrices, here or in other processes; a context manager.

    Args:
        workers: Where slabs of rows are rounded; here by default.
        place: Gives a free place for what other processes have to see, or None.
    """

    def __init__(
        self, workers: Workers | None = None, place: Callable[[], Path | None] = lambda: None
    ) -> None:
        self._workers = workers if workers is not None and workers.apart else None
        self._place = place
        self._stored: dict[int, StoredShared] = {}
        self._written: list[Shared] = []

    def __enter__(self) -> Rounder:
        """Return this."""
        return self

    def __exit__(self, *error: object) -> None:
        """Remove what was written for other processes."""
        for shared in self._written:
            shared.forget()

    def prepare(self, methods: Sequence[tuple[ErrorFeedback, Shared]]) -> None:
        """Let workers find the factors that methods need, all at once."""
        if self._workers is None:
            return
        wanted: dict[tuple[int, FactorKey], StoredShared] = {}
        for method, shared in methods:
            if id(shared) not in self._stored:
                folder = self._place()
                if folder is None:
                    return
                self._stored[id(shared)] = shared.stored(folder)
                self._written.append(shared)
            for key in method.factors():
                wanted[id(shared), key] = self._stored[id(shared)]
        pieces = [(stored, key) for (_, key), stored in wanted.items()]
        found = self._workers.map(_find_factor, pieces, "a factor of second moments")
        for (owner, key), damping in zip(wanted, found, strict=True):
            stored = self._stored[owner]
            self._stored[owner] = replace(stored, factors=(*stored.factors, (key, damping)))

    def round(self, matrices: Iterable[Matrix]) -> Iterator[RoundedRows]:
        """Round matrices; what became of each, in their order."""
        if self._workers is None:
            for matrix in matrices:
                shape, grid, slabs = matrix.weight.shape, matrix.grid, self._slabs(matrix)
                del matrix  # its weight is not held while the next one is read
                yield _joined(shape, grid, map(_round, slabs))
            return
        counts: deque[tuple[tuple[int, ...], Grid, int]] = deque()

        def pieces() -> Iterator[_Slab]:
            for matrix in matrices:
                slabs = list(self._slabs(matrix))
                counts.append((matrix.weight.shape, matrix.grid, len(slabs)))
                del matrix
                while slabs:
                    yield slabs.pop(0)

        results = self._workers.map(_round, pieces(), lambda slab: f"the layer '{slab.label}'")
        for first in results:
            while not counts[0][2]:  # a matrix without rows
                yield _joined(*counts.popleft()[:2], iter(()))
            shape, grid, count = counts.popleft()
            yield _joined(shape, grid, chain([first], islice(results, count - 1)))
        while counts:
            yield _joined(*counts.popleft()[:2], iter(()))

    def _slabs(self, matrix: Matrix) -> Iterator[_Slab]:
        weight = matrix.weight
        step = max(1, _SLAB // max(1, weight.shape[1]))
        shared = self._stored.get(id(matrix.shared), matrix.shared)
        mean = float(np.abs(weight).mean()) if weight.size else 0.0
        for start in range(0, len(weight), step):
            part = weight[start : start + step]
            yield _Slab(
                matrix.method, matrix.grid, part, shared, matrix.label, matrix.asymmetric, mean
            )


def _find_factor(piece: tuple[StoredShared, FactorKey]) -> float | None:
    """Find a factor and write it beside its Hessian; return the damping it took, None for none."""
    stored, key = piece
    damping, ordered = key
    shared = stored.mapped()
    factor = _factor(shared.hessian, {}, damping, shared.order(ordered))
    if factor is None:
        return None
    for name, array in (("upper", factor.upper), ("dead", factor.dead)):
        place = Path(stored.folder) / _file(name, key)
        part = place.with_suffix(f".{os.getpid()}.npy")
        np.save(part, array)
        part.replace(place)
    return factor.damping


def _joined(shape: Sequence[int], grid: Grid, parts: Iterator[RoundedRows]) -> RoundedRows:
    """The slabs in order as one."""
    levels = np.empty(tuple(shape), dtype=np.uint8)
    found: list[RoundedRows] = []
    start = 0
    for part in parts:
        levels[start : start + len(part.levels)] = part.levels
        start += len(part.levels)
        found.append(part)
    if not found:
        count = -(-shape[1] // max(1, grid.size(shape[1])))
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
    hessian = shared.hessian
    drift = shared.drift if slab.asymmetric else None
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
    before = output_errors(weight, nearest.real(plain), hessian, shared.drift)
    if drift is not shared.drift:
        after = output_errors(weight, grids.real(found), hessian, shared.drift)
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
