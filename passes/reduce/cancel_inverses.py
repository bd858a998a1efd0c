"""cancel-inverses: gates that meet their inverse through what they commute with vanish."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import AXIS, GATES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.families import CONTROLLED, FAMILY, MODE, SYMMETRY, VOCABULARY
from qcomp.passes.reduce.leaves import Leaf, call, rewrite_leaves
from qcomp.passes.reduce.sums import Groups, summands, write_groups
from qcomp.passes.reduce.symbols import PRIME, fingerprints
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["CancelInverses", "cancel_run"]

_TWO_PI = 1 << 61
_FOUR_PI = 1 << 62


def _kinds() -> NDArray[np.int64]:
    """How gates meet, by code: their family; from 64 on, pairs of whole gates; -1 not at all."""
    kind = FAMILY.copy()
    for code in (G.U, G.R, G.CU):
        kind[code] = 64 + code
    return kind


def _inverse_angles() -> NDArray[np.int64]:
    """For each code and angle i of the inverse: source + 1, negative where the sign is -1."""
    table = np.zeros((len(GATES), 4), dtype=np.int64)
    for row in GATES:
        for i, (sign_or_source, other) in enumerate(row.inverse_angles):
            source, sign = sign_or_source, other
            table[row.code, i] = sign * (source + 1)
    return table


_KIND = _kinds()
_SINGLE = np.where(NUM_QUBITS == 1, _KIND, -1)
_INVERSE_ANGLES = _inverse_angles().ravel()
_PERIOD_MASK = np.where(MODE == CONTROLLED, _FOUR_PI - 1, _TWO_PI - 1)
_AXIS = AXIS.astype(np.int64).ravel()
_AXIS_OF_MEASURE = 3


@kernel()
def _opposite(frac: Any, rem: Any, symbol: Any, table: Any, row: int, first: int, second: int) -> bool:
    """Whether the angles from entry ``second`` on are those of the inverse of entries ``first``."""
    for i in range(4):
        source = table[4 * row + i]
        if source == 0:
            break
        if source > 0:
            j = first + source - 1
            if frac[second + i] != frac[j] or rem[second + i] != rem[j]:
                return False
            if symbol[second + i] != symbol[j]:
                return False
        else:
            j = first - source - 1
            if (frac[second + i] + frac[j]) & (_FOUR_PI - 1) != 0 or rem[second + i] != -rem[j]:
                return False
            if (symbol[second + i] + symbol[j]) % PRIME != 0:
                return False
    return True
