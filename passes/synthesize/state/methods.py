"""Each method of preparing a state as a function from a vector and a fidelity to a circuit.

A vector comes with norm 1, float64 where it is real. A method gives back None where the state has
not the structure that it takes, or where it would take too much work; whether the fidelity is
reached is measured by who called it. Work is counted in updates of amplitudes, never in time, so
the same vector gets the same circuit on every machine.
"""

from __future__ import annotations

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.state.cx_form import Array, CxForm, Matrices, Op, assemble
from qcomp.passes.synthesize.state.fit import EXACT, fit, fit_shape, least_cx, ring_pairs
from qcomp.passes.synthesize.state.low_rank import low_rank_fit, low_rank_pairs, schmidt
from qcomp.passes.synthesize.state.multiplexed import disentangle, undo
from qcomp.passes.synthesize.state.pair_gates import network_form
from qcomp.passes.synthesize.state.pair_network import PairGate, improve, with_layers
from qcomp.passes.synthesize.state.sparse import sparse_form
from qcomp.passes.synthesize.unitary.block_zxz import split
from qcomp.passes.synthesize.unitary.numeric import numeric_leaf
from qcomp.passes.synthesize.unitary.sketch import Sketch
from qcomp.passes.synthesize.unitary.synthesis import sketch_of

__all__ = ["fitted", "layered", "multiplexed", "schmidt_form", "sparse"]

_STEP = 3e7
"""Updates of amplitudes that one step of a fit may take."""

_SPARSE = 4096
_LAYERS = 14
_SWEEPS = 40
_LARGEST = 12
"""Qubits to which methods that optimise are tried."""

_RANK = 1e-12


def multiplexed(vector: Matrices, fidelity: float) -> Circuit:
    """Exact, qubit by qubit: at most ``2^n - n - 1`` CX."""
    return _multiplexed_form(vector).circuit()


def _multiplexed_form(vector: Matrices) -> CxForm:
    wires = list(range(len(vector).bit_length() - 1))
    real, rest = not np.iscomplexobj(vector), vector
    ops: list[Op] = []
    while wires:
        more, rest = disentangle(rest, wires)
        ops += more
        wires = wires[:-1]
    return assemble(len(vector).bit_length() - 1, undo(ops), real)


def sparse(vector: Matrices, fidelity: float) -> Circuit | None:
    """Basis states merged in pairs; amplitudes that the fidelity can spare are dropped first."""
    order = np.argsort(np.abs(vector), kind="stable")
    below = np.cumsum(np.abs(vector[order]) ** 2)
    spare = int(np.searchsorted(below, max(1 - fidelity, 1e-28), side="right"))
    kept = vector.copy()
    kept[order[:spare]] = 0
    if len(vector) - spare > min(_SPARSE, len(vector) // 2):
        return None
    return sparse_form(kept / np.linalg.norm(kept)).circuit()


def layered(vector: Matrices, fidelity: float, kind: str) -> Circuit | None:
    """Layers of two-qubit gates, optimised together, until the fidelity is reached.

    Args:
        vector: The state.
        fidelity: Where to stop.
        kind: "chain", staircases of a matrix product state, or "tree".
    """
    wires = len(vector).bit_length() - 1
    if wires < 2 or wires > _LARGEST:
        return None
    most = (1 << wires) - wires - 1
    gates: list[PairGate] = []
    for _ in range(_LAYERS):
        gates = with_layers(vector, gates, kind)
        gates, found = improve(vector, gates, _SWEEPS, min(fidelity, 1 - 1e-12))
        enough = found >= min(fidelity, 1 - 1e-11)
        if enough or 2 * len(gates) > most + wires:
            return _polished(vector, gates, fidelity) if enough else None
    return None


def _polished(vector: Matrices, gates: list[PairGate], fidelity: float) -> Circuit:
    """Write gates in CX; what exactness lacks is fitted."""
    form = network_form(len(vector).bit_length() - 1, gates)
    if fidelity == 1 and _work(form.wires, len(form.pairs), form.is_real) <= _STEP:
        form = fit(vector, form, 20).form
    return form.circuit()


def _work(wires: int, cx: int, real: bool) -> float:
    angles = (wires + 2 * cx) * (1 if real else 2)
    return angles * (cx / 2 + 1) * 2.0**wires


def fitted(vector: Matrices, fidelity: float) -> Circuit | None:
    """Angles between CX in a ring, as few CX as reach the fidelity; found by halving their range.

    An exact state without structure takes as many CX as it has numbers for, or one to three more.
    """
    wires = len(vector).bit_length() - 1
    real = not np.iscomplexobj(vector)
    if wires < 2:
        return None
    until = 1e-27 if fidelity > 1 - 1e-11 else 2 * (1 - np.sqrt(fidelity)) * (1 - 1e-9)
    least = least_cx(wires, real)

    def attempt(count: int, steps: int, tries: int) -> CxForm | None:
        if _work(wires, count, real) > _STEP:
            return None
        got = fit_shape(vector, ring_pairs(wires, count), steps=steps, tries=tries, until=until)
        return got.form if got.loss <= max(until, EXACT) else None

    best: tuple[int, CxForm] | None = None
    for extra in range(6):
        if (form := attempt(least + extra, 80, 2)) is not None:
            best = least + extra, form
            break
    if best is None and fidelity > 1 - 1e-11:
        return None
    low, high = 0, least + 6 if best is None else best[0]
    while high - low > 1 and (wires <= 7 or fidelity < 1 - 1e-11):
        middle = (low + high) // 2
        form = attempt(middle, 40, 2)
        if form is None:
            low = middle
        else:
            high, best = middle, (middle, form)
    return None if best is None else best[1].circuit()


def schmidt_form(vector: Matrices, fidelity: float) -> Circuit | None:
    """A small state, copies of its bits, and an isometry on each half.

    Of full rank the isometries are unitaries, which are taken apart up to diagonals; of a lower one
    all angles are fitted together.
    """
    wires = len(vector).bit_length() - 1
    if wires < 4 or wires > _LARGEST:
        return None
    values = schmidt(vector)
    missing = np.append(np.cumsum(values[::-1] ** 2)[::-1], 0.0)
    most = max(1 - fidelity, _RANK**2)
    rank = int(np.flatnonzero(missing <= most)[0])
    bits = max(rank - 1, 0).bit_length()
    real = not np.iscomplexobj(vector)
    pairs = low_rank_pairs(wires, bits, real, 1)
    if bits < wires // 2 and _work(wires, len(pairs), real) <= _STEP:
        weight = 1 - missing[min(1 << bits, len(values))]
        until = 1e-27 if fidelity > 1 - 1e-11 else 2 * (1 - np.sqrt(fidelity / weight))
        return low_rank_fit(vector, bits, max(until, 1e-27)).form.circuit()
    return _by_unitaries(vector) if wires <= 10 else None


def _by_unitaries(vector: Matrices) -> Circuit:
    """``sum_i s_i |u_i> |v_i>``: the small state takes the phases of the halves' gates."""
    wires = len(vector).bit_length() - 1
    low = wires // 2
    left, values, right = np.linalg.svd(vector.reshape(-1, 1 << low).astype(np.complex128))
    upper, phases = _up_to_diagonal(left)
    lower, more = _up_to_diagonal(np.ascontiguousarray(right.T))
    small: Matrices = values * phases[: len(values)] * more
    form = None
    until = 1e-27
    for extra in range(5):
        pairs = ring_pairs(low, least_cx(low, False) + extra)
        got = fit_shape(small / np.linalg.norm(small), pairs, until=until)
        if got.loss <= EXACT:
            form = got.form
            break
    if form is None:
        form = _multiplexed_form(small / np.linalg.norm(small))
    sketch = Sketch(wires)
    for first, second, matrix in form.ops():
        if matrix is None:
            sketch.cx(first, second)
        else:
            sketch.one(first, matrix.astype(np.complex128))
    for i in range(low):
        sketch.cx(i, low + i)
    sketch.extend(lower, range(low))
    sketch.extend(upper, range(low, wires))
    return sketch.circuit("state")


def _up_to_diagonal(matrix: Matrices) -> tuple[Sketch, Array]:
    """Return a circuit C and phases d with ``matrix = C diag(d)``."""
    count = len(matrix).bit_length() - 1
    ones = np.ones(len(matrix), dtype=complex)
    if count < 3:
        return sketch_of(matrix), ones
    rng = np.random.default_rng([count])
    leaves = split(matrix.conj().T, min(count, 4))
    sketch, carried = Sketch(count), np.ones(leaves.matrix.shape[1], dtype=complex)
    for number, leaf in enumerate(leaves.matrix):
        found = numeric_leaf(leaf * carried, rng)
        if found is None:
            return sketch_of(matrix), ones
        if number:
            leaves.join(sketch, number)
        # The leaf times what was carried is diag(conj(phases)) times the circuit.
        sketch.extend(found.template.sketch(found.angles), range(min(count, 4)))
        carried = found.phases.conj()
    whole = np.tile(carried, len(matrix) // len(carried))
    return sketch.inverted(), whole.conj()
