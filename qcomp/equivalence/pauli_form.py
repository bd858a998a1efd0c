"""The Pauli normal form of a circuit, and equality of two of them.

Every circuit is a product of Pauli rotations ``exp(-i theta/2 P)`` followed by one Clifford: each
Clifford gate is moved to the end, which turns the Paulis of the rotations after it. Rotations that
commute may trade places, equal Paulis that meet add their angles, quarter turns join the Clifford.
What is left, layered by what commutes, is the same for two circuits only if they are the same up
to global phase; it may differ for circuits that are the same, so this method can only say yes.

Ancillas that start in |0> are cut out: as long as no rotation before has an X or Y on an ancilla, a
Z there is 1 and leaves the Pauli. Where in the end no rotation has anything on an ancilla, and the
Clifford takes Z of each ancilla to a product of such, every ancilla ends in |0>, and rotations and
Clifford on the other qubits are those of a circuit without ancillas. Else an ancilla takes part, or
does not end in |0>, which the Clifford says for certain once the rotations are free of it.

Written apart from the passes, and from another side than they are: no labels, no segments.

Source: Litinski 2019 (arXiv:1808.02892), section 1; Foata's normal form of commuting products
(Cartier, Foata 1969).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.equivalence.verdict import TOLERANCE
from qcomp.ir.angle import PI, Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.definitions import Step, definition, multi_controlled_x
from qcomp.ir.gates import BY_NAME, GATES, NUM_ANGLES, G, gate
from qcomp.kernels import kernel

__all__ = [
    "AncillasDiffer",
    "Local",
    "PauliForm",
    "commutes",
    "pauli_form",
    "pauli_form_error",
    "same_pauli_form",
    "times",
    "turned",
]

ROTATIONS = 40_000
"""Rotations up to which a normal form is made."""

OPERATIONS = 400_000
"""Operations, after gates are taken apart, up to which a normal form is made."""

ROUNDINGS = (1e-11, 1e-15)
"""Radians up to which an angle is taken for rounding when a rotation is put in. The first forgets
what numeric synthesis leaves behind; the second keeps the fine angles of large Fourier transforms.
"""

_SMALL = 1.7e-11
"""Radians up to which a rotation is left out of the finished form, its angle counted as error."""

_LEFT = int(0.3 / math.pi * PI)
"""Angles are kept from -0.3 radians on: no fraction of pi is near to where they wrap."""

Local = tuple[int, int, int]
"""A Pauli ``i^p X^x Z^z``: (x, z, p), x and z bit masks over qubits, p modulo 4."""

_AXES: dict[int, tuple[str, Angle | None]] = {
    G.RZ: ("Z", None),
    G.P: ("Z", None),
    G.T: ("Z", Angle(PI >> 2)),
    G.TDG: ("Z", Angle(-(PI >> 2))),
    G.RX: ("X", None),
    G.RY: ("Y", None),
    G.RXX: ("XX", None),
    G.RYY: ("YY", None),
    G.RZZ: ("ZZ", None),
    G.RZX: ("ZX", None),
}
"""Rotations: the Pauli on each operand, and the angle where the gate has none written."""


class TooLarge(Exception):  # noqa: N818  a signal inside this module, no error of a user
    """The normal form would take too long."""


class AncillasDiffer(Exception):  # noqa: N818  a signal to the ladder, no error of a user
    """An ancilla that starts in |0> does not end there, whatever the angles are."""


def times(a: Local, b: Local) -> Local:
    """Return the product of two Paulis."""
    return a[0] ^ b[0], a[1] ^ b[1], (a[2] + b[2] + 2 * (a[1] & b[0]).bit_count()) & 3


def commutes(a: Local, b: Local) -> bool:
    """Whether two Paulis commute."""
    return ((a[0] & b[1]).bit_count() + (a[1] & b[0]).bit_count()) & 1 == 0


@functools.cache
def _pauli_matrix(x: int, z: int, num_qubits: int) -> NDArray[np.complex128]:
    """Return ``X^x Z^z`` over so many qubits."""
    size = 1 << num_qubits
    out = np.zeros((size, size), dtype=complex)
    for column in range(size):
        out[column ^ x, column] = (-1) ** (column & z).bit_count()
    return out


@functools.cache
def _images(name: str) -> tuple[tuple[Local, Local], ...]:
    """Return for each operand k of a Clifford gate U the Paulis ``U^-1 X_k U``, ``U^-1 Z_k U``."""
    matrix = gate(name).matrix()
    n = gate(name).num_qubits
    adjoint = matrix.conj().T

    def image(x: int, z: int) -> Local:
        target = adjoint @ _pauli_matrix(x, z, n) @ matrix
        for u, v in product(range(1 << n), repeat=2):
            overlap = np.trace(_pauli_matrix(u, v, n).conj().T @ target) / (1 << n)
            if abs(overlap) > 0.9:
                return u, v, round(np.angle(overlap) / (np.pi / 2)) % 4
        raise ValueError(f"{name} is no Clifford gate")

    return tuple((image(1 << k, 0), image(0, 1 << k)) for k in range(n))


def _levels_kernel(x: Any, z: Any, level: Any) -> int:
    """Layer of each Pauli: one more than the highest of those before it that it fights with.

    x, z: uint64[m, words]; level: int64[m], filled. Returns the number of layers.
    """
    count = 0
    words = x.shape[1]
    for i in range(len(level)):
        best = 0
        for j in range(i):
            if level[j] < best:
                continue
            bits = (x[i, 0] & z[j, 0]) ^ (z[i, 0] & x[j, 0])
            for w in range(1, words):
                bits ^= (x[i, w] & z[j, w]) ^ (z[i, w] & x[j, w])
            for shift in (32, 16, 8, 4, 2, 1):
                bits ^= bits >> np.uint64(shift)
            if bits & np.uint64(1):
                best = level[j] + 1
        level[i] = best
        count = max(count, best + 1)
    return count


_levels = kernel()(_levels_kernel)


class PauliForm:
    """The normal form while it is made.

    Args:
        num_qubits: Qubits of the circuit.
        rounding: Radians up to which an angle is taken for rounding.
        inputs: Qubits from this one on start in |0>; all qubits are inputs where it is None.

    Attributes:
        xs: ``C^-1 X_q C`` for each qubit, C the Clifford so far.
        zs: ``C^-1 Z_q C``.
        dropped: Sum of the angles that were taken for rounding, radians.
    """

    def __init__(
        self, num_qubits: int, rounding: float = ROUNDINGS[0], inputs: int | None = None
    ) -> None:
        self._rounding = rounding
        self._inputs = num_qubits if inputs is None else inputs
        self._zero = (1 << num_qubits) - (1 << self._inputs)
        # Ancillas with X or Y in a rotation that stays, by the rotation's place.
        self._turned: dict[int, int] = {}
        self.xs: list[Local] = [(1 << q, 0, 0) for q in range(num_qubits)]
        self.zs: list[Local] = [(0, 1 << q, 0) for q in range(num_qubits)]
        self.dropped = 0.0
        self._words = max(1, -(-num_qubits // 64))
        # Rotations in order, Paulis Hermitian with sign plus; a rotation that went is the identity.
        self._x = np.zeros((64, self._words), dtype=np.uint64)
        self._z = np.zeros((64, self._words), dtype=np.uint64)
        self._paulis: list[tuple[int, int]] = []
        self._angles: list[Angle] = []
        # Places of each Pauli, the latest last; one that went uncovers the one before.
        self._places: dict[tuple[int, int], list[int]] = {}

    def clifford(self, name: str, qubits: tuple[int, ...]) -> None:
        """Put a Clifford gate after everything so far."""
        new = []
        for pair in _images(name):
            for x, z, p in pair:
                total: Local = (0, 0, p)
                for j, q in enumerate(qubits):
                    if x >> j & 1:
                        total = times(total, self.xs[q])
                for j, q in enumerate(qubits):
                    if z >> j & 1:
                        total = times(total, self.zs[q])
                new.append(total)
        for j, q in enumerate(qubits):
            self.xs[q], self.zs[q] = new[2 * j], new[2 * j + 1]

    def rotation(self, word: str, qubits: tuple[int, ...], angle: Angle) -> None:
        """Put a Pauli rotation after everything so far."""
        pauli: Local = (0, 0, 0)
        for letter, q in zip(word, qubits, strict=True):
            if letter in "XY":
                pauli = times(pauli, self.xs[q])
            if letter in "ZY":
                pauli = times(pauli, self.zs[q])
            if letter == "Y":
                pauli = pauli[0], pauli[1], (pauli[2] + 1) & 3
        x, z, p = pauli
        # i^|x & z| X^x Z^z is the Hermitian Pauli word with sign plus.
        if (p - (x & z).bit_count()) & 3 == 2:
            angle = -angle
        self._insert((x, z, (x & z).bit_count() & 3), angle)

    def _insert(self, pauli: Local, angle: Angle) -> None:
        if pauli[1] & self._zero:
            turned_before = functools.reduce(int.__or__, self._turned.values(), pauli[0])
            pauli = pauli[0], pauli[1] & ~(self._zero & ~turned_before), pauli[2]
        key = pauli[0], pauli[1]
        if key == (0, 0):
            return
        places = self._places.setdefault(key, [])
        if places and self._moves_to(key, places[-1]):
            at = places.pop()
            angle = self._angles[at] + angle
            self._x[at], self._z[at], self._angles[at] = 0, 0, Angle()
            self._turned.pop(at, None)
        quarters, angle = _split(angle)
        if quarters:
            self.xs = [turned(row, pauli, quarters) for row in self.xs]
            self.zs = [turned(row, pauli, quarters) for row in self.zs]
        if not angle.terms and abs(float(angle)) <= self._rounding:
            self.dropped += abs(float(angle))
            return
        at = len(self._angles)
        if at >= ROTATIONS:
            raise TooLarge
        if at == len(self._x):
            self._x, self._z = (np.concatenate([a, np.zeros_like(a)]) for a in (self._x, self._z))
        self._x[at], self._z[at] = self._packed(pauli[0]), self._packed(pauli[1])
        self._paulis.append(key)
        self._angles.append(angle)
        places.append(at)
        if pauli[0] & self._zero:
            self._turned[at] = pauli[0] & self._zero

    def _packed(self, bits: int) -> NDArray[np.uint64]:
        return np.frombuffer(bits.to_bytes(8 * self._words, "little"), dtype=np.uint64)

    def _moves_to(self, key: tuple[int, int], at: int) -> bool:
        """Whether a Pauli commutes with all rotations after place ``at``."""
        after = slice(at + 1, len(self._angles))
        mixed = (self._x[after] & self._packed(key[1])) ^ (self._z[after] & self._packed(key[0]))
        return not (np.bitwise_count(mixed).sum(axis=1) & 1).any()

    def without_ancillas(self) -> PauliForm | None:
        """Return the form on the inputs alone; None where an ancilla takes part in a rotation.

        The form itself where there are no ancillas.

        Raises:
            AncillasDiffer: If an ancilla does not end in |0>.
        """
        if not self._zero:
            return self
        out = PauliForm(self._inputs, self._rounding)
        out.dropped = self.dropped
        for (x, z), angle in self.rotations():
            if (x | z) & self._zero:
                if angle.terms or abs(float(angle)) > _SMALL:
                    return None
                out.dropped += abs(float(angle))
                continue
            at = len(out._angles)
            if at == len(out._x):
                out._x, out._z = (np.concatenate([a, np.zeros_like(a)]) for a in (out._x, out._z))
            out._x[at], out._z[at] = out._packed(x), out._packed(z)
            out._paulis.append((x, z))
            out._angles.append(angle)
        if any(x or z & ~self._zero or p for x, z, p in self.zs[self._inputs :]):
            raise AncillasDiffer
        # What commutes with Z of every ancilla has no X there, and Z is 1.
        for rows, kept in ((self.xs, out.xs), (self.zs, out.zs)):
            kept[:] = [(x, z & ~self._zero, p) for x, z, p in rows[: self._inputs]]
        return out

    def rotations(self) -> list[tuple[tuple[int, int], Angle]]:
        """Return the Pauli, (x, z), and the angle of each rotation, the first applied first."""
        live = np.flatnonzero((self._x | self._z).any(axis=1)).tolist()
        return [(self._paulis[at], self._angles[at]) for at in live]

    def layers(self) -> list[dict[tuple[int, int], Angle]]:
        """Return the rotations in layers: each as early as what it does not commute with allows."""
        for at in np.flatnonzero((self._x | self._z).any(axis=1)).tolist():
            angle = self._angles[at]
            if not angle.terms and abs(float(angle)) <= _SMALL:
                self._x[at], self._z[at] = 0, 0
                self.dropped += abs(float(angle))
        live = np.flatnonzero((self._x | self._z).any(axis=1)).tolist()
        level = np.zeros(len(live), dtype=np.int64)
        count = _levels.at(len(live) ** 2)(self._x[live], self._z[live], level)
        out: list[dict[tuple[int, int], Angle]] = [{} for _ in range(count)]
        for i, at in zip(live, level.tolist(), strict=True):
            out[at][self._paulis[i]] = self._angles[i]
        return out


def _split(angle: Angle) -> tuple[int, Angle]:
    """Split off quarter turns: (k, rest) with the rest in [-0.3, pi/2 - 0.3)."""
    step = PI >> 1
    # A float part may hold turns that another circuit has in its exact part.
    quarters = (angle.frac + round(angle.rem / math.pi * PI) + _LEFT) // step
    return quarters % 4, Angle(angle.frac - quarters * step, angle.rem, angle.terms)


def turned(row: Local, pauli: Local, quarters: int) -> Local:
    """Return ``V^-1 row V`` with ``V = exp(-i quarters pi/4 P)``."""
    if commutes(row, pauli):
        return row
    if quarters == 2:
        return row[0], row[1], (row[2] + 2) & 3
    x, z, p = times(pauli, row)
    return x, z, (p + (1 if quarters == 1 else 3)) & 3


def _parts(step: Step, budget: list[int]) -> Iterator[Step]:
    """Yield the Cliffords and rotations that a gate is made of."""
    row = step.gate
    budget[0] -= 1
    if budget[0] < 0:
        raise TooLarge
    if row.code in _AXES or row.kind == "phase" or row.clifford:
        yield step
        return
    if row.code == G.U:
        theta, phi, lam = step.angles
        for name, angle in (("rz", lam), ("ry", theta), ("rz", phi)):
            yield Step(gate(name), step.qubits, (angle,))
        return
    inner = multi_controlled_x(len(step.qubits) - 1) if row.code == G.MCX else definition(row.name)
    values = dict(zip("tplg", step.angles, strict=False))
    for part in inner:
        angles = tuple(_substituted(angle, values) for angle in part.angles)
        yield from _parts(
            Step(part.gate, tuple(step.qubits[q] for q in part.qubits), angles), budget
        )


def _substituted(angle: Angle, values: dict[str, Angle]) -> Angle:
    total = Angle(angle.frac, angle.rem)
    for name, factor in angle.terms:
        total = total + values[name] * factor
    return total


def pauli_form(
    circuit: Circuit, rounding: float = ROUNDINGS[0], inputs: int | None = None
) -> PauliForm | None:
    """Return the normal form of a unitary, straight-line circuit; None where it takes too long.

    Args:
        circuit: The circuit.
        rounding: Radians up to which an angle is taken for rounding.
        inputs: Qubits from this one on are ancillas, which start in |0>: the form is that of what
            happens to the others, None where it was not seen that they take no part.

    Raises:
        AncillasDiffer: If an ancilla does not end in |0>.
    """
    form = PauliForm(circuit.num_qubits, rounding, inputs)
    budget = [OPERATIONS]
    run = circuit.run
    try:
        for i, code in enumerate(run.code.tolist()):
            if code in (G.BARRIER, G.GPHASE):
                continue
            first = int(run.angle[i])
            angles = tuple(
                Angle(
                    int(run.frac[first + k]),
                    float(run.rem[first + k]),
                    tuple(
                        (circuit.params[column], factor)
                        for column, factor in circuit.forms.row(int(run.form[first + k]))
                    ),
                )
                for k in range(int(NUM_ANGLES[code]))
            )
            for part in _parts(Step(GATES[code], run.operands(i), angles), budget):
                _put(form, part)
    except TooLarge:
        return None
    return form.without_ancillas()


def _put(form: PauliForm, part: Step) -> None:
    if part.gate.code in _AXES:
        word, angle = _AXES[part.gate.code]
        form.rotation(word, part.qubits, part.angles[0] if angle is None else angle)
    elif part.gate.code != BY_NAME["gphase"].code:
        form.clifford(part.gate.name, part.qubits)


def pauli_form_error(a: Circuit, b: Circuit, inputs: int | None = None) -> float | None:
    """Return a bound of the distance of two circuits with one normal form, None if they have two.

    Args:
        a: Straight-line, without measurements and resets.
        b: The same, over the same qubits.
        inputs: Qubits from this one on start in |0>.

    Returns:
        Half the sum of the angles' differences, which bounds ``min_phase ||A - phase B||`` in
        operator norm (coefficients of symbols agree to 1e-12); 0 where all angles are exact.

    Raises:
        AncillasDiffer: If an ancilla of one does not end in |0>.
    """
    for rounding in ROUNDINGS:
        error = _form_error(a, b, rounding, inputs)
        if error is not None:
            return error
    return None


def _form_error(a: Circuit, b: Circuit, rounding: float, inputs: int | None) -> float | None:
    """Return the bound of the distance with angles up to ``rounding`` forgotten."""
    first, second = (pauli_form(circuit, rounding, inputs) for circuit in (a, b))
    if first is None or second is None:
        return None
    if first.xs != second.xs or first.zs != second.zs:
        return None
    layers, others = first.layers(), second.layers()
    if len(layers) != len(others):
        return None
    total = first.dropped + second.dropped
    for layer, other in zip(layers, others, strict=True):
        if layer.keys() != other.keys():
            return None
        for pauli, angle in layer.items():
            difference = _difference(angle, other[pauli])
            if difference is None:
                return None
            total += difference
    return total / 2


def same_pauli_form(a: Circuit, b: Circuit) -> bool:
    """Whether two unitary circuits have one normal form, up to 1e-9 in operator norm.

    Args:
        a: Straight-line, without measurements and resets.
        b: The same, over the same qubits.
    """
    error = pauli_form_error(a, b)
    return error is not None and error <= TOLERANCE


def _difference(a: Angle, b: Angle) -> float | None:
    """Return how far two angles are apart, radians; None if their symbols differ."""
    if len(a.terms) != len(b.terms):
        return None
    for (name, factor), (other, scale) in zip(sorted(a.terms), sorted(b.terms), strict=True):
        if name != other or abs(factor - scale) > 1e-12:
            return None
    return abs((a.frac - b.frac) * (math.pi / PI) + (a.rem - b.rem))
