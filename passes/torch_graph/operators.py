"""Arithmetic, layers, normalizations and reductions of ONNX as functions of PyTorch tensors.

Attributes that ONNX allows and no function here takes are refused by name, never ignored.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from qcomp.passes.graph.rewriting import (
    float_attribute,
    int_attribute,
    ints_attribute,
    string_attribute,
)
from qcomp.passes.torch_graph.table import (
    OPERATORS,
    Tensor,
    axes_of,
    operator,
    padded,
    refuse,
)

if TYPE_CHECKING:
    import onnx_ir as ir

__all__: list[str] = []

_DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}

# --- one value to one value -------------------------------------------------------------------

for _name, _function in {
    "Abs": torch.abs,
    "Ceil": torch.ceil,
    "Cos": torch.cos,
    "Erf": torch.erf,
    "Exp": torch.exp,
    "Floor": torch.floor,
    "HardSwish": F.hardswish,
    "Identity": lambda x: x,
    "IsNaN": torch.isnan,
    "Log": torch.log,
    "Mish": F.mish,
    "Neg": torch.neg,
    "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal,
    "Relu": torch.relu,
    "Round": torch.round,
    "Sigmoid": torch.sigmoid,
    "Sign": torch.sign,
    "Sin": torch.sin,
    "Softplus": F.softplus,
    "Softsign": F.softsign,
    "Sqrt": torch.sqrt,
    "Tanh": torch.tanh,
}.items():
    OPERATORS["", _name] = functools.partial(lambda f, node, x: f(x), _function)


@operator("Add", "Sub", "Mul", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
@operator("And", "Or", "Xor", "Pow")
def _binary(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "Add": torch.add,
        "Sub": torch.sub,
        "Mul": torch.mul,
        "Equal": torch.eq,
        "Greater": torch.gt,
        "GreaterOrEqual": torch.ge,
        "Less": torch.lt,
        "LessOrEqual": torch.le,
        "And": torch.logical_and,
        "Or": torch.logical_or,
        "Xor": torch.logical_xor,
    }
    if node.op_type == "Pow":
        return torch.pow(a, b).to(a.dtype)
    return functions[node.op_type](a, b)


@operator("Div")
def _div(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    return a / b if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")


@operator("Min", "Max", "Sum", "Mean")
def _many(node: ir.Node, *inputs: Tensor) -> Tensor:
    if node.op_type in ("Min", "Max"):
        return functools.reduce(torch.minimum if node.op_type == "Min" else torch.maximum, inputs)
    total = functools.reduce(torch.add, inputs)
    return total / len(inputs) if node.op_type == "Mean" else total


@operator("Where")
def _where(node: ir.Node, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(condition, a, b)


@operator("Clip")
def _clip(
    node: ir.Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    ends: list[Any] = [low, high]
    for index, name in enumerate(("min", "max")):
        if ends[index] is None and name in node.attributes:
            ends[index] = float_attribute(node, name, 0.0)
        elif ends[index] is not None:
            ends[index] = ends[index].item()
    return x if ends == [None, None] else torch.clamp(x, ends[0], ends[1])


@operator("LeakyRelu")
def _leaky_relu(node: ir.Node, x: Tensor) -> Tensor:
    return F.leaky_relu(x, float_attribute(node, "alpha", 0.01))


@operator("PRelu")
def _prelu(node: ir.Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def _elu(node: ir.Node, x: Tensor) -> Tensor:
    return F.elu(x, float_attribute(node, "alpha", 1.0))


@operator("HardSigmoid")
def _hard_sigmoid(node: ir.Node, x: Tensor) -> Tensor:
    alpha, beta = float_attribute(node, "alpha", 0.2), float_attribute(node, "beta", 0.5)
    return torch.clamp(alpha * x + beta, 0.0, 1.0)


@operator("Gelu")
@operator("Gelu", domain="com.microsoft")
def _gelu(node: ir.Node, x: Tensor) -> Tensor:
    return F.gelu(x, approximate=string_attribute(node, "approximate", "none"))


@operator("FastGelu", domain="com.microsoft")
def _fast_gelu(node: ir.Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("BiasGelu", domain="com.microsoft")
def _bias_gelu(node: ir.Node, x: Tensor, bias: Tensor) -> Tensor:
    return F.gelu(x + bias)


@operator("Softmax", "LogSoftmax")
def _softmax(node: ir.Node, x: Tensor) -> Tensor:
    function = F.softmax if node.op_type == "Softmax" else F.log_softmax
    opset = 13 if node.graph is None else node.graph.opset_imports.get("", 13)
    if opset >= 13:
        return function(x, int_attribute(node, "axis", -1))
    axis = int_attribute(node, "axis", 1) % x.dim()
    return function(x.flatten(axis), -1).reshape(x.shape)


@operator("Cast")
def _cast(node: ir.Node, x: Tensor) -> Tensor:
    to = int_attribute(node, "to")
    if to not in _DTYPES:
        raise refuse(node, f"the type {to}")
    return x.to(_DTYPES[to])


@operator("Dropout")
def _dropout(node: ir.Node, x: Tensor, *_: Tensor) -> tuple[Tensor, Tensor]:
    return x, torch.ones_like(x, dtype=torch.bool)


# --- sums and products ------------------------------------------------------------------------


@operator("MatMul")
def _matmul(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    return torch.matmul(a, b)


@operator("Gemm")
def _gemm(node: ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    a = a.T if int_attribute(node, "transA") else a
    b = b.T if int_attribute(node, "transB") else b
    product = float_attribute(node, "alpha", 1.0) * (a @ b)
    return product if c is None else product + float_attribute(node, "beta", 1.0) * c


def _pads(node: ir.Node, size: Sequence[int], window: Sequence[int]) -> list[tuple[int, int]]:
    """Pads before and after each spatial axis; ``window`` are dilated kernel sizes."""
    count = len(window)
    mode = string_attribute(node, "auto_pad", "NOTSET")
    if mode == "VALID":
        return [(0, 0)] * count
    if mode == "NOTSET":
        pads = ints_attribute(node, "pads") or (0,) * (2 * count)
        return [(pads[i], pads[count + i]) for i in range(count)]
    strides = ints_attribute(node, "strides") or (1,) * count
    found = []
    for length, k, stride in zip(size, window, strides, strict=True):
        total = max(0, (-(-length // stride) - 1) * stride + k - length)
        small, large = total // 2, total - total // 2
        found.append((small, large) if mode == "SAME_UPPER" else (large, small))
    return found


@operator("Conv")
def _conv(node: ir.Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    count = w.dim() - 2
    dilations = ints_attribute(node, "dilations") or (1,) * count
    window = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], dilations, strict=True)]
    pads = _pads(node, x.shape[2:], window)
    even = all(first == last for first, last in pads)
    function = (F.conv1d, F.conv2d, F.conv3d)[count - 1]
    return function(
        x if even else padded(x, pads),
        w,
        b,
        stride=ints_attribute(node, "strides") or (1,) * count,
        padding=tuple(first for first, _ in pads) if even else 0,
        dilation=dilations,
        groups=int_attribute(node, "group", 1),
    )


@operator("ConvTranspose")
def _conv_transpose(node: ir.Node, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    count = w.dim() - 2
    if (
        string_attribute(node, "auto_pad", "NOTSET") != "NOTSET"
        or "output_shape" in node.attributes
    ):
        raise refuse(node, "auto_pad or output_shape")
    pads = ints_attribute(node, "pads") or (0,) * (2 * count)
    function = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[count - 1]
    made = function(
        x,
        w,
        b,
        stride=ints_attribute(node, "strides") or (1,) * count,
        output_padding=ints_attribute(node, "output_padding") or (0,) * count,
        dilation=ints_attribute(node, "dilations") or (1,) * count,
        groups=int_attribute(node, "group", 1),
    )
    # Pads cut the output, at each end by its own number.
    return padded(made, [(-pads[i], -pads[count + i]) for i in range(count)])


@operator("MaxPool", "AveragePool")
def _pool(node: ir.Node, x: Tensor) -> Tensor:
    kernel = ints_attribute(node, "kernel_shape")
    count = len(kernel)
    dilations = ints_attribute(node, "dilations") or (1,) * count
    strides = ints_attribute(node, "strides") or (1,) * count
    if int_attribute(node, "ceil_mode") or int_attribute(node, "storage_order"):
        raise refuse(node, "ceil_mode or storage_order")
    window = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    pads = _pads(node, x.shape[2:], window)
    if node.op_type == "MaxPool":
        largest = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[count - 1]
        return largest(padded(x, pads, float("-inf")), kernel, strides, 0, dilations)
    if any(d != 1 for d in dilations):
        raise refuse(node, "dilations")
    mean = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[count - 1]
    made = mean(padded(x, pads), kernel, strides)
    if int_attribute(node, "count_include_pad") or made.shape == mean(x, kernel, strides).shape:
        return made
    return made / mean(padded(torch.ones_like(x[:1, :1]), pads), kernel, strides)


@operator("GlobalAveragePool")
def _global_average_pool(node: ir.Node, x: Tensor) -> Tensor:
    return x.mean(tuple(range(2, x.dim())), keepdim=True)


@operator("GlobalMaxPool")
def _global_max_pool(node: ir.Node, x: Tensor) -> Tensor:
    return x.amax(tuple(range(2, x.dim())), keepdim=True)


# --- normalization ----------------------------------------------------------------------------


@operator("BatchNormalization")
def _batch_norm(
    node: ir.Node, x: Tensor, gamma: Tensor, beta: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    if int_attribute(node, "training_mode"):
        raise refuse(node, "training_mode")
    return F.batch_norm(x, mean, var, gamma, beta, eps=float_attribute(node, "epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(node: ir.Node, x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    epsilon = float_attribute(node, "epsilon", 1e-5)
    return F.instance_norm(x, weight=gamma, bias=beta, eps=epsilon)


@operator("LayerNormalization")
def _layer_norm(node: ir.Node, x: Tensor, gamma: Tensor, beta: Tensor | None = None) -> Tensor:
    axis = int_attribute(node, "axis", -1) % x.dim()
    return F.layer_norm(x, x.shape[axis:], gamma, beta, float_attribute(node, "epsilon", 1e-5))


@operator("RMSNormalization", "SimplifiedLayerNormalization")
def _rms_norm(node: ir.Node, x: Tensor, gamma: Tensor) -> Tensor:
    axis = int_attribute(node, "axis", -1) % x.dim()
    return F.rms_norm(x, x.shape[axis:], gamma, float_attribute(node, "epsilon", 1e-5))


# --- reductions -------------------------------------------------------------------------------


@operator("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2", "ReduceProd")
def _reduce(node: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    dims = axes_of(node, axes)
    if not dims:
        if int_attribute(node, "noop_with_empty_axes"):
            return x
        dims = list(range(x.dim()))
    keep = bool(int_attribute(node, "keepdims", 1))
    if node.op_type == "ReduceProd":
        for dim in sorted((d % x.dim() for d in dims), reverse=True):
            x = x.prod(dim, keepdim=keep)
        return x
    functions: dict[str, Callable[..., Tensor]] = {
        "ReduceMean": torch.mean,
        "ReduceSum": torch.sum,
        "ReduceMax": torch.amax,
        "ReduceMin": torch.amin,
        "ReduceL2": torch.linalg.vector_norm,
    }
    return functions[node.op_type](x, dim=tuple(dims), keepdim=keep)


@operator("ArgMax")
def _arg_max(node: ir.Node, x: Tensor) -> Tensor:
    keep = bool(int_attribute(node, "keepdims", 1))
    return x.argmax(int_attribute(node, "axis"), keepdim=keep)
