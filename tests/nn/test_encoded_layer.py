"""QuantumLayer with an encoding in front: values, gradients, training and compiled models."""

import numpy as np
import pytest
import torch

import qcomp
from qcomp.constructions.encodings import encoding
from qcomp.errors import UsageError
from qcomp.frontends.torch_model import TorchFrontend
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer
from qcomp.simulate import probabilities

torch.set_num_threads(1)

METHODS = ["angle", "dense-angle", "iqp", "zz", "reupload", "daruan", "amplitude", "hamiltonian"]


def ansatz() -> Circuit:
    circuit = Circuit(2, name="ansatz")
    circuit.ry(Parameter("x0"), 0).rx(Parameter("b"), 1).cx(0, 1)
    return circuit


def layer(method: str) -> QuantumLayer:
    torch.manual_seed(1)
    return QuantumLayer(ansatz(), encoding=method, probs=True, dtype=torch.float64)


def rows(count: int, features: int) -> np.ndarray:
    return np.random.default_rng(2).normal(size=(count, features))


@pytest.mark.parametrize("method", METHODS)
def test_the_values_are_those_of_the_circuit_behind_the_encoding(method: str) -> None:
    made = layer(method)
    found = encoding(method, 2)
    data = rows(5, made.in_features)
    split = found.slot_map.weights if found.slot_map else 0
    own = made.weight.detach().numpy()
    rest = len(found.weights) - split
    read = np.zeros(0) if made.encoding_weight is None else made.encoding_weight.detach().numpy()
    whole = found.circuit.compose(ansatz().bind(own[rest:].tolist()))
    wanted = probabilities(whole, found.parameters(data, np.concatenate([read, own[:rest]])))
    got = made(torch.from_numpy(data)).detach().numpy()
    assert np.abs(got - wanted).max() < 1e-9


@pytest.mark.parametrize("method", ["reupload", "daruan", "amplitude", "zz"])
def test_gradients_pass_through_the_classical_part(method: str) -> None:
    made = layer(method)
    data = torch.from_numpy(rows(2, made.in_features)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: made(x), (data,), atol=1e-6)
    made(data)[:, 0].sum().backward()
    if made.encoding_weight is not None:
        assert made.encoding_weight.grad is not None
        assert made.encoding_weight.grad.abs().max() > 0


@pytest.mark.parametrize("method", ["reupload", "daruan", "angle"])
def test_a_model_compiles_with_its_encoding_in_the_graph(method: str) -> None:
    made = layer(method).to(torch.float32)
    model = torch.nn.Sequential(torch.nn.Tanh(), made)
    data = rows(7, made.in_features).astype(np.float32)
    program = TorchFrontend().read(model, example_inputs=torch.from_numpy(data))
    name = program.model.graph.inputs[0].name
    artifact = qcomp.compile(program, target="cpu-int8+portable", calibration={name: data})
    (got,) = artifact.run({name: data}, shots=0).values()
    assert np.abs(got - model(torch.from_numpy(data)).detach().numpy()).max() < 1e-5


def test_the_weights_of_data_reuploading_learn_a_circle() -> None:
    """One qubit tells the inside of a circle from the outside: Perez-Salinas et al., section 6."""
    torch.manual_seed(0)
    circuit = Circuit(1, name="read")
    made = QuantumLayer(circuit, encoding=encoding("reupload", 1, 2, layers=4))
    data = torch.rand(200, 2) * 2 - 1
    wanted = torch.where((data**2).sum(-1) < 2 / torch.pi, 1.0, -1.0)
    optimizer = torch.optim.Adam(made.parameters(), lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        ((made(data)[:, 0] - wanted) ** 2).mean().backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (made(data)[:, 0].sign() == wanted).float().mean()
    assert accuracy > 0.9


def test_an_encoding_and_inputs_or_too_many_qubits_are_refused() -> None:
    with pytest.raises(UsageError, match="takes no names of inputs"):
        QuantumLayer(ansatz(), ["x0"], encoding="angle")
    with pytest.raises(UsageError, match="has 3 qubits, the circuit 2"):
        QuantumLayer(ansatz(), encoding=encoding("angle", 3))
    with pytest.raises(UsageError, match="did you mean 'angle'"):
        QuantumLayer(ansatz(), encoding="angel")
