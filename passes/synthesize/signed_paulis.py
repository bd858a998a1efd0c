"""Clifford circuits on three qubits as signed Paulis pulled back to the input."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from qcomp.ir.gates import G

__all__ = ["PARTS", "Pulled", "Rotation", "anticommute", "local_cliffords", "on_qubit"]

Rotation = tuple[str, tuple[int, ...], int]
"""(a Pauli letter for each operand, the operands, quarters of pi)."""

PARTS: Mapping[int, tuple[Rotation, ...]] = MappingProxyType(
    {
        G.X: (("X", (0,), 4),),
        G.Y: (("Y", (0,), 4),),
        G.Z: (("Z", (0,), 4),),
        G.H: (("Z", (0,), 4), ("Y", (0,), 2)),
        G.S: (("Z", (0,), 2),),
        G.SDG: (("Z", (0,), -2),),
        G.SX: (("X", (0,), 2),),
        G.SXDG: (("X", (0,), -2),),
        G.CX: (("Z", (0,), 2), ("X", (1,), 2), ("ZX", (0, 1), -2)),
        G.CY: (("Z", (0,), 2), ("Y", (1,), 2), ("ZY", (0, 1), -2)),
        G.CZ: (("Z", (0,), 2), ("Z", (1,), 2), ("ZZ", (0, 1), -2)),
        G.SWAP: (("XX", (0, 1), 2), ("YY", (0, 1), 2), ("ZZ", (0, 1), 2)),
    }
)
"""Clifford gates as rotations about Paulis in time order, up to phase, by code."""

Signed = tuple[int, int]
"""(bits, power of i) for ``i^power X^x Z^z``; bits 0 to 2 are x, 3 to 5 are z."""

_LETTER = {"X": 1, "Z": 8, "Y": 9}


def on_qubit(letter: str, qubit: int) -> int:
    """Return the bits of a Pauli on one qubit."""
    return _LETTER[letter] << qubit


def anticommute(p: int, q: int) -> bool:
    """Whether two Paulis, as bits, anticommute."""
    return (((p & 7) & (q >> 3)).bit_count() + ((p >> 3) & (q & 7)).bit_count()) % 2 == 1


def _times(p: Signed, q: Signed) -> Signed:
    sign = 2 * ((p[0] >> 3) & (q[0] & 7)).bit_count()
    return p[0] ^ q[0], (p[1] + q[1] + sign) % 4


class Pulled:
    """``C^dag P C`` of the Paulis X and Z on every qubit, while C grows gate by gate."""

    def __init__(self) -> None:
        self._generators: list[Signed] = [(1 << k, 0) for k in range(6)]

    def copy(self) -> Pulled:
        """Return an independent copy."""
        other = Pulled()
        other._generators = list(self._generators)
        return other

    def signed(self, bits: int) -> tuple[int, int]:
        """Return (bits, sign) of ``C^dag P C`` for the Paulis P without signs.

        Args:
            bits: P.
        """
        out: Signed = (0, ((bits & 7) & (bits >> 3)).bit_count() % 4)
        for k in range(6):
            if bits >> k & 1:
                out = _times(out, self._generators[k])
        ys = ((out[0] & 7) & (out[0] >> 3)).bit_count()
        return out[0], 1 - (out[1] - ys) % 4

    def turn(self, bits: int, halves: int) -> None:
        """Let C go on with a rotation about a Pauli by ``halves * pi/2``.

        ``exp(i a/2 P) G exp(-i a/2 P) = exp(i a P) G`` for G that anticommutes with P.
        """
        halves %= 4
        if not halves:
            return
        pulled, sign = self.signed(bits)
        ys = ((pulled & 7) & (pulled >> 3)).bit_count()
        factor: Signed = (pulled, (ys + 1 - sign + halves) % 4) if halves % 2 else (0, 2)
        for k in range(6):
            if anticommute(bits, 1 << k):
                self._generators[k] = _times(factor, self._generators[k])

    def apply(self, code: int, qubits: tuple[int, ...]) -> None:
        """Let C go on with a Clifford gate."""
        new = []
        for generator, power, factors in _images(code):
            out: Signed = (0, power)
            for factor in factors:
                out = _times(out, self._generators[_place(factor, qubits)])
            new.append((_place(generator, qubits), out))
        for place, value in new:
            self._generators[place] = value

    def apply_parts(self, code: int, qubits: tuple[int, ...]) -> None:
        """Let C go on with the rotations that a Clifford gate is."""
        for letters, operands, quarters in PARTS[code]:
            bits = 0
            for letter, operand in zip(letters, operands, strict=True):
                bits |= on_qubit(letter, qubits[operand])
            self.turn(bits, quarters // 2)

    def generator(self, index: int) -> Signed:
        """Return what X on qubit ``index`` (0 to 2), or Z on ``index - 3``, is pulled back to."""
        return self._generators[index]

    def letters(self, qubit: int) -> Iterator[tuple[str, int, int]]:
        """Yield (letter, bits, sign) of what each Pauli on a qubit is pulled back to."""
        for letter in "ZXY":
            yield (letter, *self.signed(on_qubit(letter, qubit)))


def _place(generator: int, qubits: tuple[int, ...]) -> int:
    """Return the number of a generator of a gate's operands among those of three qubits."""
    return qubits[generator] if generator < 3 else 3 + qubits[generator - 3]


@functools.cache
def _images(code: int) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
    """Return (generator, power of i, generators that its image multiplies) of a gate's operands."""
    pulled = Pulled()
    operands = 1 + max(max(at) for _, at, _ in PARTS[code])
    pulled.apply_parts(code, tuple(range(operands)))
    out = []
    for generator in (*range(operands), *range(3, 3 + operands)):
        bits, power = pulled.generator(generator)
        out.append((generator, power, tuple(k for k in range(6) if bits >> k & 1)))
    return tuple(out)


@functools.cache
def local_cliffords() -> Mapping[tuple[str, int, str, int], tuple[int, ...]]:
    """Return (image of X, its sign, image of Z, its sign) -> the shortest gates with these images.

    Images are ``V^dag X V`` and ``V^dag Z V``.
    """
    found: dict[tuple[str, int, str, int], tuple[int, ...]] = {}
    words: list[tuple[int, ...]] = [()]
    steps = (G.X, G.Z, G.Y, G.S, G.SDG, G.H, G.SX, G.SXDG)
    name = {on_qubit(letter, 0): letter for letter in "XYZ"}
    for word in words:
        pulled = Pulled()
        for code in word:
            pulled.apply(code, (0,))
        (x, x_sign), (z, z_sign) = (pulled.signed(on_qubit(letter, 0)) for letter in "XZ")
        key = name[x], x_sign, name[z], z_sign
        if key not in found:
            found[key] = word
            words.extend((*word, code) for code in steps)
    return MappingProxyType(found)
