"""reduce-t-count: fewer T gates than rotations about different Paulis, by TOHPE and FastTODD."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import PI
from qcomp.ir.blocks import Block, If, Item
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Bit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.map.to_basis import ToBasis
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.synthesize import clifford_regions, phase_polynomial
from qcomp.passes.synthesize.t_count import pauli_sequence
from qcomp.passes.synthesize.t_count.tables import fasttodd, tohpe
from qcomp.passes.synthesize.t_count.writing import Reducer, Rewritten, gates_to_run, rewrite
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["ReduceTCount"]

_BASIS = ("h", "x", "rz", "cx")
_STEP = PI >> 2
_REDUCERS: dict[str, Reducer] = {"tohpe": tohpe, "fasttodd": fasttodd}


def _segments(run: Run) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the longest parts of only h, x, cx and rz by multiples of pi/4."""
    inside = np.isin(run.code, (G.H, G.X, G.CX, G.RZ))
    rz = np.flatnonzero(run.code == G.RZ)
    at = run.angle[rz]
    inside[rz] = (run.rem[at] == 0) & (run.form[at] < 0) & (run.frac[at] % _STEP == 0)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], inside.astype(np.int8), [0]])))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _read(run: Run, start: int, stop: int) -> tuple[list[pauli_sequence.Step], list[int], int]:
    """Return a segment's steps on wires from 0, the run's wire of each, and 1/16 turns of phase."""
    qubit = run.qubit[start:stop, :2]
    wires: NDArray[np.int32] = np.unique(qubit[qubit >= 0])
    local = np.searchsorted(wires, qubit)
    steps: list[pauli_sequence.Step] = []
    sixteenths = 0
    for i in range(start, stop):
        a, b = (int(q) for q in local[i - start])
        code = run.code[i]
        if code == G.RZ:
            k = int(run.frac[run.angle[i]]) // _STEP
            sixteenths -= k
            if k % 2:
                steps.append(pauli_sequence.Phase(1 << a, k % 8))
            elif k % 8:
                steps.append((("s", "z", "sdg")[k % 8 // 2 - 1], a, -1))
        elif code == G.CX:
            steps.append(("cx", a, b))
        else:
            steps.append(("h" if code == G.H else "x", a, -1))
    return steps, wires.tolist(), sixteenths


def _shortened(run: Run, forms: Forms) -> tuple[Run, Phase]:
    """Write the CX and the Cliffords of a new run with fewer gates."""
    run, forms, one = phase_polynomial.resynthesize_run(run, forms, 2, 4096)
    run, forms, other = clifford_regions.resynthesize_run(run, forms, _wires_named(run), 2000, 0)
    return run, Phase(one.frac + other.frac)


def _wires_named(run: Run) -> int:
    """Return how many wires a run may name."""
    return int(run.qubit.max(initial=0)) + 1


@dataclass
class _Cost:
    """What gadgets cost, and the wires that they take."""

    wires: int
    bits: int
    ancillas: int = 0
    t_before: int = 0
    t_after: int = 0
    corrections: int = 0
    frac: int = 0


@dataclass(frozen=True)
class ReduceTCount(CircuitPass):
    """``sum_j P_aj P_bj P_cj mod 2``: parity tables of equal tensor differ by a Clifford.

    T gates on parities of wires are a table P over GF(2), a column a parity. The circuit is written
    in h, x, rz and cx; parts of Cliffords and rotations by odd multiples of pi/4 become rotations
    about Paulis and a Clifford, diagonalised with the fewest Hadamards. Between those Hadamards the
    table of T gates is replaced by one with fewer columns and the same tensor, and the S and CZ
    gates by which the two differ are added.

    With ``gadgets`` each Hadamard inside becomes an ancilla in |+>, a CZ, a measurement along X and
    Clifford gates where it gave 1, so that one table holds all T gates. What that takes in
    ancillas, measurements and conditional gates is told as a warning and kept in the circuit's
    notes. Ancillas start in |0>, and the measured bits are new ones. A part where ancillas save no
    T gate gets none, nor do the bodies of control flow.

    Preconditions: without gadgets none. Measurements, resets, barriers and other angles, symbols
    among them, part the circuit; ``merge-pauli-rotations`` before it lets rotations meet that are
    parted. With gadgets the circuit's node has to read observables of its own qubits: one that
    reads states, probabilities or bits would see those of the gadgets too.

    Preserves: without gadgets the unitary exactly, global phase included; with gadgets the channel
    on the circuit's own qubits and bits exactly, after every outcome. A circuit is rewritten only
    where its T count falls; the count of CX gates may rise.

    Cost: a step of TOHPE n^2 m^2 / 64 for m parities of n variables, one of FastTODD n^3 m^3 / 64
    and at most a fixed number of words; at most m steps, from a few beginnings.

    Source: Vandaele 2024 (arXiv:2407.08695), algorithms 2 and 4; Vandaele, Martiel, Perdrix,
    Vuillot 2023 (arXiv:2302.07040), algorithm 3; Heyfron, Campbell 2018 (arXiv:1712.01557).

    Attributes:
        gadgets: Whether Hadamards may become ancillas, measurements and conditional gates.
        method: ``tohpe`` or ``fasttodd``, which is slower and finds at most as many T gates.
    """

    name: ClassVar[str] = "reduce-t-count"
    preserves: ClassVar[Guarantee] = Guarantee.EXACT

    gadgets: bool = False
    method: Literal["tohpe", "fasttodd"] = "tohpe"

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with fewer T gates; the same object when there are not fewer."""
        result = self._without_gadgets(circuit, context)
        if not self.gadgets:
            return result
        lowered = ToBasis(gates=_BASIS).run(circuit, context)
        wider, text = self._with_gadgets(lowered)
        if wider is lowered:
            return result
        wider = self._without_gadgets(wider, context)
        if wider.stats().t_count >= result.stats().t_count:
            return result
        context.warn(text)
        wider.notes = (*circuit.notes, text)
        return wider

    def _without_gadgets(self, circuit: Circuit, context: Context) -> Circuit:
        """Rewrite runs until T falls no more."""
        # T falls in every round but the last.
        for _ in range(circuit.stats().t_count):
            lowered = ToBasis(gates=_BASIS).run(circuit, context)
            result = rewrite_leaves(lowered, self._leaf)
            if result.stats().t_count >= circuit.stats().t_count:
                break
            circuit = result
        return circuit

    def _leaf(self, run: Run, forms: Forms) -> Leaf:
        """Rewrite one run without gadgets; the same run where T does not fall."""
        parts: list[Run] = []
        done = frac = 0
        for start, stop in _segments(run):
            steps, wires, sixteenths = _read(run, start, stop)
            new = rewrite(steps, len(wires), _REDUCERS[self.method], gadgets=False)
            if new is None:
                continue
            parts.append(run.select(np.arange(done, start)))
            written, phase = _shortened(gates_to_run([*new.gates, *new.last], wires), forms)
            parts.append(written)
            frac += sixteenths * (PI >> 3) + new.eighths * _STEP + phase.frac
            done = stop
        if not done:
            return run, forms, Phase()
        parts.append(run.select(np.arange(done, len(run))))
        return Run.concat(parts), forms, Phase(frac % (2 * PI))

    def _with_gadgets(self, circuit: Circuit) -> tuple[Circuit, str]:
        """Rewrite the runs outside control flow with gadgets; the same circuit where none help.

        What they cost is told beside it.
        """
        cost = _Cost(circuit.num_qubits, circuit.num_clbits)
        body: list[Item] = []
        for item in circuit.body:
            if isinstance(item, Run):
                body += self._gadgetised(item, circuit.forms, cost)
            else:
                body.append(item)
        if not cost.ancillas:
            return circuit, ""
        result = Circuit(
            cost.wires,
            cost.bits,
            circuit.params,
            circuit.name,
            qregs=(*circuit.qregs, _register("gadget", circuit, circuit.num_qubits, cost)),
            cregs=(*circuit.cregs, _register("outcome", circuit, circuit.num_clbits, cost)),
            variables=circuit.variables,
        ).copy(body=tuple(body), forms=circuit.forms)
        result.global_phase = circuit.global_phase
        result.add_phase(cost.frac % (2 * PI))
        text = (
            f"reduce-t-count: {cost.t_before} T gates became {cost.t_after} at the price of "
            f"{cost.ancillas} ancillas, {cost.ancillas} measurements and {cost.corrections} "
            f"conditional Clifford gates in {cost.ancillas} steps of feed-forward"
        )
        return result, text

    def _gadgetised(self, run: Run, forms: Forms, cost: _Cost) -> Block:
        items: list[Item] = []
        done = 0
        for start, stop in _segments(run):
            steps, wires, sixteenths = _read(run, start, stop)
            new = rewrite(steps, len(wires), _REDUCERS[self.method], gadgets=True)
            if new is None or not new.gadgets:
                continue
            items.append(run.select(np.arange(done, start)))
            items += _written(new, wires, forms, cost)
            cost.frac += sixteenths * (PI >> 3) + new.eighths * _STEP
            done = stop
        items.append(run.select(np.arange(done, len(run))))
        return tuple(item for item in items if not isinstance(item, Run) or len(item))


def _register(name: str, circuit: Circuit, start: int, cost: _Cost) -> RegisterDecl:
    """Return a register for the ancillas or their outcomes under a name that is free."""
    taken = {r.name for r in (*circuit.qregs, *circuit.cregs)}
    taken |= {v.name for v in circuit.variables} | set(circuit.params)
    tries = (name, *(f"{name}{k}" for k in range(len(taken) + 1)))
    return RegisterDecl(next(t for t in tries if t not in taken), cost.ancillas, start)


def _written(new: Rewritten, wires: list[int], forms: Forms, cost: _Cost) -> list[Item]:
    """Return the items of a segment with gadgets; its ancillas and bits are taken."""
    count = len(new.gadgets)
    wires = [*wires, *range(cost.wires, cost.wires + count)]
    begin, phase = _shortened(gates_to_run(new.gates, wires), forms)
    items: list[Item] = [begin]
    ancilla, bit = cost.wires, cost.bits
    for k, correction in enumerate(new.gadgets):
        row = [(ancilla + k, -1, -1), (ancilla + k, bit + k, -1)]
        items.append(Run.of([G.H, G.MEASURE], row))
        if correction.gates:
            items.append(If(Bit(bit + k), (gates_to_run(correction.gates, wires),)))
            cost.corrections += len(correction.gates)
    end, more = _shortened(gates_to_run(new.last, wires), forms)
    items.append(end)
    cost.frac += phase.frac + more.frac
    cost.ancillas += count
    cost.wires += count
    cost.bits += count
    cost.t_before += new.t_before
    cost.t_after += new.t_after
    return items
