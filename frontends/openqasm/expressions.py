"""Evaluation of expressions: literals, names, indices, casts, calls."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from qcomp.frontends.openqasm import arithmetic
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.emit import Emitter
from qcomp.frontends.openqasm.limits import (
    MAX_ARRAY_ELEMENTS,
    MAX_INTEGER_BITS,
    MAX_NESTING,
)
from qcomp.frontends.openqasm.memory import BitRegister, Bits, Memory, Qubits, Variable
from qcomp.frontends.openqasm.values import (
    BIT,
    BOOL,
    COMPLEX,
    DURATION,
    EXPRESSIONS,
    FLOAT,
    INT,
    UINT,
    ArrayData,
    ArrayType,
    RunTimeIndex,
    ScalarType,
    Type,
    Value,
    as_expr,
    cast,
    fail,
    is_known,
    is_runtime,
    known_int,
)
from qcomp.ir.blocks import Duration
from qcomp.ir.classical import Binary, Lit

__all__ = ["Evaluator"]


class Evaluator:
    """What the interpreter knows of expressions; statements are added by its subclasses."""

    emitter: Emitter
    memory: Memory
    notes: dict[str, None]
    steps: int
    max_steps: int
    two: bool

    def step(self, node: s.Node, count: int = 1) -> None:
        """Count work, and stop a program that would run too long at compile time."""
        self.steps += count
        if self.steps > self.max_steps:
            fail(
                node,
                f"the program runs more than {self.max_steps} steps at compile time",
                hint="shorten its loops, or make them depend on a measurement if they should run "
                "on the machine",
            )

    def call_subroutine(self, node: s.Call) -> Value:
        """Run a subroutine; the interpreter's part."""
        raise NotImplementedError

    def measured(self, node: s.Measure) -> Value:
        """Measure and return the bits; the interpreter's part."""
        raise NotImplementedError

    # ---------------------------------------------------------------- expressions

    def evaluate(self, node: s.Expression) -> Value:
        """Return the value of an expression.

        Raises:
            SourceError: If it has none.
        """
        self.step(node)
        match node:
            case s.Literal():
                return self._literal(node)
            case s.Name():
                return self._name(node)
            case s.BinaryOp():
                return self._chain(node)
            case s.UnaryOp():
                return arithmetic.unary(node.op, self.evaluate(node.operand), node)
            case s.Call():
                return self._call(node)
            case s.CastCall():
                target = self.type_of(node.type)
                if target == DURATION:
                    fail(node, "there is no cast to a duration")
                return cast(self.evaluate(node.operand), target, node)
            case s.Index():
                return self._index(node)
            case s.Measure():
                return self.measured(node)
            case s.Concatenation():
                return self._concatenation(node)
            case s.HardwareQubit():
                fail(
                    node, f"the qubit ${node.index} has no classical value", hint="measure it first"
                )
            case s.ArrayLiteral() | s.Set() | s.Range():
                fail(node, "a list of values cannot stand here")
            case s.QuantumCall():
                fail(
                    node,
                    f"'{node.name}' on qubits gives no value",
                    why="only a defcal could, and a gate machine takes no pulse-level code",
                )
            case _:
                fail(node, "the expression cannot be evaluated")

    def _literal(self, node: s.Literal) -> Value:
        value = node.value
        match node.kind:
            case "int":
                return Value(INT, int(value))
            case "float":
                return Value(FLOAT, float(value))
            case "bool":
                return Value(BOOL, bool(value))
            case "imaginary":
                return Value(COMPLEX, complex(0.0, float(value)))
            case "bitstring":
                text = str(value)
                if len(text) > MAX_INTEGER_BITS:
                    fail(node, f"a bit string of more than {MAX_INTEGER_BITS} bits")
                return Value(ScalarType("bit", len(text)), int(text, 2))
            case unit:
                return Value(DURATION, Duration(float(value), unit))  # type: ignore[arg-type]

    def _name(self, node: s.Name) -> Value:
        symbol = self.memory.find(node.name)
        if symbol is None:
            if node.name in arithmetic.CONSTANTS and not (self.two and node.name != "pi"):
                return arithmetic.CONSTANTS[node.name]
            symbol = self.memory.get(node)
        return self.memory.read(symbol, node, node.name)

    def _chain(self, node: s.BinaryOp) -> Value:
        """Evaluate a left-leaning chain without recursion: a + b + c + ..."""
        links = [node]
        while isinstance(links[-1].left, s.BinaryOp):
            links.append(links[-1].left)
        self.step(node, len(links))
        value = self.evaluate(links[-1].left)
        for link in reversed(links):
            if link.op in ("&&", "||") and is_known(value.data):
                if bool(value.data) is (link.op == "||"):
                    value = Value(BOOL, bool(value.data))
                    continue
            right = self.evaluate(link.right)
            if self.two and link.op == "/" and is_known(value.data):
                value = cast(value, FLOAT, link)
            value = self._operate(link, value, right)
        if len(links) > MAX_NESTING and is_runtime(value.data):
            fail(node, f"a run-time expression of more than {MAX_NESTING} operators in a row")
        return value

    def _operate(self, link: s.BinaryOp, left: Value, right: Value) -> Value:
        value = arithmetic.binary(link.op, left, right, link)
        if link.op == "/" and isinstance(left.data, int) and isinstance(right.data, int):
            if isinstance(value.data, int) and value.data * right.data != left.data:
                self.notes[
                    f"line {link.line}: {left.data}/{right.data} is an integer division, "
                    f"read as {value.data}"
                ] = None
        return value

    def _call(self, node: s.Call) -> Value:
        symbol = self.memory.find(node.name)
        if symbol is None:
            if node.name == "sizeof":
                return self._sizeof(node)
            values = [self.evaluate(argument) for argument in node.arguments]
            result = arithmetic.call(node.name, values, node)
            if result is None:
                fail(node, f"there is no function '{node.name}'", hint=self.memory.near(node.name))
            return result
        return self.call_subroutine(node)

    def _sizeof(self, node: s.Call) -> Value:
        if not 1 <= len(node.arguments) <= 2:
            fail(node, "'sizeof' takes an array and, if wanted, a dimension")
        target = node.arguments[0]
        if isinstance(target, s.Name):
            symbol = self.memory.get(target)
            shape = (
                (len(symbol.wires),)
                if isinstance(symbol, Qubits) and not symbol.single
                else self._shape(self.memory.read(symbol, target, target.name).type)
            )
        else:
            shape = self._shape(self.evaluate(target).type)
        dimension = 0
        if len(node.arguments) == 2:
            dimension = known_int(self.evaluate(node.arguments[1]), node, "the dimension")
        if not shape:
            fail(target, "'sizeof' needs an array or a register")
        if not 0 <= dimension < len(shape):
            fail(node, f"there is no dimension {dimension} of {len(shape)}")
        return Value(UINT, shape[dimension])

    @staticmethod
    def _shape(kind: Type) -> tuple[int, ...]:
        if isinstance(kind, ArrayType):
            return kind.shape
        return (kind.width,) if kind.kind == "bit" and kind.width else ()

    def _concatenation(self, node: s.Concatenation) -> Value:
        values = [self.evaluate(part) for part in node.parts]
        if all(isinstance(value.type, ArrayType) for value in values):
            bases = {value.scalar for value in values}
            try:
                arrays = [value.data for value in values if isinstance(value.data, np.ndarray)]
                data: ArrayData = np.concatenate(arrays)
            except ValueError:
                fail(node, "arrays of these shapes cannot be concatenated")
            if len(bases) != 1:
                fail(node, "arrays of different element types cannot be concatenated")
            return Value(ArrayType(bases.pop(), data.shape), data)
        total, width = Value(UINT, 0), 0
        for part, value in zip(node.parts, values, strict=True):
            kind = value.type
            if isinstance(kind, ArrayType) or kind.kind != "bit":
                fail(part, f"'++' joins registers and arrays, not {kind}")
            size = kind.width or 1
            if is_known(value.data) and is_known(total.data):
                total = Value(UINT, int(total.data) | int(value.data) << width)  # type: ignore[arg-type]
            else:
                shifted = Binary("<<", as_expr(value, part), Lit(width))
                total = Value(UINT, Binary("|", as_expr(total, part), shifted))
            width += size
        return Value(ScalarType("bit", width), total.data)

    # ---------------------------------------------------------------- types

    def type_of(self, node: s.Type) -> Type:
        """Return a written type with its sizes evaluated."""
        if isinstance(node, s.ArrayType):
            base = self.type_of(node.base)
            assert isinstance(base, ScalarType)
            shape = tuple(self.size(item, "a dimension of an array") for item in node.shape)
            if not shape or len(shape) > 7:
                fail(node, f"an array has 1 to 7 dimensions, not {len(shape)}")
            total = 1
            for extent in shape:
                total *= extent
            if total > MAX_ARRAY_ELEMENTS:
                fail(node, f"an array of {total} elements, more than {MAX_ARRAY_ELEMENTS}")
            self.step(node, total // 64)
            return ArrayType(base, shape)
        if node.size is None:
            return ScalarType(node.kind)
        width = self.size(node.size, f"the size of {node.kind}")
        if node.kind != "bit" and width > MAX_INTEGER_BITS:
            fail(node, f"{node.kind}[{width}] is wider than {MAX_INTEGER_BITS} bits")
        return ScalarType(node.kind, width)

    def size(self, node: s.Expression, what: str) -> int:
        """Return a size: a positive constant integer."""
        for inner in s.walk([s.ExpressionStatement(node.line, node.column, node)]):
            if isinstance(inner, s.Name):
                symbol = self.memory.find(inner.name)
                if isinstance(symbol, (Variable, BitRegister)) and not symbol.constant:
                    fail(
                        inner,
                        f"{what} must be constant, '{inner.name}' is a variable",
                        hint=f"declare it: const int {inner.name} = ...;",
                    )
        number = known_int(self.evaluate(node), node, what)
        if number < 1:
            fail(node, f"{what} must be positive, not {number}")
        return number

    # ---------------------------------------------------------------- indices

    def positions(self, item: s.Expression, extent: int, what: str) -> list[int] | int:
        """Return the positions that one index entry means: an integer, or a list for a slice.

        Raises:
            SourceError: If a position is out of range or not known now.
        """
        if isinstance(item, s.Set):
            numbers = [known_int(self.evaluate(part), part, "an index") for part in item.items]
            return [self._position(n, extent, item, what) for n in numbers]
        if isinstance(item, s.Range):
            return self._slice(item, extent, what)
        value = self.evaluate(item)
        if isinstance(value.type, ArrayType):
            assert isinstance(value.data, np.ndarray)
            entries = [Value(value.scalar, data) for data in value.data.ravel()]
            numbers = [known_int(entry, item, "an index") for entry in entries]
            return [self._position(number, extent, item, what) for number in numbers]
        if isinstance(value.data, EXPRESSIONS):
            raise RunTimeIndex(item, value.data, extent)
        return self._position(known_int(value, item, "an index"), extent, item, what)

    @staticmethod
    def _position(number: int, extent: int, node: s.Node, what: str) -> int:
        if not -extent <= number < extent:
            fail(
                node,
                f"index {number} is out of range: {what} has {extent} "
                + ("entry" if extent == 1 else "entries"),
            )
        return number % extent

    def _slice(self, item: s.Range, extent: int, what: str) -> list[int]:
        step = 1 if item.step is None else known_int(self.evaluate(item.step), item, "a step")
        if step == 0:
            fail(item, "a step of zero")
        first, last = (0, extent - 1) if step > 0 else (extent - 1, 0)
        if item.start is not None:
            first = known_int(self.evaluate(item.start), item.start, "an index")
            first = self._position(first, extent, item.start, what)
        if item.stop is not None:
            last = known_int(self.evaluate(item.stop), item.stop, "an index")
            last = self._position(last, extent, item.stop, what)
        positions = list(range(first, last + (1 if step > 0 else -1), step))
        self.step(item, len(positions) // 4)
        if not positions:
            fail(item, "the slice is empty")
        return positions

    def _index(self, node: s.Index) -> Value:
        """Read ``base[items]``."""
        target: s.Expression = node
        chain: list[s.Index] = []
        while isinstance(target, s.Index):
            chain.append(target)
            target = target.base
        chain.reverse()
        if isinstance(target, s.Name):
            symbol = self.memory.get(target)
            if isinstance(symbol, (BitRegister, Bits)):
                return self._indexed_bits(target, symbol, chain)
            value = self.memory.read(symbol, target, target.name)
            name = f"'{target.name}'"
        else:
            value, name = self.evaluate(target), "the value"
        for link in chain:
            value = self.take(value, link.items, link, name)
        return value

    def _indexed_bits(
        self, target: s.Name, symbol: BitRegister | Bits, chain: list[s.Index]
    ) -> Value:
        if len(chain) == 1 and len(chain[0].items) == 1:
            item = chain[0].items[0]
            if not isinstance(item, (s.Set, s.Range)):
                value = self.evaluate(item)
                if is_runtime(value.data):
                    whole = self.memory.read(symbol, target, target.name)
                    return self._bit_at(whole, value, item)
        parts, single = self.bit_parts(target, symbol, chain)
        kind = BIT if single else ScalarType("bit", len(parts))
        return Value(kind, self.memory.read_bits(parts))

    @staticmethod
    def _bit_at(whole: Value, index: Value, node: s.Node) -> Value:
        shifted = Binary(">>", as_expr(whole, node), as_expr(index, node))
        return Value(BIT, Binary("&", shifted, Lit(1)))

    def bit_parts(
        self, target: s.Name, symbol: BitRegister | Bits, chain: list[s.Index]
    ) -> tuple[list[tuple[BitRegister, int]], bool]:
        """Return the bits that a name with indices means, and whether it is a single bit."""
        if isinstance(symbol, Bits):
            parts, single = list(symbol.parts), False
        else:
            parts = [(symbol, i) for i in range(symbol.size)]
            single = not symbol.type.width
        for link in chain:
            if (single and link is not chain[0]) or len(link.items) != 1:
                fail(link, f"'{target.name}' has not that many dimensions")
            where = self.positions(link.items[0], len(parts), f"'{target.name}'")
            single = isinstance(where, int)
            parts = [parts[where]] if isinstance(where, int) else [parts[i] for i in where]
        return parts, single

    def take(self, value: Value, items: Iterable[s.Expression], node: s.Node, name: str) -> Value:
        """Return ``value[items]``: entries of an array, or bits of an integer."""
        entries = list(items)
        if not isinstance(value.type, ArrayType):
            return self._bits_of(value, entries, node, name)
        shape = value.type.shape
        if len(entries) > len(shape):
            rest = entries[len(shape) :]
            entries = entries[: len(shape)]
        else:
            rest = []
        where = [self.positions(e, n, name) for e, n in zip(entries, shape, strict=False)]
        assert isinstance(value.data, np.ndarray)
        data = value.data
        for axis in range(len(where) - 1, -1, -1):
            data = _take_axis(data, where[axis], axis)
        if not isinstance(data, np.ndarray):
            element = Value(value.type.base, data)
            return self._bits_of(element, rest, node, name) if rest else element
        if rest:
            bits = [
                self._bits_of(Value(value.type.base, entry), rest, node, name)
                for entry in data.ravel()
            ]
            out = np.empty(len(bits), dtype=object)
            out[:] = [entry.data for entry in bits]
            return Value(ArrayType(bits[0].scalar, data.shape), out.reshape(data.shape))
        return Value(ArrayType(value.type.base, data.shape), data)

    def _bits_of(self, value: Value, entries: list[s.Expression], node: s.Node, name: str) -> Value:
        kind = value.scalar
        if kind.kind not in ("int", "uint", "bit", "angle") or len(entries) != 1 or kind == BIT:
            fail(node, f"{name} of type {value.type} has no entries to index")
        if not kind.width:
            if kind.kind == "angle":
                fail(node, "only a sized angle has bits")
            kind = ScalarType(kind.kind, 64)
        if kind.kind == "angle":
            value = cast(value, ScalarType("bit", kind.width), node)
        if not isinstance(entries[0], (s.Set, s.Range)):
            index = self.evaluate(entries[0])
            if is_runtime(index.data):
                return self._bit_at(value, index, entries[0])
            where: list[int] | int = self._position(
                known_int(index, entries[0], "an index"), kind.width, entries[0], name
            )
        else:
            where = self.positions(entries[0], kind.width, name)
        if isinstance(where, int):
            if is_runtime(value.data):
                return self._bit_at(value, Value(INT, where), node)
            return Value(BIT, known_int(value, node, name) >> where & 1)
        if is_runtime(value.data):
            total: Value = Value(UINT, 0)
            for i, position in enumerate(where):
                bit = self._bit_at(value, Value(INT, position), node)
                shifted = Binary("<<", as_expr(bit, node), Lit(i))
                total = Value(UINT, Binary("|", as_expr(total, node), shifted) if i else shifted)
            return Value(ScalarType("bit", len(where)), total.data)
        number = known_int(value, node, name)
        picked = sum((number >> p & 1) << i for i, p in enumerate(where))
        return Value(ScalarType("bit", len(where)), picked)


def _take_axis(data: np.ndarray, where: list[int] | int, axis: int) -> np.ndarray:
    if isinstance(where, int):
        picked: np.ndarray = data[(slice(None),) * axis + (where,)]
        return picked
    step = where[1] - where[0] if len(where) > 1 else 1
    regular = step and where == list(range(where[0], where[-1] + (1 if step > 0 else -1), step))
    if regular:
        stop: int | None = where[-1] + (1 if step > 0 else -1)
        if stop is not None and stop < 0:
            stop = None
        view: np.ndarray = data[(slice(None),) * axis + (slice(where[0], stop, step),)]
        return view
    chosen: np.ndarray = np.take(data, where, axis=axis)
    return chosen
