"""The counts that circuits are judged by."""

from __future__ import annotations

import functools
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.blocks import Block, sub_blocks
from qcomp.ir.definitions import multi_controlled_x
from qcomp.ir.gates import GATES, IS_UNITARY, NUM_ANGLES, NUM_QUBITS, ROTATIONS, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel

__all__ = ["Stats", "circuit_stats"]

_IS_CONTROLLED_ROTATION = np.array(
    [row.num_angles >= 1 and row.num_qubits == 2 and row.name[0] == "c" for row in GATES]
)
_IS_PULSE = np.array([row.num_qubits == 1 and not row.is_diagonal for row in GATES])
_IS_COUNTED = IS_UNITARY.astype(bool) & ~np.isin(np.arange(len(GATES)), [G.GPHASE, G.ID])
_IS_TURNING = _IS_COUNTED & (NUM_ANGLES > 0)
_OF_KIND = np.stack(
    [
        _IS_COUNTED,
        _IS_COUNTED & (NUM_QUBITS == 2),
        _IS_COUNTED & (NUM_QUBITS > 2),
        _IS_COUNTED & _IS_PULSE,
        np.where(_IS_COUNTED & (NUM_ANGLES == 0) & (NUM_QUBITS >= 0), ROTATIONS, 0),
    ]
).astype(np.int64)
"""By code: gates, those on two qubits and on more, pulses, rotations of gates without angles."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of one circuit; control-flow bodies are counted once, branches all.

    Attributes:
        qubits: Qubits.
        clbits: Classical bits.
        gates: Unitary operations, global phases and identities left out.
        two_qubit: Unitary operations on two qubits.
        multi_qubit: Unitary operations on three and more qubits.
        pulses: Gates on one qubit that are no turns about Z, which most machines have for free.
        t_count: Rotations by odd multiples of pi/4; 3 for a controlled S, 7 for a Toffoli.
        rotations: Rotations that are not Clifford, T gates among them.
        depth: Longest chain of operations that share a wire; barriers order but do not count.
        two_qubit_depth: The same, counting operations on two and more qubits only.
        measurements: Measurements.
        control_flow: Items of control flow.
    """

    qubits: int
    clbits: int
    gates: int
    two_qubit: int
    multi_qubit: int
    pulses: int
    t_count: int
    rotations: int
    depth: int
    two_qubit_depth: int
    measurements: int
    control_flow: int

    def to_dict(self) -> dict[str, int]:
        """Return the counts as a plain dictionary, for JSON."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


def circuit_stats(num_qubits: int, num_clbits: int, body: Block) -> Stats:
    """Count a body; the depth of control flow is its deepest branch, a loop's body once."""
    total = _Counts()
    wires = num_qubits + num_clbits
    depth, deep2 = np.zeros(wires, np.int64), np.zeros(wires, np.int64)
    depth, deep2 = _walk(body, num_qubits, depth, deep2, total)
    return Stats(
        num_qubits,
        num_clbits,
        total.gates,
        total.two,
        total.multi,
        total.pulses,
        total.t,
        total.rotations,
        int(depth.max(initial=0)),
        int(deep2.max(initial=0)),
        total.measurements,
        total.control_flow,
    )


class _Counts:
    gates = two = multi = pulses = t = rotations = measurements = control_flow = 0

    def add(self, run: Run) -> None:
        code = run.code
        kinds = np.bincount(code, minlength=len(GATES))
        gates, two, multi, pulses, fixed = (_OF_KIND @ kinds).tolist()
        self.gates += gates
        self.two += two
        self.multi += multi
        self.pulses += pulses
        self.t += fixed
        self.rotations += fixed
        self.measurements += int(kinds[G.MEASURE])
        if kinds[G.MCX]:
            self.add_wide(run)
        if kinds[_IS_TURNING].any():
            t, rotations = _turning(run, _IS_TURNING[code])
            self.t += t
            self.rotations += rotations

    def add_wide(self, run: Run) -> None:
        operands = run.qubit[run.code == G.MCX, 1]
        self.two += int(np.count_nonzero(operands == 2))
        self.multi += int(np.count_nonzero(operands > 2))
        controls, times = np.unique(operands - 1, return_counts=True)
        for count, repeated in zip(controls.tolist(), times.tolist(), strict=True):
            t, rotations = _multi_controlled_cost(count)
            self.t += t * repeated
            self.rotations += rotations * repeated


@functools.cache
def _multi_controlled_cost(controls: int) -> tuple[int, int]:
    """Return (T gates, non-Clifford rotations) of the ancilla-free X with that many controls."""
    t = rotations = 0
    for step in multi_controlled_x(controls):
        rotations += step.gate.rotations
        if not step.angles or step.angles[0].frac % (PI // 2) == 0:
            t += step.gate.rotations
    return t, rotations


def _turning(run: Run, turning: NDArray[np.bool_]) -> tuple[int, int]:
    """Return (T gates, non-Clifford rotations) among the gates with angles."""
    free = (run.form >= 0) | (run.rem != 0)
    code, first = run.code[turning], run.angle[turning]
    t = rotations = 0
    single = NUM_ANGLES[code] == 1
    entry, kind = first[single], code[single]
    cost = ROTATIONS[kind]
    # A controlled rotation is Clifford at multiples of pi, a plain one at multiples of pi / 2.
    step = np.where(_IS_CONTROLLED_ROTATION[kind], PI, PI // 2)
    generic = free[entry] | (run.frac[entry] % step != 0)
    is_t = generic & ~free[entry] & (run.frac[entry] % (step // 2) == 0)
    t += int(cost[is_t].sum())
    rotations += int(cost[generic].sum())
    entry, kind = first[~single], code[~single]
    for position in range(int(NUM_ANGLES[kind].max(initial=0))):
        # The second angle of r is the direction of its axis, not a rotation.
        has = (NUM_ANGLES[kind] > position) & ((position == 0) | (kind != G.R))
        at = entry[has] + position
        generic = free[at] | (run.frac[at] % (PI // 2) != 0)
        is_t = generic & ~free[at] & (run.frac[at] % (PI // 4) == 0)
        t += int(is_t.sum())
        rotations += int(generic.sum())
    return t, rotations


def _depth_kernel(
    code: NDArray[np.uint8],
    qubit: NDArray[np.int32],
    extra: NDArray[np.int32],
    arity: NDArray[np.int8],
    is_measure: int,
    is_barrier: int,
    is_phase: int,
    num_qubits: int,
    depth: NDArray[np.int64],
    deep2: NDArray[np.int64],
) -> None:
    for i in range(len(code)):
        kind = code[i]
        if kind == is_phase:
            continue
        count = arity[kind]
        wide = count < 0
        if wide:
            count = qubit[i, 1]
        if kind == is_measure:
            count = 2
        level = 0
        level2 = 0
        for k in range(count):
            wire = extra[qubit[i, 0] + k] if wide else qubit[i, k]
            if kind == is_measure and k == 1:
                wire += num_qubits
            level = max(level, depth[wire])
            level2 = max(level2, deep2[wire])
        if kind != is_barrier:
            level += 1
            if count >= 2 and kind != is_measure:
                level2 += 1
        for k in range(count):
            wire = extra[qubit[i, 0] + k] if wide else qubit[i, k]
            if kind == is_measure and k == 1:
                wire += num_qubits
            depth[wire] = level
            deep2[wire] = level2


_depths = kernel()(_depth_kernel)


def _walk(
    block: Block,
    num_qubits: int,
    depth: NDArray[np.int64],
    deep2: NDArray[np.int64],
    total: _Counts,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    for item in block:
        if isinstance(item, Run):
            total.add(item)
            _depths.at(len(item))(
                item.code,
                item.qubit,
                item.extra,
                NUM_QUBITS,
                G.MEASURE,
                G.BARRIER,
                G.GPHASE,
                num_qubits,
                depth,
                deep2,
            )
            continue
        inner = sub_blocks(item)
        if not inner:
            continue
        total.control_flow += 1
        ends = [_walk(b, num_qubits, depth.copy(), deep2.copy(), total) for b in inner]
        depth = np.maximum.reduce([end[0] for end in ends])
        deep2 = np.maximum.reduce([end[1] for end in ends])
    return depth, deep2
