"""Rotations whose angles each row of data brings: words in their places, row by row.

A compiled circuit keeps ``rz`` of a parameter, and beside it the accuracy that its word is to have.
When a row is bound, its angle is known and the word is found. Angles are first moved to a grid,

    |a' - a| <= g / 2,   ||RZ(a') - RZ(a)|| <= g / 4 <= eps / 16,   g = (pi/2) / 2^m,

and the word comes within the rest of eps of RZ(a'): some 3 / eps words in all, each looked for once
whatever the number of rows, for .3 T gates more a rotation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.angle_accuracies import RowKey
from qcomp.errors import UsageError
from qcomp.ir.angle import PI, Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.synthesize.clifford_t.chains import Chain, by_rows, write
from qcomp.passes.synthesize.clifford_t.normal_form import distance
from qcomp.passes.synthesize.clifford_t.rotations import FINEST, Point, rotation_word

__all__ = [
    "RowPoint",
    "RowTurn",
    "RowWords",
    "bound_in_words",
    "in_words",
    "row_key",
    "row_keys",
    "row_t_counts",
    "row_turns",
    "turned_by_rows",
    "with_words",
]

_QUARTER = PI >> 1
_GRID = 4
"""Steps of the grid in an accuracy."""

_SAMPLE = 16
"""Rows that say how many T gates an accuracy takes."""

_LEAST = 1e-11
"""The finest accuracy that is looked at."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RowWords:
    """Words for one rotation on many rows.

    Attributes:
        points: The different ones.
        which: Which of them each row has, intp[B].
        errors: Operator norm of each row's difference, float64[B].
    """

    points: tuple[Point, ...]
    which: NDArray[np.intp]
    errors: Floats

    @property
    def t_counts(self) -> NDArray[np.int64]:
        """T gates of each row, int64[B]."""
        return np.array([point.t_count for point in self.points], np.int64)[self.which]

    @property
    def quaternions(self) -> Floats:
        """What each row's word makes, float64[B, 4]."""
        return np.array([point.word.quaternion for point in self.points])[self.which]


def with_words(angles: Floats, epsilon: float) -> RowWords:
    """Return words within epsilon of ``RZ(angle)`` for each row.

    Args:
        angles: Radians, float64[B].
        epsilon: Operator norm, up to phase; at least 1e-12.

    Raises:
        UsageError: If the accuracy is none that can be had.
    """
    fine = max(0, math.ceil(math.log2((math.pi / 2) / (epsilon / _GRID))))
    step = (math.pi / 2) / 2**fine
    # At the finest accuracies the grid is that of the exact angles themselves.
    unit = max(_QUARTER >> fine, 1)
    number = np.rint(np.remainder(angles, 2 * math.pi) / step).astype(np.int64)
    grid, which = np.unique(number % (4 << fine), return_inverse=True)
    rest = max(epsilon - step / 4, FINEST)
    points = tuple(_grid_word(int(k) * unit, rest) for k in grid)
    found = np.array([point.word.quaternion for point in points])[which]
    half = np.asarray(angles) / 2
    wanted = np.stack([np.cos(half), 0 * half, 0 * half, np.sin(half)], axis=1)
    return RowWords(points, which.astype(np.intp), distance(found, wanted))


@dataclass(frozen=True, slots=True)
class RowPoint:
    """One accuracy for a rotation by a parameter.

    Attributes:
        t_count: T gates, the mean over rows, to the nearest whole number.
        error: Operator norm, on every row.
    """

    t_count: int
    error: float


@dataclass(frozen=True, eq=False)
class RowTurn:
    """A rotation about Z by a parameter.

    Attributes:
        wire: The qubit.
        index: Its place in the run.
        key: What it depends on.
        rows: Some rows' angles, or angles all around where no rows are known, float64[B].
    """

    wire: int
    index: tuple[int, ...]
    key: RowKey
    rows: Floats

    @property
    def size(self) -> int:
        """The number of rotations: one."""
        return 1

    def front(self, coarsest: float, finest: float, direct_t: int) -> list[RowPoint]:
        """Return accuracies from one to another, a third of an octave apart: about one T.

        Args:
            coarsest: Operator norm of the first.
            finest: Operator norm that the last one is within.
            direct_t: Has no meaning for one rotation.
        """
        step = math.floor(-3 * math.log2(min(coarsest, 1.0)))
        out: list[RowPoint] = []
        while True:
            epsilon = max(2.0 ** (-step / 3), _LEAST)
            count = round(float(with_words(self.rows, epsilon).t_counts.mean()))
            if not out or count > out[-1].t_count:
                out.append(RowPoint(count, epsilon))
            if epsilon <= finest or epsilon <= _LEAST:
                return out
            step += 1


def row_key(run: Run, index: int, forms: Forms, params: Sequence[str]) -> RowKey:
    """Return what a rotation by parameters depends on, up to its sign."""
    row = forms.row(int(run.form[run.angle[index]]))
    sign = -1.0 if row and row[0][1] < 0 else 1.0
    return tuple((params[column], sign * factor) for column, factor in row)


def row_keys(circuit: Circuit) -> list[RowKey]:
    """Return what each rotation by parameters depends on, in the order of the circuit."""
    return [row_key(run, i, circuit.forms, circuit.params) for _, run, i in turned_by_rows(circuit)]


def row_turns(circuit: Circuit, rows: Floats | None) -> list[RowTurn]:
    """Return the rotations by parameters of a circuit that is written in ``rz``.

    Args:
        circuit: The circuit.
        rows: float64[B, P], of which some are looked at; None where none are known.
    """
    found = turned_by_rows(circuit)
    around = 2 * math.pi * np.remainder(np.arange(_SAMPLE) * (math.sqrt(5) - 1) / 2, 1.0)
    if rows is not None:
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, _SAMPLE).astype(np.int64))]
    return [
        RowTurn(
            int(run.qubit[i, 0]),
            (i,),
            row_key(run, i, circuit.forms, circuit.params),
            around if rows is None else circuit.angles_for(rows, run)[:, run.angle[i]],
        )
        for _, run, i in found
    ]


@functools.lru_cache(maxsize=1 << 16)
def _grid_word(frac: int, epsilon: float) -> Point:
    return rotation_word(frac, 0.0, epsilon)


def turned_by_rows(circuit: Circuit) -> list[tuple[int, Run, int]]:
    """Return the rotations with a parameter in the order of the circuit.

    Returns:
        For each the number of its run, the run, and its place there.

    Raises:
        UsageError: If another gate than ``rz`` has one.
    """
    out = []
    for number, run in enumerate(circuit.runs()):
        for i in np.flatnonzero(by_rows(run)):
            if run.code[i] != G.RZ:
                raise UsageError(
                    "a gate other than rz has a parameter, words stand for rotations about Z",
                    hint="write the circuit in rz and Clifford gates first: to-basis",
                )
            out.append((number, run, int(i)))
    return out


def _words(circuit: Circuit, rows: Floats, accuracies: Sequence[float]) -> list[RowWords]:
    turned = turned_by_rows(circuit)
    if len(turned) != len(accuracies):
        raise UsageError(
            f"the circuit '{circuit.name}' has {len(turned)} rotations by parameters, accuracies "
            f"were given for {len(accuracies)}"
        )
    angles: dict[int, Floats] = {}
    found = []
    for (number, run, i), epsilon in zip(turned, accuracies, strict=True):
        if number not in angles:
            angles[number] = circuit.angles_for(rows, run)
        found.append(with_words(angles[number][:, run.angle[i]], epsilon))
    return found


def row_t_counts(circuit: Circuit, rows: Floats, accuracies: Sequence[float]) -> NDArray[np.int64]:
    """Return the T gates of each row's circuit, those that all rows share included, int64[B]."""
    total = np.full(len(rows), circuit.stats().t_count, dtype=np.int64)
    for words in _words(circuit, rows, accuracies):
        total += words.t_counts
    return total


def in_words(circuit: Circuit, rows: Floats, accuracies: Sequence[float]) -> tuple[Circuit, Floats]:
    """Return a circuit and its rows that do what the rows' circuits of words do.

    ::

        RZ(a)  ->  RZ(c_b) RY(d_b) RZ(e_b)  with what the word of row b makes

    so that all rows are simulated as one batch. The global phase keeps its constant part only.

    Args:
        circuit: With ``rz`` of parameters.
        rows: float64[B, P].
        accuracies: Of each rotation by a parameter, in the order of the circuit.
    """
    words = _words(circuit, rows, accuracies)
    if not words:
        return circuit, rows
    columns: list[Floats] = []
    for found, (_, run, i) in zip(words, turned_by_rows(circuit), strict=True):
        quaternions = found.quaternions
        angle = circuit.angles_for(rows, run)[:, run.angle[i]]
        sign = np.cos(angle / 2) * quaternions[:, 0] + np.sin(angle / 2) * quaternions[:, 3]
        a, b, c, d = (quaternions * np.where(sign < 0, -1.0, 1.0)[:, None]).T
        middle = 2 * np.arctan2(np.hypot(b, c), np.hypot(a, d))
        both, apart = np.arctan2(d, a), np.arctan2(-b, c)
        columns += [both - apart, middle, both + apart]
    number = iter(range(len(words)))

    def one(run: Run) -> Run:
        chosen = np.flatnonzero(by_rows(run))
        if not len(chosen):
            return run
        width = run.qubit.shape[1]
        codes, qubits, forms = [], [], []
        for i in chosen:
            k = next(number)
            codes += [G.RZ, G.RY, G.RZ]
            qubits += [[int(run.qubit[i, 0])] + [-1] * (width - 1)] * 3
            forms += [3 * k, 3 * k + 1, 3 * k + 2]
        zeros = [0] * len(codes)
        turns = Run.of(codes, qubits, zeros, [0.0] * len(codes), forms)
        stay = np.flatnonzero(~by_rows(run) & (run.code != G.GPHASE))
        added = len(run) + np.arange(len(codes))
        order = np.argsort(np.concatenate([stay, np.repeat(chosen, 3)]), kind="stable")
        return Run.concat([run, turns]).select(np.concatenate([stay, added])[order])

    count = len(columns)
    new = circuit.map_runs(one).copy(
        forms=Forms(
            np.arange(count + 1, dtype=np.int64), np.arange(count, dtype=np.int32), np.ones(count)
        )
    )
    new.params = tuple(f"w{k}" for k in range(count))
    phase = circuit.global_phase
    new.global_phase = Angle(phase.frac, phase.rem)
    return new, np.stack(columns, axis=1)


def bound_in_words(circuit: Circuit, row: Sequence[float], accuracies: Sequence[float]) -> Circuit:
    """Return the circuit of one row, its rotations by parameters as Clifford gates and T."""
    where = turned_by_rows(circuit)
    values = np.atleast_2d(np.asarray(row, dtype=np.float64))
    words = _words(circuit, values, accuracies)
    index: dict[int, list[tuple[int, RowWords, float]]] = {}
    for (number, run, i), found in zip(where, words, strict=True):
        angle = float(circuit.angles_for(values, run)[0, run.angle[i]])
        index.setdefault(number, []).append((i, found, angle))
    numbers = itertools.count()

    def one(run: Run, forms: Forms) -> Leaf:
        chosen = index.get(next(numbers), [])
        if not chosen:
            return run, forms, Phase()
        chains, points = [], []
        for i, found, angle in chosen:
            half = angle / 2
            target = (math.cos(half), 0.0, 0.0, math.sin(half))
            chains.append(Chain(int(run.qubit[i, 0]), (i,), (None,), ((0, angle),), target, 0))
            points.append(found.points[int(found.which[0])])
        new, phase = write(run, chains, points)
        return new, forms, phase

    return rewrite_leaves(circuit.bind(values[0]), one)
