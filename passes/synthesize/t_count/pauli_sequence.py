"""A circuit as Pauli rotations and a Clifford, diagonalised with the fewest internal Hadamards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from qcomp.passes.synthesize.t_count.parities import bits

__all__ = ["Frame", "Gate", "Phase", "Step", "diagonalise", "inverse", "pull_back"]

Gate = tuple[str, int, int]
"""(h, x, z, s, sdg, cz or cx; its wire or its control; its target or -1)."""


@dataclass(frozen=True, slots=True)
class Phase:
    """``exp(i pi/4 weight p)``, p the parity of the wires of a mask."""

    parity: int
    weight: int


Step = Gate | Phase


def inverse(gates: Sequence[Gate]) -> list[Gate]:
    """Return the gates that undo these."""
    other = {"s": "sdg", "sdg": "s"}
    return [(other.get(name, name), a, b) for name, a, b in reversed(gates)]


class Frame:
    """Signed Paulis, one bit of each row; a gate turns all of them at once.

    Attributes:
        x: For each wire which Paulis have X there, as a mask.
        z: Likewise for Z; both for Y.
        minus: Which Paulis have a minus.
    """

    def __init__(self, wires: int) -> None:
        self.x = [0] * wires
        self.z = [0] * wires
        self.minus = 0

    def apply(self, gate: Gate) -> None:
        """Turn each P into ``g P g^-1``."""
        name, a, b = gate
        x, z = self.x, self.z
        if name == "cx":
            self.minus ^= x[a] & z[b] & ~(x[b] ^ z[a])
            x[b] ^= x[a]
            z[a] ^= z[b]
        elif name == "h":
            self.minus ^= x[a] & z[a]
            x[a], z[a] = z[a], x[a]
        elif name == "s":
            self.minus ^= x[a] & z[a]
            z[a] ^= x[a]
        elif name == "sdg":
            z[a] ^= x[a]
            self.minus ^= x[a] & z[a]
        elif name == "x":
            self.minus ^= z[a]
        elif name == "z":
            self.minus ^= x[a]
        else:
            self.minus ^= x[a] & x[b] & (z[a] ^ z[b])
            z[a] ^= x[b]
            z[b] ^= x[a]

    def pauli(self, j: int) -> tuple[int, int, int]:
        """Return (mask of X, mask of Z, sign) of Pauli j."""
        x = sum(1 << q for q, row in enumerate(self.x) if row >> j & 1)
        z = sum(1 << q for q, row in enumerate(self.z) if row >> j & 1)
        return x, z, -1 if self.minus >> j & 1 else 1


def pull_back(steps: Sequence[Step], wires: int) -> tuple[Frame, list[int], list[Gate]]:
    """Write a circuit as rotations, in time order, followed by Clifford gates.

    Args:
        steps: The circuit.
        wires: Its wires.

    Returns:
        (the Paulis of the rotations, the weights of the rotations, the Clifford gates).
    """
    phases = [step for step in steps if isinstance(step, Phase)]
    frame = Frame(wires)
    left = len(phases)
    for step in reversed(steps):
        if isinstance(step, Phase):
            left -= 1
            for q in bits(step.parity):
                frame.z[q] |= 1 << left
        else:
            frame.apply(inverse([step])[0])
    gates = [step for step in steps if not isinstance(step, Phase)]
    return frame, [phase.weight for phase in phases], gates


def _straighten(frame: Frame, j: int) -> list[Gate]:
    """Apply the gates that make Pauli j diagonal; at most one of them is a Hadamard."""
    x, _, _ = frame.pauli(j)
    if not x:
        return []
    some = list(bits(x))
    pivot = some[0]
    gates: list[Gate] = [("cx", pivot, q) for q in some[1:]]
    for gate in gates:
        frame.apply(gate)
    if frame.z[pivot] >> j & 1:
        gates.append(("s", pivot, -1))
        frame.apply(gates[-1])
    gates.append(("h", pivot, -1))
    frame.apply(gates[-1])
    return gates


def diagonalise(frame: Frame, weights: Sequence[int]) -> tuple[list[Gate], list[Step], int]:
    """Return (Clifford gates, steps, eighths of 2 pi of phase): ``V`` times the rotations.

    V are the gates of both, without the phases among the steps.

    Rotations about Paulis are written where the gates so far make them diagonal. Walking through
    the sequence backwards first gives a beginning from which the way forward takes the fewest
    Hadamards: the rank of the matrix of which Paulis, i before j, anticommute.

    Args:
        frame: The Paulis; turned on the way.
        weights: For each the rotation ``exp(i pi/8 weight (1 - P))``.

    Source: Vandaele, Martiel, Perdrix, Vuillot 2023 (arXiv:2302.07040), algorithm 3.
    """
    first: list[Gate] = []
    for j in reversed(range(len(weights))):
        first += _straighten(frame, j)
    steps: list[Step] = []
    eighths = 0
    for j, weight in enumerate(weights):
        steps += _straighten(frame, j)
        _, z, sign = frame.pauli(j)
        steps.append(Phase(z, sign * weight))
        # w (1 + Z) / 2 = w - w (1 - Z) / 2
        eighths += weight if sign < 0 else 0
    return first, steps, eighths % 8
