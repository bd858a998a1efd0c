"""The well-formedness of an untrusted ONNX model: names, order, nesting, types, functions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx_ir as ir

from qcomp.frontends.onnx_tensors import MAX_ELEMENTS, Findings, check_tensor

__all__ = ["MAX_EXPANSION", "MAX_NESTING", "check_model"]

MAX_NESTING = 24
"""Subgraphs within subgraphs, and function calls within functions: more is an attack."""

MAX_EXPANSION = 20_000_000
"""Nodes after every function call is expanded, as a runtime does when it loads the model."""

_MIN_IR_VERSION = 3
_KNOWN_TYPES = frozenset(dtype.value for dtype in ir.DataType)
_Key = tuple[str, str, str]


def check_model(proto: onnx.ModelProto, folder: Path | None) -> Findings:
    """Check all that must hold before a model is turned into a graph in memory.

    1. The model has a graph with outputs, an IR version and operator sets this build knows.
    2. Each name is defined once in its graph; each name read is defined there or around it.
    3. No node depends on itself, over any number of others. (Nodes may stand in any order.)
    4. Subgraphs and function calls nest at most ``MAX_NESTING`` deep, no function calls itself,
       and all calls together expand to at most ``MAX_EXPANSION`` nodes.
    5. Each tensor's data fits its type and shape and lies in the model or in its folder.
    6. Types are known ones and no shape is absurd.

    Args:
        proto: The model.
        folder: Where external data may lie; None for a model without a folder.

    Returns:
        The faults and warnings met; nothing is raised for a fault unless there are a hundred.
    """
    findings = Findings()
    if not proto.HasField("graph"):
        findings.error("this is not an ONNX model: it has no graph")
        return findings
    _check_versions(proto, findings)
    if proto.training_info:
        findings.warnings.append("the model's training information is left out")
    checker = _Checker(folder, findings)
    if not proto.graph.output:
        findings.error("the graph has no outputs, so there is nothing to compute")
    checker.graph(proto.graph, [], 0, "the graph")
    for function in proto.functions:
        checker.function(function)
    if not findings.errors:
        _check_calls(proto, findings)
    return findings


def _check_versions(proto: onnx.ModelProto, findings: Findings) -> None:
    if not _MIN_IR_VERSION <= proto.ir_version <= onnx.IR_VERSION:
        findings.error(
            f"the model has ONNX IR version {proto.ir_version}; "
            f"{_MIN_IR_VERSION} to {onnx.IR_VERSION} can be read"
        )
    seen: dict[str, int] = {}
    newest = onnx.defs.onnx_opset_version()
    for opset in proto.opset_import:
        domain = "" if opset.domain == "ai.onnx" else opset.domain
        if seen.setdefault(domain, opset.version) != opset.version:
            findings.error(f"the operator set '{domain or 'ai.onnx'}' is imported in two versions")
        if domain == "" and not 1 <= opset.version <= newest:
            findings.error(f"the model uses opset {opset.version}; 1 to {newest} can be read")
    if not proto.opset_import:
        findings.error("the model imports no operator set")


@dataclass
class _Scope:
    """The names of one graph: whose they are, and the node that makes each."""

    given: set[str] = field(default_factory=set)
    maker: dict[str, int] = field(default_factory=dict)

    def __contains__(self, name: str) -> bool:
        return name in self.given or name in self.maker


class _Checker:
    """Walks the graphs of a model, with what it has found so far."""

    def __init__(self, folder: Path | None, findings: Findings) -> None:
        self.folder = folder
        self.findings = findings

    def graph(
        self, graph: onnx.GraphProto, around: list[_Scope], depth: int, where: str
    ) -> set[str]:
        """Check one graph and those in it; return the names it takes from around it."""
        findings = self.findings
        scope = _Scope()
        for info in graph.input:
            if not info.name or info.name in scope:
                findings.error(f"input '{info.name}' is defined twice or has no name", where)
            scope.given.add(info.name)
        stored: set[str] = set()
        for tensor in graph.initializer:
            self._initializer(tensor, scope, stored, where)
        for sparse in graph.sparse_initializer:
            findings.error(
                f"the sparse initializer '{sparse.values.name}' is not supported: "
                "store it as a dense one",
                where,
            )
        for info in (*graph.input, *graph.output, *graph.value_info):
            self._type(info.type, f"value '{info.name}'", 0)
        return self._body(graph.node, [i.name for i in graph.output], scope, around, depth, where)

    def function(self, function: onnx.FunctionProto) -> None:
        """Check the body of a function."""
        where = f"function '{function.domain}::{function.name}'"
        scope = _Scope()
        for name in function.input:
            if not name or name in scope:
                self.findings.error(f"input '{name}' is defined twice or has no name", where)
            scope.given.add(name)
        self._body(function.node, function.output, scope, [], 0, where)

    def _initializer(
        self, tensor: onnx.TensorProto, scope: _Scope, stored: set[str], where: str
    ) -> None:
        if not tensor.name:
            self.findings.error("an initializer without a name", where)
        elif tensor.name in stored:
            self.findings.error(f"initializer '{tensor.name}' is defined twice", where)
        stored.add(tensor.name)
        scope.given.add(tensor.name)
        check_tensor(tensor, f"initializer '{tensor.name}'", self.folder, self.findings)

    def _body(
        self,
        nodes: Sequence[onnx.NodeProto],
        outputs: Sequence[str],
        scope: _Scope,
        around: list[_Scope],
        depth: int,
        where: str,
    ) -> set[str]:
        findings = self.findings
        for index, node in enumerate(nodes):
            for name in node.output:
                if name and name in scope:
                    at = f"{_label(node, index)} in {where}"
                    findings.error(f"'{name}' is defined twice", at)
                elif name:
                    scope.maker[name] = index
        free: set[str] = set()
        needs: list[set[int]] = []
        for index, node in enumerate(nodes):
            reads = {name for name in node.input if name}
            label = f"{_label(node, index)} in {where}"
            if not node.op_type:
                findings.error("a node without an operator", label)
            reads |= self._attributes(node.attribute, [*around, scope], depth, label)
            needs.append({scope.maker[name] for name in reads if name in scope.maker})
            for name in sorted(reads):
                if name in scope:
                    continue
                free.add(name)
                if not any(name in outer for outer in around):
                    findings.error(f"'{name}' is read but nothing defines it", label)
        for name in outputs:
            if name not in scope:
                findings.error(f"the output '{name}' is not computed in it", where)
        self._check_cycles(nodes, needs, where)
        return free

    def _attributes(
        self,
        attributes: Sequence[onnx.AttributeProto],
        scopes: list[_Scope],
        depth: int,
        where: str,
    ) -> set[str]:
        reads: set[str] = set()
        seen: set[str] = set()
        kinds = onnx.AttributeProto
        for attribute in attributes:
            at = f"attribute '{attribute.name}' of {where}"
            if attribute.name in seen:
                self.findings.error("the attribute is given twice", at)
            seen.add(attribute.name)
            if attribute.ref_attr_name:
                continue
            if attribute.type == kinds.UNDEFINED:
                self.findings.error("the attribute has no type", at)
            elif attribute.type in (kinds.SPARSE_TENSOR, kinds.SPARSE_TENSORS):
                self.findings.error("sparse tensors are not supported: store a dense one", at)
            if attribute.type == kinds.TENSOR:
                check_tensor(attribute.t, at, self.folder, self.findings)
            for tensor in attribute.tensors:
                check_tensor(tensor, at, self.folder, self.findings)
            for proto in (attribute.tp, *attribute.type_protos):
                self._type(proto, at, 0)
            for graph in _graphs(attribute):
                if depth >= MAX_NESTING:
                    self.findings.error(f"graphs are nested more than {MAX_NESTING} deep", at)
                    self.findings.raise_if_any()
                reads |= self.graph(graph, scopes, depth + 1, f"graph '{graph.name}' of {where}")
        return reads

    def _type(self, proto: onnx.TypeProto, where: str, depth: int) -> None:
        kind = proto.WhichOneof("value")
        if depth > MAX_NESTING:
            self.findings.error("a type is nested too deep", where)
        elif kind in ("sequence_type", "optional_type"):
            self._type(getattr(proto, kind).elem_type, where, depth + 1)
        elif kind in ("map_type", "opaque_type"):
            self.findings.error(f"{kind.partition('_')[0]} types are not supported", where)
        elif kind is not None:
            tensor = getattr(proto, kind)
            if tensor.elem_type not in _KNOWN_TYPES:
                self.findings.error(f"unknown element type {tensor.elem_type}", where)
            dims = [dim.dim_value for dim in tensor.shape.dim if dim.HasField("dim_value")]
            # Old exporters write -1 where they mean an unknown dimension.
            if any(dim < -1 for dim in dims):
                self.findings.error(f"a dimension is negative: {min(dims)}", where)
            elif math.prod(dim for dim in dims if dim > 0) > MAX_ELEMENTS:
                self.findings.error("the shape is absurd: more elements than can exist", where)

    def _check_cycles(
        self, nodes: Sequence[onnx.NodeProto], needs: list[set[int]], where: str
    ) -> None:
        users: list[list[int]] = [[] for _ in nodes]
        waiting = [len(need) for need in needs]
        for index, need in enumerate(needs):
            for maker in sorted(need):
                users[maker].append(index)
        ready = [index for index, count in enumerate(waiting) if count == 0]
        done = 0
        while ready:
            done += 1
            for user in users[ready.pop()]:
                waiting[user] -= 1
                if waiting[user] == 0:
                    ready.append(user)
        if done == len(nodes):
            return
        at = next(index for index, count in enumerate(waiting) if count)
        path: list[int] = []
        while at not in path:
            path.append(at)
            at = min(maker for maker in needs[at] if waiting[maker])
        cycle = path[path.index(at) :]
        shown = [_label(nodes[index], index) for index in reversed(cycle[:8])]
        text = " -> ".join([*shown, shown[0]]) if len(cycle) <= 8 else " -> ".join(shown) + " ..."
        self.findings.error(f"the graph has a cycle of {len(cycle)} nodes: {text}", where)


def _check_calls(proto: onnx.ModelProto, findings: Findings) -> None:
    """Refuse functions that are defined twice, call themselves, or expand without bound."""
    bodies: dict[_Key, onnx.FunctionProto] = {}
    for function in proto.functions:
        key = (_domain(function.domain), function.name, function.overload)
        if key in bodies:
            findings.error(f"function '{function.domain}::{function.name}' is defined twice")
        bodies[key] = function
    sizes: dict[_Key, int] = {}

    def size(key: _Key, calls: tuple[_Key, ...]) -> int:
        if key in sizes:
            return sizes[key]
        name = f"{key[0]}::{key[1]}"
        if key in calls:
            findings.error(f"function '{name}' calls itself")
        elif len(calls) > MAX_NESTING:
            findings.error(f"function calls are nested more than {MAX_NESTING} deep", name)
        if findings.errors:
            return 0
        total = expanded(_nodes(bodies[key].node), (*calls, key))
        sizes[key] = total
        return total

    def expanded(nodes: Iterator[onnx.NodeProto], calls: tuple[_Key, ...]) -> int:
        total = 0
        for node in nodes:
            key = (_domain(node.domain), node.op_type, node.overload)
            total += 1 + (size(key, calls) if key in bodies else 0)
            if total > MAX_EXPANSION and not findings.errors:
                findings.error(
                    f"the model's function calls expand to more than {MAX_EXPANSION:,} nodes"
                )
            if findings.errors:
                break
        return total

    expanded(_nodes(proto.graph.node), ())
    for key in bodies:
        size(key, ())


def _nodes(nodes: Sequence[onnx.NodeProto]) -> Iterator[onnx.NodeProto]:
    """Give the nodes of a body and of all graphs in it (which nest within bounds by now)."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in _graphs(attribute):
                yield from _nodes(graph.node)


def _graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    one = [attribute.g] if attribute.HasField("g") else []
    return [*one, *attribute.graphs]


def _domain(domain: str) -> str:
    return "" if domain == "ai.onnx" else domain


def _label(node: onnx.NodeProto, index: int) -> str:
    name = f"'{node.name}'" if node.name else f"#{index}"
    return f"node {name} ({node.op_type})"
