"""The stages of an artifact: read from ``program.json``, checked, and run one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.artifact_format import MANIFEST
from qcomp.errors import SourceError
from qcomp.ir.loops import LoopForm, run_loop
from qcomp.registry import load as load_part

if TYPE_CHECKING:
    from qcomp.execute import Session
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Readout

__all__ = [
    "Answer",
    "Array",
    "CircuitPart",
    "GraphPart",
    "LoopPart",
    "Part",
    "Rows",
    "Walk",
    "check_flow",
    "check_type",
    "circuit_parts",
    "inside",
    "read_stages",
]

Array = NDArray[np.generic]
Rows = NDArray[np.float64]
Answer = Callable[[int, "Circuit", "Readout", Rows], Array | None]


@dataclass(frozen=True, slots=True)
class CircuitPart:
    """A circuit stage; ``place`` is its number among all stages, those inside of loops too.

    Its rotations by parameters become words within ``accuracies`` on every row, if there are any.
    """

    place: int
    file: str
    circuit: Circuit
    readout: Readout
    node: str
    inputs: tuple[str, ...]
    constants: Mapping[str, Array]
    output: str
    dtype: str | None
    accuracies: tuple[float, ...] = ()

    @property
    def outputs(self) -> tuple[str, ...]:
        """The value that it gives."""
        return (self.output,)


@dataclass(frozen=True, slots=True)
class GraphPart:
    """A classical stage."""

    path: Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LoopPart:
    """A loop: every step runs the stages in it."""

    node: str
    form: LoopForm
    stages: tuple[Part, ...]
    inputs: tuple[str, ...]
    constants: Mapping[str, Array]
    outputs: tuple[str, ...]


Part = CircuitPart | GraphPart | LoopPart


def circuit_parts(stages: Sequence[Part]) -> list[CircuitPart]:
    """Return the circuit stages, those inside of loops too."""
    found: list[CircuitPart] = []
    for stage in stages:
        if isinstance(stage, LoopPart):
            found += circuit_parts(stage.stages)
        elif isinstance(stage, CircuitPart):
            found.append(stage)
    return found


class Walk:
    """One run through the stages of an artifact.

    Args:
        answer: Called with the place of a circuit, the circuit, its readout and its rows. A place
            is the number of the stage and, in step t of a loop, t times the number of all stages
            more. It returns what is read out, or None where that is not known yet.
        session: Gives the ONNX Runtime session of a graph's file.
        places: The number of all stages.
    """

    def __init__(self, answer: Answer, session: Callable[[Path], Session], places: int) -> None:
        self._answer = answer
        self._session = session
        self._places = places

    def run(self, stages: Sequence[Part], values: dict[str, Any], shift: int = 0) -> None:
        """Run stages in order; stages that need what is not known yet are left out.

        Args:
            stages: The stages.
            values: Name -> array; gets what the stages give.
            shift: What is added to the place of a circuit.
        """
        done: set[int] = set()
        for index, stage in enumerate(stages):
            if index in done:
                continue
            if isinstance(stage, CircuitPart):
                same = _same_circuit(stages, index)
                done.update(same)
                parts = [stages[i] for i in same]
                self._run_circuits([p for p in parts if isinstance(p, CircuitPart)], values, shift)
                continue
            given = {**stage.constants, **values}
            if any(name not in given for name in stage.inputs):
                continue
            if isinstance(stage, GraphPart):
                session = self._session(stage.path)
                values |= session.run({name: given[name] for name in stage.inputs})
            else:
                values |= self._run_loop(stage, given, shift) or {}

    def _run_loop(
        self, loop: LoopPart, given: Mapping[str, Any], shift: int
    ) -> dict[str, Any] | None:
        around = {name: given[name] for name in loop.inputs}

        def step(number: int, feeds: dict[str, Any]) -> dict[str, Any] | None:
            inside = {**around, **feeds}
            self.run(loop.stages, inside, shift + number * self._places)
            return inside if all(name in inside for name in loop.form.leaves) else None

        return run_loop(loop.form, given, step)

    def _run_circuits(
        self, parts: Sequence[CircuitPart], values: dict[str, Any], shift: int
    ) -> None:
        """Run stages of one circuit as one batch, once all that they need is known."""
        from qcomp.execute import circuit_parameters

        first = parts[0]
        found = []
        for part in parts:
            given = [values.get(name, part.constants.get(name)) for name in part.inputs]
            if any(array is None for array in given):
                return
            found.append(circuit_parameters(given, part.circuit, part.node))
        rows = found[0][0] if len(found) == 1 else np.concatenate([rows for rows, _ in found])
        result = self._answer(first.place + shift, first.circuit, first.readout, rows)
        if result is None:
            return
        start = 0
        for part, (own, lead) in zip(parts, found, strict=True):
            shaped = result[start : start + len(own)].reshape(*lead, *result.shape[1:])
            start += len(own)
            values[part.output] = (
                shaped if part.dtype is None else shaped.astype(part.dtype, copy=False)
            )


def _same_circuit(stages: Sequence[Part], index: int) -> list[int]:
    """Return the stages of one level that run the circuit of stage ``index``, itself the first.

    Circuit stages that follow one another do not wait for one another.
    """
    first = stages[index]
    assert isinstance(first, CircuitPart)
    found = [index]
    for other in range(index + 1, len(stages)):
        stage = stages[other]
        if isinstance(stage, GraphPart):
            break
        if (
            isinstance(stage, CircuitPart)
            and stage.file == first.file
            and stage.readout == first.readout
        ):
            found.append(other)
    return found


def read_stages(folder: Path, entries: Sequence[Mapping[str, Any]]) -> tuple[list[Part], int]:
    """Return the stages that ``program.json`` lists, and how many there are with those in loops.

    Raises:
        SourceError: If a file does not fit its entry, or lies elsewhere.
    """
    reader = _Reader(folder)
    return [reader.part(entry) for entry in entries], reader.count


class _Reader:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.count = 0

    def part(self, entry: Mapping[str, Any]) -> Part:
        place = self.count
        self.count += 1
        kind = entry["kind"]
        if kind == "loop":
            return self._loop(entry)
        path = inside(self._folder, entry["file"])
        if kind == "graph":
            return GraphPart(path, _texts(entry["inputs"]), _texts(entry["outputs"]))
        if kind != "circuit":
            raise ValueError(f"'{kind}' is no kind of stage")
        return _circuit_part(place, path, entry)

    def _loop(self, entry: Mapping[str, Any]) -> LoopPart:
        form = LoopForm.from_dict(entry["form"])
        stages = tuple(self.part(inner) for inner in entry["stages"])
        if any(isinstance(stage, LoopPart) for stage in stages):
            raise ValueError("a loop stands in a loop")
        part = LoopPart(
            _text(entry["node"]),
            form,
            stages,
            _texts(entry["inputs"]),
            _constants(entry["constants"]),
            _texts(entry["outputs"]),
        )
        if not set(form.reads) <= set(part.inputs) or part.outputs != form.outputs:
            raise ValueError(f"the inputs and outputs of the loop '{part.node}' are not its form's")
        check_flow([*part.inputs, *form.enters], form.leaves, stages)
        return part


def _circuit_part(place: int, path: Path, entry: Mapping[str, Any]) -> CircuitPart:
    from qcomp.ir.layout import Layout
    from qcomp.ir.observable import Observable
    from qcomp.ir.program import Readout

    circuit = load_part("services", "read-qasm")(
        path.read_text(encoding="utf-8"), folder=path.parent, name=entry["circuit"]
    )
    if list(circuit.params) != entry["parameters"]:
        unknown = [name for name in circuit.params if name not in entry["parameters"]]
        if unknown and len(circuit.params) == len(entry["parameters"]):
            # The text has other names where a parameter is called like a gate.
            circuit.params = _texts(entry["parameters"])
        elif unknown:
            raise SourceError(f"'{path}' has parameters that program.json does not: {unknown}")
        else:
            circuit = circuit.with_params(entry["parameters"])
    if entry.get("layout") is not None:
        circuit.layout = Layout.from_dict(entry["layout"])
        if circuit.layout.num_physical != circuit.num_qubits:
            raise SourceError(f"the layout of '{path}' is one of another number of qubits")
    readout = entry["readout"]
    if entry["dtype"] is not None:
        check_type(entry["dtype"])
    return CircuitPart(
        place,
        path.name,
        circuit,
        Readout(
            readout["kind"],
            tuple(Observable.parse(text) for text in readout["observables"]),
            readout["shots"],
            tuple(readout["order"]),
        ),
        _text(entry["node"]),
        _texts(entry["inputs"]),
        _constants(entry["constants"]),
        _text(entry["output"]),
        entry["dtype"],
        tuple(float(value) for value in entry.get("accuracies", ())),
    )


def _constants(entries: Mapping[str, Mapping[str, Any]]) -> dict[str, Array]:
    return {
        name: np.array(entry["values"], dtype=entry["dtype"]).reshape(entry["shape"])
        for name, entry in entries.items()
    }


def check_flow(inputs: Sequence[str], outputs: Sequence[str], stages: Sequence[Part]) -> None:
    """Check that every stage reads what the inputs or an earlier stage give.

    Raises:
        ValueError: If one does not, or nothing gives an output.
    """
    known = set(inputs)
    for stage in stages:
        for name in stage.inputs:
            if name not in known and name not in stage.constants:
                raise ValueError(f"a stage reads '{name}', which nothing gives")
        known.update(stage.outputs)
    for name in outputs:
        if name not in known:
            raise ValueError(f"no stage gives the output '{name}'")


def inside(folder: Path, name: str) -> Path:
    """Return the path of a file of the artifact.

    Raises:
        SourceError: If the name leads out of the folder.
    """
    if Path(name).name != name:
        raise SourceError(f"'{MANIFEST}' names a file outside its folder: '{name}'")
    return folder / name


def check_type(dtype: object, shape: object = None) -> None:
    """Check that an element type is one, and that a shape is a list of sizes and names, or none.

    Raises:
        TypeError: If one is something else.
    """
    if not isinstance(dtype, str):
        raise TypeError(f"'{dtype}' is no element type")
    np.dtype(dtype)
    if shape is None:
        return
    if not isinstance(shape, list) or not all(isinstance(d, int | str | None) for d in shape):
        raise TypeError(f"'{shape}' is no shape")


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"'{value}' is no list of names")
    return tuple(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"'{value}' is no name")
    return value
