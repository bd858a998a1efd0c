"""Qiskit circuits in and out: the same unitaries, parameters and control flow."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import (
    ClassicalRegister,
    Clbit,
    Gate,
    Parameter,
    ParameterVector,
    QuantumRegister,
    Qubit,
)
from qiskit.circuit.classical import expr, types
from qiskit.circuit.library import (
    C3XGate,
    CUGate,
    MCXGate,
    RZGate,
    UnitaryGate,
    XGate,
    efficient_su2,
    get_standard_gate_name_mapping,
)
from qiskit.circuit.random import random_circuit
from qiskit.quantum_info import Operator, random_unitary
from qiskit.synthesis import synth_qft_full

from qcomp.backends.qiskit_circuit import to_qiskit
from qcomp.errors import SourceError, TargetError
from qcomp.frontends.qiskit_circuit import QiskitFrontend, from_qiskit
from qcomp.ir.blocks import Box, Break, Delay, Duration, For, If, Range, Switch, While, walk_items
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Binary, Bit, Lit, Register, Unary, VarRef
from qcomp.ir.gates import GATES
from qcomp.ir.verify import verify
from qcomp.simulate import unitary
from tests.generators import branching_circuit, straight_circuit


def taken(circuit: QuantumCircuit) -> Circuit:
    result = from_qiskit(circuit)
    verify(result)
    return result


@pytest.mark.parametrize("seed", range(15))
def test_random_circuits_have_the_same_unitary_both_ways(seed: int) -> None:
    source = random_circuit(4, 8, max_operands=4, seed=seed)
    circuit = taken(source)
    meant = Operator(source).data
    assert np.allclose(unitary(circuit), meant, atol=1e-9)
    back = to_qiskit(circuit)
    assert np.allclose(Operator(back).data, meant, atol=1e-9)
    assert taken(back).equals(circuit)


@pytest.mark.parametrize(
    "name", [n for n, g in get_standard_gate_name_mapping().items() if isinstance(g, Gate)]
)
def test_every_standard_gate_of_qiskit_has_its_matrix(name: str) -> None:
    gate = get_standard_gate_name_mapping()[name]
    angles = {p: 0.3 + 0.4 * i for i, p in enumerate(gate.params)}
    source = QuantumCircuit(max(gate.num_qubits, 1))
    source.append(gate, range(gate.num_qubits))
    if angles:
        source = source.assign_parameters(angles)
    assert np.allclose(unitary(taken(source)), Operator(source).data, atol=1e-9)


@pytest.mark.parametrize("row", [g for g in GATES if g.is_unitary], ids=lambda g: g.name)
def test_every_gate_of_the_table_comes_back_as_itself(row) -> None:  # type: ignore[no-untyped-def]
    circuit = Circuit(3)
    size = row.num_qubits if row.num_qubits >= 0 else 3
    circuit.append(row.name, range(size), [0.25, -1.5, 0.125, 3.0][: row.num_angles])
    back = to_qiskit(circuit)
    assert np.allclose(Operator(back).data, unitary(circuit), atol=1e-12)
    assert np.allclose(unitary(taken(back)), unitary(circuit), atol=1e-12)
    if row.name in get_standard_gate_name_mapping():
        assert [name for name, _, _ in taken(back).run.operations()] == [row.name]


def test_controls_on_zero_and_library_gates_go_through_definitions() -> None:
    source = QuantumCircuit(5)
    source.append(XGate().control(2, ctrl_state=1), [0, 1, 2])
    source.append(MCXGate(4, ctrl_state=5), [0, 1, 2, 3, 4])
    source.append(C3XGate(), [4, 3, 2, 1])
    source.append(CUGate(0.1, 0.2, 0.3, 0.4, ctrl_state=0), [1, 3])
    source.append(RZGate(0.7).control(2, annotated=False), [0, 1, 2])
    source.append(UnitaryGate(random_unitary(4, seed=1)), [2, 0])
    source.append(synth_qft_full(3).to_gate(), [0, 2, 4])
    source.append(XGate().power(0.5), [3])
    circuit = taken(source)
    assert np.allclose(unitary(circuit), Operator(source).data, atol=1e-9)
    assert "mcx" in {name for name, _, _ in circuit.run.operations()}


def test_a_gate_that_only_has_a_known_name_is_not_taken_for_it() -> None:
    inner = QuantumCircuit(2, name="rzz", global_phase=0.5)
    inner.h(0)
    source = QuantumCircuit(2)
    source.append(inner.to_gate(), [1, 0])
    assert np.allclose(unitary(taken(source)), Operator(source).data, atol=1e-12)


def test_parameters_keep_their_order_and_their_affine_forms() -> None:
    theta, x = ParameterVector("theta", 11), Parameter("x")
    source = QuantumCircuit(2, global_phase=x / 2)
    source.rz(2 * theta[10] - theta[2] / 3 + np.pi / 4, 0)
    source.u(x, theta[0], 0.3, 1)
    source.compose(efficient_su2(2, reps=0, parameter_prefix="w"), inplace=True)
    source.append(QuantumCircuit(1, global_phase=x + 1).to_gate(), [0])
    circuit = taken(source)
    names = [p.name for p in source.parameters]
    assert circuit.params == tuple(n.replace("[", "_").replace("]", "") for n in names)
    rng = np.random.default_rng(0)
    values = rng.uniform(-3, 3, len(names))
    bound = source.assign_parameters(dict(zip(source.parameters, values.tolist(), strict=True)))
    assert np.allclose(unitary(circuit, values), Operator(bound).data, atol=1e-9)
    run = circuit.run
    assert run.frac[run.angle[0]] == 1 << 58  # pi/4 is exact


def test_an_angle_that_is_not_affine_is_refused_by_name() -> None:
    x, y = Parameter("x"), Parameter("y")
    for angle in (x * y, x.sin(), 1 / x, x**2):
        source = QuantumCircuit(1)
        source.rx(angle, 0)
        with pytest.raises(SourceError, match="not affine"):
            from_qiskit(source)


def test_all_that_cannot_be_kept_is_listed_with_counts() -> None:
    source = QuantumCircuit(2)
    for q in (0, 1):
        source.append(Gate("mystery", 1, []), [q])
    source.append(Gate("riddle", 2, []), [0, 1])
    with pytest.raises(SourceError, match=r"'mystery'.* \(2\).*'riddle'.* \(1\)"):
        from_qiskit(source)
    with pytest.raises(SourceError, match="QuantumCircuit"):
        from_qiskit("h q;")


def test_measurement_reset_barrier_and_delay_are_kept() -> None:
    source = QuantumCircuit(2, 2)
    source.h(0)
    source.barrier()
    source.reset(1)
    source.delay(2500, 1, "ps")
    source.delay(16, 0, "dt")
    source.measure([0, 1], [1, 0])
    circuit = taken(source)
    delays = [item for item in circuit.body if isinstance(item, Delay)]
    assert delays == [Delay(Duration(2.5, "ns"), (1,)), Delay(Duration(16.0, "dt"), (0,))]
    assert taken(to_qiskit(circuit)).equals(circuit)


def test_control_flow_is_kept() -> None:
    source = QuantumCircuit(QuantumRegister(2, "a"), ClassicalRegister(2, "m"))
    x = Parameter("x")
    source.measure(0, 0)
    with source.if_test((source.clbits[0], 0)) as otherwise:
        source.x(1)
    with otherwise:
        source.h(1)
        with source.while_loop((source.cregs[0], 2)):
            source.measure(1, 1)
            source.break_loop()
    with source.for_loop(range(4, -1, -2)):
        source.x(0)
    with source.for_loop(range(3)) as i:
        source.rx(i * 0.5 + x, 0)
    with source.switch(source.cregs[0]) as case:
        with case(0, 1):
            source.x(0)
        with case(case.DEFAULT):
            source.z(0)
    with source.box(duration=20, unit="ns"):
        source.y(0)
    with source.if_test(expr.logic_and(source.clbits[0], expr.less(source.cregs[0], 3))):
        source.z(1)
    circuit = taken(source)
    kinds = [item for item in circuit.body if not hasattr(item, "code")]
    condition, loop, switch, box, last = kinds
    assert isinstance(condition, If)
    assert condition.condition == Unary("!", Bit(0))
    inner = [item for item in walk_items(condition.orelse) if isinstance(item, While)]
    assert inner[0].condition == Binary("==", Register("m"), Lit(2))
    assert any(isinstance(item, Break) for item in inner[0].body)
    assert isinstance(loop, For)
    assert loop.values == Range(Lit(4), Lit(0), Lit(-2))
    assert isinstance(switch, Switch)
    assert switch.cases[0][0] == (0, 1)
    assert switch.default
    assert isinstance(box, Box)
    assert box.duration == Duration(20.0, "ns")
    assert isinstance(last, If)
    assert isinstance(last.condition, Binary)
    # The loop whose body uses its index is unrolled.
    assert sum(name == "rx" for run in circuit.runs() for name, _, _ in run.operations()) == 3
    assert taken(to_qiskit(circuit)).equals(circuit)


def test_a_condition_inside_a_body_with_bits_of_its_own_reads_the_outer_bits() -> None:
    body = QuantumCircuit(1, 1)
    with body.if_test((body.clbits[0], 0)):
        body.x(0)
    source = QuantumCircuit(2, 3)
    source.if_test((source.clbits[1], 1), body, [1], [2])
    (outer,) = taken(source).body
    assert isinstance(outer, If)
    assert outer.condition == Bit(1)
    (inner,) = outer.then
    assert isinstance(inner, If)
    assert inner.condition == Unary("!", Bit(2))
    (run,) = inner.then
    assert run.qubit[0, 0] == 1


def test_run_time_variables_are_kept() -> None:
    source = QuantumCircuit(1, 1)
    count = source.add_var("count", expr.lift(0, types.Uint(8)))
    with source.while_loop(expr.less(count, 3)):
        source.h(0)
        source.store(count, expr.bit_or(count, 1))
    circuit = taken(source)
    assert [(v.name, v.type, v.width) for v in circuit.variables] == [("count", "uint", 8)]
    (loop,) = [item for item in circuit.body if isinstance(item, While)]
    assert loop.condition == Binary("<", VarRef("count"), Lit(3))
    assert "count = count | 1;" in circuit.to_qasm3()


@pytest.mark.parametrize("seed", range(8))
def test_generated_circuits_survive_the_way_to_qiskit_and_back(seed: int) -> None:
    circuit = straight_circuit(seed)
    back = to_qiskit(circuit)
    assert [p.name for p in back.parameters] == [
        n for n in circuit.params if n in {p.name for p in back.parameters}
    ]
    values = {p: 0.3 + 0.7 * (p.name == "b") for p in back.parameters}
    meant = unitary(circuit.bind({"a": 0.3, "b": 1.0}))
    assert np.allclose(Operator(back.assign_parameters(values)).data, meant, atol=1e-9)
    flow = branching_circuit(seed)
    names = [type(item).__name__ for item in walk_items(taken(to_qiskit(flow)).body)]
    assert names.count("If") == sum(isinstance(i, If) for i in walk_items(flow.body))


def test_registers_keep_their_names_and_scattered_ones_become_one() -> None:
    source = QuantumCircuit(QuantumRegister(2, "left"), QuantumRegister(1, "right"))
    assert taken(source).qregs == (RegisterDecl("left", 2, 0), RegisterDecl("right", 1, 2))
    bits = [Qubit() for _ in range(3)]
    shared = QuantumCircuit(bits, [Clbit()])
    shared.add_register(QuantumRegister(bits=bits[1:], name="late"))
    shared.measure(2, 0)
    circuit = taken(shared)
    assert circuit.qregs == (RegisterDecl("q", 3, 0),)
    assert circuit.notes
    assert circuit.cregs == (RegisterDecl("c", 1, 0),)


def test_what_qiskit_has_not_is_named() -> None:
    circuit = Circuit(1)
    circuit.end()
    with pytest.raises(TargetError, match="end"):
        to_qiskit(circuit)


def test_the_frontend_knows_a_qiskit_circuit_without_importing_qiskit() -> None:
    frontend = QiskitFrontend()
    source = QuantumCircuit(1, name="mine")
    source.h(0)
    assert frontend.accepts(source)
    assert not frontend.accepts("h q;")
    program = frontend.read(source)
    assert next(iter(program.circuits.values())).run.operations().__next__()[0] == "h"
    assert Circuit.from_qiskit(source).to_qiskit() == source
