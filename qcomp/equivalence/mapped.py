"""Circuits that were mapped onto a machine, compared with their layouts undone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from qcomp.equivalence.channels import check_channels
from qcomp.equivalence.circuits import (
    BINDINGS,
    MATRIX_QUBITS,
    STATES,
    WORK,
    bindings,
    by_pauli_windows,
    check_bits,
    check_circuits,
    straight,
)
from qcomp.equivalence.pauli_form import AncillasDiffer, pauli_form_error
from qcomp.equivalence.verdict import TOLERANCE, Verdict
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import homeward, relabel
from qcomp.simulate import statevector
from qcomp.simulate.control_flow import final_measurements, is_unitary

__all__ = ["check_from_zero", "check_mapped"]

STATE_QUBITS = 24
"""Qubits, ancillas in use among them, up to which states are compared."""


def check_mapped(a: Circuit, b: Circuit, seed: int = 0, *, only_bits: bool = False) -> Verdict:
    """Compare two circuits of which one at least was mapped.

    ``P_final^-1 B P_initial = A (x) 1`` on the qubits of the circuit that was mapped, with the
    ancillas in |0>: virtual qubits go back to their own wires, wires that are idle are left out.
    Where ancillas are in use, the two need only agree while the ancillas are in |0>: beyond 12
    wires Pauli normal forms and windows of Pauli rotations without the ancillas decide, and up to
    24 the states made of random product states. Else the ladder of circuits.

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of bindings, states and inputs.
        only_bits: Compare the joint distribution of the classical bits alone.
    """
    sizes = [c.num_qubits if c.layout is None else c.layout.num_virtual for c in (a, b)]
    if sizes[0] != sizes[1] or a.num_clbits != b.num_clbits:
        how = (
            f"sizes: {sizes[0]} qubits and {a.num_clbits} bits against "
            f"{sizes[1]} and {b.num_clbits}, layouts undone"
        )
        return Verdict(False, how, float("inf"), rung="sizes")
    first, second = restored(a), restored(b)
    width = max(first.num_qubits, second.num_qubits)
    first, second = (relabel(c, range(c.num_qubits), width) for c in (first, second))
    seen = None
    if width > sizes[0]:
        if width > MATRIX_QUBITS:
            seen = _without_ancillas(first, second, sizes[0], seed)
            # Other unitaries may measure the same.
            if seen is not None and only_bits and not seen.equal:
                seen = None
        if seen is None:
            seen = _with_ancillas_at_zero(first, second, sizes[0], seed, only_bits)
    if seen is None or seen.equal is None:
        verdict = (check_bits if only_bits else check_circuits)(first, second, seed)
        if verdict.equal is not True and width > sizes[0]:
            verdict = _undecided(verdict) if seen is None else seen
    else:
        verdict = seen
    return replace(verdict, how=f"{verdict.how}, layouts undone")


def check_from_zero(a: Circuit, b: Circuit, seed: int = 0, *, only_bits: bool = False) -> Verdict:
    """Compare two circuits by what they do to |0...0>, layouts undone.

    Circuits of up to 14 qubits with measurements inside are followed branch by branch, others up to
    24 by the state that they make, parameters at random; what is wider by the unitary, which can
    only say yes.

    Args:
        a: The reference.
        b: The candidate.
        seed: Seed of bindings.
        only_bits: Compare the joint distribution of the classical bits alone.
    """
    first, second = restored(a), restored(b)
    sizes = [(c.num_qubits, c.num_clbits, set(c.params)) for c in (first, second)]
    if sizes[0] != sizes[1]:
        return check_circuits(first, second, seed)
    seen = _with_ancillas_at_zero(first, second, 0, seed, only_bits)
    if seen is not None and seen.equal is not None:
        return seen
    verdict = (check_bits if only_bits else check_circuits)(first, second, seed)
    return verdict if verdict.equal else _undecided(verdict)


def _undecided(verdict: Verdict) -> Verdict:
    """Return what is known of a circuit with ancillas that is too wide for states.

    That the unitaries differ does not say that they differ while the ancillas are in |0>.
    """
    how = f"not checked: {verdict.how} see other unitaries, but not that the ancillas are in |0>"
    return verdict if verdict.equal is None else Verdict(None, how, float("nan"))


def restored(circuit: Circuit) -> Circuit:
    """Return the circuit without its layout: virtual qubit v starts and ends on wire v.

    Swaps at the end bring qubits and ancillas home; measurements at the end follow them.
    """
    if circuit.layout is None:
        return circuit
    circuit, swaps = homeward(circuit)
    if not swaps:
        return circuit
    body, wires = final_measurements(circuit)
    at = list(range(circuit.num_qubits))
    circuit = circuit.copy(body=body)
    for here, there in swaps:
        circuit.swap(here, there)
        at[here], at[there] = at[there], at[here]
    for qubit, bit in wires:
        circuit.measure(at.index(qubit), bit)
    return circuit


def _with_ancillas_at_zero(
    a: Circuit, b: Circuit, inputs: int, seed: int, only_bits: bool
) -> Verdict | None:
    """Compare on states whose wires from ``inputs`` on are in |0>; None if that is too much."""
    rng = np.random.default_rng(seed)
    bodies = [final_measurements(c) for c in (a, b)]
    same_wires = set(bodies[0][1]) == set(bodies[1][1])
    if only_bits or not same_wires or not (is_unitary(a) and is_unitary(b)):
        verdict = check_channels(a, b, rng, only_bits=only_bits, inputs=inputs)
        return replace(verdict, rung="channels")
    a, b = (c.copy(body=body) for c, (body, _) in zip((a, b), bodies, strict=True))
    size = (len(a) + len(b)) << a.num_qubits
    count = min(STATES if inputs else BINDINGS if a.params else 1, WORK // max(size, 1))
    if a.num_qubits > STATE_QUBITS or count < 1:
        return None
    how = f"states made of {count} random product states, ancillas in |0>"
    if not inputs:
        how = "the state made of |0...0>" + (f" at {count} random bindings" if a.params else "")
    error = 0.0
    for _ in range(count):
        values = {name: float(rng.uniform(-np.pi, np.pi)) for name in a.params}
        start = Circuit(a.num_qubits)
        for q in range(inputs):
            turn = float(np.arccos(rng.uniform(-1, 1)))
            start.u(turn, float(rng.uniform(-np.pi, np.pi)), 0.0, q)
        try:
            first, second = (
                statevector(start.compose(_unmeasured(c).bind(values)), None)[0] for c in (a, b)
            )
        except UsageError as reason:
            return Verdict(None, f"not checked: {reason.what}", float("nan"))
        turn = np.vdot(second, first)
        error = max(error, float(np.abs(first - second * (turn / abs(turn or 1.0))).max()))
        if error > TOLERANCE:
            return Verdict(False, how, error, 0.0, {"parameters": values} if values else {})
    return Verdict(True, how, error, rung="states")


def _without_ancillas(a: Circuit, b: Circuit, inputs: int, seed: int) -> Verdict | None:
    """Compare what two circuits do to their inputs by Pauli rotations; None if that decides not.

    Args:
        a: The reference.
        b: The candidate.
        inputs: Wires from this one on are in |0>.
        seed: Seed of the bindings.
    """
    bodies = [final_measurements(c) for c in (a, b)]
    if set(bodies[0][1]) != set(bodies[1][1]) or not (is_unitary(a) and is_unitary(b)):
        return None
    first, second = (straight(body, c) for (body, _), c in zip(bodies, (a, b), strict=True))
    try:
        error = pauli_form_error(first, second, inputs)
        if error is not None and error <= TOLERANCE:
            how = "Pauli normal form, ancillas in |0>" + ("" if error else ", exact")
            return Verdict(True, how, error, rung="pauli-form")
        rows = bindings(first, np.random.default_rng(seed))
        return by_pauli_windows(first, second, rows, inputs)
    except AncillasDiffer:
        how = "Clifford behind all Pauli rotations: an ancilla does not end in |0>"
        return Verdict(False, how, float("inf"), rung="pauli-form")


def _unmeasured(circuit: Circuit) -> Circuit:
    """Return a circuit without classical bits, which no operation of it uses."""
    new = relabel(circuit, range(circuit.num_qubits), circuit.num_qubits)
    new.cregs, new.num_clbits = (), 0
    return new
