"""merge-pauli-rotations: what meets across Hadamards, against a slow reference and the records."""

import json
from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence.pauli_form import PauliForm, same_pauli_form
from qcomp.ir.angle import PI, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G, gate
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.passes.reduce import leaves
from qcomp.passes.reduce.merge_pauli_rotations import MergePauliRotations
from qcomp.passmanager import Context, Pipeline
from tests.generators import CLIFFORD_T, append_random
from tests.ir.dense import dense

PAULI_GATES = (
    *("rz", "rx", "ry", "p", "t", "tdg", "s", "sx", "x", "y", "z", "h"),
    *("rxx", "ryy", "rzz", "rzx", "cx", "cy", "cz", "swap", "iswap", "dcx", "ecr"),
)


def merged(circuit: Circuit, **options: int) -> Circuit:
    return MergePauliRotations(**options).run(circuit, Context())


def words(circuit: Circuit) -> list[str]:
    return [name for name, _, _ in circuit.run.operations()]


def random_circuit(
    seed: int, pool: tuple[str, ...] | None, size: int, num_qubits: int = 4
) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits, params=("a", "b"))
    for _ in range(size):
        append_random(circuit, rng, pool)
    return circuit


def reference_t_count(circuit: Circuit) -> int:
    """Rotations left by the algorithm as the paper writes it, on whole Paulis, Clifford+T only.

    Each T is moved back over what it commutes with until it meets its own Pauli; a pair is a
    Clifford, which joins the tableau, or nothing.
    """
    form = PauliForm(circuit.num_qubits)
    kept: list[tuple[int, int, int]] = []

    def commute(a: tuple[int, int, int], b: tuple[int, int, int]) -> bool:
        return ((a[0] & b[1]).bit_count() + (a[1] & b[0]).bit_count()) % 2 == 0

    for name, qubits, _ in circuit.run.operations():
        if name not in ("t", "tdg"):
            form.clifford(name, qubits)
            continue
        x, z, power = form.zs[qubits[0]]
        sign = 1 if (power - (x & z).bit_count()) % 4 == 0 else -1
        new = (x, z, sign if name == "t" else -sign)
        for at in reversed(range(len(kept))):
            if kept[at][:2] == new[:2]:
                if kept.pop(at)[2] == new[2]:
                    # In the frame of this wire the pair is S, or its inverse.
                    form.clifford("s" if name == "t" else "sdg", qubits)
                break
            if not commute(kept[at], new):
                kept.append(new)
                break
        else:
            kept.append(new)
    return len(kept)


@pytest.mark.parametrize("seed", range(40))
def test_as_many_t_gates_are_left_as_in_the_slow_reference(seed: int) -> None:
    circuit = random_circuit(seed, CLIFFORD_T, 150, 1 + seed % 5)
    result = merged(circuit)
    assert result.stats().t_count == reference_t_count(circuit)
    assert merged(result) is result


def test_the_reference_itself_merges_and_is_blocked() -> None:
    assert reference_t_count(Circuit(1).t(0).t(0)) == 0
    assert reference_t_count(Circuit(1).t(0).h(0).t(0).h(0).t(0)) == 3


@pytest.mark.parametrize("seed", range(60))
def test_unitary_is_kept_with_its_phase_for_any_symbol(seed: int) -> None:
    pool = (PAULI_GATES, CLIFFORD_T, None)[seed % 3]
    circuit = random_circuit(seed, pool, 60, 1 + seed % 4)
    result = merged(circuit)
    values = {"a": 0.7, "b": -1.9}
    assert np.abs(dense(circuit, **values) - dense(result, **values)).max() < 1e-9


@pytest.mark.parametrize("seed", range(6))
def test_compiled_and_plain_kernels_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LOADED_THRESHOLD", 1 << 60)
    circuit = random_circuit(seed, (PAULI_GATES, CLIFFORD_T, None)[seed % 3], 300, 5)
    plain = merged(circuit)
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    compiled = merged(circuit)
    assert len(plain) < len(circuit)
    assert plain.equals(compiled)


def test_result_does_not_depend_on_the_seed_of_the_labels() -> None:
    circuit = random_circuit(5, CLIFFORD_T, 200)
    first = MergePauliRotations().run(circuit, Context(seed=1))
    assert first is not circuit
    assert first.equals(MergePauliRotations().run(circuit, Context(seed=2)))


def test_two_qubit_gates_stay_and_no_gate_is_added() -> None:
    for seed in range(20):
        circuit = random_circuit(seed, PAULI_GATES, 80)
        result = merged(circuit)
        rotations = {gate(name).code for name in ("rxx", "ryy", "rzz", "rzx")}
        kept = [code for code in circuit.run.code if code in (G.CX, G.CZ, G.H, G.SWAP, G.ECR)]
        left = [code for code in result.run.code if code in (G.CX, G.CZ, G.H, G.SWAP, G.ECR)]
        assert kept == left
        assert (
            np.isin(result.run.code, list(rotations)).sum()
            <= np.isin(circuit.run.code, list(rotations)).sum()
        )
        assert len(result) <= len(circuit)


def test_sum_stands_on_the_gate_of_fewer_wires() -> None:
    after = Circuit(2).rzz(0.5, 0, 1).h(0).h(0).cx(0, 1).rz(0.25, 1)
    assert words(merged(after)) == ["h", "h", "cx", "rz"]
    before = Circuit(2).cx(0, 1).rz(0.25, 1).cx(0, 1).h(0).h(0).rzz(0.5, 0, 1)
    assert words(merged(before)) == ["cx", "rz", "cx", "h", "h"]


def test_symbols_cancel_across_hadamards() -> None:
    a = Parameter("a")
    circuit = Circuit(2, params=("a",)).rz(a, 0).h(0).cx(0, 1).rxx(-1 * a, 0, 1)
    result = merged(circuit)
    assert words(result) == ["h", "cx"]
    back = Circuit(1, params=("a",)).rx(a, 0).h(0).z(0).x(0).rz(a, 0)
    assert words(merged(back)) == ["h", "z", "x"]


def test_whole_turn_is_a_phase() -> None:
    result = merged(Circuit(1).rz(pi_fraction(3, 4), 0).h(0).rx(pi_fraction(5, 4), 0))
    assert words(result) == ["h"]
    assert abs(result.global_phase.frac) == PI


def test_what_a_rotation_that_went_had_blocked_meets() -> None:
    # t about Z, T about X twice with opposite signs, then t about Z again.
    circuit = Circuit(1).t(0).h(0).t(0).tdg(0).h(0).t(0)
    assert merged(circuit).stats().t_count == 0


def test_older_rotation_is_met_once_the_newer_one_is_gone() -> None:
    # z, x, z, -z, -x, z: the inner pairs go, then the first meets the last.
    circuit = Circuit(1).t(0).h(0).t(0).h(0).t(0).tdg(0).h(0).tdg(0).h(0).t(0)
    assert merged(circuit).stats().t_count == 0
    assert same_pauli_form(circuit, merged(circuit))


def cx_and_t(size: int, num_qubits: int) -> Circuit:
    """Every parity returns again and again, far apart, and nothing blocks it."""
    rng = np.random.default_rng(3)
    code = rng.choice([G.CX, G.T], size=size).astype(np.uint8)
    qubit = np.full((size, 3), -1, dtype=np.int32)
    qubit[:, 0] = rng.integers(0, num_qubits, size)
    other = (qubit[:, 0] + rng.integers(1, num_qubits, size)) % num_qubits
    qubit[:, 1] = np.where(code == G.CX, other, -1)
    circuit = Circuit(num_qubits)
    circuit.append_item(Run.of(code, qubit))
    return circuit


def test_visits_bound_the_work_and_not_the_truth() -> None:
    circuit = cx_and_t(3000, 5)
    full, short = merged(circuit), merged(circuit, visits=1)
    assert full.stats().t_count <= 31 < short.stats().t_count < circuit.stats().t_count
    assert np.abs(dense(circuit) - dense(short)).max() < 1e-9


def _records(shared: Path) -> list[tuple[str, str, int]]:
    """(name, text, least T-count of FastTMerge and BBMerge) of every public circuit with one."""
    folder = shared / "bench"
    known = json.loads((folder / "records" / "tcount_records.json").read_text())["circuits"]
    found = []
    for name, record in known.items():
        counts = [record[key] for key in ("fasttmerge", "bbmerge") if record[key] is not None]
        path = folder / "circuits" / f"{name.replace('^', '_')}.qasm"
        if counts and path.exists():
            found.append((name, path.read_text(), min(counts)))
    return found


def test_t_counts_are_at_most_those_of_fasttmerge_and_bbmerge(shared: Path) -> None:
    records = _records(shared)
    assert len(records) >= 25
    worse = {}
    for name, text, least in records:
        program = Program.of_circuit(Circuit.from_qasm(text))
        Pipeline.parse("to-basis{max_qubits=2},merge-pauli-rotations").run(program, Context())
        count = program.only_circuit.stats().t_count
        if count > least:
            worse[name] = (count, least)
    assert not worse
