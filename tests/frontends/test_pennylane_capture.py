"""PennyLane's quantum layers and QNodes: captured without their device, same values."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

qml = pytest.importorskip("pennylane")

import qcomp  # noqa: E402  behind the skip
from qcomp.errors import SourceError  # noqa: E402
from qcomp.execute import HybridSession  # noqa: E402
from qcomp.frontends.capture_check import compare  # noqa: E402
from qcomp.frontends.circuit_protocol import capture_protocol  # noqa: E402
from qcomp.frontends.pennylane_capture import CapturedQNode  # noqa: E402
from qcomp.frontends.torch_model import TorchFrontend  # noqa: E402
from qcomp.ir.program import Program  # noqa: E402

torch.set_num_threads(1)


def qnode(function: Callable[..., Any], wires: Any = 3, **options: Any) -> Any:
    return qml.QNode(function, qml.device("default.qubit", wires=wires), **options)


def data(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=random, dtype=torch.float64) * 2 - 1


X = data(4, 3)
W = data(2, 3, 3, seed=1)


def entangling(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AngleEmbedding(x, wires=range(3))
    qml.StronglyEntanglingLayers(w, wires=range(3))
    return [qml.expval(qml.Z(i)) for i in range(3)]


def basic_layers(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AngleEmbedding(x, wires=range(3), rotation="Y")
    qml.BasicEntanglerLayers(w[:, :, 0], wires=range(3))
    return qml.expval(qml.Z(0) @ qml.X(2))


def products(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.IQPEmbedding(x, wires=range(3), n_repeats=2)
    qml.RandomLayers(w[0], wires=range(3), seed=3)
    return qml.probs(wires=[2, 0])


def expressions(x: torch.Tensor, w: torch.Tensor) -> Any:
    for i in range(3):
        qml.RX(torch.arctan(x[:, i]) * w[0, i, 0], wires=i)
        qml.RY(2 * x[:, i] - 0.5 * w[0, i, 1] + math.pi / 2, wires=i)
        qml.RZ(torch.exp(w[1, i, 0]), wires=i)
        qml.CNOT(wires=[i, (i + 1) % 3])
    return qml.expval(qml.Hamiltonian([0.5, -1.5, 2.0], [qml.Z(0), qml.X(1) @ qml.Y(2), qml.I(0)]))


def many_gates(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.Hadamard(0)
    qml.U2(x[:, 0], w[0, 0, 0], wires=0)
    qml.U3(x[:, 1], w[0, 0, 0], w[0, 0, 1], wires=1)
    qml.Rot(x[:, 2], w[0, 0, 2], w[1, 2, 2], wires=2)
    qml.CRot(x[:, 0], w[1, 0, 1], w[0, 1, 0], wires=[0, 1])
    qml.IsingXX(x[:, 1], wires=[0, 2])
    qml.IsingXY(w[0, 1, 1], wires=[1, 2])
    qml.IsingYY(w[0, 1, 2], wires=[1, 0])
    qml.PSWAP(x[:, 2], wires=[0, 1])
    qml.MultiRZ(x[:, 0], wires=[0, 1, 2])
    qml.PauliRot(w[1, 0, 0], "XYZ", wires=[2, 1, 0])
    qml.ECR(wires=[0, 1])
    qml.ISWAP(wires=[1, 2])
    qml.SISWAP(wires=[0, 2])
    qml.adjoint(qml.S)(0)
    qml.adjoint(qml.StronglyEntanglingLayers)(w, wires=range(3))
    qml.ctrl(qml.RX, control=[0, 1], control_values=[1, 0])(x[:, 1], wires=2)
    qml.MultiControlledX(wires=[0, 1, 2], control_values=[0, 1])
    qml.CSWAP(wires=[0, 1, 2])
    qml.evolve(qml.X(0) @ qml.Z(1), x[:, 2])
    qml.GlobalPhase(x[:, 0])
    qml.ctrl(qml.GlobalPhase(w[1, 1, 1]), 0)
    qml.SX(0)
    qml.CH([1, 0])
    return (
        qml.probs(op=qml.X(1)),
        qml.expval(qml.Projector([1, 0], wires=[0, 2])),
        qml.var(qml.Y(1)),
    )


def several(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AngleEmbedding(x, wires=range(3), rotation="Y")
    qml.SimplifiedTwoDesign(w[0, :, 0], w[:, :2, :2], wires=range(3))
    return {
        "mean": qml.expval(qml.Hermitian(np.array([[1, 2 - 1j], [2 + 1j, -1]]), wires=1)),
        "all": [qml.probs(), qml.expval(qml.Z(0)), qml.var(0.5 * qml.Z(0) + qml.X(1) @ qml.Z(2))],
    }


def one_row(x: torch.Tensor, w: torch.Tensor) -> Any:
    for i in range(3):
        qml.RX(x[0, i], wires=i)
    qml.QFT(wires=range(3))
    qml.ArbitraryUnitary(w.reshape(-1)[:15], wires=[0, 1])
    return qml.expval(qml.Y(0))


def measured(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    qml.Hadamard(1)
    first = qml.measure(0, reset=True)
    second = qml.measure(1)
    qml.cond(first, qml.RY, qml.RZ)(w[0, 0, 0], wires=2)
    qml.cond(first & ~second, qml.CNOT)(wires=[2, 0])
    qml.cond(first + second == 1, qml.RX)(x[:, 1], wires=1)
    return (
        qml.expval(qml.Z(2)),
        qml.probs(wires=[1, 2]),
        qml.probs(op=[second, first]),
        qml.expval(2 * first + second),
    )


CASES = [entangling, basic_layers, products, expressions, many_gates, several, one_row, measured]


@pytest.mark.parametrize("function", CASES, ids=lambda f: f.__name__)
def test_a_qnode_is_captured_with_all_that_it_returns(function: Callable[..., Any]) -> None:
    node = qnode(function, wires=None if function is measured else 3)
    captured = CapturedQNode(node, (X, W), {})
    for seed in (5, 6):
        x, w = 3 * data(5, 3, seed=seed), 3 * data(2, 3, 3, seed=seed + 10)
        want, got = node(x, w), captured(x, w)
        assert type(got) is type(want)
        assert set(compare(want, got)) <= {torch.float32, torch.float64}
        assert max(compare(want, got).values()) < 1e-9


def test_affine_angles_stay_in_the_circuit_and_others_become_slots() -> None:
    plain = CapturedQNode(qnode(entangling), (X, W), {})
    assert "angle_" not in plain.structure
    assert plain.structure.count("input float") == 3 + 18

    other = CapturedQNode(qnode(expressions), (X, W), {})
    assert other.structure.count("input float[64] angle_") == 6
    assert "2.0*x_1 - 0.5*w_0_1_1 + pi/2" in other.structure.replace("w_0_1_1*-0.5", "")


def test_a_transform_that_only_optimises_is_left_to_us() -> None:
    node = qml.transforms.merge_rotations(qml.transforms.cancel_inverses(qnode(entangling)))
    assert CapturedQNode(node, (X, W), {}).structure == (
        CapturedQNode(qnode(entangling), (X, W), {}).structure
    )


def nonlinear(inputs: torch.Tensor, weights: torch.Tensor, scale: torch.Tensor) -> Any:
    for i in range(3):
        qml.RY(torch.asin(torch.tanh(inputs[..., i])), wires=i)
        qml.RZ(torch.acos(inputs[..., i] ** 2 / (1 + inputs[..., i] ** 2)), wires=i)
        qml.RX(scale * weights[0, i], wires=i)
    qml.BasicEntanglerLayers(weights, wires=range(3))
    return [qml.expval(qml.Z(i)) for i in range(3)]


class Reuploading(torch.nn.Module):
    """A TorchLayer used twice, one that returns probabilities, and a QNode called in forward."""

    def __init__(self) -> None:
        super().__init__()
        shapes = {"weights": (2, 3), "scale": ()}
        device = qml.device("lightning.qubit", wires=3)
        self.down = torch.nn.Linear(4, 3)
        layer = qml.QNode(nonlinear, device, diff_method="parameter-shift")
        self.layer = qml.qnn.TorchLayer(layer, shapes)
        self.probs = qml.qnn.TorchLayer(qnode(read_probs, [2, "a", 0]), {"weights": (2, 3)})
        self.theta = torch.nn.Parameter(torch.rand(3))
        self.up = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.layer(self.layer(torch.tanh(self.down(x))))
        x = self.probs(x)[:, ::2]
        x = torch.cat([x, x[:, :1] * 2], dim=1)

        @qml.qnode(qml.device("default.qubit"), interface="torch")
        def closed(angles: torch.Tensor, times: int) -> Any:
            for i in range(times):
                qml.RX(angles[:, i] * torch.exp(self.theta[i]), wires=f"q{i}")
            qml.CNOT(wires=["q0", "q1"])
            return [qml.expval(qml.Z("q1")), qml.expval(qml.Y("q2")), qml.expval(qml.Z("q0"))]

        return self.up(torch.stack(closed(x.double(), times=3), dim=1).float())


def read_probs(inputs: torch.Tensor, weights: torch.Tensor) -> Any:
    qml.AngleEmbedding(inputs, wires=[0, 2, "a"])
    qml.BasicEntanglerLayers(weights, wires=[2, 0, "a"])
    return qml.probs(wires=["a", 0])


def run(program: Program, x: np.ndarray) -> np.ndarray:
    outputs = HybridSession(program).run({program.model.graph.inputs[0].name: x})
    return np.asarray(outputs[program.model.graph.outputs[0].name])


@pytest.fixture(scope="module")
def model() -> Reuploading:
    torch.manual_seed(4)
    return Reuploading().eval()


@pytest.fixture(scope="module")
def program(model: Reuploading) -> Program:
    return TorchFrontend().read(model, example_inputs=torch.zeros(1, 4))


def test_a_model_of_layers_and_qnodes_computes_the_same_for_any_batch(
    model: Reuploading, program: Program
) -> None:
    assert [node.op_type for node in program.circuit_nodes()] == ["Circuit"] * 4
    assert sorted(program.circuits) == ["closed", "nonlinear", "read_probs"]
    assert str(program.model.graph.inputs[0].shape) == "[batch,4]"
    for rows in (1, 6):
        x = np.random.default_rng(rows).normal(size=(rows, 4)).astype(np.float32)
        with torch.no_grad():
            want = model(torch.from_numpy(x)).numpy()
        assert np.abs(run(program, x) - want).max() < 5e-6


def test_the_comparison_with_the_original_is_told(program: Program) -> None:
    names = [comparison.what for comparison in program.comparisons]
    assert names == [
        "the QNode 'closed'",
        "quantum layer 'layer' (TorchLayer)",
        "quantum layer 'probs' (TorchLayer)",
    ]
    assert all(dict(c.errors)["float64"] < 1e-9 for c in program.comparisons)


def test_samples_are_drawn_with_the_qnodes_shots() -> None:
    def bits(inputs: torch.Tensor, weights: torch.Tensor) -> Any:
        qml.RX(inputs[..., 0] * weights[0], wires="b")
        qml.CNOT(wires=["b", "a"])
        qml.X("c")
        return qml.sample(wires=["c", "a"])

    class Mean(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = torch.nn.Parameter(torch.tensor([0.5]))
            self.node = qml.set_shots(qnode(bits, ["a", "b", "c"]), 400)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.node(x, self.weights).double().mean(dim=1)

    x = torch.tensor([[0.0], [math.pi], [2 * math.pi]])
    program = TorchFrontend().read(Mean(), example_inputs=x)
    got = run(program, x.numpy())
    assert got.shape == (3, 2)
    assert np.array_equal(got[:, 0], np.ones(3))
    assert np.abs(got[:, 1] - [0.0, 0.5, 1.0]).max() < 0.1


def test_gradients_of_a_captured_qnode_are_pennylanes() -> None:
    for function in (expressions, products):
        node = qnode(function, diff_method="backprop")
        captured = CapturedQNode(node, (X, W), {})
        gradients = []
        for run_it in (node, captured):
            x, w = X.clone().requires_grad_(), W.clone().requires_grad_()
            (run_it(x, w) ** 2).sum().backward()
            gradients.append((x.grad, w.grad))
        for theirs, ours in zip(*gradients, strict=True):
            assert float((theirs - ours).abs().max()) < 1e-6


class Alone(torch.nn.Module):
    def __init__(self, node: Any) -> None:
        super().__init__()
        self.node = node
        self.w = torch.nn.Parameter(torch.full((2, 3), 0.3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.node(x, self.w)


def test_qnodes_of_one_function_that_makes_several_are_told_apart() -> None:
    def made(times: int) -> Any:
        @qml.qnode(qml.device("default.qubit", wires=2), interface="torch")
        def deep(x: torch.Tensor) -> Any:
            for _ in range(times):
                qml.RX(x[:, 0], wires=0)
            qml.RY(0.1 * times, wires=1)
            return [qml.expval(qml.Z(0)), qml.expval(qml.Z(1))]

        return deep

    class Deeper(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([v for n in (1, 3, 1) for v in made(n)(x.double())], 1).float()

    program = TorchFrontend().read(Deeper(), example_inputs=torch.zeros(1, 1))
    assert sorted(program.circuits) == ["deep", "deep_2"]
    x = torch.rand(3, 1)
    assert np.abs(run(program, x.numpy()) - Deeper()(x).numpy()).max() < 5e-6


class Foreign(qml.operation.Operation):
    """An operation that one device alone would know."""

    num_wires = 1
    num_params = 1


def foreign(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    Foreign(x[:, 1], wires=1)
    return qml.expval(qml.Z(0))


def branches(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    if x[0, 1] > 1.0:
        qml.X(1)
    return qml.expval(qml.Z(0))


def counts(x: torch.Tensor, w: torch.Tensor) -> Any:
    for wire in range(int(1 + w[0, 0].abs())):
        qml.RX(x[:, 0], wires=wire)
    return qml.expval(qml.Z(0))


def leaves_torch(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(float(x[0, 0]), wires=0)
    qml.RY(w[0, 0], wires=1)
    return qml.expval(qml.Z(0))


def leaves_torch_as_array(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(np.sin(x[:, 0].detach().numpy()), wires=0)
    qml.RY(w[0, 0], wires=1)
    return qml.expval(qml.Z(0))


def amplitudes(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.AmplitudeEmbedding(x, wires=range(2), normalize=True, pad_with=0.1)
    return qml.expval(qml.Z(0))


def noise(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    qml.DepolarizingChannel(0.1, wires=0)
    return qml.expval(qml.Z(0))


def chosen(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    qml.measure(0, postselect=1)
    return qml.expval(qml.Z(0))


def state(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    return qml.state()


def trained_observable(x: torch.Tensor, w: torch.Tensor) -> Any:
    qml.RX(x[:, 0], wires=0)
    return qml.expval(qml.Hamiltonian([w[0, 0], w[0, 1]], [qml.Z(0), qml.X(1)]))


def broken(x: torch.Tensor, w: torch.Tensor) -> Any:
    return qml.expval(qml.Z(0) @ undefined)  # noqa: F821


REFUSED = [
    (foreign, "operation Foreign", "one device"),
    (branches, "structure depends on data", "decision"),
    (counts, "structure depends on data", "decision"),
    (leaves_torch, "plain number that changes", r"float\(\)"),
    (leaves_torch_as_array, "plain number that changes", "numpy"),
    (amplitudes, "operation AmplitudeEmbedding", "amplitudes are data"),
    (noise, "DepolarizingChannel", "noise channel"),
    (chosen, r"measure\(postselect", "cannot choose"),
    (state, "returns state", "no expectation value"),
    (trained_observable, "coefficients of the observable", ""),
    (broken, "cannot be built", "NameError"),
]


@pytest.mark.parametrize(("function", "message", "why"), REFUSED, ids=lambda v: "")
def test_what_cannot_be_captured_is_refused_with_its_line(
    function: Callable[..., Any], message: str, why: str
) -> None:
    with pytest.raises(SourceError, match=message) as stop:
        TorchFrontend().read(Alone(qnode(function)), example_inputs=torch.full((2, 3), 0.2))
    assert re.search(why, stop.value.why + stop.value.hint)
    if "observable" not in message and function is not state:
        first = function.__code__.co_firstlineno
        line = re.search(r"line (\d+) of test_pennylane_capture.py", stop.value.where)
        assert line is not None, stop.value.where
        assert first < int(line[1]) <= first + 4
    assert function.__name__ in stop.value.where


def test_a_captured_module_trains_the_weights_of_the_original(model: Reuploading) -> None:
    import qcomp.nn

    torch.manual_seed(7)
    original = torch.nn.Sequential(torch.nn.Linear(2, 3), model.probs, torch.nn.Dropout(0.5))
    before = original[1].weights.detach().clone()
    fast = qcomp.nn.capture(original, torch.zeros(2, 2))
    assert [id(p) for p in fast.parameters()] == [id(p) for p in original.parameters()]
    assert fast.training
    assert original[1] is model.probs
    optimizer = torch.optim.SGD(fast.parameters(), lr=0.02)
    fast.eval()
    x = torch.rand(8, 2)
    first = fast(x)[:, 0].sum()
    first.backward()
    optimizer.step()
    assert not torch.equal(original[1].weights, before)
    assert fast(x)[:, 0].sum().item() < first.item()
    with torch.no_grad():
        assert float((original.eval()(x) - fast(x)).abs().max()) < 5e-6
        original[1].weights.copy_(before)


def test_the_examples_of_the_document_run() -> None:
    text = (Path(__file__).parents[2] / "docs" / "hybrid.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        exec(compile(block, "hybrid.md", "exec"), names)
    assert names["scores"].shape == (5, 3)
    assert len(CapturedQNode(names["circuit"], (X[:, :2], names["layer"].weights), {}).structure)
    layer = names["Reuploading"]()
    x = torch.rand(6, 1)
    stated = capture_protocol(layer, (x,), {})
    assert compare(layer(x), stated(x))[torch.float32] < 5e-6


def test_a_weight_that_pennylane_does_not_read_is_refused() -> None:
    layer = qml.qnn.TorchLayer(qnode(read_probs, [2, "a", 0]), {"weights": (2, 3)})
    layer.weights = torch.nn.Parameter(layer.weights.detach() + 1)
    with pytest.raises(SourceError, match="weight 'weights' is not the one") as stop:
        qcomp.read(layer, example_inputs=torch.rand(2, 3))
    assert "qnode_weights" in stop.value.hint
    layer.qnode_weights["weights"] = layer.weights
    assert qcomp.read(layer, example_inputs=torch.rand(2, 3)).circuits


def test_the_twin_of_a_model_is_captured_as_the_model_is(model: Reuploading) -> None:
    import qcomp.nn

    original = torch.nn.Sequential(torch.nn.Linear(2, 3), model.layer).eval()
    x = torch.rand(4, 2)
    program = qcomp.read(qcomp.nn.capture(original, x), example_inputs=x)
    (got,) = HybridSession(program).run({"input": x.numpy()}).values()
    with torch.no_grad():
        assert np.abs(got - original(x).numpy()).max() < 5e-6


def test_a_model_that_draws_samples_is_compiled() -> None:
    def bits(inputs: torch.Tensor) -> Any:
        qml.RX(inputs[..., 0], wires=0)
        return qml.sample(wires=[0, 1])

    class Drawn(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 2)
            self.head = torch.nn.Linear(2, 1)
            self.node = qml.set_shots(qnode(bits, [0, 1]), 500)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.node(self.linear(x)).float().mean(dim=1))

    drawn = Drawn().eval()
    x = torch.rand(8, 2)
    artifact = qcomp.compile(
        drawn, x, target="cpu-int8+ibm-heron", effort="fast", calibration={"x": x.numpy()}
    )
    with torch.no_grad():
        assert np.abs(artifact(x.numpy(), seed=2) - drawn(x).numpy()).max() < 0.2
