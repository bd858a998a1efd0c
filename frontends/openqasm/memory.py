"""Symbols and scopes: what a name stands for, and where a value lives.

A classical variable is known at compile time as long as it can be. Before a part of the program
that runs only sometimes (the body of a run-time ``if``, ``for``, ``while`` or ``switch``), the
variables that the part assigns are written to run-time storage and stay there: they are pinned.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from qcomp.errors import suggest
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.emit import Emitter
from qcomp.frontends.openqasm.values import (
    ArrayType,
    Data,
    ScalarType,
    Type,
    Value,
    as_expr,
    cast,
    fail,
    is_runtime,
)
from qcomp.ir.blocks import Assign
from qcomp.ir.classical import Binary, Bit, Cast, Expr, Lit, Register, VarRef

__all__ = [
    "BitRegister", "Gate", "Memory", "Qubits", "Scope", "Subroutine", "Symbol", "Unsupported",
    "Variable", "assigned_names",
]  # fmt: skip


@dataclass(slots=True, eq=False)
class Variable:
    """A classical variable that is no bit register.

    Attributes:
        data: Its value: known, symbolic, or a reference to its storage; an array of such.
        storage: Names of its run-time variables by element, () for a scalar.
        pinned: How many open regions force it to live at run time.
    """

    name: str
    type: Type
    data: Data
    constant: bool = False
    storage: dict[tuple[int, ...], VarRef] = field(default_factory=dict)
    pinned: int = 0
    readonly: bool = False


@dataclass(slots=True, eq=False)
class BitRegister:
    """A bit or a bit register; its bits are classical bits of the circuit once it has any.

    Attributes:
        known: Each bit's value where it is known now.
        written: Whether the bits of the circuit hold the first values.
        bits: Wires of the bits, empty until the register needs them.
    """

    name: str
    type: ScalarType
    known: list[int | None]
    bits: tuple[int, ...] = ()
    constant: bool = False
    pinned: int = 0
    foldable: bool = True
    written: bool = False

    @property
    def size(self) -> int:
        """Number of bits."""
        return len(self.known)


@dataclass(frozen=True, slots=True, eq=False)
class Qubits:
    """A quantum register, a qubit or an alias; `single` for one qubit that is no register."""

    wires: tuple[int, ...]
    single: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Bits:
    """An alias of bits: positions in bit registers."""

    parts: tuple[tuple[BitRegister, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """A gate definition; `known` names the gate of the table that it defines step for step."""

    definition: s.GateDefinition
    known: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Subroutine:
    """A subroutine definition."""

    definition: s.SubroutineDefinition


@dataclass(frozen=True, slots=True, eq=False)
class Unsupported:
    """A name that stands for something a gate machine cannot run: extern, opaque, defcal."""

    what: str


Symbol = Variable | BitRegister | Qubits | Bits | Gate | Subroutine | Unsupported
Scope = dict[str, Symbol]


def assigned_names(body: list[s.Statement], subroutines: dict[str, list[s.Statement]]) -> list[str]:
    """Return the names that the statements may assign, subroutines they call included, in order."""
    names: dict[str, None] = {}
    called: set[str] = set()
    todo = [body]
    while todo:
        for node in s.walk(todo.pop()):
            target: s.Expression | None = None
            if isinstance(node, s.Assignment):
                target = node.target
            elif isinstance(node, s.MeasureStatement):
                target = node.target
            elif isinstance(node, s.Call):
                for argument in node.arguments:
                    inner = argument
                    while isinstance(inner, s.Index):
                        inner = inner.base
                    if isinstance(inner, s.Name):
                        names[inner.name] = None
                if node.name in subroutines and node.name not in called:
                    called.add(node.name)
                    todo.append(subroutines[node.name])
            while isinstance(target, s.Index):
                target = target.base
            if isinstance(target, s.Name):
                names[target.name] = None
    return list(names)


class Memory:
    """The scopes of a program, and reading and writing of its variables."""

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.scopes: list[Scope] = [{}]
        self.depth = 0
        self.keep = False
        self.looping = 0

    # ---------------------------------------------------------------- names

    @property
    def globals(self) -> Scope:
        """The outermost scope."""
        return self.scopes[0]

    def find(self, name: str) -> Symbol | None:
        """Return what a name stands for, None if nothing."""
        for scope in reversed(self.scopes):
            if name in scope:
                return scope[name]
        return None

    def get(self, name: s.Name) -> Symbol:
        """Return what a name stands for.

        Raises:
            SourceError: If nothing is declared under it.
        """
        symbol = self.find(name.name)
        if symbol is None:
            fail(name, f"'{name.name}' is not declared", hint=self.near(name.name))
        return symbol

    def near(self, name: str) -> str:
        """Return a hint with declared names near this one."""
        known = {n for scope in self.scopes for n in scope}
        text = suggest(name, known) if known else ""
        return text if text.startswith("did you mean") else ""

    def declare(self, name: str, symbol: Symbol, node: s.Node) -> None:
        """Declare a name in the innermost scope.

        Raises:
            SourceError: If the scope has it already.
        """
        if name in self.scopes[-1]:
            fail(node, f"'{name}' is declared twice")
        self.scopes[-1][name] = symbol

    @contextmanager
    def scope(self) -> Iterator[Scope]:
        """Open a scope."""
        self.scopes.append({})
        try:
            yield self.scopes[-1]
        finally:
            self.scopes.pop()

    @contextmanager
    def frame(self) -> Iterator[Scope]:
        """Open a subroutine's scope, from which only the global one is seen."""
        outer = self.scopes
        self.scopes = [outer[0], {}]
        try:
            yield self.scopes[-1]
        finally:
            self.scopes = outer

    # ---------------------------------------------------------------- reading

    def read(self, symbol: Symbol, node: s.Node, name: str) -> Value:
        """Return the value of a classical symbol.

        Raises:
            SourceError: If it has none.
        """
        match symbol:
            case Variable():
                return Value(symbol.type, symbol.data)
            case BitRegister():
                return Value(symbol.type, self.read_bits([(symbol, i) for i in range(symbol.size)]))
            case Bits(parts):
                kind = ScalarType("bit", len(parts))
                return Value(kind, self.read_bits(list(parts)))
            case Qubits():
                fail(
                    node, f"'{name}' is a qubit, it has no classical value", hint="measure it first"
                )
            case Gate():
                fail(node, f"'{name}' is a gate, it has no value")
            case Subroutine():
                fail(node, f"'{name}' is a subroutine; call it with brackets")
            case _:
                fail(node, f"'{name}' is {symbol.what}; it has no value")

    def read_bits(self, parts: list[tuple[BitRegister, int]]) -> int | Expr:
        """Return bits as an unsigned integer, the first the least significant."""
        values = [register.known[i] for register, i in parts]
        if None not in values:
            return sum((value or 0) << i for i, value in enumerate(values))
        wires = [self.wires(register)[i] for register, i in parts]
        if len(wires) == 1:
            return Bit(wires[0])
        name = self.emitter.register_of(wires)
        if name:
            return Register(name)
        total: Expr | None = None
        for i, wire in enumerate(wires):
            bit: Expr = Cast("uint", len(wires), Bit(wire))
            term = Binary("<<", bit, Lit(i)) if i else bit
            total = term if total is None else Binary("|", total, term)
        assert total is not None
        return total

    def wires(self, register: BitRegister) -> tuple[int, ...]:
        """Return the register's bits of the circuit; allocate them at first need."""
        if not register.bits:
            register.bits = self.emitter.add_bits(register.name, register.size, _NOWHERE)
        if not register.written:
            register.written = True
            for i, value in enumerate(register.known):
                if value or (value == 0 and self.looping):
                    self.emitter.assign_bit(register.bits[i], Lit(value))
        return register.bits

    # ---------------------------------------------------------------- writing

    def write(self, variable: Variable, value: Value, node: s.Node) -> None:
        """Assign to a whole variable, converting to its type."""
        value = cast(value, variable.type, node)
        if isinstance(variable.type, ArrayType):
            assert isinstance(value.data, np.ndarray)
            assert isinstance(variable.data, np.ndarray)
            source = value.data.copy()
            for index in np.ndindex(*variable.type.shape):
                self.write_element(variable, index, source[index], node)
            return
        if not variable.pinned and not is_runtime(value.data):
            variable.data = value.data
            return
        reference = self._storage(variable, (), node)
        self.emitter.block.append(Assign(reference, as_expr(value, node)))
        variable.data = reference

    def write_element(
        self, variable: Variable, index: tuple[int, ...], data: Data, node: s.Node
    ) -> None:
        """Assign to one element of an array, of the element's type already."""
        assert isinstance(variable.data, np.ndarray)
        assert isinstance(variable.type, ArrayType)
        if not variable.pinned and not is_runtime(data):
            variable.data[index] = data
            return
        reference = self._storage(variable, index, node)
        expression = as_expr(Value(variable.type.base, data), node)
        if expression != reference:
            self.emitter.block.append(Assign(reference, expression))
        variable.data[index] = reference

    def storage_of(self, variable: Variable, node: s.Node) -> VarRef:
        """Return a scalar's run-time storage."""
        return self._storage(variable, (), node)

    def _storage(self, variable: Variable, index: tuple[int, ...], node: s.Node) -> VarRef:
        if index not in variable.storage:
            base = variable.type.base if isinstance(variable.type, ArrayType) else variable.type
            name = "_".join((variable.name, *map(str, index)))
            variable.storage[index] = self.emitter.add_variable(name, base, node)
        return variable.storage[index]

    def write_bits(self, parts: list[tuple[BitRegister, int]], value: Value, node: s.Node) -> None:
        """Assign an integer of bits to bits, the first the least significant."""
        data = value.data
        if isinstance(data, (bool, int)):
            self._write_known_bits(parts, int(data))
            return
        expression = as_expr(value, node)
        wires = [self.wires(register)[i] for register, i in parts]
        name = self.emitter.register_of(wires)
        for register, i in parts:
            register.known[i] = None
        if len(wires) == 1:
            self.emitter.assign_bit(wires[0], expression)
        elif name:
            self.emitter.block.append(Assign(Register(name), expression))
        else:
            copy = self.emitter.add_variable("bits", ScalarType("uint", len(wires)), node)
            self.emitter.block.append(Assign(copy, expression))
            for i, wire in enumerate(wires):
                shifted: Expr = Binary(">>", copy, Lit(i)) if i else copy
                self.emitter.assign_bit(wire, Binary("&", shifted, Lit(1)))

    def _write_known_bits(self, parts: list[tuple[BitRegister, int]], number: int) -> None:
        values = [number >> i & 1 for i in range(len(parts))]
        changed = [
            register.known[i] != value or bool(register.pinned)
            for (register, i), value in zip(parts, values, strict=True)
        ]
        wires = [register.bits[i] if register.bits else -1 for register, i in parts]
        whole = len(wires) > 1 and -1 not in wires and self.emitter.register_of(wires)
        if whole and all(changed):
            self.emitter.block.append(Assign(Register(whole), Lit(number)))
        for (register, i), value, wire, new in zip(parts, values, wires, changed, strict=True):
            if register.pinned and wire < 0:
                wire = self.wires(register)[i]  # noqa: PLW2901  allocated only now
            if new and wire >= 0 and not (whole and all(changed)):
                self.emitter.assign_bit(wire, Lit(value))
            fold = register.foldable and not register.pinned
            register.known[i] = value if fold else None

    # ---------------------------------------------------------------- regions

    @contextmanager
    def pinned(self, names: list[str], node: s.Node) -> Iterator[None]:
        """Keep the named variables in run-time storage while the context is open."""
        held: list[Variable | BitRegister] = []
        try:
            for name in names:
                symbol = self.find(name)
                targets: list[Variable | BitRegister] = []
                if isinstance(symbol, Bits):
                    targets = list({id(r): r for r, _ in symbol.parts}.values())
                elif isinstance(symbol, (Variable, BitRegister)) and not symbol.constant:
                    targets = [symbol]
                for target in targets:
                    held.append(target)
                    self._pin(target, node)
            yield
        finally:
            for symbol in held:
                symbol.pinned -= 1

    def _pin(self, symbol: Variable | BitRegister, node: s.Node) -> None:
        """Move one variable to run-time storage."""
        symbol.pinned += 1
        if isinstance(symbol, BitRegister):
            self.wires(symbol)
            symbol.known = [None] * symbol.size
            return
        if isinstance(symbol.type, ArrayType):
            assert isinstance(symbol.data, np.ndarray)
            for index in np.ndindex(*symbol.type.shape):
                self.write_element(symbol, index, symbol.data[index], node)
        elif not is_runtime(symbol.data):
            self.write(symbol, Value(symbol.type, symbol.data), node)

    def snapshot(self, names: list[str]) -> list[tuple[Variable | BitRegister, object]]:
        """Keep the named variables' values, for :meth:`restore`."""
        kept: list[tuple[Variable | BitRegister, object]] = []
        for name in names:
            symbol = self.find(name)
            if isinstance(symbol, Variable):
                data = symbol.data
                kept.append((symbol, data.copy() if isinstance(data, np.ndarray) else data))
            elif isinstance(symbol, BitRegister):
                kept.append((symbol, (list(symbol.known), symbol.written)))
            elif isinstance(symbol, Bits):
                kept.extend((r, (list(r.known), r.written)) for r, _ in symbol.parts)
        return kept

    def restore(self, kept: list[tuple[Variable | BitRegister, object]]) -> None:
        """Put values back."""
        for symbol, value in kept:
            if isinstance(symbol, Variable):
                if isinstance(symbol.data, np.ndarray):
                    symbol.data[...] = value
                else:
                    symbol.data = value  # type: ignore[assignment]
            else:
                symbol.known, symbol.written = value  # type: ignore[misc]


_NOWHERE = s.Node(1, 1)
