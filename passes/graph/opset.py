"""Raising a model to a newer ONNX opset, functions and subgraphs included.

From opset 11 on each operator whose form or meaning changed is rewritten where it stands
(:mod:`qcomp.passes.graph.opset_adapters`), so names, large tensors, functions and subgraphs stay.
Older graphs first go to opset 11 by ONNX's own version converter.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from qcomp.errors import PassError
from qcomp.ir.shapes import skeleton
from qcomp.passes.graph.opset_adapters import ADAPTED_FROM, adapt

__all__ = ["raise_opset", "unchanged_since"]

_IR_VERSION_OF_OPSET_21 = 10
_HINT = "export the model again with a newer opset"


def unchanged_since(model: ir.Model, minimum: int) -> bool:
    """Whether every standard operator means the same in its opset and in ``minimum``.

    Args:
        model: The model.
        minimum: The opset wanted.
    """
    return all(_unchanged(owner, minimum) for owner in _owners(model))


def raise_opset(model: ir.Model, minimum: int) -> bool:
    """Bring the standard operators of a model to opset ``minimum`` at least.

    Where no operator of the graph changed in between, only the number does.

    Args:
        model: The model, changed in place (on an error, too: work on a copy).
        minimum: The opset wanted; 11 where operators of an older one have to change.

    Returns:
        Whether the model changed.

    Raises:
        PassError: When an operator cannot be converted.
    """
    owners = _owners(model)
    low = min((owner.opset_imports.get("", minimum) for owner in owners), default=minimum)
    if low >= minimum:
        return False
    known = max(minimum, ADAPTED_FROM)
    if low < ADAPTED_FROM and not all(_unchanged(owner, known) for owner in owners):
        minimum = known
        if not all(_unchanged(owner, ADAPTED_FROM) for owner in owners):
            _by_onnx(model, low)
            owners = _owners(model)
    for owner in owners:
        now = owner.opset_imports.get("", minimum)
        if now >= minimum:
            continue
        if not _unchanged(owner, minimum):
            adapt(model, owner.graph if isinstance(owner, ir.Function) else owner, now, minimum)
        owner.opset_imports[""] = minimum
    if minimum >= 21:
        model.ir_version = max(model.ir_version or 0, _IR_VERSION_OF_OPSET_21)
    return True


def _owners(model: ir.Model) -> list[ir.Graph | ir.Function]:
    """The main graph and the functions: each has an opset of its own."""
    return [model.graph, *model.functions.values()]


def _unchanged(owner: ir.Graph | ir.Function, minimum: int) -> bool:
    """Whether every standard operator means the same in its opset and in the wanted one."""
    now = owner.opset_imports.get("", minimum)
    return now >= minimum or not any(_changed(owner.all_nodes(), now, minimum))


def _changed(nodes: Iterator[ir.Node], now: int, minimum: int) -> Iterator[ir.Node]:
    """Give the standard operators that are not the same in both opsets."""
    for node in nodes:
        if node.domain != "":
            continue
        try:
            old = onnx.defs.get_schema(node.op_type, now)
            new = onnx.defs.get_schema(node.op_type, minimum)
        except onnx.defs.SchemaError:
            # Some exporters write operators of ONNX Runtime without their domain.
            if not onnx.defs.has(node.op_type):
                continue
            yield node
            continue
        if old.since_version != new.since_version:
            yield node


def _by_onnx(model: ir.Model, now: int) -> None:
    """Bring a graph without functions to opset 11 by ONNX's converter.

    The converter works on the graph without its large tensors, which come back untouched.
    """
    graph = model.graph
    if model.functions:
        raise PassError(
            f"functions of opset {now} cannot be brought to opset {ADAPTED_FROM}", hint=_HINT
        )
    inner = [node for each in graph.subgraphs() for node in each]
    odd = next(_changed(iter(inner), now, ADAPTED_FROM), None)
    if odd is not None or (now < 9 and any(n.op_type == "Scan" for n in graph.all_nodes())):
        what = "Scan" if odd is None else f"{odd.op_type} inside a control-flow body"
        raise PassError(
            f"the {what} of opset {now} cannot be brought to opset {ADAPTED_FROM}", hint=_HINT
        )
    try:
        converted = ir.from_proto(
            onnx.version_converter.convert_version(skeleton(model), ADAPTED_FROM)
        ).graph
    except (RuntimeError, ValueError, TypeError, onnx.version_converter.ConvertError) as error:
        raise PassError(
            f"the model cannot be brought from opset {now} to {ADAPTED_FROM}",
            why=str(error).strip().rpartition("\n")[2][:300],
            hint=_HINT,
        ) from error
    notes = {node.outputs[0].name: node for node in graph.all_nodes() if node.outputs}
    for node in converted.all_nodes():
        old = notes.get(node.outputs[0].name) if node.outputs else None
        if old is not None and old.op_type == node.op_type:
            node.metadata_props.update(old.metadata_props)
            node.name = node.name or old.name
        if node.op_type == "Resize" and node.domain == "":
            # Before opset 11 there was one way; the converter leaves it to the new default.
            for key, value in (
                ("coordinate_transformation_mode", "asymmetric"),
                ("nearest_mode", "floor"),
            ):
                node.attributes[key] = ir.AttrString(key, value)
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
