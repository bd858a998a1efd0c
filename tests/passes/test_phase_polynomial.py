"""resynthesize-phase-polynomials: fewer CX, the same parities, against a slow reference."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from qcomp.equivalence import check
from qcomp.equivalence.pauli_form import same_pauli_form
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.program import Program
from qcomp.passes.reduce import leaves
from qcomp.passes.synthesize import phase_polynomial as phase_polynomial_pass
from qcomp.passes.synthesize.phase_polynomial import ResynthesizePhasePolynomials
from qcomp.passmanager import Context, Pipeline
from tests.generators import CLIFFORD_T, DIAGONAL, append_random
from tests.ir.dense import dense

LINEAR = ("cx", "cx", "cx", "x", "swap", "rz", "p", "t", "sdg")
NAM = (*("cx",) * 8, "x", "rz", "t", "h")
POOLS = (LINEAR, NAM, CLIFFORD_T, DIAGONAL, None)


def resynthesized(circuit: Circuit, **options: int) -> Circuit:
    return ResynthesizePhasePolynomials(**options).run(circuit, Context())


def random_circuit(
    seed: int, pool: tuple[str, ...] | None, size: int, num_qubits: int = 4
) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits, params=("a", "b"))
    for _ in range(size):
        append_random(circuit, rng, pool)
    return circuit


def cx_cost(circuit: Circuit) -> int:
    code = circuit.run.code
    return int((code == G.CX).sum() + 3 * (code == G.SWAP).sum())


def phase_polynomial(circuit: Circuit) -> tuple[dict[int, Angle], list[int], Angle]:
    """The slow reference, for cx, x, swap and diagonal rotations: angle of each parity, the map.

    A parity is a bit mask over the input wires, bit ``num_qubits`` its complement.
    """
    one = 1 << circuit.num_qubits
    wires = [1 << q for q in range(circuit.num_qubits)]
    angles: dict[int, Angle] = {}
    phase = circuit.global_phase
    named = {"t": pi_fraction(1, 4), "tdg": pi_fraction(-1, 4), "sdg": pi_fraction(-1, 2)}
    named |= {"s": pi_fraction(1, 2)}
    run, forms = circuit.run, circuit.forms
    for name, qubits, first in run.operations():
        q = qubits[0]
        if name == "cx":
            wires[qubits[1]] ^= wires[q]
        elif name == "x":
            wires[q] ^= one
        elif name == "swap":
            wires[q], wires[qubits[1]] = wires[qubits[1]], wires[q]
        else:
            angle = named.get(name)
            if angle is None:
                terms = tuple((circuit.params[c], f) for c, f in forms.row(int(run.form[first])))
                angle = Angle(int(run.frac[first]), float(run.rem[first]), terms)
            if name != "rz":
                # p(a) = exp(i a/2) rz(a)
                phase += angle * 0.5
            parity = wires[q]
            if parity & one:
                parity, angle = parity ^ one, -angle
            angles[parity] = angles.get(parity, Angle()) + angle
    return angles, wires, phase


def same(a: Angle, b: Angle, period: int) -> bool:
    """Whether two angles agree, modulo ``2 pi period``."""
    difference = a - b
    if any(abs(factor) > 1e-12 for _, factor in difference.terms):
        return False
    turns = (difference.frac * np.pi / 2**60 + difference.rem) / (2 * np.pi * period)
    return abs(turns - round(turns)) < 1e-9


@pytest.mark.parametrize(("seed", "num_qubits"), [(s, n) for s in range(4) for n in (5, 62, 70)])
def test_parities_angles_and_the_linear_map_are_those_of_the_slow_reference(
    seed: int, num_qubits: int
) -> None:
    # 70 wires take two words a row, and more rotations wait than there are slots.
    circuit = random_circuit(seed, LINEAR, 600, num_qubits)
    result = resynthesized(circuit)
    angles, wires, phase = phase_polynomial(circuit)
    others, ends, phase_after = phase_polynomial(result)
    assert wires == ends
    assert same(phase, phase_after, 1)
    assert len(angles) > 70 or num_qubits == 5
    for parity in {**angles, **others}:
        zero = Angle()
        assert same(angles.get(parity, zero), others.get(parity, zero), 2), bin(parity)
    if num_qubits == 5:
        assert cx_cost(result) < cx_cost(circuit)


@pytest.mark.parametrize("seed", range(60))
def test_unitary_is_kept_with_its_phase_for_any_symbol(seed: int) -> None:
    circuit = random_circuit(seed, POOLS[seed % len(POOLS)], 60, 1 + seed % 5)
    result = resynthesized(circuit)
    values = {"a": 0.7, "b": -1.9}
    assert np.abs(dense(circuit, **values) - dense(result, **values)).max() < 1e-9


@pytest.mark.parametrize("seed", range(30))
def test_cx_fall_gates_do_not_rise_and_the_others_stay(seed: int) -> None:
    circuit = random_circuit(seed, NAM, 200, 3 + seed % 3)
    result = resynthesized(circuit)
    assert cx_cost(result) < cx_cost(circuit)
    assert len(result) < len(circuit)
    before, after = (Counter(name for name, _, _ in c.run.operations()) for c in (circuit, result))
    for name in ("h", "rz"):
        assert before[name] == after[name]
    assert before["t"] + before["tdg"] == after["t"] + after["tdg"]
    assert resynthesized(result) is result


@pytest.mark.parametrize("seed", range(6))
def test_compiled_and_plain_kernels_agree(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LOADED_THRESHOLD", 1 << 60)
    circuit = random_circuit(seed, POOLS[seed % len(POOLS)], 300, 6)
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 1 << 60)
    plain = resynthesized(circuit, tries=8)
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    compiled = resynthesized(circuit, tries=8)
    assert plain.equals(compiled)
    assert seed > 1 or len(plain) < len(circuit)


def fourier_transform(num_qubits: int) -> Circuit:
    circuit = Circuit(num_qubits)
    for q in range(num_qubits):
        circuit.h(q)
        for other in range(q + 1, num_qubits):
            circuit.cx(other, q).rz(pi_fraction(1, 1 << (other - q + 1)), q).cx(other, q)
    return circuit


@pytest.mark.parametrize("num_qubits", [4, 8, 16])
def test_fourier_transform_takes_little_more_than_one_cx_a_phase(num_qubits: int) -> None:
    phases = num_qubits * (num_qubits - 1) // 2
    result = resynthesized(fourier_transform(num_qubits))
    assert cx_cost(result) <= phases + 3 * num_qubits


def test_many_wires_with_walls_keep_their_pauli_form() -> None:
    circuit = fourier_transform(66)
    for window, saved in ((8192, 1500), (500, 0)):
        result = resynthesized(circuit, window=window)
        assert cx_cost(result) < cx_cost(circuit) - saved
        assert same_pauli_form(circuit, result)


def test_small_windows_are_right_and_save_less() -> None:
    circuit = fourier_transform(6)
    small = resynthesized(circuit, window=12)
    assert cx_cost(resynthesized(circuit)) < cx_cost(small) <= cx_cost(circuit)
    assert np.abs(dense(circuit) - dense(small)).max() < 1e-9


def test_complement_negates_symbols() -> None:
    a = Parameter("a")
    circuit = Circuit(2, params=("a",)).x(0).cx(0, 1).rz(a, 1).cx(0, 1).cx(0, 1).cx(0, 1).x(0)
    result = resynthesized(circuit)
    assert [name for name, _, _ in result.run.operations()] == ["cx", "rz", "cx"]
    assert result.forms.row(int(result.run.form[0])) == ((0, -1.0),)


def test_circuit_that_has_no_cheaper_form_is_the_same_object() -> None:
    circuit = Circuit(2).t(0).cx(0, 1).t(1).h(1).cx(0, 1)
    assert resynthesized(circuit) is circuit


def test_fences_keep_their_order_and_bits() -> None:
    circuit = Circuit(2, 1).cx(0, 1).cx(0, 1).measure(0, 0).measure(1, 0).cx(1, 0).cx(1, 0).reset(0)
    result = resynthesized(circuit)
    assert [name for name, _, _ in result.run.operations()] == ["measure", "measure", "reset"]
    assert result.run.qubit[:2, 0].tolist() == [0, 1]


REDUCE = "to-basis{gates=[h,x,rz,cx]},repeat{times=4}(merge-rotations,merge-pauli-rotations,\
cancel-inverses,fuse-one-qubit{basis=h-x-rz})"


def test_public_clifford_t_circuits_lose_cx(shared: Path) -> None:
    folder = shared / "bench" / "circuits"
    logs, decided = [], 0
    for entry in json.loads((folder / "manifest.json").read_text())["circuits"]:
        if entry["family"] != "clifford_t" or entry["bytes"] > 40_000:
            continue
        program = Program.of_circuit(Circuit.from_qasm((folder / entry["file"]).read_text()))
        Pipeline.parse(REDUCE).run(program, Context())
        before = program.only_circuit
        after = resynthesized(before)
        logs.append(np.log(after.stats().two_qubit / before.stats().two_qubit))
        assert len(after) <= len(before)
        if len(before) < 400:
            verdict = check(before, after)
            assert verdict.equal is not False, f"{entry['name']}: {verdict}"
            decided += verdict.equal is True
    assert len(logs) >= 20
    assert decided >= 12
    assert np.exp(np.mean(logs)) < 0.95


@pytest.mark.parametrize("seed", range(20))
def test_blocks_written_by_gray_synth_are_the_same_circuit(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(phase_polynomial_pass, "_VARIANTS", ())
    circuit = random_circuit(seed, POOLS[seed % len(POOLS)], 40)
    result = resynthesized(circuit, tries=8)
    assert cx_cost(result) <= cx_cost(circuit)
    verdict = check(circuit, result)
    assert verdict.equal is True
    assert verdict.phase == pytest.approx(0, abs=1e-9)


def test_gray_synth_alone_finds_the_network_of_a_poor_circuit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    circuit = Circuit(3)
    for parity in ((0, 1), (0, 2), (0, 1, 2), (1, 2)):
        for control in parity[:-1]:
            circuit.cx(control, parity[-1])
        circuit.rz(0.1 * sum(parity) + 0.3, parity[-1])
        for control in parity[-2::-1]:
            circuit.cx(control, parity[-1])
    assert cx_cost(resynthesized(circuit, tries=7)) <= 6
    monkeypatch.setattr(phase_polynomial_pass, "_VARIANTS", ())
    assert resynthesized(circuit, tries=7) is circuit
    result = resynthesized(circuit, tries=8)
    assert cx_cost(result) <= 6 < cx_cost(circuit)
    assert check(circuit, result).equal is True
