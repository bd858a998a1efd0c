"""The frontend ``qiskit``: a Qiskit ``QuantumCircuit`` into a circuit.

Gates of Qiskit's standard library that the gate table has are taken as they are, straight into
arrays; all others through their definitions. Parameters and control flow are kept.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import SourceError
from qcomp.frontends.names import identifier, unique
from qcomp.frontends.qiskit_expressions import Wires, condition_of, expression_of, variable_of
from qcomp.ir.angle import Angle, snap_array
from qcomp.ir.blocks import (
    Assign,
    Block,
    Box,
    Break,
    Continue,
    Delay,
    Duration,
    For,
    If,
    Item,
    Range,
    Switch,
    While,
)
from qcomp.ir.circuit import Circuit, RegisterDecl
from qcomp.ir.classical import ClassicalVar, Lit, VarRef
from qcomp.ir.gates import BY_NAME, G
from qcomp.ir.run import Run

if TYPE_CHECKING:
    from qiskit import QuantumCircuit

    from qcomp.ir.program import Program

__all__ = ["QiskitFrontend", "from_qiskit", "from_qiskit_with_slots"]

_MAX_DEPTH = 60
_MAX_UNROLL = 100_000
_HALF_PI = np.pi / 2
_SPELLED = {"global_phase": "gphase", "u3": "u", "u2": "u", "cu3": "cu"}
_PREFIX: dict[str, tuple[float, ...]] = {"u2": (_HALF_PI,)}
_SUFFIX: dict[str, tuple[float, ...]] = {"cu3": (0.0,)}
_UNITS = {"s": (1.0, "s"), "ms": (1.0, "ms"), "us": (1.0, "us"), "ns": (1.0, "ns"),
          "ps": (1e-3, "ns"), "dt": (1.0, "dt")}  # fmt: skip


def from_qiskit(circuit: object, name: str = "") -> Circuit:
    """Return the circuit of a ``qiskit.QuantumCircuit``.

    Elements of a parameter vector, ``theta[0]``, are named ``theta_0``. Parameters keep Qiskit's
    order. A for loop whose body uses the loop's parameter is unrolled.

    Args:
        circuit: The circuit; it is not changed.
        name: The new circuit's name; Qiskit's by default.

    Raises:
        SourceError: If it holds what no gate machine runs, all of it listed with counts, or an
            angle that is not affine in the parameters.
    """
    from qiskit import QuantumCircuit

    if not isinstance(circuit, QuantumCircuit):
        raise SourceError(f"a {type(circuit).__name__} is no qiskit.QuantumCircuit")
    return _Reader(circuit, name).read()


def from_qiskit_with_slots(circuit: QuantumCircuit) -> tuple[Circuit, tuple[Any, ...]]:
    """Return the circuit, and the expressions that are not affine, equal ones once.

    Each of those angles becomes a parameter of its own. The circuit's parameters are Qiskit's, in
    its order, and then one for each expression.

    Args:
        circuit: The circuit; it is not changed.

    Raises:
        SourceError: If it holds what no gate machine runs.
    """
    reader = _Reader(circuit, "", slots=True)
    result = reader.read()
    return result, tuple(reader.slots or ())


class QiskitFrontend:
    """Reads Qiskit circuits."""

    name = "qiskit"

    def accepts(self, source: object) -> bool:
        """Whether the source is a Qiskit circuit; Qiskit is not imported to find out."""
        return any(
            base.__name__ == "QuantumCircuit" and base.__module__.startswith("qiskit.")
            for base in type(source).__mro__
        )

    def read(self, source: QuantumCircuit, *, name: str = "") -> Program:
        """Return the program of a Qiskit circuit.

        Raises:
            SourceError: See :func:`from_qiskit`.
        """
        from qcomp.ir.program import Program

        circuit = from_qiskit(source, name)
        program = Program.of_circuit(circuit)
        program.notes.extend(circuit.notes)
        return program


class _Pending:
    """Operations on their way into a run."""

    def __init__(self) -> None:
        self.code: list[int] = []
        self.qubit: list[tuple[int, int, int]] = []
        self.extra: list[int] = []
        self.values: list[float] = []
        self.rows: dict[int, tuple[tuple[int, float], ...]] = {}


class _Reader:
    def __init__(self, source: QuantumCircuit, name: str, *, slots: bool = False) -> None:
        self.source = source
        self.slots: dict[Any, int] | None = {} if slots else None
        self.param_index = {p: i for i, p in enumerate(source.parameters)}
        params = unique([identifier(p.name) for p in source.parameters])
        qregs, quantum_whole = _registers(source.qubits, source.qregs, "q")
        cregs, classical_whole = _registers(source.clbits, source.cregs, "c")
        wires = Wires(
            {bit: i for i, bit in enumerate(source.qubits)},
            {bit: i for i, bit in enumerate(source.clbits)},
            {r.name: (r.start, r.size) for r in cregs} if classical_whole else {},
        )
        self.wires = wires
        self.unsupported: Counter[str] = Counter()
        self.variables: list[ClassicalVar] = []
        self.circuit = Circuit(
            len(source.qubits),
            len(source.clbits),
            params,
            name or identifier(source.name or "circuit"),
            qregs=qregs,
            cregs=cregs,
        )
        if not (quantum_whole and classical_whole):
            self.circuit.notes = (
                "registers that share or scatter their wires were replaced by one register",
            )
        self.pending = _Pending()
        self.blocks: list[list[Item]] = []

    def read(self) -> Circuit:
        """Return the circuit.

        Raises:
            SourceError: If anything in it cannot be kept.
        """
        if any(True for _ in self.source.iter_input_vars()):
            self.unsupported["a run-time input variable"] += 1
        with self._nested() as body:
            self._body(self.source, self.wires, 0)
        if self.unsupported:
            listed = ", ".join(f"{what} ({n})" for what, n in sorted(self.unsupported.items()))
            raise SourceError(
                f"the circuit '{self.source.name}' holds what cannot be kept: {listed}",
                hint="decompose or remove these operations first",
            )
        circuit = self.circuit
        circuit.variables = tuple(self.variables)
        for item in body[0]:
            circuit.append_item(item)
        circuit.global_phase += self._angle(self.source.global_phase)
        return circuit

    # --- blocks --------------------------------------------------------------------------

    def _nested(self) -> _Body:
        return _Body(self)

    def flush(self) -> None:
        """Turn what is pending into a run of the open block."""
        pending = self.pending
        if not pending.code:
            return
        frac, rem = snap_array(np.array(pending.values, dtype=np.float64))
        form = np.full(len(frac), -1, dtype=np.int32)
        if pending.rows:
            self.circuit.forms, rows = self.circuit.forms.append(pending.rows.values())
            form[list(pending.rows)] = rows
        self.blocks[-1].append(
            Run.of(
                np.array(pending.code, dtype=np.uint8),
                np.array(pending.qubit, dtype=np.int32),
                frac,
                rem,
                form,
                np.array(pending.extra, dtype=np.int32),
            )
        )
        self.pending = _Pending()

    def _push(self, item: Item) -> None:
        self.flush()
        self.blocks[-1].append(item)

    def _body(self, source: QuantumCircuit, wires: Wires, depth: int) -> None:
        """Read the instructions of a circuit whose wires are ``wires``."""
        if depth > _MAX_DEPTH:
            raise SourceError(f"definitions are nested more than {_MAX_DEPTH} levels deep")
        for var in source.iter_declared_vars():
            self.variables.append(variable_of(var))
        qubit_of = wires.qubits
        for item in source.data:
            name = item.name
            row = BY_NAME.get(_SPELLED.get(name, name))
            qubits = [qubit_of[q] for q in item.qubits]
            if row is not None and row.is_unitary and item.is_standard_gate():
                self._gate(name, row.code, qubits, item.params)
            elif name == "measure":
                self._add(G.MEASURE, (qubits[0], wires.clbits[item.clbits[0]], -1))
            elif name == "reset" and not item.clbits:
                self._add(G.RESET, (qubits[0], -1, -1))
            elif name == "barrier":
                self._wide(G.BARRIER, qubits)
            else:
                self._other(item, qubits, wires, depth)

    def _add(self, code: int, qubit: tuple[int, int, int]) -> None:
        self.pending.code.append(code)
        self.pending.qubit.append(qubit)

    def _wide(self, code: int, qubits: Sequence[int]) -> None:
        self._add(code, (len(self.pending.extra), len(qubits), -1))
        self.pending.extra.extend(qubits)

    def _gate(self, name: str, code: int, qubits: Sequence[int], params: Sequence[Any]) -> None:
        if code == G.MCX:
            self._wide(code, qubits)
            return
        first, second, third, *_ = (*qubits, -1, -1, -1)
        self._add(code, (first, second, third))
        if params or name in _PREFIX:
            values = self.pending.values
            for value in (*_PREFIX.get(name, ()), *params, *_SUFFIX.get(name, ())):
                if isinstance(value, (float, int)):
                    values.append(float(value))
                else:
                    angle, row = self._affine(value)
                    if row:
                        self.pending.rows[len(values)] = row
                    values.append(angle)

    def _affine(self, value: Any) -> tuple[float, tuple[tuple[int, float], ...]]:  # noqa: ANN401
        """Return (constant, (parameter, coefficient) pairs) of an angle of any of its types."""
        from qiskit.circuit import Parameter, ParameterExpression

        if not isinstance(value, ParameterExpression):
            return float(value), ()
        if isinstance(value, Parameter):
            return 0.0, ((self.param_index[value], 1.0),)
        row = []
        for parameter in value.parameters:
            slope = _slope(value, parameter)
            if slope is None and self.slots is not None:
                return 0.0, ((self._slot(value), 1.0),)
            if slope is None:
                raise SourceError(
                    f"the angle {value} is not affine in the parameter '{parameter.name}'",
                    where=f"the circuit '{self.source.name}'",
                    hint="make the expression a parameter of its own and compute it outside",
                )
            row.append((self.param_index[parameter], slope))
        constant = value.bind(dict.fromkeys(value.parameters, 0.0))
        return _real(constant.numeric(), value), tuple(row)

    def _slot(self, expression: Any) -> int:  # noqa: ANN401
        """Return the parameter that stands for an expression that is not affine."""
        assert self.slots is not None
        if expression not in self.slots:
            params = self.circuit.params
            self.slots[expression] = len(params)
            self.circuit.params = tuple(unique([*params, f"angle_{len(self.slots) - 1}"]))
        return self.slots[expression]

    def _angle(self, value: Any) -> Angle:  # noqa: ANN401
        constant, row = self._affine(value)
        params = self.circuit.params
        return Angle.of(constant) + Angle(0, 0.0, tuple(sorted((params[i], c) for i, c in row)))

    # --- everything but gates ------------------------------------------------------------

    def _other(self, item: Any, qubits: list[int], wires: Wires, depth: int) -> None:  # noqa: ANN401
        from qiskit.circuit import Delay as QiskitDelay
        from qiskit.circuit import Store
        from qiskit.circuit.library import MCXGate

        op = item.operation
        if item.is_control_flow() or item.name in ("break_loop", "continue_loop"):
            self._flow(op, item, wires, depth)
        elif isinstance(op, QiskitDelay):
            self._delay(op, qubits)
        elif isinstance(op, Store):
            target = expression_of(op.lvalue, wires)
            if not isinstance(target, VarRef):
                self.unsupported["an assignment to a measured bit"] += 1
                return
            self._push(Assign(target, expression_of(op.rvalue, wires)))
        elif (
            isinstance(op, MCXGate)
            and op.ctrl_state == 2**op.num_ctrl_qubits - 1
            and (len(qubits) == op.num_ctrl_qubits + 1)
        ):
            self._wide(G.MCX, qubits)
        else:
            definition = op.definition
            if definition is None:
                self.unsupported[f"'{item.name}', which has no definition"] += 1
                return
            inner = wires.of_body(definition, item)
            phase = definition.global_phase
            if not isinstance(phase, (float, int)) or phase:
                self._gate("global_phase", G.GPHASE, (), (phase,))
            self._body(definition, inner, depth + 1)

    def _delay(self, op: Any, qubits: list[int]) -> None:  # noqa: ANN401
        if op.unit not in _UNITS or not isinstance(op.duration, (float, int)):
            self.unsupported[f"a delay of {op.duration} {op.unit}"] += 1
            return
        scale, unit = _UNITS[op.unit]
        self._push(Delay(Duration(float(op.duration) * scale, unit), tuple(qubits)))  # type: ignore[arg-type]  # a unit of the table

    def _block(self, body: QuantumCircuit, item: Any, wires: Wires, depth: int) -> Block:  # noqa: ANN401
        self.flush()
        with self._nested() as block:
            phase = body.global_phase
            if not isinstance(phase, (float, int)) or phase:
                self._gate("global_phase", G.GPHASE, (), (phase,))
            self._body(body, wires.of_body(body, item), depth + 1)
        return block[0]

    def _flow(self, op: Any, item: Any, wires: Wires, depth: int) -> None:  # noqa: ANN401
        from qiskit.circuit import CASE_DEFAULT

        if op.name in ("break_loop", "continue_loop"):
            self._push(Break() if op.name == "break_loop" else Continue())
            return
        if op.name == "for_loop":
            self._for(op, item, wires, depth)
            return
        blocks = [self._block(body, item, wires, depth) for body in op.blocks]
        if op.name == "if_else":
            condition = condition_of(op.condition, wires)
            self._push(If(condition, blocks[0], blocks[1] if len(blocks) > 1 else ()))
        elif op.name == "while_loop":
            self._push(While(condition_of(op.condition, wires), blocks[0]))
        elif op.name == "switch_case":
            cases, default = [], None
            for (labels, _), block in zip(op.cases_specifier(), blocks, strict=True):
                numbers = tuple(int(v) for v in labels if v is not CASE_DEFAULT)
                if len(numbers) < len(labels):
                    default = block
                if numbers:
                    cases.append((numbers, block))
            self._push(Switch(expression_of(op.target, wires), tuple(cases), default))
        elif op.name == "box":
            duration = None
            if op.duration is not None:
                if op.unit not in _UNITS or not isinstance(op.duration, (float, int)):
                    self.unsupported[f"a box of {op.duration} {op.unit}"] += 1
                    return
                scale, unit = _UNITS[op.unit]
                duration = Duration(float(op.duration) * scale, unit)  # type: ignore[arg-type]  # a unit of the table
            self._push(Box(blocks[0], duration))
        else:
            self.unsupported[f"'{op.name}'"] += 1

    def _for(self, op: Any, item: Any, wires: Wires, depth: int) -> None:  # noqa: ANN401
        indices, parameter, body = op.params
        if parameter is not None and parameter in body.parameters:
            if len(indices) > _MAX_UNROLL:
                raise SourceError(f"a for loop of {len(indices)} rounds needs its parameter")
            if any(inner.name in ("break_loop", "continue_loop") for inner in _flat(body)):
                self.unsupported["break or continue in a loop whose angles use the index"] += 1
                return
            for value in indices:
                bound = body.assign_parameters({parameter: value})
                self._body(bound, wires.of_body(body, item), depth + 1)
            return
        values: Range | tuple[int, ...] = tuple(int(v) for v in indices)
        if isinstance(indices, range) and len(indices):
            values = Range(Lit(indices[0]), Lit(indices[-1]), Lit(indices.step))
        block = self._block(body, item, wires, depth)
        self._push(For(ClassicalVar(f"i{depth}" if depth else "i", "int", 32), values, block))


class _Body:
    """Collects what a reader emits as a block: ``with _Body(reader) as block: ...; block[0]``."""

    def __init__(self, reader: _Reader) -> None:
        self.reader = reader
        self.block: list[Block] = []

    def __enter__(self) -> list[Block]:
        self.reader.blocks.append([])
        return self.block

    def __exit__(self, *error: object) -> None:
        self.reader.flush()
        self.block.append(tuple(self.reader.blocks.pop()))


def _flat(body: QuantumCircuit) -> list[Any]:
    items = []
    for item in body.data:
        items.append(item)
        if item.is_control_flow() and item.name not in ("for_loop", "while_loop"):
            for inner in item.operation.blocks:
                items += _flat(inner)
    return items


def _slope(value: Any, parameter: Any) -> float | None:  # noqa: ANN401
    """Return the coefficient of a parameter in an expression that is affine in it, else None."""
    from qiskit.circuit import ParameterExpression

    try:
        slope = value.gradient(parameter)
    except RuntimeError:  # Qiskit's word for functions that have no derivative everywhere
        return None
    if isinstance(slope, ParameterExpression):
        if slope.parameters:
            return None
        slope = slope.numeric()
    return _real(slope, value)


def _real(value: Any, whole: object) -> float:  # noqa: ANN401
    number = complex(value)
    if number.imag or not np.isfinite(number.real):
        raise SourceError(f"the angle {whole} is not a real number")
    return number.real


def _registers(
    bits: Sequence[object], registers: Sequence[Any], name: str
) -> tuple[list[RegisterDecl], bool]:
    """Return (registers that cover the wires in order, whether they are the circuit's own)."""
    index: Mapping[object, int] = {bit: i for i, bit in enumerate(bits)}
    out: list[RegisterDecl] = []
    start = 0
    names = unique([identifier(register.name) for register in registers])
    order = sorted(
        zip(registers, names, strict=True),
        key=lambda pair: index[pair[0][0]] if len(pair[0]) else -1,
    )
    for register, text in order:
        if not len(register):
            continue
        if [index[bit] for bit in register] != list(range(start, start + len(register))):
            return ([RegisterDecl(name, len(bits), 0)] if bits else []), False
        out.append(RegisterDecl(text, len(register), start))
        start += len(register)
    if start != len(bits):
        if start == 0:
            return [RegisterDecl(name, len(bits), 0)], True
        return [RegisterDecl(name, len(bits), 0)], False
    return out, True
