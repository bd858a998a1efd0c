"""Observables: real linear combinations of Pauli products."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from qcomp.errors import UsageError

__all__ = ["Observable", "Pauli"]

Pauli = Literal["X", "Y", "Z"]

_FACTOR = re.compile(r"([IXYZ])(\d+)|([0-9.][0-9.eE+-]*)")


@dataclass(frozen=True, slots=True)
class Observable:
    """A sum of ``coef * P_q P_r ...``.

    Attributes:
        terms: (coefficient, ((qubit, Pauli), ...)) pairs; qubits ascending in a product, products
            in the order they were written; the empty product is the identity.
    """

    terms: tuple[tuple[float, tuple[tuple[int, Pauli], ...]], ...]

    @staticmethod
    def z(qubit: int) -> Observable:
        """Return the Z observable of a qubit."""
        return Observable(((1.0, ((qubit, "Z"),)),))

    @staticmethod
    def parse(text: str) -> Observable:
        """Return the observable of text such as ``0.5*Z0*Z1 - X2``.

        Raises:
            UsageError: If the text is no sum of Pauli products.
        """
        compact = text.replace(" ", "").replace("@", "*")
        pieces = re.findall(r"[+-]?(?:[0-9.]+(?:[eE][+-]?\d+)?|[IXYZ]\d+|\*)+", compact)
        if not pieces or "".join(pieces) != compact:
            raise UsageError(
                f"'{text}' is no observable", hint="write for example Z0, 0.5*Z0*Z1 + X2"
            )
        merged: dict[tuple[tuple[int, Pauli], ...], float] = {}
        for piece in pieces:
            coef, product = _term(piece, text)
            merged[product] = merged.get(product, 0.0) + coef
        return Observable(tuple((coef, product) for product, coef in merged.items()))

    @property
    def qubits(self) -> tuple[int, ...]:
        """The qubits that any product acts on, ascending."""
        return tuple(sorted({q for _, product in self.terms for q, _ in product}))

    def __str__(self) -> str:
        """Return text that :meth:`parse` reads back to the same observable."""
        out = ""
        for coef, product in self.terms:
            word = "*".join(f"{pauli}{qubit}" for qubit, pauli in product)
            magnitude = repr(abs(coef))
            body = word if word and abs(coef) == 1 else "*".join(p for p in (magnitude, word) if p)
            sign = "-" if coef < 0 else "+"
            out += (f" {sign} " if out else sign.replace("+", "")) + body
        return out or "0.0"


def _term(piece: str, text: str) -> tuple[float, tuple[tuple[int, Pauli], ...]]:
    coef = -1.0 if piece.startswith("-") else 1.0
    product: dict[int, Pauli] = {}
    for factor in piece.lstrip("+-").split("*"):
        match = _FACTOR.fullmatch(factor)
        if match is None:
            raise UsageError(f"'{factor}' in '{text}' is no number and no Pauli such as Z0")
        if match[3] is not None:
            coef *= float(match[3])
            continue
        letter, qubit = match[1], int(match[2])
        if qubit in product:
            raise UsageError(f"qubit {qubit} stands twice in a product of '{text}'")
        if letter != "I":
            product[qubit] = cast("Pauli", letter)
    return coef, tuple(sorted(product.items()))
