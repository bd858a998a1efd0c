"""Which gates add up: families of gates whose angles are summed when they meet.

A family holds the powers of one generator. ``R(a) R(b) = R(a + b)`` for a rotation ``R``; a named
gate is its rotation times a phase, ``T = exp(i pi/8) rz(pi/4)``; a self-inverse gate is half a turn
of its own family, so that two of them vanish. Every line is checked against the matrices of the
gate table by the tests.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.gates import GATES, G

__all__ = [
    "ANGLE_CODE",
    "CONTROLLED",
    "FAMILY",
    "MODE",
    "NAMED",
    "NAMED_TURN",
    "PHASED",
    "PHASED_CODE",
    "PURE",
    "QUARTER_CONTROLLED",
    "ROTATION",
    "SYMMETRY",
    "VOCABULARY",
]

ROTATION, PURE, CONTROLLED = 0, 1, 2
"""Modes: period 4 pi with ``R(2 pi) = -1``; period 2 pi; period 4 pi with ``R(2 pi)`` no phase."""

_QUARTER = PI >> 2

_ROTATIONS: tuple[tuple[int, int, dict[int, int]], ...] = (
    (G.RZ, G.P, {1: G.T, 2: G.S, 4: G.Z, 6: G.SDG, 7: G.TDG}),
    (G.RX, -1, {2: G.SX, 4: G.X, 6: G.SXDG}),
    (G.RY, -1, {4: G.Y}),
    (G.RXX, -1, {}),
    (G.RYY, -1, {}),
    (G.RZZ, -1, {}),
    (G.RZX, -1, {}),
)
"""(rotation, the same with its phase, named gates by eighths of a turn)."""

_PURES: tuple[tuple[int, dict[int, int]], ...] = (
    (G.CP, {2: G.CS, 4: G.CZ, 6: G.CSDG}),
    (-1, {2: G.CSX, 4: G.CX, 6: G.CSXDG}),
    *((-1, {4: code}) for code in (G.H, G.CY, G.CH, G.SWAP, G.ECR, G.CCX, G.CCZ, G.CSWAP, G.MCX)),
)
"""(gate with an angle, named gates by eighths of a turn), all without a phase."""

_CONTROLLED: tuple[int, ...] = (G.CRX, G.CRY, G.CRZ)

_COUNT = len(_ROTATIONS) + len(_PURES) + len(_CONTROLLED)

FAMILY: NDArray[np.int64] = np.full(len(GATES), -1, dtype=np.int64)
"""Family of each gate by code, -1 for none."""

NAMED_TURN: NDArray[np.int64] = np.zeros(len(GATES), dtype=np.int64)
"""Angle of each gate that has none written, units of pi / 2**60, by code."""

PHASED: NDArray[np.int64] = np.zeros(len(GATES), dtype=np.int64)
"""1 where the gate at angle a is ``exp(i a/2)`` times its family's rotation, by code."""

VOCABULARY: NDArray[np.int64] = np.zeros(len(GATES), dtype=np.int64)
"""How the gate is written, by code: 1 plain rotation, 2 with its phase, 4 by a name, 12 by a name
that only circuits which use it want to see (``cs``)."""

MODE: NDArray[np.int64] = np.zeros(_COUNT, dtype=np.int64)
"""Mode of each family."""

ANGLE_CODE: NDArray[np.int64] = np.full(_COUNT, -1, dtype=np.int64)
"""Gate of each family that takes an angle, -1 for none."""

PHASED_CODE: NDArray[np.int64] = np.full(_COUNT, -1, dtype=np.int64)
"""Gate of each family that takes an angle and carries the phase, -1 for none."""

NAMED: NDArray[np.int64] = np.full((_COUNT, 8), -1, dtype=np.int64)
"""Gate of each family for k eighths of a turn, -1 for none."""


def _fill() -> None:
    family = 0

    def named(gates: dict[int, int]) -> None:
        for eighths, code in gates.items():
            FAMILY[code] = family
            NAMED_TURN[code] = eighths * _QUARTER
            VOCABULARY[code] = 4
            NAMED[family, eighths] = code

    for rotation, phased, gates in _ROTATIONS:
        MODE[family], ANGLE_CODE[family], PHASED_CODE[family] = ROTATION, rotation, phased
        named(gates)
        PHASED[list(gates.values())] = 1
        FAMILY[rotation], VOCABULARY[rotation] = family, 1
        if phased >= 0:
            FAMILY[phased], VOCABULARY[phased], PHASED[phased] = family, 2, 1
        family += 1
    for angled, gates in _PURES:
        MODE[family], ANGLE_CODE[family] = PURE, angled
        named(gates)
        if angled >= 0:
            FAMILY[angled], VOCABULARY[angled] = family, 1
        family += 1
    for code in _CONTROLLED:
        MODE[family], ANGLE_CODE[family] = CONTROLLED, code
        FAMILY[code], VOCABULARY[code] = family, 1
        family += 1
    # The identity is a phase gate of no angle: it is dropped wherever it stands.
    FAMILY[G.ID], PHASED[G.ID] = FAMILY[G.Z], 1
    VOCABULARY[[G.CS, G.CSDG]] = 12


_fill()

QUARTER_CONTROLLED = int(FAMILY[G.CS])
"""The family whose quarter turns are named only where the circuit names them."""

SYMMETRY: NDArray[np.int64] = np.zeros(len(GATES), dtype=np.int64)
"""Operands that may trade places, by code: 0 none, 1 first two, 2 last two, 3 all three."""

SYMMETRY[[G.CZ, G.CS, G.CSDG, G.CP, G.SWAP, G.ISWAP, G.RXX, G.RYY, G.RZZ, G.CCX]] = 1
SYMMETRY[[G.XY, G.SISWAP, G.SISWAPDG, G.ZZMAX]] = 1
SYMMETRY[G.CSWAP] = 2
SYMMETRY[G.CCZ] = 3
