"""S002: quantum convolutional networks, with and without augmented data (arXiv:1810.03787).

Digits of scikit-learn, and MNIST in the place of Fashion-MNIST: 0 against 1, 256 pixels as the
amplitudes of 8 qubits. The weights are committed, ``examples/zoo/train_qcnn.py`` trains them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import qcomp
from qcomp.constructions.two_qubit_blocks import su4
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.nn.zoo import QCNN, qcnn_circuit
from qcomp.simulate import probabilities, unitary

FOLDER = Path(__file__).parents[2] / "examples" / "zoo"
KINDS = ("plain", "shifted")
WEIGHTS = 51
"""Of 17 a layer in three layers."""


@pytest.fixture(scope="module")
def example() -> Iterator[ModuleType]:
    """The example's module, its folder on the path as when it is run."""
    sys.path.insert(0, str(FOLDER))
    import train_qcnn

    yield train_qcnn
    sys.path.remove(str(FOLDER))


def trained(key: str) -> QCNN:
    model = QCNN(8, dtype=torch.float64)
    with np.load(FOLDER / "qcnn.npz") as data:
        model.weight.data = torch.tensor(data[key], dtype=torch.float64)
    return model.eval()


@pytest.fixture(scope="module")
def artifact(example: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    x, *_ = example.digits()
    rows = example.amplitudes(x[:16]).double()
    return qcomp.compile(
        trained("digits/plain"),
        rows[:2],
        target="cpu-int8+portable",
        calibration={"x": rows.numpy()},
        out=tmp_path_factory.mktemp("s002") / "qcnn",
    )


def test_digits_0_and_1_are_told_apart_with_and_without_shifts(example: ModuleType) -> None:
    _, _, x, y = example.digits()
    found = {kind: example.accuracy(trained(f"digits/{kind}"), x, y) for kind in KINDS}
    print("S002 digits, 144 test images:", {k: f"{v:.2%}" for k, v in found.items()})
    assert min(found.values()) >= 0.96


def test_mnist_0_and_1_are_told_apart_with_and_without_shifts(
    example: ModuleType, shared: Path
) -> None:
    _, _, x, y = example.mnist(shared / "data")
    found = {kind: example.accuracy(trained(f"mnist/{kind}"), x, y) for kind in KINDS}
    print(f"S002 MNIST, {len(y)} test images:", {k: f"{v:.2%}" for k, v in found.items()})
    assert min(found.values()) >= 0.96


def test_the_compiled_network_gives_the_probabilities_of_torch(
    artifact: Any, example: ModuleType
) -> None:
    _, _, x, y = example.digits()
    rows = example.amplitudes(x).double()
    with torch.no_grad():
        want = trained("digits/plain")(rows).numpy()
    got = artifact(rows.numpy())
    print(f"S002 compiled: off by {np.abs(got - want).max():.1e}")
    assert np.abs(got - want).max() <= 1e-6
    assert ((got > 0.5) == y.numpy()).mean() >= 0.96


def test_a_weight_is_one_input_of_the_text_however_often_it_is_used(tmp_path: Path) -> None:
    compiled = qcomp.compile(qcnn_circuit(8), target="portable", out=tmp_path / "ansatz")
    (text,) = (path.read_text(encoding="utf-8") for path in compiled.path.glob("*.qasm"))
    (circuit,) = compiled.circuits.values()
    assert text.count("input float[64]") == WEIGHTS
    # 13 convolutions of 15 angles and 7 pools of two, if weights were not shared.
    assert circuit.stats().rotations > 3 * WEIGHTS
    assert circuit.stats().two_qubit <= 3 * (13 + 7)


def test_qiskit_reads_the_text_and_finds_the_probabilities_of_torch(
    example: ModuleType, tmp_path: Path
) -> None:
    pytest.importorskip("qiskit_qasm3_import", reason="Qiskit reads OpenQASM 3 with it")
    from qiskit import qasm3
    from qiskit.quantum_info import Statevector

    compiled = qcomp.compile(qcnn_circuit(8), target="portable", out=tmp_path / "ansatz")
    circuit = qasm3.loads(next(compiled.path.glob("*.qasm")).read_text(encoding="utf-8"))
    model = trained("digits/shifted")
    weights = model.weight.detach().numpy()
    bound = circuit.assign_parameters({p: weights[int(p.name[1:])] for p in circuit.parameters})
    rows = example.amplitudes(example.digits()[2][:3]).double()
    with torch.no_grad():
        want = model(rows).numpy()
    for row, probability in zip(rows.numpy(), want, strict=True):
        state = Statevector(row / np.linalg.norm(row)).evolve(bound)
        assert state.probabilities([0])[1] == pytest.approx(probability, abs=1e-6)


def test_after_binding_each_block_on_two_qubits_has_the_fewest_cx(artifact: Any) -> None:
    (circuit,) = artifact.circuits.values()
    loading = (1 << 8) - 8 - 1
    # 12 convolutions, 6 pools of two CX, and the last convolution and pool as one block.
    assert circuit.stats().two_qubit - loading <= 12 * 3 + 6 * 2 + 3


def test_a_convolution_of_any_angles_has_three_cx_and_the_matrix_of_torch() -> None:
    from qcomp.nn.zoo.dense import su4_matrix

    block = Circuit(2, params=[f"w{i}" for i in range(15)])
    su4(block, [Parameter(f"w{i}") for i in range(15)], 0, 1)
    assert block.stats().two_qubit == 3
    angles = np.random.default_rng(2).uniform(-3, 3, 15)
    want = su4_matrix(torch.tensor(angles)).numpy()
    np.testing.assert_allclose(unitary(block, angles), want, atol=1e-12)


def test_measured_and_reset_wires_give_the_same_as_controlled_rotations() -> None:
    weights = np.random.default_rng(3).uniform(-3, 3, 34)
    rotated, measured = qcnn_circuit(4), qcnn_circuit(4, "measure")
    start = Circuit(4).ry(0.3, 0).ry(1.1, 1).cx(0, 2).ry(-0.7, 3).cx(3, 1)
    both = []
    for ansatz in (rotated, measured):
        whole = Circuit(4, ansatz.num_clbits, ansatz.params).compose(start).compose(ansatz)
        both.append(probabilities(whole, weights)[0][1::2].sum())
    assert both[0] == pytest.approx(both[1], abs=1e-12)
    compiled = qcomp.compile(measured, target="ibm-heron", mapping=False)
    text = next(compiled.path.glob("*.qasm")).read_text(encoding="utf-8")
    assert text.count("reset") == 3
    assert text.count("if (") == 3


def test_wrong_sizes_are_said() -> None:
    with pytest.raises(UsageError, match="halves its wires, which 6 cannot"):
        QCNN(6)
    with pytest.raises(UsageError, match="no pooling 'drop'"):
        qcnn_circuit(4, "drop")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="4 qubits hold 16 amplitudes, not 8"):
        QCNN(4)(torch.zeros(1, 8))
