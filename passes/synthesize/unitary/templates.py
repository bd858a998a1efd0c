"""Templates: CX gates in given places with one-qubit gates between, fitted to a matrix.

A template of L CX gates on n qubits has ``4 L + 3 n`` angles: RZ RY RZ on each wire, and after each
CX gate RY, RZ on its control and RY, RX on its target; what is missing of a one-qubit gate passes
the CX gate. Its angles are fitted by Levenberg's and Marquardt's method on ``|C - T|^2`` over the
global phase, or over a diagonal D of phases on the left, ``|C - D T|^2``. With ``C_k`` the product
of the gates after angle k and P its axis, ``dC = -i G_k C``, ``G_k = C_k P C_k^dag / 2``: the
Jacobian is one Hermitian matrix an angle, whatever T, and with ``W = T C^dag`` the gradient is
``<G_k, (W - W^dag) / 2i>``. The phases are put in by projection: what they change is left out of
G_k (Golub, Pereyra 1973). At a solution the error goes down quadratically, to rounding.

Cost: ``O(L 8^n)`` for the Jacobian and ``O(L^2 4^n + L^3)`` for a step.

Sources: Levenberg 1944; Marquardt 1963; templates as Madden, Simonetto 2021 (arXiv:2106.05649),
who saw that random unitaries are reached with the fewest CX gates that parameters allow,
``ceil((4^n - 3 n - 1) / 4)``: 14, 61 and 252 for n = 3, 4, 5 (Shende, Markov, Bullock 2004,
quant-ph/0308033).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.passes.synthesize.unitary.sketch import Matrix, Sketch

__all__ = ["EXACT", "Fit", "Template", "fit"]

EXACT = 1e-20
"""Squared Frobenius distance below which a template is a unitary's: rounding ends near 1e-28."""

_STEPS_AT_END = 2
_FINE = 1e-27
_CX = 3
_ROOT = float(np.sqrt(2.0))
_TRIES = 10

Pairs = tuple[tuple[int, int], ...]
Codes = NDArray[np.int64]
Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Template:
    """CX gates in order, with as many one-qubit gates between as make a difference.

    Attributes:
        num_qubits: Wires.
        pairs: (control, target) of each CX gate.
    """

    num_qubits: int
    pairs: Pairs

    @functools.cached_property
    def codes(self) -> Codes:
        """int64[m, 3]: axis (0 X, 1 Y, 2 Z) and wire of a rotation, or 3, control and target."""
        rows = [(axis, q, -1) for q in range(self.num_qubits) for axis in (2, 1, 2)]
        for control, target in self.pairs:
            rows.append((_CX, control, target))
            rows += [(1, control, -1), (2, control, -1), (1, target, -1), (0, target, -1)]
        return np.array(rows, dtype=np.int64).reshape(-1, 3)

    @property
    def num_angles(self) -> int:
        """Angles: 4 a CX gate and 3 a wire."""
        return 4 * len(self.pairs) + 3 * self.num_qubits

    def sketch(self, angles: Reals) -> Sketch:
        """Return the gates with their angles; the phase is 0."""
        sketch = Sketch(self.num_qubits)
        k = 0
        for axis, wire, target in self.codes.tolist():
            if axis == _CX:
                sketch.cx(wire, target)
                continue
            if axis == 2:
                sketch.rz(wire, float(angles[k]))
            elif axis == 1:
                sketch.ry(wire, float(angles[k]))
            else:
                c, s = np.cos(angles[k] / 2), np.sin(angles[k] / 2)
                sketch.one(wire, np.array([[c, -1j * s], [-1j * s, c]]))
            k += 1
        return sketch

    def without(self, number: int, angles: Reals) -> tuple[Template, Reals]:
        """Return the template without one CX gate, and angles to begin with."""
        first = 3 * self.num_qubits + 4 * number
        pairs = self.pairs[:number] + self.pairs[number + 1 :]
        return Template(self.num_qubits, pairs), np.delete(angles, slice(first, first + 4))


def _times(product: Matrix, axis: int, wire: int, target: int, angle: float) -> None:
    """Multiply a matrix by a gate from the right, in place."""
    size = product.shape[0]
    bit = 1 << wire
    if axis == 3:
        other = 1 << target
        for j in range(size):
            if (j & bit) != 0 and (j & other) == 0:
                for r in range(size):
                    x = product[r, j]
                    product[r, j] = product[r, j | other]
                    product[r, j | other] = x
        return
    c = np.cos(angle / 2)
    s = np.sin(angle / 2)
    if axis == 0:
        a, b, d, e = c + 0j, -1j * s, -1j * s, c + 0j
    elif axis == 1:
        a, b, d, e = c + 0j, -s + 0j, s + 0j, c + 0j
    else:
        a, b, d, e = c - 1j * s, 0j, 0j, c + 1j * s
    for j in range(size):
        if (j & bit) == 0:
            for r in range(size):
                x = product[r, j]
                y = product[r, j | bit]
                product[r, j] = x * a + y * d
                product[r, j | bit] = x * b + y * e


@kernel(calls=(_times,))
def _product(codes: Codes, angles: Reals, product: Matrix) -> None:
    """Multiply out a template into ``product``, which comes as the identity."""
    k = angles.shape[0] - 1
    for i in range(len(codes) - 1, -1, -1):
        if codes[i, 0] == 3:
            _times(product, 3, codes[i, 1], codes[i, 2], 0.0)
        else:
            _times(product, codes[i, 0], codes[i, 1], -1, angles[k])
            k -= 1


@kernel(calls=(_times,))
def _jacobian(codes: Codes, angles: Reals, product: Matrix, turned: Matrix, out: Reals) -> None:
    """Multiply out a template, and write each angle's generator as a real row of ``out``.

    A row holds the diagonal, and the real and imaginary parts below it times the root of 2, so that
    inner products of rows are those of Hermitian matrices.
    """
    size = product.shape[0]
    half_root = 0.5 * np.sqrt(2.0)
    k = angles.shape[0] - 1
    for i in range(len(codes) - 1, -1, -1):
        axis = codes[i, 0]
        if axis == 3:
            _times(product, 3, codes[i, 1], codes[i, 2], 0.0)
            continue
        bit = 1 << codes[i, 1]
        for j in range(size):
            source = j ^ bit if axis < 2 else j
            if axis == 0:
                factor = 1.0 + 0j
            elif axis == 1:
                factor = 1j if (j & bit) == 0 else -1j
            else:
                factor = 1.0 + 0j if (j & bit) == 0 else -1.0 + 0j
            for r in range(size):
                turned[j, r] = product[r, source] * factor
        m = 0
        for r in range(size):
            for c in range(r + 1):
                total = 0j
                for j in range(size):
                    total += turned[j, r] * np.conj(product[c, j])
                if r == c:
                    out[k, m] = 0.5 * total.real
                    m += 1
                else:
                    out[k, m] = half_root * total.real
                    out[k, m + 1] = half_root * total.imag
                    m += 2
        _times(product, axis, codes[i, 1], -1, angles[k])
        k -= 1


@dataclass(frozen=True, slots=True)
class Fit:
    """What fitting a template came to.

    Attributes:
        template: The template.
        angles: float64[K], radians.
        error: Squared Frobenius distance.
        phases: complex128[2^n], D: the target is ``conj(D) C``, of one value without a diagonal.
        steps: Steps that were taken.
    """

    template: Template
    angles: Reals
    error: float
    phases: Matrix
    steps: int

    @property
    def exact(self) -> bool:
        """Whether the target was met."""
        return self.error < EXACT

    def sketch(self) -> Sketch:
        """Return the gates; the global phase is that of the target if there is no diagonal."""
        sketch = self.template.sketch(self.angles)
        sketch.phase = -float(np.angle(self.phases[0]))
        return sketch


def _phases(overlap: Matrix, diagonal: bool) -> Matrix:
    """Return D that brings ``D T C^dag`` nearest to the identity."""
    own = np.diag(overlap) if diagonal else np.full(len(overlap), np.trace(overlap))
    size = np.abs(own)
    return np.where(size > 1e-12, own.conj() / np.where(size > 1e-12, size, 1.0), 1.0)


def fit(
    template: Template,
    target: Matrix,
    start: Reals,
    *,
    diagonal: bool = False,
    steps: int = 200,
    patience: int = 30,
) -> Fit:
    """Fit a template's angles to a unitary.

    Args:
        template: The template.
        target: complex128[2^n, 2^n], unitary.
        start: float64[K], where to begin, radians.
        diagonal: Whether the unitary is wanted only up to a diagonal on its left.
        steps: Most steps.
        patience: Steps after which a fit that has not got half as far off is given up.
    """
    size = len(target)
    work = size * size * len(template.codes)
    jacobian, product_of = _jacobian.by_size(work * size), _product.by_size(work)
    codes, angles = template.codes, start.copy()
    eye = np.eye(size, dtype=complex)
    rows, columns = np.tril_indices(size, -1)
    # Row r of the packed lower triangle begins at r^2: its pairs, then the diagonal.
    on_diagonal = np.arange(size) ** 2 + 2 * np.arange(size)
    below = rows * rows + 2 * columns
    generators = np.zeros((template.num_angles, size * size))
    slope = np.zeros(size * size)
    turned = np.empty((size, size), dtype=complex)
    product = eye.copy()
    jacobian(codes, angles, product, turned, generators)
    overlap = target @ product.conj().T
    phases = _phases(overlap, diagonal)
    overlap = phases[:, None] * overlap
    error = float((np.abs(overlap - eye) ** 2).sum())
    damping, taken, mark, at_end = 0.1, 0, (0, error), 0
    while taken < steps and error > _FINE and at_end < _STEPS_AT_END:
        if diagonal:
            generators[:, on_diagonal] = 0.0
        skew = (overlap[rows, columns] - overlap[columns, rows].conj()) / 2j
        slope[below], slope[below + 1] = _ROOT * skew.real, _ROOT * skew.imag
        slope[on_diagonal] = 0.0 if diagonal else np.diag(overlap).imag
        normal = generators @ generators.T
        gradient = generators @ slope
        better = False
        for attempt in range(_TRIES):
            step = np.linalg.solve(normal + damping * np.eye(len(angles)), gradient)
            trial = eye.copy()
            product_of(codes, angles - step, trial)
            tried = target @ trial.conj().T
            new_phases = _phases(tried, diagonal)
            tried = new_phases[:, None] * tried
            found = float((np.abs(tried - eye) ** 2).sum())
            if found < error:
                better = True
                damping = max(damping / 4, 1e-14) if attempt == 0 else damping
                break
            damping *= 4
        taken += 1
        if not better:
            break
        angles, error, overlap, phases = angles - step, found, tried, new_phases
        at_end += error < EXACT
        if error < mark[1] / 2:
            mark = taken, error
        elif taken - mark[0] > patience:
            break
        product = eye.copy()
        jacobian(codes, angles, product, turned, generators)
    return Fit(template, angles, error, phases, taken)
