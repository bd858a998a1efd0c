"""What the interpreter emits: a tree of operations, turned into a Circuit at the end.

Loops that turn out to depend on a measurement are tried twice, so what was emitted must be easy to
take back: a block is a plain list, and taking back is cutting it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from qcomp.frontends.openqasm.limits import (
    MAX_BITS,
    MAX_EXPANDED_GATES,
    MAX_QUBITS,
    MAX_VARIABLES,
)
from qcomp.frontends.openqasm.syntax import Node
from qcomp.frontends.openqasm.values import RUNTIME_TYPES, ScalarType, fail
from qcomp.ir.angle import Angle
from qcomp.ir.blocks import (
    Assign,
    Block,
    Box,
    Break,
    Continue,
    Delay,
    Duration,
    End,
    For,
    If,
    Range,
    While,
)
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import Bit, ClassicalVar, Expr, VarRef

__all__ = ["Emitter", "Op", "RawBlock"]


class Op(NamedTuple):
    """One operation of the gate table; `clbit` is a measurement's target."""

    name: str
    qubits: tuple[int, ...]
    angles: tuple[Angle, ...] = ()
    clbit: int = -1


@dataclass(slots=True)
class RawIf:
    """An If to be."""

    condition: Expr
    then: RawBlock
    orelse: RawBlock


@dataclass(slots=True)
class RawWhile:
    """A While to be."""

    condition: Expr
    body: RawBlock


@dataclass(slots=True)
class RawFor:
    """A For to be."""

    variable: ClassicalVar
    values: Range | tuple[int, ...]
    body: RawBlock


@dataclass(slots=True)
class RawSwitch:
    """A Switch to be."""

    subject: Expr
    cases: list[tuple[tuple[int, ...], RawBlock]]
    default: RawBlock | None


@dataclass(slots=True)
class RawBox:
    """A Box to be."""

    body: RawBlock
    duration: Duration | None


RawItem = (
    Op | RawIf | RawWhile | RawFor | RawSwitch | RawBox | Delay | Assign | Break | Continue | End
)
RawBlock = list[RawItem]


@dataclass(slots=True)
class Emitter:
    """Collects qubits, bits, variables and operations.

    Attributes:
        block: The list that is written to now.
        physical: Whether the program names physical qubits, None while it names none.
    """

    num_qubits: int = 0
    num_clbits: int = 0
    qregs: list[RegisterDecl] = field(default_factory=list)
    cregs: list[RegisterDecl] = field(default_factory=list)
    variables: list[ClassicalVar] = field(default_factory=list)
    params: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    physical: bool | None = None
    emitted: int = 0
    block: RawBlock = field(default_factory=list)

    def unique(self, name: str) -> str:
        """Return the name, or the name with a number, that no wire or variable has yet."""
        free, number = name, 0
        while free in self.names:
            number += 1
            free = f"{name}_{number}"
        self.names.add(free)
        return free

    # ---------------------------------------------------------------- declarations

    def add_qubits(self, name: str, size: int, node: Node) -> tuple[int, ...]:
        """Allocate a quantum register."""
        self._mode(node, physical=False)
        if self.num_qubits + size > MAX_QUBITS:
            fail(node, f"more than {MAX_QUBITS} qubits")
        start = self.num_qubits
        self.qregs.append(RegisterDecl(self.unique(name), size, start))
        self.num_qubits += size
        return tuple(range(start, start + size))

    def physical_qubit(self, index: int, node: Node) -> int:
        """Return the wire of ``$index``."""
        self._mode(node, physical=True)
        if index >= MAX_QUBITS:
            fail(node, f"physical qubit ${index} is beyond the bound of {MAX_QUBITS} qubits")
        self.num_qubits = max(self.num_qubits, index + 1)
        return index

    def _mode(self, node: Node, *, physical: bool) -> None:
        if self.physical is None:
            self.physical = physical
        elif self.physical != physical:
            fail(
                node,
                "physical qubits and declared qubits in one program",
                why="it is not known which physical qubits the declared ones are",
                hint="use either $0, $1 ... or qubit registers",
            )

    def add_bits(self, name: str, size: int, node: Node) -> tuple[int, ...]:
        """Allocate a classical register."""
        if self.num_clbits + size > MAX_BITS:
            fail(node, f"more than {MAX_BITS} classical bits")
        start = self.num_clbits
        self.cregs.append(RegisterDecl(self.unique(name), size, start))
        self.num_clbits += size
        return tuple(range(start, start + size))

    def register_of(self, bits: Sequence[int]) -> str:
        """Return the name of the register that is exactly these bits in order, or nothing."""
        for register in self.cregs:
            if register.start == bits[0]:
                whole = range(register.start, register.start + register.size)
                return register.name if tuple(bits) == tuple(whole) else ""
        return ""

    def add_variable(self, name: str, kind: ScalarType, node: Node) -> VarRef:
        """Allocate a run-time variable."""
        if kind.kind not in RUNTIME_TYPES:
            fail(node, f"a variable of type {kind} cannot depend on a measurement")
        if len(self.variables) >= MAX_VARIABLES:
            fail(node, f"more than {MAX_VARIABLES} run-time variables")
        storage = self.unique(name)
        if kind.kind == "bit":  # in text, a variable of bits would be a register
            kind = ScalarType("uint", kind.width or 1)
        self.variables.append(ClassicalVar(storage, RUNTIME_TYPES[kind.kind], kind.width))
        return VarRef(storage)

    # ---------------------------------------------------------------- operations

    def op(self, name: str, qubits: tuple[int, ...], angles: tuple[Angle, ...] = ()) -> None:
        """Emit one operation."""
        self.block.append(Op(name, qubits, angles))
        self.emitted += 1

    def count(self, operations: int, node: Node) -> None:
        """Refuse to go past the bound on operations."""
        if self.emitted + operations > MAX_EXPANDED_GATES:
            fail(
                node,
                f"the program expands to more than {MAX_EXPANDED_GATES} operations",
                why="gate definitions, modifiers and loops multiply",
                hint="write fewer repetitions, or straight-line text for a circuit of that size",
            )

    def measure(self, qubit: int, clbit: int) -> None:
        """Emit a measurement."""
        self.block.append(Op("measure", (qubit,), (), clbit))
        self.emitted += 1

    def assign_bit(self, bit: int, value: Expr) -> None:
        """Emit the assignment of a bit."""
        self.block.append(Assign(Bit(bit), value))

    # ---------------------------------------------------------------- the circuit

    def circuit(self, name: str) -> Circuit:
        """Return the circuit of all that was emitted."""
        qregs = list(self.qregs)
        if self.physical and self.num_qubits:
            qregs = [RegisterDecl(self.unique("q"), self.num_qubits, 0)]
        circuit = Circuit(
            self.num_qubits,
            self.num_clbits,
            self.params,
            name,
            qregs=qregs,
            cregs=self.cregs,
            variables=self.variables,
        )
        self._write(circuit, self.block)
        _ = circuit.body
        return circuit

    def _write(self, circuit: Circuit, block: RawBlock) -> None:
        for item in block:
            match item:
                case Op(name, qubits, angles, clbit):
                    circuit.append(name, qubits, angles, clbit)
                case RawIf(condition, then, orelse):
                    bodies = (self._body(circuit, then), self._body(circuit, orelse))
                    circuit.append_item(If(condition, *bodies))
                case RawWhile(condition, body):
                    circuit.append_item(While(condition, self._body(circuit, body)))
                case RawFor(variable, values, body):
                    circuit.append_item(For(variable, values, self._body(circuit, body)))
                case RawSwitch(subject, cases, default):
                    made = [(labels, self._body(circuit, body)) for labels, body in cases]
                    rest = None if default is None else self._body(circuit, default)
                    circuit.switch(subject, made, rest)
                case RawBox(body, duration):
                    circuit.append_item(Box(self._body(circuit, body), duration))
                case _:
                    circuit.append_item(item)

    def _body(self, circuit: Circuit, block: RawBlock) -> Block:
        into: list[Block] = []
        with circuit.capture(into):
            self._write(circuit, block)
        return into[0]
