"""States of few non-zero amplitudes: basis states are merged two at a time.

Two basis states x, y of the state and qubits on which no third one agrees with them are looked for;
CX from a qubit where they differ make it the only one, and a rotation of that qubit, chosen by the
others, takes ``a |x> + b |y>`` to ``c |y>``. After m - 1 merges of m amplitudes one basis state is
left, and the circuit is what was done backwards. Phases are taken out by RZ before and after the
rotation, and a rotation that c qubits choose is written up to signs, ``2^c - 1`` CX, since signs
only change amplitudes that are known: at most ``n + 2^c - 2`` CX a merge, where c is mostly 0 to 3,
``log2 m`` at worst.

Source: Gleinig, Hoefler 2021, "An efficient algorithm for sparse quantum state preparation", DAC
2021, algorithms 1 and 2 (the choice of x, y and of the qubits).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.synthesize.state.cx_form import CxForm, Matrices, Op, assemble
from qcomp.passes.synthesize.state.multiplexed import rotation_choice, undo

__all__ = ["sparse_form"]

_X: Matrices = np.array([[0.0, 1.0], [1.0, 0.0]])


def sparse_form(vector: Matrices) -> CxForm:
    """Return a circuit of a state, exact; cheap where most amplitudes are exactly 0.

    Args:
        vector: float64[2^n] for RY and CX only, or complex128[2^n]; norm 1.
    """
    wires = len(vector).bit_length() - 1
    real = not np.iscomplexobj(vector)
    keys = np.flatnonzero(vector)
    values = vector[keys].copy()
    ops: list[Op] = []
    while len(keys) > 1:
        first, second, wire, controls = _pair(keys, wires)
        for other in range(wires):
            if other != wire and (keys[first] ^ keys[second]) >> other & 1:
                ops.append((wire, other, None))
                keys = np.where(keys >> wire & 1, keys ^ (1 << other), keys)
        keys, values = _merge(keys, values, first, second, wire, controls, ops)
    kind = np.float64 if real else np.complex128
    ops += [(q, -1, _X.astype(kind)) for q in range(wires) if keys[0] >> q & 1]
    return assemble(wires, undo(ops), real)


def _narrowed(
    keys: NDArray[np.int64], rows: NDArray[np.int64], wires: list[int], chosen: list[int]
) -> NDArray[np.int64]:
    """Return one of the rows; ``chosen`` gets the wires that tell it from the others.

    Each time by the wire that leaves fewest.
    """
    while len(rows) > 1:
        best = None
        for q in wires:
            bits = keys[rows] >> q & 1
            ones = int(bits.sum())
            if 0 < ones < len(rows):
                fewer = min(ones, len(rows) - ones)
                if best is None or fewer < best[0]:
                    best = fewer, q, 1 if ones <= len(rows) - ones else 0
        assert best is not None
        _, q, value = best
        chosen.append(q)
        rows = rows[(keys[rows] >> q & 1) == value]
    return rows


def _pair(keys: NDArray[np.int64], wires: int) -> tuple[int, int, int, list[int]]:
    """Return two rows to merge, a wire where they differ, and wires that tell them from the rest.

    The second row is 0 on the wire.
    """
    everything = np.arange(len(keys))
    chosen: list[int] = []
    first = int(_narrowed(keys, everything, list(range(wires)), chosen)[0])
    wire = chosen.pop()
    same = np.ones(len(keys), dtype=bool)
    for q in chosen:
        same &= (keys >> q & 1) == (keys[first] >> q & 1)
    same[first] = False
    others = [q for q in range(wires) if q not in chosen and q != wire]
    rest = np.flatnonzero(same)
    # All that agree so far differ from the first on the wire, so they differ among each other
    # elsewhere.
    second = int(_narrowed(keys, rest, others, chosen)[0])
    if keys[second] >> wire & 1:
        first, second = second, first
    return first, second, wire, chosen


def _merge(
    keys: NDArray[np.int64],
    values: Matrices,
    first: int,
    second: int,
    wire: int,
    controls: list[int],
    ops: list[Op],
) -> tuple[NDArray[np.int64], Matrices]:
    """Rotate the first basis state into the second, which differs from it on one wire only."""
    x, y = values[first], values[second]
    real = not np.iscomplexobj(values)
    turn = np.eye(2)
    if not real:
        half = 0.5 * (np.angle(x) - np.angle(y))
        turn = np.diag(np.exp(1j * half * np.array([1, -1])))
        ops.append((wire, -1, turn))
    angle = -2 * np.arctan2(abs(x), abs(y)) if not real else -2 * np.arctan2(x, y)
    pattern = sum((int(keys[second]) >> q & 1) << i for i, q in enumerate(controls))
    angles = np.zeros(1 << len(controls))
    angles[pattern] = angle
    gates, chosen, flips = rotation_choice(angles)
    for k, gate in enumerate(gates):
        ops.append((wire, -1, gate))
        if k < len(chosen):
            ops.append((controls[chosen[k]], wire, None))
    if not real:
        ops.append((wire, -1, turn.conj()))
    place = np.zeros_like(keys)
    for i, q in enumerate(controls):
        place |= (keys >> q & 1) << i
    # The gates are the rotation and then, where the choice says so, Z.
    values = np.where(flips[place] & (keys >> wire & 1 == 1), -values, values)
    size = np.hypot(abs(x), abs(y))
    values[second] = size if real else size * y / abs(y)
    keep = np.arange(len(keys)) != first
    return keys[keep], values[keep]
