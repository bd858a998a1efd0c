"""QuantumLayer: values, gradients, training, and what torch asks of an operator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import qcomp
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer
from qcomp.nn.op import SEPARATOR, circuit_op
from qcomp.simulate import expectations, probabilities

torch.set_num_threads(1)


def ansatz(num_qubits: int = 3) -> Circuit:
    """Weights are declared before the data, so that the layer has to put them in order."""
    circuit = Circuit(num_qubits, name="ansatz")
    for q in range(num_qubits):
        circuit.rx(Parameter(f"w{q}"), q)
    for q in range(num_qubits):
        circuit.ry(Parameter(f"x{q}") + 0.5 * Parameter("w0"), q)
    for q in range(num_qubits - 1):
        circuit.cx(q, q + 1)
        circuit.rzz(2 * Parameter(f"x{q}"), q, q + 1)
    for q in range(num_qubits):
        circuit.u(Parameter(f"w{q}"), Parameter("v"), 0.3, q)
    return circuit


DATA = [f"x{q}" for q in range(3)]
OBSERVABLES = ["Z0", "0.5*X0*Y1 - Z2", "Y2"]


def test_values_are_the_expectation_values_of_data_and_weights() -> None:
    layer = QuantumLayer(ansatz(), DATA, OBSERVABLES, dtype=torch.float64)
    assert layer.input_names == ("x0", "x1", "x2")
    assert layer.weight_names == ("w0", "w1", "w2", "v")
    data = torch.randn(2, 5, 3, dtype=torch.float64)
    out = layer(data)
    assert out.shape == (2, 5, 3)
    named = dict(zip(layer.weight_names, layer.weight.tolist(), strict=True))
    for i in range(2):
        for j in range(5):
            values = named | dict(zip(DATA, data[i, j].tolist(), strict=True))
            row = [[values[name] for name in ansatz().params]]
            expected = expectations(ansatz(), row, OBSERVABLES)[0]
            assert np.abs(out[i, j].detach().numpy() - expected).max() < 1e-12


def test_float32_goes_in_and_out_and_is_computed_in_float64() -> None:
    layer = QuantumLayer(ansatz(), DATA, OBSERVABLES)
    data = torch.randn(7, 3)
    out = layer(data)
    assert out.dtype == torch.float32
    exact = layer.double()(data.double())
    assert (out.double() - exact).abs().max() < 1e-7


@pytest.mark.parametrize("probs", [False, True])
def test_gradients_pass_gradcheck_for_data_and_weights(probs: bool) -> None:
    layer = QuantumLayer(
        ansatz(), DATA, None if probs else OBSERVABLES, probs=probs, dtype=torch.float64
    )
    data = torch.randn(2, 2, 3, dtype=torch.float64, requires_grad=True)

    def call(data: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, {"weight": weight}, (data,))

    assert torch.autograd.gradcheck(call, (data, layer.weight))


def test_the_operator_passes_opcheck() -> None:
    layer = QuantumLayer(ansatz(), DATA, OBSERVABLES, dtype=torch.float64)
    data = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    observables = SEPARATOR.join(layer.observables)
    arguments = ([data, layer.weight], "ansatz", layer.qasm, "expval", observables, 0, 0)
    found = torch.library.opcheck(circuit_op, arguments)
    assert set(found.values()) == {"SUCCESS"}
    arguments = ([data, layer.weight], "ansatz", layer.qasm, "probs", "", 0, 0)
    assert set(torch.library.opcheck(circuit_op, arguments).values()) == {"SUCCESS"}


def test_torch_compile_gives_the_values_of_eager_mode() -> None:
    layer = QuantumLayer(ansatz(), DATA, OBSERVABLES)
    data = torch.randn(4, 3)
    compiled = torch.compile(layer, backend="aot_eager")
    assert torch.equal(compiled(data), layer(data))
    compiled(data).sum().backward()
    found = layer.weight.grad
    layer.weight.grad = None
    layer(data).sum().backward()
    assert torch.allclose(found, layer.weight.grad)


@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam, torch.optim.RMSprop])
def test_any_torch_optimizer_trains_the_weights(optimizer: type) -> None:
    torch.manual_seed(0)
    layer = QuantumLayer(ansatz(), DATA, ["Z0"], weights=[0.4, 0.2, -0.3, 0.1])
    data = torch.randn(16, 3)
    step = optimizer(layer.parameters(), lr=0.05)
    losses = []
    for _ in range(25):
        loss = ((layer(data) - 0.2) ** 2).mean()
        step.zero_grad()
        loss.backward()
        step.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_probabilities_sum_to_one_and_are_those_of_the_simulator() -> None:
    layer = QuantumLayer(ansatz(), DATA, probs=True, dtype=torch.float64)
    out = layer(torch.zeros(1, 3, dtype=torch.float64)).detach().numpy()
    named = dict(zip(layer.weight_names, layer.weight.tolist(), strict=True))
    row = [[named.get(name, 0.0) for name in ansatz().params]]
    assert out.shape == (1, 8)
    assert np.abs(out - probabilities(ansatz(), row)).max() < 1e-12


def test_shots_are_seeded_and_the_gradient_is_the_exact_one() -> None:
    exact = QuantumLayer(ansatz(), DATA, OBSERVABLES, weights=[0.1, 0.2, 0.3, 0.4])
    noisy = QuantumLayer(ansatz(), DATA, OBSERVABLES, weights=[0.1, 0.2, 0.3, 0.4], shots=400)
    data = torch.randn(6, 3)
    difference = (noisy(data) - exact(data)).abs().max().item()
    assert 0 < difference < 6 * 1.5 / math.sqrt(400)
    assert torch.equal(noisy(data), noisy(data))
    noisy(data).sum().backward()
    exact(data).sum().backward()
    assert torch.equal(noisy.weight.grad, exact.weight.grad)


def test_openqasm_text_and_a_qiskit_circuit_make_the_same_layer() -> None:
    from qiskit import QuantumCircuit
    from qiskit.circuit import ParameterVector

    x, w = ParameterVector("x", 2), ParameterVector("w", 2)
    theirs = QuantumCircuit(2)
    for q in range(2):
        theirs.ry(x[q], q)
    theirs.cx(0, 1)
    for q in range(2):
        theirs.rx(w[q] + x[q] / 2, q)
    text = """OPENQASM 3.0; include "stdgates.inc";
    input float[64] x_0; input float[64] x_1; input float[64] w_0; input float[64] w_1;
    qubit[2] q; ry(x_0) q[0]; ry(x_1) q[1]; cx q[0], q[1];
    rx(w_0 + x_0 / 2) q[0]; rx(w_1 + x_1 / 2) q[1];"""
    weights = [0.3, -0.8]
    layers = [QuantumLayer(s, "x", ["Z0", "Y1"], weights=weights) for s in (theirs, text)]
    data = torch.randn(5, 2)
    assert torch.allclose(layers[0](data), layers[1](data), atol=1e-7)
    assert layers[0](data).std() > 0.01


def test_a_layer_without_data_is_a_trainable_constant() -> None:
    layer = QuantumLayer(ansatz(), [], ["Z0"])
    assert layer().shape == (1,)
    layer().backward()
    assert layer.weight.grad is not None
    with pytest.raises(UsageError, match="takes no data"):
        layer(torch.zeros(2, 3))


def test_a_layer_without_weights_is_an_encoding() -> None:
    circuit = Circuit(1)
    circuit.ry(Parameter("x"), 0)
    layer = QuantumLayer(circuit, ["x"])
    assert layer.weight.numel() == 0
    assert torch.allclose(layer(torch.tensor([[0.3]])), torch.tensor([[math.cos(0.3)]]))


def test_an_empty_batch_gives_an_empty_result_and_no_gradient() -> None:
    for probs, width in ((False, 3), (True, 8)):
        layer = QuantumLayer(ansatz(), DATA, None, probs=probs)
        out = layer(torch.zeros(0, 3))
        assert out.shape == (0, width)
        out.sum().backward()
        assert layer.weight.grad.abs().sum() == 0


def test_a_second_derivative_is_refused_and_never_wrong() -> None:
    layer = QuantumLayer(ansatz(), DATA)
    data = torch.randn(2, 3, requires_grad=True)
    (first,) = torch.autograd.grad(layer(data).sum(), data, create_graph=True)
    with pytest.raises(RuntimeError):
        first.sum().backward()


def test_wrong_arguments_are_refused_with_the_name_that_was_meant() -> None:
    with pytest.raises(UsageError, match="has no parameter 'x9'"):
        QuantumLayer(ansatz(), ["x9"])
    with pytest.raises(UsageError, match="named twice"):
        QuantumLayer(ansatz(), ["x0", "x0"])
    with pytest.raises(UsageError, match="acts on qubit 5"):
        QuantumLayer(ansatz(), DATA, ["Z5"])
    with pytest.raises(UsageError, match="observables or probs"):
        QuantumLayer(ansatz(), DATA, ["Z0"], probs=True)
    with pytest.raises(UsageError, match="4 weights"):
        QuantumLayer(ansatz(), DATA, weights=[1.0])
    with pytest.raises(UsageError, match="is not made from a int"):
        QuantumLayer(3, DATA)
    with pytest.raises(UsageError, match="needs a circuit with parameters"):
        QuantumLayer(Circuit(1))
    with pytest.raises(UsageError, match=r"floating point \[\.\.\., 3\]"):
        QuantumLayer(ansatz(), DATA)(torch.zeros(2, 4))
    measured = Circuit(1, 1, params=("x",))
    measured.measure(0, 0)
    measured.ry(Parameter("x"), 0)
    with pytest.raises(UsageError, match="needs a unitary circuit"):
        QuantumLayer(measured, ["x"])


def test_qasm_inside_the_layer_reads_back_to_the_same_values() -> None:
    from qcomp.nn import op

    layer = QuantumLayer(ansatz(), DATA, OBSERVABLES)
    data = torch.randn(3, 3)
    before = layer(data)
    op._known.clear()
    assert torch.allclose(layer(data), before, atol=1e-7)


def test_equal_rows_run_once_and_the_result_stands_at_every_one_of_them() -> None:
    from qcomp.simulate.distinct import on_distinct_rows

    seen: list[np.ndarray] = []

    def double(rows: np.ndarray) -> np.ndarray:
        seen.append(rows)
        return 2 * rows

    same_start = np.array([[1.0, 2.0], [1.0, 3.0], [1.0, 2.0], [0.0, 3.0], [1.0, 3.0]])
    assert np.array_equal(on_distinct_rows(same_start, double), 2 * same_start)
    assert np.array_equal(on_distinct_rows(np.ones((4, 2)), double), np.full((4, 2), 2.0))
    different = np.array([[1.0, 2.0], [1.0, 3.0]])
    assert np.array_equal(on_distinct_rows(different, double), 2 * different)
    assert [len(rows) for rows in seen] == [3, 1, 2]


def test_the_modules_are_there_once_the_package_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(qcomp, "nn", raising=False)
    assert qcomp.nn.QuantumLayer is QuantumLayer
