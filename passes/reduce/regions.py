"""Regions of a run: unitary parts that stand alone, taken out, shuffled and put back."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import AXIS, IS_UNITARY, NUM_QUBITS
from qcomp.ir.run import Run

__all__ = [
    "FormTable",
    "Region",
    "as_circuit",
    "from_circuit",
    "grow",
    "shuffled",
    "wires_near",
]

_NARROW = np.array(IS_UNITARY, dtype=bool) & (NUM_QUBITS > 0)
_AXIS: list[list[int]] = AXIS.tolist()
_ARITY: list[int] = np.maximum(NUM_QUBITS, 0).tolist()


@dataclass(frozen=True, slots=True)
class Region:
    """Operations of a run that can be brought together without moving past what they meet.

    Attributes:
        start: First operation of the span that was looked at.
        stop: One past its last.
        inside: Positions of the region's operations, ascending.
        outside: The span's other operations; all of them can stand after the region.
    """

    start: int
    stop: int
    inside: NDArray[np.intp]
    outside: NDArray[np.intp]


def wires_near(run: Run, start: int, count: int) -> set[int]:
    """Return up to ``count`` wires that the operations from ``start`` on tie together."""
    wires: set[int] = set()
    stop = min(len(run), start + 64 * count)
    for code, row in zip(
        run.code[start:stop].tolist(), run.qubit[start:stop].tolist(), strict=True
    ):
        if not _NARROW[code]:
            continue
        mine = row[: _ARITY[code]]
        if not wires or any(q in wires for q in mine):
            if len(wires.union(mine)) > count:
                continue
            wires.update(mine)
        if len(wires) == count:
            break
    return wires


def grow(run: Run, start: int, wires: set[int] | None, most: int, span: int) -> Region:
    """Return the region that begins at an operation.

    An operation joins when it is unitary, acts on the region's wires alone, and nothing between it
    and the region's start holds it back; one that stays out holds back what comes after on its
    wires.

    Args:
        run: The run.
        start: First operation.
        wires: The region's wires; None for all.
        most: Most operations of the region.
        span: Most operations to look at.
    """
    inside: list[int] = []
    outside: list[int] = []
    blocked: set[int] = set()
    end = min(len(run), start + span)
    codes, rows = run.code[start:end].tolist(), run.qubit[start:end].tolist()
    stop = start
    for offset, (code, row) in enumerate(zip(codes, rows, strict=True)):
        stop = start + offset + 1
        if not _NARROW[code]:
            held = run.operands(start + offset)
            outside.append(start + offset)
            blocked.update(held)
            if wires is None and len(held) == 0:
                continue
        else:
            mine = row[: _ARITY[code]]
            joins = wires is None or all(q in wires for q in mine)
            if joins and not any(q in blocked for q in mine):
                inside.append(start + offset)
                if len(inside) == most:
                    break
                continue
            outside.append(start + offset)
            blocked.update(mine)
        if wires is not None and wires <= blocked:
            break
    return Region(start, stop, np.array(inside, np.intp), np.array(outside, np.intp))


class FormTable:
    """Rows of forms by what they hold, so that a search adds a row once."""

    def __init__(self, forms: Forms) -> None:
        self.forms = forms
        self._index = {forms.row(i): i for i in reversed(range(len(forms)))}

    def rows_of(self, run: Run) -> tuple[Run, Forms]:
        """Return the run over forms that hold only the rows it uses."""
        used = np.unique(run.form[run.form >= 0])
        if not len(used):
            return run, Forms()
        forms, where = Forms().append([self.forms.row(int(i)) for i in used])
        form = np.full(len(run.form), -1, dtype=np.int32)
        live = run.form >= 0
        form[live] = where[np.searchsorted(used, run.form[live])]
        return run.with_angles(run.frac, run.rem, form), forms

    def adopted(self, run: Run, forms: Forms) -> Run:
        """Return a run over other forms as one over this table's."""
        used = np.unique(run.form[run.form >= 0])
        if not len(used):
            return run
        where = np.full(int(used[-1]) + 1, -1, dtype=np.int32)
        for i in used.tolist():
            row = forms.row(i)
            if row not in self._index:
                self.forms, made = self.forms.append([row])
                self._index[row] = int(made[0])
            where[i] = self._index[row]
        form = np.where(run.form >= 0, where[run.form], -1).astype(np.int32)
        return run.with_angles(run.frac, run.rem, form)


def shuffled(run: Run, rng: np.random.Generator) -> Run:
    """Return narrow unitary operations in a random order that means the same.

    Operations that share a wire keep their order, but for those that act along one axis there one
    after the other: they commute, and stand in any order.

    Args:
        run: Operations on one to three qubits each.
        rng: Draws the order.
    """
    n = len(run)
    weight = rng.permutation(n).tolist()
    member: list[list[tuple[int, int]]] = []
    groups: dict[int, list[list[int]]] = {}
    last_axis: dict[int, int] = {}
    for i, (code, row) in enumerate(zip(run.code.tolist(), run.qubit.tolist(), strict=True)):
        places = []
        for k in range(_ARITY[code]):
            wire, axis = row[k], _AXIS[code][k]
            mine = groups.setdefault(wire, [])
            if not mine or axis == 0 or last_axis[wire] != axis:
                mine.append([])
            last_axis[wire] = axis
            mine[-1].append(i)
            places.append((wire, len(mine) - 1))
        member.append(places)
    waiting = [sum(place > 0 for _, place in places) for places in member]
    left = {wire: [len(group) for group in mine] for wire, mine in groups.items()}
    ready = [(weight[i], i) for i in range(n) if waiting[i] == 0]
    heapq.heapify(ready)
    order = []
    while ready:
        _, i = heapq.heappop(ready)
        order.append(i)
        for wire, place in member[i]:
            left[wire][place] -= 1
            if left[wire][place] == 0 and place + 1 < len(groups[wire]):
                for j in groups[wire][place + 1]:
                    waiting[j] -= 1
                    if waiting[j] == 0:
                        heapq.heappush(ready, (weight[j], j))
    return run.select(np.array(order, dtype=np.intp))


def as_circuit(
    run: Run, forms: Forms, params: tuple[str, ...], rng: np.random.Generator
) -> tuple[Circuit, NDArray[np.int32]]:
    """Return a region's operations as a circuit of their own, and the wires that its qubits are.

    Its qubits are in random order, so that what is decided by their numbers falls out anew.
    """
    used = np.unique(run.qubit)
    wires = rng.permutation(used[used >= 0]).astype(np.int32)
    place = np.full(int(wires.max(initial=0)) + 1, -1, dtype=np.int32)
    place[wires] = np.arange(len(wires))
    circuit = Circuit(len(wires), 0, params, "region")
    local = run.relabel(place, np.zeros(0, dtype=np.int32))
    return circuit.copy(body=(local,), forms=forms), wires


def from_circuit(circuit: Circuit, wires: NDArray[np.int32]) -> tuple[Run, Angle]:
    """Return a region's circuit as operations on its wires, and its phase."""
    return circuit.run.relabel(wires, np.zeros(0, dtype=np.int32)), circuit.global_phase
