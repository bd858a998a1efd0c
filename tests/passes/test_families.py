"""The tables of gate families, held against the matrices of the gate table."""

import numpy as np
import pytest

from qcomp.ir.angle import UNIT
from qcomp.ir.gates import AXIS, GATES, G
from qcomp.passes.reduce.families import (
    ANGLE_CODE,
    CONTROLLED,
    FAMILY,
    MODE,
    NAMED,
    NAMED_TURN,
    PHASED,
    PHASED_CODE,
    PURE,
    ROTATION,
    SYMMETRY,
)
from tests.ir.dense import embed

THETA = 0.37


def matrix(code: int, *angles: float) -> np.ndarray:
    row = GATES[code]
    return row.matrix(*angles, num_qubits=2) if row.name == "mcx" else row.matrix(*angles)


@pytest.mark.parametrize("row", [g for g in GATES if FAMILY[g.code] >= 0 and g.num_angles == 0])
def test_named_gate_is_its_angle_of_the_family(row) -> None:
    family = FAMILY[row.code]
    turn = float(NAMED_TURN[row.code] * UNIT)
    code = ANGLE_CODE[family]
    if code >= 0:
        phase = np.exp(0.5j * turn) if PHASED[row.code] else 1
        assert np.allclose(matrix(row.code), phase * matrix(code, turn))
    else:
        half = [c for c in NAMED[family] if c >= 0]
        square = matrix(row.code) @ matrix(row.code)
        expected = {np.pi: np.eye(len(square))}
        if len(half) > 1:
            expected |= {
                np.pi / 2: matrix(NAMED[family, 4]),
                3 * np.pi / 2: matrix(NAMED[family, 4]),
            }
        assert np.allclose(square, expected[min(expected, key=lambda t: abs(t - turn))])


@pytest.mark.parametrize("family", range(len(MODE)))
def test_angles_of_a_family_add_with_its_period(family: int) -> None:
    code = ANGLE_CODE[family]
    if code < 0:
        assert MODE[family] == PURE
        return
    assert np.allclose(matrix(code, 0.4) @ matrix(code, -1.1), matrix(code, -0.7))
    whole = matrix(code, 2 * np.pi)
    if MODE[family] == ROTATION:
        assert np.allclose(whole, -np.eye(len(whole)))
    elif MODE[family] == PURE:
        assert np.allclose(whole, np.eye(len(whole)))
    else:
        assert MODE[family] == CONTROLLED
        assert not np.allclose(np.abs(np.trace(whole)), len(whole))
    if PHASED_CODE[family] >= 0:
        assert np.allclose(
            matrix(PHASED_CODE[family], THETA), np.exp(0.5j * THETA) * matrix(code, THETA)
        )


@pytest.mark.parametrize("row", [g for g in GATES if g.is_unitary and 2 <= g.num_qubits <= 3])
def test_operands_that_may_trade_places_do(row) -> None:
    angles = [THETA * (k + 1) for k in range(row.num_angles)]
    n = row.num_qubits
    whole = embed(matrix(row.code, *angles), tuple(range(n)), n)

    def trades(i: int, j: int) -> bool:
        order = list(range(n))
        order[i], order[j] = order[j], order[i]
        return np.allclose(embed(matrix(row.code, *angles), tuple(order), n), whole)

    said = {0: set(), 1: {(0, 1)}, 2: {(1, 2)}, 3: {(0, 1), (1, 2), (0, 2)}}[SYMMETRY[row.code]]
    for pair in ((0, 1), (1, 2), (0, 2)):
        if max(pair) < n:
            assert trades(*pair) == (pair in said), (row.name, pair)


@pytest.mark.parametrize("row", [g for g in GATES if g.is_unitary and 1 <= g.num_qubits <= 3])
def test_gate_commutes_with_its_axis_on_each_operand(row) -> None:
    angles = [THETA * (k + 1) for k in range(row.num_angles)]
    n = row.num_qubits
    gate = matrix(row.code, *angles)
    for k in range(n):
        axis = int(AXIS[row.code, k])
        for name, code in ((1, G.X), (2, G.Y), (3, G.Z)):
            pauli = embed(GATES[code].matrix(), (k,), n)
            if axis == name:
                assert np.allclose(gate @ pauli, pauli @ gate), (row.name, k)
