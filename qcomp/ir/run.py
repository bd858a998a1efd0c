"""A straight-line run of operations as a struct of arrays: one entry an operation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import wrap
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, NUM_ANGLES, NUM_QUBITS, G

__all__ = ["Run", "angle_counts"]


def angle_counts(code: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the number of angles of each operation, int64[n]."""
    return NUM_ANGLES[code].astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """Operations without control flow, immutable by convention.

    Attributes:
        code: uint8[n], rows of the gate table.
        qubit: int32[n, 3], operands, unused entries -1. ``measure`` holds (qubit, clbit, -1). A
            wide operation (``barrier``, ``mcx``) holds (offset into extra, number of operands, -1).
        angle: int32[n], first entry of the operation's angles, -1 for none; a gate with k angles
            owns the k entries from there, and no two gates share entries.
        frac: int64[m], exact part of each angle in units of pi / 2**60, in [-2**61, 2**61).
        rem: float64[m], float part of each angle, radians.
        form: int32[m], row of the circuit's forms, -1 for none.
        extra: int32[k], operands of the wide operations.
    """

    code: NDArray[np.uint8]
    qubit: NDArray[np.int32]
    angle: NDArray[np.int32]
    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    form: NDArray[np.int32]
    extra: NDArray[np.int32]

    @staticmethod
    def empty() -> Run:
        """Return the run of no operations."""
        return Run.of([], [])

    @staticmethod
    def of(
        code: Sequence[int] | NDArray[np.uint8],
        qubit: Sequence[Sequence[int]] | NDArray[np.int32],
        frac: Sequence[int] | NDArray[np.int64] = (),
        rem: Sequence[float] | NDArray[np.float64] = (),
        form: Sequence[int] | NDArray[np.int32] = (),
        extra: Sequence[int] | NDArray[np.int32] = (),
    ) -> Run:
        """Make a run whose angles stand in the order of its operations.

        Args:
            code: n gate codes.
            qubit: n rows of 3 operands.
            frac: m exact parts, m the number of angles that the gates take; zeros when empty.
            rem: m float parts; zeros when empty.
            form: m rows of the circuit's forms; -1 when empty.
            extra: Operands of the wide operations.
        """
        codes = np.asarray(code, dtype=np.uint8)
        counts = angle_counts(codes)
        total = int(counts.sum())
        starts = np.cumsum(counts) - counts
        return Run(
            codes,
            np.asarray(qubit, dtype=np.int32).reshape(len(codes), 3),
            np.where(counts > 0, starts, -1).astype(np.int32),
            np.asarray(frac, dtype=np.int64) if len(frac) else np.zeros(total, np.int64),
            np.asarray(rem, dtype=np.float64) if len(rem) else np.zeros(total),
            np.asarray(form, dtype=np.int32) if len(form) else np.full(total, -1, np.int32),
            np.asarray(extra, dtype=np.int32),
        )

    def __len__(self) -> int:
        """Return the number of operations."""
        return len(self.code)

    @property
    def is_wide(self) -> NDArray[np.bool_]:
        """Which operations keep their operands in ``extra``, bool[n]."""
        result: NDArray[np.bool_] = NUM_QUBITS[self.code] < 0
        return result

    def operands(self, index: int) -> tuple[int, ...]:
        """Return the qubits of operation ``index`` (a measurement's bit not among them)."""
        first, count, _ = (int(q) for q in self.qubit[index])
        arity = int(NUM_QUBITS[self.code[index]])
        if arity < 0:
            return tuple(self.extra[first : first + count].tolist())
        return tuple(int(q) for q in self.qubit[index, :arity])

    def operations(self) -> Iterator[tuple[str, tuple[int, ...], int]]:
        """Yield (gate name, qubits, first angle entry or -1) of each operation in order.

        For tools and tests; a pass over a large run works on the arrays.
        """
        for i in range(len(self)):
            yield GATES[self.code[i]].name, self.operands(i), int(self.angle[i])

    def with_angles(
        self, frac: NDArray[np.int64], rem: NDArray[np.float64], form: NDArray[np.int32]
    ) -> Run:
        """Return the run with other values in its angle entries; units are wrapped."""
        return replace(self, frac=wrap(frac), rem=rem, form=form)

    def select(self, index: NDArray[np.intp] | NDArray[np.bool_]) -> Run:
        """Return the operations at ``index`` (a mask or positions, in that order), compacted."""
        code = self.code[index]
        counts = angle_counts(code)
        starts = np.cumsum(counts) - counts
        entry = np.repeat(self.angle[index] - starts, counts) + np.arange(int(counts.sum()))
        qubit = self.qubit[index]
        wide = NUM_QUBITS[code] < 0
        extra = self.extra
        if wide.any():
            qubit = qubit.copy()
            sizes = qubit[wide, 1].astype(np.int64)
            begins = np.cumsum(sizes) - sizes
            source = np.repeat(qubit[wide, 0] - begins, sizes) + np.arange(int(sizes.sum()))
            extra = extra[source]
            qubit[wide, 0] = begins
        else:
            extra = extra[:0]
        return Run(
            code,
            qubit,
            np.where(counts > 0, starts, -1).astype(np.int32),
            self.frac[entry],
            self.rem[entry],
            self.form[entry],
            extra,
        )

    @staticmethod
    def concat(runs: Sequence[Run]) -> Run:
        """Return the runs one after the other; their forms must be rows of one table."""
        runs = [run for run in runs if len(run)]
        if not runs:
            return Run.empty()
        if len(runs) == 1:
            return runs[0]
        qubits, angles = [], []
        entries = operands = 0
        for run in runs:
            qubit = run.qubit
            if operands and run.is_wide.any():
                qubit = qubit.copy()
                qubit[run.is_wide, 0] += operands
            qubits.append(qubit)
            angles.append(np.where(run.angle >= 0, run.angle + entries, -1).astype(np.int32))
            entries += len(run.frac)
            operands += len(run.extra)
        return Run(
            np.concatenate([run.code for run in runs]),
            np.concatenate(qubits),
            np.concatenate(angles),
            np.concatenate([run.frac for run in runs]),
            np.concatenate([run.rem for run in runs]),
            np.concatenate([run.form for run in runs]),
            np.concatenate([run.extra for run in runs]),
        )

    def relabel(self, qubits: NDArray[np.int32], clbits: NDArray[np.int32]) -> Run:
        """Return the run on other wires: qubit q becomes ``qubits[q]``, bit c ``clbits[c]``."""
        qubit = self.qubit.copy()
        wide = self.is_wide
        measure = self.code == G.MEASURE
        plain = ~wide & ~measure
        used = plain[:, None] & (qubit >= 0)
        qubit[used] = qubits[qubit[used]]
        qubit[measure, 0] = qubits[qubit[measure, 0]]
        qubit[measure, 1] = clbits[qubit[measure, 1]]
        extra = qubits[self.extra] if len(self.extra) else self.extra
        return replace(self, qubit=qubit, extra=extra)

    def same_as(self, other: Run, forms: Forms, other_forms: Forms) -> bool:
        """Whether both hold the same operations with the same angles, entry by entry."""
        a, b = self.normal(), other.normal()
        if not (
            np.array_equal(a.code, b.code)
            and np.array_equal(a.qubit, b.qubit)
            and np.array_equal(a.frac, b.frac)
            and np.array_equal(a.rem, b.rem)
            and np.array_equal(a.extra, b.extra)
            and np.array_equal(a.form >= 0, b.form >= 0)
        ):
            return False
        pairs = np.unique(np.stack([a.form, b.form]), axis=1).T
        return all(forms.row(int(i)) == other_forms.row(int(j)) for i, j in pairs)

    def normal(self) -> Run:
        """Return the run with angles and wide operands in the order of the operations."""
        return self.select(np.arange(len(self)))
