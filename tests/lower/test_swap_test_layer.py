"""Layers by swap tests: overlaps with their signs."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from qcomp.constructions.swap_test import append_swap_test, bell_signs
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program
from qcomp.lowered import LoweredLayers
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import expectations, probabilities
from tests.lower.layer_models import change, graph_model, linear, lowered, outputs

RNG = np.random.default_rng(11)


def _states(qubits: int) -> tuple[np.ndarray, np.ndarray, Circuit]:
    """Return two random product states and the circuit that prepares both."""
    rng = np.random.default_rng(qubits)
    circuit = Circuit(2 * qubits + 1)
    states = []
    for register in range(2):
        state = np.ones(1)
        for i in range(qubits):
            theta = rng.uniform(0, np.pi)
            circuit.ry(theta, register * qubits + i)
            state = np.kron([np.cos(theta / 2), np.sin(theta / 2)], state)
        states.append(state)
    return states[0], states[1], circuit


@pytest.mark.parametrize("qubits", [1, 2, 3])
def test_both_forms_give_the_squared_overlap(qubits: int) -> None:
    first, second, circuit = _states(qubits)
    a, b = range(qubits), range(qubits, 2 * qubits)
    ancilla, bell = circuit.copy(), circuit.copy()
    append_swap_test(ancilla, a, b, 2 * qubits)
    append_swap_test(bell, a, b)
    exact = (first @ second) ** 2
    z = expectations(ancilla, None, [Observable.z(2 * qubits)])
    assert abs(float(np.asarray(z).reshape(-1)[0]) - exact) < 1e-9
    shares = np.asarray(probabilities(bell)).reshape(2, -1).sum(axis=0)  # the last qubit is idle
    assert abs(shares @ bell_signs(qubits) - exact) < 1e-9


def test_the_bell_form_takes_n_cx_where_the_ancilla_takes_at_least_seven_n() -> None:
    counts = {}
    for name, ancilla in (("bell", None), ("ancilla", 8)):
        circuit = Circuit(9)
        append_swap_test(circuit, range(4), range(4, 8), ancilla)
        program = Program.of_circuit(circuit)
        Pipeline.parse("to-basis{gates=[cx],max_qubits=1}").run(program, Context())
        counts[name] = program.only_circuit.stats().two_qubit
    assert counts["bell"] == 4
    assert counts["ancilla"] >= 7 * 4


def test_registers_of_two_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="registers of one size"):
        append_swap_test(Circuit(3), [0], [1, 2])


@pytest.mark.parametrize("form", ["bell", "ancilla"])
@pytest.mark.parametrize("shape", [(4, 2), (1, 1), (7, 1)])
def test_a_matrix_product_keeps_its_sign_and_norm(form: str, shape: tuple[int, int]) -> None:
    x = 3 * RNG.normal(size=(4, shape[0]))
    x[1] = 0
    model = linear(RNG.normal(size=shape), RNG.normal(size=shape[1]))
    assert change(model, f"node=fc,method=swap-test,form={form}", x) < 1e-6


def test_an_output_that_is_only_squared_takes_a_qubit_less_a_register() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"], name="fc"),
        helper.make_node("Mul", ["z", "z"], ["y"], name="square"),
    ]
    model = graph_model(nodes, {"w": RNG.normal(size=(4, 3))}, ["n", 4])
    x = RNG.normal(size=(3, 4))
    program, context = lowered(model, "node=fc,method=swap-test")
    layer = context.need(LoweredLayers, "lower-layer").layers[0]
    assert layer.qubits == 4
    assert "squared amplitudes only" in layer.restores
    assert change(model, "node=fc,method=swap-test", x) < 1e-6
    assert outputs(program, x).shape == (3, 3)
