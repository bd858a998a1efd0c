"""What a comparison came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["TOLERANCE", "Verdict"]

TOLERANCE = 1e-9
"""Largest difference between entries of unitaries, states, distributions that counts as equal."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether two programs are the same, and how that is known.

    Attributes:
        equal: True, False, or None when no method could decide.
        how: The method in plain words; ``not checked: ...`` with the reason when none could decide.
        error: Largest difference seen: between entries of unitaries, states or distributions, or
            between outputs of graphs; 0 for exact methods, NaN when nothing was compared.
        phase: Global phase of the second circuit over the first, radians in (-pi, pi].
        rung: The method's short name: same, sizes, matrix, pauli-form, windows, pauli-windows,
            states, qcec, channels, bits, graphs; empty when none could decide.
        detail: What else is known, by name: ``sqnr_db`` and ``max_abs`` of each output of a graph,
            the binding of parameters at which circuits differed.
    """

    equal: bool | None
    how: str
    error: float
    phase: float = 0.0
    detail: Mapping[str, object] = field(default_factory=dict)
    rung: str = field(default="", compare=False)

    def __bool__(self) -> bool:
        """Whether the two are known to be equal."""
        return self.equal is True
