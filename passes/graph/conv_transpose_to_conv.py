"""A transposed convolution as a convolution and a move of its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import numpy.typing as npt

from qcomp.ir.program import Program
from qcomp.passes.graph.rewriting import (
    Editor,
    SharedParts,
    constant_array,
    constant_tensor,
    int_attribute,
    ints_attribute,
    is_constant,
    node_label,
    only_use,
    read_weight,
    string_attribute,
)
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import rules_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ConvTransposeToConv"]

_ELEMENTWISE = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh")
"""Operators that may stand before the move as well as behind it."""

_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ConvTransposeToConv(GraphPass):
    """Write transposed convolutions as convolutions, which have integer kernels.

    ::

        y'[s q + a] = sum_t x[q - t] w[s t + a]        a = 0 ... s - 1,  t = 0 ... ceil(k / s) - 1

    for stride s and a kernel of length k along each axis, before padding is cut away. So the
    results of one phase a are a convolution of x by every s-th weight, turned around, and all
    s^2 phases are one convolution with s^2 times the channels. DepthToSpace puts its channels
    where they belong; Slice cuts the edges, where there are any to cut. For k = s that is a
    1 x 1 convolution. A Relu, Clip, LeakyRelu, Sigmoid or Tanh behind is moved in front of
    DepthToSpace, next to the convolution.

    Preconditions: two spatial axes, equal strides, dilation 1, constant weight and bias, pads in
    the node and no ``output_shape``; opset 11 or later. An operator that the user excludes stays.

    Preserves: the outputs up to the order of additions; weights keep their values.

    Cost: as many products as before where s divides k, else (s ceil(k / s) / k)^2 times as many.
    ONNX Runtime has no integer kernel for ConvTranspose but QLinearConv for the convolution, and
    both moves on u8.

    Source: Shi et al. 2016, "Is the deconvolution layer the same as a convolutional layer?",
    arXiv:1609.07009; Shi et al. 2016, arXiv:1609.05158, section 2.2.
    """

    name: ClassVar[str] = "conv-transpose-to-conv"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    def run(self, program: Program, context: Context) -> bool:
        """Rewrite every transposed convolution that fits; return whether there was any."""
        if program.model.graph.opset_imports.get("", 0) < 11:
            return False
        rules = rules_of(context)
        editor: Editor | None = None
        for node in list(program.model.graph):
            if (node.domain, node.op_type) != ("", "ConvTranspose") or not _fits(node):
                continue
            if rules.options(node).excluded:
                continue
            editor = editor or Editor(program.model)
            _rewrite(editor, node)
        return editor is not None


def _fits(node: ir.Node) -> bool:
    import onnx_ir as ir

    weight = constant_tensor(node.inputs[1])
    if weight is None or weight.dtype != ir.DataType.FLOAT or len(weight.shape) != 4:
        return False
    if len(node.inputs) > 2 and node.inputs[2] is not None and not is_constant(node.inputs[2]):
        return False
    strides = ints_attribute(node, "strides") or (1, 1)
    plain = string_attribute(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
    even = all(step == 1 for step in ints_attribute(node, "dilations"))
    return plain and even and strides[0] == strides[1] and "output_shape" not in node.attributes


@dataclass(frozen=True, slots=True)
class _Axis:
    """One spatial axis: padding of the convolution, and what is cut behind it.

    Attributes:
        taps: Length of the convolution's kernel.
        pads: Zeros before and behind.
        cut: Results cut away at both ends, after the phases are in place.
    """

    taps: int
    pads: tuple[int, int]
    cut: tuple[int, int]

    @staticmethod
    def of(k: int, s: int, begin: int, end: int, more: int) -> _Axis:
        """The axis of a transposed convolution.

        Args:
            k: Length of its kernel.
            s: Its stride.
            begin: Results that it cuts at the begin.
            end: Results that it cuts at the end.
            more: Its ``output_padding``.
        """
        taps = -(-k // s)
        # Whole blocks of s results at the begin need not be computed.
        first = max(0, taps - 1 - begin // s)
        before = begin - s * (taps - 1 - first)
        # With I inputs, I + blocks blocks hold the results that stay; the rest is cut.
        blocks = -(-(before + more + k - begin - end) // s) - 1
        last = max(0, blocks - first + taps - 1)
        computed = first + last - taps + 1
        kept = more + k - begin - end - s
        return _Axis(taps, (first, last), (before, s * computed - before - kept))


def _rewrite(editor: Editor, node: ir.Node) -> None:
    x, value = node.inputs[0], node.inputs[1]
    tensor = constant_tensor(value)
    assert value is not None
    assert tensor is not None
    group = int_attribute(node, "group", 1)
    channels, outputs, *kernel = (int(dim) for dim in tensor.shape.numpy())
    s = (ints_attribute(node, "strides") or (1, 1))[0]
    pads = ints_attribute(node, "pads") or (0, 0, 0, 0)
    if string_attribute(node, "auto_pad", "NOTSET") == "VALID":
        pads = (0, 0, 0, 0)
    more = ints_attribute(node, "output_padding") or (0, 0)
    axes = [_Axis.of(kernel[i], s, pads[i], pads[i + 2], more[i]) for i in (0, 1)]
    label = node_label(node)
    shape = (group * outputs * s * s, channels // group, axes[0].taps, axes[1].taps)
    parts = SharedParts(lambda: _phases(tensor, group, s, axes), {"weight": (tensor.dtype, shape)})
    inputs = [x, editor.initializer(f"{value.name}_phases", parts.tensor("weight"))]
    bias = constant_array(node.inputs[2]) if len(node.inputs) > 2 else None
    if bias is not None:
        name = f"{node.inputs[2].name}_phases"  # type: ignore[union-attr]
        inputs.append(editor.initializer(name, np.repeat(bias, s * s)))
    attributes: dict[str, int | tuple[int, ...]] = {
        "kernel_shape": (axes[0].taps, axes[1].taps),
        "pads": tuple(axes[i].pads[j] for j in (0, 1) for i in (0, 1)),
        "group": group,
    }
    conv = editor.node("Conv", inputs, attributes, name=f"{label}_Conv", before=node)
    done, last = conv.outputs[0], node
    user = _elementwise(node)
    if user is not None:
        act = editor.node(
            user.op_type,
            [done, *user.inputs[1:]],
            {name: attr.value for name, attr in user.attributes.items()},
            name=f"{node_label(user)}_phases",
            before=node,
        )
        done, last = act.outputs[0], user
    if s > 1:
        options: dict[str, int | str] = {"blocksize": s, "mode": "CRD"}
        done = editor.node(
            "DepthToSpace", [done], options, name=f"{label}_DepthToSpace", before=node
        ).outputs[0]
    if any(axis.cut != (0, 0) for axis in axes):
        done = _cut(editor, node, done, axes)
    editor.replace_value(last.outputs[0], done)
    if user is not None:
        name = node_label(user)
        editor.remove(user)
        act.name = name
    editor.remove(node)
    conv.name = label  # patterns of the user's go on to match


def _elementwise(node: ir.Node) -> ir.Node | None:
    """The operator behind a node that may as well stand before a move of its results."""
    user = only_use(node.outputs[0])
    if user is None or user.domain or user.op_type not in _ELEMENTWISE:
        return None
    fixed = all(value is None or is_constant(value) for value in user.inputs[1:])
    own = user.graph is node.graph and user.inputs[0] is node.outputs[0]
    return user if own and fixed else None


def _cut(editor: Editor, node: ir.Node, done: ir.Value, axes: list[_Axis]) -> ir.Value:
    """Cut the edges of a result."""
    label = node_label(node)
    starts = np.array([axis.cut[0] for axis in axes])
    ends = np.array([-axis.cut[1] if axis.cut[1] else _END for axis in axes])
    parts = {"starts": starts, "ends": ends, "axes": np.array([2, 3])}
    bounds = [editor.initializer(f"{label}_{name}", array) for name, array in parts.items()]
    return editor.node("Slice", [done, *bounds], name=f"{label}_Slice", before=node).outputs[0]


def _phases(
    tensor: ir.TensorProtocol, group: int, s: int, axes: list[_Axis]
) -> Mapping[str, npt.NDArray[np.generic]]:
    """The weight [C, M, k, k'] as that of the convolution, [M s^2, C / group, taps, taps']."""
    with read_weight(tensor) as W:
        taps = [axis.taps for axis in axes]
        margin = [(0, s * taps[i] - W.shape[2 + i]) for i in (0, 1)]
        whole = np.pad(W, [(0, 0), (0, 0), *margin])
    channels, outputs = W.shape[:2]
    split = whole.reshape(group, channels // group, outputs, taps[0], s, taps[1], s)
    turned = split[:, :, :, ::-1, :, ::-1, :].transpose(0, 2, 4, 6, 1, 3, 5)
    shape = (group * outputs * s * s, channels // group, *taps)
    return {"weight": np.ascontiguousarray(turned).reshape(shape)}
