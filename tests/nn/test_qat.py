"""Fine-tuning under the precision that the model is compiled to."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import qcomp
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn import QuantumLayer, angle_step_of_error, finish_qat, prepare_qat

torch.set_num_threads(1)

QUBITS = 4
STEP = math.pi / 8
BITS = 3


def ansatz() -> Circuit:
    circuit = Circuit(QUBITS, name="ansatz")
    for q in range(QUBITS):
        circuit.ry(Parameter(f"x{q}"), q)
    for layer in range(3):
        for q in range(QUBITS):
            circuit.ry(Parameter(f"a{layer}_{q}"), q).rz(Parameter(f"b{layer}_{q}"), q)
        for q in range(QUBITS):
            circuit.cx(q, (q + 1) % QUBITS)
    return circuit


class Net(torch.nn.Module):
    """Linear layers around a circuit."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = torch.nn.Sequential(
            torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, QUBITS), torch.nn.Tanh()
        )
        self.quantum = QuantumLayer(ansatz(), inputs=[f"x{q}" for q in range(QUBITS)])
        self.head = torch.nn.Linear(QUBITS, 10)
        with torch.no_grad():
            self.head.weight.mul_(5.0)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.quantum(self.encoder(image) * math.pi))


def batches(x: torch.Tensor, y: torch.Tensor, epochs: int) -> Iterator[list[torch.Tensor]]:
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(32):
            yield [x[batch], y[batch]]


def fit(model: torch.nn.Module, data: tuple[torch.Tensor, ...], epochs: int, rate: float) -> None:
    steps = epochs * math.ceil(len(data[0]) / 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    model.train()
    for images, labels in batches(data[0], data[1], epochs):
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    model.eval()


@torch.no_grad()
def points(model: torch.nn.Module, data: tuple[torch.Tensor, ...]) -> float:
    return 100 * float((model(data[2]).argmax(dim=1) == data[3]).double().mean())


@pytest.fixture(scope="module")
def data() -> tuple[torch.Tensor, ...]:
    images = (load_digits().images.reshape(-1, 64) / 16).astype(np.float32)
    labels = load_digits().target.astype(np.int64)
    x, x_test, y, y_test = train_test_split(
        images, labels, train_size=0.6, stratify=labels, random_state=0
    )
    return tuple(torch.from_numpy(part) for part in (x, y, x_test, y_test))


@pytest.fixture(scope="module")
def trained(data: tuple[torch.Tensor, ...]) -> Net:
    torch.manual_seed(0)
    model = Net()
    fit(model, data, 15, 1e-2)
    return model


@pytest.fixture(scope="module")
def tuned(trained: Net, data: tuple[torch.Tensor, ...]) -> Net:
    torch.manual_seed(1)
    model = prepare_qat(trained, bits=BITS, activation_bits=8, angle_step=STEP)
    fit(model, data, 12, 2e-2)
    return finish_qat(model)


def test_tuning_gives_back_most_of_what_low_bits_and_coarse_angles_lose(
    trained: Net, tuned: Net, data: tuple[torch.Tensor, ...]
) -> None:
    rounded = finish_qat(prepare_qat(trained, bits=BITS, activation_bits=None, angle_step=STEP))
    full, lost, back = (points(model, data) for model in (trained, rounded, tuned))
    print(f"float {full:.2f}, rounded {lost:.2f}, tuned {back:.2f}")
    assert full > 92.0
    assert lost < full - 10.0
    assert full - back < 0.25 * (full - lost)


def test_the_compiled_model_has_the_tuned_accuracy(
    tuned: Net, data: tuple[torch.Tensor, ...]
) -> None:
    images, labels = data[2].numpy(), data[3].numpy()
    artifact = qcomp.compile(
        tuned,
        target="cpu-int8+ibm-heron",
        effort="fast",  # nothing else moves the weights
        override=[f"*{{bits={BITS}}}"],
        calibration={"image": data[0][:256].numpy()},
        example_inputs=torch.zeros(2, 64),
    )
    found = 100 * float((artifact(images).argmax(axis=1) == labels).mean())
    print(f"compiled {found:.2f}, tuned {points(tuned, data):.2f}")
    assert abs(found - points(tuned, data)) <= 1.0


def test_all_angles_and_weights_lie_on_their_grids_and_the_module_is_plain(tuned: Net) -> None:
    steps = tuned.quantum.weight / STEP
    assert (steps - steps.round()).abs().max() < 1e-5
    for name in ("encoder.0", "encoder.2", "head"):
        weight = tuned.get_submodule(name).weight
        levels = weight / (weight.abs().amax(dim=1, keepdim=True) / 4)
        assert (levels - levels.round()).abs().max() < 1e-5
    assert sorted(tuned.state_dict()) == sorted(Net().state_dict())
    assert all(isinstance(p, torch.nn.Parameter) for p in tuned.parameters())


def test_the_module_given_is_left_alone(trained: Net) -> None:
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    prepared = prepare_qat(trained, bits=2, angle_step=STEP).train()
    prepared(torch.rand(3, 64)).sum().backward()
    finish_qat(prepared)
    assert sorted(before) == sorted(trained.state_dict())
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())
    assert all(not part._forward_pre_hooks for part in trained.modules())


def test_the_gradient_goes_straight_through_the_rounding() -> None:
    layer = QuantumLayer(ansatz(), [f"x{q}" for q in range(QUBITS)])
    prepared = prepare_qat(layer, angle_step=STEP)
    plain = finish_qat(prepared)
    data = torch.rand(3, QUBITS)
    assert torch.equal(prepared(data), plain(data))
    prepared(data).sum().backward()
    plain(data).sum().backward()
    original = prepared.parametrizations.weight.original
    assert not torch.allclose(original, plain.weight)
    assert torch.equal(original.grad, plain.weight.grad)


def test_convolutions_are_rounded_by_output_channel_and_inputs_by_a_running_range() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(2, 4, 3), torch.nn.ConvTranspose2d(4, 3, 2))
    prepared = prepare_qat(model, bits=4, activation_bits=4).train()
    data = torch.rand(2, 2, 6, 6)
    prepared(data)
    prepared.eval()
    before = prepared(data)
    assert torch.equal(prepared(100 * data).isfinite(), torch.ones_like(before, dtype=torch.bool))
    assert torch.equal(prepared(data), before)  # evaluation does not move the range
    plain = finish_qat(prepared)
    for part, others in ((plain[0], (1, 2, 3)), (plain[1], (0, 2, 3))):
        levels = part.weight / (part.weight.abs().amax(dim=others, keepdim=True) / 7)
        assert (levels - levels.round()).abs().max() < 1e-5
    difference = (plain(data) - before).abs().max()
    assert 0 < difference < 0.2


def test_a_factor_in_front_of_a_weight_makes_its_step_finer() -> None:
    circuit = Circuit(1)
    circuit.rx(2 * Parameter("w"), 0).rz(4 * Parameter("w"), 0).rx(0.5 * Parameter("v"), 0)
    layer = QuantumLayer(circuit, weights=[0.9, 0.9])
    weight = finish_qat(prepare_qat(layer, angle_step=math.pi / 4)).weight
    assert weight[0].item() == pytest.approx(math.pi / 4)  # 2 w = pi / 2
    assert weight[1].item() == pytest.approx(math.pi / 2)  # v / 2 = pi / 4


def test_the_step_of_an_error_keeps_every_rotation_within_it() -> None:
    for error in (1.9, 0.3, 1e-2, 1e-5):
        step = angle_step_of_error(error)
        assert 2 * math.sin(step / 8) <= error
        assert step == math.pi or 2 * math.sin(2 * step / 8) > error
    assert math.log2(math.pi / angle_step_of_error(1e-3)) % 1 == 0


def test_options_that_make_no_sense_are_refused() -> None:
    linear = torch.nn.Linear(3, 2)
    with pytest.raises(UsageError, match="bits is 9"):
        prepare_qat(linear, bits=9)
    with pytest.raises(UsageError, match="angle_step is -1"):
        prepare_qat(linear, angle_step=-1.0)
    with pytest.raises(UsageError, match="nothing in Linear is rounded"):
        prepare_qat(linear, bits=None, activation_bits=None)
    with pytest.raises(UsageError, match="must be positive"):
        angle_step_of_error(0.0)
    circuit = Circuit(1)
    circuit.rx(2 * Parameter("w"), 0).rz(3 * Parameter("w"), 0)
    with pytest.raises(UsageError, match="weight 'w' cannot all be multiples"):
        prepare_qat(QuantumLayer(circuit), angle_step=0.1)
