"""The circuit: registers, parameters, affine forms, and a body of runs and control flow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError
from qcomp.ir import transform
from qcomp.ir.angle import Angle, wrap_int
from qcomp.ir.blocks import Block, Item, map_leaves, walk_items
from qcomp.ir.builder import Builder, _Pending
from qcomp.ir.classical import ClassicalVar
from qcomp.ir.forms import Forms
from qcomp.ir.layout import Layout
from qcomp.ir.run import Run
from qcomp.ir.stats import Stats, circuit_stats
from qcomp.registry import load

__all__ = ["Circuit", "RegisterDecl"]


@dataclass(frozen=True, slots=True)
class RegisterDecl:
    """A named register: ``size`` wires from number ``start`` on."""

    name: str
    size: int
    start: int


class Circuit(Builder):
    """A quantum circuit over arrays, with free parameters.

    Args:
        num_qubits: Qubits.
        num_clbits: Classical bits.
        params: Names of the free parameters, in the order in which values are given.
        name: The circuit's name.
        qregs: Quantum registers that cover all qubits; one register ``q`` when empty.
        cregs: Classical registers that cover all bits; one register ``c`` when empty.
        variables: Run-time classical variables.

    Attributes:
        global_phase: Phase of the whole circuit, kept through every transformation.
        notes: What a frontend wants the user to know, one sentence each.
        layout: Where the qubits of the circuit that was mapped stand on the machine; None for a
            circuit that was not mapped. Kept through every transformation.
    """

    def __init__(
        self,
        num_qubits: int,
        num_clbits: int = 0,
        params: Sequence[str] = (),
        name: str = "circuit",
        *,
        qregs: Sequence[RegisterDecl] = (),
        cregs: Sequence[RegisterDecl] = (),
        variables: Sequence[ClassicalVar] = (),
    ) -> None:
        if num_qubits < 0 or num_clbits < 0:
            raise UsageError("a circuit cannot have a negative number of wires")
        self.name = name
        self.num_qubits = num_qubits
        self.num_clbits = num_clbits
        self.params = tuple(params)
        self.qregs = tuple(qregs) or _default_register("q", num_qubits)
        self.cregs = tuple(cregs) or _default_register("c", num_clbits)
        self.variables = tuple(variables)
        self._forms = Forms()
        self.global_phase = Angle()
        self.notes: tuple[str, ...] = ()
        self.layout: Layout | None = None
        self._blocks: list[list[Item]] = [[]]
        self._pending = _Pending()

    # --- reading -------------------------------------------------------------------------

    @property
    def forms(self) -> Forms:
        """The affine forms that the runs' angles refer to."""
        self._flush()
        return self._forms

    @forms.setter
    def forms(self, forms: Forms) -> None:
        self._flush()
        self._forms = forms

    @property
    def body(self) -> Block:
        """The circuit's items in program order."""
        self._flush()
        return tuple(self._blocks[0])

    @property
    def is_straight_line(self) -> bool:
        """Whether the body is one run, without control flow, delays or boxes."""
        return all(isinstance(item, Run) for item in self.body)

    @property
    def run(self) -> Run:
        """The single run of a straight-line circuit.

        Raises:
            UsageError: If the circuit has control flow.
        """
        if not self.is_straight_line:
            raise UsageError(f"the circuit '{self.name}' has control flow, it is no single run")
        return Run.concat([item for item in self.body if isinstance(item, Run)])

    def runs(self) -> list[Run]:
        """Return every run of the tree in program order."""
        return [item for item in walk_items(self.body) if isinstance(item, Run)]

    @property
    def num_params(self) -> int:
        """Number of free parameters."""
        return len(self.params)

    def __len__(self) -> int:
        """Return the number of operations in all runs, loops counted once."""
        return sum(len(run) for run in self.runs())

    def __repr__(self) -> str:
        """Return the circuit's name and sizes."""
        return (
            f"Circuit({self.name!r}, qubits={self.num_qubits}, clbits={self.num_clbits}, "
            f"operations={len(self)}, params={self.num_params})"
        )

    def equals(self, other: Circuit) -> bool:
        """Whether both are the same circuit, entry by entry: names of the circuits apart."""
        return transform.same(self, other)

    def stats(self) -> Stats:
        """Return the counts that circuits are judged by."""
        return circuit_stats(self.num_qubits, self.num_clbits, self.body)

    def angles_for(self, params: ArrayLike, run: Run | None = None) -> NDArray[np.float64]:
        """Return the angles of a run's entries for a batch of parameter rows.

        Args:
            params: float64[B, P] or [P], in the order of ``params``.
            run: The run; the circuit's only one by default.

        Returns:
            float64[B, m], radians.

        Raises:
            UsageError: If the rows have another length than ``params``.
        """
        rows = self.parameter_rows(params)
        run = self.run if run is None else run
        constant = run.frac * (np.pi / (1 << 60)) + run.rem
        return constant[None, :] + self.forms.evaluate(run.form, rows)

    def parameter_rows(self, params: ArrayLike | None) -> NDArray[np.float64]:
        """Return parameters as float64[B, P], one row when none are given and none are needed.

        Raises:
            UsageError: If the rows have another length than ``params``.
        """
        if params is None:
            params = np.zeros((1, 0))
        rows = np.atleast_2d(np.asarray(params, dtype=np.float64))
        if rows.ndim != 2 or rows.shape[1] != self.num_params:
            raise UsageError(
                f"the circuit '{self.name}' has {self.num_params} parameters, "
                f"the values given have shape {np.shape(params)}",
                hint="parameters in order: " + (", ".join(self.params[:12]) or "none"),
            )
        return rows

    # --- changing ------------------------------------------------------------------------

    def copy(self, *, body: Block | None = None, forms: Forms | None = None) -> Circuit:
        """Return a circuit with the same declarations, and another body and forms if given."""
        new = Circuit(
            self.num_qubits,
            self.num_clbits,
            self.params,
            self.name,
            qregs=self.qregs,
            cregs=self.cregs,
            variables=self.variables,
        )
        new.global_phase = self.global_phase
        new.notes = self.notes
        new.layout = self.layout
        new._blocks = [list(self.body if body is None else body)]
        new.forms = self.forms if forms is None else forms
        return new

    def map_runs(self, function: Callable[[Run], Run]) -> Circuit:
        """Return the circuit with ``function`` applied to each run.

        The function must leave ``forms`` alone; a pass that makes new forms sets them on the copy
        by :meth:`copy`. The same object comes back when no run changed.
        """
        body = self.body
        new = map_leaves(body, function)
        return self if new is body else self.copy(body=new)

    def bind(self, values: Mapping[str, float] | Sequence[float]) -> Circuit:
        """Return the circuit with parameters replaced by numbers.

        Args:
            values: Name -> value for some or all parameters, or one value for each in order.

        Raises:
            UsageError: If a name is unknown or the number of values is wrong.
        """
        return transform.bind(self, values)

    def with_params(self, params: Sequence[str]) -> Circuit:
        """Return the circuit with its parameters in another order, or with more of them.

        Raises:
            UsageError: If one of the circuit's own parameters is missing.
        """
        column = {name: i for i, name in enumerate(params)}
        missing = [name for name in self.params if name not in column]
        if missing or len(column) != len(params):
            raise UsageError(f"the parameters {', '.join(missing) or 'named twice'} are missing")
        moved = np.array([column[name] for name in self.params], dtype=np.int32)
        new = self.copy(forms=self.forms.remap(moved) if len(moved) else self.forms)
        new.params = tuple(params)
        return new

    def inverse(self) -> Circuit:
        """Return the inverse circuit.

        Raises:
            UsageError: If the circuit measures, resets or has control flow.
        """
        return transform.inverse(self)

    def control(self, num_controls: int = 1) -> Circuit:
        """Return the circuit with controls, new qubits 0 .. num_controls-1, phase included.

        Raises:
            UsageError: If the circuit measures, resets or has control flow.
        """
        return transform.control(self, num_controls)

    def compose(
        self,
        other: Circuit,
        qubits: Sequence[int] | None = None,
        clbits: Sequence[int] | None = None,
    ) -> Circuit:
        """Return this circuit followed by another one.

        Args:
            other: The circuit to append; parameters of the same name are the same parameter.
            qubits: Where its qubits go; its own numbers by default.
            clbits: Where its classical bits go; its own numbers by default.

        Raises:
            UsageError: If the wires do not fit.
        """
        return transform.compose(self, other, qubits, clbits)

    def add_phase(self, units: int) -> None:
        """Add ``units * pi / 2**60`` to the global phase."""
        phase = self.global_phase
        self.global_phase = Angle(wrap_int(phase.frac + units), phase.rem, phase.terms)

    def measure_all(self) -> Circuit:
        """Measure every qubit at the end, qubit i into bit i of a new register ``meas``."""
        start = self.num_clbits
        taken = {register.name for register in (*self.qregs, *self.cregs)}
        name = next(n for n in ("meas", *(f"meas{i}" for i in range(len(taken) + 1)))
                    if n not in taken)  # fmt: skip
        self.cregs = (*self.cregs, RegisterDecl(name, self.num_qubits, start))
        self.num_clbits += self.num_qubits
        for q in range(self.num_qubits):
            self.measure(q, start + q)
        return self

    # --- doors to other layers -----------------------------------------------------------

    def draw(self, max_width: int = 120) -> str:
        """Return the circuit drawn as text; long circuits are cut, and it is said where."""
        return str(load("services", "draw")(self, max_width=max_width))

    def to_qasm3(self, profile: str = "full") -> str:
        """Return OpenQASM 3 text in a profile: ``full`` reads back to the identical circuit."""
        return str(load("services", "write-qasm")(self, profile))

    def emit_batch(self, rows: ArrayLike, profile: str = "full") -> list[str]:
        """Return OpenQASM text for each row of parameters; the text is made once, and filled in.

        Args:
            rows: float64[B, P] or [P], in the order of ``params``.
            profile: OpenQASM profile; one without parameters will do, as they are bound.
        """
        texts: list[str] = load("services", "write-qasm-batch")(self, rows, profile)
        return texts

    def to_qiskit(self) -> Any:  # noqa: ANN401  Qiskit is optional at type-check time
        """Return a ``qiskit.QuantumCircuit``."""
        return load("services", "to-qiskit")(self)

    @staticmethod
    def from_qiskit(circuit: object) -> Circuit:
        """Return the circuit of a ``qiskit.QuantumCircuit``."""
        result = load("services", "from-qiskit")(circuit)
        assert isinstance(result, Circuit)
        return result

    def to_pytket(self) -> Any:  # noqa: ANN401  pytket is optional
        """Return a ``pytket.Circuit``."""
        return load("services", "to-pytket")(self)

    @staticmethod
    def from_pytket(circuit: object) -> Circuit:
        """Return the circuit of a ``pytket.Circuit``."""
        result = load("services", "from-pytket")(circuit)
        assert isinstance(result, Circuit)
        return result

    def to_cirq(self) -> Any:  # noqa: ANN401  Cirq is optional
        """Return a ``cirq.Circuit`` on ``LineQubit`` 0 .. n-1."""
        return load("services", "to-cirq")(self)

    @staticmethod
    def from_cirq(circuit: object) -> Circuit:
        """Return the circuit of a ``cirq.Circuit``."""
        result = load("services", "from-cirq")(circuit)
        assert isinstance(result, Circuit)
        return result

    def to_pennylane(
        self, values: Mapping[str, Any] | Sequence[Any] = (), wires: Sequence[Any] | None = None
    ) -> Any:  # noqa: ANN401  PennyLane is optional
        """Return a PennyLane tape; ``values`` are the parameters', numbers or tensors."""
        return load("services", "to-pennylane")(self, values, wires)

    @staticmethod
    def from_pennylane(
        source: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Circuit:
        """Return the circuit of a PennyLane tape, or of a QNode called with arguments."""
        result = load("services", "from-pennylane")(source, args, kwargs)
        assert isinstance(result, Circuit)
        return result

    @staticmethod
    def from_qasm(text: str) -> Circuit:
        """Return the circuit of OpenQASM 2 or 3 text."""
        result = load("services", "read-qasm")(text)
        assert isinstance(result, Circuit)
        return result


def _default_register(name: str, size: int) -> tuple[RegisterDecl, ...]:
    return (RegisterDecl(name, size, 0),) if size else ()
