"""Cutting a hybrid graph at its Circuit nodes: classical stages, circuits, loops over circuits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from qcomp.errors import PassError, UsageError, suggest
from qcomp.ir.loops import (
    LoopForm,
    body_of,
    body_program,
    has_circuits,
    is_loop_node,
    loop_form,
)
from qcomp.ir.program import Program, Readout, is_circuit_node, readout_of
from qcomp.ir.shapes import infer_shapes

__all__ = [
    "CircuitStage",
    "ClassicalStage",
    "LoopStage",
    "Stage",
    "captured_values",
    "cut_into_stages",
    "stage_of_nodes",
]


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
        dtype: Element type that the graph declares of the output, if it does.
    """

    node: str
    circuit: str
    readout: Readout
    inputs: tuple[str, ...]
    output: str
    constants: Mapping[str, NDArray[np.generic]]
    dtype: np.dtype[np.generic] | None


@dataclass(frozen=True, slots=True)
class LoopStage:
    """A Scan or Loop node with circuits in its body.

    Attributes:
        node: The node's name.
        form: What enters and leaves the body, by name.
        stages: What each step runs.
        inputs: Values that it takes: what the form names, and what the body reads around it.
        outputs: Values that it makes.
        constants: Those inputs that are constants, by name.
    """

    node: str
    form: LoopForm
    stages: tuple[Stage, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, NDArray[np.generic]]


Stage = ClassicalStage | CircuitStage | LoopStage


def cut_into_stages(
    program: Program, keep: Sequence[str] = (), *, outputs: bool = True
) -> list[Stage]:
    """Cut a program at its Circuit nodes, and at its loops over circuits.

    The stages run in the order given. Circuits that do not wait for one another follow directly
    one another, so there are as few classical stages as the longest chain of circuits allows.
    A node that only a later stage uses runs there unless that hands more values from stage to
    stage. Inputs of the program and constants cost nothing: every stage may take them. Cost:
    linear in the graph times the number of stages.

    Args:
        program: The program. At most types and shapes that it lacks are filled in.
        keep: Names of more values of the main graph that the stages give as outputs.
        outputs: Whether the program's outputs are wanted; else nodes that no value of ``keep``
            waits for are left out.

    Returns:
        The stages: for a program without Circuit nodes one classical stage.

    Raises:
        PassError: When a Circuit node stands in a function, a branch, or a loop inside a loop.
        UsageError: When a name in ``keep`` is no value of the main graph.
    """
    level, constants = _assign(program)
    graph = program.model.graph
    circuits = _quantum_nodes(program)
    if any(value.type is None for value in _handed_on(graph, level, circuits)):
        # What enters or leaves a stage needs a type, which a graph in the making may lack.
        infer_shapes(program)
    kept = _kept(graph, keep) | (set(graph.outputs) if outputs else set())
    needed = _needed_later(graph, level, circuits) | kept
    fixed = [value for value in graph.outputs if value.is_initializer() and outputs]
    fixed += [v for node in graph if node in constants for v in node.outputs if v in kept]
    dead: set[ir.Node] = set() if outputs else _without_use(graph, kept)
    stages: list[Stage] = []
    for index in range(max(level.values(), default=0) + 1):
        here = [
            node
            for node in graph
            if level[node] == index and node not in constants and node not in dead
        ]
        nodes = [node for node in here if node not in circuits]
        made = [value for node in nodes for value in node.outputs if value in needed]
        if index == 0:
            made += list(dict.fromkeys(fixed))
        if made:
            stages.append(_classical_stage(program, nodes, made, constants))
        stages += [_quantum_stage(program, node) for node in here if node in circuits]
    return stages


def stage_of_nodes(program: Program) -> dict[ir.Node, str]:
    """Return the stage that each node of the main graph runs in.

    Args:
        program: The program.

    Returns:
        ``classical-0``, ``circuit-0``, ``classical-1``, ``loop-1`` ... by node; the nodes of
        constants, which every stage may copy, are not in it.

    Raises:
        PassError: When a Circuit node stands in a function, a branch, or a loop inside a loop.
    """
    level, constants = _assign(program)
    quantum = _quantum_nodes(program)
    kinds = {node: "loop" if is_loop_node(node) else "circuit" for node in quantum}
    return {
        node: f"{kinds.get(node, 'classical')}-{level[node]}"
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
    circuits = _quantum_nodes(program)
    _check_places(program, circuits)
    constants = {node for node in graph if node.op_type == "Constant" and node.domain == ""}
    reads = {node: captured_values(node) for node in graph}
    users: dict[ir.Value, list[ir.Node]] = {}
    level = dict.fromkeys(constants, 0)
    for node in graph:
        for value in reads[node]:
            users.setdefault(value, []).append(node)
            maker = value.producer()
            if maker is not None:
                ready = level[maker] + (1 if maker in circuits else 0)
                level[node] = max(level.get(node, 0), ready)
        level.setdefault(node, 0)
    if circuits:
        _sink(graph, level, reads, users, circuits | constants)
    return level, constants


def _quantum_nodes(program: Program) -> set[ir.Node]:
    """Return the nodes of the main graph that are stages of their own: circuits and loops."""
    graph = program.model.graph
    return {node for node in graph if is_circuit_node(node) or is_loop_node(node)}


def _check_places(program: Program, quantum: set[ir.Node]) -> None:
    """Check that every Circuit node stands in the main graph, or in a loop of it."""
    for body in program.model.functions.values():
        for node in body.all_nodes():
            if is_circuit_node(node):
                raise _misplaced(node, "a function", "inline the function before the export")
    for outer in program.model.graph:
        for graph in _subgraphs(outer):
            if outer not in quantum:
                _refuse_circuits(graph, "a branch")
                continue
            for node in graph:
                for deeper in _subgraphs(node):
                    _refuse_circuits(deeper, "a loop or a branch in a loop")


def _refuse_circuits(graph: ir.Graph, what: str) -> None:
    if has_circuits(graph):
        node = next(node for node in graph.all_nodes() if is_circuit_node(node))
        raise _misplaced(node, what, "run it for both ways, or write the inner loop step by step")


def _misplaced(node: ir.Node, what: str, hint: str) -> PassError:
    return PassError(
        f"a Circuit node inside {what} cannot be a stage of its own",
        where=f"node '{node.name}'",
        hint=hint,
    )


def _sink(
    graph: ir.Graph,
    level: dict[ir.Node, int],
    reads: Mapping[ir.Node, list[ir.Value]],
    users: Mapping[ir.Value, list[ir.Node]],
    fixed: set[ir.Node],
) -> None:
    """Move each node to the first stage that uses it, where that hands on no more values."""
    for node in reversed(graph):
        used = [value for value in node.outputs if users.get(value)]
        if node in fixed or not used or any(value.is_graph_output() for value in node.outputs):
            continue
        target = min(level[user] for value in used for user in users[value])
        if target == level[node]:
            continue
        handed = 0
        for value in reads[node]:
            maker = value.producer()
            if maker is not None and maker not in fixed and level[maker] < target:
                others = (user for user in users[value] if user is not node)
                handed += not any(level[user] > level[maker] for user in others)
        if handed <= len(used):
            level[node] = target


def _kept(graph: ir.Graph, names: Sequence[str]) -> set[ir.Value]:
    known = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    known |= {value.name: value for node in graph for value in node.outputs}
    for name in names:
        if name not in known:
            raise UsageError(
                f"there is no value '{name}' in the graph",
                hint=suggest(name, [item for item in known if item]),
            )
    return {known[name] for name in names}


def _without_use(graph: ir.Graph, kept: set[ir.Value]) -> set[ir.Node]:
    """Return the nodes that no kept value waits for."""
    wanted = set(kept)
    dead: set[ir.Node] = set()
    for node in reversed(graph):
        if wanted.isdisjoint(node.outputs):
            dead.add(node)
        else:
            wanted.update(captured_values(node))
    return dead


def _handed_on(
    graph: ir.Graph, level: Mapping[ir.Node, int], circuits: set[ir.Node]
) -> Iterable[ir.Value]:
    """Give the values that enter a node from a node of another stage."""
    for node in graph:
        for value in captured_values(node):
            maker = value.producer()
            if maker is not None and (node in circuits or level[maker] != level[node]):
                yield value


def _needed_later(
    graph: ir.Graph, level: Mapping[ir.Node, int], circuits: set[ir.Node]
) -> set[ir.Value]:
    """Return the values that the program, a circuit or another stage takes from their stage."""
    needed: set[ir.Value] = set()
    for node in graph:
        for value in captured_values(node):
            maker = value.producer()
            if maker is not None and (node in circuits or level[maker] != level[node]):
                needed.add(value)
    return needed


def _classical_stage(
    program: Program, nodes: list[ir.Node], outputs: list[ir.Value], constants: set[ir.Node]
) -> ClassicalStage:
    """Copy nodes, and the constants and initializers they read, into a model of its own."""
    from onnx_ir.passes.common import RemoveUnusedFunctionsPass

    model = program.model
    made = {value for node in nodes for value in node.outputs}
    inputs: dict[ir.Value, None] = {}
    stored: dict[ir.Value, None] = {}
    copied: dict[ir.Node, None] = {}
    for value in [value for node in nodes for value in captured_values(node)] + outputs:
        maker = value.producer()
        if maker in constants:
            copied[maker] = None
        elif value.is_initializer():
            stored[value] = None
            if value.is_graph_input():
                inputs[value] = None
        elif value not in made:
            inputs[value] = None
    view = ir.GraphView(
        list(inputs),
        outputs,
        nodes=[*copied, *nodes],
        initializers=list(stored),
        opset_imports=dict(model.graph.opset_imports),
        name=model.graph.name,
    )
    stage = ir.Model(
        view.clone(),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=list(model.functions.values()),
    )
    drop_functions = RemoveUnusedFunctionsPass()  # type: ignore[no-untyped-call]
    drop_functions(stage)
    return ClassicalStage(
        stage,
        tuple(_name(value) for value in inputs if value not in stored),
        tuple(_name(value) for value in outputs),
    )


def _quantum_stage(program: Program, node: ir.Node) -> CircuitStage | LoopStage:
    return _circuit_stage(node) if is_circuit_node(node) else _loop_stage(program, node)


def _loop_stage(program: Program, node: ir.Node) -> LoopStage:
    form = loop_form(node)
    inputs: list[str] = []
    constants: dict[str, NDArray[np.generic]] = {}
    outside = set(node.inputs)
    body = body_program(program, node)
    around = {value.name for value in body.model.graph.inputs[len(body_of(node).inputs) :]}
    for value in captured_values(node):
        if value not in outside and value.name not in around:
            continue  # a constant, which the body has taken in
        inputs.append(_name(value))
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None and not value.is_graph_input():
            constants[_name(value)] = np.asarray(tensor.numpy())
    return LoopStage(
        node=node.name or _name(node.outputs[0]),
        form=form,
        stages=tuple(cut_into_stages(body)),
        inputs=tuple(inputs),
        outputs=form.outputs,
        constants=constants,
    )


def _circuit_stage(node: ir.Node) -> CircuitStage:
    inputs: list[str] = []
    constants: dict[str, NDArray[np.generic]] = {}
    for value in node.inputs:
        if value is None:
            raise PassError("a Circuit node has an input left out", where=f"node '{node.name}'")
        inputs.append(_name(value))
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is not None and not value.is_graph_input():
            constants[_name(value)] = np.asarray(tensor.numpy())
    dtype = node.outputs[0].dtype
    return CircuitStage(
        node=node.name or _name(node.outputs[0]),
        circuit=node.attributes["circuit"].as_string(),
        readout=readout_of(node),
        inputs=tuple(inputs),
        output=_name(node.outputs[0]),
        constants=constants,
        dtype=None if dtype is None else np.dtype(dtype.numpy()),
    )


def _name(value: ir.Value) -> str:
    if not value.name:
        raise PassError("a value without a name cannot be handed from stage to stage")
    return value.name
