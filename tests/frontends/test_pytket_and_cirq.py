"""pytket and Cirq circuits in and out: the hosts' own unitaries, symbols, measurements, phases."""

from __future__ import annotations

import builtins
import math
from typing import Any

import cirq
import numpy as np
import pytest
import pytket
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st
from pytket import OpType
from pytket.circuit import CircBox, PauliExpBox, Unitary2qBox
from pytket.passes import DecomposeBoxes, FullPeepholeOptimise
from pytket.pauli import Pauli

import qcomp
from qcomp.errors import SourceError, TargetError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.blocks import If
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Binary, Bit, ClassicalVar, Lit, Register, Unary
from qcomp.ir.gates import GATES
from qcomp.ir.verify import verify
from qcomp.simulate import bit_distribution, unitary
from tests.generators import straight_circuit

UNITARY = [row for row in GATES if row.is_unitary]


def big_endian(matrix: np.ndarray) -> np.ndarray:
    """Return a matrix with qubit 0 as the most significant bit of the index, or back."""
    n = len(matrix).bit_length() - 1
    axes = [*reversed(range(n)), *reversed(range(n, 2 * n))]
    return matrix.reshape([2] * (2 * n)).transpose(axes).reshape(len(matrix), len(matrix))


def pytket_matrix(circuit: Any, values: dict[str, float] | None = None) -> np.ndarray:
    circuit = circuit.copy()
    DecomposeBoxes().apply(circuit)
    if values:
        circuit.symbol_substitution({sympy.Symbol(k): v for k, v in values.items()})
    return big_endian(circuit.get_unitary())


def cirq_matrix(circuit: Any, values: dict[str, float] | None = None) -> np.ndarray:
    return big_endian(cirq.resolve_parameters(circuit, values or {}).unitary())


MATRIX = {"pytket": pytket_matrix, "cirq": cirq_matrix}


def out(circuit: Circuit, host: str) -> Any:
    return circuit.to_pytket() if host == "pytket" else circuit.to_cirq()


def back(circuit: Any, host: str) -> Circuit:
    made = Circuit.from_pytket(circuit) if host == "pytket" else Circuit.from_cirq(circuit)
    verify(made)
    return made


@pytest.mark.parametrize("host", ["pytket", "cirq"])
@pytest.mark.parametrize("row", UNITARY, ids=lambda row: row.name)
def test_every_gate_of_the_table_has_its_matrix_in_the_host_and_back(row: Any, host: str) -> None:
    size = row.num_qubits if row.num_qubits >= 0 else 4
    circuit = Circuit(max(size, 1))
    circuit.x(0)
    operands = list(reversed(range(size)))
    circuit.append(row.name, operands, [0.25, -1.5, 0.125, 3.0][: row.num_angles])
    there = out(circuit, host)
    meant = unitary(circuit)
    assert np.allclose(MATRIX[host](there), meant, atol=1e-9)
    assert np.allclose(unitary(back(there, host)), meant, atol=1e-9)


@pytest.mark.parametrize("host", ["pytket", "cirq"])
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_random_circuits_keep_unitary_parameters_and_phase(host: str, seed: int) -> None:
    circuit = straight_circuit(seed, size=14)
    values = {"a": 0.37, "b": -1.21}
    there = out(circuit, host)
    meant = unitary(circuit, [0.37, -1.21])
    assert np.allclose(MATRIX[host](there, values), meant, atol=1e-8)
    again = back(there, host)
    assert np.allclose(unitary(again, [values[name] for name in again.params]), meant, atol=1e-8)


ONLY_PYTKET = {
    OpType.V: (1, 0), OpType.Vdg: (1, 0), OpType.CV: (2, 0), OpType.CVdg: (2, 0),
    OpType.U2: (1, 2), OpType.CU3: (2, 3), OpType.TK1: (1, 3), OpType.TK2: (2, 3),
    OpType.AAMS: (2, 3), OpType.BRIDGE: (3, 0), OpType.FSim: (2, 2), OpType.ESWAP: (2, 1),
    OpType.Sycamore: (2, 0), OpType.PhasedISWAP: (2, 2), OpType.XXPhase3: (3, 1),
    OpType.CnRy: (3, 1), OpType.CnZ: (3, 0), OpType.PhaseGadget: (3, 1), OpType.NPhasedX: (2, 2),
}  # fmt: skip
"""Gates of pytket's own -> (qubits, angles)."""


def random_pytket(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    circuit = pytket.Circuit(3)
    for index in rng.permutation(len(ONLY_PYTKET))[:8]:
        kind, (qubits, angles) = list(ONLY_PYTKET.items())[int(index)]
        wires = rng.permutation(3)[:qubits].tolist()
        circuit.add_gate(kind, rng.uniform(-2, 2, angles).tolist(), wires)
    return circuit


@pytest.mark.parametrize("seed", range(6))
def test_gates_that_only_pytket_has_are_decomposed_exactly(seed: int) -> None:
    source = random_pytket(seed)
    assert np.allclose(unitary(back(source, "pytket")), pytket_matrix(source), atol=1e-8)


def test_boxes_and_implicit_swaps_of_pytket_are_unrolled() -> None:
    inner = pytket.Circuit(2).H(0).CX(0, 1).add_phase(0.3)
    source = pytket.Circuit(3)
    source.add_gate(CircBox(inner), [2, 0])
    source.add_gate(PauliExpBox([Pauli.X, Pauli.Y, Pauli.Z], 0.7), [0, 1, 2])
    source.add_gate(Unitary2qBox(cirq.testing.random_unitary(4, random_state=1)), [1, 2])
    source.SWAP(0, 1)
    meant = pytket_matrix(source)
    assert np.allclose(unitary(back(source, "pytket")), meant, atol=1e-8)
    DecomposeBoxes().apply(source)
    FullPeepholeOptimise().apply(source)
    assert source.implicit_qubit_permutation() != {q: q for q in source.qubits}
    assert np.allclose(unitary(back(source, "pytket")), meant, atol=1e-8)


def random_cirq(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    q = cirq.LineQubit.range(3)

    def t() -> float:
        return float(rng.uniform(-2, 2))

    gates = [
        cirq.X ** t(), cirq.Y ** t(), cirq.Z ** t(), cirq.H ** t(), cirq.XPowGate(exponent=t(),
        global_shift=0.3), cirq.CX ** t(), cirq.CZPowGate(exponent=t(), global_shift=0.2),
        cirq.SWAP ** t(), cirq.ISWAP ** t(), cirq.PhasedXPowGate(phase_exponent=t(), exponent=t()),
        cirq.PhasedXZGate(x_exponent=t(), z_exponent=t(), axis_phase_exponent=t()), cirq.XX ** t(),
        cirq.YY ** t(), cirq.ZZ ** t(), cirq.ms(t()), cirq.FSimGate(t(), t()),
        cirq.PhasedFSimGate(t(), t(), t(), t(), t()), cirq.PhasedISwapPowGate(phase_exponent=t(),
        exponent=t()), cirq.givens(t()), cirq.CCX ** t(), cirq.CCZ ** t(), cirq.CSWAP,
        cirq.MatrixGate(cirq.testing.random_unitary(2, random_state=seed)),
        cirq.MatrixGate(cirq.testing.random_unitary(4, random_state=seed)),
        cirq.rx(t()).controlled(), cirq.ISWAP.controlled(), cirq.Y.controlled(2),
        cirq.QubitPermutationGate([2, 0, 1]), cirq.SingleQubitCliffordGate.X_sqrt,
        cirq.GlobalPhaseGate(np.exp(1j * t())),
    ]  # fmt: skip
    circuit = cirq.Circuit()
    for index in rng.permutation(len(gates))[:12]:
        gate = gates[int(index)]
        size = cirq.num_qubits(gate)
        circuit.append(gate(*[q[i] for i in rng.permutation(3)[:size]]))
    circuit.append((cirq.X ** t()).controlled(2, control_values=[0, (0, 1)])(*q))
    circuit.append(cirq.PauliString({q[0]: cirq.X, q[2]: cirq.Z}, coefficient=-1))
    circuit.append(cirq.I.on_each(*q))
    return circuit


@pytest.mark.parametrize("seed", range(8))
def test_powers_shifts_and_decomposed_gates_of_cirq_are_exact(seed: int) -> None:
    source = random_cirq(seed)
    assert np.allclose(unitary(back(source, "cirq")), cirq_matrix(source), atol=1e-7)


def test_a_controlled_gate_with_symbols_stays_parametrised() -> None:
    q = cirq.LineQubit.range(3)
    a = sympy.Symbol("a")
    source = cirq.Circuit(cirq.H.on_each(*q), (cirq.X**a).controlled(2, control_values=[1, 0])(*q))
    ours = back(source, "cirq")
    assert ours.params == ("a",)
    assert np.allclose(unitary(ours, [0.7]), cirq_matrix(source, {"a": 0.7}), atol=1e-8)


def test_symbols_stay_parameters_in_affine_angles() -> None:
    a, b = sympy.symbols("a b")
    ours = Circuit.from_pytket(pytket.Circuit(1).Rz(2 * a / sympy.pi - b / 4 + 0.25, 0))
    (term, other) = ours.forms.row(int(ours.run.form[0]))
    assert ours.params == ("a", "b")
    assert term == (0, 2.0)
    assert other == (1, pytest.approx(-math.pi / 4))
    assert ours.run.frac[0] == 1 << 58
    q = cirq.LineQubit(0)
    ours = Circuit.from_cirq(cirq.Circuit(cirq.rz(2 * a - 0.5)(q), cirq.X(q) ** (b + 0.5)))
    assert ours.forms.row(int(ours.run.form[0])) == ((0, 2.0),)
    values = {"a": 0.3, "b": 0.8}
    source = cirq.Circuit(cirq.rz(2 * a - 0.5)(q), cirq.X(q) ** (b + 0.5))
    assert np.allclose(unitary(ours, [0.3, 0.8]), cirq_matrix(source, values))
    for bad in (pytket.Circuit(1).Rz(a * b, 0), cirq.Circuit(cirq.rz(sympy.sin(a))(q))):
        with pytest.raises(SourceError, match="not affine in the parameter 'a'"):
            qcomp.read(bad)


def measured() -> Circuit:
    circuit = Circuit(
        3,
        3,
        qregs=[RegisterDecl("data", 2, 0), RegisterDecl("Anc", 1, 2)],
        cregs=[RegisterDecl("m", 1, 0), RegisterDecl("out", 2, 1)],
    )
    circuit.ry(0.7, 2)
    circuit.measure(2, 0)
    with circuit.if_(Bit(0)):
        circuit.ry(1.1, 0)
        circuit.gphase(0.2)
    with circuit.else_():
        circuit.x(1)
    circuit.barrier(0, 1)
    with circuit.if_(Binary("==", Register("m"), Lit(0))):
        circuit.cx(0, 1)
    circuit.reset(2)
    circuit.measure(0, 1)
    circuit.measure(1, 2)
    return circuit


@pytest.mark.parametrize("host", ["pytket", "cirq"])
def test_measurements_resets_and_conditions_keep_their_distribution(host: str) -> None:
    circuit = measured()
    again = back(out(circuit, host), host)
    assert np.allclose(bit_distribution(again, None), bit_distribution(circuit, None), atol=1e-12)
    assert any(isinstance(item, If) for item in again.body)


def test_the_hosts_themselves_run_what_they_are_given() -> None:
    circuit = measured()
    meant = bit_distribution(circuit, None)[0]
    found = cirq.Simulator(seed=1).run(circuit.to_cirq(), repetitions=500).measurements
    bits = np.concatenate([found["m"], found["out_0"], found["out_1"]], axis=1) @ [1, 2, 4]
    assert np.abs(np.bincount(bits, minlength=8) / 500 - meant).max() < 0.1
    host = circuit.to_pytket()
    assert {r.name for r in host.q_registers} == {"data", "qAnc"}
    assert host.n_gates_of_type(OpType.Measure) == 3
    conditional = [c for c in host.get_commands() if c.op.type == OpType.Conditional]
    assert len(conditional) == 4


def test_conditions_of_the_hosts_are_read() -> None:
    source = pytket.Circuit(2, 2).H(0).Measure(0, 0).H(0).Measure(0, 1)
    source.X(1, condition_bits=[0, 1], condition_value=2)
    source.Measure(1, 0)
    distribution = bit_distribution(Circuit.from_pytket(source), None)[0]
    assert distribution == pytest.approx([0.5, 0, 0.25, 0.25])
    q = cirq.LineQubit.range(3)
    circuit = cirq.Circuit(
        cirq.H(q[0]),
        cirq.X(q[1]),
        cirq.measure(q[0], q[1], key="m", invert_mask=(False, True)),
        cirq.X(q[2]).with_classical_controls("m"),
        cirq.measure(q[2], key="out"),
    )
    ours = Circuit.from_cirq(circuit)
    assert [r.name for r in ours.cregs] == ["m", "out"]
    assert bit_distribution(ours, None)[0] == pytest.approx([0.5, 0, 0, 0, 0, 0.5, 0, 0])


def test_repeated_circuits_of_cirq_are_unrolled() -> None:
    q = cirq.LineQubit.range(2)
    part = cirq.FrozenCircuit(cirq.X(q[0]) ** 0.3, cirq.CX(*q))
    source = cirq.Circuit(cirq.CircuitOperation(part).repeat(3))
    assert np.allclose(unitary(Circuit.from_cirq(source)), cirq_matrix(source))


def test_both_are_sources_of_the_compiler(tmp_path: Any) -> None:
    q = cirq.LineQubit.range(2)
    sources = [
        pytket.Circuit(2).H(0).CX(0, 1).CX(0, 1).measure_all(),
        cirq.Circuit(cirq.H(q[0]), cirq.CX(*q), cirq.CX(*q), cirq.measure(*q, key="m")),
    ]
    for number, source in enumerate(sources):
        artifact = qcomp.compile(source, target="ibm-heron", out=tmp_path / str(number))
        (circuit,) = artifact.circuits.values()
        assert circuit.stats().two_qubit == 0


def test_what_the_hosts_have_not_is_named() -> None:
    loop = Circuit(1)
    with loop.for_(ClassicalVar("i", "int", 32), (0, 1)):
        loop.x(0)
    both = Circuit(1, 2)
    both.measure(0, 0)
    with both.if_(Binary("&&", Bit(0), Unary("!", Bit(1)))):
        both.x(0)
    with both.else_():
        both.h(0)
    changing = Circuit(1, 1)
    changing.measure(0, 0)
    with changing.if_(Bit(0)):
        changing.x(0)
        changing.measure(0, 0)
    odd = Circuit(1, 1)
    odd.measure(0, 0)
    with odd.if_(Binary("<", Bit(0), Lit(1))):
        odd.x(0)
    for circuit, message in (
        (loop, "no counterpart of 'for'"),
        (both, "no 'else' of a condition on 2 bits"),
        (changing, "measures into the bit that it depends on"),
        (odd, "has no condition"),
    ):
        for host in ("pytket", "cirq"):
            with pytest.raises(TargetError, match=message):
                out(circuit, host)


def test_what_a_circuit_cannot_hold_is_counted() -> None:
    q = cirq.LineQubit(0)
    noisy = cirq.Circuit(
        cirq.depolarize(0.1)(q), cirq.depolarize(0.2)(q), cirq.amplitude_damp(0.1)(q)
    )
    with pytest.raises(SourceError, match=r"'AmplitudeDampingChannel' \(1\), 'Depol.*' \(2\)"):
        Circuit.from_cirq(noisy)
    with pytest.raises(SourceError, match="has 3 levels"):
        Circuit.from_cirq(
            cirq.Circuit(cirq.X(q), cirq.IdentityGate(qid_shape=(3,))(cirq.LineQid(1, 3)))
        )
    classical = pytket.Circuit(1, 2)
    classical.add_c_setbits([True, False], [0, 1])
    with pytest.raises(SourceError, match=r"'SetBits' \(1\)"):
        Circuit.from_pytket(classical)
    for read in (Circuit.from_cirq, Circuit.from_pytket):
        with pytest.raises(SourceError, match="a int is no"):
            read(3)


@pytest.mark.parametrize(("host", "package"), [("pytket", "pytket"), ("cirq", "cirq")])
def test_a_package_that_is_missing_is_named_with_its_extra(
    host: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(name=package)
        return original(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError, match=rf"pip install 'qcomp\[{host}\]'"):
        out(Circuit(1), host)


def test_parameters_of_ours_are_symbols_there() -> None:
    circuit = Circuit(1)
    circuit.rx(Parameter("x") * 2 + 0.5, 0)
    assert circuit.to_cirq().all_operations()
    assert cirq.parameter_names(circuit.to_cirq()) == {"x"}
    assert {symbol.name for symbol in circuit.to_pytket().free_symbols()} == {"x"}
