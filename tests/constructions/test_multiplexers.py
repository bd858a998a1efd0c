"""Multiplexed rotations and diagonals against their defining sums."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.constructions.multiplexers import (
    diagonal,
    gray_code,
    multiplexed_rotation,
    parity_rotations,
    walsh,
    walsh_angles,
)
from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.simulate import unitary

PAULI = {
    "x": np.array([[0, 1], [1, 0]]),
    "y": np.array([[0, -1j], [1j, 0]]),
    "z": np.diag([1, -1]),
}


def multiplexer(axis: str, angles: np.ndarray, controls: list[int], target: int) -> np.ndarray:
    """The sum over x of |x><x| (x) R(angles[x]), entry by entry."""
    n = len(controls) + 1
    out = np.zeros((1 << n, 1 << n), dtype=complex)
    for column in range(1 << n):
        x = sum((column >> q & 1) << i for i, q in enumerate(controls))
        half = angles[x] / 2
        block = np.cos(half) * np.eye(2) - 1j * np.sin(half) * PAULI[axis]
        bit = column >> target & 1
        rest = column & ~(1 << target)
        for row_bit in (0, 1):
            out[rest | row_bit << target, column] = block[row_bit, bit]
    return out


@pytest.mark.parametrize(
    ("axis", "entangler"),
    [(a, e) for a in "xyz" for e in (None, "cx", "cy", "cz") if e != f"c{a}"],
)
def test_a_multiplexed_rotation_is_its_defining_sum(axis: str, entangler: str | None) -> None:
    rng = np.random.default_rng(1)
    for controls, target in (([], 0), ([1], 0), ([2, 0], 1), ([0, 3, 1], 2)):
        angles = rng.normal(size=1 << len(controls))
        circuit = Circuit(len(controls) + 1)
        left = multiplexed_rotation(
            circuit, axis, walsh_angles(angles), controls, target, entangler=entangler
        )
        assert left == 0
        assert np.abs(unitary(circuit) - multiplexer(axis, angles, controls, target)).max() < 1e-12
        two = circuit.stats().two_qubit
        assert two == (1 << len(controls) if controls else 0)


def test_a_multiplexer_without_its_last_gate_leaves_the_parity_that_it_returns() -> None:
    angles = np.random.default_rng(2).normal(size=8)
    circuit = Circuit(4)
    left = multiplexed_rotation(circuit, "y", walsh_angles(angles), [0, 1, 2], 3, last_cx=False)
    assert left == 0b100
    assert circuit.stats().two_qubit == 7
    circuit.cx(2, 3)
    assert np.abs(unitary(circuit) - multiplexer("y", angles, [0, 1, 2], 3)).max() < 1e-12


def test_equal_angles_cost_one_rotation_and_no_cx() -> None:
    circuit = Circuit(4)
    multiplexed_rotation(circuit, "y", walsh_angles(np.full(8, 0.7)), [0, 1, 2], 3)
    assert [name for name, _, _ in circuit.run.operations()] == ["ry"]


def test_angles_may_be_parameters() -> None:
    circuit = Circuit(3)
    multiplexed_rotation(circuit, "z", [Parameter(f"a{i}") for i in range(4)], [0, 2], 1)
    angles = np.array([0.3, -1.1, 2.0, 0.4])
    found = unitary(circuit, walsh_angles(angles)[None])
    assert np.abs(found - multiplexer("z", angles, [0, 2], 1)).max() < 1e-12


def test_the_order_of_the_parities_changes_gates_and_not_the_unitary() -> None:
    angles = np.random.default_rng(3).normal(size=8)
    weights = walsh(angles)
    circuit = Circuit(4)
    order = [5, 0, 7, 2, 1, 3, 6, 4]
    parity_rotations(circuit, "y", [(m, float(weights[m])) for m in order], [0, 1, 2], 3)
    assert np.abs(unitary(circuit) - multiplexer("y", angles, [0, 1, 2], 3)).max() < 1e-12


def test_the_walsh_transform_is_its_sum_along_the_last_axis_and_undoes_itself() -> None:
    rows = np.random.default_rng(4).normal(size=(3, 8))
    signs = np.array([[(-1) ** (m & x).bit_count() for x in range(8)] for m in range(8)])
    assert np.abs(walsh(rows) - rows @ signs.T / 8).max() < 1e-14
    assert np.abs(8 * walsh(walsh(rows)) - rows).max() < 1e-14
    assert np.array_equal(walsh_angles(rows), walsh(rows)[:, gray_code(3)])


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4])
def test_a_diagonal_has_its_phases_with_the_global_one(n: int) -> None:
    phases = np.random.default_rng(n).normal(size=1 << n) * 2
    wires = list(np.random.default_rng(9).permutation(n))
    circuit = Circuit(max(n, 1))
    diagonal(circuit, phases, wires)
    found = np.diag(unitary(circuit))
    for index in range(1 << n):
        x = sum((index >> q & 1) << i for i, q in enumerate(wires))
        assert abs(found[index] - np.exp(1j * phases[x])) < 1e-12
    assert circuit.stats().two_qubit == max(0, (1 << n) - 2)


def test_a_diagonal_of_one_parity_costs_only_that_parity() -> None:
    circuit = Circuit(3)
    diagonal(circuit, [0.0, 0.3, 0.3, 0.0, 0.0, 0.3, 0.3, 0.0], [0, 1, 2])
    assert circuit.stats().two_qubit == 2


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda c: walsh_angles([1.0, 2.0, 3.0]), "2^k angles"),
        (lambda c: multiplexed_rotation(c, "y", [1.0], [0], 1), "takes 2 angles"),
        (lambda c: multiplexed_rotation(c, "w", [1.0], [], 1), "no axis 'w'"),
        (lambda c: multiplexed_rotation(c, "y", [1.0], [], 1, entangler="cy"), "does not turn"),
        (lambda c: parity_rotations(c, "y", [(2, 1.0)], [0], 1), "more bits"),
        (lambda c: diagonal(c, [1.0, 2.0], [0, 1]), "takes 4 phases"),
    ],
)
def test_what_does_not_fit_is_said(call: object, text: str) -> None:
    with pytest.raises(UsageError, match=text.replace("^", r"\^")):
        call(Circuit(2))  # type: ignore[operator]
