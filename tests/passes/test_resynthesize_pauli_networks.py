"""resynthesize-pauli-networks: rotation sequences against matrices, symbols, what is saved."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME, G
from qcomp.ir.program import Program
from qcomp.passes.reduce import leaves
from qcomp.passes.synthesize.clifford_words import read
from qcomp.passes.synthesize.pauli_networks import ResynthesizePauliNetworks
from qcomp.passmanager import Context, Pipeline
from tests.ir.dense import dense

POOL = (
    *("h", "s", "cx", "cz", "sx", "swap", "rz", "t", "tdg", "p", "rx", "ry"),
    *("rzz", "rxx", "ryy", "rzx"),
)
VALUES = {"a": 0.7, "b": -1.9}


def rewritten(circuit: Circuit, **options: int) -> Circuit:
    return ResynthesizePauliNetworks(**options).run(circuit, Context())


def cx_count(circuit: Circuit) -> int:
    return int(read(circuit.run).cost.sum())


def some_angle(rng: np.random.Generator) -> Angle:
    kind = rng.random()
    if kind < 0.3:
        return pi_fraction(int(rng.integers(-7, 8)), 4)
    if kind < 0.5:
        return Angle.of(float(rng.choice([0.3, -0.3, 1.7])))
    return Parameter(str(rng.choice(["a", "b"]))) * float(rng.choice([1.0, -0.5])) + 0.25


def random_circuit(seed: int, size: int = 60) -> Circuit:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 6))
    circuit = Circuit(n, params=("a", "b"))
    for _ in range(size):
        row = BY_NAME[str(rng.choice(POOL))]
        angles = [some_angle(rng) for _ in range(row.num_angles)]
        circuit.append(row.name, rng.permutation(n)[: row.num_qubits].tolist(), angles)
    return circuit


def pauli_rotation(circuit: Circuit, word: str, angle: Angle) -> None:
    """Append exp(-i angle/2 word) the usual way: a ladder of CX there and back."""
    wires = [q for q, letter in enumerate(word) if letter != "I"]
    for q in wires:
        if word[q] == "X":
            circuit.h(q)
        elif word[q] == "Y":
            circuit.append("sx", [q], [])
    for a, b in pairwise(wires):
        circuit.cx(a, b)
    circuit.rz(angle, wires[-1])
    for a, b in reversed(list(pairwise(wires))):
        circuit.cx(a, b)
    for q in wires:
        if word[q] == "X":
            circuit.h(q)
        elif word[q] == "Y":
            circuit.append("sxdg", [q], [])


def pauli_sequence(seed: int, n: int, rotations: int) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(n, params=("a", "b"))
    while rotations:
        word = "".join(rng.choice(list("IXYZ"), size=n))
        if word.strip("I"):
            pauli_rotation(circuit, word, some_angle(rng))
            rotations -= 1
    return circuit


@pytest.mark.parametrize("seed", range(16))
def test_random_circuits_keep_matrix_and_phase(seed: int) -> None:
    before = random_circuit(seed)
    after = rewritten(before, tries=16, slack=9)
    assert np.abs(dense(before, **VALUES) - dense(after, **VALUES)).max() < 1e-9
    assert cx_count(after) <= cx_count(before)
    assert after.stats().rotations <= before.stats().rotations
    assert rewritten(after, tries=16, slack=9) is after


def test_most_random_circuits_get_fewer_cx() -> None:
    changed = sum(rewritten(c, slack=9) is not c for c in map(random_circuit, range(16)))
    assert changed >= 12


@pytest.mark.parametrize("seed", range(12))
def test_pauli_sequences_take_less_than_half_the_cx(seed: int) -> None:
    before = pauli_sequence(seed, 2 + seed % 4 + 1, 12)
    after = rewritten(before)
    assert np.abs(dense(before, **VALUES) - dense(after, **VALUES)).max() < 1e-9
    assert cx_count(after) <= 0.75 * cx_count(before)
    assert len(after.run) < len(before.run)
    assert after.stats().rotations == before.stats().rotations


def test_more_rotations_than_the_window_holds_and_wires_than_a_word() -> None:
    long = pauli_sequence(3, 4, 150)
    after = rewritten(long)
    assert cx_count(after) < cx_count(long)
    assert np.abs(dense(long, **VALUES) - dense(after, **VALUES)).max() < 1e-9
    rng = np.random.default_rng(1)
    wide = Circuit(70, params=("a", "b"))
    for _ in range(80):
        word = np.full(70, "I")
        block = 5 * int(rng.integers(14))
        word[block : block + 5] = rng.choice(list("XYZ"), size=5)
        pauli_rotation(wide, "".join(word), some_angle(rng))
    # 70 wires cubed are more than the default's share of so few gates.
    after = rewritten(wide, work=10**6)
    assert cx_count(after) < cx_count(wide)
    verdict = check(wide, after)
    assert verdict.equal is True, verdict
    assert rewritten(wide, work=1) is wide


def test_compiled_and_plain_kernels_write_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = pauli_sequence(5, 5, 20)
    outputs = []
    for threshold in (0, 1 << 40):
        monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", threshold)
        outputs.append(rewritten(circuit, tries=6))
    assert outputs[0].equals(outputs[1])


def test_segments_of_any_length_keep_the_matrix() -> None:
    circuit = pauli_sequence(2, 4, 20)
    counts = []
    for window in (20, 60, 4096):
        after = rewritten(circuit, window=window)
        assert np.abs(dense(circuit, **VALUES) - dense(after, **VALUES)).max() < 1e-9
        counts.append(cx_count(after))
    assert counts[2] < counts[0] < cx_count(circuit)


def test_fences_stay_in_their_place() -> None:
    circuit = Circuit(3, 3, params=("a",))
    for part in range(3):
        pauli_rotation(circuit, "XYZ", Parameter("a") * (part + 1.0))
        pauli_rotation(circuit, "YXZ", Angle.of(0.4))
        pauli_rotation(circuit, "XYZ", Angle.of(0.1))
        if part == 0:
            circuit.append("ccx", [0, 1, 2], [])
        elif part == 1:
            circuit.barrier(0, 1)
    for q in range(3):
        circuit.measure(q, q)
    after = rewritten(circuit)
    names = [name for name, _, _ in after.run.operations()]
    fences = [name for name in names if name in ("ccx", "barrier", "measure")]
    assert fences == ["ccx", "barrier", "measure", "measure", "measure"]
    assert names.index("ccx") < names.index("barrier")
    assert names.count("cx") < 36
    verdict = check(circuit, after)
    assert verdict.equal is True, verdict


def test_phase_gates_stay_phase_gates() -> None:
    circuit = Circuit(3, params=("a",))
    for q in range(2):
        circuit.h(0)
        circuit.cx(0, 1)
        circuit.cx(1, 2)
        circuit.append(("t", "p")[q], [2], [Parameter("a")] if q else [])
        circuit.cx(1, 2)
        circuit.cx(0, 1)
        circuit.h(0)
        circuit.x(1)
    after = rewritten(circuit, slack=5)
    assert cx_count(after) < cx_count(circuit)
    assert np.abs(dense(circuit, a=0.7) - dense(after, a=0.7)).max() < 1e-9
    names = {name for name, _, _ in after.run.operations()}
    assert "p" in names
    assert names & {"t", "tdg"}
    assert "rz" not in names


def test_the_default_makes_nothing_dearer() -> None:
    for seed in range(20):
        before = random_circuit(seed)
        after = rewritten(before)
        assert len(after.run) <= len(before.run)
        assert after is before or cx_count(after) < cx_count(before)


@pytest.mark.parametrize(
    ("name", "most"), [("vqe_uccsd_n4", 21), ("vqe_uccsd_n6", 118), ("grover_5", 185)]
)
def test_the_public_circuits_take_no_more_cx_than_this(shared: Path, name: str, most: int) -> None:
    before = Circuit.from_qasm((shared / "bench" / "circuits" / f"{name}.qasm").read_text())
    before = before.map_runs(
        lambda run: run.select(~np.isin(run.code, [G.MEASURE, G.BARRIER, G.RESET]))
    )
    program = Program.of_circuit(before)
    Pipeline.parse(
        "to-basis{gates=[h,x,rz,cx]},merge-rotations,merge-pauli-rotations,cancel-inverses"
    ).run(program, Context())
    merged = program.only_circuit
    after = rewritten(merged, tries=16)
    assert cx_count(after) <= most
    assert len(after.run) <= len(merged.run)
    verdict = check(before, after)
    assert verdict.equal is True, verdict
