"""A circuit behind an encoding of data."""

from __future__ import annotations

import re

from qcomp.constructions.encodings.base import Encoding
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit

__all__ = ["in_front"]


def in_front(
    found: Encoding, circuit: Circuit, label: str, start: int = 0
) -> tuple[Circuit, tuple[str, ...]]:
    """Return ``V(w) U(x)``: an encoding's circuit, then another one.

    Args:
        found: The encoding U, on at most as many qubits.
        circuit: V; its name and notes are kept.
        label: Stands before the names of the encoding's parameters: the feature ``x0`` becomes
            ``label0``, others ``label_name``; an underscore is appended where one is taken.
        start: Place of the encoding's parameters among the circuit's.

    Returns:
        The circuit, and the names of the encoding's parameters in their order.
    """
    taken = set(circuit.params)
    names: dict[str, str] = {}
    for name in found.circuit.params:
        wanted = name.replace("x", label, 1) if name in found.features else f"{label}_{name}"
        wanted = re.sub(r"\W", "_", wanted)
        while wanted in taken:
            wanted += "_"
        taken.add(wanted)
        names[name] = wanted
    head = found.circuit.copy()
    head.params = tuple(names.values())
    phase = head.global_phase
    head.global_phase = Angle(
        phase.frac, phase.rem, tuple(sorted((names[n], c) for n, c in phase.terms))
    )
    blank = Circuit(
        circuit.num_qubits, circuit.num_clbits, (), circuit.name,
        qregs=circuit.qregs, cregs=circuit.cregs, variables=circuit.variables,
    )  # fmt: skip
    order = [*circuit.params[:start], *head.params, *circuit.params[start:]]
    new = blank.compose(head).compose(circuit).with_params(order)
    new.name, new.notes = circuit.name, circuit.notes
    return new, head.params
