"""Gates of a window: what they cost, and chains of one-qubit Clifford gates as single words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from qcomp.ir.gates import GATES, G
from qcomp.passes.synthesize.signed_paulis import PARTS, Pulled, local_cliffords, on_qubit
from qcomp.passes.synthesize.words import Prices

__all__ = ["CX_COST", "OpCosts", "Op", "merged", "quarter_turns"]

CX_COST: Mapping[int, int] = MappingProxyType({G.CX: 1, G.CY: 1, G.CZ: 1, G.SWAP: 3})
"""CX gates that a two-qubit gate takes, by code."""

Op = tuple[int, tuple[int, ...], int, int]
"""(code, qubits, angle entry or -1, sign of the angle); code -1 stands for what no window takes:
its entry is the operation's place in the run."""

_NAME = {on_qubit(letter, 0): letter for letter in "XYZ"}
_QUARTERS: Mapping[int, tuple[tuple[int, ...], ...]] = MappingProxyType(
    {
        G.RZ: ((), (G.S,), (G.Z,), (G.SDG,)),
        G.RX: ((), (G.SX,), (G.X,), (G.SXDG,)),
        G.RY: ((), (G.Z, G.H), (G.Y,), (G.H, G.Z)),
    }
)


def quarter_turns(code: int, halves: int) -> tuple[int, ...]:
    """Return gates that are, up to phase, a rotation by ``halves * pi/2``."""
    return _QUARTERS[code][halves % 4]


class OpCosts:
    """What gates cost, one-qubit Clifford gates as they are written in a basis."""

    def __init__(self, prices: Prices) -> None:
        words = list(local_cliffords().values())
        matrix = np.tile(np.eye(2, dtype=complex), (len(words), 1, 1))
        for k, word in enumerate(words):
            for code in word:
                matrix[k] = GATES[code].matrix() @ matrix[k]
        self._cliffords = dict(zip(words, prices.costs(matrix).cost.tolist(), strict=True))
        self._prices = prices

    def of(self, ops: Sequence[Op]) -> float:
        """Return the cost of gates on three qubits whose Clifford chains are single words."""
        chain: list[tuple[int, ...]] = [(), (), ()]
        total = 0.0
        for code, qubits, _, _ in ops:
            if len(qubits) == 1 and code in PARTS:
                chain[qubits[0]] += (code,)
                continue
            for q in qubits:
                total += self._cliffords[chain[q]]
                chain[q] = ()
            if code in CX_COST:
                total += CX_COST[code] * (self._prices.two_qubit + self._prices.gate)
            else:
                total += self._prices.gate
        return total + sum(self._cliffords[word] for word in chain)


def merged(ops: Sequence[Op]) -> list[Op]:
    """Write every chain of one-qubit Clifford gates as its shortest word.

    Args:
        ops: Gates on qubits 0, 1, 2.
    """
    out: list[Op] = []
    chain: list[Pulled | None] = [None, None, None]

    def flush(q: int) -> None:
        pulled = chain[q]
        if pulled is None:
            return
        (x, x_sign), (z, z_sign) = (pulled.signed(on_qubit(letter, 0)) for letter in "XZ")
        word = local_cliffords()[_NAME[x], x_sign, _NAME[z], z_sign]
        out.extend((code, (q,), -1, 1) for code in word)
        chain[q] = None

    for code, qubits, entry, sign in ops:
        if len(qubits) == 1 and code in PARTS:
            pulled = chain[qubits[0]] or Pulled()
            pulled.apply(code, (0,))
            chain[qubits[0]] = pulled
            continue
        for q in qubits:
            flush(q)
        out.append((code, qubits, entry, sign))
    for q in range(3):
        flush(q)
    return out
