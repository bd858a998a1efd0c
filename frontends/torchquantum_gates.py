"""torchquantum's gates as OpenQASM text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from qcomp.errors import SourceError

__all__ = ["GATES", "Gate", "circuit_text", "gate_text"]

GATES: dict[str, tuple[int, int, str]] = {
    **{name: (0, 1, f"{name} {{q}}") for name in ("s", "sdg", "t", "tdg", "sx", "sxdg")},
    **{name: (0, 2, f"{name} {{q}}") for name in ("cy", "cz", "cs", "csdg", "csx", "swap")},
    **{name: (0, 3, f"{name} {{q}}") for name in ("ccz", "cswap")},
    **{name: (1, 1, f"{name}({{p[0]}}) {{q}}") for name in ("rx", "ry", "rz")},
    **{name: (1, 2, f"{name}({{p[0]}}) {{q}}") for name in ("crx", "cry", "crz")},
    **{name: (1, 2, f"{name}({{p[0]}}) {{q}}") for name in ("rxx", "ryy", "rzz", "rzx")},
    "i": (0, 1, "id {q}"),
    "paulix": (0, 1, "x {q}"),
    "pauliy": (0, 1, "y {q}"),
    "pauliz": (0, 1, "z {q}"),
    "hadamard": (0, 1, "h {q}"),
    "chadamard": (0, 2, "ch {q}"),
    "cnot": (0, 2, "cx {q}"),
    "iswap": (0, 2, "iswap {q}"),
    "toffoli": (0, 3, "ccx {q}"),
    "c3x": (0, 4, "ctrl(3) @ x {q}"),
    "c4x": (0, 5, "ctrl(4) @ x {q}"),
    "multicnot": (0, 0, "ctrl({controls}) @ x {q}"),
    "phaseshift": (1, 1, "p({p[0]}) {q}"),
    "u1": (1, 1, "p({p[0]}) {q}"),
    "cu1": (1, 2, "cp({p[0]}) {q}"),
    "r": (2, 1, "r({p[0]}, {p[1]}) {q}"),
    "u2": (2, 1, "U(pi/2, {p[0]}, {p[1]}) {q}"),
    "u3": (3, 1, "U({p[0]}, {p[1]}, {p[2]}) {q}"),
    "rot": (3, 1, "rz({p[0]}) {q}; ry({p[1]}) {q}; rz({p[2]}) {q}"),
    "crot": (3, 2, "crz({p[0]}) {q}; cry({p[1]}) {q}; crz({p[2]}) {q}"),
    "cu3": (3, 2, "cu({p[0]}, {p[1]}, {p[2]}, 0.0) {q}"),
    "cu": (4, 2, "cu({p[0]}, {p[1]}, {p[2]}, {p[3]}) {q}"),
}
"""Name in torchquantum -> (angles, wires or 0 for any number of them, OpenQASM text)."""


@dataclasses.dataclass
class Gate:
    """A gate on wires of a device.

    Attributes:
        name: Its name in torchquantum.
        wires: The wires it is on.
        angles: A tensor [rows or 1, angles], or numbers as text.
        inverse: Whether its inverse is meant.
    """

    name: str
    wires: tuple[int, ...]
    angles: torch.Tensor | list[str]
    inverse: bool


def gate_text(name: str, angles: Sequence[str], wires: Sequence[int], *, inverse: bool) -> str:
    """Return a gate of torchquantum as OpenQASM statements.

    Args:
        name: Its name in torchquantum.
        angles: Texts of its angles.
        wires: The wires it is on.
        inverse: Whether its inverse is meant.

    Raises:
        SourceError: If there is no such gate, or its angles or wires are not as many as it has.
    """
    if name not in GATES:
        raise SourceError(
            f"the operation '{name}' of torchquantum cannot be captured",
            hint=f"operations with a fixed form in gates are taken: {', '.join(sorted(GATES))}",
        )
    count, width, text = GATES[name]
    if len(angles) != count or len(wires) != (width or len(wires)):
        raise SourceError(
            f"the operation '{name}' of torchquantum has {len(angles)} angles and {len(wires)} "
            f"wires here, it needs {count} and {width or 'any number of'}"
        )
    operands = ", ".join(f"q[{wire}]" for wire in wires)
    filled = text.format(p=angles, q=operands, controls=len(wires) - 1)
    parts = filled.split("; ")
    if inverse:
        parts = [f"inv @ {part}" for part in reversed(parts)]
    return "".join(f"{part};\n" for part in parts)


def circuit_text(gates: Sequence[Gate], weights: Sequence[bool], num_wires: int) -> str:
    """Return a circuit as OpenQASM text; data's angles are declared before weights'.

    Args:
        gates: Its gates.
        weights: Of each gate with a tensor of angles: whether they are weights.
        num_wires: Its qubits.
    """
    data: list[str] = []
    fixed: list[str] = []
    body = ""
    order = iter(weights)
    for gate in gates:
        if isinstance(gate.angles, torch.Tensor):
            prefix, names = ("w", fixed) if next(order) else ("x", data)
            angles = [f"{prefix}{len(names) + i}" for i in range(int(gate.angles.shape[-1]))]
            names.extend(angles)
        else:
            angles = gate.angles
        body += gate_text(gate.name, angles, gate.wires, inverse=gate.inverse)
    inputs = "".join(f"input float[64] {name};\n" for name in (*data, *fixed))
    return f'OPENQASM 3.0;\ninclude "stdgates.inc";\n{inputs}qubit[{num_wires}] q;\n{body}'
