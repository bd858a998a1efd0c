"""Windows of Pauli rotations: they decide circuits of any width, both ways, and are never wrong."""

import math
from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.equivalence import check, pauli_windows
from qcomp.equivalence.circuits import check_circuits
from qcomp.equivalence.pauli_groups import Group, Turn
from qcomp.equivalence.pauli_remainders import quarter_turns, remainder
from qcomp.equivalence.pauli_windows import distance_by_pauli_windows
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import for_basis
from tests.generators import append_random
from tests.ir.dense import dense

POOL = ("h", "cx", "cx", "t", "s", "rz", "rx", "cz", "ry", "u", "swap", "sx", "rzz")


def random_circuit(qubits: int, size: int, rng: np.random.Generator) -> Circuit:
    circuit = Circuit(qubits)
    for _ in range(size):
        append_random(circuit, rng, POOL)
    return circuit.bind({name: 0.3 for name in circuit.params})


def euler(circuit: Circuit, x: float, z: float, last: float, q: int) -> Circuit:
    """Put rx(x), rz(z), rx(last) in as rotations about z, x and z."""
    matrix = dense(Circuit(1).rx(x, 0).rz(z, 0).rx(last, 0))
    middle = 2 * math.atan2(abs(matrix[1, 0]), abs(matrix[0, 0]))
    total = 2 * np.angle(matrix[1, 1] / abs(matrix[1, 1]) * np.exp(-0.5j * _phase(matrix)))
    between = 2 * np.angle(matrix[1, 0] / abs(matrix[1, 0]) * np.exp(-0.5j * _phase(matrix)) * 1j)
    return circuit.rz((total - between) / 2, q).rx(middle, q).rz((total + between) / 2, q)


def _phase(matrix: np.ndarray) -> float:
    return float(np.angle(np.linalg.det(matrix)))


def wide(qubits: int, *, rewritten: bool) -> Circuit:
    """Ladders of one-qubit runs and parities, the runs about two axes or about three."""
    rng = np.random.default_rng(5)
    circuit = Circuit(qubits)
    for _ in range(3):
        for q in range(qubits):
            x, z, last = rng.uniform(0.3, 1.2, 3).tolist()
            if rewritten:
                euler(circuit, x, z, last, q)
            else:
                circuit.rx(x, q).rz(z, q).rx(last, q)
        for q in range(qubits - 1):
            circuit.cx(q, q + 1)
            if not rewritten:
                circuit.rz(0.1 * (q + 1), q + 1)
        if rewritten:
            for q in range(qubits - 1):
                circuit.rz(0.1 * (q + 1), q + 1)
    return circuit


@pytest.mark.parametrize("seed", range(30))
def test_the_distance_is_that_of_the_matrices(seed: int) -> None:
    rng = np.random.default_rng(seed)
    qubits = int(rng.integers(1, 5))
    first = random_circuit(qubits, 14, rng)
    second = first if seed % 3 == 0 else random_circuit(qubits, 14, rng)
    if seed % 3 == 1:
        second = first.copy().rz(10.0 ** -float(rng.integers(1, 7)), 0)
    distance = distance_by_pauli_windows(first, second)
    assert distance is not None
    product = dense(second).conj().T @ dense(first)
    turns = np.exp(1j * np.linspace(0, 2 * np.pi, 2000))
    turns = np.append(turns, np.trace(product) / max(abs(np.trace(product)), 1e-12))
    exact = min(np.linalg.norm(product - turn * np.eye(2**qubits), 2) for turn in turns)
    assert distance.least <= exact + 1e-9
    assert exact <= distance.most + 1e-9


@pytest.mark.parametrize("qubits", [3, 16, 20])
def test_wide_circuits_with_other_euler_angles_are_equal(qubits: int) -> None:
    first, second = wide(qubits, rewritten=False), wide(qubits, rewritten=True)
    verdict = check(first, second)
    assert verdict.equal is True
    distance = distance_by_pauli_windows(first, second)
    assert distance is not None
    assert distance.most < 1e-10


def test_cliffords_written_as_rotations_of_the_other_circuit_are_equal() -> None:
    # What is one quarter turn here, about an axis of its own, is two eighths there.
    first = Circuit(40).rx(0.4, 7).rz(0.9, 7).rx(-0.4, 7).cx(7, 9).t(9).h(9).t(9)
    second = first.copy()
    for angle in (math.pi / 4, math.pi / 4):
        second.rx(0.3, 3).rz(angle, 3).rx(-0.3, 3)
    first.rx(0.3, 3).s(3).rx(-0.3, 3)
    distance = distance_by_pauli_windows(first, second)
    assert distance is not None
    assert distance.most < 1e-12


def test_windows_alone_catch_200_mutants(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, right = wide(3, rewritten=False), wide(3, rewritten=True)
    # No matrix of more than two qubits: windows have to do the work.
    monkeypatch.setattr(pauli_windows, "ENTRIES", 16)
    monkeypatch.setattr(pauli_windows, "TRIES", (100, 0))
    distance = distance_by_pauli_windows(reference, right)
    assert distance is not None
    assert distance.most < 1e-10
    rng = np.random.default_rng(1)
    different = 0
    for _ in range(200):
        keep = np.ones(len(right), dtype=bool)
        keep[int(rng.integers(len(right)))] = False
        mutant = right.copy(body=(right.run.select(keep),))
        distance = distance_by_pauli_windows(reference, mutant)
        assert distance is None or distance.most > 1e-3
        different += distance is not None and distance.least > 1e-3
    assert different >= 20


@pytest.mark.parametrize("seed", range(40))
def test_every_step_leaves_the_same_question(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What windows, mirrors and peeling make of a pair is equal just where the pair was."""
    rng = np.random.default_rng(seed)
    qubits = int(rng.integers(1, 5))
    first = random_circuit(qubits, 20, rng)
    text = "consolidate-two-qubit{basis=rz-sx-x},fuse-one-qubit{basis=rz-sx-x}"
    second = qcomp.optimize(first, pipeline=text if seed % 2 else text.replace("rz-sx-x", "h-x-rz"))
    asked = []

    def ask(pair: pauli_windows._Pair) -> None:
        quarters = quarter_turns(pair.rows, pair.goals, 1000)
        assert quarters is not None
        product = multiplied([*pair.second, *quarters], qubits).conj().T
        product = product @ multiplied(pair.first, qubits)
        asked.append(abs(np.trace(product)) / 2**qubits)

    for name in ("_peel", "_mirror", "_taken"):
        step = getattr(pauli_windows._Pair, name)

        def asking(pair, *args, step=step):
            answer = step(pair, *args)
            ask(pair)
            return answer

        monkeypatch.setattr(pauli_windows._Pair, name, asking)
    monkeypatch.setattr(pauli_windows, "ENTRIES", 0)
    distance = distance_by_pauli_windows(first, second)
    assert asked == pytest.approx([1.0] * len(asked), abs=1e-9)
    assert distance is None or distance.most < 1e-9


def multiplied(turns: list[Turn], qubits: int) -> np.ndarray:
    size = 1 << qubits
    out = np.eye(size, dtype=complex)
    column = np.arange(size)
    for turn in turns:
        pauli = np.zeros((size, size), dtype=complex)
        pauli[column ^ turn.x, column] = (-1.0) ** np.bitwise_count(column & turn.z)
        pauli *= 1j ** (turn.x & turn.z).bit_count()
        half = turn.angle / 2
        out = (np.cos(half) * np.eye(size) - 1j * np.sin(half) * pauli) @ out
    return out


def test_a_clifford_and_three_rotations_are_what_a_window_may_leave() -> None:
    rng = np.random.default_rng(2)
    group = Group.of([Turn(1, 0, 0), Turn(0, 1, 0), Turn(2, 2, 0)])
    clifford = [Turn(1, 0, math.pi / 2), Turn(3, 2, math.pi / 2), Turn(1, 1, -math.pi / 2)]
    few = [Turn(1, 0, 0.3), Turn(1, 1, 0.7), Turn(0, 1, 1.9)]
    found = remainder(group, clifford, loose=False)
    assert found is not None
    assert not found[1]
    assert group.apart(found[0], clifford)[0] < 1e-12
    for size in (1, 3):
        turns = [*few[:size], *clifford]
        assert remainder(group, turns, loose=False) is None
        found = remainder(group, turns, loose=True)
        assert found is not None
        assert len(found[1]) == size
        assert group.apart([*found[1], *found[0]], turns)[0] < 1e-12
    many = [Turn(*rng.integers(0, 4, 2).tolist(), 0.1 + i / 7) for i in range(12)]
    assert remainder(Group.of(many), many, loose=True) is None


def test_no_is_said_with_the_parameters_where_they_differ() -> None:
    first = Circuit(40, params=("a",)).rx(Parameter("a"), 0).cx(0, 1).rz(0.3, 1)
    verdict = check_circuits(first, first.copy().rx(0.1, 9), qcec_seconds=0)
    assert verdict.equal is False
    assert verdict.rung == "pauli-windows"
    assert set(verdict.detail["parameters"]) == {"a"}


def test_what_is_too_large_is_left_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    first = wide(4, rewritten=False)
    monkeypatch.setattr(pauli_windows, "ENTRIES", 4)
    other = Circuit(4).h(0).t(0).cx(0, 2).compose(first)
    assert distance_by_pauli_windows(first, other) is None
    monkeypatch.setattr(pauli_windows, "ROTATIONS", 4)
    assert distance_by_pauli_windows(first, first) is None


@pytest.mark.parametrize(
    ("name", "gates", "one_qubit"),
    [
        ("nam_Adder16", ("h", "x", "rz", "cx"), "h-x-rz"),
        ("qaoa_barabasi_albert_N100_3reps", ("rz", "sx", "x", "cx"), "rz-sx-x"),
        ("dnn_n33", ("rz", "sx", "x", "cx"), "rz-sx-x"),
    ],
)
def test_wide_outputs_of_the_default_effort_are_decided(
    shared: Path, name: str, gates: tuple[str, ...], one_qubit: str
) -> None:
    source = Circuit.from_qasm((shared / "bench" / "circuits" / f"{name}.qasm").read_text())
    taken = [G.MEASURE, G.BARRIER]
    source = source.map_runs(lambda run: run.select(~np.isin(run.code, taken)))
    program = Program.of_circuit(source)
    Pipeline.parse(for_basis(gates, one_qubit)).run(program, Context())
    assert check_circuits(source, program.only_circuit, qcec_seconds=0).equal is True
