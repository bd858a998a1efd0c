"""A run of gates put in order for the batched kernels: fewer and simpler passes over the states.

Gates are taken into layers that alternate (as soon as possible, program order kept on each qubit):

* a *turning* layer of gates that mix amplitudes. Gates on one qubit in a row are multiplied into
  one 2 x 2 matrix first.
* a *monomial* layer: controlled flips, swaps and diagonal gates, whose matrices have one entry in
  each row. However many they are, a layer moves every amplitude once and multiplies it once.

A fused one-qubit matrix that is the same for all rows is split, ``U = diag(l) R diag(r)`` with R a
real rotation: both diagonals join the monomial layers beside it, and R costs half of U. One-qubit
matrices at the very start make a product state, which is written down instead of evolved.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES
from qcomp.ir.run import Run
from qcomp.simulate.tape import DENSE, DIAG, FLIP, PAIR, AngleTable, angle_table, kind_of

__all__ = ["MONO", "ROTATE", "Gates", "Plan", "plan_of"]

ROTATE, MONO = 4, 5
"""Kinds of operations beside the tape's: a real rotation of one qubit, and a monomial layer."""

Ints = NDArray[np.int64]
States = NDArray[np.complex128]


@dataclass(frozen=True, slots=True)
class Gates:
    """Gates of one kind whose matrices are computed together.

    Attributes:
        code: The gate.
        place: Where each matrix or its coefficients go, int64[g].
        entries: Angle entries of each gate, int64[g, angles].
        varies: Whether the rows differ in them.
        kind: Kind of the steps; of one-qubit gates that are fused, -1.
    """

    code: int
    place: Ints
    entries: Ints
    varies: bool
    kind: int


@dataclass(slots=True)
class Plan:
    """The operations of a run in the order of the kernels.

    Attributes:
        num_qubits: Qubits n.
        angles: The run's angles.
        kind: Kind of each operation: PAIR, DIAG, DENSE of the tape, ROTATE or MONO, int8[k].
        first: Control mask (PAIR), first index into ``wide`` (DIAG, DENSE), int64[k].
        second: Target (PAIR, ROTATE) or number of operands (DIAG, DENSE), int64[k].
        place: Number of the fused matrix (ROTATE), of the layer (MONO), else first coefficient.
        varies: Whether the coefficients differ from row to row, bool[k].
        fused: Number of the fused matrix of each operation, -1 for none, int64[k].
        wide: Operands of DIAG and DENSE operations and steps.
        chain: Gates of each fused matrix, first one first, -1 where it has no more, int64[f, d].
        chain_varies: Whether a fused matrix differs from row to row, bool[f].
        chain_target: The qubit of each, int64[f].
        split: Whether a fused matrix is split, bool[f].
        before: The monomial layer that takes ``diag(r)`` of a fused matrix, int64[f].
        after: The one that takes ``diag(l)``, int64[f].
        fused_at: First coefficient of fused matrices that are not split, int64[f].
        prefix: How many operations at the start, all PAIR, act on different qubits in |0>.
        ones: One-qubit gates to be fused; places count the gates, those that vary apart.
        wides: Other gates with coefficients.
        num_ones: One-qubit gates that (do not, do) vary.
        widths: Coefficients that (do not, do) vary.
        layers: Number of monomial layers.
        step_kind: FLIP or DIAG, of the monomial layers' steps.
        step_first: As ``first``.
        step_second: As ``second``.
        step_place: First coefficient of a DIAG step.
        step_layer: First step of each layer, int64[layers + 1].
        moves: For each layer the amplitudes in the order of the cycles they move along, the last of
            a cycle as its complement, int32[layers, 2^n]; made when it is first asked for.
        inverses: Where the coefficients of the inverse operations stand among the conjugates of the
            coefficients, int64[w] and int64[v].
    """

    num_qubits: int
    angles: AngleTable
    kind: NDArray[np.int8]
    first: Ints
    second: Ints
    place: Ints
    varies: NDArray[np.bool_]
    fused: Ints
    wide: Ints
    chain: Ints
    chain_varies: NDArray[np.bool_]
    chain_target: Ints
    split: NDArray[np.bool_]
    before: Ints
    after: Ints
    fused_at: Ints
    prefix: int
    ones: tuple[Gates, ...]
    wides: tuple[Gates, ...]
    num_ones: tuple[int, int]
    widths: tuple[int, int]
    layers: int
    step_kind: NDArray[np.int8]
    step_first: Ints
    step_second: Ints
    step_place: Ints
    step_layer: Ints
    inverses: tuple[Ints, Ints]
    moves: NDArray[np.int32] | None = field(default=None)


@dataclass(slots=True)
class _Op:
    kind: int
    first: int = 0
    second: int = 0
    gate: int = -1
    fused: int = -1


class _Builder:
    """Takes gates in program order and keeps what a qubit saw last."""

    def __init__(self, num_qubits: int) -> None:
        self.turning: list[list[_Op]] = [[]]
        self.mono: list[list[_Op]] = [[]]
        # Where a qubit's last operation lies: 2 l in turning layer l, 2 l + 1 in monomial layer l.
        self.last = [0] * num_qubits
        self.fresh = [True] * num_qubits
        self.chains: list[list[int]] = []
        self.chain_target: list[int] = []
        self.chain_layer: list[int] = []
        self.open: list[int] = [-1] * num_qubits
        self.prefix: list[_Op] = []
        self.wide: list[int] = []
        self.mixed: set[tuple[int, int]] = set()

    def _grow(self, layer: int) -> None:
        while len(self.turning) <= layer:
            self.turning.append([])
            self.mono.append([])

    def one(self, gate: int, qubit: int) -> None:
        """Multiply a one-qubit gate into what is on the qubit."""
        chain = self.open[qubit]
        if chain >= 0:
            self.chains[chain].append(gate)
            return
        layer = (self.last[qubit] + 1) // 2
        self._grow(layer)
        chain = len(self.chains)
        self.chains.append([gate])
        self.chain_target.append(qubit)
        self.chain_layer.append(layer)
        self.open[qubit] = chain
        op = _Op(PAIR, 0, qubit, fused=chain)
        if self.fresh[qubit]:
            self.prefix.append(op)
            self.fresh[qubit] = False
        else:
            self.turning[layer].append(op)
        self.last[qubit] = 2 * layer

    def turn(self, op: _Op, qubits: list[int]) -> None:
        """Put an operation of several qubits into a turning layer."""
        layer = max(((self.last[q] + 1) // 2 for q in qubits), default=0)
        self._grow(layer)
        self.turning[layer].append(op)
        self.mixed.update((layer, q) for q in qubits)
        self._touch(qubits, 2 * layer)

    def move(self, ops: list[_Op], qubits: list[int]) -> None:
        """Put steps into a monomial layer."""
        layer = max((self.last[q] for q in qubits), default=0) // 2
        self._grow(layer)
        self.mono[layer] += ops
        self._touch(qubits, 2 * layer + 1)

    def _touch(self, qubits: list[int], place: int) -> None:
        for q in qubits:
            self.last[q] = place
            self.open[q] = -1
            self.fresh[q] = False

    def operands(self, qubits: list[int]) -> int:
        """Write operands down; return where."""
        self.wide += qubits
        return len(self.wide) - len(qubits)


_SWAP = next(gate.code for gate in GATES if gate.name == "swap")


def plan_of(
    circuit: Circuit, run: Run, moving: NDArray[np.bool_] | None = None, *, gradient: bool = False
) -> Plan:
    """Return the plan of a run of unitary gates; barriers are left out.

    Args:
        circuit: The circuit that the run is a leaf of.
        run: Gates without measurement and reset.
        moving: Whether the rows differ in an angle entry, bool[m]; in none where None.
        gradient: Keep diagonal gates with parameters out of the monomial layers, which give no
            gradients.
    """
    table = angle_table(circuit, run)
    varied = np.zeros(len(table.base), dtype=np.bool_) if moving is None else moving
    builder = _Builder(circuit.num_qubits)
    ones: dict[tuple[int, bool], tuple[list[int], list[Ints]]] = {}
    wides: dict[tuple[int, bool], tuple[list[int], list[Ints]]] = {}
    count = [0, 0]
    width = [0, 0]
    place_of: list[tuple[int, bool]] = []

    def matrix(code: int, entries: Ints, varies: bool, size: int) -> int:
        """Reserve coefficients; return the number by which an operation names them."""
        places, all_entries = wides.setdefault((code, varies), ([], []))
        places.append(width[varies])
        all_entries.append(entries)
        place_of.append((width[varies], varies))
        width[varies] += size
        return len(place_of) - 1

    for i in np.flatnonzero(_UNITARY[run.code]).tolist():
        code = int(run.code[i])
        gate = GATES[code]
        if gate.num_qubits < 0:
            start, number = int(run.qubit[i, 0]), int(run.qubit[i, 1])
            qubits = run.extra[start : start + number].tolist()
        else:
            qubits = run.qubit[i, : gate.num_qubits].tolist()
        entries = int(run.angle[i]) + np.arange(gate.num_angles, dtype=np.int64)
        varies = bool(varied[entries].any())
        if len(qubits) == 1:
            places, all_entries = ones.setdefault((code, varies), ([], []))
            places.append(count[varies])
            all_entries.append(entries)
            # Gates that vary are told by their complement until their number is known.
            builder.one(~count[1] if varies else count[0], qubits[0])
            count[varies] += 1
            continue
        kind, size = kind_of(code)
        learns = gradient and bool((table.form[entries] >= 0).any())
        if kind == FLIP:
            mask = sum(1 << q for q in qubits[:-1])
            builder.move([_Op(FLIP, mask, qubits[-1])], qubits)
        elif code == _SWAP:
            a, b = 1 << qubits[0], 1 << qubits[1]
            steps = [_Op(FLIP, a, qubits[1]), _Op(FLIP, b, qubits[0]), _Op(FLIP, a, qubits[1])]
            builder.move(steps, qubits)
        elif kind == DIAG and not varies and not learns:
            at = builder.operands(qubits)
            op = _Op(DIAG, at, len(qubits), matrix(code, entries, False, size))
            builder.move([op], qubits)
        elif kind == PAIR:
            mask = sum(1 << q for q in qubits[:-1])
            op = _Op(PAIR, mask, qubits[-1], matrix(code, entries, varies, size))
            builder.turn(op, qubits)
        else:
            at = builder.operands(qubits)
            builder.turn(_Op(kind, at, len(qubits), matrix(code, entries, varies, size)), qubits)
    return _finished(circuit, table, builder, ones, wides, count, width, place_of)


_UNITARY = np.array([gate.is_unitary for gate in GATES])

_Found = dict[tuple[int, bool], tuple[list[int], list[Ints]]]


def _finished(
    circuit: Circuit,
    table: AngleTable,
    builder: _Builder,
    ones: _Found,
    wides: _Found,
    count: list[int],
    width: list[int],
    place_of: list[tuple[int, bool]],
) -> Plan:
    fused = len(builder.chains)
    depth = max((len(chain) for chain in builder.chains), default=1)
    chain = np.full((fused, depth), -1, dtype=np.int64)
    chain_varies = np.zeros(fused, dtype=np.bool_)
    for f, gates in enumerate(builder.chains):
        chain[f, : len(gates)] = [g if g >= 0 else count[0] + ~g for g in gates]
        chain_varies[f] = any(g < 0 for g in gates)
    layer = np.array(builder.chain_layer, dtype=np.int64)
    in_prefix = np.zeros(fused, dtype=np.bool_)
    in_prefix[[op.fused for op in builder.prefix]] = True
    alone = [
        at not in builder.mixed for at in zip(layer.tolist(), builder.chain_target, strict=True)
    ]
    split = ~chain_varies & ~in_prefix & (layer > 0) & np.array(alone, dtype=np.bool_)
    fused_at = np.zeros(fused, dtype=np.int64)
    for f in np.flatnonzero(~split).tolist():
        fused_at[f] = width[int(chain_varies[f])]
        width[int(chain_varies[f])] += 4
    ops: list[_Op] = list(builder.prefix)
    steps: list[_Op] = []
    bounds = [0]
    for number, (turning, mono) in enumerate(zip(builder.turning, builder.mono, strict=True)):
        ops += turning
        steps += mono
        bounds.append(len(steps))
        ops.append(_Op(MONO, gate=number))

    def place(op: _Op) -> tuple[int, bool]:
        if op.fused >= 0:
            f = op.fused
            return (f, False) if split[f] else (int(fused_at[f]), bool(chain_varies[f]))
        if op.kind == MONO:
            return op.gate, False
        return place_of[op.gate] if op.gate >= 0 else (0, False)

    kinds = [ROTATE if op.fused >= 0 and split[op.fused] else op.kind for op in ops]
    places = [place(op) for op in ops]
    inverses = (np.arange(width[0]), np.arange(width[1]))
    for kind, op, (at, varies) in zip(kinds, ops, places, strict=True):
        if kind in (PAIR, DENSE):
            side = 2 if kind == PAIR else 1 << op.second
            turned = at + np.arange(side * side).reshape(side, side).T
            inverses[varies][at : at + side * side] = turned.reshape(-1)
    return Plan(
        num_qubits=circuit.num_qubits,
        angles=table,
        kind=np.array(kinds, dtype=np.int8),
        first=_ints([op.first for op in ops]),
        second=_ints([op.second for op in ops]),
        place=_ints([p for p, _ in places]),
        varies=np.array([v for _, v in places], dtype=np.bool_),
        fused=_ints([op.fused for op in ops]),
        wide=_ints(builder.wide),
        chain=chain,
        chain_varies=chain_varies,
        chain_target=_ints(builder.chain_target),
        split=split,
        before=np.maximum(layer - 1, 0),
        after=layer,
        fused_at=fused_at,
        prefix=len(builder.prefix),
        ones=_gates(ones, False),
        wides=_gates(wides, True),
        num_ones=(count[0], count[1]),
        widths=(width[0], width[1]),
        layers=len(builder.mono),
        step_kind=np.array([op.kind for op in steps], dtype=np.int8),
        step_first=_ints([op.first for op in steps]),
        step_second=_ints([op.second for op in steps]),
        step_place=_ints([place(op)[0] for op in steps]),
        step_layer=_ints(bounds),
        inverses=inverses,
    )


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _gates(found: _Found, wide: bool) -> tuple[Gates, ...]:
    return tuple(
        Gates(
            code,
            np.array(places, dtype=np.int64),
            np.array(entries, dtype=np.int64).reshape(len(places), -1),
            varies,
            kind_of(code)[0] if wide else -1,
        )
        for (code, varies), (places, entries) in found.items()
    )


@functools.cache
def one_qubit_axis(code: int) -> int:
    """Return the Pauli axis 0, 1, 2 of a gate ``exp(-i t P / 2)`` up to phase, -1 for others."""
    return {"rx": 0, "ry": 1, "rz": 2, "p": 2}.get(GATES[code].name, -1)
