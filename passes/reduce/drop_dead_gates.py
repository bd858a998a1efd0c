"""drop-dead-gates: what cannot influence any measurement is dropped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.blocks import Block, Box, Break, Continue, End, For, If, Item, Switch, While
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import AXIS, GATES, IS_UNITARY, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.leaves import call
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["DropDeadGates"]

DEAD, READ, LIVE = 0, 1, 2
"""What comes after sees of a wire: nothing; the value in Z alone; all."""

_Seen = NDArray[np.int8]

_ON_MANY, _WALL = 4, 8
_MONOMIAL, _SWAP = 1, 2


def _traits() -> NDArray[np.int64]:
    """What each gate does to values in Z, by code: a sum of traits."""
    traits = np.zeros(len(GATES), dtype=np.int64)
    for row in GATES:
        if row.is_unitary and row.is_diagonal:
            traits[row.code] |= _MONOMIAL
        elif row.code == G.MCX:
            traits[row.code] |= _MONOMIAL
        elif row.is_unitary and row.num_qubits > 0 and row.num_angles == 0:
            entries = np.abs(row.matrix()) > 1e-12
            if (entries.sum(axis=0) == 1).all():
                traits[row.code] |= _MONOMIAL
    traits[G.SWAP] |= _SWAP
    traits[NUM_QUBITS < 0] |= _ON_MANY
    traits[~np.array(IS_UNITARY, dtype=bool)] |= _WALL
    return traits


_TRAITS = _traits()
_ARITY = np.maximum(NUM_QUBITS, 0).astype(np.int64)
_AXES = AXIS.astype(np.int64).ravel()
_MEASURE, _RESET = G.MEASURE, G.RESET


@kernel()
def _sweep(
    n: int, code: Any, qubit: Any, extra: Any, traits: Any, arity: Any, axes: Any,
    seen: Any, dead: Any,
) -> int:  # fmt: skip
    """Go through a run backwards; return how many operations nothing sees.

    seen: int8[wires], what is seen of each wire after the run, and before it in the end.
    dead: int8[n], 1 for the operations to drop.
    """
    dropped = 0
    for back in range(n):
        i = n - 1 - back
        c = code[i]
        what = traits[c]
        if what & _WALL != 0:
            q = qubit[3 * i]
            if c == _MEASURE:
                seen[q] = READ
            elif c == _RESET:
                if seen[q] == DEAD:
                    dead[i] = 1
                    dropped += 1
                seen[q] = DEAD
            continue
        many = what & _ON_MANY != 0
        count = arity[c]
        first = 3 * i
        if many:
            first = qubit[3 * i]
            count = qubit[3 * i + 1]
        most = DEAD
        matters = False
        for k in range(count):
            w = extra[first + k] if many else qubit[first + k]
            axis = axes[3 * c + k] if not many else 3 if k < count - 1 else 1
            if seen[w] > most:
                most = seen[w]
            if seen[w] == LIVE or (seen[w] == READ and axis != 3):
                matters = True
        if not matters:
            dead[i] = 1
            dropped += 1
            continue
        if what & _SWAP != 0:
            a = qubit[first]
            b = qubit[first + 1]
            kept = seen[a]
            seen[a] = seen[b]
            seen[b] = kept
            continue
        values = most == READ and what & _MONOMIAL != 0
        for k in range(count):
            w = extra[first + k] if many else qubit[first + k]
            axis = axes[3 * c + k] if not many else 3 if k < count - 1 else 1
            if values:
                seen[w] = READ
            elif axis == 3 and seen[w] <= READ:
                seen[w] = READ
            else:
                seen[w] = LIVE
    return dropped


@dataclass(slots=True)
class _Loop:
    """What is seen where a loop is left, and where its next round begins."""

    leave: _Seen
    again: _Seen


def _run(run: Run, seen: _Seen) -> tuple[Run, _Seen]:
    n = len(run)
    dead, before = np.zeros(n, dtype=np.int8), seen.copy()
    inputs = (n, run.code, run.qubit.ravel(), run.extra, _TRAITS, _ARITY, _AXES)
    if not call(_sweep, n, inputs, (before, dead)):
        return run, before
    return run.select(dead == 0), before


def _block(block: Block, seen: _Seen, loop: _Loop | None) -> tuple[Block, _Seen]:
    """Return a block without dead gates, and what is seen before it.

    Args:
        block: The items.
        seen: What is seen of each wire after it.
        loop: The innermost loop around it.
    """
    out: list[Item] = []
    changed = False
    for item in reversed(block):
        new, seen = _item(item, seen, loop)
        changed |= new is not item
        if not (isinstance(new, Run) and not len(new)):
            out.append(new)
        else:
            changed = True
    return (tuple(reversed(out)) if changed else block), seen


def _item(item: Item, seen: _Seen, loop: _Loop | None) -> tuple[Item, _Seen]:
    match item:
        case Run():
            return _run(item, seen)
        case If(_, then, orelse):
            new_then, first = _block(then, seen, loop)
            new_else, second = _block(orelse, seen, loop)
            same = new_then is then and new_else is orelse
            new_if = item if same else replace(item, then=new_then, orelse=new_else)
            return new_if, np.maximum(first, second)
        case Switch(_, cases, default):
            made = [(labels, *_block(body, seen, loop)) for labels, body in cases]
            last = None if default is None else _block(default, seen, loop)
            before = seen if last is None else last[1]
            for _, _, first in made:
                before = np.maximum(before, first)
            same = all(new is old for (_, new, _), (_, old) in zip(made, cases, strict=True))
            if same and (last is None or last[0] is default):
                return item, before
            new_cases = tuple((labels, body) for labels, body, _ in made)
            return replace(item, cases=new_cases, default=last and last[0]), before
        case For(_, _, body) | While(_, body):
            new_body, head = _looped(body, seen)
            return (item if new_body is body else replace(item, body=new_body)), head
        case Box(body, _):
            new_body, before = _block(body, seen, loop)
            return (item if new_body is body else replace(item, body=new_body)), before
        case Break() if loop is not None:
            return item, loop.leave
        case Continue() if loop is not None:
            return item, loop.again
        case End():
            return item, np.zeros_like(seen)
        case _:
            return item, seen


def _looped(body: Block, seen: _Seen) -> tuple[Block, _Seen]:
    """Return a loop's body, and what is seen at its head: the least that its rounds agree on."""
    head = seen
    while True:
        # What is seen only grows, and each wire grows twice at most.
        new, first = _block(body, head, _Loop(seen, head))
        grown = np.maximum(head, first)
        if np.array_equal(grown, head):
            return new, head
        head = grown


@dataclass(frozen=True)
class DropDeadGates(CircuitPass):
    """Drop gates that no measurement can see: ``tr_q G = tr_q``, and ``D, measure = measure``.

    Backwards from the end every wire is dead (nothing after looks at it), read (only its value in
    Z matters, as before a measurement), or live. A gate goes whose wires are all dead, or read
    where it is diagonal on them, as a control is; so do resets of dead wires and global phases. A
    gate that is kept leaves a wire read where it is diagonal there, or where it permutes values and
    all of its wires are read; before a reset a wire is dead.

    Preconditions: the state after the circuit does not matter, the bits do; a circuit without
    measurements is left alone. Bodies of loops are gone through until nothing more is seen.

    Preserves: the joint distribution of the classical bits, exactly, for every input state and
    binding, and not the state left behind: nothing but the bits is promised (``only_bits``). In a
    program, circuits whose nodes read expectation values or states are left alone.

    Cost: linear, but for loops inside loops.

    Source: backward light cones and dephasing before measurement, as in Qiskit's
    RemoveDiagonalGatesBeforeMeasure, extended to permutations and control flow.
    """

    name: ClassVar[str] = "drop-dead-gates"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT
    only_bits: ClassVar[bool] = True

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit without dead gates; the same object when there were none."""
        if not any((run.code == G.MEASURE).any() for run in circuit.runs()):
            return circuit
        old = circuit.body
        body, _ = _block(old, np.zeros(circuit.num_qubits, dtype=np.int8), None)
        return circuit if body is old else circuit.copy(body=body)
