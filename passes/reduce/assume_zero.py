"""assume-zero: what qubits that start in |0> make needless is dropped or made smaller."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.blocks import Block, Box, Delay, For, If, Item, Switch, While, walk_items
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import AXIS, GATES, NUM_ANGLES, NUM_QUBITS, G
from qcomp.ir.run import Run
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["AssumeZero"]

_STATES = np.array(
    [[1, 1], [1, -1], [1, 1j], [1, -1j], [np.sqrt(2), 0], [0, np.sqrt(2)]]
) / np.sqrt(2)  # fmt: skip
"""The states that are known, by number - 1: +X, -X, +Y, -Y, +Z, -Z."""

_UNKNOWN, _ZERO, _ONE, _PLUS = 0, 5, 6, 1
_GENERIC = 0.3711
"""An angle at which different gates are different matrices."""

_DROP = (-1, 1)
"""What stands for no gate where a gate and a sign of its angle are asked for."""


def _same(a: NDArray[np.complex128], b: NDArray[np.complex128]) -> bool:
    """Whether two matrices are the same up to a phase."""
    return bool(abs(abs(np.vdot(a, b)) - len(a)) < 1e-9)


@functools.cache
def _moved(code: int, state: int) -> int:
    """Return the state that a one-qubit gate without angles makes of a known one; 0 unknown."""
    vector = GATES[code].matrix() @ _STATES[state - 1]
    overlap = np.abs(_STATES.conj() @ vector)
    return int(overlap.argmax()) + 1 if overlap.max() > 1 - 1e-9 else _UNKNOWN


@functools.cache
def _smaller(code: int, states: tuple[int, ...]) -> tuple[int, int] | None:
    """Return what a gate is on the operands whose state is not known.

    Args:
        code: A gate on at most three qubits with at most one angle.
        states: State of each operand, 0 where it is not known or the gate changes it.

    Returns:
        (gate on the other operands, in their order, and the sign of its angle), ``_DROP`` where
        nothing is left but a phase, None where there is no such gate.
    """
    row = GATES[code]
    left = [k for k, state in enumerate(states) if not state]
    if not left:
        return _DROP
    matrix = row.matrix(*(_GENERIC,) * row.num_angles)
    size = len(states)
    # Operand 0 is the least significant bit: axis size - 1 - k of the tensor.
    tensor = matrix.reshape((2,) * (2 * size))
    for k in sorted((k for k in range(size) if states[k]), reverse=True):
        vector = _STATES[states[k] - 1]
        axis = tensor.ndim // 2 - 1 - k
        tensor = np.tensordot(tensor, vector, axes=([tensor.ndim // 2 + axis], [0]))
        tensor = np.tensordot(vector.conj(), tensor, axes=([0], [axis]))
    rest = tensor.reshape(1 << len(left), 1 << len(left))
    if _same(rest, np.eye(len(rest), dtype=complex)):
        return _DROP
    plain = [] if row.name == "cp" else [GATES[c] for c in (G.RZ, G.RX, G.RY)]
    for other in (*plain, *GATES):
        if other.num_qubits != len(left) or not other.is_unitary:
            continue
        if other.num_angles == 0 and _same(rest, other.matrix()):
            return other.code, 1
        if other.num_angles == row.num_angles == 1:
            for sign in (1, -1):
                if _same(rest, other.matrix(sign * _GENERIC)):
                    return other.code, sign
    return None


def _reduced(run: Run, state: list[int]) -> Run:
    """Return the run made smaller, the same object where nothing changes; ``state`` goes along."""
    run = run.normal()
    keep = np.ones(len(run), dtype=bool)
    code, qubit, flip = run.code.copy(), run.qubit.copy(), np.zeros(len(run), dtype=bool)
    for i, c in enumerate(run.code.tolist()):
        wires = run.operands(i)
        if c == G.MEASURE:
            state[wires[0]] = state[wires[0]] if state[wires[0]] in (_ZERO, _ONE) else _UNKNOWN
        elif c == G.RESET:
            keep[i] = state[wires[0]] != _ZERO
            state[wires[0]] = _ZERO
        elif c == G.MCX:
            *controls, target = (state[w] for w in wires)
            keep[i] = _ZERO not in controls and target != _PLUS
            if keep[i]:
                _forget(c, wires, state)
        elif GATES[c].is_unitary and c != G.GPHASE:
            known = tuple(
                state[w] if state[w] and (state[w] + 1) // 2 == AXIS[c, k] else 0
                for k, w in enumerate(wires)
            )
            made = _smaller(c, known) if any(known) and NUM_ANGLES[c] <= 1 else None
            if made is not None and made[1] < 0 and run.form[run.angle[i]] >= 0:
                made = None  # a free parameter keeps its sign
            if made == _DROP:
                keep[i] = False
            elif made is not None:
                wires = tuple(w for w, s in zip(wires, known, strict=True) if not s)
                code[i], flip[i] = made[0], made[1] < 0
                qubit[i] = (*wires, *(-1,) * (3 - len(wires)))
                _forget(made[0], wires, state)
            elif c == G.SWAP:
                a, b = wires
                keep[i] = not state[a] or state[a] != state[b]
                state[a], state[b] = state[b], state[a]
            else:
                _forget(c, wires, state)
    if keep.all() and np.array_equal(code, run.code):
        return run
    return _written(run, code, qubit, flip).select(keep)


def _forget(code: int, wires: tuple[int, ...], state: list[int]) -> None:
    """Follow the states through a gate that is kept."""
    for k, w in enumerate(wires):
        if not state[w]:
            continue
        wide = NUM_QUBITS[code] < 0
        axis = (3 if k < len(wires) - 1 else 1) if wide else int(AXIS[code, k])
        if (state[w] + 1) // 2 == axis:
            continue
        single = NUM_QUBITS[code] == 1 and NUM_ANGLES[code] == 0
        state[w] = _moved(code, state[w]) if single else _UNKNOWN


def _written(
    run: Run, code: NDArray[np.uint8], qubit: NDArray[np.int32], flip: NDArray[np.bool_]
) -> Run:
    """Return the run with other gates, which have one angle of the old gate's or none."""
    frac, rem, form = run.frac.copy(), run.rem.copy(), run.form
    entries = run.angle[flip]
    frac[entries], rem[entries] = -frac[entries], -rem[entries]
    counts = NUM_ANGLES[code].astype(np.int64)
    source = np.repeat(run.angle, counts) + _steps(counts)
    return Run.of(code, qubit, frac[source], rem[source], form[source], run.extra)


def _steps(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    begin = np.cumsum(counts) - counts
    return np.arange(int(counts.sum())) - np.repeat(begin, counts)


def _touched(body: Block) -> set[int]:
    """Return the wires that a body's operations name."""
    wires: set[int] = set()
    for item in walk_items(body):
        if isinstance(item, Run):
            wires |= set(itertools.chain.from_iterable(map(item.operands, range(len(item)))))
        elif isinstance(item, Delay):
            wires |= set(item.qubits)
    return wires


def _block(block: Block, state: list[int]) -> Block:
    out = [_item(item, state) for item in block]
    if all(new is old for new, old in zip(out, block, strict=True)):
        return block
    return tuple(item for item in out if not (isinstance(item, Run) and not len(item)))


def _item(item: Item, state: list[int]) -> Item:
    """Return an item made smaller; ``state`` becomes what is known after it."""
    match item:
        case Run():
            new = _reduced(item, state)
            return item if len(new) == len(item) and np.array_equal(new.code, item.code) else new
        case If(_, then, orelse):
            made, ends = _branches((then, orelse), state)
            state[:] = _merged(ends)
            if made[0] is then and made[1] is orelse:
                return item
            return replace(item, then=made[0], orelse=made[1])
        case Switch(_, cases, default):
            bodies = (*(body for _, body in cases), default or ())
            made, ends = _branches(bodies, state)
            state[:] = _merged(ends)
            if all(new is old for new, old in zip(made, bodies, strict=True)):
                return item
            new_cases = tuple(
                (labels, body) for (labels, _), body in zip(cases, made[:-1], strict=True)
            )
            return replace(item, cases=new_cases, default=made[-1] if default is not None else None)
        case For(_, _, body) | While(_, body):
            wires = _touched(body)
            for w in wires:
                state[w] = _UNKNOWN
            new_body = _block(body, state)
            for w in wires:
                state[w] = _UNKNOWN
            return item if new_body is body else replace(item, body=new_body)
        case Box(body, _):
            new_body = _block(body, state)
            return item if new_body is body else replace(item, body=new_body)
        case _:
            return item


def _branches(
    bodies: tuple[Block, ...], state: list[int]
) -> tuple[tuple[Block, ...], list[list[int]]]:
    made, ends = [], []
    for body in bodies:
        end = list(state)
        made.append(_block(body, end))
        ends.append(end)
    return tuple(made), ends


def _merged(ends: list[list[int]]) -> list[int]:
    """Return what is known of each wire at the end of every branch alike."""
    return [row[0] if len(set(row)) == 1 else _UNKNOWN for row in zip(*ends, strict=True)]


@dataclass(frozen=True)
class AssumeZero(CircuitPass):
    """Drop and shrink gates by ``G (|s> (x) 1) = |s> (x) G_s`` for wires whose state is known.

    Forwards from the start, where every qubit is in |0>, each wire's state is known as long as it
    is one of the six eigenstates of X, Y and Z and a product with all others. A gate that is
    diagonal in known states of its operands, as a control in Z or the target of CX in X, becomes
    what is left on the others: nothing (a control in |0>, a target in |+>), ``x`` for a ``cx``
    whose control is |1>, ``z`` on the control of one whose target is |->, and so on for every gate
    of the table with at most one angle, free parameters included (but where one would change its
    sign). A swap of equal states and a reset of |0> go. Measurements and barriers stay; after a
    branch is known what both sides agree on, wires that a loop names are not known in it and after
    it.

    Preconditions: every qubit of the circuit starts in |0>, as on a machine. Gates may be written
    that the circuit did not have: ``to-basis`` comes after this pass.

    Preserves: what the circuit does to |0...0>, up to global phase; nothing for other inputs
    (``from_zero``).

    Cost: linear, uncompiled: about a microsecond a gate.

    Source: simplification of known initial states, as in TKET's SimplifyInitial and Liu, Bello,
    Zhou 2021 (arXiv:2012.07711), relaxed peephole optimization.
    """

    name: ClassVar[str] = "assume-zero"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT
    from_zero: ClassVar[bool] = True

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the smaller circuit; the same object when nothing is needless."""
        old = circuit.body
        body = _block(old, [_ZERO] * circuit.num_qubits)
        return circuit if body is old else circuit.copy(body=body)
