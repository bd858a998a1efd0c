"""resynthesize-pauli-rotations: Pauli ladders written with fewer CX, phases and all."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.equivalence.pauli_form import same_pauli_form
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import NUM_QUBITS, G
from qcomp.ir.program import Program
from qcomp.passes.reduce import leaves
from qcomp.passes.synthesize import clifford_phase as follow
from qcomp.passes.synthesize.pauli_rotations import ResynthesizePauliRotations
from qcomp.passmanager import Context, Pipeline
from tests.generators import CLIFFORD_T, append_random
from tests.ir.dense import dense

PAULI_GATES = (
    *("rz", "rx", "ry", "p", "t", "tdg", "s", "sx", "x", "y", "z", "h"),
    *("rxx", "ryy", "rzz", "rzx", "cx", "cx", "cx", "cz", "swap"),
)
POOLS = (PAULI_GATES, CLIFFORD_T, ("cx", "cx", "rz", "h", "sx"), None)


def resynthesized(
    circuit: Circuit, two_qubit: float = 4.0, tries: int = 2, window: int = 4096
) -> Circuit:
    instance = ResynthesizePauliRotations(two_qubit=two_qubit, tries=tries, window=window)
    return instance.run(circuit, Context())


def random_circuit(
    seed: int, pool: tuple[str, ...] | None, size: int, num_qubits: int = 4
) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits, params=("a", "b"))
    for _ in range(size):
        append_random(circuit, rng, pool)
    return circuit


def two_qubit(circuit: Circuit) -> int:
    code = circuit.run.code
    return int((NUM_QUBITS[code] == 2).sum() + 2 * (code == G.SWAP).sum())


def ladder(circuit: Circuit, word: str, qubits: list[int], angle: float) -> None:
    """A Pauli rotation as it is usually written: bases, a CX ladder, rz, and all of it back."""
    turned = [q for q, letter in zip(qubits, word, strict=True) if letter != "Z"]
    for q, letter in zip(qubits, word, strict=True):
        if letter == "Y":
            circuit.sdg(q)
    for q in turned:
        circuit.h(q)
    for a, b in itertools.pairwise(qubits):
        circuit.cx(a, b)
    circuit.rz(angle, qubits[-1])
    for a, b in reversed(list(itertools.pairwise(qubits))):
        circuit.cx(a, b)
    for q in turned:
        circuit.h(q)
    for q, letter in zip(qubits, word, strict=True):
        if letter == "Y":
            circuit.s(q)


def ladders(seed: int, count: int, num_qubits: int, weight: int = 4) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits)
    for _ in range(count):
        qubits = np.sort(rng.permutation(num_qubits)[:weight]).tolist()
        word = "".join(rng.choice(list("XYZ"), size=weight))
        ladder(circuit, word, qubits, float(rng.normal()))
    return circuit


@pytest.mark.parametrize("seed", range(80))
def test_unitary_is_kept_with_its_phase_for_any_symbol(seed: int) -> None:
    circuit = random_circuit(seed, POOLS[seed % len(POOLS)], 60, 2 + seed % 3)
    # A high price makes most circuits worth rewriting.
    result = resynthesized(circuit, two_qubit=1000.0, tries=4)
    values = {"a": 0.7, "b": -1.9}
    assert np.abs(dense(circuit, **values) - dense(result, **values)).max() < 1e-9
    assert two_qubit(result) <= two_qubit(circuit)
    assert resynthesized(result, two_qubit=1000.0, tries=4) is result


def test_most_of_these_circuits_were_rewritten() -> None:
    changed = 0
    for seed in range(80):
        circuit = random_circuit(seed, POOLS[seed % len(POOLS)], 60, 2 + seed % 3)
        changed += resynthesized(circuit, two_qubit=1000.0) is not circuit
    assert changed > 40


@pytest.mark.parametrize("seed", range(3))
def test_ladders_lose_a_third_of_their_cx_and_gates(seed: int) -> None:
    circuit = ladders(seed, 30, 6)
    result = resynthesized(circuit)
    assert two_qubit(result) < 2 / 3 * two_qubit(circuit)
    assert len(result) < 2 / 3 * len(circuit)
    assert np.abs(dense(circuit) - dense(result)).max() < 1e-9


def test_more_rotations_than_slots_and_rows_of_two_words() -> None:
    # 40 wires have 80 rows, and 200 rotations do not wait all at once.
    circuit = ladders(5, 200, 40)
    result = resynthesized(circuit)
    assert two_qubit(result) < two_qubit(circuit)
    assert same_pauli_form(circuit, result)


@pytest.mark.parametrize("window", [4096, 100])
def test_wide_circuits_are_rewritten_in_segments(window: int) -> None:
    circuit = ladders(7, 60, 70)
    result = resynthesized(circuit, window=window)
    assert two_qubit(result) < two_qubit(circuit)
    assert same_pauli_form(circuit, result)


def test_rotations_about_commuting_words_of_a_double_excitation_share_their_cx() -> None:
    circuit = Circuit(4)
    for i, word in enumerate(("XXXY", "XXYX", "XYXX", "YXXX", "YYYX", "YYXY", "YXYY", "XYYY")):
        ladder(circuit, word, [0, 1, 2, 3], 0.25 if i % 2 else -0.25)
    assert two_qubit(circuit) == 48
    result = resynthesized(circuit)
    assert two_qubit(result) <= 16
    assert np.abs(dense(circuit) - dense(result)).max() < 1e-9


def test_symbols_are_carried_with_their_sign() -> None:
    a = Parameter("a")
    circuit = Circuit(3, params=("a",)).x(0)
    for _ in range(2):
        circuit.cx(0, 1).cx(1, 2).rz(a, 2).cx(1, 2).cx(0, 1).h(0)
    result = resynthesized(circuit)
    assert two_qubit(result) < two_qubit(circuit)
    for value in (0.3, -2.0):
        assert np.abs(dense(circuit, a=value) - dense(result, a=value)).max() < 1e-9


@pytest.mark.parametrize("seed", range(4))
def test_compiled_and_plain_kernels_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = random_circuit(seed, POOLS[seed], 200, 5)
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 1 << 60)
    plain = resynthesized(circuit, two_qubit=1000.0, tries=4)
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    compiled = resynthesized(circuit, two_qubit=1000.0, tries=4)
    assert plain is not circuit
    assert plain.equals(compiled)


def test_price_decides_between_cx_and_other_gates() -> None:
    cheap = dear = 0
    for seed in range(20):
        circuit = random_circuit(seed, ("cx", "cz", "rz", "rx", "h", "s"), 60)
        light, heavy = (resynthesized(circuit, two_qubit=price) for price in (0.0, 50.0))
        assert len(light) <= len(circuit)
        cheap += len(light)
        dear += two_qubit(heavy) - two_qubit(light)
    assert cheap
    assert dear < 0


KINDS = {
    follow.H: "h",
    follow.CX: "cx",
    follow.SDG: "sdg",
    follow.X: "x",
    follow.Z: "z",
    follow.S: "s",
}


def clifford_sequence(seed: int, m: int, size: int) -> list[tuple[int, int, int]]:
    rng = np.random.default_rng(seed)
    gates = []
    for _ in range(size):
        a, b = (int(q) for q in rng.permutation(m)[:2])
        gates.append((int(rng.integers(6)), a, b))
    return gates


@pytest.mark.parametrize("seed", range(40))
def test_phase_of_a_clifford_circuit_is_that_of_its_matrix(seed: int) -> None:
    # Two ways to write one Clifford: the gates, and after them relations with known phases.
    m = 2 + seed % 4
    gates = clifford_sequence(seed, m, 60)
    undo = {follow.S: follow.SDG, follow.SDG: follow.S}
    eighth = [(follow.H, 0, 1), (follow.S, 0, 1)] * 3
    gates += [*eighth] * (seed % 8)
    back = [(undo.get(k, k), a, b) for k, a, b in gates[:60]][::-1]
    sequence = gates + back
    circuit = Circuit(m)
    for k, a, b in sequence:
        circuit.append(KINDS[k], (a, b) if k == follow.CX else (a,), [])
    matrix = dense(circuit)
    assert np.abs(np.abs(matrix) - np.eye(1 << m)).max() < 1e-9
    kind, first, second = np.array(sequence, dtype=np.int64).T
    space = [np.zeros(m, dtype=np.int64) for _ in range(6)]
    phase = follow.clifford_phase.python(len(sequence), m, kind, first, second, *space)
    assert abs(matrix[0, 0] - np.exp(1j * np.pi / 4 * phase)) < 1e-9
    assert seed % 8 == 0 or phase == seed % 8


BASES = {"clifford_t": ("h,x,rz,cx", "h-x-rz"), "qml_variational": ("rz,sx,x,cx", "rz-sx-x")}
LIMITS = {"clifford_t": 0.98, "qml_variational": 0.85}


@pytest.mark.parametrize("family", BASES)
def test_public_circuits_lose_cx(family: str, shared: Path) -> None:
    folder = shared / "bench" / "circuits"
    gates, basis = BASES[family]
    reduce = (
        f"to-basis{{gates=[{gates}]}},repeat{{times=4}}(merge-rotations,merge-pauli-rotations,"
        f"cancel-inverses,fuse-one-qubit{{basis={basis}}}),resynthesize-phase-polynomials"
    )
    logs, decided = [], 0
    for entry in json.loads((folder / "manifest.json").read_text())["circuits"]:
        if entry["family"] != family or entry["bytes"] > 60_000:
            continue
        circuit = Circuit.from_qasm((folder / entry["file"]).read_text())
        circuit = circuit.map_runs(
            lambda run: run.select(~np.isin(run.code, [G.MEASURE, G.BARRIER, G.RESET]))
        )
        program = Program.of_circuit(circuit)
        Pipeline.parse(reduce).run(program, Context())
        before = program.only_circuit
        after = ResynthesizePauliRotations(basis=basis).run(before, Context())
        logs.append(np.log(two_qubit(after) / two_qubit(before)) if two_qubit(before) else 0.0)
        if len(before) < 500 and before.num_qubits <= 10:
            verdict = check(before, after)
            assert verdict.equal is True, f"{entry['name']}: {verdict}"
            decided += 1
    assert len(logs) >= 18
    assert decided >= 8
    assert np.exp(np.mean(logs)) < LIMITS[family]
