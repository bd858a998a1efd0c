"""Fold an inference BatchNormalization into the weights of the layer before it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.program import Program
from qcomp.passes.graph.rewriting import (
    Editor,
    attribute,
    constant_array,
    constant_tensor,
    node_label,
    only_use,
    read_weight,
)
from qcomp.passmanager import Context, GraphPass, Guarantee
from qcomp.quantization import ChannelMoments

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FuseBatchNorm"]

_LAZY_FROM = 1 << 24
Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class FuseBatchNorm(GraphPass):
    """Fold BatchNormalization into Conv, ConvTranspose, Gemm and MatMul.

    ::

        y = gamma * (W x + b - mean) / sqrt(var + epsilon) + beta  =  W' x + b'
        W' = s W,   b' = s (b - mean) + beta,   s = gamma / sqrt(var + epsilon)

    with ``s`` along the output channels. In ConvTranspose these are the second axis of ``W``
    within each group, in Gemm and MatMul the columns of the (transposed) weight. After MatMul,
    which has no bias, an Add of ``b'`` takes the normalization's place.

    Preconditions: W, b and the four statistics are constants, BatchNormalization does not train
    and normalizes axis 1, and nothing else uses the layer's output.

    Preserves: the outputs up to the rounding of W' and b', which are computed in float64. Leaves a
    :class:`qcomp.quantization.ChannelMoments` fact: the normalized values have mean beta and
    deviation abs(gamma).

    Cost: one pass over the weights; those of 16 MiB and more are computed when the model is saved.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", arXiv:1712.05877, eq. 14; Krishnamoorthi, "Quantizing deep
    convolutional networks for efficient inference", arXiv:1806.08342, section 3.2.2.
    """

    name: ClassVar[str] = "fuse-batch-norm"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    def run(self, program: Program, context: Context) -> bool:
        """Fuse every pair in the main graph; return whether there was any."""
        editor: Editor | None = None
        changed = False
        moments = {}
        for node in list(program.model.graph):
            if (node.domain, node.op_type) != ("", "BatchNormalization") or node.graph is None:
                continue
            found = _match(program, node)
            if found is None:
                continue
            editor = editor or Editor(program.model)
            gamma, beta = (constant_array(value) for value in node.inputs[1:3])
            name = _fuse(editor, node, *found)
            moments[name] = (np.asarray(beta, np.float64), np.abs(np.asarray(gamma, np.float64)))
            changed = True
        if changed:
            known = context.get(ChannelMoments)
            context.put(ChannelMoments({**({} if known is None else known.moments), **moments}))
        return changed


def _match(program: Program, norm: ir.Node) -> tuple[ir.Node, Float64, Float64] | None:
    """Return the layer before a normalization, with ``s`` and ``beta - s * mean``."""
    opset = program.model.graph.opset_imports.get("", 0)
    if opset < 7 or (opset < 9 and not attribute(norm, "spatial", 1)):
        return None
    if opset >= 14 and attribute(norm, "training_mode", 0):
        return None
    if any(value.uses() or value.is_graph_output() for value in norm.outputs[1:]):
        return None
    source = norm.inputs[0]
    layer = source.producer() if source is not None else None
    if source is None or layer is None or layer.domain != "" or layer.op_type not in _LAYERS:
        return None
    if only_use(source) is not norm or layer.graph is not norm.graph:
        return None
    statistics = [constant_array(value) for value in norm.inputs[1:5]]
    weight = constant_tensor(layer.inputs[1]) if len(layer.inputs) > 1 else None
    if weight is None or any(array is None for array in statistics):
        return None
    if layer.op_type == "MatMul" and (
        len(weight.shape) != 2 or source.shape is None or len(source.shape) != 2
    ):
        return None
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    if bias is not None and constant_tensor(bias) is None:
        return None
    gamma, beta, mean, var = (np.asarray(array, np.float64) for array in statistics)
    epsilon = attribute(norm, "epsilon", 1e-5)
    assert isinstance(epsilon, float)
    s = gamma / np.sqrt(var + epsilon)
    if _channels(layer, weight) != s.size:
        return None
    return layer, s, beta - s * mean


def _channels(layer: ir.Node, weight: ir.TensorProtocol) -> int:
    """Return the number of output channels of a layer."""
    dims = weight.shape.numpy()
    if layer.op_type == "ConvTranspose":
        return dims[1] * _group(layer)
    if layer.op_type == "Conv" or (layer.op_type == "Gemm" and attribute(layer, "transB", 0)):
        return dims[0]
    return dims[-1]


def _group(layer: ir.Node) -> int:
    group = attribute(layer, "group", 1)
    assert isinstance(group, int)
    return group


def _scale_conv(W: Float64, s: Float64, layer: ir.Node) -> Float64:
    return W * s.reshape(-1, *[1] * (W.ndim - 1))


def _scale_conv_transpose(W: Float64, s: Float64, layer: ir.Node) -> Float64:
    group = _group(layer)
    C, M = W.shape[:2]  # W: float[C in, M out / group, kernel ...]
    by_group = W.reshape(group, C // group, M, -1) * s.reshape(group, 1, M, 1)
    return by_group.reshape(W.shape)


def _scale_gemm(W: Float64, s: Float64, layer: ir.Node) -> Float64:
    return W * (s[:, None] if attribute(layer, "transB", 0) else s)


def _scale_matmul(W: Float64, s: Float64, layer: ir.Node) -> Float64:
    return W * s


_LAYERS: dict[str, Callable[[Float64, Float64, ir.Node], Float64]] = {
    "Conv": _scale_conv,
    "ConvTranspose": _scale_conv_transpose,
    "Gemm": _scale_gemm,
    "MatMul": _scale_matmul,
}


def _fuse(editor: Editor, norm: ir.Node, layer: ir.Node, s: Float64, shift: Float64) -> str:
    """Fold; return the name of the value that is now the normalized one."""
    import onnx_ir as ir

    weight_value = layer.inputs[1]
    weight = constant_tensor(weight_value)
    assert weight_value is not None
    assert weight is not None
    dtype = weight.dtype

    def fused() -> ir.TensorProtocol:
        with read_weight(weight) as W:
            scaled = _LAYERS[layer.op_type](np.asarray(W, np.float64), s, layer)
        return ir.Tensor(scaled.astype(dtype.numpy()), dtype=dtype)

    stored = fused() if weight.nbytes < _LAZY_FROM else None
    if stored is None:
        shape = ir.Shape(weight.shape.numpy())
        stored = ir.LazyTensor(fused, dtype=dtype, shape=shape)
    name = weight_value.name or node_label(layer)
    layer.replace_input_with(1, editor.initializer(f"{name}_fused", stored))
    b = shift
    old_bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    if old_bias is not None:
        b = b + s * _bias(layer, old_bias)
    bias = editor.initializer(f"{name}_bias", b.astype(dtype.numpy()))
    made = layer.outputs[0]
    if layer.op_type == "MatMul":
        add = editor.node("Add", [made, bias], name=node_label(norm), before=norm)
        made = add.outputs[0]
    else:
        layer.resize_inputs(3)
        layer.replace_input_with(2, bias)
    editor.replace_value(norm.outputs[0], made)
    editor.remove(norm)
    for value in (weight_value, old_bias):
        if value is not None:
            editor.drop_if_unused(value)
    return made.name or ""


def _bias(layer: ir.Node, value: ir.Value) -> Float64:
    """Return the bias of a layer as it enters the sum; a Gemm's factor of it becomes 1."""
    import onnx_ir as ir

    b = np.asarray(constant_array(value), np.float64)
    if layer.op_type == "Gemm":
        factor = attribute(layer, "beta", 1.0)
        assert isinstance(factor, float)
        layer.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
        # A bias of one row is the only other shape that holds for every batch.
        b = factor * b.reshape(b.shape[-1:] if b.ndim else (1,))
    return b
