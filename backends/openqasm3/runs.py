"""Straight-line runs as text: compiled for long ones, plain Python for short ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcomp.backends.openqasm3.printer_kernels import Angles, Texts, print_run
from qcomp.backends.openqasm3.profiles import Profile
from qcomp.decimals import print_tables
from qcomp.ir.angle import PI, SNAP_BITS, UNIT, Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, NUM_ANGLES, G
from qcomp.ir.run import Run
from qcomp.kernels import KERNEL_THRESHOLD

__all__ = ["MARK", "Field", "RunPrinter"]

MARK = "\0"
"""What stands for an angle that is filled in later; no text of ours has it."""

_BUFFER = 1 << 22
_STEP = PI >> SNAP_BITS


class Field(NamedTuple):
    """An angle that is filled in later: ``constant + sum of coefficient * parameter``.

    Attributes:
        constant: Radians.
        terms: (parameter, coefficient) pairs.
        gate: The gate's code; -1 for the circuit's global phase.
        place: Which of the gate's angles it is.
    """

    constant: float
    terms: tuple[tuple[int, float], ...]
    gate: int = -1
    place: int = 0


class RunPrinter:
    """Prints the runs of one circuit.

    Args:
        circuit: The circuit.
        profile: How gates are spelled and whether angles are fractions of pi.
        qubits: Text of each qubit.
        bits: Text of each classical bit.
        params: Text of each parameter.

    Attributes:
        qubits: Text of each qubit.
        marked: None; or a list, which takes the angles with parameters in the order in which they
            are printed: a mark stands for each of them in the text.
    """

    def __init__(
        self,
        circuit: Circuit,
        profile: Profile,
        qubits: Sequence[str],
        bits: Sequence[str],
        params: Sequence[str],
    ) -> None:
        self.qubits = qubits
        self._bits = bits
        self._params = params
        self._forms = circuit.forms
        self._pi = profile.pi
        self._arrow = profile.version == "2.0"
        self._heads = [
            profile.spelling.get(row.name, row.name) + ("(" if row.num_angles else " ")
            for row in GATES
        ]
        self._heads[G.MCX] = "ctrl("
        self._texts: Texts | None = None
        self._columns = {name: i for i, name in enumerate(circuit.params)}
        self.marked: list[Field] | None = None

    def print(self, run: Run, indent: str, sink: Callable[[bytes], object]) -> None:
        """Write the run, a line an operation.

        Args:
            run: A run of the circuit.
            indent: What each line starts with.
            sink: Takes the text in pieces.
        """
        if not self._pi:
            run = run.with_angles(np.zeros_like(run.frac), _radians(run.frac) + run.rem, run.form)
        if len(run) < KERNEL_THRESHOLD or self.marked is not None:
            sink("".join(self._lines(run, indent)).encode())
        else:
            self._compiled(run, indent, sink)

    def _compiled(self, run: Run, indent: str, sink: Callable[[bytes], object]) -> None:
        """Write the run with the kernel, a buffer at a time."""
        if self._texts is None:
            self._texts = self._tables()
        texts = self._texts._replace(indent=np.frombuffer(indent.encode(), dtype=np.uint8))
        rem = np.ascontiguousarray(run.rem, dtype=np.float64)
        coef = np.ascontiguousarray(self._forms.coef, dtype=np.float64)
        angles = Angles(
            np.ascontiguousarray(run.frac, dtype=np.int64),
            rem,
            rem.view(np.uint64),
            np.ascontiguousarray(run.form, dtype=np.int32),
            np.ascontiguousarray(self._forms.indptr, dtype=np.int64),
            np.ascontiguousarray(self._forms.col, dtype=np.int32),
            coef,
            coef.view(np.uint64),
        )
        high, low = print_tables()
        out = np.empty(min(_BUFFER, 128 * len(run) + 4096), dtype=np.uint8)
        code = np.ascontiguousarray(run.code, dtype=np.uint8)
        qubit = np.ascontiguousarray(run.qubit, dtype=np.int32)
        extra = np.ascontiguousarray(run.extra, dtype=np.int32)
        angle = np.ascontiguousarray(run.angle, dtype=np.int32)
        print_some = print_run.compiled()
        done = 0
        while done < len(run):
            last = done
            done, written = print_some(
                done, code, qubit, extra, angle, angles, texts, self._arrow, out, high, low
            )
            if done == last:
                out = np.empty(4 * len(out), dtype=np.uint8)
            else:
                sink(out[:written].tobytes())

    def _tables(self) -> Texts:
        lists = (self._heads, self.qubits, self._bits, self._params)
        packed = [_packed(texts) for texts in lists]
        longest = max(int(np.diff(starts).max(initial=0)) for _, starts in packed)
        (gate, gate_at), (qubit, qubit_at), (bit, bit_at), (param, param_at) = packed
        return Texts(
            gate, gate_at, qubit, qubit_at, bit, bit_at, param, param_at,
            np.zeros(0, dtype=np.uint8), longest,
        )  # fmt: skip

    def _lines(self, run: Run, indent: str) -> list[str]:
        """Return the lines of a short run."""
        lines = []
        codes, qubit = run.code.tolist(), run.qubit.tolist()
        for i, code in enumerate(codes):
            head = self._heads[code]
            count = int(NUM_ANGLES[code])
            if count:
                head += ", ".join([self._angle_text(run, i, k) for k in range(count)])
                head += ")" if code == G.GPHASE else ") "
            if code == G.MEASURE:
                q, c = self.qubits[qubit[i][0]], self._bits[qubit[i][1]]
                line = f"{head}{q} -> {c}" if self._arrow else f"{c} = {head}{q}"
            else:
                operands = run.operands(i)
                if code == G.MCX:
                    head += f"{len(operands) - 1}) @ x "
                line = head + ", ".join(self.qubits[q] for q in operands)
            lines.append(f"{indent}{line};\n")
        return lines

    def _angle_text(self, run: Run, row: int, index: int) -> str:
        entry = int(run.angle[row]) + index
        terms = self._forms.row(int(run.form[entry]))
        angle = Angle(int(run.frac[entry]), float(run.rem[entry]))
        if terms and self.marked is not None:
            self.marked.append(Field(float(angle), terms, int(run.code[row]), index))
            return MARK
        named = tuple((self._params[column], coef) for column, coef in terms)
        return str(Angle(angle.frac, angle.rem, named))

    def mark_angle(self, angle: Angle) -> str:
        """Return the mark of an angle with parameters that stands outside a run."""
        assert self.marked is not None
        terms = tuple((self._columns[name], coef) for name, coef in angle.terms)
        self.marked.append(Field(float(Angle(angle.frac, angle.rem)), terms))
        return MARK


def _packed(texts: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    data = [text.encode() for text in texts]
    starts = np.zeros(len(data) + 1, dtype=np.int32)
    np.cumsum([len(part) for part in data], out=starts[1:])
    return np.frombuffer(b"".join(data) or b"\0", dtype=np.uint8), starts


def _radians(frac: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return units of pi / 2**60 as radians, rounded once where the fraction is dyadic."""
    steps = frac // _STEP
    dyadic = frac == steps * _STEP
    return np.where(dyadic, steps * np.pi / (1 << SNAP_BITS), frac * UNIT)
