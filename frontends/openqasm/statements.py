"""Statements: assignment, measurement, reset, barrier and timing."""

from __future__ import annotations

import numpy as np

from qcomp.frontends.openqasm import arithmetic
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.declarations import Declarations, unfold
from qcomp.frontends.openqasm.emit import RawBox
from qcomp.frontends.openqasm.memory import (
    BitRegister,
    Bits,
    Qubits,
    Variable,
)
from qcomp.frontends.openqasm.values import (
    BIT,
    INT,
    UINT,
    ArrayType,
    ScalarType,
    Value,
    as_expr,
    cast,
    fail,
    is_runtime,
    known_int,
)
from qcomp.ir.blocks import Delay, Duration
from qcomp.ir.classical import Binary, Expr, Lit

__all__ = ["Statements"]


class Statements(Declarations):
    """The interpreter's part that assigns and measures."""

    open_box: bool

    # ---------------------------------------------------------------- assignment

    def assign(self, node: s.Assignment) -> None:
        """Execute an assignment."""
        value = self.evaluate(node.value)
        if node.op != "=":
            operator = node.op[:-1]
            if operator == "~":
                value = arithmetic.unary("~", value, node)
            else:
                value = arithmetic.binary(operator, self.evaluate(node.target), value, node)
        self.store(node.target, value, node)

    def store(self, node: s.Expression, value: Value, at: s.Node) -> None:
        """Assign a value to a target."""
        target, chain = unfold(node)
        assert isinstance(target, s.Name)
        symbol = self.memory.get(target)
        if isinstance(symbol, (BitRegister, Bits)):
            self._store_bits(target, symbol, chain, value, at)
            return
        if not isinstance(symbol, Variable):
            fail(node, f"'{target.name}' is not a variable")
        if symbol.constant or symbol.readonly:
            fail(node, f"'{target.name}' is constant and cannot be assigned to")
        if not chain:
            self.memory.write(symbol, value, at)
        elif isinstance(symbol.type, ArrayType):
            self._store_entries(symbol, chain, value, at)
        else:
            self._store_integer_bits(symbol, chain, value, at)

    def _store_bits(
        self,
        target: s.Name,
        symbol: BitRegister | Bits,
        chain: list[s.Index],
        value: Value,
        at: s.Node,
    ) -> None:
        if isinstance(symbol, BitRegister) and symbol.constant:
            fail(target, f"'{target.name}' is constant and cannot be assigned to")
        parts, single = self.bit_parts(target, symbol, chain)
        kind = BIT if single else ScalarType("bit", len(parts))
        given = value.type
        if not isinstance(given, ArrayType) and given.kind == "bit":
            if (given.width or 1) != len(parts):
                fail(at, f"{given.width or 1} bits are assigned to {len(parts)}")
            value = Value(kind, value.data)
        self.memory.write_bits(parts, cast(value, kind, at), at)

    def _store_entries(
        self, symbol: Variable, chain: list[s.Index], value: Value, at: s.Node
    ) -> None:
        assert isinstance(symbol.type, ArrayType)
        numbers = np.arange(int(np.prod(symbol.type.shape)), dtype=object)
        places = Value(ArrayType(INT, symbol.type.shape), numbers.reshape(symbol.type.shape))
        for i, link in enumerate(chain):
            if not isinstance(places.type, ArrayType):
                self._store_element_bits(symbol, places, chain[i:], value, at)
                return
            rank = len(places.type.shape)
            if len(link.items) > rank:
                head = s.Index(link.line, link.column, link.base, link.items[:rank])
                tail = s.Index(link.line, link.column, link.base, link.items[rank:])
                places = self.take(places, head.items, link, f"'{symbol.name}'")
                self._store_bits_of_each(symbol, places, [tail, *chain[i + 1 :]], value, at)
                return
            places = self.take(places, link.items, link, f"'{symbol.name}'")
        if isinstance(places.type, ArrayType):
            wanted = ArrayType(symbol.type.base, places.type.shape)
            value = cast(value, wanted, at)
            assert isinstance(value.data, np.ndarray)
            assert isinstance(places.data, np.ndarray)
            source = value.data.copy()
            for index in np.ndindex(*wanted.shape):
                flat = np.unravel_index(int(places.data[index]), symbol.type.shape)
                place = tuple(int(i) for i in flat)
                self.memory.write_element(symbol, place, source[index], at)
            return
        flat = np.unravel_index(known_int(places, at, "an index"), symbol.type.shape)
        data = cast(value, symbol.type.base, at).data
        self.memory.write_element(symbol, tuple(int(i) for i in flat), data, at)

    def _store_bits_of_each(
        self, symbol: Variable, places: Value, chain: list[s.Index], value: Value, at: s.Node
    ) -> None:
        """Assign to bits of one element, or of each element of a slice."""
        if not isinstance(places.type, ArrayType):
            self._store_element_bits(symbol, places, chain, value, at)
            return
        if not isinstance(value.type, ArrayType) or value.type.shape != places.type.shape:
            fail(at, f"an array of shape {places.type.shape} is needed, not a {value.type}")
        assert isinstance(places.data, np.ndarray)
        assert isinstance(value.data, np.ndarray)
        given = value.data.copy()
        for index in np.ndindex(*places.type.shape):
            place = Value(INT, places.data[index])
            entry = Value(value.type.base, given[index])
            self._store_element_bits(symbol, place, chain, entry, at)

    def _store_element_bits(
        self, symbol: Variable, place: Value, chain: list[s.Index], value: Value, at: s.Node
    ) -> None:
        assert isinstance(symbol.type, ArrayType)
        assert isinstance(symbol.data, np.ndarray)
        flat = np.unravel_index(known_int(place, at, "an index"), symbol.type.shape)
        index = tuple(int(i) for i in flat)
        element = Variable(symbol.name, symbol.type.base, symbol.data[index])
        self._store_integer_bits(element, chain, value, at)
        self.memory.write_element(symbol, index, element.data, at)

    def _store_integer_bits(
        self, symbol: Variable, chain: list[s.Index], value: Value, at: s.Node
    ) -> None:
        kind = symbol.type
        if (
            not isinstance(kind, ScalarType)
            or kind.kind not in ("int", "uint", "bit")
            or len(chain) != 1
            or len(chain[0].items) != 1
        ):
            fail(chain[0], f"'{symbol.name}' of type {kind} has no entries to assign to")
        width = kind.width or 64
        where = self.positions(chain[0].items[0], width, f"'{symbol.name}'")
        places = [where] if isinstance(where, int) else where
        wanted = BIT if isinstance(where, int) else ScalarType("bit", len(places))
        bits = cast(value, wanted, at)
        if is_runtime(bits.data) or is_runtime(symbol.data):
            if not kind.width:
                fail(
                    at,
                    f"a bit of '{symbol.name}' that is assigned at run time",
                    hint=f"give it a size: {kind.kind}[{width}] {symbol.name};",
                )
            kept = ((1 << width) - 1) & ~sum(1 << place for place in places)
            total: Expr = Binary("&", as_expr(Value(kind, symbol.data), at), Lit(kept))
            given_bits = as_expr(bits, at)
            for i, place in enumerate(places):
                bit = Binary("&", Binary(">>", given_bits, Lit(i)) if i else given_bits, Lit(1))
                total = Binary("|", total, Binary("<<", bit, Lit(place)) if place else bit)
            self.memory.write(symbol, cast(Value(UINT, total), kind, at), at)
            return
        number = known_int(Value(kind, symbol.data), at, "the variable")
        given = known_int(bits, at, "the value")
        for i, place in enumerate(places):
            number = number & ~(1 << place) | (given >> i & 1) << place
        self.memory.write(symbol, cast(Value(INT, number), kind, at), at)

    # ---------------------------------------------------------------- quantum statements

    def measured(self, node: s.Measure) -> Value:
        """Measure into bits of their own and return them."""
        qubits = self.qubits(node.operand)
        kind = BIT if qubits.single else ScalarType("bit", len(qubits.wires))
        register = BitRegister("m", kind, [None] * len(qubits.wires), written=True)
        self.emitter.count(len(qubits.wires), node)
        for wire, bit in zip(qubits.wires, self.memory.wires(register), strict=True):
            self.emitter.measure(wire, bit)
        return self.memory.read(register, node, "m")

    def measure_into(self, node: s.Measure, target: s.Expression | None, at: s.Node) -> None:
        """Execute ``target = measure q;``, or ``measure q;`` whose outcome is not kept."""
        if target is None:
            self.measured(node)
            return
        name, chain = unfold(target)
        assert isinstance(name, s.Name)
        symbol = self.memory.get(name)
        if not isinstance(symbol, (BitRegister, Bits)):
            if isinstance(symbol, Variable) and not symbol.constant:
                self.store(target, self.measured(node), at)
                return
            fail(target, f"'{name.name}' is not a bit register, a measurement cannot go there")
        if isinstance(symbol, BitRegister) and symbol.constant:
            fail(name, f"'{name.name}' is constant and cannot be assigned to")
        qubits = self.qubits(node.operand)
        parts, _ = self.bit_parts(name, symbol, chain)
        if len(qubits.wires) != len(parts):
            fail(at, f"{len(qubits.wires)} qubits are measured into {len(parts)} bits")
        self.emitter.count(len(parts), at)
        for wire, (register, i) in zip(qubits.wires, parts, strict=True):
            bit = self.memory.wires(register)[i]
            register.known[i] = None
            self.emitter.measure(wire, bit)

    def reset(self, node: s.Reset) -> None:
        """Execute ``reset``."""
        wires = self.qubits(node.operand).wires
        self.emitter.count(len(wires), node)
        for wire in wires:
            self.emitter.op("reset", (wire,))

    def barrier(self, node: s.Barrier) -> None:
        """Execute ``barrier``."""
        if node.operands:
            wires = [w for operand in node.operands for w in self.qubits(operand).wires]
            wires = list(dict.fromkeys(wires))
        else:
            wires = self.all_wires()
        if wires:
            self.emitter.count(1, node)
            self.emitter.op("barrier", tuple(wires))

    def all_wires(self) -> list[int]:
        """Return every qubit that a statement without operands acts on."""
        if self.in_gate:
            scope = self.memory.scopes[1]
            return [w for q in scope.values() if isinstance(q, Qubits) for w in q.wires]
        return list(range(self.emitter.num_qubits))

    def duration(self, node: s.Expression, what: str) -> Duration:
        """Return a duration."""
        value = self.evaluate(node)
        if not isinstance(value.data, Duration):
            fail(
                node,
                f"{what} is a duration, not of type {value.type}",
                hint="write a number with a unit, such as 100ns",
            )
        if value.data.value < 0:
            fail(node, f"{what} is negative")
        return value.data

    def delay(self, node: s.Delay) -> None:
        """Execute ``delay``."""
        duration = self.duration(node.duration, "a delay")
        if node.operands:
            wires = [w for operand in node.operands for w in self.qubits(operand).wires]
            if len(set(wires)) != len(wires):
                fail(node, "a delay is given the same qubit twice")
        else:
            wires = self.all_wires()
        if wires:
            self.emitter.block.append(Delay(duration, tuple(wires)))

    def box(self, node: s.Box) -> None:
        """Execute ``box``."""
        duration = None if node.duration is None else self.duration(node.duration, "a box")
        inline, self.open_box = self.open_box and duration is None, False
        outer, block = self.emitter.block, []  # type: ignore[var-annotated]
        self.emitter.block = block
        try:
            with self.memory.scope():
                self.run_block(node.body)
        finally:
            self.emitter.block = outer
        if inline:
            outer.extend(block)
        else:
            outer.append(RawBox(block, duration))

    def evaluate_statement(self, node: s.ExpressionStatement) -> None:
        """Execute an expression on its own: for what it does, not for its value."""
        if isinstance(node.value, s.Call):
            self._call(node.value)
        else:
            self.evaluate(node.value)

    def write_outputs(self, node: s.Node) -> None:
        """Put known values of ``output`` variables where the machine returns them from."""
        for name in self.outputs:
            symbol = self.memory.globals[name]
            if isinstance(symbol, Variable) and not is_runtime(symbol.data):
                symbol.pinned += 1
                self.memory.write(symbol, Value(symbol.type, symbol.data), node)
