"""Measurement grouping: Pauli products that commute are read from the bits of one circuit.

Two rules say which products go together. ``qubit-wise``: on every qubit they have the same letter
or one has none; the change of basis is one-qubit gates. ``full``: the products commute; the change
of basis is a Clifford circuit of at most ``n (n - 1)`` two-qubit gates, and there are fewer groups.

Groups are colours of the graph whose edges join products that do not go together. Colouring is
DSATUR (Brelaz 1979): the product with most colours around it is next.

Sources: Gokhale, Angiuli, Ding, Gui, Tomesh, Suchara, Martonosi, Chong 2019 (arXiv:1907.13623);
Crawford, van Straaten, Wang, Parks, Campbell, Brierley 2019 (arXiv:1908.06942); van den Berg and
Temme 2020 (arXiv:2003.13599) for the change of basis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable, Pauli

__all__ = ["Group", "Rule", "Word", "combine", "group_observables", "ungrouped_count"]

Rule = Literal["qubit-wise", "full"]
Word = tuple[tuple[int, Pauli], ...]
Step = tuple[str, tuple[int, ...]]
Bits = NDArray[np.bool_]

RULES: tuple[Rule, ...] = ("qubit-wise", "full")


@dataclass(frozen=True, slots=True)
class Group:
    """Pauli products that one circuit measures.

    The circuit is followed by ``gates``, and ``qubits`` are measured in the Z basis. The value of
    product w is ``sign_w (-1)^(sum of the bits of reads_w)``, averaged over shots.

    Attributes:
        words: The products, ((qubit, Pauli), ...) each; the identity is the empty product.
        gates: The change of basis, (gate name, qubits) each, in the order of application.
        qubits: The qubits that have to be measured, ascending.
        reads: For each product the qubits whose bits it is the parity of.
        signs: For each product +1 or -1.
        terms: (observable, coefficient, product) each: which multiple of which product of this
            group which observable contains.
    """

    words: tuple[Word, ...]
    gates: tuple[Step, ...]
    qubits: tuple[int, ...]
    reads: tuple[tuple[int, ...], ...]
    signs: tuple[int, ...]
    terms: tuple[tuple[int, float, int], ...] = field(default=())

    def rotate(self, circuit: Circuit, wires: Sequence[int] | None = None) -> Circuit:
        """Return the circuit with the change of basis at its end, nothing measured yet.

        Args:
            circuit: The circuit.
            wires: Where the qubits of the observables are: qubit q is wire ``wires[q]``.
        """
        new = circuit.copy()
        for name, qubits in self.gates:
            new.append(name, [q if wires is None else wires[q] for q in qubits])
        return new

    def values(self, bits: ArrayLike, qubits: Sequence[int] | None = None) -> NDArray[np.float64]:
        """Return the mean of each product over shots, float64[..., W].

        Args:
            bits: uint8[..., shots, m], the measured bits.
            qubits: The qubit that each of the m columns belongs to; 0 .. m-1 by default.
        """
        array = np.asarray(bits)
        column = {q: j for j, q in enumerate(range(array.shape[-1]) if qubits is None else qubits)}
        reads = np.zeros((array.shape[-1], len(self.words)), dtype=np.float32)
        for w, read in enumerate(self.reads):
            reads[[column[q] for q in read], w] = 1
        odd = (array.astype(np.float32) @ reads) % 2
        means = 1.0 - 2.0 * odd.mean(axis=-2, dtype=np.float64)
        return np.asarray(means * np.array(self.signs))

    def values_of_probabilities(
        self, probabilities: ArrayLike, qubits: Sequence[int] | None = None
    ) -> NDArray[np.float64]:
        """Return the value of each product in distributions of the bits, float64[..., W].

        Args:
            probabilities: float64[..., 2^m]; they may be quasi-probabilities.
            qubits: The qubit of each bit of the index, bit 0 first; ``self.qubits`` by default.
        """
        p = np.asarray(probabilities, dtype=np.float64)
        column = {q: j for j, q in enumerate(self.qubits if qubits is None else qubits)}
        masks = np.array([sum(1 << column[q] for q in read) for read in self.reads], dtype=np.int64)
        index = np.arange(p.shape[-1], dtype=np.int64)
        odd = np.bitwise_count(index[:, None] & masks[None, :]) & 1
        return np.asarray(p @ (1.0 - 2.0 * odd) * np.array(self.signs))


def combine(
    groups: Sequence[Group], values: Sequence[ArrayLike], count: int
) -> NDArray[np.float64]:
    """Return the values of the observables from those of each group's products.

    ``<O_k> = sum over groups g and products w of coefficient * value[g][w]``

    Args:
        groups: The groups.
        values: For each group float64[..., W], as :meth:`Group.values` gives them.
        count: The number of observables that were grouped.

    Returns:
        float64[..., count].
    """
    arrays = [np.asarray(v, dtype=np.float64) for v in values]
    lead = arrays[0].shape[:-1] if arrays else ()
    out = np.zeros((*lead, count))
    for group, value in zip(groups, arrays, strict=True):
        for k, coef, w in group.terms:
            out[..., k] += coef * value[..., w]
    return out


def ungrouped_count(observables: Sequence[Observable | str]) -> int:
    """Return the number of circuits that one circuit a Pauli product would take."""
    return sum(1 for word in _words(observables)[0] if word)


def group_observables(
    observables: Sequence[Observable | str], commuting: Rule = "qubit-wise"
) -> list[Group]:
    """Return groups of products that together hold every product of the observables once.

    The identity, where an observable contains it, is in the first group and reads no bit.

    Args:
        observables: Observables, or their text such as ``"0.5*Z0*Z1 + X2"``.
        commuting: Which products go together: ``qubit-wise`` or ``full``.

    Returns:
        The groups, in the order in which their first products stand in the observables.

    Cost: ``T^2 n / 64`` operations to compare T products on n qubits, ``T^2`` to colour them.

    Raises:
        UsageError: If the rule is unknown or an observable's text is none.
    """
    if commuting not in RULES:
        raise UsageError(f"there is no rule '{commuting}'", hint=suggest(commuting, RULES))
    words, terms = _words(observables)
    real = [word for word in words if word]
    wires = sorted({q for word in real for q, _ in word})
    x, z = _masks(real, wires)
    clash = _clashes(x, z, commuting)
    colour = _dsatur(clash)
    order = list(dict.fromkeys(colour.tolist()))
    groups = [np.flatnonzero(colour == c) for c in order]
    if not real and words:
        groups = [np.zeros(0, dtype=np.intp)]
    out = []
    for g, members in enumerate(groups):
        gates, reads, signs = _diagonalise(x[members], z[members], commuting)
        held = [real[i] for i in members]
        read_wires = [tuple(wires[c] for c in np.flatnonzero(row)) for row in reads]
        sign_list = [int(s) for s in signs]
        if g == 0 and () in words:
            held.append(())
            read_wires.append(())
            sign_list.append(1)
        place = {word: w for w, word in enumerate(held)}
        out.append(
            Group(
                tuple(held),
                tuple((name, tuple(wires[c] for c in columns)) for name, columns in gates),
                tuple(sorted({q for read in read_wires for q in read})),
                tuple(read_wires),
                tuple(sign_list),
                tuple((k, coef, place[word]) for k, coef, word in terms if word in place),
            )
        )
    return out


def _words(
    observables: Sequence[Observable | str],
) -> tuple[list[Word], list[tuple[int, float, Word]]]:
    """Return the different products in order, and (observable, coefficient, product) each."""
    terms = [
        (k, float(coef), word)
        for k, item in enumerate(observables)
        for coef, word in (Observable.parse(item) if isinstance(item, str) else item).terms
    ]
    return list(dict.fromkeys(word for _, _, word in terms)), terms


def _masks(words: Sequence[Word], wires: Sequence[int]) -> tuple[Bits, Bits]:
    """Return where each product has X or Y, and where Z or Y, bool[T, n] both."""
    column = {q: c for c, q in enumerate(wires)}
    x = np.zeros((len(words), len(wires)), dtype=bool)
    z = np.zeros((len(words), len(wires)), dtype=bool)
    for t, word in enumerate(words):
        for q, letter in word:
            x[t, column[q]] = letter in "XY"
            z[t, column[q]] = letter in "ZY"
    return x, z


def _clashes(x: Bits, z: Bits, rule: Rule) -> Bits:
    """Return which products do not go together, bool[T, T]."""
    clash: Bits
    if rule == "full":
        a, b = x.astype(np.float32), z.astype(np.float32)
        anti = a @ b.T
        clash = np.asarray((anti + anti.T) % 2 == 1)
        return clash
    letters = [(x & ~z), (x & z), (z & ~x)]
    planes = [letter.astype(np.float32) for letter in letters]
    total = np.zeros((len(x), len(x)), dtype=np.float32)
    for i, j in ((0, 1), (0, 2), (1, 2)):
        one = planes[i] @ planes[j].T
        total += one + one.T
    clash = total > 0
    return clash


def _dsatur(clash: Bits) -> NDArray[np.int64]:
    """Return a colour for each product such that none that clash share one, int64[T]."""
    count = len(clash)
    colour = np.full(count, -1, dtype=np.int64)
    around = np.zeros((count, 1), dtype=bool)
    degree = clash.sum(axis=1)
    for _ in range(count):
        # Most colours around, then most clashes, then the first: an exact order of integers.
        key = around.sum(axis=1) * (count + 1) + degree
        key[colour >= 0] = -1
        t = int(key.argmax())
        free = np.flatnonzero(~around[t])
        if not len(free):
            around = np.hstack([around, np.zeros((count, 1), dtype=bool)])
            free = np.array([around.shape[1] - 1])
        colour[t] = free[0]
        around[clash[t], free[0]] = True
    return colour


def _diagonalise(
    x: Bits, z: Bits, rule: Rule
) -> tuple[list[tuple[str, tuple[int, ...]]], Bits, NDArray[np.int64]]:
    """Return gates that turn commuting products into products of Z, which they are, and signs.

    Each round takes a product with an X, makes it X on one qubit alone by ``cx``, ``s`` and ``cz``
    of that qubit, and turns it into Z by ``h``. The others commute with it, so they have no Z
    there; rows are multiplied so that they have no X there either.
    """
    x, z = x.copy(), z.copy()
    sign = np.zeros(len(x), dtype=bool)
    gates: list[tuple[str, tuple[int, ...]]] = []

    def put(name: str, *columns: int) -> None:
        gates.append((name, columns))
        _conjugate(name, columns, x, z, sign)
        if rule == "full":
            _conjugate(name, columns, gx, gz, np.zeros(len(gx), dtype=bool))

    if rule == "qubit-wise":
        in_y = set(np.flatnonzero((x & z).any(axis=0)).tolist())
        for c in np.flatnonzero(x.any(axis=0)).tolist():
            if c in in_y:
                put("sdg", c)
            put("h", c)
        return gates, z, 1 - 2 * sign.astype(np.int64)
    gx, gz = x.copy(), z.copy()
    while gx.any():
        weight = np.where(gx.any(axis=1), (gx | gz).sum(axis=1), gx.shape[1] + 1)
        row = int(weight.argmin())
        pivot = int(np.flatnonzero(gx[row])[0])
        others = np.flatnonzero(gx[:, pivot])
        others = others[others != row]
        gx[others] ^= gx[row]
        gz[others] ^= gz[row]
        for target in np.flatnonzero(gx[row]).tolist():
            if target != pivot:
                put("cx", pivot, target)
        if gz[row, pivot]:
            put("s", pivot)
        for other in np.flatnonzero(gz[row]).tolist():
            put("cz", pivot, other)
        put("h", pivot)
    return gates, z, 1 - 2 * sign.astype(np.int64)


def _conjugate(name: str, columns: tuple[int, ...], x: Bits, z: Bits, sign: Bits) -> None:
    """Replace each product P by ``U P U^-1`` in place; ``sign`` is true where it is negative."""
    a = columns[0]
    match name:
        case "h":
            sign ^= x[:, a] & z[:, a]
            x[:, a], z[:, a] = z[:, a].copy(), x[:, a].copy()
        case "s":
            sign ^= x[:, a] & z[:, a]
            z[:, a] ^= x[:, a]
        case "sdg":
            sign ^= x[:, a] & ~z[:, a]
            z[:, a] ^= x[:, a]
        case "cx":
            b = columns[1]
            sign ^= x[:, a] & z[:, b] & ~(x[:, b] ^ z[:, a])
            x[:, b] ^= x[:, a]
            z[:, a] ^= z[:, b]
        case _:
            b = columns[1]
            sign ^= x[:, a] & x[:, b] & (z[:, a] ^ z[:, b])
            z[:, a] ^= x[:, b]
            z[:, b] ^= x[:, a]
