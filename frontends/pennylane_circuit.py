"""Tapes of QNodes, and circuits of their steps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qcomp.errors import QcompError, SourceError
from qcomp.frontends.pennylane_lines import place_of
from qcomp.frontends.pennylane_steps import Step
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit

if TYPE_CHECKING:
    from pennylane.tape import QuantumScript

__all__ = ["build_circuit", "level_of", "name_of", "qubits_of", "tape_of"]

_FAITHFUL = frozenset(
    "cancel_inverses combine_global_phases commute_controlled compile decompose "
    "defer_measurements dynamic_one_shot broadcast_expand merge_amplitude_embedding "
    "merge_rotations optimize_tape pattern_matching_optimization remove_barrier "
    "single_qubit_fusion split_non_commuting split_to_single_terms transpile undo_swaps "
    "unitary_to_rot".split()
)
"""Transforms that change how a QNode is computed and not what: the circuit is taken before them."""


def build_circuit(
    steps: Sequence[Step],
    angles: Sequence[Angle],
    num_qubits: int,
    num_clbits: int,
    params: Sequence[str] = (),
    name: str = "circuit",
    final: Sequence[int] = (),
) -> Circuit:
    """Return the circuit of steps.

    Args:
        steps: The operations.
        angles: Their angles in order.
        num_qubits: Its qubits.
        num_clbits: The bits that the steps write.
        params: Its parameters in order.
        name: Its name.
        final: Qubits measured at the end, into bits after the others.
    """
    circuit = Circuit(num_qubits, num_clbits + len(final), params, name)
    todo = iter(angles)
    for step in steps:
        values = [next(todo) for _ in step.params]
        body = (
            circuit.if_(step.condition) if step.condition is not None else contextlib.nullcontext()
        )
        with body:
            if step.name == "barrier":
                circuit.barrier(*step.qubits)
            else:
                circuit.append(step.name, step.qubits, values, step.clbit)
    for bit, qubit in enumerate(final, num_clbits):
        circuit.measure(qubit, bit)
    return circuit


def name_of(qnode: Any) -> str:  # noqa: ANN401  a QNode
    """Return the name of a QNode's function."""
    return str(getattr(qnode.func, "__name__", "circuit"))


def level_of(qnode: Any) -> str:  # noqa: ANN401  a QNode
    """Return how far a QNode's own transforms are applied: not at all where all are faithful."""
    names = [
        getattr(step.tape_transform or step.transform, "__name__", "")
        for step in qnode.compile_pipeline
    ]
    return "top" if all(name in _FAITHFUL for name in names) else "user"


def tape_of(
    qnode: Any,  # noqa: ANN401  a QNode
    call: tuple[tuple[Any, ...], dict[str, Any]],
    level: str | None = None,
) -> QuantumScript:
    """Return the tape of a call.

    Args:
        qnode: The QNode.
        call: Its positional and keyword arguments.
        level: See :func:`level_of`; found when None.

    Raises:
        SourceError: If the QNode's function fails, or a transform makes several tapes of it.
    """
    args, kwargs = call
    level = level_of(qnode) if level is None else level
    try:
        tape = qnode.construct(args, kwargs)
        batch = qnode.compile_pipeline((tape,))[0] if level == "user" else (tape,)
    except QcompError:
        raise
    except Exception as error:  # a QNode is anybody's code
        raise SourceError(
            f"the circuit of the QNode '{name_of(qnode)}' cannot be built",
            where=place_of(error, name_of(qnode)),
            why=f"{type(error).__name__}: {str(error).strip()[:300]}",
            hint="a circuit may take tensors as angles, and not decide by their values",
        ) from error
    if len(batch) != 1:
        raise SourceError(
            f"a transform of the QNode '{name_of(qnode)}' makes {len(batch)} circuits of one",
            hint="take the transform off; qcomp has mitigation and cutting of its own",
        )
    return batch[0]


def qubits_of(tape: QuantumScript, qnode: Any) -> dict[Any, int]:  # noqa: ANN401  a QNode
    """Return wire -> qubit: in the device's order where it has one, only wires that are used."""
    known = qnode.device.wires
    order = list(tape.wires)
    if known is not None:
        all_read = any(not m.wires and m.mv is None for m in tape.measurements)
        used = set(order)
        order = [wire for wire in known if wire in used or all_read]
    return {wire: qubit for qubit, wire in enumerate(order)}
