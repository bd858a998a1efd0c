"""The ladder of methods by which two circuits are compared."""

from __future__ import annotations

from dataclasses import replace
from math import pi

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.channels import check_channels
from qcomp.equivalence.pauli_form import pauli_form_error
from qcomp.equivalence.pauli_windows import distance_by_pauli_windows
from qcomp.equivalence.qcec import ask_qcec, qcec_installed
from qcomp.equivalence.verdict import TOLERANCE, Verdict
from qcomp.equivalence.windows import same_by_windows
from qcomp.ir.blocks import Block
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.simulate import statevector, unitary
from qcomp.simulate.control_flow import final_measurements, is_unitary

__all__ = ["check_bits", "check_circuits"]

MATRIX_QUBITS = 12
"""Qubits up to which whole unitaries are compared."""

STATE_QUBITS = 24
"""Qubits up to which states are compared."""

BINDINGS = 3
"""Random bindings of the parameters at which symbolic circuits are compared."""

STATES = 8
"""Random product states on which circuits are compared, fewer where they are large."""

WORK = 1 << 34
"""Amplitude updates that one comparison may take, both circuits together."""

DIFFERENT = 1e-7
"""Distance in operator norm from which on windows of Pauli rotations say no."""

QCEC_SECONDS = 60.0
"""Wall seconds that MQT QCEC may take where it is installed and nothing else decided."""

Vector = NDArray[np.float64]


def check_circuits(
    a: Circuit, b: Circuit, seed: int = 0, *, work: int = WORK, qcec_seconds: float = QCEC_SECONDS
) -> Verdict:
    """Compare two circuits, up to global phase, down a ladder that stops where it decides.

    1. The same circuit, entry by entry.
    2. Up to 12 qubits the whole unitary, at three random bindings where there are parameters.
    3. The Pauli normal form: of any size, exact where angles are, but it can only say yes.
    4. Two-qubit windows: a bound in operator norm for any size, but it can only say yes.
    5. Windows of Pauli rotations: a bound in operator norm for any size, or that they differ.
    6. Up to 24 qubits the states that both make of the same random product states.
    7. MQT QCEC, where it is installed and there are no parameters.

    Equal measurements at the end of both are taken off first. Circuits that measure before their
    end, reset, or have control flow are compared by what they do to random product states, outcome
    by outcome (:func:`~qcomp.equivalence.channels.check_channels`).

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of bindings and states.
        work: Amplitude updates that simulation may take, both circuits together.
        qcec_seconds: Wall seconds that MQT QCEC may take; 0 leaves it out.
    """
    verdict = _at_sight(a, b)
    if verdict is not None:
        return verdict
    rng = np.random.default_rng(seed)
    bodies = [_unitary_part(circuit) for circuit in (a, b)]
    if bodies[0] is None or bodies[1] is None or bodies[0][1] != bodies[1][1]:
        return replace(check_channels(a, b, rng), rung="channels")
    first, second = bodies[0][0], bodies[1][0]
    size = len(first) + len(second)
    rows = bindings(first, rng)
    if a.num_qubits <= MATRIX_QUBITS and (size << 2 * a.num_qubits) * len(rows) <= work:
        return _by_matrix(first, second, rows)
    error = pauli_form_error(first, second)
    if error is not None and error <= TOLERANCE:
        how = "Pauli normal form" + ("" if error else ", exact")
        return Verdict(True, how, error, rung="pauli-form")
    error = _window_error(first, second, rows)
    if error is not None and error <= TOLERANCE:
        how = f"two-qubit windows that cancel one by one{_where(rows)}"
        return Verdict(True, how, error, rung="windows")
    verdict = by_pauli_windows(first, second, rows)
    if verdict is not None:
        return verdict
    count = min(STATES, work // max(size << a.num_qubits, 1))
    if a.num_qubits <= STATE_QUBITS and count >= 1:
        return _by_states(first, second, rows, count, rng)
    if qcec_seconds > 0 and not first.params and qcec_installed():
        answer = ask_qcec(first, second, qcec_seconds, seed)
        if answer is not None:
            return Verdict(answer, "MQT QCEC", float("nan"), rung="qcec")
    return Verdict(
        None,
        f"not checked: {a.num_qubits} qubits and {size} operations are too many to simulate, "
        "and what could show it without, Pauli normal forms and windows, did not",
        float("nan"),
    )


def check_bits(a: Circuit, b: Circuit, seed: int = 0) -> Verdict:
    """Compare two circuits by the joint distribution of their classical bits, and nothing else.

    Every branch is followed, from random product states, parameters at random; the states that the
    circuits leave behind may differ. Larger circuits that measure at their end alone are compared
    by the distributions of what they measure, from random product states; circuits that measure
    nothing as :func:`check_circuits` does.

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of bindings and states.
    """
    verdict = _at_sight(a, b)
    if verdict is not None:
        return verdict
    if not any((run.code == G.MEASURE).any() for circuit in (a, b) for run in circuit.runs()):
        return check_circuits(a, b, seed)
    rng = np.random.default_rng(seed)
    verdict = check_channels(a, b, rng, only_bits=True)
    if verdict.equal is None:
        wide = _by_distributions(a, b, rng)
        verdict = verdict if wide is None else wide
    return replace(verdict, rung="bits")


def _by_distributions(a: Circuit, b: Circuit, rng: np.random.Generator) -> Verdict | None:
    """Compare what two circuits measure at their end; None where they are too large, or branch."""
    bodies = [_unitary_part(circuit) for circuit in (a, b)]
    if bodies[0] is None or bodies[1] is None or bodies[0][1] != bodies[1][1]:
        return None
    (first, wires), (second, _) = bodies[0], bodies[1]
    count = min(STATES, WORK // max((len(first) + len(second)) << a.num_qubits, 1))
    if a.num_qubits > STATE_QUBITS or count < 1:
        return None
    rows = bindings(first, rng)
    how = f"distributions of what is measured, from {count} random product states{_where(rows)}"
    rest = sorted(set(range(a.num_qubits)) - {qubit for qubit, _ in wires})
    axes = tuple(a.num_qubits - 1 - qubit for qubit in rest)
    error = 0.0
    for i in range(count):
        values = rows[i % len(rows)]
        before = random_product(a, rng)
        tables = []
        for whole in (before.compose(first), before.compose(second)):
            state = statevector(whole, _row(whole, values))[0]
            weight = (state.real**2 + state.imag**2).reshape((2,) * a.num_qubits)
            tables.append(weight.sum(axis=axes))
        error = max(error, float(np.abs(tables[0] - tables[1]).max()))
        if error > TOLERANCE:
            return _differ(how, error, 0.0, values, "bits")
    return Verdict(True, how, error)


def _at_sight(a: Circuit, b: Circuit) -> Verdict | None:
    """Return the verdict that needs no computing: other sizes, or the same circuit."""
    if (a.num_qubits, a.num_clbits) != (b.num_qubits, b.num_clbits):
        return Verdict(
            False,
            f"sizes: {a.num_qubits} qubits and {a.num_clbits} bits against "
            f"{b.num_qubits} and {b.num_clbits}",
            float("inf"),
            rung="sizes",
        )
    if set(a.params) != set(b.params):
        only = sorted(set(a.params) ^ set(b.params))
        how = f"parameters: only one has {', '.join(only[:8])}"
        return Verdict(False, how, float("inf"), rung="sizes")
    if a.equals(b):
        return Verdict(True, "the same circuit, gate by gate", 0.0, rung="same")
    return None


def _window_error(a: Circuit, b: Circuit, rows: list[dict[str, float]]) -> float | None:
    """Return the largest distance that windows find at the bindings, None if they find none."""
    largest = 0.0
    for values in rows:
        error = same_by_windows(a.bind(values), b.bind(values)) if values else same_by_windows(a, b)
        if error is None:
            return None
        largest = max(largest, error)
    return largest


def by_pauli_windows(
    a: Circuit, b: Circuit, rows: list[dict[str, float]], inputs: int | None = None
) -> Verdict | None:
    """Compare by windows of Pauli rotations at the bindings, None where they do not decide.

    Args:
        a: The reference, unitary.
        b: The candidate.
        rows: Bindings of the parameters.
        inputs: Qubits from this one on are ancillas in |0>.
    """
    zero = "" if inputs is None else ", ancillas in |0>"
    how = f"windows of Pauli rotations{zero}{_where(rows)}"
    largest = 0.0
    for values in rows:
        distance = distance_by_pauli_windows(a.bind(values), b.bind(values), inputs)
        if distance is None:
            return None
        if distance.least > DIFFERENT:
            return _differ(how, distance.most, 0.0, values, "pauli-windows")
        largest = max(largest, distance.most)
    if largest > TOLERANCE:
        return None
    return Verdict(True, how, largest, rung="pauli-windows")


def _unitary_part(circuit: Circuit) -> tuple[Circuit, frozenset[tuple[int, int]]] | None:
    """Return a circuit without its final measurements, and those; None if it is not unitary."""
    if not is_unitary(circuit):
        return None
    body, wires = final_measurements(circuit)
    return straight(body, circuit), frozenset(wires)


def straight(body: Block, circuit: Circuit) -> Circuit:
    """Return a circuit with the unitary operations of a body alone, in one run."""
    runs: list[Run] = []
    _collect(body, runs)
    kept = [run.select(run.code != G.BARRIER) for run in runs]
    return circuit.copy(body=(Run.concat(kept),))


def _collect(body: tuple[object, ...], into: list[Run]) -> None:
    for item in body:
        if isinstance(item, Run):
            into.append(item)
        else:
            _collect(getattr(item, "body", ()), into)


def bindings(circuit: Circuit, rng: np.random.Generator) -> list[dict[str, float]]:
    """Return random values of the parameters, one empty binding where there are none."""
    if not circuit.params:
        return [{}]
    return [{name: float(rng.uniform(-pi, pi)) for name in circuit.params} for _ in range(BINDINGS)]


def _row(circuit: Circuit, values: dict[str, float]) -> Vector:
    return np.array([[values[name] for name in circuit.params]])


def _where(rows: list[dict[str, float]]) -> str:
    return f" at {len(rows)} random bindings of the parameters" if rows[0] else ""


def _by_matrix(a: Circuit, b: Circuit, rows: list[dict[str, float]]) -> Verdict:
    how = f"the whole {1 << a.num_qubits} x {1 << a.num_qubits} matrix{_where(rows)}"
    error, phases = 0.0, []
    for values in rows:
        first, second = unitary(a, _row(a, values)), unitary(b, _row(b, values))
        difference, phase = _difference(first.ravel(), second.ravel())
        error = max(error, difference)
        phases.append(phase)
        if difference > TOLERANCE:
            return _differ(how, error, phase, values, "matrix")
    return _with_phase(Verdict(True, how, error, rung="matrix"), phases)


def _by_states(
    a: Circuit, b: Circuit, rows: list[dict[str, float]], count: int, rng: np.random.Generator
) -> Verdict:
    how = f"states made of {count} random product states{_where(rows)}"
    error, phases = 0.0, []
    for i in range(count):
        values = rows[i % len(rows)]
        before = random_product(a, rng)
        first, second = (
            statevector(whole, _row(whole, values))[0]
            for whole in (before.compose(a), before.compose(b))
        )
        difference, phase = _difference(first, second)
        error = max(error, difference)
        phases.append(phase)
        if difference > TOLERANCE:
            return _differ(how, error, phase, values, "states")
    return _with_phase(Verdict(True, how, error, rung="states"), phases)


def _differ(how: str, error: float, phase: float, values: dict[str, float], rung: str) -> Verdict:
    return Verdict(False, how, error, phase, {"parameters": values} if values else {}, rung)


def _with_phase(verdict: Verdict, phases: list[float]) -> Verdict:
    """Add the phase; say so where it is not the same for all bindings or states."""
    turns = np.exp(1j * np.array(phases))
    if np.abs(turns - turns[0]).max() > TOLERANCE:
        return replace(verdict, how=verdict.how + ", up to a phase that depends on the parameters")
    return replace(verdict, phase=phases[0])


def random_product(circuit: Circuit, rng: np.random.Generator) -> Circuit:
    """Return a circuit with the same wires and parameters that prepares a random product state."""
    out = Circuit(circuit.num_qubits, circuit.num_clbits, circuit.params)
    for q in range(circuit.num_qubits):
        theta, phi = float(np.arccos(rng.uniform(-1, 1))), float(rng.uniform(-pi, pi))
        out.u(theta, phi, 0.0, q)
    return out


def _difference(
    first: NDArray[np.complex128], second: NDArray[np.complex128]
) -> tuple[float, float]:
    """Return (largest difference after the best phase, that phase of the second over the first)."""
    phase = float(np.angle(np.vdot(first, second)))
    return float(np.abs(first * np.exp(1j * phase) - second).max()), phase
