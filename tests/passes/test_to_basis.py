"""to-basis: every identity, every gate into many bases, and what cannot be made."""

import math

import numpy as np
import pytest

from qcomp.errors import TargetError, UsageError
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Bit
from qcomp.ir.definitions import parse_definition
from qcomp.ir.gates import GATES, gate
from qcomp.ir.program import Program
from qcomp.passes.map.rules import RULES, Translation
from qcomp.passes.map.to_basis import ToBasis
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import for_basis
from qcomp.simulate import unitary
from qcomp.target import get_target
from tests.generators import straight_circuit
from tests.ir.dense import dense, embed

BASES = (
    ("cz", "rz", "sx", "x"),
    ("cx", "rz", "sx", "x"),
    ("ecr", "rz", "sx", "x"),
    ("cx", "u"),
    ("cz", "u"),
    ("h", "rz", "cx"),
    ("rzz", "r", "rz"),
    ("rxx", "rx", "ry"),
    ("rzx", "rx", "ry"),
    ("cx", "p", "h"),
    ("cz", "rx", "rz"),
    ("cy", "rz", "sx"),
    ("cp", "rz", "sx"),
    ("ryy", "rz", "rx"),
)
UNITARY = [g.name for g in GATES if g.is_unitary and g.num_qubits != 0]


@pytest.mark.parametrize(("name", "text"), RULES)
def test_rule_is_an_identity_with_its_phase(name: str, text: str) -> None:
    row = gate(name)
    values = dict(
        zip("tplg", np.random.default_rng(0).uniform(-3, 3, row.num_angles), strict=False)
    )
    total = np.eye(2**row.num_qubits, dtype=complex)
    for step in parse_definition(text):
        angles = [float(angle.bind(values)) for angle in step.angles]
        total = embed(step.gate.matrix(*angles), step.qubits, row.num_qubits) @ total
    assert np.allclose(total, row.matrix(*values.values()), atol=1e-12)


@pytest.mark.parametrize("basis", BASES, ids="-".join)
def test_every_gate_of_the_table_can_be_made_symbols_included(basis: tuple[str, ...]) -> None:
    for name in UNITARY:
        row = gate(name)
        n = row.num_qubits if row.num_qubits > 0 else 4
        circuit = Circuit(n, params=("a", "b"))
        a, b = Parameter("a"), Parameter("b")
        angles = [a, 0.5 * b - a, pi_fraction(1, 4) + b, 0.3 - a][: row.num_angles]
        circuit.append(name, tuple(reversed(range(n))), angles)
        result = ToBasis(basis).run(circuit, Context())
        assert {g for g, _, _ in result.run.operations()} <= set(basis), name
        values = {"a": 0.77, "b": -2.1}
        assert np.allclose(dense(circuit, **values), dense(result, **values), atol=1e-12), name


def test_symbolic_u_is_five_gates_on_ibm() -> None:
    a, b, c = (Parameter(name) for name in "abc")
    circuit = Circuit(1, params=("a", "b", "c")).u(a, b, c, 0)
    result = ToBasis(("cz", "rz", "sx", "x")).run(circuit, Context())
    assert [name for name, _, _ in result.run.operations()] == ["rz", "sx", "rz", "sx", "rz"]
    assert result.global_phase.terms == (("b", 0.5), ("c", 0.5))


def test_circuit_in_the_basis_comes_back_itself() -> None:
    circuit = Circuit(2, 2).cz(0, 1).sx(0).measure(0, 0).barrier().reset(1)
    assert ToBasis(("cz", "rz", "sx", "x")).run(circuit, Context()) is circuit


def test_bodies_of_control_flow_are_written_too() -> None:
    circuit = Circuit(2, 1).measure(0, 0)
    with circuit.if_(Bit(0)):
        circuit.h(1)
    result = ToBasis(("cz", "rz", "sx", "x")).run(circuit, Context())
    assert [name for name, _, _ in result.runs()[1].operations()] == ["rz", "sx", "rz", "gphase"]


def test_gate_that_cannot_be_made_is_named() -> None:
    with pytest.raises(TargetError, match=r"'cx' cannot be made from the basis \[rz,sx\]"):
        ToBasis(("rz", "sx")).run(Circuit(2).cx(0, 1), Context())
    with pytest.raises(TargetError) as error:
        ToBasis(("rz", "sx")).run(Circuit(3).ccx(0, 1, 2), Context())
    assert "'ccx'" in error.value.where or "'ccx'" in error.value.what


def test_names_that_are_no_gates_are_refused() -> None:
    with pytest.raises(UsageError, match="'sxx'"):
        ToBasis(("rz", "sxx")).run(Circuit(1).h(0), Context())
    with pytest.raises(UsageError, match="no gates"):
        ToBasis().run(Circuit(1).h(0), Context())


def test_basis_of_the_target_is_the_default() -> None:
    context = Context(target=get_target("ibm-heron"))
    result = ToBasis().run(Circuit(1).h(0), context)
    assert [name for name, _, _ in result.run.operations()] == ["rz", "sx", "rz"]


@pytest.mark.parametrize("eighths", range(-8, 9))
@pytest.mark.parametrize("basis", [("h", "t", "cx"), ("h", "s", "sdg", "t", "tdg", "z", "cx")])
def test_basis_without_angles_writes_eighths_of_a_turn(eighths: int, basis) -> None:
    angle = pi_fraction(eighths, 4)
    circuit = Circuit(2).rz(angle, 0).rx(angle, 1).rzz(angle, 0, 1).p(angle, 1)
    result = ToBasis(basis).run(circuit, Context())
    assert {name for name, _, _ in result.run.operations()} <= set(basis)
    assert np.allclose(dense(circuit), dense(result), atol=1e-12)
    assert result.global_phase.rem == 0.0


def test_basis_without_angles_refuses_others_and_says_which() -> None:
    for angle in (0.3, pi_fraction(1, 8), Parameter("a")):
        circuit = Circuit(1, params=("a",)).rz(angle, 0)
        with pytest.raises(TargetError, match="rz"):
            ToBasis(("h", "t", "cx")).run(circuit, Context())
    with pytest.raises(TargetError):
        ToBasis(("h", "s", "cx")).run(Circuit(1).t(0), Context())


def test_cheapest_chain_is_found() -> None:
    cost = lambda basis, name: len(Translation.into(basis).of(name).steps)  # noqa: E731
    assert cost(("cz", "rz", "sx", "x"), "h") == 3
    assert cost(("cz", "h", "rz"), "cx") == 3
    assert cost(("ecr", "rz", "sx", "x"), "cx") <= 8
    assert cost(("cp", "rz", "sx"), "cz") == 1
    two = sum(
        gate(name).num_qubits == 2
        for name, _, _ in Translation.into(("rzz", "r", "rz")).of("rxx").steps
    )
    assert two == 1


@pytest.mark.parametrize(
    ("name", "one_qubit"), [("ibm-heron", "rz-sx-x"), ("portable", "h-x-y-z-s-t-rx-ry-rz")]
)
def test_pipelines_of_the_targets_are_those_for_their_basis(name: str, one_qubit: str) -> None:
    target = get_target(name)
    for effort in ("fast", "default", "max"):
        text = target.pipelines[effort].replace(" ", "")
        assert text == for_basis(target.basis, one_qubit, effort)


def test_more_effort_leaves_fewer_t_and_two_qubit_gates() -> None:
    total = {}
    for effort in ("fast", "default", "max"):
        stats = []
        for seed in range(1):
            program = Program.of_circuit(straight_circuit(4 * seed + 1, 60))
            text = for_basis(("cx", "rz", "sx", "x"), "rz-sx-x", effort)
            Pipeline.parse(text).run(program, Context())
            stats.append(program.only_circuit.stats())
        total[effort] = (sum(s.t_count for s in stats), sum(s.two_qubit for s in stats))
    before = [straight_circuit(4 * seed + 1, 60).stats().t_count for seed in range(1)]
    assert total["max"] <= total["default"] <= total["fast"]
    assert total["fast"][0] < sum(before)


def test_gates_on_few_qubits_can_be_let_stand() -> None:
    circuit = Circuit(3).rxx(0.5, 0, 1).u(0.1, 0.2, 0.3, 0).iswap(1, 2)
    assert ToBasis(max_qubits=2).run(circuit, Context()) is circuit
    result = ToBasis(("cx",), max_qubits=1).run(circuit, Context())
    assert {len(qubits) for name, qubits, _ in result.run.operations() if name != "cx"} == {1}
    wide = Circuit(4).mcx((0, 1, 2), 3)
    assert ToBasis(max_qubits=2).run(wide, Context()).stats().multi_qubit == 0


def test_rotations_by_parameters_stay_where_that_is_asked_and_others_get_names() -> None:
    circuit = Circuit(2).rz(Parameter("x"), 0).rx(Parameter("x"), 1).rz(3 * math.pi / 4, 0)
    gates = ("h", "x", "s", "t", "cx")
    with pytest.raises(TargetError, match="a parameter"):
        ToBasis(gates=gates).run(circuit, Context())
    new = ToBasis(gates=gates, symbols=True).run(circuit, Context())
    assert {name for name, _, _ in new.run.operations()} == {"h", "s", "t", "rz"}
    for x in (0.3, -2.0):
        assert np.allclose(unitary(new.bind([x])), unitary(circuit.bind([x])))
    with pytest.raises(TargetError, match="pi/4"):
        ToBasis(gates=gates, symbols=True).run(Circuit(1).rz(0.3, 0), Context())
