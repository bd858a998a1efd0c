"""What would be sent, as plain data: for ``--dry-run`` and for JSON."""

from __future__ import annotations

from typing import Any

from qcomp.ir.layout import active_wires
from qcomp.submit.plan import Plan, settings_of
from qcomp.submit.provider import Machine

__all__ = ["preview"]


def preview(planned: Plan, machine: Machine) -> dict[str, Any]:
    """Return what a plan would send to a machine and what it would cost; nothing is sent.

    Args:
        planned: The plan.
        machine: The device; an offline one is enough.

    Returns:
        ``circuits`` (one entry a setting: qubits in use, depth, two-qubit gates, rows, shots),
        ``groups``, ``rows``, ``tasks``, ``shots`` in all, ``estimate``, ``notes``.

    Raises:
        TargetError: If the machine cannot run the circuits.
    """
    settings = settings_of(planned.calls)
    machine.check(settings)
    tasks = len(machine.split(settings))
    circuits = []
    for setting in settings:
        stats = setting.circuit.stats()
        circuits.append(
            {
                "name": setting.name,
                "qubits": int(active_wires(setting.circuit).sum()),
                "depth": stats.depth,
                "two_qubit": stats.two_qubit,
                "gates": stats.gates,
                "measured": stats.measurements,
                "rows": len(setting.rows),
                "shots": setting.shots,
            }
        )
    estimate = machine.estimate(settings, tasks)
    notes = list(estimate.notes)
    if planned.later:
        notes.append(
            f"{planned.later} more of the artifact's circuits need these results: they follow, "
            "and are not counted here"
        )
    return {
        "circuits": circuits,
        "groups": sum(len(call.groups) for call in planned.calls),
        "tasks": tasks,
        "shots": sum(len(s.rows) * s.shots for s in settings),
        "estimate": {
            "price": estimate.price,
            "currency": estimate.currency,
            "seconds": estimate.seconds,
        },
        "notes": notes,
    }
