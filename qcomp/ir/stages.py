"""Cutting a hybrid graph at its Circuit nodes into classical stages and circuit stages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcomp.errors import PassError
from qcomp.ir.program import Program, Readout, readout_of

__all__ = ["CircuitStage", "ClassicalStage", "Stage", "cut_into_stages", "stage_of_nodes"]


@dataclass(frozen=True, slots=True)
class ClassicalStage:
    """A graph without Circuit nodes, complete in itself.

    Attributes:
        model: The graph; its initializers are the program's own tensors, not copies.
        inputs: Values it takes: inputs of the program or values of earlier stages.
        outputs: Values that later stages or the program's outputs need.
    """

    model: ir.Model
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CircuitStage:
    """One Circuit node.

    Attributes:
        node: The node's name.
        circuit: The name of its circuit in the program.
        readout: What is measured.
        inputs: The node's inputs in order; concatenated on the last axis they are the circuit's
            parameters.
        output: The value it makes.
        constants: Those inputs that are trained weights, by name.
    """

    node: str
    circuit: str
    readout: Readout
    inputs: tuple[str, ...]
    output: str
    constants: Mapping[str, NDArray[np.generic]]


Stage = ClassicalStage | CircuitStage


def cut_into_stages(program: Program) -> list[Stage]:
    """Cut a program at its Circuit nodes.

    The stages run in the order given. Circuits that do not wait for one another follow directly
    one another, so there are as few classical stages as the longest chain of circuits allows.
    Where a node may run before or after a circuit, a minimum cut decides, so that as few values
    as possible are handed from one classical stage to a later one. Inputs of the program and
    constants cost nothing: every stage may take them. Cost: linear in the graph, plus the cut
    over the nodes that are free to move.

    Args:
        program: The program. It is not changed.

    Returns:
        The stages: for a program without Circuit nodes one classical stage.

    Raises:
        PassError: When a Circuit node stands in a subgraph or a function.
    """
    level, constants = _assign(program)
    graph = program.model.graph
    position = {node: index for index, node in enumerate(graph)}
    last = max(level.values(), default=0)
    classical: list[list[ir.Node]] = [[] for _ in range(last + 1)]
    circuits: list[list[ir.Node]] = [[] for _ in range(last + 1)]
    for node in graph:
        if node not in constants:
            (circuits if _is_circuit(program, node) else classical)[level[node]].append(node)
    needed = _needed_values(graph, level, constants, circuits)
    stages: list[Stage] = []
    for index in range(last + 1):
        outputs = [
            value
            for node in classical[index]
            for value in node.outputs
            if value in needed[index]
        ]
        outputs += _constant_outputs(graph, constants) if index == 0 else []
        if outputs:
            nodes = _live_nodes(classical[index], outputs, position)
            stages.append(_classical_stage(program, nodes, outputs, constants, position))
        stages += [_circuit_stage(node, constants) for node in circuits[index]]
    return stages


def stage_of_nodes(program: Program) -> dict[ir.Node, str]:
    """Return the stage that each node of the main graph runs in.

    Args:
        program: The program.

    Returns:
        ``classical-0``, ``circuit-0``, ``classical-1`` ... by node; constants, which every
        stage may copy, are not in it.

    Raises:
        PassError: When a Circuit node stands in a subgraph or a function.
    """
    level, constants = _assign(program)
    return {
        node: f"{'circuit' if _is_circuit(program, node) else 'classical'}-{level[node]}"
        for node in program.model.graph
        if node not in constants
    }


def captured_values(node: ir.Node) -> list[ir.Value]:
    """Return what a node reads: its inputs, and what its subgraphs take from around it."""
    values = [value for value in node.inputs if value is not None]
    for graph in _subgraphs(node):
        for inner in graph.all_nodes():
            values += [v for v in inner.inputs if v is not None and v.graph is node.graph]
        values += [v for v in graph.outputs if v.graph is node.graph]
    return list(dict.fromkeys(values))


def _subgraphs(node: ir.Node) -> Iterable[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _assign(program: Program) -> tuple[dict[ir.Node, int], set[ir.Node]]:
    """Return the stage number of each node, and the nodes that are constants."""
    graph = program.model.graph
    circuits = set(program.circuit_nodes())
    for node in circuits:
        if node.graph is not graph:
            raise PassError(
                "a Circuit node inside a subgraph or a function cannot be a stage of its own",
                where=f"node '{node.name}'",
                hint="unroll the loop or inline the function before the export",
            )
    constants = {
        node for node in graph if node.op_type == "Constant" and node.domain == "" and node.outputs
    }
    earliest: dict[ir.Node, int] = {}
    for node in graph:
        at = 0
        for value in captured_values(node):
            maker = value.producer()
            if maker is not None and maker not in constants:
                at = max(at, earliest[maker] + (1 if maker in circuits else 0))
        earliest[node] = at
    latest: dict[ir.Node, int] = {}
    last = max(earliest.values(), default=0)
    users = _users(graph)
    outputs = set(graph.outputs)
    for node in reversed(graph):
        at = last
        for user in users.get(node, ()):
            if node in circuits:
                at = min(at, latest[user] - 1)
            else:
                at = min(at, latest[user])
        fixed = node in circuits or any(value in outputs for value in node.outputs)
        latest[node] = earliest[node] if fixed or node in constants else at
    level = {node: at for node, at in earliest.items() if at == latest[node]}
    free = [node for node in graph if node not in level and node not in constants]
    if free:
        level |= _move(free, level, earliest, latest, users, constants, last)
    return level | {node: 0 for node in constants}, constants


def _users(graph: ir.Graph) -> dict[ir.Node, list[ir.Node]]:
    users: dict[ir.Node, list[ir.Node]] = {}
    for node in graph:
        for value in captured_values(node):
            maker = value.producer()
            if maker is not None and maker.graph is graph:
                users.setdefault(maker, []).append(node)
    return users


def _move(
    free: list[ir.Node],
    fixed: Mapping[ir.Node, int],
    earliest: Mapping[ir.Node, int],
    latest: Mapping[ir.Node, int],
    users: Mapping[ir.Node, list[ir.Node]],
    constants: set[ir.Node],
    last: int,
) -> dict[ir.Node, int]:
    """Place the nodes that may run in several stages, by one minimum cut for each boundary.

    At the boundary after stage k the source side is what runs at or before k. A value that is
    made on the source side and used on the other costs 1; a user on the source side pulls its
    makers there at any cost.
    """
    import networkx as nx

    moved: dict[ir.Node, int] = {}
    waiting = list(free)
    for boundary in range(last):
        undecided = {node for node in waiting if earliest[node] <= boundary}
        if not undecided:
            continue
        network = nx.DiGraph()
        network.add_nodes_from(("before", "after"))

        def side(node: ir.Node, at: int = boundary, among: set[ir.Node] = undecided) -> object:
            if node in among:
                return "after" if earliest[node] > at else node
            place = fixed.get(node, moved.get(node, last + 1))
            return "before" if place <= at else "after"

        makers = dict.fromkeys(
            maker
            for node in waiting
            for maker in (
                node,
                *(v.producer() for v in captured_values(node) if v.producer() is not None),
            )
            if maker is not None and maker not in constants
        )
        for node in waiting:
            if node in undecided and latest[node] <= boundary:
                network.add_edge("before", node)
        for maker in makers:
            start = side(maker)
            if start == "after":
                continue
            for value in maker.outputs:
                ends = {side(user) for user in users.get(maker, ()) if value in set(user.inputs)}
                if not ends or ends == {"before"}:
                    continue
                network.add_edge(start, value, capacity=1)
                for end in sorted(ends - {"before"}, key=str):
                    network.add_edge(value, end)
                    if end != "after":
                        network.add_edge(end, start)
        _, (source_side, _) = nx.minimum_cut(network, "before", "after")
        for node in list(waiting):
            if node in source_side and node in undecided:
                moved[node] = boundary
                waiting.remove(node)
    return moved | {node: last for node in waiting}
