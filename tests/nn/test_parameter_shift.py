"""Gradients by shifted circuits, on the devices of the runtime."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.nn import QuantumLayer
from qcomp.runtime import devices
from qcomp.runtime.parameter_shift import shift_gradients, shifts_of
from qcomp.simulate import expectation_gradients, expectations

torch.set_num_threads(1)

OBSERVABLES = ["Z0", "0.5*X0*Y1 - Z2", "Y2*X1 + 0.2*Z0*Z1*Z2"]


def every_gate() -> Circuit:
    """Each gate with angles once, parameters in several places and with factors."""
    circuit = Circuit(3, name="every_gate")
    x, w = Parameter("x"), Parameter("w")
    for k, gate in enumerate(g for g in GATES if g.num_angles):
        for q in range(3):
            circuit.h(q).t(q)
        operands = [(k + j) % 3 for j in range(max(gate.num_qubits, 0))]
        forms = (x, 0.5 * w + 0.1, w - x, 2 * x)
        circuit.append(gate.name, operands, [forms[(k + a) % 4] for a in range(gate.num_angles)])
    return circuit


def layers(**options: object) -> tuple[QuantumLayer, QuantumLayer]:
    """Return a layer by shifted circuits and one by the adjoint method, of the same weights."""
    circuit = Circuit(3, name="ansatz")
    for q in range(3):
        circuit.ry(Parameter(f"x{q}"), q)
    for q in range(3):
        circuit.crx(Parameter(f"w{q}"), q, (q + 1) % 3)
        circuit.rz(Parameter("w0") + Parameter(f"x{q}"), q)
    inputs = [f"x{q}" for q in range(3)]
    weights = [0.3, -0.7, 1.1]
    shifted = QuantumLayer(
        circuit, inputs, OBSERVABLES, weights=weights, gradient="parameter-shift", **options
    )
    return shifted, QuantumLayer(circuit, inputs, OBSERVABLES, weights=weights)


def test_the_rule_gives_the_adjoint_gradient_for_every_gate_with_angles() -> None:
    circuit = every_gate()
    rng = np.random.default_rng(0)
    rows, cotangent = rng.normal(size=(3, 2)), rng.normal(size=(3, 3))
    found = shift_gradients(
        circuit, rows, cotangent, lambda c, moved: expectations(c, moved, OBSERVABLES)
    )
    exact = expectation_gradients(circuit, rows, OBSERVABLES, cotangent)
    assert np.abs(exact).max() > 0.1
    assert np.abs(found - exact).max() < 1e-10


def test_rotations_take_two_evaluations_and_controlled_ones_four() -> None:
    circuit = Circuit(2)
    circuit.ry(Parameter("a"), 0).rzz(Parameter("b"), 0, 1).crx(Parameter("c"), 0, 1)
    shifts = shifts_of(circuit)
    assert np.bincount(shifts.slot).tolist() == [2, 2, 4]
    assert sorted(shifts.shift[:2] % (2 * math.pi)) == pytest.approx([math.pi / 2, 1.5 * math.pi])


def test_all_shifted_rows_of_a_batch_go_to_the_device_in_one_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sizes = []
    inner = devices.DEVICES["sim"]

    def counted(circuit: object, readout: object, rows: np.ndarray, *rest: object) -> object:
        sizes.append(len(rows))
        return inner(circuit, readout, rows, *rest)

    monkeypatch.setitem(devices.DEVICES, "sim", counted)
    shifted, _ = layers()
    data = torch.randn(5, 3)
    shifted(data).sum().backward()
    # Of the weights alone: three controlled rotations of 4 terms and three rotations of 2.
    assert sizes == [5, 5 * 18]
    shifted(data.requires_grad_()).sum().backward()
    assert sizes[2:] == [5, 5 * 24]


@pytest.mark.parametrize("device", ["sim", "aer"])
def test_exact_shifted_gradients_are_those_of_the_adjoint_method(device: str) -> None:
    shifted, adjoint = layers(device=device)
    shifted, adjoint = shifted.double(), adjoint.double()
    data = torch.randn(2, 3, dtype=torch.float64)
    weight = torch.randn(2, 3, dtype=torch.float64)
    found = []
    for layer in (shifted, adjoint):
        rows = data.clone().requires_grad_()
        (layer(rows) * weight).sum().backward()
        found.append((rows.grad, layer.weight.grad))
    for mine, exact in zip(*found, strict=True):
        assert exact.abs().max() > 0.05
        assert (mine - exact).abs().max() < 1e-8


def test_probabilities_are_differentiated_by_shifts_too() -> None:
    circuit = Circuit(2)
    circuit.ry(Parameter("x"), 0).crx(Parameter("w"), 0, 1)
    options = {"probs": True, "weights": [0.4], "dtype": torch.float64}
    shifted = QuantumLayer(circuit, ["x"], gradient="parameter-shift", **options)
    adjoint = QuantumLayer(circuit, ["x"], **options)
    data, weight = torch.randn(3, 1, dtype=torch.float64), torch.randn(3, 4)
    (shifted(data) * weight).sum().backward()
    (adjoint(data) * weight).sum().backward()
    assert torch.allclose(shifted.weight.grad, adjoint.weight.grad, atol=1e-12)


def test_a_gradient_from_shots_scatters_about_the_exact_one_and_is_seeded() -> None:
    def gradient(seed: int) -> torch.Tensor:
        shifted, _ = layers(shots=500, seed=seed)
        shifted(torch.full((4, 3), 0.4)).sum().backward()
        return shifted.weight.grad

    _, adjoint = layers()
    adjoint(torch.full((4, 3), 0.4)).sum().backward()
    noisy = torch.stack([gradient(seed) for seed in range(6)])
    assert torch.equal(noisy[2], gradient(2))
    spread = noisy.std(dim=0)
    assert (spread > 0.01).all()
    assert ((noisy.mean(dim=0) - adjoint.weight.grad).abs() < 4 * spread / math.sqrt(6)).all()


def test_each_call_with_shots_draws_anew_and_the_sequence_repeats() -> None:
    first, _ = layers(shots=50)
    again, _ = layers(shots=50)
    data = torch.full((2, 3), 0.4)
    a, b = first(data), first(data)
    assert not torch.equal(a, b)
    assert torch.equal(a, again(data))
    assert torch.equal(b, again(data))


def test_a_layer_trains_on_a_noisy_machine() -> None:
    circuit = Circuit(1)
    circuit.sx(0).rz(Parameter("x"), 0).rz(Parameter("w"), 0).sx(0)  # the machine's own gates
    layer = QuantumLayer(
        circuit,
        ["x"],
        weights=[2.2],
        shots=256,
        gradient="parameter-shift",
        device="aer",
        noise="FakeTorino",
    )
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.8)
    data = torch.tensor([[0.0], [0.4]])
    losses = []
    for _ in range(6):
        loss = (layer(data) + 1).mean()  # <Z> is -cos(x + w)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


def test_the_exported_model_holds_the_circuit_and_not_the_device() -> None:
    import qcomp

    shifted, adjoint = layers(device="aer")
    program = qcomp.read(shifted, example_inputs=torch.zeros(2, 3))
    other = qcomp.read(adjoint, example_inputs=torch.zeros(2, 3))
    assert [node.op_type for node in program.circuit_nodes()] == ["Circuit"]
    (mine,), (theirs,) = program.circuits.values(), other.circuits.values()
    assert mine.equals(theirs)


def test_unknown_gradients_and_devices_are_refused_by_name() -> None:
    circuit = Circuit(1)
    circuit.ry(Parameter("x"), 0)
    with pytest.raises(UsageError, match="no gradient named 'parameter_shift'") as caught:
        QuantumLayer(circuit, ["x"], gradient="parameter_shift")
    assert "parameter-shift" in str(caught.value)
    with pytest.raises(UsageError, match="no device named 'aerr'") as caught:
        QuantumLayer(circuit, ["x"], device="aerr")
    assert "aer" in str(caught.value)
