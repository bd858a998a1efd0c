"""bind-to-slots: the graph computes the angles of its circuits by one affine map."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.binding import SlottedCircuits
from qcomp.errors import PassError
from qcomp.ir.program import Program, make_circuit_node, readout_of
from qcomp.ir.slots import SlotForm, angle_difference, to_slots
from qcomp.passes.graph.bind_weights import input_widths
from qcomp.passes.graph.rewriting import Editor, constant_array, node_label, static_shape
from qcomp.passmanager import Context, GraphPass, Guarantee

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.circuit import Circuit

__all__ = ["BindToSlots"]

TOLERANCE = 1e-9
"""Radians between the angles before and after; beyond it the pass is at fault."""


@dataclass(frozen=True)
class BindToSlots(GraphPass):
    """Move the affine forms of a hybrid program's circuits into its graph.

    ::

        Circuit(x), angles F x + c  ->  a = MatMul(Cast<double>(x), F') + c',  Circuit'(a)

    From then on the parameters of a circuit are slots ``a0 .. aK``, which ONNX Runtime computes
    for the whole batch in float64; what runs the circuit only fills them in. Angles that are
    multiples of one another share a slot. Constant inputs of a node (weights that were not bound)
    go into the sum; where the map changes nothing, no operator is made. Inputs that have not the
    same leading axes are multiplied one by one and then added, which broadcasts them.

    Preconditions: it runs last, as passes over circuits cannot see through slots. A circuit alone
    keeps its own parameters, and so does one whose map has more than 2^22 entries, whose angles
    need no parameter, or whose inputs' widths are not known.

    Preserves: the outputs up to float64 rounding of the angles; a phase of the whole circuit that
    depends on parameters only where a node reads the state.

    Cost: linear in the circuits' gates, and parameters times slots.

    Source: the affine angles of ``docs/architecture.md``.
    """

    name: ClassVar[str] = "bind-to-slots"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    def run(self, program: Program, context: Context) -> bool:
        """Give every circuit slots; return whether any circuit had none.

        Raises:
            PassError: If the angles are not those from before.
        """
        if not program.is_hybrid:
            return False
        users: dict[str, list[ir.Node]] = {}
        for node in program.all_circuit_nodes():
            users.setdefault(node.attributes["circuit"].as_string(), []).append(node)
        known = context.get(SlottedCircuits)
        errors = dict(known.errors) if known else {}
        changed = False
        for name, nodes in users.items():
            circuit = program.circuits[name]
            shows_phase = any(readout_of(node).kind == "state" for node in nodes)
            form = to_slots(circuit, keep_phase=shows_phase)
            widths = [input_widths(program, node) for node in nodes]
            if form is None or None in widths:
                continue
            errors[name] = max(errors.get(name, 0.0), _checked(circuit, form, context))
            if _is_identity(form.matrix, form.offset) and form.circuit.params == circuit.params:
                continue
            for node, width in zip(nodes, widths, strict=True):
                assert width is not None
                assert node.graph is not None
                _feed(Editor(program.model, node.graph), node, form, width)
            program.circuits[name] = form.circuit
            changed = True
        context.put(SlottedCircuits(errors))
        return changed


def _checked(circuit: Circuit, form: SlotForm, context: Context) -> float:
    rows = context.rng("bind-to-slots").normal(size=(4, circuit.num_params))
    error = angle_difference(circuit, form, rows)
    if not error <= TOLERANCE:
        raise PassError(
            f"the slots of the circuit '{circuit.name}' do not give its angles",
            why=f"they differ by {error:.3g} radians",
            hint="this is a fault of the pass; report it",
        )
    return error


def _is_identity(matrix: NDArray[np.float64], offset: NDArray[np.float64]) -> bool:
    rows, columns = matrix.shape
    return rows == columns and np.array_equal(matrix, np.eye(rows)) and not offset.any()


def _feed(editor: Editor, node: ir.Node, form: SlotForm, widths: list[int]) -> None:
    """Put a node that takes slots, and what computes them, in the place of ``node``."""
    offset = form.offset.copy()
    data: list[tuple[ir.Value, NDArray[np.float64]]] = []
    start = 0
    for value, width in zip(node.inputs, widths, strict=True):
        assert value is not None
        part = form.matrix[start : start + width]
        start += width
        array = constant_array(value)
        if array is not None and array.ndim <= 1:
            offset += array.astype(np.float64).reshape(-1) @ part
        else:
            data.append((value, part))
    label = node_label(node)
    if len(data) == 1 and _is_identity(data[0][1], offset):
        slots = data[0][0]
    else:
        slots = _affine(editor, node, data, offset, label)
    old = node.outputs[0]
    name = node.attributes["circuit"].as_string()
    new = make_circuit_node(name, readout_of(node), [slots], name=node.name or name)
    output = new.outputs[0]
    output.name, output.type, output.shape = old.name, old.type, old.shape
    editor.graph.insert_before(node, new)
    editor.replace_value(old, output)
    editor.remove(node)


def _affine(
    editor: Editor,
    node: ir.Node,
    data: list[tuple[ir.Value, NDArray[np.float64]]],
    offset: NDArray[np.float64],
    label: str,
) -> ir.Value:
    """Return the value of ``sum of data @ part + offset``, float64[..., K]."""
    total: ir.Value | None = None
    for value, part in data:
        wide = _as_double(editor, value, node, label)
        matrix = editor.initializer(f"{label}_angles", np.ascontiguousarray(part))
        term = _typed(
            editor.node("MatMul", [wide, matrix], name=f"{label}_angles_MatMul", before=node),
            wide,
            part.shape[1],
        )
        total = term if total is None else _sum(editor, node, total, term, label)
    if total is None:
        return editor.initializer(f"{label}_angles_constant", offset)
    if not offset.any():
        return total
    return _sum(editor, node, total, editor.initializer(f"{label}_angles_offset", offset), label)


def _sum(editor: Editor, node: ir.Node, first: ir.Value, second: ir.Value, label: str) -> ir.Value:
    made = editor.node("Add", [first, second], name=f"{label}_angles_Add", before=node)
    output = made.outputs[0]
    output.type = first.type
    if second.is_initializer():
        output.shape = None if first.shape is None else first.shape.copy()
    return output


def _as_double(editor: Editor, value: ir.Value, node: ir.Node, label: str) -> ir.Value:
    import onnx_ir as ir

    if static_shape(value) == ():
        axes = editor.initializer(f"{label}_axes", np.array([0], np.int64))
        flat = editor.node("Unsqueeze", [value, axes], name=f"{label}_Unsqueeze", before=node)
        flat.outputs[0].type, flat.outputs[0].shape = value.type, ir.Shape([1])
        value = flat.outputs[0]
    if value.dtype == ir.DataType.DOUBLE:
        return value
    cast = editor.node(
        "Cast", [value], {"to": int(ir.DataType.DOUBLE)}, name=f"{label}_Cast", before=node
    )
    output = cast.outputs[0]
    output.type = ir.TensorType(ir.DataType.DOUBLE)
    output.shape = None if value.shape is None else value.shape.copy()
    return output


def _typed(node: ir.Node, wide: ir.Value, width: int) -> ir.Value:
    import onnx_ir as ir

    output = node.outputs[0]
    output.type = ir.TensorType(ir.DataType.DOUBLE)
    if wide.shape is not None and len(wide.shape):
        output.shape = ir.Shape([*wide.shape[:-1], width])
    return output
