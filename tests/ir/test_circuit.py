"""Circuits: building, binding, inverting, controlling, composing, counting, verifying."""

from dataclasses import replace

import numpy as np
import pytest

from qcomp.errors import PassError, UsageError
from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.blocks import If
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Binary, Bit, Cast, Lit, Memory, Register, Unary, evaluate
from qcomp.ir.gates import GATES
from qcomp.ir.observable import Observable
from qcomp.ir.transform import operation_angles
from qcomp.ir.verify import verify
from tests.ir.dense import dense, embed


def every_gate(n: int = 4, seed: int = 0) -> Circuit:
    """A circuit that holds each unitary gate of the table at least once, with symbols."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(n, name="every")
    symbols = [Parameter("a"), Parameter("b")]
    for row in GATES:
        if not row.is_unitary or row.num_qubits == 0:
            continue
        arity = row.num_qubits if row.num_qubits > 0 else n
        qubits = rng.permutation(n)[:arity].tolist()
        angles = [
            symbols[k % 2] * float(rng.normal()) + float(rng.normal())
            for k in range(row.num_angles)
        ]
        circuit.append(row.name, qubits, angles)
    circuit.gphase(0.3)
    return circuit


VALUES = {"a": 0.61, "b": -1.4}


def test_inverse_multiplies_to_the_identity_with_symbols_and_phase() -> None:
    circuit = every_gate()
    product = dense(circuit.inverse(), **VALUES) @ dense(circuit, **VALUES)
    assert np.abs(product - np.eye(16)).max() < 1e-12
    verify(circuit.inverse())


def test_control_acts_on_the_half_where_the_control_is_one() -> None:
    circuit = every_gate(3)
    assert "mcx" in {name for name, _, _ in circuit.run.operations()}
    controlled = circuit.control()
    verify(controlled)
    plain, full = dense(circuit, **VALUES), dense(controlled, **VALUES)
    assert np.abs(full[1::2, 1::2] - plain).max() < 1e-12
    assert np.abs(full[0::2, 0::2] - np.eye(8)).max() < 1e-12


def test_binding_all_parameters_leaves_the_same_numbers() -> None:
    circuit = every_gate()
    row = [VALUES[name] for name in circuit.params]
    bound = circuit.bind(row)
    verify(bound)
    assert bound.params == ()
    assert np.allclose(circuit.angles_for(row), bound.angles_for([]), atol=1e-14)


def test_binding_some_parameters_keeps_the_others_free() -> None:
    circuit = every_gate().bind({"a": 0.61})
    verify(circuit)
    assert circuit.params == ("b",)
    assert np.abs(dense(circuit, b=-1.4) - dense(every_gate(), **VALUES)).max() < 1e-12


def test_binding_a_fraction_of_pi_stays_exact() -> None:
    circuit = Circuit(1).rz(2 * Parameter("x"), 0).bind({"x": np.pi / 8})
    assert operation_angles(circuit, circuit.run, 0) == (pi_fraction(1, 4),)


def test_unknown_parameters_and_wrong_lengths_are_refused() -> None:
    circuit = Circuit(1).rz(Parameter("x"), 0)
    with pytest.raises(UsageError, match="no parameter y"):
        circuit.bind({"y": 1.0})
    with pytest.raises(UsageError, match="1 parameters"):
        circuit.bind([1.0, 2.0])


def test_compose_runs_one_after_the_other_on_the_wires_named() -> None:
    first = Circuit(3).h(0).cx(0, 1).rz(Parameter("a"), 2)
    second = Circuit(2).cx(0, 1).rx(Parameter("b") + Parameter("a"), 1)
    both = first.compose(second, [2, 0])
    verify(both)
    expected = embed(dense(second, **VALUES), (2, 0), 3) @ dense(first, a=VALUES["a"])
    assert np.abs(dense(both, **VALUES) - expected).max() < 1e-12


def test_compose_moves_conditions_with_their_bits() -> None:
    first = Circuit(2, 3)
    second = Circuit(1, 2)
    with second.if_(Binary("==", Register("c"), Lit(2))):
        second.x(0)
    both = first.compose(second, [1], [2, 0])
    (item,) = both.body
    assert isinstance(item, If)
    registers = {"c": (0, 3)}
    for value in range(8):
        bits = [value >> i & 1 for i in range(3)]
        expected = bits[2] + 2 * bits[0] == 2
        assert evaluate(item.condition, Memory(bits, registers, {})) == expected


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda c: c.append("nothing", (0,)), "no gate 'nothing'"),
        (lambda c: c.append("hh", (0,)), "did you mean"),
        (lambda c: c.cx(0, 0), "same qubit twice"),
        (lambda c: c.h(9), "no qubit 9"),
        (lambda c: c.append("rz", (0,)), "takes 1 angles"),
        (lambda c: c.append("cx", (0,)), "acts on 2 qubits"),
        (lambda c: c.measure(0, 5), "no classical bit 5"),
        (lambda c: c.measure(0, 0).inverse(), "cannot be inverted"),
        (lambda c: c.measure(0, 0).control(), "cannot be controlled"),
    ],
)
def test_wrong_calls_of_the_builder_say_what_is_wrong(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call(Circuit(3, 1))


def test_stats_count_what_people_compare() -> None:
    circuit = Circuit(3, 1).h(0).t(0).cx(0, 1).ccx(0, 1, 2).rz(0.3, 2).rz(pi_fraction(1, 2), 1)
    circuit.barrier().measure(2, 0)
    stats = circuit.stats()
    assert (stats.gates, stats.two_qubit, stats.multi_qubit) == (6, 1, 1)
    assert (stats.t_count, stats.rotations) == (8, 9)
    assert (stats.depth, stats.two_qubit_depth, stats.measurements) == (6, 2, 1)


def test_stats_agree_with_qiskits_depth() -> None:
    from qiskit import QuantumCircuit

    rng = np.random.default_rng(3)
    ours, theirs = Circuit(5), QuantumCircuit(5)
    for _ in range(200):
        a, b = rng.permutation(5)[:2].tolist()
        if rng.random() < 0.5:
            ours.h(a)
            theirs.h(a)
        else:
            ours.cx(a, b)
            theirs.cx(a, b)
    assert ours.stats().depth == theirs.depth()
    assert ours.stats().two_qubit_depth == theirs.depth(lambda i: len(i.qubits) == 2)


def test_a_long_circuit_counts_the_same_compiled_and_plain() -> None:
    from qcomp.ir.run import Run

    small = Circuit(4).h(0).cx(0, 1).t(1).ccx(1, 2, 3).barrier().rz(0.2, 3)
    many = Circuit(4)
    many.append_item(Run.concat([small.run] * 2000))
    repeated = Circuit(4)
    for _ in range(3):
        repeated = repeated.compose(small)
    step = repeated.stats().depth - repeated.copy(body=(small.compose(small).run,)).stats().depth
    assert len(many) > 4096
    assert many.stats().depth == small.stats().depth + 1999 * step
    assert many.stats().gates == 2000 * small.stats().gates


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: replace(r, qubit=np.where(r.qubit == 1, 9, r.qubit)), "no wire"),
        (lambda r: replace(r, qubit=np.where(r.qubit == 1, 0, r.qubit)), "used twice"),
        (lambda r: replace(r, angle=np.full(len(r), -1, np.int32)), "no entries"),
        (lambda r: replace(r, angle=np.where(r.angle >= 0, 0, -1).astype(np.int32)), "share"),
        (lambda r: replace(r, rem=np.full(len(r.rem), np.nan)), "not finite"),
        (lambda r: replace(r, frac=np.full(len(r.frac), 1 << 61)), "not reduced"),
        (lambda r: replace(r, form=np.full(len(r.form), 7, np.int32)), "no row"),
        (lambda r: replace(r, code=np.full(len(r), 200, np.uint8)), "no gate"),
    ],
)
def test_the_verifier_names_the_broken_invariant_and_the_pass(spoil, message: str) -> None:
    circuit = Circuit(3).h(0).cx(0, 1).rz(Parameter("a"), 2).rx(0.2, 1)
    broken = circuit.copy(body=(spoil(circuit.run),))
    verify(circuit)
    with pytest.raises(PassError, match=message) as caught:
        verify(broken, after="some-pass")
    assert "some-pass" in str(caught.value)


def test_the_verifier_refuses_gaps_between_registers_and_double_names() -> None:
    gap = Circuit(3, qregs=[RegisterDecl("a", 1, 0), RegisterDecl("b", 1, 2)])
    with pytest.raises(PassError, match="gap"):
        verify(gap)
    twice = Circuit(2, params=("a",), qregs=[RegisterDecl("a", 2, 0)])
    with pytest.raises(PassError, match="two things"):
        verify(twice)


def test_equality_sees_every_entry() -> None:
    circuit = every_gate()
    assert circuit.equals(circuit.copy())
    assert not circuit.equals(every_gate(seed=1))
    other = every_gate()
    other.global_phase += Angle.of(0.1)
    assert not circuit.equals(other)


def test_merged_forms_are_the_sparse_product() -> None:
    circuit = Circuit(1)
    for angle in (Parameter("a"), 2 * Parameter("b"), Parameter("a") - Parameter("b")):
        circuit.rz(angle, 0)
    run = circuit.run
    forms, index = circuit.forms.combine(
        run.form, np.array([1.0, 1.0, -1.0]), np.array([0, 1, 0]), 3
    )
    column = circuit.params.index("b")
    assert forms.row(int(index[0])) == ((column, 1.0),)
    assert index[1] == run.form[1]
    assert index[2] == -1


def test_with_params_reorders_the_columns() -> None:
    circuit = Circuit(1).rz(Parameter("a") + 2 * Parameter("b"), 0)
    moved = circuit.with_params(("b", "unused", "a"))
    verify(moved)
    assert moved.angles_for([10.0, 99.0, 1.0])[0, 0] == 21.0


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        (Binary("/", Lit(-7), Lit(2)), -3),
        (Binary("%", Lit(-7), Lit(2)), -1),
        (Cast("int", 4, Lit(9)), -7),
        (Cast("uint", 4, Lit(-1)), 15),
        (Unary("~", Register("c")), 0b010),
        (Binary("&&", Bit(0), Unary("!", Bit(1))), True),
    ],
)
def test_classical_expressions_follow_the_language(expression, value: object) -> None:
    assert evaluate(expression, Memory([1, 0, 1], {"c": (0, 3)}, {})) == value


@pytest.mark.parametrize("text", ["Z0", "0.5*Z0*Z1 - X2", "-1.0*Y3 + 2.0", "1e-3*X0*Y1*Z2"])
def test_observables_print_and_parse(text: str) -> None:
    parsed = Observable.parse(text)
    assert Observable.parse(str(parsed)) == parsed


@pytest.mark.parametrize("text", ["", "Q0", "Z", "Z0*Z0", "Z0 +", "0.5 Z0 ("])
def test_what_is_no_observable_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        Observable.parse(text)
