"""Loops over circuits: what a Scan or Loop node with Circuit nodes inside does, step by step.

Only such loops are taken apart; any other runs in ONNX Runtime as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.errors import PassError, UsageError
from qcomp.ir.program import Program, is_circuit_node

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Carried",
    "Collected",
    "LoopForm",
    "Scanned",
    "body_of",
    "body_program",
    "has_circuits",
    "is_loop_node",
    "loop_form",
    "run_loop",
]

BODY = "body"
"""Attribute of Scan and Loop that holds the body."""


@dataclass(frozen=True, slots=True)
class Carried:
    """A value that goes from step to step.

    Attributes:
        initial: The value outside that it has at first.
        enters: The body's input.
        leaves: The body's output.
        output: The value outside that it has in the end; "" if nobody asks.
    """

    initial: str
    enters: str
    leaves: str
    output: str


@dataclass(frozen=True, slots=True)
class Scanned:
    """A sequence of which each step takes one element.

    Attributes:
        value: The value outside.
        enters: The body's input.
        axis: Its axis of steps.
        reverse: Whether the last element comes first.
    """

    value: str
    enters: str
    axis: int = 0
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Collected:
    """A sequence to which each step adds one element.

    Attributes:
        leaves: The body's output.
        output: The value outside.
        axis: Its axis of steps.
        reverse: Whether the first element comes last.
    """

    leaves: str
    output: str
    axis: int = 0
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class LoopForm:
    """What a loop does with its body, by the names of values; "" for what it does not have.

    Attributes:
        carried: Values that go from step to step.
        scanned: Sequences that are read; they say how many steps there are.
        collected: Sequences that are written.
        count: The value outside that says how many steps there are at most.
        counter: The body's input that holds the number of the step.
        condition: The value outside that says whether there is a first step.
        going: The body's input that holds the same.
        goes_on: The body's output that says whether there is a next step.
    """

    carried: tuple[Carried, ...] = ()
    scanned: tuple[Scanned, ...] = ()
    collected: tuple[Collected, ...] = ()
    count: str = ""
    counter: str = ""
    condition: str = ""
    going: str = ""
    goes_on: str = ""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the values that the loop gives."""
        made = [item.output for item in self.carried] + [item.output for item in self.collected]
        return tuple(name for name in made if name)

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of the values outside that the loop itself reads."""
        names = [item.initial for item in self.carried] + [item.value for item in self.scanned]
        return tuple(names + [name for name in (self.count, self.condition) if name])

    @property
    def enters(self) -> tuple[str, ...]:
        """Names of the body's inputs that the loop gives."""
        names = [item.enters for item in self.carried] + [item.enters for item in self.scanned]
        return tuple(names + [name for name in (self.counter, self.going) if name])

    @property
    def leaves(self) -> tuple[str, ...]:
        """Names of the body's outputs."""
        names = [item.leaves for item in self.carried] + [item.leaves for item in self.collected]
        return tuple(names + ([self.goes_on] if self.goes_on else []))

    def to_dict(self) -> dict[str, Any]:
        """Return the form as plain data."""
        return asdict(self)

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> LoopForm:
        """Return the form of what :meth:`to_dict` gave.

        Raises:
            TypeError: If the data is something else.
        """
        fields = dict(data)
        return LoopForm(
            tuple(Carried(**item) for item in fields.pop("carried")),
            tuple(Scanned(**item) for item in fields.pop("scanned")),
            tuple(Collected(**item) for item in fields.pop("collected")),
            **fields,
        )


def is_loop_node(node: ir.Node) -> bool:
    """Whether a node is a loop with circuits in its body."""
    loops = node.op_type in ("Scan", "Loop") and node.domain == ""
    return loops and BODY in node.attributes and has_circuits(body_of(node))


def body_of(node: ir.Node) -> ir.Graph:
    """Return the body of a loop."""
    return node.attributes[BODY].as_graph()


def has_circuits(graph: ir.Graph) -> bool:
    """Whether a graph, or a graph inside of it, has Circuit nodes."""
    return any(is_circuit_node(node) for node in graph.all_nodes())


def loop_form(node: ir.Node) -> LoopForm:
    """Return what a Scan or Loop node does.

    Raises:
        PassError: If the node is not well-formed.
    """
    body = body_of(node)
    try:
        return _scan_form(node, body) if node.op_type == "Scan" else _loop_form(node, body)
    except (IndexError, ValueError) as error:
        raise PassError(
            f"the {node.op_type} node does not fit its body",
            where=f"node '{node.name}'",
            why=f"{len(node.inputs)} inputs and {len(node.outputs)} outputs, the body has "
            f"{len(body.inputs)} and {len(body.outputs)}",
        ) from error


def _scan_form(node: ir.Node, body: ir.Graph) -> LoopForm:
    scans = node.attributes["num_scan_inputs"].as_int()
    states = len(node.inputs) - scans
    if states < 0 or len(body.inputs) != len(node.inputs):
        raise ValueError("sizes differ")

    def listed(name: str, count: int) -> Sequence[int]:
        found = node.attributes.get(name)
        return [0] * count if found is None else found.as_ints()

    collects = len(node.outputs) - states
    return LoopForm(
        _carried(node.inputs[:states], body.inputs, body.outputs, node.outputs),
        tuple(
            Scanned(_name(value), _name(enters), axis, bool(backwards))
            for value, enters, axis, backwards in zip(
                node.inputs[states:],
                body.inputs[states:],
                listed("scan_input_axes", scans),
                listed("scan_input_directions", scans),
                strict=True,
            )
        ),
        _collected(
            body.outputs[states:],
            node.outputs[states:],
            listed("scan_output_axes", collects),
            listed("scan_output_directions", collects),
        ),
    )


def _loop_form(node: ir.Node, body: ir.Graph) -> LoopForm:
    states = len(node.inputs) - 2
    if len(body.inputs) != len(node.inputs) or len(body.outputs) != len(node.outputs) + 1:
        raise ValueError("sizes differ")
    collects = len(node.outputs) - states
    return LoopForm(
        _carried(node.inputs[2:], body.inputs[2:], body.outputs[1:], node.outputs),
        (),
        _collected(
            body.outputs[1 + states :], node.outputs[states:], [0] * collects, [0] * collects
        ),
        count=_name(node.inputs[0]) if node.inputs[0] is not None else "",
        counter=_name(body.inputs[0]),
        condition=_name(node.inputs[1]) if node.inputs[1] is not None else "",
        going=_name(body.inputs[1]),
        goes_on=_name(body.outputs[0]),
    )


def _carried(
    initial: Sequence[ir.Value | None],
    enters: Sequence[ir.Value],
    leaves: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
) -> tuple[Carried, ...]:
    return tuple(
        Carried(_name(initial[i]), _name(enters[i]), _name(leaves[i]), outputs[i].name or "")
        for i in range(len(initial))
    )


def _collected(
    leaves: Sequence[ir.Value],
    outputs: Sequence[ir.Value],
    axes: Sequence[int],
    directions: Sequence[int],
) -> tuple[Collected, ...]:
    return tuple(
        Collected(_name(value), output.name or "", axis, bool(backwards))
        for value, output, axis, backwards in zip(leaves, outputs, axes, directions, strict=True)
    )


def _name(value: ir.Value | None) -> str:
    if value is None or not value.name:
        raise PassError("a value of a loop has no name, or is left out")
    return value.name


def body_program(program: Program, node: ir.Node) -> Program:
    """Return a loop's body as a program of its own.

    Its inputs are the body's and, after them, the values that the body takes from around it, under
    their names; constants from around it are its own initializers. Circuits are shared.

    Args:
        program: The program.
        node: A loop of its main graph; nothing of it is changed.
    """
    import onnx_ir as ir

    body, model = body_of(node), program.model
    around: dict[ir.Value, None] = {}
    stored: dict[ir.Value, None] = dict.fromkeys(body.initializers.values())
    copied: dict[ir.Node, None] = {}
    outer = [v for inner in body.all_nodes() for v in inner.inputs if _is_outer(v, node)]
    for value in [*outer, *(v for v in body.outputs if _is_outer(v, node))]:
        assert value is not None
        maker = value.producer()
        if maker is not None and maker.op_type == "Constant" and maker.domain == "":
            copied[maker] = None
        elif value.is_initializer() and not value.is_graph_input():
            stored[value] = None
        else:
            around[value] = None
    view = ir.GraphView(
        [*body.inputs, *around],
        body.outputs,
        nodes=[*copied, *body],
        initializers=list(stored),
        opset_imports=dict(model.graph.opset_imports),
        name=body.name,
    )
    made = ir.Model(
        view.clone(),
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        functions=list(model.functions.values()),
    )
    result = Program(made, {}, program.source)
    result.circuits = program.circuits
    return result


def _is_outer(value: ir.Value | None, node: ir.Node) -> bool:
    return value is not None and value.graph is node.graph


def run_loop(
    form: LoopForm,
    values: Mapping[str, Any],
    step: Callable[[int, dict[str, Any]], Mapping[str, Any] | None],
) -> dict[str, Any] | None:
    """Run a loop.

    Args:
        form: The loop.
        values: Values outside by name.
        step: Called with the number of the step and the body's inputs that the loop gives; returns
            the body's outputs by name, or None where they are not known yet.

    Returns:
        The loop's outputs by name; None where a step is not known yet.

    Raises:
        UsageError: If sequences have different lengths, or there is no step to collect from.
    """
    total = _steps(form, values)
    state = {item.enters: np.asarray(values[item.initial]) for item in form.carried}
    sequences = {
        item.enters: np.moveaxis(np.asarray(values[item.value]), item.axis, 0)[
            :: -1 if item.reverse else 1
        ]
        for item in form.scanned
    }
    parts: dict[str, list[Any]] = {item.leaves: [] for item in form.collected}
    going = bool(np.all(values[form.condition])) if form.condition else True
    number = 0
    while going and (total is None or number < total):
        feeds = {**state, **{name: array[number] for name, array in sequences.items()}}
        if form.counter:
            feeds[form.counter] = np.asarray(number, np.int64)
            feeds[form.going] = np.asarray(going)
        made = step(number, feeds)
        if made is None:
            return None
        state = {item.enters: made[item.leaves] for item in form.carried}
        for name, part in parts.items():
            part.append(made[name])
        if form.goes_on:
            going = bool(np.all(made[form.goes_on]))
        number += 1
    if not number and form.collected:
        raise UsageError(
            "a loop over no steps has no outputs", hint="give sequences of at least one step"
        )
    result = {item.output: state[item.enters] for item in form.carried if item.output}
    for item in form.collected:
        part = parts[item.leaves][:: -1 if item.reverse else 1]
        if item.output:
            result[item.output] = np.stack(part, axis=item.axis)
    return result


def _steps(form: LoopForm, values: Mapping[str, Any]) -> int | None:
    """Return how many steps there are at most; None where nothing limits them."""
    lengths = {item.value: np.shape(values[item.value])[item.axis] for item in form.scanned}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
        raise UsageError(f"the sequences of a loop have different lengths: {listed}")
    limits = [*lengths.values()]
    if form.count:
        limits.append(int(np.asarray(values[form.count]).reshape(-1)[0]))
    return min(limits) if limits else None
