"""Facts about circuits: weights that became numbers, angles that the graph computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcomp.ir.circuit import Circuit

__all__ = ["Binding", "BoundCircuits", "SlottedCircuits"]


@dataclass(frozen=True, slots=True)
class Binding:
    """One circuit with numbers in it: the source circuit's name, and parameter name -> number."""

    source: str
    values: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class BoundCircuits:
    """Name of each bound circuit -> where it came from."""

    bindings: Mapping[str, Binding]

    def source_of(self, name: str, circuits: Mapping[str, Circuit]) -> Circuit:
        """Return the source circuit of ``name`` with the same numbers in it.

        Args:
            name: A circuit of the compiled program.
            circuits: The source program's circuits.
        """
        binding = self.bindings.get(name)
        return circuits[name] if binding is None else circuits[binding.source].bind(binding.values)


@dataclass(frozen=True, slots=True)
class SlottedCircuits:
    """Name of each circuit whose angles the graph computes -> largest error seen, in radians."""

    errors: Mapping[str, float]
