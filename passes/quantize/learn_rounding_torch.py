"""Part of a graph as a differentiable function of PyTorch.

Operators that learned rounding meets between the layers of a block are translated one by one:

* layers: Conv, Gemm, MatMul
* elementwise: Add, Sub, Mul, Div, Sum, Pow, Min, Max, Neg, Abs, Sqrt, Exp, Log, Erf, Reciprocal
* activations: Relu, LeakyRelu, Elu, Clip, Sigmoid, HardSigmoid, HardSwish, Tanh, Gelu, Softplus,
  Softmax
* normalization: LayerNormalization, RMSNormalization, BatchNormalization
* pools: MaxPool, AveragePool, GlobalAveragePool, ReduceMean, ReduceSum
* moves: Reshape, Flatten, Transpose, Squeeze, Unsqueeze, Concat, Slice, Split, Expand, Gather, Pad
* the rest: Cast, Shape, Where, Trilu, Identity, Dropout, QuantizeLinear, DequantizeLinear

Rounding to a grid (QuantizeLinear) passes the gradient straight through (Bengio et al. 2013,
arXiv:1308.3432); a clipped value passes none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import UsageError
from qcomp.passes.graph.rewriting import constant_array, only_use

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["TorchBlock", "import_torch", "one_thread", "unknown_operators"]

Tensor = Any  # torch has no types here
Function = Callable[[Mapping[str, Any], Sequence[Tensor], Any], Tensor]


def import_torch() -> Any:  # noqa: ANN401  a module
    """Return PyTorch.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import torch
    except ModuleNotFoundError as error:
        raise UsageError(
            "rounding is learned by PyTorch, which is not installed",
            hint="pip install 'qcomp[torch]', or leave 'learn-rounding' out of the pipeline",
        ) from error
    return torch


@contextmanager
def one_thread(torch: Any) -> Iterator[None]:
    """Let PyTorch compute on one thread, so that sums have one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchBlock:
    """Nodes of a graph, run in PyTorch.

    Args:
        nodes: In topological order; all of operators that are known.
        given: Names of values that are handed in.
    """

    def __init__(self, nodes: Sequence[ir.Node], given: Iterable[str]) -> None:
        self._torch = import_torch()
        self._steps: list[tuple[Function, dict[str, Any], list[str | None], list[str]]] = []
        self._constants: dict[str, Tensor] = {}
        known = set(given)
        pairs = _grid_pairs(nodes)
        for node in nodes:
            names: list[str | None] = []
            for value in node.inputs:
                name = None if value is None else value.name
                if name and name not in known and name not in self._constants:
                    array = constant_array(value)
                    if array is not None:
                        self._constants[name] = self._torch.from_numpy(np.array(array))
                names.append(name or None)
            attributes = {key: item.value for key, item in node.attributes.items()}
            attributes["outputs"] = len(node.outputs)
            made = [value.name or "" for value in node.outputs]
            known.update(made)
            if node in pairs:
                attributes["grid"] = pairs[node]
            self._steps.append((_FUNCTIONS[node.op_type], attributes, names, made))

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all values by name; those handed in win over constants of the graph."""
        found = {**self._constants, **values}
        for function, attributes, names, made in self._steps:
            inputs = [None if name is None else found[name] for name in names]
            result = function(attributes, inputs, self._torch)
            if isinstance(result, tuple):
                found.update(zip(made, result, strict=False))
            else:
                found[made[0]] = result
        return found


def _grid_pairs(nodes: Sequence[ir.Node]) -> dict[ir.Node, tuple[float, int] | None]:
    """QuantizeLinear to u8 with its only reader DequantizeLinear -> scale and zero point.

    The reader itself has None: PyTorch computes such a pair at once.
    """
    inside = set(nodes)
    found: dict[ir.Node, tuple[float, int] | None] = {}
    for node in nodes:
        reader = only_use(node.outputs[0]) if node.op_type == "QuantizeLinear" else None
        if reader is None or reader not in inside or reader.op_type != "DequantizeLinear":
            continue
        scale, zero = (constant_array(value) for value in node.inputs[1:3])
        if scale is None or zero is None or scale.size != 1 or zero.dtype != np.uint8:
            continue
        if list(node.inputs[1:]) == list(reader.inputs[1:]):
            found[node], found[reader] = (float(scale.reshape(())), int(zero.reshape(()))), None
    return found


def unknown_operators(nodes: Iterable[ir.Node]) -> list[str]:
    """Operators that have no translation, each once, in order."""
    kinds = (
        f"{node.domain}::{node.op_type}" if node.domain else node.op_type
        for node in nodes
        if node.domain not in ("", "ai.onnx") or node.op_type not in _FUNCTIONS
    )
    return list(dict.fromkeys(kinds))


def _pads(a: Mapping[str, Any], x: Tensor, torch: Any, fill: float = 0.0) -> tuple[Tensor, Any]:
    """Pad by hand what PyTorch cannot; the padding that is left to it is the same on both sides."""
    rank = x.dim() - 2
    kernel, strides = list(a["kernel_shape"]), list(a.get("strides") or [1] * rank)
    dilations = list(a.get("dilations") or [1] * rank)
    mode = a.get("auto_pad", "NOTSET")
    pads = list(a.get("pads") or [0] * (2 * rank))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(rank):
            out = -(-x.shape[2 + i] // strides[i])
            total = max(
                0, (out - 1) * strides[i] + (kernel[i] - 1) * dilations[i] + 1 - x.shape[2 + i]
            )
            small, large = total // 2, total - total // 2
            pads[i], pads[rank + i] = (small, large) if mode == "SAME_UPPER" else (large, small)
    begin, end = pads[:rank], pads[rank:]
    if begin == end and fill == 0.0:
        return x, begin
    flat = [side for i in reversed(range(rank)) for side in (begin[i], end[i])]
    return torch.nn.functional.pad(x, flat, value=fill), [0] * rank


def _conv(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    x, w = v[0], v[1]
    bias = v[2] if len(v) > 2 else None
    rank = x.dim() - 2
    x, padding = _pads({**a, "kernel_shape": list(w.shape[2:])}, x, torch)
    function = [torch.conv1d, torch.conv2d, torch.conv3d][rank - 1]
    ones = [1] * rank
    return function(
        x,
        w,
        bias,
        list(a.get("strides") or ones),
        padding,
        list(a.get("dilations") or ones),
        a.get("group", 1),
    )


def _gemm(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    x = v[0].T if a.get("transA") else v[0]
    w = v[1].T if a.get("transB") else v[1]
    y = a.get("alpha", 1.0) * (x @ w)
    return y if len(v) < 3 or v[2] is None else y + a.get("beta", 1.0) * v[2]


def _max_pool(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    rank, functional = v[0].dim() - 2, torch.nn.functional
    x, padding = _pads(a, v[0], torch, float("-inf"))
    function = [functional.max_pool1d, functional.max_pool2d, functional.max_pool3d][rank - 1]
    ones = [1] * rank
    return function(
        x,
        list(a["kernel_shape"]),
        list(a.get("strides") or ones),
        padding,
        list(a.get("dilations") or ones),
        ceil_mode=bool(a.get("ceil_mode", 0)),
    )


def _average_pool(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    rank, functional = v[0].dim() - 2, torch.nn.functional
    pools = [functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d]
    kernel, strides = list(a["kernel_shape"]), list(a.get("strides") or [1] * rank)
    x, padding = _pads(a, v[0], torch)
    ceil = bool(a.get("ceil_mode", 0))
    mean = pools[rank - 1](x, kernel, strides, padding, ceil, True)
    if a.get("count_include_pad", 0):
        return mean
    ones, padding = _pads(a, torch.ones_like(v[0][:1, :1]), torch)
    return mean / pools[rank - 1](ones, kernel, strides, padding, ceil, True)


def _reduce(kind: str) -> Function:
    def function(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
        axes = list(a.get("axes") or [])
        if len(v) > 1 and v[1] is not None:
            axes = v[1].tolist()
        axes = axes or list(range(v[0].dim()))
        return getattr(torch, kind)(v[0], dim=axes, keepdim=bool(a.get("keepdims", 1)))

    return function


def _layer_norm(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    axis = a.get("axis", -1)
    shape = list(v[0].shape[axis:])
    bias = v[2] if len(v) > 2 else None
    return torch.nn.functional.layer_norm(v[0], shape, v[1], bias, a.get("epsilon", 1e-5))


def _rms_norm(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    axes = list(range(a.get("axis", -1) % v[0].dim(), v[0].dim()))
    power = v[0].pow(2).mean(dim=axes, keepdim=True)
    return v[0] * torch.rsqrt(power + a.get("epsilon", 1e-5)) * v[1]


def _batch_norm(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    return torch.nn.functional.batch_norm(
        v[0], v[3], v[4], v[1], v[2], False, 0.0, a.get("epsilon", 1e-5)
    )


def _clip(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    low = v[1] if len(v) > 1 else a.get("min")
    high = v[2] if len(v) > 2 else a.get("max")
    low, high = (
        float(end) if end is not None and not hasattr(end, "item") else end for end in (low, high)
    )
    return v[0] if low is None and high is None else torch.clamp(v[0], low, high)


def _gelu(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    return torch.nn.functional.gelu(v[0], approximate=a.get("approximate", "none"))


def _reshape(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    shape = v[1].tolist()
    if not a.get("allowzero", 0):
        shape = [v[0].shape[i] if length == 0 else length for i, length in enumerate(shape)]
    return v[0].reshape(shape)


def _flatten(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    axis = a.get("axis", 1)
    return v[0].reshape(math.prod(v[0].shape[:axis]), -1)


def _transpose(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    return v[0].permute(list(a.get("perm") or range(v[0].dim() - 1, -1, -1)))


def _axes(a: Mapping[str, Any], v: Sequence[Tensor]) -> list[int] | None:
    if len(v) > 1 and v[1] is not None:
        return [int(axis) for axis in v[1].tolist()]
    return None if a.get("axes") is None else list(a["axes"])


def _squeeze(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    axes = _axes(a, v)
    return v[0].squeeze() if axes is None else v[0].squeeze(tuple(axes))


def _unsqueeze(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    axes, x = _axes(a, v) or [], v[0]
    for axis in sorted(axis % (x.dim() + len(axes)) for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    x = v[0]
    if len(v) > 1:
        starts, ends = v[1].tolist(), v[2].tolist()
        axes = v[3].tolist() if len(v) > 3 and v[3] is not None else range(len(starts))
        steps = v[4].tolist() if len(v) > 4 and v[4] is not None else [1] * len(starts)
    else:
        starts, ends = list(a["starts"]), list(a["ends"])
        axes, steps = list(a.get("axes") or range(len(starts))), [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index = torch.arange(x.shape[axis])[slice(start, end, step) if step > 0 else slice(None)]
        if step < 0:
            picked = range(x.shape[axis])[slice(start, end if end > -(2**31) else None, step)]
            index = torch.tensor(list(picked), dtype=torch.int64)
        x = x.index_select(axis, index)
    return x


def _split(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    sizes = v[1].tolist() if len(v) > 1 and v[1] is not None else a.get("split")
    if sizes is None:
        sizes = -(-v[0].shape[axis] // a["outputs"])
    return tuple(torch.split(v[0], list(sizes) if not isinstance(sizes, int) else sizes, dim=axis))


def _expand(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    return v[0].expand(torch.broadcast_shapes(tuple(v[0].shape), tuple(v[1].tolist())))


def _gather(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    axis = a.get("axis", 0) % v[0].dim()
    index = torch.where(v[1] < 0, v[1] + v[0].shape[axis], v[1])
    picked = v[0].index_select(axis, index.reshape(-1).to(torch.int64))
    return picked.reshape(*v[0].shape[:axis], *index.shape, *v[0].shape[axis + 1 :])


def _pad(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    pads = v[1].tolist() if len(v) > 1 else list(a["pads"])
    fill = v[2] if len(v) > 2 and v[2] is not None else a.get("value", 0.0)
    axes = v[3].tolist() if len(v) > 3 and v[3] is not None else range(len(pads) // 2)
    sides = [(0, 0)] * v[0].dim()
    for i, axis in enumerate(axes):
        sides[axis] = (pads[i], pads[i + len(pads) // 2])
    flat = [side for pair in reversed(sides) for side in pair]
    mode = {"edge": "replicate"}.get(a.get("mode", "constant"), a.get("mode", "constant"))
    if mode == "constant":
        return torch.nn.functional.pad(v[0], flat, value=float(fill))
    while len(flat) > 2 and flat[-2:] == [0, 0]:
        flat = flat[:-2]
    return torch.nn.functional.pad(v[0], flat, mode=mode)


_TYPES = {1: "float32", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 11: "float64"}


def _cast(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    return v[0].to(getattr(torch, _TYPES.get(int(a["to"]), "int8")))


def _trilu(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    k = int(v[1]) if len(v) > 1 and v[1] is not None else 0
    return torch.triu(v[0], k) if a.get("upper", 1) else torch.tril(v[0], k)


def _quantize(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    if "grid" in a:
        return torch.fake_quantize_per_tensor_affine(v[0], *a["grid"], 0, 255)
    zero = v[2] if len(v) > 2 and v[2] is not None else torch.zeros((), dtype=torch.uint8)
    kind = torch.iinfo(zero.dtype)
    steps = v[0] / _along(a, v[1], v[0])
    steps = steps + (torch.round(steps) - steps).detach()
    return torch.clamp(steps + _along(a, zero, v[0]), kind.min, kind.max)


def _dequantize(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
    if "grid" in a:
        return v[0]
    x = v[0].to(torch.float32)
    zero = v[2] if len(v) > 2 and v[2] is not None else torch.zeros(())
    return (x - _along(a, zero, x).to(torch.float32)) * _along(a, v[1], x)


def _along(a: Mapping[str, Any], part: Tensor, x: Tensor) -> Tensor:
    if part.numel() == 1:
        return part.reshape(())
    shape = [1] * x.dim()
    shape[a.get("axis", 1)] = -1
    return part.reshape(shape)


def _binary(name: str) -> Function:
    def function(a: Mapping[str, Any], v: Sequence[Tensor], torch: Any) -> Tensor:
        result = v[0]
        for other in v[1:]:
            result = getattr(torch, name)(result, other)
        return result

    return function


def _unary(name: str) -> Function:
    return lambda a, v, torch: getattr(torch, name)(v[0])


_FUNCTIONS: dict[str, Function] = {
    **{
        op: _binary(name)
        for op, name in {
            **{"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Sum": "add"},
            **{"Min": "minimum", "Max": "maximum", "Pow": "pow", "MatMul": "matmul"},
        }.items()
    },
    **{
        op: _unary(op.lower())
        for op in ("Abs", "Erf", "Exp", "Log", "Neg", "Relu", "Sigmoid", "Sqrt", "Tanh")
    },
    "Reciprocal": _unary("reciprocal"),
    "Identity": lambda a, v, torch: v[0],
    "Dropout": lambda a, v, torch: v[0],
    "Conv": _conv,
    "Gemm": _gemm,
    "LeakyRelu": lambda a, v, torch: torch.nn.functional.leaky_relu(v[0], a.get("alpha", 0.01)),
    "Elu": lambda a, v, torch: torch.nn.functional.elu(v[0], a.get("alpha", 1.0)),
    "Softplus": lambda a, v, torch: torch.nn.functional.softplus(v[0]),
    "HardSigmoid": lambda a, v, torch: torch.clamp(
        a.get("alpha", 0.2) * v[0] + a.get("beta", 0.5), 0.0, 1.0
    ),
    "HardSwish": lambda a, v, torch: torch.nn.functional.hardswish(v[0]),
    "Gelu": _gelu,
    "Clip": _clip,
    "Softmax": lambda a, v, torch: torch.softmax(v[0], a.get("axis", -1)),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "BatchNormalization": _batch_norm,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda a, v, torch: v[0].mean(
        dim=list(range(2, v[0].dim())), keepdim=True
    ),
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Concat": lambda a, v, torch: torch.cat(list(v), dim=a["axis"]),
    "Slice": _slice,
    "Split": _split,
    "Expand": _expand,
    "Gather": _gather,
    "Pad": _pad,
    "Cast": _cast,
    "Shape": lambda a, v, torch: torch.tensor(list(v[0].shape)[a.get("start", 0) : a.get("end")]),
    "Where": lambda a, v, torch: torch.where(v[0], v[1], v[2]),
    "Trilu": _trilu,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
