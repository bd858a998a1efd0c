"""The bundle: a folder with an ONNX graph a classical stage and a ``.qasm`` a circuit.

A loop over circuits is a stage with stages of its own, which every step runs.

``program.json`` is the table of contents: version, stages in the order they run, shapes, parameter
order, observables, targets and hashes. ``docs/program_format.md`` has the schema.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qcomp.angle_accuracies import RowAccuracies
from qcomp.artifact_format import FORMAT, MANIFEST, VERSION, sha256
from qcomp.binding import SlottedCircuits
from qcomp.errors import TargetError
from qcomp.ir.program import Program
from qcomp.ir.stages import CircuitStage, ClassicalStage, LoopStage, Stage, cut_into_stages
from qcomp.registry import load
from qcomp.run_plan import plan_entry

if TYPE_CHECKING:
    import onnx_ir as ir

    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["BundleBackend"]

Json = dict[str, object]


@dataclass(frozen=True, slots=True)
class BundleBackend:
    """Writes a program for a classical and a quantum machine at once.

    Attributes:
        graph: The classical machine; None leaves the graphs in float.
        circuit: The quantum machine; None writes circuits with all that the IR has.
    """

    graph: Target | None = None
    circuit: Target | None = None

    def write(self, program: Program, out: Path, context: Context) -> list[Path]:
        """Write the program into the folder ``out``, which exists and is empty.

        Args:
            program: The compiled program.
            out: The folder.
            context: Progress and warnings.

        Returns:
            The files written, ``program.json`` last.

        Raises:
            TargetError: If a machine cannot take its part.
            QcompError: If a file cannot be written.
        """
        files, stages = self._stages(program, cut_into_stages(program), out, "", context)
        graph = program.model.graph
        manifest: Json = {
            "format": FORMAT,
            "version": VERSION,
            "targets": {
                "graph": self.graph.name if self.graph else None,
                "circuit": self.circuit.name if self.circuit else None,
            },
            "machine": _machine(self.circuit),
            "inputs": [_value(v) for v in graph.inputs if not v.is_initializer()],
            "outputs": [_value(v) for v in graph.outputs],
            "stages": stages,
            "plan": plan_entry(stages),
            "files": {p.name: {"bytes": p.stat().st_size, "sha256": sha256(p)} for p in files},
        }
        path = out / MANIFEST
        path.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        return [*files, path]

    def _stages(
        self, program: Program, stages: Sequence[Stage], out: Path, prefix: str, context: Context
    ) -> tuple[list[Path], list[Json]]:
        files: list[Path] = []
        entries: list[Json] = []
        graphs = loops = 0
        for stage in stages:
            if isinstance(stage, ClassicalStage):
                path = out / f"{prefix}stage{graphs}.onnx"
                graphs += 1
                written, entry = self._graph_stage(stage, path, context)
            elif isinstance(stage, LoopStage):
                inside = f"{prefix}loop{loops}_"
                loops += 1
                written, inner = self._stages(program, stage.stages, out, inside, context)
                entry = _loop_entry(stage, inner)
            else:
                written, entry = self._circuit_stage(program, stage, out, context)
            files += written
            entries.append(entry)
        return files, entries

    def _graph_stage(
        self, stage: ClassicalStage, path: Path, context: Context
    ) -> tuple[list[Path], Json]:
        backend = load("backends", self.graph.backend if self.graph else "onnx")()
        written = backend.write(Program(stage.model), path, self.graph, context)
        entry: Json = {
            "kind": "graph",
            "file": path.name,
            "inputs": list(stage.inputs),
            "outputs": list(stage.outputs),
        }
        return written, entry

    def _circuit_stage(
        self, program: Program, stage: CircuitStage, out: Path, context: Context
    ) -> tuple[list[Path], Json]:
        circuit = program.circuits[stage.circuit]
        path = out / f"{stage.circuit}.qasm"
        if self.circuit is not None and self.circuit.kind != "circuit":
            raise TargetError(f"'{self.circuit.name}' is no quantum target")
        written: list[Path] = []
        if not path.exists():
            backend = load("backends", self.circuit.backend if self.circuit else "openqasm3")()
            single = Program.of_circuit(circuit, stage.readout)
            written = backend.write(single, path, self.circuit, context)
        readout = stage.readout
        entry: Json = {
            "kind": "circuit",
            "file": path.name,
            "node": stage.node,
            "circuit": stage.circuit,
            "qubits": circuit.num_qubits,
            "clbits": circuit.num_clbits,
            "parameters": list(circuit.params),
            "parameter_form": "slots" if stage.circuit in _slotted(context) else "affine",
            "accuracies": _accuracies(circuit.name, context),
            "layout": None if circuit.layout is None else circuit.layout.to_dict(),
            "inputs": list(stage.inputs),
            "constants": {name: _array(array) for name, array in stage.constants.items()},
            "output": stage.output,
            "dtype": None if stage.dtype is None else str(stage.dtype),
            "readout": {
                "kind": readout.kind,
                "observables": [str(observable) for observable in readout.observables],
                "shots": readout.shots,
                "order": list(readout.order),
            },
        }
        return written, entry


def _loop_entry(stage: LoopStage, inner: list[Json]) -> Json:
    return {
        "kind": "loop",
        "node": stage.node,
        "form": stage.form.to_dict(),
        "inputs": list(stage.inputs),
        "constants": {name: _array(array) for name, array in stage.constants.items()},
        "outputs": list(stage.outputs),
        "stages": inner,
    }


def _slotted(context: Context) -> Collection[str]:
    """Return the names of the circuits whose parameters are slots that the graph computes."""
    found = context.get(SlottedCircuits)
    return found.errors if found else ()


def _accuracies(name: str, context: Context) -> list[float]:
    """Return how near the words of rotations by parameters are to come, in order."""
    found = context.get(RowAccuracies)
    return [] if found is None else list(found.in_order.get(name, ()))


def _machine(target: Target | None) -> Json | None:
    """Return what a quantum target was: it need not have a name that is still there."""
    if target is None:
        return None
    device = target.device
    return {
        "gates": list(target.basis),
        "profile": target.profile,
        "device": None if device is None else device.name,
    }


def _array(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> Mapping[str, object]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "values": array.ravel().tolist()}


def _value(value: ir.Value) -> Mapping[str, object]:
    shape = None
    if value.shape is not None:
        shape = [d if isinstance(d, int) else str(d) for d in value.shape]
    dtype = value.dtype.numpy().name if value.dtype is not None else None
    return {"name": value.name, "dtype": dtype, "shape": shape}
