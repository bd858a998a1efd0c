"""The program: an ONNX graph in memory whose quantum regions are single nodes, plus circuits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from qcomp.errors import SourceError, UsageError
from qcomp.ir.observable import Observable
from qcomp.registry import load

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.circuit import Circuit

__all__ = [
    "CIRCUIT_OP",
    "DOMAIN",
    "Comparison",
    "Program",
    "Readout",
    "is_circuit_node",
    "readout_of",
]

DOMAIN = "ai.qcomp"
"""Domain of the quantum node."""

CIRCUIT_OP = "Circuit"
"""Op type of the quantum node."""

OPSET = 21
"""ONNX opset of graphs made here; the first with 4-bit integers."""

Kind = Literal["expval", "probs", "bits", "samples", "state"]
KINDS: tuple[Kind, ...] = ("expval", "probs", "bits", "samples", "state")


@dataclass(frozen=True, slots=True)
class Readout:
    """What a quantum node gives back for each row of parameters.

    Attributes:
        kind: ``expval``: float[.., observables], ``probs``: float[.., 2^n] over the measured bits
            or, without measurements, over all qubits; ``bits``: one sample, uint8[.., bits];
            ``samples``: uint8[.., shots, bits]; ``state``: complex amplitudes [.., 2^n].
        observables: For ``expval``.
        shots: Samples taken; 0 for the exact value.
        order: For ``probs``, ``bits``, ``samples`` and ``state``: position i of the output's bits
            (0 = least significant) is bit ``order[i]`` of the circuit; empty for its own order.
    """

    kind: Kind = "expval"
    observables: tuple[Observable, ...] = ()
    shots: int = 0
    order: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Check the fields against one another."""
        if self.kind not in KINDS:
            raise UsageError(f"'{self.kind}' is no readout", hint="one of " + ", ".join(KINDS))
        if (self.kind == "expval") != bool(self.observables):
            raise UsageError("a readout has observables exactly when its kind is 'expval'")
        if self.shots < 0 or (self.kind == "state" and self.shots):
            raise UsageError(f"a readout '{self.kind}' cannot take {self.shots} shots")


@dataclass(frozen=True, slots=True)
class Comparison:
    """How a part that was captured or lowered compared with its original.

    Attributes:
        what: The part.
        rows: Rows of inputs that both were given.
        errors: (dtype, error) pairs: where both computed in that dtype, the largest
            ``|captured - original| / max(1, |original|)``.
        against: What became of it.
    """

    what: str
    rows: int
    errors: tuple[tuple[str, float], ...]
    against: str = "its capture"


def is_circuit_node(node: ir.Node) -> bool:
    """Whether a node is a quantum region."""
    return bool(node.domain == DOMAIN and node.op_type == CIRCUIT_OP)


def readout_of(node: ir.Node) -> Readout:
    """Return the readout that a quantum node's attributes state.

    Raises:
        SourceError: If they state none.
    """
    attributes = node.attributes
    try:
        kind = attributes["kind"].as_string() if "kind" in attributes else "expval"
        texts = attributes["observables"].as_strings() if "observables" in attributes else ()
        shots = attributes["shots"].as_int() if "shots" in attributes else 0
        order = attributes["order"].as_ints() if "order" in attributes else ()
        return Readout(
            cast("Kind", kind),  # checked by Readout itself
            tuple(Observable.parse(text) for text in texts),
            shots,
            tuple(order),
        )
    except (UsageError, TypeError) as error:
        raise SourceError(
            f"the node '{node.name}' states no readout", where=f"node '{node.name}'", why=str(error)
        ) from error


class Program:
    """An ONNX graph and the circuits that its quantum nodes name.

    Args:
        model: The graph; quantum regions are nodes ``ai.qcomp::Circuit``.
        circuits: Name -> circuit.
        source: Where the program came from, for messages and reports.
    """

    def __init__(
        self, model: ir.Model, circuits: dict[str, Circuit] | None = None, source: str = ""
    ) -> None:
        self.model = model
        self.circuits: dict[str, Circuit] = dict(circuits or {})
        self.source = source
        self.notes: list[str] = []
        self.comparisons: list[Comparison] = []

    @staticmethod
    def of_circuit(circuit: Circuit, readout: Readout | None = None) -> Program:
        """Return the program of one circuit alone.

        Its graph has one input ``params`` float64[batch, P] where the circuit has parameters, and
        one output. The readout is the measured distribution unless one is given.
        """
        import onnx_ir as ir

        readout = readout or Readout("probs")
        inputs = []
        if circuit.params:
            inputs.append(
                ir.Value(
                    name="params",
                    type=ir.TensorType(ir.DataType.DOUBLE),
                    shape=ir.Shape(["batch", len(circuit.params)]),
                )
            )
        node = make_circuit_node(circuit.name, readout, inputs)
        graph = ir.Graph(
            inputs,
            node.outputs,
            nodes=[node],
            opset_imports={"": OPSET, DOMAIN: 1},
            name=circuit.name,
        )
        return Program(
            ir.Model(graph, ir_version=10, producer_name="qcomp"), {circuit.name: circuit}
        )

    def copy(self) -> Program:
        """Return an independent program; tensors and circuits are shared, as nothing edits them."""
        new = Program(self.model.clone(), self.circuits, self.source)
        new.notes = list(self.notes)
        new.comparisons = list(self.comparisons)
        return new

    def circuit_nodes(self) -> list[ir.Node]:
        """Return the quantum nodes of the main graph in its order."""
        return [node for node in self.model.graph if is_circuit_node(node)]

    def all_circuit_nodes(self) -> list[ir.Node]:
        """Return the quantum nodes of the main graph and of the subgraphs inside of it."""
        from onnx_ir.traversal import RecursiveGraphIterator

        return [n for n in RecursiveGraphIterator(self.model.graph) if is_circuit_node(n)]

    def reads_only_expectations(self, name: str) -> bool:
        """Whether a circuit may get more qubits without changing what its nodes give back.

        So it is when they read expectation values, and for a circuit alone, which has no graph
        behind it.
        """
        if self.is_circuit:
            return True
        nodes = [n for n in self.all_circuit_nodes() if n.attributes["circuit"].as_string() == name]
        return all(readout_of(node).kind == "expval" for node in nodes)

    def reads_only_bits(self, name: str) -> bool:
        """Whether every node of a circuit reads the bits that it measures, not its state."""
        from onnx_ir.traversal import RecursiveGraphIterator

        from qcomp.ir.gates import G

        if not any((run.code == G.MEASURE).any() for run in self.circuits[name].runs()):
            return False
        graphs: list[ir.Graph | ir.Function] = [self.model.graph, *self.model.functions.values()]
        nodes = [n for g in graphs for n in RecursiveGraphIterator(g) if is_circuit_node(n)]
        kinds = [readout_of(n).kind for n in nodes if n.attributes["circuit"].as_string() == name]
        return all(kind in ("probs", "bits", "samples") for kind in kinds)

    def circuit_of(self, node: ir.Node) -> Circuit:
        """Return the circuit that a quantum node names.

        Raises:
            SourceError: If the program has no circuit of that name.
        """
        name = node.attributes["circuit"].as_string() if "circuit" in node.attributes else ""
        if name not in self.circuits:
            raise SourceError(
                f"the node '{node.name}' names the circuit '{name}', which is not there",
                where=f"node '{node.name}'",
                hint="known circuits: " + (", ".join(self.circuits) or "none"),
            )
        return self.circuits[name]

    @property
    def is_circuit(self) -> bool:
        """Whether the program is one circuit and nothing else."""
        nodes = list(self.model.graph)
        return len(nodes) == 1 and is_circuit_node(nodes[0])

    @property
    def is_hybrid(self) -> bool:
        """Whether the program has quantum nodes beside classical ones."""
        return bool(self.circuits) and not self.is_circuit

    @property
    def only_circuit(self) -> Circuit:
        """The circuit of a program that is one circuit.

        Raises:
            UsageError: If the program is not one circuit.
        """
        if len(self.circuits) != 1:
            raise UsageError(f"the program has {len(self.circuits)} circuits, not one")
        return next(iter(self.circuits.values()))

    def save(self, path: str | Path) -> None:
        """Write the program as one ``.onnx`` file with the circuits as OpenQASM 3 inside."""
        load("services", "save-program")(self, Path(path))


def make_circuit_node(
    circuit: str,
    readout: Readout,
    inputs: list[ir.Value],
    name: str = "",
    output: ir.Value | None = None,
) -> ir.Node:
    """Return a quantum node.

    Args:
        circuit: Name of the circuit.
        readout: What it gives back.
        inputs: Float tensors; joined on the last axis they are the circuit's parameters in order.
        name: Name of the node; the circuit's by default.
        output: The value it writes; a new one by default.
    """
    import onnx_ir as ir

    attributes: list[ir.Attr] = [
        ir.AttrString("circuit", circuit),
        ir.AttrString("kind", readout.kind),
        ir.AttrInt64("shots", readout.shots),
    ]
    if readout.observables:
        attributes.append(ir.AttrStrings("observables", [str(o) for o in readout.observables]))
    if readout.order:
        attributes.append(ir.AttrInt64s("order", list(readout.order)))
    node = ir.Node(
        DOMAIN,
        CIRCUIT_OP,
        inputs,
        attributes,
        outputs=None if output is None else [output],
        name=name or circuit,
    )
    if output is None:
        bits = readout.kind in ("bits", "samples")
        node.outputs[0].name = f"{circuit}_{readout.kind}"
        kind = ir.DataType.COMPLEX128 if readout.kind == "state" else ir.DataType.DOUBLE
        node.outputs[0].type = ir.TensorType(ir.DataType.UINT8 if bits else kind)
    return node
