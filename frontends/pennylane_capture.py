"""A QNode as torch code on the operator ``qcomp::circuit``: its angles stay expressions.

The QNode's tape is built and never run, so neither its device nor its ``diff_method`` matters. An
angle that is an element of an argument, or affine in some, stays in the circuit; for any other the
tape is built again at each call with the tensors of the call, and what is computed there becomes
part of the exported graph (:mod:`qcomp.frontends.pennylane_angles`).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pennylane as qml
import torch
from pennylane import pytrees
from torch.utils import _pytree as pytree

from qcomp import registry
from qcomp.errors import SourceError
from qcomp.frontends.pennylane_angles import Leaf, Slot, angle_forms, identifier
from qcomp.frontends.pennylane_circuit import (
    build_circuit,
    level_of,
    name_of,
    qubits_of,
    tape_of,
)
from qcomp.frontends.pennylane_decisions import decisions_refused
from qcomp.frontends.pennylane_lines import lines_of_operations
from qcomp.frontends.pennylane_readout import Output, Reading, readings_of
from qcomp.frontends.pennylane_steps import Step, Steps, is_tensor, steps_of
from qcomp.ir.angle import Angle, Parameter

if TYPE_CHECKING:
    from pennylane.tape import QuantumScript

__all__ = ["CapturedQNode"]


class CapturedQNode:
    """A QNode that answers by the operator ``qcomp::circuit``.

    Args:
        qnode: The QNode; its device is not used.
        args: Example positional arguments.
        kwargs: Example keyword arguments.

    Attributes:
        qnode: The QNode.
        gives_list: Whether it returns a list of measurements.
        structure: The text of its circuits and of what is read of them.

    Raises:
        SourceError: If it cannot be captured, with the operation and its line.
    """

    def __init__(self, qnode: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:  # noqa: ANN401
        self.qnode = qnode
        self._exact = False
        self._level = level_of(qnode)
        values, self._spec = pytree.tree_flatten((args, kwargs))
        self._leaves = _leaves(qnode, values, args, kwargs)
        tapes: list[QuantumScript] = []
        steps: list[Steps] = []
        for which in (0, 1):
            call = self._drawn(values, which)
            line_of = self._line_finder(call)
            with decisions_refused(name_of(qnode)):
                tapes.append(tape_of(qnode, call, self._level))
            self._qubits = qubits_of(tapes[0], qnode)
            steps.append(steps_of(tapes[-1], self._qubits, line_of))
        self._shots = _shots(tapes[0])
        self.gives_list = type(qnode._qfunc_output) is list
        _, self._result = pytrees.flatten(
            qnode._qfunc_output,
            is_leaf=lambda value: isinstance(value, qml.measurements.MeasurementProcess),
        )
        self._steps = steps[0]
        _same_steps(steps[0], steps[1], line_of)
        try:
            self._readings, self._outputs = readings_of(tapes[0], steps[0], self._qubits)
        except SourceError as error:
            error.where = error.where or f"the QNode '{name_of(qnode)}'"
            raise
        self._build(steps, line_of)

    def _build(self, steps: Sequence[Steps], line_of: Callable[[int], str]) -> None:
        """Make the circuits: angles as forms of the arguments, or as slots."""
        places = [step.origin for step in steps[0].steps for _ in step.params]
        first, second = ([value for step in s.steps for value in step.params] for s in steps)
        found = angle_forms(first, second, self._leaves)
        angles: list[Angle] = []
        self._slots: dict[bool, list[int]] = {True: [], False: []}
        for place, form in enumerate(found):
            if form is None:
                raise SourceError(
                    "an angle is a plain number that changes with the data",
                    where=line_of(places[place]),
                    why="it was taken out of torch by .item(), .detach().numpy(), float() or the "
                    "like, and would be kept as it is",
                    hint="compute angles with torch functions",
                )
            if isinstance(form, Slot):
                self._slots[form.batched].append(place)
                form = Parameter(f"angle_{place}")
            angles.append(form)
        self._leaves = [leaf for leaf in self._leaves if leaf.used]
        params = [name for leaf in self._leaves for name in leaf.names()]
        params += [f"angle_{place}" for kind in (True, False) for place in self._slots[kind]]
        name = identifier(getattr(self.qnode.func, "__name__", "circuit"))
        remember = registry.load("services", "remember-circuit")

        def call_of(reading: Reading) -> tuple[str, str, str, str]:
            turned = [Angle.of(float(value)) for step in reading.before for value in step.params]
            circuit = build_circuit(
                (*self._steps.steps, *reading.before),
                (*angles, *turned),
                len(self._qubits),
                len(self._steps.bits),
                params,
                name,
                reading.final,
            )
            text = circuit.to_qasm3()
            remember(text, circuit)
            return name, text, reading.kind, ";".join(reading.observables)

        self._calls = [call_of(reading) for reading in self._readings]
        self._exact_calls = [call_of(reading.exact) for reading in self._readings]
        self.structure = "\n".join(str(part) for call in self._calls for part in call)

    # --- running -------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  what the QNode gives
        """Return what the QNode gives."""
        return self.run(self.qnode, args, kwargs)

    def run(self, qnode: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401
        """Return what a QNode of the same function gives, its closures being its own."""
        read = self._read(qnode, args, kwargs)
        results = [self._output(output, read[output.reading]) for output in self._outputs]
        return pytrees.unflatten(results, self._result)

    def fits(self, qnode: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:  # noqa: ANN401
        """Whether another QNode makes the same circuit, its angles aside.

        A QNode that is defined inside a ``forward`` is another object at each call, and one
        function may make QNodes of different circuits.
        """
        if qnode is self.qnode:
            return True
        tape = tape_of(qnode, (args, kwargs), self._level)
        if qubits_of(tape, qnode) != self._qubits or _shots(tape) != self._shots:
            return False
        steps = steps_of(tape, self._qubits)
        if _kinds(steps) != _kinds(self._steps):
            return False
        return readings_of(tape, steps, self._qubits)[0] == self._readings

    def joined(self, kwargs: dict[str, Any]) -> torch.Tensor:
        """Return the results side by side on the last axis, as a TorchLayer joins a list."""
        read = self._read(self.qnode, (), kwargs)
        if all(output.kind == "column" for output in self._outputs):
            columns = [output.columns[0] for output in self._outputs]
            if columns == list(range(read[0].shape[-1])):
                return read[0]
        results = [self._output(output, read[output.reading]) for output in self._outputs]
        return torch.cat(
            [
                result[..., None] if self._is_number(output) else result
                for output, result in zip(self._outputs, results, strict=True)
            ],
            dim=-1,
        )

    def _is_number(self, output: Output) -> bool:
        return output.scalar or output.kind in ("column", "variance")

    def _read(
        self,
        qnode: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],  # noqa: ANN401
    ) -> list[torch.Tensor]:
        """Return what each reading gives."""
        values, spec = pytree.tree_flatten((args, kwargs))
        if spec != self._spec:
            raise SourceError(f"the QNode '{name_of(qnode)}' is called with other arguments")
        inputs = [leaf.input_of(values[leaf.position]) for leaf in self._leaves]
        if any(self._slots.values()):
            inputs += self._slot_inputs(qnode, args, kwargs)
        if not inputs:
            inputs = [torch.zeros(0, dtype=torch.float64)]
        shots = 0 if self._exact else self._shots
        operator = torch.ops.qcomp.circuit
        calls = self._exact_calls if self._exact else self._calls
        return [operator(inputs, *call, shots, 0) for call in calls]

    def _slot_inputs(
        self,
        qnode: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],  # noqa: ANN401
    ) -> list[torch.Tensor]:
        """Return the angles that are computed here: those with a batch axis, those without."""
        tape = tape_of(qnode, (args, kwargs), self._level)
        steps = steps_of(tape, self._qubits)
        _same_steps(self._steps, steps, lambda index: f"operation {index} of '{name_of(qnode)}'")
        params = [value for step in steps.steps for value in step.params]
        return [
            torch.stack([torch.as_tensor(params[place]).double() for place in places], dim=-1)
            for places in self._slots.values()
            if places
        ]

    def _output(self, output: Output, values: torch.Tensor) -> torch.Tensor:
        if output.kind == "column":
            return values[..., output.columns[0]]
        if output.kind == "variance":
            square, mean = (values[..., column] for column in output.columns)
            return square - mean * mean
        if output.kind == "matrix":
            result = values @ torch.as_tensor(output.matrix, dtype=values.dtype)
            return result[..., 0] if output.scalar else result
        if self._readings[output.reading].kind == "samples":
            return values if self._exact else values.long()
        bits = len(self._steps.bits)
        if bits:
            return values.reshape(*values.shape[:-1], -1, 1 << bits).sum(-1)
        return values

    @contextlib.contextmanager
    def exact(self) -> Iterator[None]:
        """Take no shots in the block; samples become the distribution that they are drawn from."""
        before, self._exact = self._exact, True
        try:
            yield
        finally:
            self._exact = before

    def reference(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  what the QNode gives
        """Return what PennyLane's own exact simulator gives for the QNode."""
        return self.exact_qnode()(*args, **kwargs)

    def exact_qnode(self) -> Any:  # noqa: ANN401  a QNode
        """Return a QNode of the same function on PennyLane's exact simulator, without shots."""
        wires = None if self._steps.bits else self.qnode.device.wires  # measured bits take wires
        device = qml.device("default.qubit", wires=wires)
        exact = qml.QNode(self.qnode.func, device, interface="torch", diff_method=None)
        exact._compile_pipeline = self.qnode.compile_pipeline
        sampled = any(reading.kind == "samples" for reading in self._readings)
        return _distributions(exact) if sampled else exact

    # --- capturing -----------------------------------------------------------------------

    def _drawn(self, values: Sequence[Any], which: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with a draw in the place of each leaf."""
        values = [v.detach() if isinstance(v, torch.Tensor) else v for v in values]
        for leaf in self._leaves:
            values[leaf.position] = leaf.draws[which]
        args, kwargs = pytree.tree_unflatten(values, self._spec)
        return args, kwargs

    def _line_finder(self, call: tuple[tuple[Any, ...], dict[str, Any]]) -> Callable[[int], str]:
        def line_of(index: int) -> str:
            with lines_of_operations() as lines:
                tape = tape_of(self.qnode, call, self._level)
            name = name_of(self.qnode)
            if index < len(tape.operations) and id(tape.operations[index]) in lines:
                return f"{lines[id(tape.operations[index])]}, in the QNode '{name}'"
            return f"operation {index} of the QNode '{name}'"

        return line_of


@qml.transform
def _distributions(tape: QuantumScript) -> Any:  # noqa: ANN401  tapes and a function
    """Put the distribution that samples are drawn from in their place."""
    measured = [
        qml.probs(wires=process.wires or tape.wires)
        if isinstance(process, qml.measurements.SampleMP)
        else process
        for process in tape.measurements
    ]
    return [tape.copy(measurements=measured)], lambda results: results[0]


def _shots(tape: QuantumScript) -> int:
    if tape.shots.has_partitioned_shots:
        raise SourceError("a QNode with several numbers of shots cannot be captured")
    return int(tape.shots.total_shots or 0)


def _leaves(
    qnode: Any,  # noqa: ANN401  a QNode
    values: Sequence[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> list[Leaf]:
    """Return the floating-point tensors among the arguments, drawn twice."""
    random = torch.Generator().manual_seed(1)
    names = list(inspect.signature(qnode.func).parameters)
    paths, _ = pytree.tree_flatten_with_path((args, kwargs))
    leaves: list[Leaf] = []
    taken: set[str] = set()
    for position, ((path, _), value) in enumerate(zip(paths, values, strict=True)):
        if not isinstance(value, torch.Tensor) or not value.is_floating_point():
            continue
        key = path[1].key if hasattr(path[1], "key") else path[1].idx
        argument = names[key] if isinstance(key, int) and key < len(names) else str(key)
        name = identifier("_".join([argument, *(_key_text(k) for k in path[2:])]))
        while name in taken:
            name += "_"
        taken.add(name)
        first, second = (_draw(value, random) for _ in range(2))
        leaves.append(Leaf(position, name, (first, second)))
    return leaves


def _key_text(key: Any) -> str:  # noqa: ANN401  a key of a pytree
    return str(getattr(key, "key", getattr(key, "idx", "")))


def _draw(value: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Return other values in the range that a tensor has."""
    values = value.detach().double().cpu()
    low, high = (float(values.min()), float(values.max())) if values.numel() else (0.0, 1.0)
    if not high > low:
        low, high = low - 0.5, high + 0.5
    drawn = low + (high - low) * torch.rand(values.shape, generator=random, dtype=torch.float64)
    return drawn.to(value.device).requires_grad_()


def _same_steps(first: Steps, second: Steps, line_of: Callable[[int], str]) -> None:
    """Check that two tapes differ in angles alone.

    Raises:
        SourceError: If they do not.
    """
    for one, two in zip(first.steps, second.steps, strict=False):
        if replace(one, params=(), origin=0) != replace(two, params=(), origin=0):
            raise _depends(
                f"one time it is {_text(one)}, another {_text(two)}", line_of(two.origin)
            )
    if len(first.steps) != len(second.steps):
        longer = max(first.steps, second.steps, key=len)
        extra = longer[min(len(first.steps), len(second.steps))]
        raise _depends(f"{_text(extra)} is there one time only", line_of(extra.origin))


def _kinds(steps: Steps) -> list[tuple[Step, list[object]]]:
    """Return the steps without their tensors, and their plain numbers."""
    return [
        (
            replace(step, params=(), origin=0),
            [None if is_tensor(value) else complex(value) for value in step.params],
        )
        for step in steps.steps
    ]


def _text(step: Step) -> str:
    return f"{step.name} on {', '.join(map(str, step.qubits)) or 'nothing'}"


def _depends(why: str, where: str) -> SourceError:
    return SourceError(
        "the circuit's structure depends on data",
        where=where,
        why=why,
        hint="let the data choose angles, not gates: a rotation by 0 is no gate",
    )
