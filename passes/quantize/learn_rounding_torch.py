"""Part of a graph as a differentiable function of PyTorch.

The operators are those of :mod:`qcomp.passes.torch_graph`, with the grids of quantization among
them: rounding to a grid (QuantizeLinear) passes the gradient straight through (Bengio et al. 2013,
arXiv:1308.3432); a clipped value passes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.passes.graph.rewriting import constant_array, int_attribute, only_use
from qcomp.passes.torch_graph import OPERATORS, import_torch, untranslated

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["TorchBlock", "one_thread", "unknown_operators"]

Tensor = Any  # torch has no types here


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
        torch = import_torch("learn-rounding")
        unknown_operators(nodes)  # fills the table
        self._steps: list[tuple[Callable[..., Tensor], list[str | None], list[str]]] = []
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
                        self._constants[name] = torch.from_numpy(np.array(array))
                names.append(name or None)
            made = [value.name or "" for value in node.outputs]
            known.update(made)
            function = _GRIDS.get(node.op_type) or OPERATORS["", node.op_type]
            if node in pairs:
                function = partial(function, grid=(pairs[node],))
            self._steps.append((partial(function, node), names, made))

    def run(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return all values by name; those handed in win over constants of the graph."""
        found = {**self._constants, **values}
        for function, names, made in self._steps:
            result = function(*[None if name is None else found[name] for name in names])
            if isinstance(result, (tuple, list)):
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
    return list(untranslated(node for node in nodes if node.domain or node.op_type not in _GRIDS))


def _quantize(
    node: ir.Node,
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    grid: tuple[tuple[float, int] | None] | None = None,
) -> Tensor:
    import torch

    if grid is not None and grid[0] is not None:
        return torch.fake_quantize_per_tensor_affine(x, *grid[0], 0, 255)
    zero = torch.zeros((), dtype=torch.uint8) if zero is None else zero
    kind = torch.iinfo(zero.dtype)
    steps = x / _along(node, scale, x)
    steps = steps + (torch.round(steps) - steps).detach()
    return torch.clamp(steps + _along(node, zero, x), kind.min, kind.max)


def _dequantize(
    node: ir.Node,
    levels: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    grid: tuple[tuple[float, int] | None] | None = None,
) -> Tensor:
    import torch

    if grid is not None:
        return levels
    x = levels.to(torch.float32)
    zero = torch.zeros(()) if zero is None else zero
    return (x - _along(node, zero, x).to(torch.float32)) * _along(node, scale, x)


def _along(node: ir.Node, part: Tensor, x: Tensor) -> Tensor:
    if part.numel() == 1:
        return part.reshape(())
    shape = [1] * x.dim()
    shape[int_attribute(node, "axis", 1)] = -1
    return part.reshape(shape)


_GRIDS: dict[str, Callable[..., Tensor]] = {
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
}
