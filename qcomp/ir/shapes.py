"""Shape inference over a graph of any size: only tensors of at most 1 KiB are looked at."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from qcomp.ir.program import Program, readout_of

__all__ = ["infer_shapes", "skeleton"]

_READ_LIMIT = 1024
_REFUSALS = (RuntimeError, ValueError, TypeError, NotImplementedError, KeyError, IndexError)


def infer_shapes(program: Program) -> None:
    """Fill in the types and shapes that can be known, by ONNX's own inference.

    What the model states is kept where the inference knows no better. Circuit nodes, which it
    does not know, get the batch axes of their inputs and the width of their readout.

    Args:
        program: The program; only types and shapes change.
    """
    _infer(program.model)
    changed = [_infer_circuit(program, node) for node in program.all_circuit_nodes()]
    if any(changed):
        _infer(program.model)


def _infer(model: ir.Model) -> None:
    try:
        # Not strict: a node whose types do not fit stays without a shape.
        inferred = ir.from_proto(
            onnx.shape_inference.infer_shapes(skeleton(model), check_type=False, data_prop=True)
        )
    except (*_REFUSALS, onnx.shape_inference.InferenceError):
        # The graph is as good without shapes; whoever needs one says which.
        return
    for graph, known in zip(model.graphs(), inferred.graphs(), strict=True):
        found = {value.name: value for node in known for value in node.outputs}
        found |= {value.name: value for value in known.outputs}
        for node in graph:
            for value in node.outputs:
                _merge(value, found.get(value.name))


def _merge(value: ir.Value, found: ir.Value | None) -> None:
    if found is None:
        return
    if value.type is None and found.type is not None:
        value.type = found.type
    if found.shape is None or found.type != value.type:
        return
    # The inference invents names for what it does not know; they would look like knowledge.
    invented = [isinstance(d, ir.SymbolicDim) and str(d).startswith("unk__") for d in found.shape]
    dims = [None if new else dim for dim, new in zip(found.shape, invented, strict=True)]
    try:
        value.merge_shapes(ir.Shape(dims))
    except ValueError:
        # The model states one thing and the operators make another.
        value.shape = ir.Shape(dims)


def skeleton(model: ir.Model) -> onnx.ModelProto:
    """Return the model as a protobuf in which large initializers are inputs without data.

    Args:
        model: The graph, not changed.
    """
    model = model.clone()
    for graph in model.graphs():
        for name, value in list(graph.initializers.items()):
            tensor = value.const_value
            if tensor is None:
                continue
            if value.shape is None:
                value.shape = ir.Shape(tensor.shape.numpy())
            if value.type is None:
                value.type = ir.TensorType(tensor.dtype)
            if tensor.dtype == ir.DataType.STRING or tensor.nbytes <= _READ_LIMIT:
                if isinstance(tensor, ir.ExternalTensor):
                    value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype)
                continue
            del graph.initializers[name]
            if graph is not model.graph:
                # A subgraph's own inputs are counted by its node; those around it are not.
                value.name = f"{name}::{len(model.graph.inputs)}"
            if not value.is_graph_input():
                model.graph.inputs.append(value)
    return ir.to_proto(model)


def _infer_circuit(program: Program, node: ir.Node) -> bool:
    """Give a Circuit node's output its shape; return whether it was not known."""
    output = node.outputs[0]
    inputs = [value.shape for value in node.inputs if value is not None]
    width = _width(program, node)
    if output.shape is not None or width is None or any(shape is None for shape in inputs):
        return False
    lead: list[int | ir.SymbolicDim] = []
    for shape in inputs:
        axes = list(shape[:-1]) if shape is not None else []
        if len(axes) > len(lead):
            axes, lead = lead, axes
        for back, dim in enumerate(reversed(axes), start=1):
            if lead[-back] == 1:
                lead[-back] = dim
    output.shape = ir.Shape([*lead, *width])
    return True


def _width(program: Program, node: ir.Node) -> list[int] | None:
    readout = readout_of(node)
    circuit = program.circuits.get(node.attributes["circuit"].as_string())
    if readout.kind == "expval":
        return [len(readout.observables)]
    if circuit is None:
        return None
    measured = circuit.num_clbits or circuit.num_qubits
    if readout.kind == "bits":
        return [measured]
    if readout.kind == "samples":
        return [readout.shots, measured]
    return [1 << (circuit.num_qubits if readout.kind == "state" else measured)]
