"""What became of operators between ONNX opsets 11 and 25, as rewrites in place.

| opset | operator                        | rewrite                                             |
|-------|---------------------------------|-----------------------------------------------------|
| 12    | Dropout                         | ``ratio`` only counts in training: left out         |
| 13    | Softmax, LogSoftmax, Hardmax    | axes from ``axis`` on were one: Flatten and Reshape |
| 13    | ReduceSum, Split, (Un)Squeeze   | ``axes``, ``split`` become inputs                   |
| 13    | Resize                          | empty ``roi`` and ``scales`` are left out           |
| 14    | BatchNormalization              | outputs of training are left out                    |
| 16    | RoiAlign                        | ``output_half_pixel`` was the only mode             |
| 18    | ReduceMax, -Min, -Mean, ...     | ``axes`` becomes an input                           |
| 18    | Split                           | ``num_outputs`` is said                             |
| 20    | GridSample                      | the modes have other names                          |
| 20    | DFT                             | ``axis`` becomes an input                           |
| 21    | GroupNormalization              | scale and bias of groups become those of channels   |

All other operators of opset 11 mean the same in 25.

Source: ONNX operator schemas and docs/Changelog.md of the ONNX project.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from qcomp.errors import PassError
from qcomp.passes.graph.rewriting import (
    Editor,
    constant_array,
    int_attribute,
    node_label,
    static_shape,
)

__all__ = ["ADAPTED_FROM", "adapt"]

ADAPTED_FROM = 11
"""The first opset whose operators are known here."""

Adapter = Callable[[Editor, ir.Node], None]


def adapt(model: ir.Model, graph: ir.Graph, now: int, minimum: int) -> None:
    """Rewrite the standard operators of a graph and its subgraphs for a newer opset.

    Args:
        model: The model, for free names.
        graph: The main graph, or a function's.
        now: The opset of its operators, at least ``ADAPTED_FROM`` (or one between which and that
            no operator of the graph changed).
        minimum: The opset wanted.

    Raises:
        PassError: An operator whose meaning cannot be kept.
    """
    for each in (graph, *list(graph.subgraphs())):
        editor: Editor | None = None
        for node in list(each):
            for version, adapters in _ADAPTERS.items():
                adapter = adapters.get(node.op_type)
                if adapter is None or node.domain or not now < version <= minimum:
                    continue
                editor = editor or Editor(model, each)
                adapter(editor, node)


def _take(node: ir.Node, name: str) -> ir.Attr | None:
    """Remove an attribute and return it; None where the node has none.

    Raises:
        PassError: It is a parameter of the function around it.
    """
    found = node.attributes.get(name)
    if found is None:
        return None
    if found.is_ref():
        raise PassError(
            f"'{name}' of {node.op_type} is a parameter of a function and cannot become an input",
            where=f"node '{node_label(node)}'",
            hint="export the model again with a newer opset",
        )
    del node.attributes[name]
    return found


def _constant(editor: Editor, node: ir.Node, what: str, values: list[int] | int) -> ir.Value:
    """The output of a Constant node before ``node``: a function has no initializers."""
    key = "value_int" if isinstance(values, int) else "value_ints"
    name = f"{node.outputs[0].name}_{what}"
    made = editor.node("Constant", [], {key: values}, name=name, outputs=[name], before=node)
    shape = [] if isinstance(values, int) else [len(values)]
    made.outputs[0].type = ir.TensorType(ir.DataType.INT64)
    made.outputs[0].shape = ir.Shape(shape)
    return made.outputs[0]


def _set_input(node: ir.Node, index: int, value: ir.Value | None) -> None:
    if len(node.inputs) <= index:
        node.resize_inputs(index + 1)
    node.replace_input_with(index, value)


def _axes_to_input(name: str, index: int) -> Adapter:
    """An INTS attribute that becomes an input."""

    def rewrite(editor: Editor, node: ir.Node) -> None:
        found = _take(node, name)
        if found is not None:
            _set_input(node, index, _constant(editor, node, name, list(found.as_ints())))

    return rewrite


def _dropout(editor: Editor, node: ir.Node) -> None:
    del editor
    node.attributes.pop("ratio", None)


def _softmax(editor: Editor, node: ir.Node) -> None:
    """Before opset 13 all axes from ``axis`` (default 1) on are one; after it, only ``axis``."""
    found = _take(node, "axis")
    axis = 1 if found is None else found.as_int()
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    shape = static_shape(x)
    if axis == -1 or (shape is not None and axis in (len(shape) - 1, -1)):
        node.attributes["axis"] = ir.AttrInt64("axis", -1)
        return
    label = node_label(node)
    flat = editor.node("Flatten", [x], {"axis": axis}, name=f"{label}_Flatten", before=node)
    dims = editor.node("Shape", [x], name=f"{label}_Shape", before=node)
    node.replace_input_with(0, flat.outputs[0])
    node.attributes["axis"] = ir.AttrInt64("axis", -1)
    uses, name = list(y.uses()), y.name or ""
    back = editor.node("Reshape", [y, dims.outputs[0]], name=f"{label}_Reshape", after=node)
    made = back.outputs[0]
    made.type, made.shape, y.shape = y.type, y.shape, None
    for usage in uses:
        usage.node.replace_input_with(usage.idx, made)
    graph = node.graph
    assert graph is not None
    for index, output in enumerate(graph.outputs):
        if output is y:
            y.name = editor.fresh(f"{name}_flat")
            made.name = name
            graph.outputs[index] = made


def _resize(editor: Editor, node: ir.Node) -> None:
    del editor
    for index in (1, 2):
        value = node.inputs[index] if len(node.inputs) > index else None
        array = constant_array(value)
        empty = array is not None and array.size == 0
        if empty or (value is not None and static_shape(value) == (0,)):
            node.replace_input_with(index, None)


def _batch_norm(editor: Editor, node: ir.Node) -> None:
    del editor
    if any(value.uses() or value.is_graph_output() for value in node.outputs[1:]):
        raise PassError(
            "a BatchNormalization gives its running statistics away, which is training",
            where=f"node '{node_label(node)}'",
            hint="export the model for inference",
        )
    if len(node.outputs) > 1:
        node.resize_outputs(1)


def _roi_align(editor: Editor, node: ir.Node) -> None:
    del editor
    mode = "coordinate_transformation_mode"
    if mode not in node.attributes:
        node.attributes[mode] = ir.AttrString(mode, "output_half_pixel")


def _split(editor: Editor, node: ir.Node) -> None:
    del editor
    if len(node.inputs) < 2 or node.inputs[1] is None:
        count = len(node.outputs)
        node.attributes["num_outputs"] = ir.AttrInt64("num_outputs", count)


def _grid_sample(editor: Editor, node: ir.Node) -> None:
    del editor
    found = _take(node, "mode")
    old = "bilinear" if found is None else found.as_string()
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(old, old)
    node.attributes["mode"] = ir.AttrString("mode", mode)


def _dft(editor: Editor, node: ir.Node) -> None:
    found = _take(node, "axis")
    _set_input(node, 2, _constant(editor, node, "axis", 1 if found is None else found.as_int()))


def _group_norm(editor: Editor, node: ir.Node) -> None:
    """Scale and bias had one value a group; they have one a channel since opset 21."""
    groups = int_attribute(node, "num_groups")
    shape = static_shape(node.inputs[0])
    channels = shape[1] if shape is not None and len(shape) > 1 else None
    for index in (1, 2):
        value = node.inputs[index]
        assert value is not None
        if channels is None or not groups:
            raise PassError(
                "a GroupNormalization before opset 21 has a number of channels that is not known",
                where=f"node '{node_label(node)}'",
                hint="export the model again with opset 21",
            )
        name, each = f"{value.name}_channels", channels // groups
        wide = editor.node(
            "Unsqueeze", [value, _constant(editor, node, "axis", [1])], name=name, before=node
        )
        dims = _constant(editor, node, "dims", [groups, each])
        wide = editor.node("Expand", [wide.outputs[0], dims], name=name, before=node)
        wide = editor.node(
            "Reshape",
            [wide.outputs[0], _constant(editor, node, "flat", [-1])],
            name=name,
            before=node,
        )
        made = wide.outputs[0]
        made.type, made.shape = value.type, ir.Shape(np.array([channels]).tolist())
        node.replace_input_with(index, made)


_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")

_ADAPTERS: dict[int, dict[str, Adapter]] = {
    12: {"Dropout": _dropout},
    13: {
        "Hardmax": _softmax,
        "LogSoftmax": _softmax,
        "ReduceSum": _axes_to_input("axes", 1),
        "Resize": _resize,
        "Softmax": _softmax,
        "Split": _axes_to_input("split", 1),
        "Squeeze": _axes_to_input("axes", 1),
        "Unsqueeze": _axes_to_input("axes", 1),
    },
    14: {"BatchNormalization": _batch_norm},
    16: {"RoiAlign": _roi_align},
    18: {"Split": _split, **{f"Reduce{name}": _axes_to_input("axes", 1) for name in _REDUCTIONS}},
    20: {"DFT": _dft, "GridSample": _grid_sample},
    21: {"GroupNormalization": _group_norm},
}
"""Opset -> operator -> what has to be done to one of an older opset."""
