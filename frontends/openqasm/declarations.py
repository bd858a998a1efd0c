"""Declarations: qubits, classical variables, inputs, aliases, gates, subroutines, includes."""

from __future__ import annotations

import numpy as np

from qcomp.errors import QcompError
from qcomp.frontends.openqasm import arithmetic
from qcomp.frontends.openqasm import syntax as s
from qcomp.frontends.openqasm.choices import Choices
from qcomp.frontends.openqasm.includes import Includes
from qcomp.frontends.openqasm.limits import MAX_BITS, MAX_QUBITS
from qcomp.frontends.openqasm.memory import (
    BitRegister,
    Bits,
    Gate,
    Qubits,
    Subroutine,
    Unsupported,
    Variable,
)
from qcomp.frontends.openqasm.parser import parse
from qcomp.frontends.openqasm.values import (
    INT,
    Affine,
    ArrayType,
    ScalarType,
    Type,
    Value,
    cast,
    default,
    fail,
    is_runtime,
    known_int,
)

__all__ = ["Declarations", "unfold"]

BUILT_IN_INCLUDES = ("stdgates.inc", "qelib1.inc", "hqslib1.inc")


class Declarations(Choices):
    """The interpreter's part that declares."""

    inputs: dict[str, float]
    outputs: list[str]
    files: Includes

    # ---------------------------------------------------------------- declarations

    def _global_only(self, node: s.Node, what: str) -> None:
        if len(self.memory.scopes) > 1 or self.memory.depth:
            fail(node, f"{what} can only be declared globally")

    def _free_name(self, name: str, node: s.Node) -> None:
        if name in arithmetic.CONSTANTS and name != "im" and not self.two:
            fail(node, f"'{name}' is a built-in constant and cannot be declared")

    def declare_qubits(self, node: s.QuantumDeclaration) -> None:
        """Execute ``qubit[n] q;``."""
        self._global_only(node, "qubits")
        self._free_name(node.name, node)
        size = 1 if node.size is None else self.size(node.size, "the size of a qubit register")
        if size > MAX_QUBITS:
            fail(node, f"{size} qubits, more than {MAX_QUBITS}")
        if node.name in self.memory.globals:
            fail(node, f"'{node.name}' is declared twice")
        wires = self.emitter.add_qubits(node.name, size, node)
        self.memory.declare(node.name, Qubits(wires, single=node.size is None), node)

    def declare(self, node: s.ClassicalDeclaration) -> None:
        """Execute the declaration of a classical variable or constant."""
        self._free_name(node.name, node)
        kind = self.type_of(node.type)
        if isinstance(kind, ArrayType):
            self._global_only(node, "arrays")
        value = None if node.value is None else self._initial(node.value, kind)
        if isinstance(kind, ScalarType) and kind.kind == "bit":
            self._declare_bits(node, kind, value)
            return
        if value is not None:
            value = cast(value, kind, node.value or node)
        if node.constant and value is not None and is_runtime(value.data):
            fail(
                node,
                f"the constant '{node.name}' is not known at compile time",
                why="it depends on a measurement",
            )
        variable = Variable(node.name, kind, default(kind), constant=node.constant)
        self.memory.declare(node.name, variable, node)
        if self.memory.keep and not node.constant:
            variable.pinned = 1
            if value is None and not isinstance(kind, ArrayType) and kind.kind != "duration":
                variable.data = self.memory.storage_of(variable, node)
                return
        if value is not None:
            if isinstance(value.data, np.ndarray) and not variable.pinned:
                variable.data = default(kind)
            self.memory.write(variable, value, node)

    def _declare_bits(
        self, node: s.ClassicalDeclaration, kind: ScalarType, value: Value | None
    ) -> None:
        size = kind.width or 1
        if size > MAX_BITS:
            fail(node, f"{size} classical bits, more than {MAX_BITS}")
        outermost = len(self.memory.scopes) == 1
        register = BitRegister(
            node.name, kind, [0] * size, constant=node.constant, written=value is None
        )
        if self.memory.looping and not node.constant:
            # What the last round of a run-time loop left in the bits must not be seen in the next.
            register.written = False
            self.memory.wires(register)
        register.foldable = value is not None or not outermost
        register.foldable &= not self.memory.keep
        self.memory.declare(node.name, register, node)
        if outermost and not node.constant:
            register.written = True
            self.memory.wires(register)
        if not register.foldable:
            register.known = [None] * size
        elif outermost and not node.constant:
            register.known = [0] * size
        if value is None:
            return
        value = cast(value, kind, node.value or node)
        parts = [(register, i) for i in range(size)]
        if node.constant or not register.bits:
            if is_runtime(value.data):
                register.written = True
                self.memory.write_bits(parts, value, node)
            else:
                number = known_int(value, node, "the value")
                register.known = [number >> i & 1 for i in range(size)]
                register.written = False
            return
        self.memory.write_bits(parts, value, node)

    def _initial(self, node: s.Expression, kind: Type) -> Value:
        if not isinstance(node, s.ArrayLiteral):
            return self.evaluate(node)
        if not isinstance(kind, ArrayType):
            fail(node, f"a list of values cannot initialise a {kind}")
        data = np.empty(kind.shape, dtype=object)
        self._fill(node, data, kind.base)
        return Value(kind, data)

    def _fill(self, node: s.ArrayLiteral, data: np.ndarray, base: ScalarType) -> None:
        if len(node.items) != data.shape[0]:
            fail(node, f"{len(node.items)} values for a dimension of {data.shape[0]}")
        for i, item in enumerate(node.items):
            if data.ndim > 1:
                if isinstance(item, s.ArrayLiteral):
                    self._fill(item, data[i], base)
                    continue
                value = self.evaluate(item)
                if value.type != ArrayType(base, data.shape[1:]):
                    fail(item, f"a row of {data.shape[1:]} is needed, not a {value.type}")
                data[i] = value.data
            else:
                data[i] = cast(self.evaluate(item), base, item).data

    def declare_io(self, node: s.IoDeclaration) -> None:
        """Execute ``input`` or ``output``."""
        self._global_only(node, f"{node.direction}s")
        self._free_name(node.name, node)
        kind = self.type_of(node.type)
        if node.direction == "output":
            self.outputs.append(node.name)
            self.declare(s.ClassicalDeclaration(node.line, node.column, node.type, node.name, None))
            return
        base = kind.base if isinstance(kind, ArrayType) else kind
        if node.name in self.inputs:
            self._bound_input(node, kind)
            return
        if base.kind not in ("float", "angle", "int", "uint"):
            self.declare_unsupported(
                node.name,
                f"an input of type {kind}, whose value must be given while reading: "
                f"read_text(text, inputs={{'{node.name}': ...}})",
                node,
            )
            return
        base = ScalarType(base.kind)
        if not isinstance(kind, ArrayType):
            variable = Variable(node.name, base, self._parameter(node.name, node), constant=True)
            self.memory.declare(node.name, variable, node)
            return
        data = np.empty(kind.shape, dtype=object)
        self.step(node, data.size)
        for index in np.ndindex(*kind.shape):
            data[index] = self._parameter("_".join((node.name, *map(str, index))), node)
        array = Variable(node.name, ArrayType(base, kind.shape), data, constant=True)
        self.memory.declare(node.name, array, node)

    def _parameter(self, name: str, node: s.Node) -> Affine:
        if name in self.emitter.names:
            fail(node, f"'{name}' is declared twice")
        self.emitter.names.add(name)
        self.emitter.params.append(name)
        return Affine(0.0, ((name, 1.0),))

    def _bound_input(self, node: s.IoDeclaration, kind: Type) -> None:
        given = np.asarray(self.inputs[node.name])
        shape = kind.shape if isinstance(kind, ArrayType) else ()
        if given.shape != shape:
            fail(
                node,
                f"the value given for the input '{node.name}' has shape {given.shape}, not {shape}",
            )
        base = kind.base if isinstance(kind, ArrayType) else kind
        data = np.empty(shape, dtype=object)
        for index in np.ndindex(*shape):
            number = given[index].item()
            source = INT if isinstance(number, int) else ScalarType("float")
            if not isinstance(number, (int, float)):
                fail(node, f"the value given for the input '{node.name}' is not a number")
            data[index] = cast(Value(source, number), base, node).data
        if isinstance(kind, ScalarType) and kind.kind == "bit":
            number = int(data[()])
            known: list[int | None] = [number >> i & 1 for i in range(kind.width or 1)]
            self.memory.declare(node.name, BitRegister(node.name, kind, known, constant=True), node)
            return
        value = data if shape else data[()]
        self.memory.declare(node.name, Variable(node.name, kind, value, constant=True), node)

    def declare_alias(self, node: s.Alias) -> None:
        """Execute ``let``."""
        self._free_name(node.name, node)
        parts = node.value.parts if isinstance(node.value, s.Concatenation) else [node.value]
        symbols = [self._alias_part(part) for part in parts]
        if all(isinstance(symbol, Qubits) for symbol in symbols):
            wires = tuple(w for q in symbols if isinstance(q, Qubits) for w in q.wires)
            if len(set(wires)) != len(wires):
                fail(node, f"the alias '{node.name}' holds a qubit twice")
            if len(symbols) > 1 and any(isinstance(q, Qubits) and q.single for q in symbols):
                fail(
                    node,
                    "'++' joins registers, not single qubits",
                    hint="take a slice of one qubit: q[0:0]",
                )
            single = len(symbols) == 1 and isinstance(symbols[0], Qubits) and symbols[0].single
            self.memory.declare(node.name, Qubits(wires, single=single), node)
        elif all(isinstance(symbol, Bits) for symbol in symbols):
            bits = tuple(p for b in symbols if isinstance(b, Bits) for p in b.parts)
            self.memory.declare(node.name, Bits(bits), node)
        else:
            fail(node, "an alias joins qubits, or bits, but not both")

    def _alias_part(self, node: s.Expression) -> Qubits | Bits:
        target, chain = unfold(node)
        if isinstance(target, s.HardwareQubit):
            return self.qubits(node)
        if not isinstance(target, s.Name):
            fail(node, "an alias stands for qubits or bits")
        symbol = self.memory.get(target)
        if isinstance(symbol, Qubits):
            return self.qubits(node)
        if isinstance(symbol, (BitRegister, Bits)):
            parts, _ = self.bit_parts(target, symbol, chain)
            return Bits(tuple(parts))
        fail(
            node,
            f"an alias of '{target.name}', which is neither qubits nor bits",
            hint="assign it to a variable of its type",
        )

    def define_gate(self, node: s.GateDefinition) -> None:
        """Execute a gate definition."""
        self._global_only(node, "gates")
        self.check_definition(node)
        if node.name in self.memory.globals:
            fail(node, f"'{node.name}' is declared twice")
        self.memory.declare(node.name, Gate(node, self.known_as(node)), node)

    def define_subroutine(self, node: s.SubroutineDefinition) -> None:
        """Execute a subroutine definition."""
        self._global_only(node, "subroutines")
        if node.name in arithmetic.FUNCTIONS:
            fail(node, f"'{node.name}' is a built-in function and cannot be declared")
        self.memory.declare(node.name, Subroutine(node), node)
        self.subroutine_bodies[node.name] = node.body

    def declare_unsupported(self, name: str, what: str, node: s.Node) -> None:
        """Declare a name that may stand in the source as long as nothing uses it."""
        self.memory.declare(name, Unsupported(what), node)

    # ---------------------------------------------------------------- includes

    def include(self, node: s.Include) -> None:
        """Execute ``include``; the standard libraries are built in."""
        self._global_only(node, "includes")
        if node.path in BUILT_IN_INCLUDES:
            if node.path in self.includes and not self.files.open_now:
                fail(node, f'"{node.path}" is included twice')
            self.includes.add(node.path)
            return
        with self.files.open(node) as text:
            try:
                program = parse(text)
                for statement in program.body:
                    self.execute(statement)
            except QcompError as error:
                raise self.files.inside(node, error) from None


def unfold(node: s.Expression) -> tuple[s.Expression, list[s.Index]]:
    """Split ``name[a][b]`` into the name and its indices in order."""
    chain: list[s.Index] = []
    while isinstance(node, s.Index):
        chain.append(node)
        node = node.base
    chain.reverse()
    return node, chain
