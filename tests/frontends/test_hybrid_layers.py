"""Quantum layers of any framework: captured by a table, swapped for the export, checked."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from qcomp.errors import SourceError
from qcomp.execute import HybridSession
from qcomp.frontends import hybrid_layers
from qcomp.frontends.torch_model import TorchFrontend
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.nn import QuantumLayer

torch.set_num_threads(1)


def rotations(gate: str = "ry") -> Circuit:
    circuit = Circuit(2, name="foreign")
    for q in range(2):
        circuit.ry(Parameter(f"x{q}"), q)
    circuit.cx(0, 1)
    for q in range(2):
        getattr(circuit, gate)(Parameter(f"w{q}"), q)
    return circuit


class Foreign(torch.nn.Module):
    """Another framework's layer: <Z0>, <Z1> of RY(x) CX RY(w), computed by hand, as it is traced.

    It counts its calls, as a layer that runs a device would.
    """

    def __init__(self) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(torch.randn(2))
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        a, b = torch.cos(x[..., 0]), torch.cos(x[..., 1])
        s, t = torch.sin(x[..., 0]), torch.sin(x[..., 1])
        first = torch.cos(self.theta[0]) * a - torch.sin(self.theta[0]) * s * t
        second = torch.cos(self.theta[1]) * a * b - torch.sin(self.theta[1]) * t
        return torch.stack([first, second], -1)


class Swapped(torch.nn.Module):
    """What a capturer of a test gives: the parameters stay under their names."""

    def __init__(self, layer: Foreign, circuit: Circuit) -> None:
        super().__init__()
        self.theta = layer.theta
        held = QuantumLayer(circuit, ["x0", "x1"])
        self.structure = held.qasm
        self.arguments = (circuit.name, held.qasm, "expval", "Z0;Z1", 0, 0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.ops.qcomp.circuit([x, self.theta], *self.arguments)


def capture(layer: Foreign, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.nn.Module:
    return Swapped(layer, rotations())


def capture_wrongly(
    layer: Foreign, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.nn.Module:
    return Swapped(layer, rotations("rx"))


def capture_baked(layer: Foreign, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.nn.Module:
    replacement = Swapped(layer, rotations())
    replacement.theta = torch.nn.Parameter(layer.theta.detach().clone())
    del replacement.structure
    return replacement


def capture_by_data(
    layer: Foreign, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> torch.nn.Module:
    return Swapped(layer, rotations("ry" if float(args[0].abs().max()) < 1 else "rx"))


@contextlib.contextmanager
def table(function: Any) -> Iterator[None]:
    name = f"{Foreign.__module__}.Foreign"
    hybrid_layers.CAPTURERS[name] = f"{__name__}:{function.__name__}"
    try:
        yield
    finally:
        del hybrid_layers.CAPTURERS[name]


class Model(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = torch.nn.Linear(3, 2)
        self.quantum = torch.nn.Sequential(Foreign(), torch.nn.Linear(2, 2), Foreign())
        self.again = self.quantum[0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.again(self.quantum(torch.tanh(self.front(x))))


def run(program: Program, x: np.ndarray) -> np.ndarray:
    outputs = HybridSession(program).run({program.model.graph.inputs[0].name: x})
    return np.asarray(outputs[program.model.graph.outputs[0].name])


def test_layers_of_a_table_become_circuits_and_a_shared_layer_keeps_one_weight() -> None:
    torch.manual_seed(1)
    model = Model().train()
    layers = dict(model.named_modules(remove_duplicate=False))
    with table(capture):
        program = TorchFrontend().read(model, example_inputs=torch.zeros(1, 3))
    assert dict(model.named_modules(remove_duplicate=False)) == layers
    assert model.training
    assert [vars(part).get("forward") for part in model.modules()] == [None] * 6
    assert len(program.circuit_nodes()) == 3
    assert list(program.circuits) == ["foreign"]
    weights = [name for name in program.model.graph.initializers if "theta" in name]
    assert len(weights) == 2
    assert [c.what for c in program.comparisons] == [
        "quantum layer 'quantum.0' (Foreign)",
        "quantum layer 'quantum.2' (Foreign)",
    ]
    for comparison in program.comparisons:
        assert comparison.rows == 9
        assert {dtype for dtype, _ in comparison.errors} == {"float32", "float64"}
        assert dict(comparison.errors)["float64"] < 1e-9
    x = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    with torch.no_grad():
        want = model(torch.from_numpy(x)).numpy()
    assert np.abs(run(program, x) - want).max() < 5e-6


def test_a_module_that_is_a_quantum_layer_runs_itself_in_the_check_alone() -> None:
    layer = Foreign()
    with table(capture):
        program = TorchFrontend().read(layer, example_inputs=torch.zeros(2, 2))
    assert len(program.circuit_nodes()) == 1
    assert layer.calls == 4


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (capture_wrongly, "differs from the original"),
        (capture_baked, "differs from the original"),
        (capture_by_data, "structure depends on data"),
    ],
)
def test_a_capture_that_is_not_the_layer_is_refused(function: Any, message: str) -> None:
    layer = Foreign()
    before = layer.theta.data_ptr()
    model = torch.nn.Sequential(layer)
    with table(function), pytest.raises(SourceError, match=message) as stop:
        TorchFrontend().read(model, example_inputs=torch.full((2, 2), 0.1))
    assert "'0' (Foreign)" in stop.value.where
    assert layer.theta.data_ptr() == before
    assert model[0] is layer


def test_an_unknown_layer_of_a_quantum_framework_is_refused_by_name() -> None:
    kind = type("QuLinear", (torch.nn.Module,), {"__module__": "torchquantum.layer"})
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), kind())
    with pytest.raises(SourceError, match=r"torchquantum\.layer\.QuLinear is not known") as stop:
        TorchFrontend().read(model, example_inputs=torch.zeros(2, 2))
    assert "'1'" in stop.value.where
    assert "__qcomp_circuit__" in stop.value.hint


def test_a_quantum_layer_in_a_plain_list_is_refused_with_what_to_do() -> None:
    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = Foreign()
            self.rest = [Foreign()]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.rest[0](self.first(x))

    with table(capture), pytest.raises(SourceError, match="not registered") as stop:
        TorchFrontend().read(Hidden(), example_inputs=torch.zeros(2, 2))
    assert "ModuleList" in stop.value.hint


def test_a_model_that_fails_on_its_examples_says_so() -> None:
    with table(capture), pytest.raises(SourceError, match="does not run on its example inputs"):
        TorchFrontend().read(Model(), example_inputs=torch.zeros(2, 5))
