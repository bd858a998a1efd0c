"""The mean error that integers add to each output channel of a layer, measured inside the graph.

    e = mean_n(W_q x_q[n]) - mean_n(W x[n]) = W_q mean_n(x_q[n]) - mean_n(W x[n])

A layer is linear: of the mean sample it makes the mean result. So beside each float layer there is
one on the integers' grid for a single sample of each batch, and only e leaves the graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.passes.graph.layer_pairs import LayerForm
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    int_attribute,
    node_label,
    static_shape,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["mean_error"]


def mean_error(
    editor: Editor, node: ir.Node, integer: ir.Node, weight: npt.NDArray[np.float32]
) -> str:
    """Put a layer beside another that reads its input on the integers' grid, with their weight.

    Args:
        editor: Of the float graph.
        node: The layer in it.
        integer: The same layer in the integer graph, whose input has the grid.
        weight: What the integers of the weight stand for, laid out as the float one.

    Returns:
        Name of the mean difference of each channel, which is made in the graph: the activations of
        all layers need not be kept.
    """
    x, label, form = node.inputs[0], node_label(node), LayerForm.of(node)
    pair = None if integer.inputs[0] is None else integer.inputs[0].producer()
    if pair is not None and pair.op_type == "DequantizeLinear":
        arrays = [constant_array(value) for value in pair.inputs[1:3]]
        grid = [editor.initializer(f"{label}_grid", np.array(a)) for a in arrays if a is not None]
        for op_type in ("QuantizeLinear", "DequantizeLinear"):
            made = editor.node(op_type, [x, *grid], name=f"{label}_{op_type}", before=node)
            x = made.outputs[0]
    rounded = editor.initializer(f"{label}_rounded", np.ascontiguousarray(weight, np.float32))
    real = node.outputs[0]
    if _mean_of_samples_fits(node):
        # A layer is linear: of the mean sample it makes the mean result, at the cost of one.
        x = _mean(editor, x, [0], f"{label}_samples", 1, before=node)
        real = _mean(editor, real, [0], f"{label}_results", 1, after=node)
    twin = editor.node(
        node.op_type,
        [x, rounded, *node.inputs[2:]],
        {name: attribute.value for name, attribute in node.attributes.items()},
        name=f"{label}_twin",
        before=node,
    )
    behind = node if real is node.outputs[0] else real.producer()
    shift = editor.node("Sub", [twin.outputs[0], real], name=f"{label}_shift", after=behind)
    axes, last = [0], shift
    if node.op_type == "Conv":
        axes += range(2, len(form.shape))
    else:
        flat = editor.initializer(f"{label}_flat", np.array([-1, form.outer], np.int64))
        last = editor.node(
            "Reshape", [shift.outputs[0], flat], name=f"{label}_Reshape", after=shift
        )
    return _mean(editor, last.outputs[0], axes, f"{label}_mean", 0, after=last).name or ""


def _mean_of_samples_fits(node: ir.Node) -> bool:
    """Whether the first axis of a layer's input counts samples, or positions, and nothing else."""
    shape = static_shape(node.inputs[0])
    return shape is not None and len(shape) > 1 and not int_attribute(node, "transA")


def _mean(
    editor: Editor,
    value: ir.Value | None,
    axes: list[int],
    name: str,
    keep: int,
    *,
    before: ir.Node | None = None,
    after: ir.Node | None = None,
) -> ir.Value:
    """Insert a ReduceMean in the form of the graph's opset."""
    inputs = [value]
    attributes: dict[str, int | list[int]] = {"keepdims": keep}
    if editor.model.graph.opset_imports.get("", 0) >= 18:
        inputs.append(editor.initializer(f"{name}_axes", np.array(axes, np.int64)))
    else:
        attributes["axes"] = axes
    made = editor.node("ReduceMean", inputs, attributes, name=name, before=before, after=after)
    return made.outputs[0]
