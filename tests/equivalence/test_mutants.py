"""Every checker catches a circuit with a single wrong gate, 200 times out of 200."""

from collections.abc import Callable

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.equivalence.circuits import _by_matrix, _by_states
from qcomp.equivalence.pauli_form import same_pauli_form
from qcomp.equivalence.pauli_windows import distance_by_pauli_windows
from qcomp.equivalence.qcec import ask_qcec, qcec_installed
from qcomp.equivalence.verdict import TOLERANCE
from qcomp.equivalence.windows import same_by_windows
from qcomp.ir.angle import Angle, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME, gate
from tests.ir.dense import dense

MUTANTS = 200
QUBITS = 4

Operation = tuple[str, tuple[int, ...], tuple[Angle, ...]]
POOL = ("h", "t", "tdg", "s", "x", "cx", "cx", "cx", "rz", "rx", "cz")


def reference() -> list[Operation]:
    rng = np.random.default_rng(11)
    out: list[Operation] = []
    for _ in range(32):
        row = gate(str(rng.choice(POOL)))
        qubits = tuple(rng.permutation(QUBITS)[: row.num_qubits].tolist())
        angles = tuple(Angle.of(float(rng.uniform(0.2, 1.2))) for _ in range(row.num_angles))
        out.append((row.name, qubits, angles))
    return out


def made(operations: list[Operation]) -> Circuit:
    circuit = Circuit(QUBITS)
    for name, qubits, angles in operations:
        circuit.append(name, qubits, angles)
    return circuit


def rewritten(operations: list[Operation]) -> list[Operation]:
    """The same circuit in other words: named rotations written out, pairs that cancel put in."""
    turns = {"t": 1, "tdg": -1, "s": 2}
    out: list[Operation] = []
    for i, (name, qubits, angles) in enumerate(operations):
        if name in turns:
            out.append(("rz", qubits, (pi_fraction(turns[name], 4),)))
        else:
            out.append((name, qubits, angles))
        if i % 5 == 0:
            a, b = i % QUBITS, (i + 1) % QUBITS
            out += [("cx", (a, b), ()), ("t", (a,), ()), ("cx", (a, b), ()), ("tdg", (a,), ())]
    return out


def differs(a: Operation, b: Operation) -> bool:
    """Whether two operations on the same qubits are different matrices, whatever the phase."""
    first = gate(a[0]).matrix(*map(float, a[2]))
    second = gate(b[0]).matrix(*map(float, b[2]))
    return abs(abs(np.trace(first.conj().T @ second)) - len(first)) > 1e-9


def mutant(
    operations: list[Operation], rng: np.random.Generator, num_qubits: int = QUBITS
) -> list[Operation]:
    """Drop, add or change one gate; what comes out is never the same unitary."""
    out = list(operations)
    at = int(rng.integers(len(out)))
    name, qubits, angles = out[at]
    kind = int(rng.integers(4))
    if kind == 0:
        del out[at]
    elif kind == 1:
        row = gate(str(rng.choice(("h", "t", "x", "z", "cx", "cz", "s"))))
        out.insert(
            at, (row.name, tuple(rng.permutation(num_qubits)[: row.num_qubits].tolist()), ())
        )
    elif kind == 2 and angles:
        turn = float(rng.choice([-1, 1]) * 10.0 ** rng.uniform(-3, 0))
        out[at] = (name, qubits, (angles[0] + turn, *angles[1:]))
    elif kind == 2 and name == "cx":
        out[at] = (name, qubits[::-1], ())
    else:
        names = [row for row in ("h", "t", "tdg", "s", "x", "z", "cx", "cz", "swap")
                 if BY_NAME[row].num_qubits == len(qubits)]  # fmt: skip
        others: list[Operation] = [(other, qubits, ()) for other in names]
        others = [other for other in others if differs(other, out[at])]
        out[at] = others[int(rng.integers(len(others)))]
    return out


def by_matrix(a: Circuit, b: Circuit) -> bool:
    return _by_matrix(a, b, [{}]).equal is True


def by_states(a: Circuit, b: Circuit) -> bool:
    return _by_states(a, b, [{}], 8, np.random.default_rng(3)).equal is True


def by_windows(a: Circuit, b: Circuit) -> bool:
    error = same_by_windows(a, b)
    return error is not None and error < TOLERANCE


def by_pauli_windows(a: Circuit, b: Circuit) -> bool:
    distance = distance_by_pauli_windows(a, b)
    return distance is not None and distance.most < TOLERANCE


def by_qcec(a: Circuit, b: Circuit) -> bool:
    if not qcec_installed():
        pytest.skip("the extra 'verify' is not installed: no mqt.qcec to test")
    return ask_qcec(a, b, seconds=20.0) is True


CHECKERS: dict[str, Callable[[Circuit, Circuit], bool]] = {
    "matrix": by_matrix,
    "states": by_states,
    "pauli-form": same_pauli_form,
    "windows": by_windows,
    "pauli-windows": by_pauli_windows,
    "qcec": by_qcec,
}


@pytest.mark.parametrize("name", CHECKERS)
def test_checker_knows_the_rewritten_circuit_and_none_of_its_mutants(name: str) -> None:
    checker = CHECKERS[name]
    first = made(reference())
    other = rewritten(reference())
    assert checker(first, made(other))
    rng = np.random.default_rng(2026)
    missed = [k for k in range(MUTANTS) if checker(first, made(mutant(other, rng)))]
    assert not missed


def test_mutants_are_all_kinds() -> None:
    operations = rewritten(reference())
    rng = np.random.default_rng(2026)
    lengths = {len(mutant(operations, rng)) - len(operations) for _ in range(MUTANTS)}
    assert lengths == {-1, 0, 1}


@pytest.mark.parametrize("name", CHECKERS)
def test_checker_sees_a_qubit_that_only_one_circuit_touches(name: str) -> None:
    first = Circuit(3).h(0).cx(0, 1)
    assert CHECKERS[name](first, Circuit(3).h(0).z(1).z(1).cx(0, 1))
    for wrong in (Circuit(3).h(0).cx(0, 1).z(2), Circuit(3).h(0).cx(0, 1).swap(1, 2)):
        assert not CHECKERS[name](first, wrong)


def test_what_is_done_to_zeros_is_judged_right_for_200_mutants_of_which_some_do_the_same() -> None:
    first, other = made(reference()), rewritten(reference())
    assert check(first, made(other), from_zero=True).equal is True
    rng = np.random.default_rng(2026)
    state = dense(first)[:, 0]
    alike = 0
    for _ in range(MUTANTS):
        candidate = made(mutant(other, rng))
        same = bool(abs(abs(np.vdot(state, dense(candidate)[:, 0])) - 1) < 1e-9)
        assert check(first, candidate, from_zero=True).equal is same
        alike += same
    assert MUTANTS // 4 < alike < 3 * MUTANTS // 4
