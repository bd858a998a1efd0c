"""torchquantum's modules beside torchquantum, and beside values that it gave."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qcomp
from qcomp.errors import SourceError
from qcomp.frontends.torch_model import TorchFrontend
from qcomp.frontends.torchquantum_gates import GATES, gate_text
from qcomp.ir.circuit import Circuit
from qcomp.simulate import unitary
from tests import torchquantum_standin
from tests.data.make_torchquantum import FILE, classifier, original


@pytest.fixture(params=["original", "stand-in"])
def tq(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "stand-in":
        with torchquantum_standin.installed() as module:
            yield module
        return
    module = original()
    if module is None:
        pytest.skip("torchquantum is not here: pip install --no-deps torchquantum==0.1.8")
    yield module


def recorded() -> dict[str, Any]:
    with np.load(FILE) as file:
        return dict(file)


def module_of(tq: Any, forward: Any, **parts: torch.nn.Module) -> torch.nn.Module:
    """Return a QuantumModule of these parts that computes ``forward(self, x)``."""
    kind = type("Model", (tq.QuantumModule,), {"forward": forward})
    module: torch.nn.Module = kind()
    for name, part in parts.items():
        setattr(module, name, part)
    return module


def read(module: torch.nn.Module, width: int = 2) -> Any:
    return TorchFrontend().read(module, example_inputs=torch.full((2, width), 0.1))


@pytest.mark.parametrize("name", GATES)
def test_a_gate_is_torchquantums_matrix(name: str) -> None:
    matrix = recorded()[f"gate_{name}"].astype(complex)
    wires = len(matrix).bit_length() - 1
    angles = [repr(0.4 + 0.5 * i) for i in range(GATES[name][0])]
    for inverse in (False, True):
        # The first wire is the most significant bit there, the least here.
        body = gate_text(name, angles, range(wires)[::-1], inverse=inverse)
        circuit = Circuit.from_qasm(
            f'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[{wires}] q;\n{body}'
        )
        want = matrix.conj().T if inverse else matrix
        overlap = np.trace(want.conj().T @ unitary(circuit)) / len(want)
        assert abs(abs(overlap) - 1) < 1e-6, (name, inverse)


def test_a_model_gives_what_torchquantum_gave(tq: Any) -> None:
    model, want = classifier(tq), recorded()
    rows = torch.from_numpy(want["rows"])
    np.testing.assert_allclose(model(rows).detach(), want["values"], atol=2e-6)
    twin = qcomp.nn.capture(model, rows)
    np.testing.assert_allclose(twin(rows).detach(), want["values"], atol=2e-6)
    assert {id(p) for p in twin.parameters()} == {id(p) for p in model.parameters()}


def test_gradients_reach_the_originals_weights(tq: Any) -> None:
    model = classifier(tq)
    rows = torch.from_numpy(recorded()["rows"])
    twin = qcomp.nn.capture(model, rows)
    gradients = []
    for module in (model, twin):
        model.zero_grad()
        module(rows).square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for want, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-4)


def test_a_model_compiles_with_layers_around_it(tq: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.Tanh(), classifier(tq))
    rows = torch.linspace(-1, 1, 10).reshape(5, 2)
    want = model(rows).detach().numpy()
    artifact = qcomp.compile(
        model,
        target="cpu-int8+portable",
        example_inputs=rows[:1],
        calibration={"input": rows.numpy()},
        effort="fast",
    )
    np.testing.assert_allclose(artifact(rows.numpy()), want, atol=0.05)
    np.testing.assert_allclose(model(rows).detach(), want, atol=1e-7)


def test_angles_of_weights_and_data_are_kept_apart(tq: Any) -> None:
    program = read(classifier(tq), 4)
    circuit = program.only_circuit
    assert len(program.circuit_nodes()) == 2
    assert circuit.params == ("x0", "x1", "x2", "x3", "x4", *(f"w{i}" for i in range(6)))
    (comparison,) = program.comparisons
    assert "Classifier" in comparison.what
    assert comparison.errors[0][1] < 5e-6


def test_a_model_is_read_and_saved_where_qiskit_2_is_not_installed(
    tq: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ["qiskit", *(n for n in sys.modules if n.startswith("qiskit."))]:
        monkeypatch.setitem(sys.modules, name, None)
    read(classifier(tq), 4).save(tmp_path / "model.onnx")
    monkeypatch.undo()
    again = qcomp.read(tmp_path / "model.onnx")
    assert len(again.circuit_nodes()) == 2


def test_a_device_that_the_module_keeps_is_reset_or_refused(tq: Any) -> None:
    def kept(self: Any, x: torch.Tensor) -> torch.Tensor:
        if self.resets:
            self.device_of_mine.reset_states(x.shape[0])
        self.encoder(self.device_of_mine, x)
        return self.measure(self.device_of_mine)

    encoder = tq.GeneralEncoder([{"input_idx": [1], "func": "rx", "wires": [0]}])
    device = tq.QuantumDevice(n_wires=1)
    measure = tq.MeasureAll(tq.PauliZ)
    model = module_of(tq, kept, encoder=encoder, measure=measure, device_of_mine=device)
    model.resets = True
    x = torch.rand(3, 2)
    twin = qcomp.nn.capture(model, x)
    torch.testing.assert_close(twin(x), torch.cos(x[:, 1:]), atol=1e-6, rtol=0)
    torch.testing.assert_close(model(x), torch.cos(x[:, 1:]), atol=1e-6, rtol=0)
    model.resets = False
    with pytest.raises(SourceError, match=r"without reset_states\(\)"):
        read(model)


def by_data(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=2, bsz=x.shape[0])
    device.rx(wires=0, params=x[:, 0])
    if x[0, 0] > 0.5 or x[0, 0] < 0:
        device.rx(wires=1, params=x[:, 1])
    return self.tq.MeasureAll(self.tq.PauliZ)(device)


def by_item(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
    device.rx(wires=0, params=x[:, 0])
    device.rx(wires=0, params=float(x[0, 1]))
    return self.tq.MeasureAll(self.tq.PauliZ)(device)


def by_state(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
    device.rx(wires=0, params=x[:, 0])
    return device.get_states_1d().abs()


def by_states(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
    return torch.abs(device.states)


def by_amplitudes(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
    device.states = x / x.norm(dim=-1, keepdim=True)
    return self.tq.MeasureAll(self.tq.PauliZ)(device)


def by_observable(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
    device.rx(wires=0, params=x[:, 0])
    return self.tq.MeasureAll(self.tq.Hadamard)(device)


def unread(self: Any, x: torch.Tensor) -> torch.Tensor:
    return x


def beyond(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=2, bsz=x.shape[0])
    device.rx(wires=2, params=x[:, 0])
    return self.tq.MeasureAll(self.tq.PauliZ)(device)


def unregistered(self: Any, x: torch.Tensor) -> torch.Tensor:
    device = self.tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
    device.rx(wires=0, params=x[:, 0])
    self.hidden[0](device, wires=0)
    return self.tq.MeasureAll(self.tq.PauliZ)(device)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (by_data, "structure depends on data"),
        (by_item, "structure depends on data"),
        (by_state, "used by 'get_states_1d'"),
        (by_states, "used by 'abs'"),
        (by_amplitudes, "state vector of a QuantumDevice is set"),
        (by_observable, "observable 'Hadamard'"),
        (unread, "reads no expectation value"),
        (beyond, r"'rx' is on wires \[2\] of a device of 2 wires"),
        (unregistered, "weight of the operation 'ry' is no parameter"),
    ],
)
def test_what_has_no_static_circuit_is_refused_by_name(tq: Any, forward: Any, message: str) -> None:
    model = module_of(tq, forward)
    vars(model).update({"tq": tq, "hidden": [tq.RY(has_params=True, trainable=True)]})
    with pytest.raises(SourceError, match=message) as stop:
        read(model)
    assert "Model" in stop.value.where
    assert tq.QuantumDevice(n_wires=1).states.shape == (1, 2)  # torchquantum works as before


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("noise_model_tq", object(), r"'ansatz' \(Ansatz\) has the noise model object"),
        ("static_mode", True, "static mode of torchquantum is on"),
        ("clifford_quantization", True, r"'ansatz' \(Ansatz\) quantizes its angles"),
    ],
)
def test_a_mode_that_is_no_fixed_circuit_is_refused_by_name(
    tq: Any, name: str, value: object, message: str
) -> None:
    model = classifier(tq)
    setattr(model.ansatz, name, value)
    with pytest.raises(SourceError, match=message) as stop:
        read(model, 4)
    assert stop.value.hint


def test_a_part_of_a_circuit_says_which_class_the_whole_must_have(tq: Any) -> None:
    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = tq.GeneralEncoder([{"input_idx": [0], "func": "rx", "wires": [0]}])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            device = tq.QuantumDevice(n_wires=1, bsz=x.shape[0])
            self.encoder(device, x)
            return tq.MeasureAll(tq.PauliZ)(device)

    with pytest.raises(SourceError, match="GeneralEncoder is called with a QuantumDevice") as stop:
        read(Whole())
    assert "torchquantum.QuantumModule" in stop.value.hint


def test_an_operation_without_a_form_in_gates_is_refused_by_name() -> None:
    with pytest.raises(SourceError, match="'qubitunitary'") as stop:
        gate_text("qubitunitary", [], [0], inverse=False)
    assert "rx" in stop.value.hint
    with pytest.raises(SourceError, match="'rx' of torchquantum has 2 angles and 1 wires"):
        gate_text("rx", ["0", "0"], [0], inverse=False)


def test_op_layers_of_torchquantum_are_taken() -> None:
    tq = original()
    if tq is None:
        pytest.skip("torchquantum is not here: pip install --no-deps torchquantum==0.1.8")

    def forward(self: Any, x: torch.Tensor) -> torch.Tensor:
        device = tq.QuantumDevice(n_wires=4, bsz=x.shape[0])
        self.encoder(device, x)
        for layer in (self.random, self.op1, self.op2, self.u3cu3):
            layer(device)
        return torch.cat([self.measure(device), self.sums(device).unsqueeze(-1).expand(-1, 1)], -1)

    product = {"wires": [0, 1, 2, 3], "observables": ["z", "i", "y", "z"]}
    model = module_of(
        tq,
        forward,
        encoder=tq.GeneralEncoder(tq.encoder_op_list_name_dict["4x4_u3_h_rx"]),
        random=tq.RandomLayer(wires=list(range(4)), n_ops=12, seed=1),
        op1=tq.Op1QAllLayer(op=tq.RX, n_wires=4, has_params=True, trainable=True),
        op2=tq.Op2QAllLayer(op=tq.CRY, n_wires=4, has_params=True, trainable=True, circular=True),
        u3cu3=tq.U3CU3Layer0({"n_wires": 4, "n_blocks": 1, "n_layers_per_block": 2}),
        measure=tq.MeasureAll(tq.PauliX),
        sums=tq.MeasureMultiPauliSum([product]),
    )
    rows = torch.rand(3, 16)
    torch.testing.assert_close(qcomp.nn.capture(model, rows)(rows), model(rows), atol=5e-6, rtol=0)
