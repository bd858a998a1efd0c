"""Where the qubits of a mapped circuit stand on the machine, and how that is taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.blocks import Delay, Item, map_items, walk_items
from qcomp.ir.gates import NUM_QUBITS, G
from qcomp.ir.observable import Observable
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from qcomp.ir.circuit import Circuit

__all__ = ["Layout", "active_wires", "homeward", "relabel", "unmapped"]


@dataclass(frozen=True, slots=True)
class Layout:
    """Which physical qubit holds which qubit of the circuit that was mapped.

    All other physical qubits are ancillas: they start in |0> and end in |0>.

    Attributes:
        initial: Virtual qubit -> physical qubit where the circuit starts.
        final: Virtual qubit -> physical qubit where it ends.
        num_physical: Qubits of the machine.
        moved: (start, end) of ancillas that swaps moved, where it is known.
    """

    initial: tuple[int, ...]
    final: tuple[int, ...]
    num_physical: int
    moved: tuple[tuple[int, int], ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Check that both are placements of the same qubits.

        Raises:
            UsageError: If they are not.
        """
        for name, wires in (("initial", self.initial), ("final", self.final)):
            if len(set(wires)) != len(wires):
                raise UsageError(f"the {name} layout puts two qubits on one physical qubit")
            if any(not 0 <= w < self.num_physical for w in wires):
                raise UsageError(
                    f"the {name} layout names a qubit that the device does not have",
                    why=f"its qubits are 0 .. {self.num_physical - 1}",
                )
        if len(self.initial) != len(self.final):
            raise UsageError(
                f"a layout places {len(self.initial)} qubits at the start and "
                f"{len(self.final)} at the end"
            )

    @staticmethod
    def trivial(num_qubits: int, num_physical: int) -> Layout:
        """Return the layout where virtual qubit i is physical qubit i throughout."""
        wires = tuple(range(num_qubits))
        return Layout(wires, wires, num_physical)

    @property
    def num_virtual(self) -> int:
        """Qubits of the circuit that was mapped."""
        return len(self.initial)

    @property
    def ancillas(self) -> tuple[int, ...]:
        """Physical qubits that hold no virtual qubit at the start, ascending."""
        taken = set(self.initial)
        return tuple(q for q in range(self.num_physical) if q not in taken)

    def permutation(self) -> tuple[int, ...]:
        """Return where what starts on each physical qubit ends, int[num_physical].

        Ancillas of which it is not known stay if they can, and else take what is free.
        """
        end = [-1] * self.num_physical
        for a, b in (*self.moved, *zip(self.initial, self.final, strict=True)):
            end[a] = b
        free = set(range(self.num_physical)) - set(end)
        for a, b in enumerate(end):
            if b < 0 and a in free:
                end[a] = a
                free.remove(a)
        rest = iter(sorted(free))
        return tuple(next(rest) if b < 0 else b for b in end)

    def inverse(self) -> Layout:
        """Return the layout of the inverse circuit."""
        return Layout(
            self.final, self.initial, self.num_physical, tuple((b, a) for a, b in self.moved)
        )

    def controlled(self) -> Layout:
        """Return the layout of the circuit with a control, its new qubit 0 in place."""
        return Layout(
            (0, *(q + 1 for q in self.initial)),
            (0, *(q + 1 for q in self.final)),
            self.num_physical + 1,
            tuple((a + 1, b + 1) for a, b in self.moved),
        )

    def then(self, later: Layout) -> Layout:
        """Return the layout of a mapped circuit that was mapped once more.

        Args:
            later: The layout of the second mapping, whose virtual qubits are this one's physical.
        """
        return Layout(
            tuple(later.initial[q] for q in self.initial),
            tuple(later.final[q] for q in self.final),
            later.num_physical,
        )

    def observable(self, observable: Observable) -> Observable:
        """Return an observable of the virtual qubits on the physical qubits at the end."""
        return Observable(
            tuple(
                (coef, tuple(sorted((self.final[q], pauli) for q, pauli in product)))
                for coef, product in observable.terms
            )
        )

    def to_dict(self) -> dict[str, object]:
        """Return the layout as plain data, for JSON."""
        return {
            "initial": list(self.initial),
            "final": list(self.final),
            "num_physical": self.num_physical,
            "moved": [list(pair) for pair in self.moved],
        }

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> Layout:
        """Return the layout of plain data.

        Raises:
            UsageError: If it is no layout.
            LookupError, TypeError, ValueError: If an entry is missing or of the wrong kind.
        """
        return Layout(
            tuple(int(q) for q in data["initial"]),
            tuple(int(q) for q in data["final"]),
            int(data["num_physical"]),
            tuple((int(a), int(b)) for a, b in data.get("moved", ())),
        )


def active_wires(circuit: Circuit) -> NDArray[np.bool_]:
    """Return which wires any operation but a barrier acts on, bool[num_qubits]."""
    active = np.zeros(circuit.num_qubits, dtype=bool)
    for item in walk_items(circuit.body):
        if isinstance(item, Delay):
            active[list(item.qubits)] = True
        if not isinstance(item, Run):
            continue
        narrow = ~item.is_wide
        operand = np.arange(3)[None, :] < NUM_QUBITS[item.code][:, None]
        active[item.qubit[narrow][operand[narrow]]] = True
        for i in np.flatnonzero(~narrow & (item.code != G.BARRIER)).tolist():
            active[list(item.operands(i))] = True
    return active


def relabel(circuit: Circuit, wire: Sequence[int] | NDArray[np.int32], num_qubits: int) -> Circuit:
    """Return the circuit on other wires, without a layout.

    Args:
        circuit: The circuit.
        wire: New number of each wire, -1 for wires that go: those must be idle. Barriers lose
            them.
        num_qubits: Wires of the new circuit, all in one register ``q``.
    """
    from qcomp.ir.circuit import Circuit as CircuitClass

    where = np.asarray(wire, dtype=np.int32)
    same = np.arange(circuit.num_clbits, dtype=np.int32)

    def move(item: Item) -> Item | None:
        if isinstance(item, Delay):
            return replace(item, qubits=tuple(int(where[q]) for q in item.qubits))
        if not isinstance(item, Run):
            return item
        return _narrowed(item, where >= 0).relabel(where, same)

    name = _free_name(circuit)
    new = CircuitClass(
        num_qubits,
        circuit.num_clbits,
        circuit.params,
        circuit.name,
        qregs=_register(name, num_qubits),
        cregs=circuit.cregs,
        variables=circuit.variables,
    )
    body = map_items(circuit.body, move)
    new.global_phase = circuit.global_phase
    new.notes = circuit.notes
    return new.copy(body=body, forms=circuit.forms)


def _register(name: str, size: int) -> tuple[Any, ...]:
    from qcomp.ir.circuit import RegisterDecl

    return (RegisterDecl(name, size, 0),) if size else ()


def _free_name(circuit: Circuit) -> str:
    """Return a name for one quantum register: ``q`` unless something else has it."""
    taken = {r.name for r in circuit.cregs} | {v.name for v in circuit.variables}
    taken |= set(circuit.params)
    return next(n for n in ("q", *(f"q{i}" for i in range(len(taken) + 1))) if n not in taken)


def _narrowed(run: Run, kept: NDArray[np.bool_]) -> Run:
    """Return the run with barriers on the kept wires alone."""
    barrier = np.flatnonzero(run.code == G.BARRIER)
    if not len(barrier) or kept[run.extra].all():
        return run
    run = run.normal()
    qubit, extra = run.qubit.copy(), []
    begin = 0
    for i in np.flatnonzero(run.is_wide).tolist():
        wires = [w for w in run.operands(i) if kept[w]]
        qubit[i, :2] = begin, len(wires)
        extra += wires
        begin += len(wires)
    new = replace(run, qubit=qubit, extra=np.array(extra, dtype=np.int32))
    return new.select(~(new.is_wide & (new.qubit[:, 1] == 0)))


def unmapped(circuit: Circuit) -> Circuit:
    """Return the circuit for running: virtual qubit v ends on wire v, used ancillas follow.

    What is read at the end is then what the circuit before mapping gives, and a machine of 133
    qubits is simulated with the few that are in use. The circuit itself comes back when it was not
    mapped. Cost: linear in the operations.
    """
    layout = circuit.layout
    if layout is None:
        return circuit
    return relabel(circuit, *_places(circuit, layout.final))


def homeward(circuit: Circuit) -> tuple[Circuit, list[tuple[int, int]]]:
    """Return the circuit for comparing, and what is left to do to undo its layout.

    Returns:
        (the circuit without a layout, virtual qubit v starting on wire v and used ancillas behind
        them, the swaps that bring every qubit and ancilla back to where it started). A circuit
        that was not mapped comes back as it is.
    """
    layout = circuit.layout
    if layout is None:
        return circuit, []
    wire, size = _places(circuit, layout.initial, layout.final)
    new = relabel(circuit, wire, size)
    home = {b: a for a, b in enumerate(layout.permutation()) if wire[b] >= 0}
    home = {wire[b]: wire[a] for b, a in home.items()}
    swaps = []
    for here in range(size):
        while home[here] != here:
            there = home[here]
            swaps.append((here, there))
            home[here], home[there] = home[there], there
    return new, swaps


def _places(circuit: Circuit, *wires: Sequence[int]) -> tuple[list[int], int]:
    """Return (new number of each wire, how many): the first wires given lead, used ones follow."""
    active = active_wires(circuit)
    for more in wires:
        active[list(more)] = True
    place = [-1] * circuit.num_qubits
    lead = list(wires[0])
    rest = [w for w in np.flatnonzero(active).tolist() if w not in set(lead)]
    for number, w in enumerate((*lead, *rest)):
        place[w] = number
    return place, len(lead) + len(rest)
