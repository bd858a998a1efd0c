"""S001: quantum Hamiltonian embedding of images for data re-uploading (arXiv:2407.14055).

Ten classes of digits on four qubits, six layers, trained by ``tests/papers/make_s001.py``. A
trained unitary and the one of the data before it are one matrix when an image is bound.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcomp.constructions.encodings import image_unitary
from qcomp.ir.circuit import Circuit
from qcomp.passes.synthesize.unitary.synthesis import synthesize_unitary
from tests.papers.make_s001 import CLASSES, QUBITS, Classifier, digits, eigensystems, stored


@pytest.fixture(scope="module")
def model() -> Classifier:
    return stored()


def layers(model: Classifier, image: np.ndarray) -> list[np.ndarray]:
    """Return ``W_l exp(i t_l H(x))`` of one image."""
    with torch.no_grad():
        trained, times = model.unitaries().numpy(), model.times.numpy()
    pairs = zip(trained, times, strict=True)
    return [unitary @ image_unitary(image, QUBITS, float(time)) for unitary, time in pairs]


def test_ninety_four_percent_of_the_test_images_are_told(model: Classifier) -> None:
    _, images, _, labels = digits()
    assert len(images) == 719
    with torch.no_grad():
        found = model(*eigensystems(images)).argmax(dim=1).numpy()
    assert (found == labels).mean() >= 0.94  # measured: 0.943


def test_the_emitted_circuits_are_the_classifier_with_95_cx_a_unitary(model: Classifier) -> None:
    from qiskit import qasm3
    from qiskit.quantum_info import Operator, Statevector

    pytest.importorskip("qiskit_qasm3_import")
    image = digits()[1][0]
    whole = Circuit(QUBITS)
    for matrix in layers(model, image):
        part = synthesize_unitary(matrix, method="block-zxz")
        assert part.stats().two_qubit <= 95
        read = Operator(qasm3.loads(part.to_qasm3())).data
        assert 1 - abs(np.vdot(read, matrix)) / len(matrix) <= 1e-9
        whole = whole.compose(part)
    got = Statevector(qasm3.loads(whole.to_qasm3())).probabilities()
    with torch.no_grad():
        expected = model.probabilities(*eigensystems(image[None])).numpy()[0]
    assert np.abs(got - expected).max() < 1e-9
    assert got[:CLASSES].argmax() == expected[:CLASSES].argmax()
