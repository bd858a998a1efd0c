"""A graph run part by part: only values that later parts read are held, in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from qcomp.ir.program import Program
from qcomp.ir.shapes import infer_shapes
from qcomp.ir.stages import captured_values
from qcomp.layer_store import DiskValues, on_disk
from qcomp.passes.graph.rewriting import constant_tensor

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Part", "Stream", "run_in_parts"]

Array = npt.NDArray[np.generic]
Values = MutableMapping[str, Array]

_INLINE = 1 << 26
"""Bytes of weights of a part that are handed to ONNX Runtime in memory where memory is short."""


class Stream:
    """One of the two graphs, run forward part by part for some chunks of rows.

    Only values that later parts read are kept.

    Args:
        program: The graph; shapes and types are known.
        chunks: Inputs. What is made of those on disk goes to disk, too.
        wanted: Names of values that are asked for later.
    """

    def __init__(
        self, program: Program, chunks: Sequence[Mapping[str, Array]], wanted: Iterable[str]
    ) -> None:
        self.program = program
        graph = program.model.graph
        self.chunks: list[Values] = [
            chunk if isinstance(chunk, DiskValues) else dict(chunk) for chunk in chunks
        ]
        self._order = list(graph)
        self._reads = {node: captured_values(node) for node in graph}
        self._done: set[ir.Node] = set()
        self._known = {v.name: v for node in graph for v in node.outputs}
        self._wanted = dict.fromkeys(wanted)

    def value(self, name: str) -> ir.Value:
        """The value of that name that a node makes."""
        return self._known[name]

    def want(self, names: Iterable[str]) -> None:
        """Keep values of these names, too, until they are served."""
        self._wanted.update(dict.fromkeys(names))

    def missing(self, targets: Sequence[ir.Value]) -> list[ir.Node]:
        """Nodes that have to run before some values are there, in order."""
        needed: set[ir.Node] = set()
        stack = [value.producer() for value in targets]
        while stack:
            node = stack.pop()
            if node is None or node in needed or node in self._done or _is_constant(node):
                continue
            needed.add(node)
            stack += [value.producer() for value in self._reads[node]]
        return [node for node in self._order if node in needed]

    def part(self, nodes: Sequence[ir.Node], extra: Iterable[ir.Value] = ()) -> Part:
        """Some nodes with what they read and what later ones read of them."""
        inside = set(nodes)
        made = {value for node in nodes for value in node.outputs}
        inputs = dict.fromkeys(
            value
            for node in nodes
            for value in self._reads[node]
            if value not in made and _is_handed(value)
        )
        later = {
            value
            for node in self._order
            if node not in inside and node not in self._done
            for value in self._reads[node]
        } | set(extra)
        outputs = [
            v
            for node in nodes
            for v in node.outputs
            if v in later or (v.name in self._wanted and v.name)
        ]
        return Part(list(nodes), list(inputs), outputs)

    def run(self, part: Part) -> None:
        """Run a part in ONNX Runtime on all chunks and forget what nobody reads any more."""
        if part.nodes and part.outputs:
            import onnx_ir as ir

            from qcomp.execute import HybridSession

            on_disk = any(isinstance(chunk, DiskValues) for chunk in self.chunks)
            for value in part.inputs:
                if value.type is None:  # made by an operator of ONNX Runtime's own
                    dtype = self.chunks[0][value.name or ""].dtype
                    value.type = ir.TensorType(ir.DataType.from_numpy(dtype))
            session = HybridSession(_cut(self.program, part), inline=_INLINE if on_disk else None)
            names = [value.name or "" for value in part.inputs]
            for chunk in self.chunks:
                chunk.update(session.run({name: chunk[name] for name in names}))
        self._done.update(part.nodes)
        self.forget(())

    def tail(self) -> Callable[[Mapping[str, Array]], Mapping[str, Array]]:
        """What is left to run up to the values that are wanted, as a session of its own.

        Returns:
            A function of values that are held, by name, to those that are wanted.
        """
        from qcomp.execute import HybridSession

        nodes = self.missing([self._known[name] for name in self._wanted if name in self._known])
        part = self.part(nodes)
        part.outputs = [value for value in part.outputs if value.name in self._wanted]
        if not part.outputs:
            return lambda values: values
        session = HybridSession(_cut(self.program, part))
        names = [value.name or "" for value in part.inputs]

        def run(values: Mapping[str, Array]) -> Mapping[str, Array]:
            return {**values, **session.run({name: values[name] for name in names})}

        return run

    def forget(self, served: Iterable[str]) -> None:
        """Drop values that no node that is left reads; ``served`` are wanted no longer."""
        for name in served:
            self._wanted.pop(name, None)
        left = {
            value.name
            for node in self._order
            if node not in self._done
            for value in self._reads[node]
        }
        left |= set(self._wanted)
        for chunk in self.chunks:
            for name in [name for name in chunk if name not in left]:
                del chunk[name]


@dataclass(slots=True)
class Part:
    """Some nodes, the values they read and those that are read of them."""

    nodes: list[ir.Node]
    inputs: list[ir.Value]
    outputs: list[ir.Value]


def _cut(program: Program, part: Part) -> Program:
    """A program of its own out of some nodes; constants are shared."""
    import onnx_ir as ir

    made = {value for node in part.nodes for value in node.outputs}
    constants = dict.fromkeys(
        value
        for node in part.nodes
        for value in captured_values(node)
        if value not in made and not _is_handed(value)
    )
    makers = [maker for value in constants if (maker := value.producer()) is not None]
    view = ir.GraphView(
        part.inputs,
        part.outputs,
        nodes=[*dict.fromkeys(makers), *part.nodes],
        initializers=[value for value in constants if value.producer() is None],
        opset_imports=dict(program.model.graph.opset_imports),
        name="part",
    )
    model = ir.Model(view.clone(), ir_version=program.model.ir_version)
    return Program(model, program.circuits, program.source)


def _is_constant(node: ir.Node) -> bool:
    return node.op_type == "Constant" and node.domain == ""


def _is_handed(value: ir.Value) -> bool:
    """Whether a value is computed, or an input: no constant."""
    maker = value.producer()
    if maker is not None:
        return not _is_constant(maker)
    return value.is_graph_input() and not value.is_initializer()


_WEIGHTS = 1 << 28
"""Bytes of weights that are run at a time, if one operator has not more."""


def run_in_parts(
    program: Program, chunks: Sequence[Mapping[str, Array]], folder: Path
) -> Iterator[Mapping[str, Array]]:
    """Run a graph that may be larger than memory.

    Args:
        program: Without circuits; types and shapes are inferred.
        chunks: Inputs.
        folder: For the values between two parts.

    Yields:
        Graph outputs of each chunk.

    Raises:
        PassError: ONNX Runtime refuses a part.
    """
    import onnx_ir as ir

    for node in program.model.graph:
        if node.op_type == "MatMulNBits" and node.outputs[0].type is None:
            node.outputs[0].type = ir.TensorType(ir.DataType.FLOAT)
    infer_shapes(program)
    names = [value.name or "" for value in program.model.graph.outputs]
    stream = Stream(program, on_disk(chunks, folder), names)
    fixed = _made_of_constants(program.model.graph)
    nodes: dict[ir.Node, None] = {}
    size = 0

    def flush() -> None:
        part = stream.part([node for node in order if node in nodes])
        # What constants make is made again where it is read: kernels want it as a constant.
        part.outputs = [v for v in part.outputs if v.producer() not in fixed or v.name in names]
        stream.run(part)

    order = [node for node in program.model.graph if not _is_constant(node)]
    for node in order:
        if node in fixed and not any(value.is_graph_output() for value in node.outputs):
            continue
        stack = [node]
        while stack:
            taken = stack.pop()
            if taken in nodes:
                continue
            nodes[taken] = None
            tensors = [constant_tensor(value) for value in taken.inputs]
            size += sum(tensor.nbytes for tensor in tensors if tensor is not None)
            makers = [value.producer() for value in captured_values(taken)]
            stack += [maker for maker in makers if maker in fixed and maker is not None]
        if size >= _WEIGHTS and all(value.type is not None for value in node.outputs):
            flush()
            nodes, size = {}, 0
    flush()
    for chunk in stream.chunks:
        yield {name: chunk[name] for name in names}


def _made_of_constants(graph: ir.Graph) -> set[ir.Node]:
    """Operators that compute the same in every run."""
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type.startswith("Random") or _is_constant(node) or not node.inputs:
            continue
        makers = [v.producer() for v in captured_values(node) if _is_handed(v)]
        if all(maker is not None and maker in found for maker in makers):
            found.add(node)
    return found
