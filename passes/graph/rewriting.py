"""Helpers that graph passes share: find constants, insert and replace nodes, fresh names.

They change an ``onnx_ir`` graph only through its own methods. Large weights stay where they are:
:func:`read_weight` maps an external tensor, hands out a copy-free view and gives the memory back
afterwards; :class:`SharedParts` makes tensors that are computed when the model is saved.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.errors import PassError
from qcomp.node_rules import name_nodes, node_name

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context

__all__ = [
    "Editor",
    "KeptOpset",
    "SharedParts",
    "attribute",
    "check_finite",
    "constant_array",
    "constant_tensor",
    "float_attribute",
    "int_attribute",
    "ints_attribute",
    "is_constant",
    "node_label",
    "only_use",
    "peel_lazy",
    "read_weight",
    "require_opset",
    "static_shape",
    "string_attribute",
]

AttributeValue = int | float | str | Sequence[int] | Sequence[float]


def node_label(node: ir.Node) -> str:
    """Name of a node for messages and reports: its name, else its first output's."""
    return node_name(node)


def attribute(node: ir.Node, name: str, default: object) -> object:
    """Value of an attribute of any type, or ``default`` when the node does not carry it."""
    found = node.attributes.get(name)
    return default if found is None else found.value


def int_attribute(node: ir.Node, name: str, default: int = 0) -> int:
    """Value of an INT attribute, or ``default`` when the node does not carry it."""
    found = node.attributes.get(name)
    return default if found is None else found.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Value of a FLOAT attribute, or ``default`` when the node does not carry it."""
    found = node.attributes.get(name)
    return default if found is None else found.as_float()


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...]:
    """Value of an INTS attribute, () when the node does not carry it."""
    found = node.attributes.get(name)
    return () if found is None else tuple(found.as_ints())


def string_attribute(node: ir.Node, name: str, default: str) -> str:
    """Value of a STRING attribute, or ``default`` when the node does not carry it."""
    found = node.attributes.get(name)
    return default if found is None else found.as_string()


def constant_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The constant that a value always holds, or None.

    An initializer that is also a graph input can be overridden by the caller, so it is no constant.
    """
    if value is None or value.is_graph_input():
        return None
    from onnx_ir.convenience import get_const_tensor

    return get_const_tensor(value)


def is_constant(value: ir.Value | None) -> bool:
    """Whether the value is the same in every run."""
    return constant_tensor(value) is not None


def constant_array(value: ir.Value | None) -> npt.NDArray[np.generic] | None:
    """The constant as an array (for small constants; see :func:`read_weight` for large ones)."""
    tensor = constant_tensor(value)
    return None if tensor is None else np.asarray(tensor.numpy())


def static_shape(value: ir.Value | None) -> tuple[int | None, ...] | None:
    """Shape with None for each symbolic dimension; None when even the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return tuple(dim if isinstance(dim, int) else None for dim in value.shape)


def only_use(value: ir.Value) -> ir.Node | None:
    """The one node that uses the value, once; None if there are more uses or it is an output."""
    uses = list(value.uses())
    if value.is_graph_output() or len(uses) != 1:
        return None
    node: ir.Node = uses[0].node
    return node


@contextmanager
def read_weight(tensor: ir.TensorProtocol) -> Iterator[npt.NDArray[np.generic]]:
    """Yield the tensor's values; the pages of a mapped file are given back on leaving.

    Mapped pages count as resident memory, so a pass that walks a model larger than memory
    must not keep them. The array stays valid: a later access reads the file again.
    """
    array = np.asarray(tensor.numpy())
    try:
        yield array
    finally:
        mapping = getattr(tensor, "raw", None)
        if isinstance(mapping, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)


def check_finite(name: str, array: npt.NDArray[np.generic]) -> None:
    """Refuse a weight with NaN or infinity.

    Args:
        name: The tensor's name, for the message.
        array: float tensor, read in slices of a few MB.

    Raises:
        PassError: It holds a value that is not finite.
    """
    flat = array.reshape(-1)
    step = 1 << 22
    for start in range(0, flat.size, step):
        part = flat[start : start + step]
        finite = np.isfinite(part)
        if not finite.all():
            at = np.unravel_index(start + int(np.argmin(finite)), array.shape)
            raise PassError(
                f"weight '{name}' holds {part[int(np.argmin(finite))]}",
                where=f"'{name}'{[int(i) for i in at]}",
                why="a value that is not finite has no integer",
                hint="repair the model's weights",
            )


@dataclass(frozen=True, slots=True)
class KeptOpset:
    """Why ``canonicalise`` could not raise the model's opset."""

    why: str


def require_opset(model: ir.Model, minimum: int, why: str, context: Context | None = None) -> None:
    """Refuse a model whose opset of the default domain is below ``minimum``.

    Args:
        model: The model.
        minimum: The opset needed.
        why: What needs it.
        context: Knows why the opset was not raised, if that was tried.

    Raises:
        PassError: The opset is too old.
    """
    version = model.graph.opset_imports.get("", minimum)
    if version >= minimum:
        return
    kept = None if context is None else context.get(KeptOpset)
    raise PassError(
        f"the model has opset {version}, at least {minimum} is needed: {why}",
        why=f"it could not be raised: {kept.why}" if kept else "nothing has raised it",
        hint="export the model again with a newer opset"
        if kept
        else f"run 'canonicalise{{min-opset={minimum}}}' before this pass",
    )


class SharedParts:
    """Several lazy tensors computed together from one source, when the model is saved.

    Saving asks for the parts one after the other; the computation runs at the first request and
    each part is dropped as soon as it was handed out, so at most one source's parts are in memory.

    Args:
        compute: Returns the arrays of all parts (packed bytes for 4-bit types).
        parts: Part name -> (ONNX type, shape).
    """

    def __init__(
        self,
        compute: Callable[[], Mapping[str, npt.NDArray[np.generic]]],
        parts: Mapping[str, tuple[ir.DataType, Sequence[int]]],
    ) -> None:
        self._compute = compute
        self._parts = dict(parts)
        self._wanted: set[str] = set()
        self._ready: dict[str, npt.NDArray[np.generic]] = {}

    def _take(self, part: str) -> ir.TensorProtocol:
        import onnx_ir as ir

        if part not in self._ready:
            computed = self._compute()
            self._ready = {name: computed[name] for name in computed if name in self._wanted}
        array = self._ready.pop(part)
        dtype, shape = self._parts[part]
        if dtype.bitwidth < 8:
            return ir.PackedTensor(np.ascontiguousarray(array).reshape(-1), dtype, shape=shape)
        return ir.Tensor(np.ascontiguousarray(array), dtype=dtype, shape=ir.Shape(shape))

    def tensor(self, part: str) -> ir.LazyTensor:
        """The lazy tensor of one part."""
        import onnx_ir as ir

        self._wanted.add(part)
        dtype, shape = self._parts[part]
        return ir.LazyTensor(lambda: self._take(part), dtype=dtype, shape=ir.Shape(shape))


class Editor:
    """Insert nodes and initializers into one graph with names that are free.

    Args:
        model: The model to edit; its main graph, unless ``graph`` is given.
        graph: A graph of the model.
    """

    def __init__(self, model: ir.Model, graph: ir.Graph | None = None) -> None:
        self.model = model
        self.graph = model.graph if graph is None else graph
        self._names: set[str] = set()
        # The graph of a function is none of the model's.
        for each in dict.fromkeys((*model.graphs(), self.graph, *self.graph.subgraphs())):
            self._names.update(v.name for v in each.inputs if v.name)
            self._names.update(each.initializers)
            for node in each:
                self._names.add(node.name or "")
                self._names.update(v.name for v in node.outputs if v.name)

    def fresh(self, name: str) -> str:
        """``name``, or ``name_2``, ``name_3`` ... - the first that no node or value has."""
        candidate, count = name, 1
        while candidate in self._names:
            count += 1
            candidate = f"{name}_{count}"
        self._names.add(candidate)
        return candidate

    def name_nodes(self) -> None:
        """Give every node of the graph a name of its own: its first output's, if it has none."""
        name_nodes(self.graph)

    def use_domain(self, domain: str, version: int) -> None:
        """Import an operator domain."""
        self.graph.opset_imports.setdefault(domain, version)

    def initializer(
        self, name: str, content: ir.TensorProtocol | npt.NDArray[np.generic]
    ) -> ir.Value:
        """Add a constant under a fresh name made from ``name``."""
        import onnx_ir as ir

        tensor = ir.tensor(content) if isinstance(content, np.ndarray) else content
        tensor.name = self.fresh(name)
        value = ir.Value(
            name=tensor.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        self.graph.register_initializer(value)
        return value

    def node(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        name: str,
        domain: str = "",
        outputs: Sequence[str] = (),
        before: ir.Node | None = None,
        after: ir.Node | None = None,
    ) -> ir.Node:
        """Insert a node under a fresh name before or after another one (default: at the end).

        Args:
            op_type: Operator.
            inputs: Values, None for an absent optional one.
            attributes: Plain Python attributes.
            name: Wish for the node's name.
            domain: Operator domain.
            outputs: Wishes for the names of the outputs; one named after the node by default.
            before: Insert before this node.
            after: Insert after this node.
        """
        import onnx_ir as ir

        node = ir.node(
            op_type,
            list(inputs),
            dict(attributes or {}),
            domain=domain,
            num_outputs=max(1, len(outputs)),
            name=self.fresh(name),
        )
        for value, wish in zip(node.outputs, outputs or (f"{node.name}_output",), strict=True):
            value.name = self.fresh(wish)
        if before is not None:
            self.graph.insert_before(before, node)
        elif after is not None:
            self.graph.insert_after(after, node)
        else:
            self.graph.append(node)
        return node

    def replace_value(self, old: ir.Value, new: ir.Value) -> None:
        """Let every user of ``old``, and the graph's outputs, take ``new``.

        A graph output keeps its name and its recorded type and shape.
        """
        if new.type is None:
            new.type = old.type
        if new.shape is None and old.shape is not None:
            new.shape = old.shape.copy()
        was_output = old.is_graph_output()
        old.replace_all_uses_with(new, replace_graph_outputs=True)
        if was_output and old.name:
            name = old.name
            old.name = self.fresh(f"{name}_replaced")
            new.name = name

    def remove(self, node: ir.Node) -> None:
        """Remove a node without users, then the initializers that only it used."""
        inputs = [value for value in node.inputs if value is not None]
        self.graph.remove(node, safe=True)
        for value in inputs:
            self.drop_if_unused(value)

    def drop_if_unused(self, value: ir.Value) -> None:
        """Remove an initializer (or Constant node) that nothing uses any more."""
        if value.uses() or value.is_graph_output() or value.is_graph_input():
            return
        producer = value.producer()
        if value.is_initializer() and value.graph is not None and value.name:
            del value.graph.initializers[value.name]
        elif producer is not None and producer.op_type == "Constant" and producer.graph is not None:
            producer.graph.remove(producer, safe=True)


def peel_lazy(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    """Evaluate a lazy tensor once, so that reading it twice does not compute it twice."""
    import onnx_ir as ir

    return tensor.raw() if isinstance(tensor, ir.LazyTensor) else tensor
