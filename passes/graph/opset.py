"""Raising a model to a newer ONNX opset by ONNX's own version converter."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from qcomp.errors import PassError
from qcomp.ir.shapes import skeleton

__all__ = ["raise_opset"]

_IR_VERSION_OF_OPSET_21 = 10


def raise_opset(model: ir.Model, minimum: int) -> bool:
    """Bring the standard operators of a model to opset ``minimum`` at least.

    Where no operator of the graph changed in between, only the number does. The converter works
    on the graph without its large tensors, which come back untouched.

    Args:
        model: The model, changed in place.
        minimum: The opset wanted.

    Returns:
        Whether the model changed.

    Raises:
        PassError: When an operator cannot be converted, or stands in a function.
    """
    imports = model.graph.opset_imports
    now = imports.get("")
    if now is None or now >= minimum:
        return False
    owners: list[ir.Graph | ir.Function] = [model.graph, *model.functions.values()]
    if all(_unchanged(owner, minimum) for owner in owners):
        for owner in owners:
            owner.opset_imports[""] = minimum
    else:
        if model.functions:
            raise PassError(
                f"a model with functions cannot be brought from opset {now} to {minimum}",
                hint="export it again with a newer opset, or inline its functions",
            )
        if now < 9 and any(node.op_type == "Scan" for node in model.graph.all_nodes()):
            raise PassError(
                f"the Scan of opset {now} has a batch axis, which newer ones have not",
                hint="export the model again with opset 9 or newer",
            )
        _convert(model, minimum)
    if minimum >= 21:
        model.ir_version = max(model.ir_version or 0, _IR_VERSION_OF_OPSET_21)
    return True


def _unchanged(owner: ir.Graph | ir.Function, minimum: int) -> bool:
    """Whether every standard operator means the same in its opset and in the wanted one."""
    now = owner.opset_imports.get("", minimum)
    for node in owner.all_nodes():
        if node.domain != "":
            continue
        try:
            old = onnx.defs.get_schema(node.op_type, now)
            new = onnx.defs.get_schema(node.op_type, minimum)
        except onnx.defs.SchemaError:
            return False
        if old.since_version != new.since_version:
            return False
    return True


def _convert(model: ir.Model, minimum: int) -> None:
    graph = model.graph
    now = graph.opset_imports[""]
    try:
        converted = ir.from_proto(
            onnx.version_converter.convert_version(skeleton(model), minimum)
        ).graph
    except (RuntimeError, ValueError, TypeError, onnx.version_converter.ConvertError) as error:
        raise PassError(
            f"the model cannot be brought from opset {now} to {minimum}",
            why=str(error).strip().rpartition("\n")[2][:300],
            hint="export it again with a newer opset",
        ) from error
    notes = {node.outputs[0].name: node for node in graph.all_nodes() if node.outputs}
    for node in converted.all_nodes():
        old = notes.get(node.outputs[0].name) if node.outputs else None
        if old is not None and old.op_type == node.op_type:
            node.metadata_props.update(old.metadata_props)
            node.name = node.name or old.name
    _restore_tensors(graph, converted)
    for domain, version in graph.opset_imports.items():
        converted.opset_imports.setdefault(domain, version)
    converted.name = graph.name
    converted.doc_string = graph.doc_string
    converted.metadata_props.update(graph.metadata_props)
    model.graph = converted


def _restore_tensors(old: ir.Graph, new: ir.Graph) -> None:
    """Turn the inputs that stand for large initializers into these initializers again."""
    declared = {value.name for value in old.inputs}
    for value in list(new.inputs):
        stored = old.initializers.get(value.name or "")
        if stored is None or stored.const_value is None:
            continue
        if value.name not in declared:
            new.inputs.remove(value)
        if value.name not in new.initializers:
            value.const_value = stored.const_value
            new.register_initializer(value)
