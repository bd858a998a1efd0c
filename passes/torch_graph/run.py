"""Run operators of an ONNX graph in PyTorch, so that gradients reach inputs and weights.

Passes that learn (rounding, distilled inputs) run single layers, blocks or whole graphs here::

    values = {"x": batch, "conv1.weight": learned}      # what is given wins over constants
    run_nodes(nodes, values)                            # fills in what the nodes make
    loss = (values["y"] - target).square().mean()

The operators are those of inference graphs, each as ONNX defines it (a test compares every one
with ONNX Runtime); :func:`untranslated` says which of a graph are none of them. PyTorch is
imported when it is asked for: without it :func:`import_torch` says how to install it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from qcomp.errors import PassError, UsageError
from qcomp.passes.graph.rewriting import constant_tensor, node_label
from qcomp.passes.torch_graph.table import OPERATORS, Tensor

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["as_torch", "has_torch", "import_torch", "run_nodes", "untranslated"]


def has_torch() -> bool:
    """Whether PyTorch is installed; it is not imported."""
    import importlib.util

    return importlib.util.find_spec("torch") is not None


def import_torch(what: str) -> Any:  # noqa: ANN401  the module
    """Return PyTorch.

    Args:
        what: Who needs it, for the message.

    Raises:
        UsageError: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"{what} needs PyTorch, which is not installed",
            why="it learns by gradients",
            hint="pip install 'qcomp[torch]'",
        ) from error
    return torch


def as_torch(value: ir.Value) -> Tensor:
    """Return a constant of the graph as a tensor.

    Raises:
        PassError: The value is no constant.
    """
    import torch

    tensor = constant_tensor(value)
    if tensor is None:
        raise PassError(f"the value '{value.name}' is no constant, and no operator makes it")
    array = tensor.numpy()
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.astype("float32")).to(torch.bfloat16)
    return torch.from_numpy(array.copy())


def untranslated(nodes: Iterable[ir.Node]) -> dict[str, str]:
    """Return operator type -> name of the first node of it that cannot be run here."""
    from qcomp.passes.torch_graph import moves, operators  # noqa: F401  they fill the table

    missing: dict[str, str] = {}
    for node in nodes:
        if (node.domain, node.op_type) not in OPERATORS:
            kind = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
            missing.setdefault(kind, node_label(node))
    return missing


def run_nodes(
    nodes: Iterable[ir.Node],
    values: MutableMapping[str, Tensor],
    *,
    keep: Collection[str] | None = None,
    inputs: Mapping[tuple[ir.Node, int], Callable[[Tensor], Tensor]] | None = None,
) -> None:
    """Run operators, one after the other.

    Args:
        nodes: In an order in which each finds its inputs made.
        values: Value name -> tensor: what is given, constants replaced by what is learned among
            it; what the nodes make and the constants that they read are added.
        keep: Names that are wanted; others are dropped after their last use. All by default.
        inputs: Operator and number of its input -> what this input goes through before it is read.

    Raises:
        PassError: An operator that is not translated, or a value that nothing makes.
    """
    from qcomp.passes.torch_graph import moves, operators  # noqa: F401  they fill the table

    nodes = list(nodes)
    last: dict[str, int] = {}
    if keep is not None:
        for index, node in enumerate(nodes):
            last.update({v.name: index for v in node.inputs if v is not None and v.name})
    for index, node in enumerate(nodes):
        operator = OPERATORS.get((node.domain, node.op_type))
        if operator is None:
            raise PassError(
                f"the operator {node.op_type} has no gradient here",
                where=node_label(node),
                hint="leave it out by --exclude, or take a method that needs no gradients",
            )
        read = []
        for place, value in enumerate(node.inputs):
            if value is not None and value.name not in values:
                values[value.name or ""] = as_torch(value)
            tensor = None if value is None else values[value.name or ""]
            change = None if inputs is None else inputs.get((node, place))
            read.append(tensor if change is None else change(tensor))
        made = operator(node, *read)
        outputs = made if isinstance(made, (tuple, list)) else (made,)
        for value, tensor in zip(node.outputs, outputs, strict=False):
            values[value.name or ""] = tensor
        for value in node.inputs if keep is not None else ():
            name = "" if value is None else value.name or ""
            if last.get(name) == index and keep is not None and name not in keep:
                values.pop(name, None)
