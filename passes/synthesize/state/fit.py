"""The angles of a circuit of CX that bring its state to a vector: least squares.

The circuits of a fixed sequence of CX (:class:`~.cx_form.CxForm`) are a smooth family of states
phi(theta). Levenberg's and Marquardt's method finds theta with the least ``|psi - exp(i g) phi|``:
where the family has as many angles as the states have real numbers, ``2^(n+1) - 2`` (``2^n - 1`` of
real ones), it meets nearly every vector to rounding, in some tens of steps. That is one CX for each
four of these numbers less two for each wire, ``(2^(n+1) - 2 n - 2) / 4``: half of what multiplexed
rotations take, and the least that any circuit can do for generic states by counting alone.

Sources: the count of Shende, Markov, Bullock 2004 (arXiv:quant-ph/0308033); circuits at that count
found numerically by Madden, Simonetto 2022 (arXiv:2106.05649) and Rakyta, Zimboras 2022
(arXiv:2109.06770) for unitaries; Levenberg 1944, Marquardt 1963.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.state.cx_form import (
    Array,
    CxForm,
    Matrices,
    one_qubit,
    run_slopes,
    run_steps,
    slopes,
)

__all__ = ["EXACT", "Fit", "fit", "fit_shape", "least_cx", "ring_pairs"]

EXACT = 1e-22
"""Square of the distance of states below which a circuit is exact."""

_ROUNDING = 1e-27
_STALLED = 1e-5
"""Relative gain of a step below which a fit that is not near is given up."""


@dataclass(frozen=True, slots=True)
class Fit:
    """A circuit and how near it comes.

    Attributes:
        form: The circuit.
        loss: ``|psi - exp(i g) phi|^2`` for the best g.
        steps: Steps that were taken.
    """

    form: CxForm
    loss: float
    steps: int

    @property
    def fidelity(self) -> float:
        """``|<psi|phi>|^2``."""
        return (1 - self.loss / 2) ** 2


def least_cx(wires: int, real: bool) -> int:
    """Return the fewest CX whose circuits have as many angles as states have numbers."""
    numbers = (1 << wires) - 1 if real else (2 << wires) - 2
    each = 1 if real else 2
    return max(0, -((each * wires - numbers) // (2 * each)))


def ring_pairs(wires: int, count: int) -> NDArray[np.int64]:
    """Return CX from each wire to the next, around the ring, then to the second next, and so on.

    Args:
        wires: Qubits, two or more.
        count: How many CX.
    """
    out: list[tuple[int, int]] = []
    while len(out) < count:
        for far in range(1, wires):
            out += [(q, (q + far) % wires) for q in range(wires)]
    return np.array(out[:count], dtype=np.int64).reshape(-1, 2)


def _residual(target: Matrices, state: Matrices) -> tuple[Matrices, float]:
    """Return ``exp(-i g) target - state`` for the best phase and the square of its norm."""
    overlap = np.vdot(state, target)
    if np.iscomplexobj(overlap):
        size = abs(overlap)
        phase = overlap.conjugate() / size if size > 1e-300 else 1.0
    else:
        phase = -1.0 if overlap < 0 else 1.0
    rest = target * phase - state
    return rest, float(np.vdot(rest, rest).real)


def fit(target: Matrices, form: CxForm, steps: int, until: float = _ROUNDING) -> Fit:
    """Move the angles of a circuit until its state is the target or nothing more is gained.

    Args:
        target: float64[2^n] of a real circuit, else complex128[2^n]; norm 1.
        form: Where to start.
        steps: Steps at most.
        until: Loss that is small enough.
    """
    wires, pairs, angles = form.wires, form.pairs, form.angles
    size, count = len(target), angles.size
    kind = np.float64 if form.is_real else np.complex128
    jacobian = np.empty((count, size), dtype=kind)
    state, trial = (np.empty(size, dtype=kind) for _ in range(2))
    work = size * (len(pairs) + 1)

    def evaluate(at: Array) -> tuple[Matrices, float]:
        run_steps.by_size(work)(trial, wires, pairs, one_qubit(at))
        return _residual(target, trial)

    rest, loss = evaluate(angles)
    damping, taken = 0.1, 0
    while taken < steps and loss > until:
        run_slopes.by_size(work * count)(state, jacobian, wires, pairs, *slopes(angles))
        rows, goal = _real_rows(jacobian, state, rest)
        wide = len(rows) < rows.shape[1]
        gram = rows @ rows.T if wide else rows.T @ rows
        side = rows @ goal if wide else goal
        found = None
        for _ in range(9):
            shifted = gram + damping * np.eye(len(gram))
            solved = np.linalg.solve(shifted, side)
            move = solved if wide else rows @ solved
            moved = angles + move[:count].reshape(angles.shape)
            new_rest, new_loss = evaluate(moved)
            if new_loss < loss:
                found = moved
                break
            damping *= 4
        taken += 1
        if found is None:
            break
        gain = (loss - new_loss) / loss
        angles, rest, loss = found, new_rest, new_loss
        damping = max(damping / 5, 1e-14)
        if gain < _STALLED and loss > 1e-6:
            break
    return Fit(replace(form, angles=angles), loss, taken)


def _real_rows(jacobian: Matrices, state: Matrices, rest: Matrices) -> tuple[Array, Array]:
    """Return slopes as real rows, [angles, numbers], and the residual; a phase is an angle too."""
    if not np.iscomplexobj(jacobian):
        return jacobian, rest
    count = len(jacobian)
    rows = np.empty((count + 1, 2 * len(state)))
    rows[:count, 0::2], rows[:count, 1::2] = jacobian.real, jacobian.imag
    rows[count, 0::2], rows[count, 1::2] = -state.imag, state.real
    goal = np.empty(2 * len(state))
    goal[0::2], goal[1::2] = rest.real, rest.imag
    return rows, goal


def fit_shape(
    target: Matrices,
    pairs: NDArray[np.int64],
    *,
    steps: int = 80,
    tries: int = 2,
    until: float = _ROUNDING,
    seed: int = 0,
) -> Fit:
    """Fit a sequence of CX from random angles; the best of some tries.

    The random numbers are the same in every call, so equal vectors give equal circuits.

    Args:
        target: Vector of norm 1; float64 for a circuit of RY and CX.
        pairs: int64[K, 2], the CX.
        steps: Steps of a try at most.
        tries: Starts at most; a try that reaches ``until`` is the last.
        until: Loss that is small enough.
        seed: Another start.
    """
    wires = len(target).bit_length() - 1
    angles = 2 if np.iscomplexobj(target) else 1
    best: Fit | None = None
    for number in range(tries):
        rng = np.random.default_rng((seed, number))
        start = rng.uniform(-np.pi, np.pi, (wires + 2 * len(pairs), angles))
        found = fit(target, CxForm(wires, pairs, start), steps, until)
        if best is None or found.loss < best.loss:
            best = found
        if best.loss <= until:
            break
    assert best is not None
    return best
