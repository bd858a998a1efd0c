"""The comments by which qcomp says where a mapped circuit's qubits are.

They stand behind the header: ``// layout physical: 20``, ``// layout initial: 3, 4``,
``// layout final: 4, 3``.
"""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass

from qcomp.errors import UsageError
from qcomp.frontends.openqasm.limits import MAX_QUBITS
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.layout import Layout

__all__ = ["LayoutComment", "layout_comment", "placed"]

_HEAD = re.compile(
    rb'[\s\xef\xbb\xbf]*OPENQASM\s+[\d.]+\s*;\s*(?:include\s*"[^"\n]*"\s*;\s*)?'
    rb"(?P<lines>(?://[^\n]*\n\s*)+)"
)
_LINE = re.compile(rb"//\s*layout (physical|initial|final|moved): *([\d, ]*?) *\r?\n")
_MAX_DIGITS = 9


@dataclass(frozen=True, slots=True)
class LayoutComment:
    """What the comments say.

    Attributes:
        num_physical: Qubits of the machine.
        initial: Physical qubits at the start; None where the comments say none.
        final: Physical qubits at the end.
        moved: Starts and ends of ancillas that were moved.
        dollars: Whether the text calls qubits ``$0``.
    """

    num_physical: int
    initial: tuple[int, ...] | None
    final: tuple[int, ...] | None
    moved: tuple[tuple[int, int], ...]
    dollars: bool


def layout_comment(text: bytes | mmap.mmap) -> LayoutComment | None:
    """Return what the comments behind the header say; None where they say nothing."""
    head = _HEAD.match(text)
    if head is None or b"layout" not in head["lines"]:
        return None
    found: dict[bytes, tuple[int, ...]] = {}
    for kind, numbers in _LINE.findall(head["lines"]):
        parts = [part.strip() for part in numbers.split(b",")] if numbers.strip() else []
        if any(not part.isdigit() or len(part) > _MAX_DIGITS for part in parts):
            return None
        found[kind] = tuple(int(part) for part in parts)
    size = found.get(b"physical", ())
    if len(size) != 1 or size[0] > MAX_QUBITS:
        return None
    dollars = text.find(b"$", head.end()) >= 0
    moved = found.get(b"moved", ())
    pairs = tuple(zip(moved[::2], moved[1::2], strict=False))
    return LayoutComment(size[0], found.get(b"initial"), found.get(b"final"), pairs, dollars)


def placed(circuit: Circuit, comment: LayoutComment) -> Circuit:
    """Return the circuit on all of the machine's qubits, with its layout.

    Comments that do not fit the circuit change nothing; the circuit's notes say so.
    """
    size = comment.num_physical
    if comment.dollars and circuit.num_qubits < size and len(circuit.qregs) <= 1:
        circuit = _widened(circuit, size)
    if comment.initial is None or comment.final is None:
        return circuit
    why = ""
    starts, ends = ({pair[k] for pair in comment.moved} for k in (0, 1))
    if circuit.num_qubits != size:
        why = f"the circuit has {circuit.num_qubits} qubits, not {size}"
    elif max((*starts, *ends), default=0) >= size or not (
        len(starts) == len(ends) == len(comment.moved)
        and starts.isdisjoint(comment.initial)
        and ends.isdisjoint(comment.final)
    ):
        why = "it moves ancillas to where they cannot be"
    else:
        try:
            circuit.layout = Layout(comment.initial, comment.final, size, comment.moved)
        except UsageError as error:
            why = error.what
    if why:
        circuit.notes = (*circuit.notes, f"the layout in the comments is not used: {why}")
    return circuit


def free_register(taken: set[str]) -> str:
    """Return a name for the register of a text that names physical qubits."""
    return next(
        name for i in range(len(taken) + 1) if (name := f"q_{i}" if i else "q") not in taken
    )


def _widened(circuit: Circuit, size: int) -> Circuit:
    taken = {r.name for r in circuit.cregs} | {v.name for v in circuit.variables}
    name = circuit.qregs[0].name if circuit.qregs else free_register(taken | set(circuit.params))
    new = Circuit(
        size,
        circuit.num_clbits,
        circuit.params,
        circuit.name,
        qregs=(RegisterDecl(name, size, 0),),
        cregs=circuit.cregs,
        variables=circuit.variables,
    )
    new.global_phase = circuit.global_phase
    new.notes = circuit.notes
    return new.copy(body=circuit.body, forms=circuit.forms)
