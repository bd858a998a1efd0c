"""Image nodes become circuits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.constructions.images.decode import decode_image
from qcomp.errors import UsageError
from qcomp.ir.arrays import array_program
from qcomp.ir.program import Program
from qcomp.passes.lower.encode_image import EncodeImage
from qcomp.passmanager import Context
from qcomp.simulate import probabilities
from tests.models import hybrid

IMAGE = np.random.default_rng(0).integers(0, 200, size=(3, 4)).astype(np.float64)


def lowered(**options: object) -> Program:
    program = array_program("Image", IMAGE)
    assert EncodeImage(**options).run(program, Context())  # type: ignore[arg-type]
    return program


@pytest.mark.parametrize(("method", "bits"), [("frqi", 0), ("neqr", 8)])
def test_the_image_node_becomes_a_circuit_that_gives_the_image_back(method: str, bits: int) -> None:
    program = lowered(method=method)
    high = 255.0 if bits else IMAGE.max()
    found = probabilities(program.only_circuit)[0]
    back = decode_image(found, (3, 4), method=method, high=high, bits=bits)
    assert np.abs(back - IMAGE).max() < 1e-9
    assert any("padded to 4x4" in note for note in program.only_circuit.notes)
    assert any("two-qubit gates" in note for note in program.only_circuit.notes)


def test_a_second_run_and_other_programs_are_left_alone() -> None:
    program = lowered()
    assert not EncodeImage().run(program, Context())
    assert not EncodeImage().run(hybrid(), Context())


def test_weights_are_dropped_only_as_far_as_is_said() -> None:
    exact, near = lowered().only_circuit, lowered(epsilon=0.4).only_circuit
    assert near.stats().two_qubit < exact.stats().two_qubit
    back = decode_image(probabilities(near)[0], (3, 4), high=IMAGE.max())
    (note,) = [note for note in near.notes if "at most" in note]
    assert np.abs(back - IMAGE).max() <= float(note.split("at most ")[1].split()[0]) * 1.01


def test_an_image_file_compiles_to_a_machine(tmp_path: Path) -> None:
    np.save(tmp_path / "image.npy", IMAGE)
    artifact = qcomp.compile(tmp_path / "image.npy", kind="image", target="portable")
    back = decode_image(np.asarray(artifact()), (3, 4), high=IMAGE.max())
    assert np.abs(back - IMAGE).max() < 1e-9
    assert any("padded to 4x4" in line for line in artifact.report["warnings"])


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"method": "frq"}, "did you mean 'frqi'"),
        ({"bits": 4}, "take method=neqr"),
        ({"method": "neqr", "epsilon": 0.1}, "take method=frqi"),
        ({"way": "short"}, "auto, walsh, cubes"),
        ({"epsilon": -0.1}, "must not be negative"),
    ],
)
def test_options_that_do_not_fit_are_said(options: dict[str, object], text: str) -> None:
    with pytest.raises(UsageError) as error:
        lowered(**options)
    assert text in str(error.value)
