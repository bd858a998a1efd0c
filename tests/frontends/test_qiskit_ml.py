"""TorchConnectors of Qiskit Machine Learning on the operator ``qcomp::circuit``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from qiskit import ClassicalRegister, QuantumCircuit, QuantumRegister, transpile
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import (
    ZZFeatureMap,
    efficient_su2,
    pauli_feature_map,
    real_amplitudes,
    zz_feature_map,
)
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import Operator, Pauli, SparseObservable, SparsePauliOp, Statevector
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

import qcomp
from qcomp.errors import SourceError, UsageError
from qcomp.execute import HybridSession
from qcomp.frontends.qiskit_ml import capture_connector, exact_values

torch.set_num_threads(1)


def composed(feature_map: QuantumCircuit, ansatz: QuantumCircuit) -> dict[str, Any]:
    circuit = QuantumCircuit(feature_map.num_qubits)
    circuit.compose(feature_map, inplace=True)
    circuit.compose(ansatz, inplace=True)
    return {
        "circuit": circuit,
        "input_params": feature_map.parameters,
        "weight_params": ansatz.parameters,
    }


def zz(qubits: int = 3) -> dict[str, Any]:
    return composed(zz_feature_map(qubits), real_amplitudes(qubits, reps=1))


def rotations(qubits: int = 2) -> dict[str, Any]:
    data = QuantumCircuit(qubits)
    for qubit, x in enumerate(ParameterVector("x", qubits)):
        data.ry(x, qubit)
    return composed(data, efficient_su2(qubits, reps=1))


def check(network: Any, seed: int = 0, rows: int = 3) -> torch.nn.Module:
    """Compare with the exact original in float64, and with the connector itself in float32."""
    torch.manual_seed(seed)
    layer = TorchConnector(network)
    captured = capture_connector(layer)
    assert captured.weight is layer.weight
    data = torch.randn(rows, network.num_inputs, dtype=torch.float64)
    with captured.exact():
        found = captured(data)
    meant = exact_values(layer, data)
    assert found.shape == meant.shape
    assert found.dtype == meant.dtype == torch.float64
    assert (found - meant).abs().max() <= 1e-9
    single = data.to(torch.float32)
    assert captured(single).dtype == layer(single[:1]).dtype == torch.float32
    gap = captured(single[:1]) - layer(single[:1])
    assert gap.abs().max() <= 5e-6
    return captured


OBSERVABLES = [
    None,
    [SparsePauliOp.from_list([("ZII", 0.5), ("XXY", -1.25), ("III", 2.0)]), Pauli("IYZ")],
    ["ZXZ", {"IIX": 0.25, "ZII": -1.0}],
]


@pytest.mark.parametrize("observables", OBSERVABLES, ids=("default", "sums", "others"))
def test_an_estimator_network_gives_the_same_for_any_observable(observables: Any) -> None:
    check(EstimatorQNN(**zz(), observables=observables))


def test_projectors_of_a_sparse_observable_are_taken() -> None:
    observables = [SparseObservable("01I"), SparseObservable("+lZ")]
    parts = zz()
    captured = capture_connector(TorchConnector(EstimatorQNN(**parts, observables=observables)))
    row = torch.randn(3)
    values = dict(zip(parts["input_params"], row.tolist(), strict=True))
    values |= dict(zip(parts["weight_params"], captured.weight.tolist(), strict=True))
    state = Statevector(parts["circuit"].assign_parameters(values))
    meant = [
        state.expectation_value(SparsePauliOp.from_sparse_observable(o)).real for o in observables
    ]
    assert captured(row).detach().numpy() == pytest.approx(meant, abs=5e-6)


def test_products_of_inputs_are_computed_at_once_and_enter_as_parameters() -> None:
    captured = check(EstimatorQNN(**zz(4)))
    ((_, columns, members),) = captured.groups
    assert len(members) == 6
    assert sorted(zip(*columns, strict=True)) == sorted(
        (i, j) if (i, j) in set(zip(*columns, strict=True)) else (j, i)
        for i in range(4)
        for j in range(i)
    )
    assert captured.circuit.params[-6:] == tuple(f"angle_{m}" for m in members)
    assert len(captured.circuit.params) == 4 + 8 + 6


def test_feature_maps_that_hide_their_angles_in_definitions_are_taken() -> None:
    check(EstimatorQNN(**composed(ZZFeatureMap(2, reps=1), real_amplitudes(2, reps=1))))
    pauli = pauli_feature_map(2, paulis=["Z", "Y", "ZX"], alpha=0.7)
    check(EstimatorQNN(**composed(pauli, real_amplitudes(2, reps=1))))


def test_every_function_of_a_parameter_expression_is_computed_as_qiskit_does() -> None:
    x, y, w = Parameter("x"), Parameter("y"), Parameter("w")
    circuit = QuantumCircuit(2, global_phase=x * y)
    small = (x / 9).sin()
    for angle in (
        x.sin() * y.cos() + w.tan(), small.arcsin() + small.arccos(), y.arctan() - 0.25,
        (y / 4).exp() * w, (x * x + 1).log(), abs(x - y) ** 0.5, x.sign() * w * w,
        x / (y * y + 2), 3 * x - 2 * w + 0.5, x.conjugate() ** 3,
    ):  # fmt: skip
        circuit.ry(angle, 0)
        circuit.cx(0, 1)
        circuit.rx(angle, 1)
    captured = check(EstimatorQNN(circuit=circuit, input_params=[y, x], weight_params=[w]), rows=5)
    assert captured.circuit.params[:3] == ("x", "w", "angle_0")


def test_parameters_that_only_expressions_use_leave_the_circuit() -> None:
    x = ParameterVector("x", 3)
    circuit = QuantumCircuit(1)
    circuit.ry(x[0] * x[2], 0)
    circuit.rx(2 * x[1], 0)
    captured = check(EstimatorQNN(circuit=circuit, input_params=x))
    assert captured.circuit.params == ("x_1", "angle_0")


PARITY: list[tuple[Callable[[int], Any], Any]] = [
    (lambda bits: f"{bits:b}".count("1") % 2, 2),
    (lambda bits: (bits % 2, min(bits // 2, 2)), (2, 3)),
    (lambda bits: np.int64(7 - bits), 8),
]


@pytest.mark.parametrize(("interpret", "shape"), PARITY, ids=("parity", "tuple", "reversed"))
def test_an_interpret_function_becomes_a_matrix(interpret: Any, shape: Any) -> None:
    check(SamplerQNN(**zz(), interpret=interpret, output_shape=shape))


def test_without_an_interpret_function_the_output_is_the_distribution() -> None:
    captured = check(SamplerQNN(**rotations()))
    assert captured.output is None
    assert captured.kind == "probs"


def test_measurements_at_the_end_may_go_into_any_bits_and_registers() -> None:
    parts = rotations(3)
    circuit = QuantumCircuit(
        QuantumRegister(3, "q"), ClassicalRegister(1, "a"), ClassicalRegister(1, "b")
    )
    circuit.compose(parts["circuit"], inplace=True)
    circuit.barrier()
    circuit.measure([2, 0], [0, 1])
    parts["circuit"] = circuit
    captured = check(SamplerQNN(**parts, interpret=lambda bits: bits, output_shape=4))
    assert captured.output.shape == (8, 4)


def test_a_network_transpiled_for_a_machine_reads_its_own_qubits() -> None:
    backend = GenericBackendV2(5, basis_gates=["rz", "sx", "x", "cx"], seed=1)
    parts = rotations()
    isa = transpile(parts["circuit"], backend, initial_layout=[3, 1], seed_transpiler=1)
    observable = SparsePauliOp(["ZI", "XY"]).apply_layout(isa.layout)
    parts["circuit"] = isa
    captured = check(EstimatorQNN(**parts, observables=observable))
    assert captured.circuit.num_qubits == 2
    captured = check(SamplerQNN(**parts, interpret=lambda bits: bits, output_shape=4), rows=1)
    assert captured.output.shape[1] == 4


def test_networks_without_data_or_without_weights_are_taken() -> None:
    ansatz = real_amplitudes(2, reps=1)
    layer = TorchConnector(EstimatorQNN(circuit=ansatz, weight_params=ansatz.parameters))
    captured = capture_connector(layer)
    assert torch.allclose(captured(), layer(), atol=5e-6)
    assert captured(torch.zeros(3, 0)).shape == (3, 1)
    data = zz_feature_map(2)
    check(EstimatorQNN(circuit=data, input_params=data.parameters))


def test_leading_axes_and_single_rows_have_the_shapes_of_the_connector() -> None:
    layer = TorchConnector(SamplerQNN(**rotations(), interpret=lambda b: b % 3, output_shape=3))
    captured = capture_connector(layer)
    for shape in ((2,), (1, 2), (2, 2, 2)):
        data = torch.randn(*shape)
        assert torch.allclose(captured(data), layer(data), atol=5e-6)
        assert captured(data).shape == layer(data).shape
    with pytest.raises(UsageError, match=r"takes \[..., 2\]"):
        captured(torch.zeros(3, 4))


def test_a_sparse_connector_becomes_dense() -> None:
    network = SamplerQNN(**rotations())
    network._sparse = True  # the constructor wants a package that only the original's values need
    layer = TorchConnector(network)
    assert layer.sparse
    captured = capture_connector(layer)
    data = torch.randn(3, 2)
    assert torch.allclose(captured(data).to_dense(), exact_values(layer, data).float(), atol=5e-6)


def test_gradients_reach_the_data_and_the_shared_weight() -> None:
    layer = TorchConnector(
        EstimatorQNN(**zz(2), input_gradients=True, observables=SparsePauliOp(["ZX"]))
    )
    captured = capture_connector(layer)
    data = torch.randn(2, 2, requires_grad=True)
    other = data.detach().clone().requires_grad_()
    layer(data).square().sum().backward()
    meant, layer.weight.grad = layer.weight.grad.clone(), None
    captured(other).square().sum().backward()
    assert torch.allclose(captured.weight.grad, meant, atol=1e-5)
    assert torch.allclose(other.grad, data.grad, atol=1e-5)


def sampler(interpret: Any, shape: Any = 2) -> SamplerQNN:
    return SamplerQNN(**rotations(), interpret=interpret, output_shape=shape)


def middle() -> SamplerQNN:
    parts = rotations()
    circuit = QuantumCircuit(2, 2)
    circuit.compose(parts["circuit"], inplace=True)
    circuit.measure([0, 1], [0, 1])
    circuit.h(0)
    parts["circuit"] = circuit
    return SamplerQNN(**parts)


def with_measurement() -> EstimatorQNN:
    parts = rotations()
    parts["circuit"] = parts["circuit"].measure_all(inplace=False)
    return EstimatorQNN(**parts)


def with_reset() -> EstimatorQNN:
    parts = rotations()
    parts["circuit"].reset(0)
    return EstimatorQNN(**parts)


def amplitudes() -> EstimatorQNN:
    from qiskit_machine_learning.circuit.library import raw_feature_vector

    return EstimatorQNN(**composed(raw_feature_vector(4), real_amplitudes(2)))


def with_branch() -> SamplerQNN:
    parts = rotations()
    circuit = QuantumCircuit(2, 2)
    circuit.compose(parts["circuit"], inplace=True)
    with circuit.if_test((circuit.clbits[0], 1)):
        circuit.x(0)
    parts["circuit"] = circuit
    return SamplerQNN(**parts)


def changing() -> SamplerQNN:
    state = [0]

    def interpret(bits: int) -> int:
        state[0] += 1
        return state[0] % 2

    return sampler(interpret)


def half_measured() -> SamplerQNN:
    parts = rotations()
    circuit = QuantumCircuit(2, 2)
    circuit.compose(parts["circuit"], inplace=True)
    circuit.measure(0, 1)
    parts["circuit"] = circuit
    return SamplerQNN(**parts)


def constant() -> EstimatorQNN:
    circuit = QuantumCircuit(1)
    circuit.h(0)
    return EstimatorQNN(circuit=circuit)


def power() -> EstimatorQNN:
    circuit = QuantumCircuit(1)
    circuit.rx(1.5 ** Parameter("w"), 0)
    return EstimatorQNN(circuit=circuit, weight_params=circuit.parameters)


def named(bits: int) -> float:
    return bits / 2


BAD: list[tuple[Callable[[], Any], str]] = [
    (lambda: sampler(named), r"'named'.* gives 0\.0 for 0, which is no integer"),
    (lambda: sampler(lambda bits: bits), r"gives 2 for 2, which is not in an output of shape \(2,"),
    (lambda: sampler(lambda bits: -1), "gives -1 for 0"),
    (lambda: sampler(lambda bits: 1 // (bits - 1)), "gives -1|fails for 1"),
    (lambda: sampler(lambda bits: {}[bits], 4), r"fails for 0(.|\n)*every bit string"),
    (changing, "the second time"),
    (middle, "'measure' of qubit 0 in the middle"),
    (with_measurement, "has a 'measure'"),
    (with_reset, "has a 'reset'"),
    (with_branch, "control flow: 'if'"),
    (half_measured, "never measures into classical bit 0"),
    (power, r"cannot state the angle .*1\.5"),
    (constant, "has no parameters"),
    (amplitudes, "cannot be taken apart|no definition"),
    (
        lambda: EstimatorQNN(**rotations(), observables=SparsePauliOp(["ZZ"], [1j])),
        "Non-Hermitian",
    ),
    (
        lambda: EstimatorQNN(**rotations(), observables=SparsePauliOp(["ZZ"], [Parameter("c")])),
        "an observable of .* SparsePauliOp",
    ),
    (
        lambda: EstimatorQNN(**rotations(), observables=Operator(Pauli("ZZ"))),
        "a Operator, is none for an estimator",
    ),
    (
        lambda: EstimatorQNN(**rotations(), observables=SparsePauliOp(["ZZZ"])),
        "on 3 qubits, the circuit on 2",
    ),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_captured_is_named(make: Callable[[], Any], message: str) -> None:
    layer = TorchConnector(make())
    with pytest.raises(SourceError, match=message):
        capture_connector(layer)


def test_an_interpret_function_over_too_many_qubits_is_refused() -> None:
    parts = rotations(16)
    layer = TorchConnector(SamplerQNN(**parts, interpret=lambda b: b % 128, output_shape=128))
    with pytest.raises(SourceError, match="65536 bit strings as 128 outputs"):
        capture_connector(layer)


def test_a_circuit_on_a_whole_machine_is_refused() -> None:
    parts = rotations(2)
    circuit = QuantumCircuit(127)
    circuit.compose(parts["circuit"], [40, 41], inplace=True)
    parts["circuit"] = circuit
    with pytest.raises(SourceError, match=r"on 127 qubits(.|\n)*before transpile"):
        capture_connector(TorchConnector(EstimatorQNN(**parts)))


class Hybrid(torch.nn.Module):
    """Two networks between linear layers; one of them twice, with one set of weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.before = torch.nn.Linear(5, 2)
        self.first = TorchConnector(EstimatorQNN(**rotations(), observables=["ZI", "IZ"]))
        parity = {"interpret": lambda bits: bits.bit_count() % 2, "output_shape": 2}
        self.second = TorchConnector(SamplerQNN(**zz(2), **parity))
        self.after = torch.nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.before(x)
        twice = self.first(self.first(x))
        return self.after(torch.cat([twice, self.second(x)], dim=-1))


def test_a_model_is_read_and_compiled_as_it_was_written() -> None:
    model = Hybrid()
    x = torch.randn(4, 5)
    meant = model(x).detach().numpy()
    program = qcomp.read(model, example_inputs=x[:2])
    (found,) = HybridSession(program).run({"x": x.numpy()}).values()
    assert np.abs(found - meant).max() <= 5e-6
    assert len(program.comparisons) == 2
    assert isinstance(model.first, TorchConnector)
    calibration = {"x": np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)}
    artifact = qcomp.compile(
        model, target="cpu-int8+ibm-heron", calibration=calibration, example_inputs=x[:2]
    )
    assert np.abs(artifact(x.numpy()) - meant).max() < 0.1


def test_other_networks_are_named() -> None:
    from qiskit_machine_learning.neural_networks import NeuralNetwork

    class Other(NeuralNetwork):
        def _forward(self, input_data: Any, weights: Any) -> Any:
            return input_data

        def _backward(self, input_data: Any, weights: Any) -> Any:
            return None, None

    with pytest.raises(SourceError, match="a TorchConnector around a Other"):
        capture_connector(TorchConnector(Other(1, 1, False, 1)))
