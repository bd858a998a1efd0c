"""The table of operators, and what its functions share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from qcomp.errors import PassError
from qcomp.passes.graph.rewriting import ints_attribute, node_label

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["OPERATORS", "Operator", "Tensor", "axes_of", "ints_of", "operator", "padded", "refuse"]

Tensor: TypeAlias = Any
"""torch.Tensor, whose types are not known to the type checker."""

Operator = Callable[..., Any]

OPERATORS: dict[tuple[str, str], Operator] = {}
"""(domain, operator type) -> function(node, *tensors); None for an absent input."""


def operator(*names: str, domain: str = "") -> Callable[[Operator], Operator]:
    """Enter the function below under operator types."""

    def register(function: Operator) -> Operator:
        OPERATORS.update({(domain, name): function for name in names})
        return function

    return register


def refuse(node: ir.Node, what: str) -> PassError:
    """Return the error for a form of an operator that is not translated."""
    return PassError(
        f"{node.op_type} with {what} has no gradient here",
        where=node_label(node),
        hint="leave it out by --exclude, or take a method that needs no gradients",
    )


def ints_of(tensor: Tensor | None) -> list[int]:
    """Return the numbers of a tensor of shapes or axes; none where it is absent."""
    return [] if tensor is None else [int(i) for i in tensor.reshape(-1).tolist()]


def axes_of(node: ir.Node, given: Tensor | None) -> list[int]:
    """Return axes: an input since opset 13 (18 for some operators), an attribute before."""
    return ints_of(given) if given is not None else list(ints_attribute(node, "axes"))


def padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """Pad the last axes, one pair of (before, after) each; negative ones cut."""
    import torch.nn.functional as F

    if not any(end for pair in pads for end in pair):
        return x
    return F.pad(x, [end for pair in reversed(pads) for end in pair], value=value)
