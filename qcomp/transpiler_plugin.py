"""The optimization stage ``qcomp`` of Qiskit's transpiler.

``transpile(circuit, backend, optimization_method="qcomp")`` lays out, routes and translates as
Qiskit does, and reduces the mapped circuit by qcomp's passes: on the pairs of qubits that it is on,
in the gates of the target. The layout stays as it is. Entry point of the group
``qiskit.transpiler.optimization``; Qiskit loads this module, nothing of qcomp imports it.
"""

from __future__ import annotations

import re
from typing import Any

from qiskit import QuantumCircuit
from qiskit.converters import circuit_to_dag, dag_to_circuit
from qiskit.dagcircuit import DAGCircuit
from qiskit.passmanager import ConditionalController
from qiskit.transpiler import PassManager, PassManagerConfig, TranspilerError
from qiskit.transpiler import Target as QiskitTarget
from qiskit.transpiler.basepasses import TransformationPass
from qiskit.transpiler.passes import (
    CheckGateDirection,
    ContractIdleWiresInControlFlow,
    GateDirection,
    GatesInBasis,
)
from qiskit.transpiler.preset_passmanagers.plugin import (
    PassManagerStagePlugin,
    PassManagerStagePluginManager,
)

from qcomp.backends.qiskit_circuit import to_qiskit
from qcomp.device import Device
from qcomp.errors import QcompError
from qcomp.frontends.qiskit_circuit import from_qiskit_with_slots
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import EFFORT_PIPELINES
from qcomp.target import Target
from qcomp.target_choice import target_for
from qcomp.target_pipelines import mapped_pipeline

__all__ = ["OptimizationStage", "ReduceGates", "stage_pipeline"]

_EFFORTS = {1: "fast", 2: "default", 3: "default"}
"""Optimization level -> effort; the effort max is a search of many seconds, ask for it by name."""

_MAPPING = re.compile(r"map-to-device(\{[^}]*\})?,")


class OptimizationStage(PassManagerStagePlugin):
    """Qiskit's door to qcomp: the pass manager of the stage."""

    def pass_manager(
        self, pass_manager_config: PassManagerConfig, optimization_level: int | None = None
    ) -> PassManager | None:
        """Return the stage's passes; none at level 0.

        Args:
            pass_manager_config: Qiskit's settings: target, seed, translation method.
            optimization_level: 1 for one sweep, 2 and 3 for all of the effort ``default``.
        """
        if optimization_level == 0:
            return None
        target = pass_manager_config.target
        effort = _EFFORTS.get(optimization_level or 2, "default")
        seed = pass_manager_config.seed_transpiler or 0
        stage = PassManager([ReduceGates(target, effort, seed), ContractIdleWiresInControlFlow()])
        if target is None or not target.operation_names:
            return stage
        # A target may have other gates on other pairs: what does not fit is translated there.
        translation = PassManagerStagePluginManager().get_passmanager_stage(
            "translation",
            pass_manager_config.translation_method or "default",
            pass_manager_config,
            optimization_level=optimization_level,
        )
        stage.append(
            [
                GatesInBasis(target=target),
                ConditionalController(
                    translation.to_flow_controller(),
                    condition=lambda properties: not properties["all_gates_in_basis"],
                ),
            ]
        )
        if target.build_coupling_map() is not None:
            stage.append(
                [
                    CheckGateDirection(None, target=target),
                    ConditionalController(
                        GateDirection(None, target=target),
                        condition=lambda properties: not properties["is_direction_mapped"],
                    ),
                ]
            )
        return stage


def stage_pipeline(target: Target | None, effort: str) -> str:
    """Return the pipeline that reduces a circuit of a target without moving it.

    Args:
        target: qcomp's own target; None for any gates.
        effort: fast, default or max.
    """
    if target is None:
        return EFFORT_PIPELINES[effort]
    text = mapped_pipeline(target, effort, target.pipelines[effort])
    return _MAPPING.sub("", text)


class ReduceGates(TransformationPass):
    """Reduce a circuit's gates by a pipeline of qcomp; what would not be less stays as it was.

    Args:
        target: Qiskit's target.
        effort: fast, default or max.
        seed: Seed of everything random.
    """

    def __init__(self, target: QiskitTarget | None, effort: str = "default", seed: int = 0) -> None:
        super().__init__()
        self.target = target
        self.effort = effort
        self.seed = seed

    def run(self, dag: DAGCircuit) -> DAGCircuit:
        """Return the reduced circuit on the same wires.

        Raises:
            TranspilerError: If the circuit holds what qcomp cannot keep, or the target has no gates
                that it knows.
        """
        source = dag_to_circuit(dag, copy_operations=False)
        try:
            circuit, slots = from_qiskit_with_slots(source)
            own = dict(zip(_rename(circuit), (*source.parameters, *slots), strict=True))
            program = Program.of_circuit(circuit)
            context = Context(seed=self.seed)
            if self.target is not None and self.target.operation_names and self.target.num_qubits:
                context.target = target_for(Device.from_qiskit(self.target))
            Pipeline.parse(stage_pipeline(context.target, self.effort)).run(program, context)
            reduced = to_qiskit(program.only_circuit)
        except QcompError as error:
            raise TranspilerError(f"qcomp: {error}") from error
        reduced.assign_parameters({p: own[p.name] for p in reduced.parameters}, inplace=True)
        result = source.copy_empty_like(vars_mode="drop")
        result.global_phase = 0
        result.compose(reduced, source.qubits, source.clbits, inplace=True, copy=False)
        return circuit_to_dag(result, False) if _price(result) < _price(source) else dag


def _rename(circuit: Circuit) -> tuple[str, ...]:
    """Give parameters names that none of the user's have, and return them."""
    names = tuple(f"_qcomp_{i}" for i in range(len(circuit.params)))
    new = dict(zip(circuit.params, names, strict=True))
    phase = circuit.global_phase
    terms = tuple(sorted((new[name], coefficient) for name, coefficient in phase.terms))
    circuit.global_phase = Angle(phase.frac, phase.rem, terms)
    circuit.params = names
    return names


def _price(circuit: QuantumCircuit) -> tuple[int, int]:
    """Return (gates on two and more qubits, operations), those of bodies included."""
    wide = total = 0
    for item in circuit.data:
        total += 1
        operation: Any = item.operation
        if hasattr(operation, "blocks"):
            for body in operation.blocks:
                inner = _price(body)
                wide, total = wide + inner[0], total + inner[1]
        elif len(item.qubits) > 1 and item.name != "barrier":
            wide += 1
    return wide, total
