"""Arrays as sources: what each shape becomes, what is done to it and said, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.errors import SourceError, UsageError
from qcomp.ir.arrays import array_nodes, array_of, array_program, lowering_options, put_circuit
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program


def node_of(program: Program) -> tuple[str, np.ndarray]:
    (node,) = array_nodes(program)
    return node.op_type, array_of(node)


def test_a_square_matrix_is_a_unitary_and_a_vector_a_state() -> None:
    op, matrix = node_of(qcomp.read(np.eye(4)))
    assert op == "Unitary"
    assert matrix.dtype == np.complex128
    assert np.array_equal(matrix, np.eye(4))
    op, vector = node_of(qcomp.read(np.array([1, 0, 0, 0])))
    assert op == "State"
    assert np.array_equal(vector, [1, 0, 0, 0])
    assert node_of(qcomp.read(np.array([[0.6, 0.8j]])))[0] == "State"


def test_a_matrix_of_pixels_is_an_image_when_that_is_said() -> None:
    op, pixels = node_of(qcomp.read(np.arange(6, dtype=np.uint8).reshape(2, 3), kind="image"))
    assert op == "Image"
    assert pixels.dtype == np.float64
    assert pixels.shape == (2, 3)


def test_a_state_is_normalised_and_filled_up_and_both_are_said() -> None:
    program = qcomp.read(np.array([3.0, 0.0, 4.0]))
    assert np.allclose(node_of(program)[1], [0.6, 0, 0.8, 0], atol=1e-15)
    assert program.notes == [
        "the vector of norm 5 is divided by it",
        "the vector of 3 amplitudes is filled with zeros to 4",
    ]


def test_a_unitary_is_extended_by_the_identity_to_a_power_of_two() -> None:
    cycle = np.roll(np.eye(3), 1, axis=0)
    program = qcomp.read(cycle)
    matrix = node_of(program)[1]
    assert np.array_equal(matrix[:3, :3], cycle)
    assert matrix[3, 3] == 1
    assert program.notes == ["the matrix of 3 rows is extended by the identity to 4"]


def test_files_of_arrays_are_read(tmp_path: Path) -> None:
    np.save(tmp_path / "psi.npy", np.array([0.6, 0.8]))
    program = qcomp.read(tmp_path / "psi.npy")
    assert node_of(program)[0] == "State"
    assert array_nodes(program)[0].name == "psi"
    assert program.source == str(tmp_path / "psi.npy")
    np.savez(tmp_path / "two.npz", u=np.eye(2), psi=np.array([0.6, 0.8]))
    assert node_of(qcomp.read(str(tmp_path / "two.npz"), array="u"))[0] == "Unitary"
    with pytest.raises(SourceError, match="2 arrays: u, psi") as caught:
        qcomp.read(tmp_path / "two.npz")
    assert "--array u" in caught.value.hint
    with pytest.raises(UsageError, match="no array 'psy'") as unknown:
        qcomp.read(tmp_path / "two.npz", array="psy")
    assert "psi" in unknown.value.hint


def test_files_that_hold_no_numbers_are_refused(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}], dtype=object)
    np.save(tmp_path / "objects.npy", objects, allow_pickle=True)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04nothing")
    (tmp_path / "short.npy").write_bytes(b"\x93NUMPY\x01\x00")
    for name in ("objects.npy", "broken.npz", "short.npy"):
        with pytest.raises(SourceError, match="cannot be read") as caught:
            qcomp.read(tmp_path / name)
        assert "pickled objects are not read" in caught.value.hint
    np.save(tmp_path / "words.npy", np.array(["a", "b"]))
    with pytest.raises(SourceError, match="has no numbers"):
        qcomp.read(tmp_path / "words.npy")


@pytest.mark.parametrize(
    ("array", "kind", "message"),
    [
        (np.zeros(4), None, "vector of zeros"),
        (np.array([1, np.nan]), None, "has \\(?nan.*at \\[1\\]"),
        (np.array([[1, np.inf], [0, 1]]), None, "at \\[0, 1\\]"),
        (np.ones((4, 3)), None, "a unitary is a square matrix, this array has 4x3"),
        (np.ones((2, 2, 2)), None, "3 axes"),
        (np.zeros(0), None, "this array has 0 entries"),
        (np.ones((2, 2)) * 1j, "image", "complex numbers"),
        (np.array([[1, np.nan]]), "image", "at \\[0, 1\\]"),
        (np.ones(4), "image", "matrix of pixels"),
        (np.eye(4), "state", "a state is a vector"),
    ],
)
def test_arrays_that_stand_for_nothing_are_refused(
    array: np.ndarray, kind: str | None, message: str
) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        qcomp.read(array, kind=kind)
    assert caught.value.where
    assert caught.value.hint


def test_options_of_the_pass_ride_along_and_those_of_other_kinds_are_refused() -> None:
    program = qcomp.read(np.array([0.6, 0.8]), fidelity=0.97)
    assert lowering_options(array_nodes(program)[0]) == {"fidelity": "0.97"}
    with pytest.raises(UsageError, match="'epsilon' is no option of a state") as caught:
        qcomp.read(np.array([0.6, 0.8]), epsilon=0.1)
    assert caught.value.hint == "it takes fidelity"
    with pytest.raises(UsageError, match="no kind of array 'unitory'") as unknown:
        qcomp.read(np.eye(2), kind="unitory")
    assert "unitary" in unknown.value.hint


def test_a_circuit_takes_the_place_of_the_node() -> None:
    program = qcomp.read(np.array([[0, 1], [1, 0]]))
    put_circuit(program, array_nodes(program)[0], Circuit(1).x(0))
    assert program.is_circuit
    assert program.only_circuit.name == "unitary"
    assert not program.model.graph.initializers
    assert program.model.graph.outputs[0].producer() is program.circuit_nodes()[0]


def test_a_node_with_a_wrong_array_is_named() -> None:
    program = array_program("State", np.array([0.6, 0.8]), name="psi")
    (node,) = array_nodes(program)
    with pytest.raises(SourceError, match="norm 1, this one 2"):
        array_program("State", np.array([2.0, 0.0]))
    with pytest.raises(SourceError, match="2\\^n rows, this one 3"):
        array_program("Unitary", np.eye(3))
    with pytest.raises(SourceError, match="needs 13 qubits, at most 12"):
        array_program("Unitary", np.broadcast_to(np.zeros(1), (8192, 8192)))
    node.resize_inputs(0)
    with pytest.raises(SourceError, match="one constant array") as caught:
        array_of(node)
    assert caught.value.where == "node 'psi' (ai.qcomp::State)"
