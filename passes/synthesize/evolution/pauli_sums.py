"""Sums of Pauli products as masks: commutators, norms, groups of products that commute."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError, suggest
from qcomp.ir.observable import Observable

__all__ = [
    "GROUPINGS",
    "ORDERINGS",
    "Masks",
    "PauliSum",
    "apply_sum",
    "commutator",
    "commuting_groups",
    "mask_letters",
    "norm_bound",
    "pauli_sum",
]

Masks = tuple[int, int]
"""(x, z) for the Hermitian product of X where x alone has a bit, Z where z alone, Y where both."""

PauliSum = Mapping[Masks, complex]

Grouping = Literal["general", "qubit-wise", "none"]
GROUPINGS: tuple[Grouping, ...] = ("general", "qubit-wise", "none")


def pauli_sum(observable: Observable) -> dict[Masks, float]:
    """Return the products of an observable with their coefficients; zero ones are left out."""
    out: dict[Masks, float] = {}
    for coef, product in observable.terms:
        x = sum(1 << q for q, letter in product if letter in "XY")
        z = sum(1 << q for q, letter in product if letter in "ZY")
        out[x, z] = out.get((x, z), 0.0) + coef
    return {key: coef for key, coef in out.items() if coef}


def _anticommute(a: Masks, b: Masks) -> bool:
    return ((a[0] & b[1]).bit_count() + (a[1] & b[0]).bit_count()) % 2 == 1


def _commute_everywhere(a: Masks, b: Masks) -> bool:
    """Whether two products agree on every qubit on which both act."""
    both = (a[0] | a[1]) & (b[0] | b[1])
    return ((a[0] ^ b[0]) | (a[1] ^ b[1])) & both == 0


def _product(a: Masks, b: Masks) -> tuple[Masks, complex]:
    """Return (masks, phase) of the product of two Hermitian Pauli products."""
    c = (a[0] ^ b[0], a[1] ^ b[1])
    # P(x, z) = i^|x & z| X^x Z^z, and Z^z X^x' = (-1)^|z & x'| X^x' Z^z.
    power = (a[0] & a[1]).bit_count() + (b[0] & b[1]).bit_count() - (c[0] & c[1]).bit_count()
    power += 2 * (a[1] & b[0]).bit_count()
    return c, (1, 1j, -1, -1j)[power % 4]


def commutator(a: PauliSum, b: PauliSum) -> dict[Masks, complex]:
    """Return ``[A, B]``."""
    out: dict[Masks, complex] = {}
    for p, s in a.items():
        for q, t in b.items():
            if _anticommute(p, q):
                key, phase = _product(p, q)
                out[key] = out.get(key, 0) + 2 * phase * s * t
    return {key: value for key, value in out.items() if abs(value) > 1e-15}


def norm_bound(a: PauliSum) -> float:
    """Return the sum of the magnitudes of the coefficients, at least the operator norm."""
    return float(sum(abs(value) for value in a.values()))


def _by_magnitude(item: tuple[Masks, float]) -> tuple[object, ...]:
    return (-abs(item[1]), item[0])


def _by_support(item: tuple[Masks, float]) -> tuple[object, ...]:
    (x, z), _ = item
    return (-(x | z).bit_count(), (x | z) & -(x | z), x | z, x, z)


def _by_letters(item: tuple[Masks, float]) -> tuple[object, ...]:
    (x, z), _ = item
    return (x, z)


ORDERINGS: Mapping[str, Callable[[tuple[Masks, float]], tuple[object, ...]]] = MappingProxyType(
    {"magnitude": _by_magnitude, "support": _by_support, "letters": _by_letters}
)
"""Orders in which products are put into groups; all are independent of how a sum was written."""


def commuting_groups(
    products: Mapping[Masks, float], grouping: str, ordering: str = "magnitude"
) -> list[dict[Masks, float]]:
    """Return the products in groups whose members commute, each product put into the first.

    Source: van den Berg and Temme 2020, arXiv:2003.13599, section 3, by falling magnitude.

    Args:
        products: The products with their coefficients.
        grouping: "general", "qubit-wise" (equal on every qubit that they share) or "none".
        ordering: A key of ``ORDERINGS``.

    Raises:
        UsageError: If there is no such grouping.
    """
    if grouping not in GROUPINGS:
        raise UsageError(f"there is no grouping '{grouping}'", hint=suggest(grouping, GROUPINGS))
    ordered = sorted(products.items(), key=ORDERINGS[ordering])
    groups: list[dict[Masks, float]] = []
    for masks, coef in ordered:
        for group in groups:
            if grouping == "none":
                continue
            if grouping == "general":
                fits = not any(_anticommute(masks, other) for other in group)
            else:
                fits = all(_commute_everywhere(masks, other) for other in group)
            if fits:
                group[masks] = coef
                break
        else:
            groups.append({masks: coef})
    return groups


def apply_sum(products: PauliSum, states: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return ``A states``, complex128[2^n, m]."""
    i = np.arange(len(states))
    out = np.zeros_like(states)
    for (x, z), coef in products.items():
        signs = 1 - 2 * (np.bitwise_count(i & z) & 1).astype(np.int64)
        phase = (1, 1j, -1, -1j)[(x & z).bit_count() % 4]
        out[i ^ x] += (coef * phase * signs)[:, None] * states
    return out


def mask_letters(masks: Masks) -> Sequence[tuple[int, str]]:
    """Return (qubit, letter) pairs of a product, qubits ascending."""
    x, z = masks
    return [
        (q, "IXZY"[(x >> q & 1) + 2 * (z >> q & 1)])
        for q in range((x | z).bit_length())
        if (x | z) >> q & 1
    ]
