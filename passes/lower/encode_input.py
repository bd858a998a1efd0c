"""encode-input: an input of a circuit becomes its state's data, by an encoding of choice."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from qcomp.constructions.encodings import ENCODINGS, Encoding, encoding, in_front
from qcomp.errors import PassError, QcompError, UsageError, suggest
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program, make_circuit_node, readout_of
from qcomp.passes.graph.bind_weights import input_widths
from qcomp.passes.graph.rewriting import Editor, node_label
from qcomp.passes.lower.written_ops import WRITTEN, Place
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EncodeInput"]

_OPTIONS = ("axis", "scale", "bits", "layers", "entanglement", "time", "steps", "order")


@dataclass(frozen=True)
class EncodeInput(GraphPass):
    """Put the circuit of a data encoding in front of a circuit, its angles made of an input.

    ::

        V(w) |0>  ->  V(w) U(x) |0>,   U(x) |0> the encoding's state

    The input is a tensor [..., D] that a circuit node reads and no gate uses yet. For a circuit
    alone it is the parameters ``x0``, ``x1`` ... of the input ``x``, or new ones. Angles that are
    affine in the data stay parameters of the circuit; others (``zz``, ``amplitude`` ...) are
    computed by the graph in float64 for the whole batch, so one compile serves all rows.

    Preconditions: no gate uses the input's parameters yet. Encodings with trained weights are taken
    for circuits alone, whose parameters these become, where the graph does not read them;
    ``qcomp.nn.QuantumLayer(..., encoding=...)`` trains them.

    Preserves: the encoding's state to 1e-9; what the circuit does after it.

    Cost: said as a note: qubits, two-qubit gates, depth and measurements. Closed forms:
    ``docs/lowering.md``, "Encodings".

    Source: each encoding's docstring in :mod:`qcomp.constructions.encodings`.

    Attributes:
        input: Name of the tensor or of the parameters; "" for none.
        encoding: Name of the encoding.
        features: Features of a circuit alone; 0 for as many as there are parameters, or as fit.
        axis: Of ``angle``.
        scale: Radians for a feature of 1; 0 for the encoding's own.
        bits: Bits of a feature; 0 for the encoding's own.
        layers: Repeats; 0 for the encoding's own.
        entanglement: full, linear or circular; "" for the encoding's own.
        time: Of ``hamiltonian``; 0 for its own.
        steps: Trotter steps; 0 for its own.
        order: Of the Trotter product; 0 for its own.
    """

    name: ClassVar[str] = "encode-input"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    input: str = ""
    encoding: str = "angle"
    features: int = 0
    axis: str = ""
    scale: float = 0.0
    bits: int = 0
    layers: int = 0
    entanglement: str = ""
    time: float = 0.0
    steps: int = 0
    order: int = 0

    def run(self, program: Program, context: Context) -> bool:
        """Encode the input; return whether one is named.

        Raises:
            UsageError: If there is no such input, encoding or option, or a size does not fit.
            PassError: If gates use the input already, or its width is not known.
        """
        if not self.input:
            return False
        found = self._alone(program) if program.is_circuit else self._node(program)
        context.warn(f"the input '{self.input}' by {found.cost}, no measurement of its own")
        if found.note:
            context.warn(found.note)
        return True

    def _encoding(self, circuit: Circuit, features: int) -> Encoding:
        options = {key: getattr(self, key) for key in _OPTIONS if getattr(self, key)}
        try:
            return encoding(self.encoding, circuit.num_qubits, features, **options)
        except UsageError as fault:
            able = [name for name in ENCODINGS if _takes(name, circuit.num_qubits, features)]
            if self.encoding in ENCODINGS and self.encoding not in able and able:
                hint = f"encodings that take {features} features here: {', '.join(able)}"
                raise UsageError(fault.what, where=f"input '{self.input}'", hint=hint) from None
            raise

    def _alone(self, program: Program) -> Encoding:
        circuit = program.only_circuit
        pattern = re.compile(rf"{re.escape(self.input)}(\[\d+\]|_?\d+)")
        old = [name for name in circuit.params if pattern.fullmatch(name)]
        found = self._encoding(circuit, self.features or len(old))
        new, first = _in_front(found, circuit, old, self.input, 0)
        (node,) = program.circuit_nodes()
        readout = readout_of(node)
        made = Program.of_circuit(new, readout)
        program.circuits[circuit.name] = new
        if found.slot_map is None:
            program.model = made.model
            return found
        if found.weights:
            raise _trained(found)
        import onnx_ir as ir

        double = ir.TensorType(ir.DataType.DOUBLE)
        data = ir.Value(
            name=self.input, type=double, shape=ir.Shape(["batch", len(found.features)])
        )
        rest = len(new.params) - first
        graph = made.model.graph
        (target,) = made.circuit_nodes()
        graph.inputs.clear()
        graph.inputs.append(data)
        values: list[ir.Value | None] = [data]
        if rest:
            weights = ir.Value(name="params", type=double, shape=ir.Shape(["batch", rest]))
            graph.inputs.append(weights)
            values.append(weights)
        program.model = made.model
        _rewire(program, target, 0, found, values, circuit.name)
        return found

    def _node(self, program: Program) -> Encoding:
        nodes = program.circuit_nodes()
        names = {
            value.name or "": (node, i)
            for node in nodes
            for i, value in enumerate(node.inputs)
            if value is not None
        }
        if self.input not in names:
            raise UsageError(
                f"no circuit reads an input '{self.input}'", hint=suggest(self.input, names)
            )
        node, position = names[self.input]
        circuit = program.circuit_of(node)
        widths = input_widths(program, node)
        if widths is None:
            raise PassError(
                f"the width of '{self.input}' is not known",
                where=f"node '{node_label(node)}'",
                hint="give it a fixed last axis",
            )
        start = sum(widths[:position])
        old = list(circuit.params[start : start + widths[position]])
        found = self._encoding(circuit, len(old))
        if found.weights:
            raise _trained(found)
        new, _ = _in_front(found, circuit, old, self.input, start)
        users = [n for n in program.all_circuit_nodes() if program.circuit_of(n) is circuit]
        name = circuit.name
        if len(users) > 1:
            name = f"{circuit.name}_{self.encoding.replace('-', '_')}"
            while name in program.circuits:
                name += "_2"
            new.name = name
        program.circuits[name] = new
        _rewire(program, node, position, found, list(node.inputs), name)
        return found


def _takes(name: str, num_qubits: int, features: int) -> bool:
    try:
        encoding(name, num_qubits, features)
    except QcompError:
        return False
    return True


def _trained(found: Encoding) -> PassError:
    return PassError(
        f"the encoding '{found.method}' has {len(found.weights)} trained weights, a graph has none "
        "for it",
        hint=f"train it: qcomp.nn.QuantumLayer(circuit, encoding='{found.method}')",
    )


def _in_front(
    found: Encoding, circuit: Circuit, old: list[str], label: str, start: int
) -> tuple[Circuit, int]:
    """Return the circuit behind an encoding, and how many parameters the encoding has.

    Its parameters stand in the places of the old ones, from ``start`` on.

    Raises:
        PassError: If a gate uses an old one.
    """
    columns = {i for i, name in enumerate(circuit.params) if name in set(old)}
    if used := sorted(columns & set(circuit.forms.col.tolist())):
        raise PassError(
            f"gates of '{circuit.name}' use {circuit.params[used[0]]!r} already",
            why="the input has an encoding: a second one would stand in front of it",
            hint="leave the data gates out of the model's circuit, keep its parameters declared",
        )
    rest = circuit.bind(dict.fromkeys(old, 0.0)) if old else circuit
    new, names = in_front(found, rest, label, start)
    new.name, new.notes = circuit.name, circuit.notes
    return new, len(names)


def _rewire(
    program: Program,
    node: ir.Node,
    position: int,
    found: Encoding,
    values: list[ir.Value | None],
    circuit: str,
) -> None:
    """Let a node read an encoding's slots in the place of an input."""
    assert node.graph is not None
    place = Place(Editor(program.model, node.graph), node, f"{node_label(node)}/encode")
    data = values[position]
    assert data is not None
    if found.slot_map is not None:
        slots = found.slot_map.compute(WRITTEN, place.double(data), None)
        values[position] = slots.value
    inputs = [value for value in values if value is not None]
    new = make_circuit_node(circuit, readout_of(node), inputs, name=node.name or circuit)
    old = node.outputs[0]
    new.outputs[0].name, new.outputs[0].type, new.outputs[0].shape = old.name, old.type, old.shape
    graph = place.editor.graph
    graph.insert_before(node, new)
    old.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
