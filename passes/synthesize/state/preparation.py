"""``prepare_state``: the circuit of a vector, by the method that takes the fewest CX gates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from qcomp.errors import UsageError, suggest
from qcomp.ir.arrays import MAX_QUBITS
from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.state.cx_form import Matrices
from qcomp.passes.synthesize.state.methods import (
    fitted,
    layered,
    multiplexed,
    schmidt_form,
    sparse,
)
from qcomp.simulate import statevector

__all__ = ["METHODS", "Attempt", "Preparation", "prepare_state"]

EXACT = 1e-9
"""Distance of states below which a circuit is exact, which is what fidelity 1 asks for."""

_REAL = 1e-14
_ROUNDING = 1e-12

Make = Callable[[Matrices, float], "Circuit | None"]

_BY_NAME: dict[str, Make] = {
    "multiplexed": multiplexed,
    "sparse": sparse,
    "mps": lambda vector, fidelity: layered(vector, fidelity, "chain"),
    "tree": lambda vector, fidelity: layered(vector, fidelity, "tree"),
    "schmidt": schmidt_form,
    "fitted": fitted,
}

METHODS = ("auto", *_BY_NAME)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a method came to.

    Attributes:
        method: Its name.
        two_qubit: CX gates; None where it does not reach the fidelity in the work it may take.
        fidelity: ``|<vector|circuit|0>|^2``, simulated; 0 without a circuit.
    """

    method: str
    two_qubit: int | None
    fidelity: float


@dataclass(frozen=True, slots=True)
class Preparation:
    """A circuit that makes a state of |0...0>.

    Attributes:
        circuit: CX and one-qubit gates; its global phase is that of the vector.
        fidelity: ``|<vector|circuit|0>|^2``, simulated.
        method: How it was made.
        tried: All methods that were tried, this one among them.
    """

    circuit: Circuit
    fidelity: float
    method: str
    tried: tuple[Attempt, ...]


def prepare_state(vector: ArrayLike, *, method: str = "auto", fidelity: float = 1.0) -> Preparation:
    """Return a circuit that takes |0...0> to a vector's state, global phase included.

    Qubit 0 is the lowest bit of an index. Real vectors (up to a phase) get RY and CX only by all
    methods but ``schmidt``. See the section "States" of ``docs/lowering.md``.

    Args:
        vector: complex128[2^n]; it is divided by its norm.
        method: One of ``METHODS``; ``auto`` takes the circuit of the fewest CX gates.
        fidelity: What ``|<vector|circuit|0>|^2`` has to be, in (0, 1]; 1 is exact: the
            states are within 1e-9.

    Raises:
        UsageError: If the vector is no state, the fidelity no such number, there is no such
            method, or the method does not reach the fidelity.
    """
    values = _checked(vector)
    if not 0 < fidelity <= 1:
        raise UsageError(
            f"a fidelity lies in (0, 1], not at {fidelity}",
            hint="1 is the exact state, 0.97 leaves 3 % of the probability to others",
        )
    if method not in METHODS:
        raise UsageError(f"there is no method '{method}'", hint=suggest(method, METHODS))
    phase = np.angle(values[np.abs(values).argmax()])
    turned = values * np.exp(-1j * phase)
    state: Matrices = turned.real.copy() if np.abs(turned.imag).max() < _REAL else turned
    state = state / np.linalg.norm(state)
    names = tuple(_BY_NAME) if method == "auto" else (method,)
    tried: list[Attempt] = []
    best: tuple[int, str, Circuit, float] | None = None
    for name in names:
        circuit = _BY_NAME[name](state, fidelity)
        if circuit is None:
            tried.append(Attempt(name, None, 0.0))
            continue
        found = statevector(circuit)
        overlap = complex(np.vdot(found, values))
        reached = min(abs(overlap) ** 2, 1.0)
        count = circuit.stats().two_qubit
        tried.append(Attempt(name, count, reached))
        away = float(np.linalg.norm(found * np.exp(1j * np.angle(overlap)) - values))
        enough = reached >= fidelity - _ROUNDING if fidelity < 1 else away <= EXACT
        if enough and (best is None or count < best[0]):
            circuit.gphase(float(np.angle(overlap)))
            best = count, name, circuit, reached
    if best is None:
        raise UsageError(
            f"method '{method}' does not reach fidelity {fidelity:g} on this state",
            why="it takes a structure that the state does not have, or more work than is spent",
            hint="method 'auto' always reaches it, and says what each method costs",
        )
    return Preparation(best[2], best[3], best[1], tuple(tried))


def _checked(vector: ArrayLike) -> Matrices:
    array = np.asarray(vector)
    if array.dtype.kind not in "biufc" or array.ndim != 1:
        raise UsageError(f"a state is a vector of numbers, not an array {array.dtype}{array.shape}")
    size = len(array)
    if size < 2 or size & (size - 1):
        raise UsageError(
            f"a state of qubits has 2^n amplitudes, this vector has {size}",
            hint="fill it with zeros, as qcomp.read does",
        )
    if size > 1 << MAX_QUBITS["State"]:
        raise UsageError(f"{size} amplitudes are too many: at most {MAX_QUBITS['State']} qubits")
    if not np.isfinite(array).all():
        at = int(np.flatnonzero(~np.isfinite(array))[0])
        raise UsageError(
            f"amplitude {at} of the vector is {array[at]}",
            hint="all amplitudes have to be finite numbers",
        )
    values = array.astype(np.complex128)
    largest = np.abs(values).max()
    if largest == 0:
        raise UsageError(
            "the vector is zero: no state has that direction", hint="give one that is not"
        )
    values = values / largest
    return values / np.linalg.norm(values)
