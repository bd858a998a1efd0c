"""Arrays as programs: the nodes of ``ai.qcomp`` that stand for a unitary, a state or an image.

``Unitary``: complex128[2^n, 2^n]; ``State``: complex128[2^n] of norm 1; ``Image``: float64[h, w];
``Hamiltonian``: string[1], an observable's text.
The array is a constant, the node's only input; its output is what the circuit that it becomes gives
back (attribute ``kind``, see :class:`~qcomp.ir.program.Readout`; ``probs`` by default). The passes
of ``LOWERING`` put an ``ai.qcomp::Circuit`` node in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import SourceError
from qcomp.ir.program import DOMAIN, OPSET, Program, Readout, make_circuit_node, readout_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.ir.circuit import Circuit

__all__ = [
    "LOWERING",
    "MAX_QUBITS",
    "array_nodes",
    "array_of",
    "array_program",
    "faults",
    "is_array_node",
    "lowering_options",
    "put_circuit",
]

LOWERING: Mapping[str, str] = MappingProxyType(
    {
        "Unitary": "synthesize-unitary",
        "State": "prepare-state",
        "Image": "encode-image",
        "Hamiltonian": "evolve",
    }
)
"""Op type of a node -> the pass that makes a circuit of it."""

MAX_QUBITS: Mapping[str, int] = MappingProxyType({"Unitary": 12, "State": 24, "Image": 24})
"""Most qubits that an array may need: gates grow with its entries."""

_NORM = 1e-6
"""A state's norm may differ from 1 by so much, single precision included."""


def is_array_node(node: ir.Node) -> bool:
    """Whether a node stands for an array that is to become a circuit."""
    return bool(node.domain == DOMAIN and node.op_type in LOWERING)


def array_nodes(program: Program, op: str = "") -> list[ir.Node]:
    """Return the array nodes of the main graph, of one op type if one is given."""
    return [
        node
        for node in program.model.graph
        if is_array_node(node) and (not op or node.op_type == op)
    ]


def array_program(
    op: str,
    array: NDArray[np.generic],
    options: Mapping[str, object] | None = None,
    name: str = "",
) -> Program:
    """Return the program of one array.

    Args:
        op: ``Unitary``, ``State`` or ``Image``.
        array: The array, of the shape that the node takes.
        options: Options of the pass that lowers it by default, name -> value.
        name: Name of the circuit that it becomes; the op type's by default.

    Raises:
        SourceError: If the array is none that the node takes.
    """
    import onnx_ir as ir

    label = name or op.lower()
    for fault, hint in faults(op, array):
        raise SourceError(fault, hint=hint)
    values = np.ascontiguousarray(array, dtype=np.float64 if op == "Image" else np.complex128)
    constant = ir.Value(name="array", const_value=ir.tensor(values, name="array"))
    constant.type = ir.TensorType(ir.DataType.DOUBLE if op == "Image" else ir.DataType.COMPLEX128)
    constant.shape = ir.Shape(values.shape)
    attributes = []
    if options:
        texts = [f"{key}={value}" for key, value in options.items()]
        attributes.append(ir.AttrStrings("options", texts))
    node = ir.Node(DOMAIN, op, [constant], attributes, name=label)
    node.outputs[0].name = f"{label}_probs"
    node.outputs[0].type = ir.TensorType(ir.DataType.DOUBLE)
    graph = ir.Graph(
        [],
        node.outputs,
        nodes=[node],
        initializers=[constant],
        opset_imports={"": OPSET, DOMAIN: 1},
        name=label,
    )
    return Program(ir.Model(graph, ir_version=10, producer_name="qcomp"))


def lowering_options(node: ir.Node) -> dict[str, str]:
    """Return the options of the pass that the node asks for, name -> text."""
    if "options" not in node.attributes:
        return {}
    texts = node.attributes["options"].as_strings()
    return {key: value for key, _, value in (text.partition("=") for text in texts)}


def array_of(node: ir.Node) -> NDArray[Any]:
    """Return the array of a node, checked: complex128, or float64 of an image.

    Raises:
        SourceError: If the node has no constant input, or one that it does not take.
    """
    from onnx_ir.convenience import get_const_tensor

    where = f"node '{node.name}' ({DOMAIN}::{node.op_type})"
    value = node.inputs[0] if len(node.inputs) == 1 else None
    tensor = None if value is None or value.is_graph_input() else get_const_tensor(value)
    if tensor is None:
        raise SourceError(
            f"a node '{node.op_type}' takes one constant array", where=where,
            hint="make its input an initializer; a circuit is made of numbers that are known",
        )  # fmt: skip
    found = np.asarray(tensor.numpy())
    if found.dtype.kind not in "biufc":
        raise SourceError(f"an array of {found.dtype} has no numbers", where=where)
    for fault, hint in faults(node.op_type, found):
        raise SourceError(fault, where=where, hint=hint)
    return found.astype(np.float64 if node.op_type == "Image" else np.complex128)


_COMPLEX_IMAGE = (
    "an image of complex numbers has no brightness",
    "give its absolute values, or read it as a state",
)


def faults(op: str, array: NDArray[Any]) -> list[tuple[str, str]]:
    """Return (fault, hint) of each thing that makes an array one that the node does not take.

    1. All entries are finite numbers.
    2. A unitary is a square matrix of 2^n rows, a state a vector of 2^n amplitudes, an image a
       matrix of real numbers; none is empty or needs more than ``MAX_QUBITS``.
    3. A state has norm 1. (Whether a matrix is unitary, ``synthesize-unitary`` says.)

    Args:
        op: Op type of the node.
        array: Its array.
    """
    shape = "x".join(map(str, array.shape)) or "no"
    dims = {"Unitary": 2, "State": 1, "Image": 2}[op]
    what = {"Unitary": "square matrix", "State": "vector", "Image": "matrix of pixels"}[op]
    if array.ndim != dims or array.size == 0 or (op == "Unitary" and len(set(array.shape)) > 1):
        return [(f"a {op.lower()} is a {what}, this array has {shape} entries", _HINTS[op])]
    if op == "Image" and array.dtype.kind == "c":
        return [_COMPLEX_IMAGE]
    if not np.isfinite(array).all():
        at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        return [
            (
                f"the {op.lower()} has {array[at]} at {list(at)}",
                "all entries have to be finite numbers",
            )
        ]
    if op != "Image" and len(array) & (len(array) - 1):
        return [(f"a {op.lower()} has 2^n rows, this one {len(array)}", "qcomp.read pads it")]
    sizes = array.shape if op == "Image" else array.shape[:1]
    qubits = sum((size - 1).bit_length() for size in sizes)
    if qubits > MAX_QUBITS[op]:
        return [
            (
                f"a {op.lower()} of {shape} entries needs {qubits} qubits, "
                f"at most {MAX_QUBITS[op]} can be written gate by gate",
                "split it, or take a method that needs no matrix",
            )
        ]
    if op == "State":
        norm = float(np.linalg.norm(array))
        if abs(norm - 1) > _NORM:
            return [(f"a state has norm 1, this one {norm:.6g}", "divide it by its norm")]
    return []


_HINTS = {
    "Unitary": "a vector is read as a state, a matrix of pixels with kind='image' (--as image)",
    "State": "a matrix is read as a unitary, or with kind='image' (--as image)",
    "Image": "give one matrix of brightness values, a colour at a time",
}


def put_circuit(program: Program, node: ir.Node, circuit: Circuit) -> None:
    """Put a circuit in the place of an array node, which goes away together with its array.

    Args:
        program: The program; changed in place. The circuit gets the node's name, made unique.
        node: A node of its main graph.
        circuit: What it becomes.
    """
    base = node.name or circuit.name
    taken = program.circuits
    name = next(n for n in (base, *(f"{base}{i}" for i in range(len(taken) + 1))) if n not in taken)
    circuit.name = name
    readout = readout_of(node) if "kind" in node.attributes else Readout("probs")
    graph, old, source = program.model.graph, node.outputs[0], node.inputs[0]
    new = make_circuit_node(name, readout, [], name=base)
    new.outputs[0].name, new.outputs[0].type = old.name, new.outputs[0].type
    graph.insert_before(node, new)
    old.replace_all_uses_with(new.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)
    label = "" if source is None else source.name or ""
    if source is not None and label in graph.initializers and not source.uses():
        del graph.initializers[label]
    program.circuits[name] = circuit
