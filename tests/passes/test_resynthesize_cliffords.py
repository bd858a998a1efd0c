"""resynthesize-cliffords: regions against matrices, phases, what parts them, what is saved."""

from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.gates import BY_NAME, GATES, G, gate
from qcomp.passes.reduce import leaves
from qcomp.passes.synthesize import clifford_words
from qcomp.passes.synthesize.clifford_regions import ResynthesizeCliffords
from qcomp.passmanager import Context
from tests.ir.dense import dense

FIXED = tuple(row.name for row in GATES if row.clifford)
TURNING = ("rz", "p", "rx", "ry", "rzz", "rxx", "ryy", "rzx")
EIGHTH = np.exp(1j * np.pi / 4)


def rewritten(circuit: Circuit, **options: int) -> Circuit:
    return ResynthesizeCliffords(**options).run(circuit, Context())


def random_clifford(seed: int, size: int) -> Circuit:
    """Gates over all that is Clifford, rotations by quarter turns among them."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    circuit = Circuit(n)
    for _ in range(size):
        name = str(rng.choice((*FIXED, *TURNING)))
        angles = [pi_fraction(int(rng.integers(-8, 8)), 2)] if name in TURNING else []
        circuit.append(name, rng.permutation(n)[: BY_NAME[name].num_qubits].tolist(), angles)
    return circuit


def cx_count(circuit: Circuit) -> int:
    return int(clifford_words.read(circuit.run).cost.sum())


def test_every_clifford_gate_of_the_table_has_a_word() -> None:
    assert sorted(clifford_words._WORDS) == sorted(FIXED)
    for name in (*FIXED, *TURNING):
        row = gate(name)
        for k in range(8) if row.num_angles else (0,):
            circuit = Circuit(row.num_qubits)
            wires = list(range(row.num_qubits))
            circuit.append(name, wires, [pi_fraction(k, 2)] * row.num_angles)
            reading = clifford_words.read(circuit.run)
            assert reading.role.tolist() == [clifford_words.CLIFFORD], name
            local = circuit.run.qubit[:, :2]
            stream, rows, phase = reading.stream(circuit.run, np.arange(1), local)
            assert rows.tolist() == [len(stream)]
            word = Circuit(row.num_qubits)
            for kind, a, b, _ in stream.tolist():
                word.append(GATES[clifford_words.CODES[kind]].name, [a] if b < 0 else [a, b], [])
            error = np.abs(dense(circuit) - EIGHTH ** int(phase[0]) * dense(word)).max()
            assert error < 1e-12, (name, k)


def test_the_cost_of_a_gate_is_that_of_its_kak_decomposition() -> None:
    from qcomp.passes.synthesize.weyl import cx_count as least
    from qcomp.passes.synthesize.weyl import weyl

    for name in (*FIXED, *TURNING):
        row = gate(name)
        if row.num_qubits != 2:
            continue
        for k in range(4) if row.num_angles else (0,):
            circuit = Circuit(2)
            circuit.append(name, [0, 1], [pi_fraction(k, 2)] * row.num_angles)
            matrix = row.matrix(*[k * np.pi / 2] * row.num_angles)
            assert cx_count(circuit) == least(weyl(matrix[None]))[0], (name, k)


@pytest.mark.parametrize("seed", range(60))
def test_random_cliffords_keep_their_matrix_and_phase_and_save_gates(seed: int) -> None:
    before = random_clifford(seed, 60)
    after = rewritten(before)
    assert np.abs(dense(before) - dense(after)).max() < 1e-9
    assert cx_count(after) < cx_count(before)
    assert len(after.run) <= len(before.run)
    assert rewritten(after) is after


@pytest.mark.parametrize("seed", range(12))
def test_regions_between_other_gates_keep_the_matrix(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = Circuit(4, params=("a",))
    for _ in range(120):
        name = str(rng.choice(["h", "s", "cx", "cz", "swap", "sx"] * 4 + ["t", "ccx", "rx", "u"]))
        row = gate(name)
        angle = Parameter("a") if name == "rx" else Angle.of(0.3)
        circuit.append(
            name, rng.permutation(4)[: row.num_qubits].tolist(), [angle] * row.num_angles
        )
    after = rewritten(circuit)
    assert after is not circuit
    assert np.abs(dense(circuit, a=0.7) - dense(after, a=0.7)).max() < 1e-9
    assert cx_count(after) < cx_count(circuit)
    assert after.stats().rotations == circuit.stats().rotations


def test_compiled_and_plain_kernels_write_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    circuit = random_clifford(3, 200)
    outputs = []
    for threshold in (0, 1 << 40):
        monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", threshold)
        outputs.append(rewritten(circuit))
    assert outputs[0].equals(outputs[1])


def test_more_wires_than_a_word_has_bits() -> None:
    rng = np.random.default_rng(5)
    n = 70
    circuit = Circuit(n)
    for _ in range(3000):
        a, b = rng.permutation(n)[:2].tolist()
        circuit.append(str(rng.choice(["cx", "cz"])), [a, b], [])
        circuit.append(str(rng.choice(["h", "s", "sx"])), [a], [])
    there_and_back = circuit.compose(circuit.inverse())
    after = rewritten(there_and_back)
    assert len(after.run) == 0
    assert after.global_phase.is_zero or after.global_phase.frac % (1 << 61) == 0
    once = rewritten(circuit)
    assert cx_count(once) < cx_count(circuit)
    verdict = check(circuit, once)
    assert verdict.equal is True, verdict


def test_the_public_random_clifford_takes_less_than_a_tenth(shared: Path) -> None:
    text = (shared / "bench" / "circuits" / "clifford_20_12345.qasm").read_text()
    circuit = Circuit.from_qasm(text)
    circuit = circuit.map_runs(
        lambda run: run.select(~np.isin(run.code, [G.MEASURE, G.BARRIER, G.RESET]))
    )
    after = rewritten(circuit)
    assert (cx_count(circuit), cx_count(after)) == (2433, 194)
    assert len(after.run) < 450
    verdict = check(circuit, after)
    assert verdict.equal is True, verdict


def test_measurement_reset_and_barrier_part_regions() -> None:
    for part in ("measure", "reset", "barrier"):
        circuit = Circuit(2, 2)
        circuit.cx(0, 1)
        circuit.cx(1, 0)
        if part == "measure":
            circuit.measure(1, 0)
        elif part == "reset":
            circuit.reset(1)
        else:
            circuit.barrier(0, 1)
        circuit.cx(1, 0)
        circuit.cx(0, 1)
        assert rewritten(circuit) is circuit, part


def test_the_phase_of_a_conditional_body_stays_in_it() -> None:
    circuit = Circuit(2, 1)
    circuit.measure(0, 0)
    with circuit.if_(Bit(0)):
        for _ in range(4):
            circuit.append("ecr", [0, 1], [])
        for _ in range(3):
            circuit.append("rzz", [0, 1], [pi_fraction(4, 2)])
        circuit.append("cx", [0, 1], [])
    after = rewritten(circuit)
    inner = [list(run.operations()) for run in after.runs()]
    assert [name for name, _, _ in inner[-1]] == ["cx", "gphase"]
    assert check(circuit, after).equal is True


def test_slack_buys_cx_gates_with_others() -> None:
    saved = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        circuit = Circuit(4)
        for _ in range(9):
            circuit.append("cz", rng.permutation(4)[:2].tolist(), [])
            circuit.append(str(rng.choice(["sx", "sxdg"])), [int(rng.integers(4))], [])
        strict, loose = rewritten(circuit), rewritten(circuit, slack=3)
        assert np.abs(dense(circuit) - dense(loose)).max() < 1e-9
        assert len(strict.run) <= len(circuit.run)
        assert len(loose.run) <= len(circuit.run) + 3 * (cx_count(circuit) - cx_count(loose))
        saved += cx_count(strict) - cx_count(loose)
    assert saved > 0


def test_a_region_with_more_wires_than_its_gates_pay_for_stays() -> None:
    circuit = random_clifford(0, 60)
    assert rewritten(circuit, work=0) is circuit
