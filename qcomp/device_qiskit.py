"""Devices from Qiskit and to Qiskit: ``BackendV2`` and ``Target``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qcomp.device import Device
from qcomp.errors import UsageError
from qcomp.ir.gates import BY_NAME

if TYPE_CHECKING:
    from qiskit.transpiler import Target as QiskitTarget

__all__ = ["from_qiskit", "is_qiskit_device", "to_qiskit_target"]

_NO_GATES = ("measure", "reset", "barrier")
_TIMING = ("granularity", "min_length", "pulse_alignment", "acquire_alignment")


def is_qiskit_device(source: object) -> bool:
    """Whether an object is a Qiskit ``Target`` or has one, as a ``BackendV2`` does."""
    return any(
        base.__module__.startswith("qiskit.") and base.__name__ in ("Target", "BackendV2")
        for base in type(source).__mro__
    )


def from_qiskit(source: Any) -> Device:  # noqa: ANN401  BackendV2 or Target, checked here
    """Return the device of a Qiskit ``BackendV2`` or ``Target``, all figures as given there.

    Raises:
        UsageError: If it is neither, or does not say how many qubits it has.
    """
    if not is_qiskit_device(source):
        raise UsageError(
            f"an object of {type(source)} is no Qiskit backend or target",
            hint="give a BackendV2 or a qiskit.transpiler.Target",
        )
    target = getattr(source, "target", source)
    name = str(getattr(source, "name", None) or target.description or "qiskit-target")
    n = target.num_qubits
    if n is None:
        raise UsageError(f"the Qiskit target '{name}' does not say how many qubits it has")
    tables = {
        gate: {
            qubits: properties for qubits, properties in target[gate].items() if qubits is not None
        }
        for gate in target.operation_names
        if _is_gate(target, gate)
    }
    wide = [gate for gate, table in tables.items() if any(len(q) > 2 for q in table)]
    free = [gate for gate in tables if target[gate].get(None, 0) is None]
    rows = {q for gate, table in tables.items() if gate not in wide for q in table if len(q) == 2}
    everywhere = [g for g in free if target.operation_from_name(g).num_qubits == 2]
    if everywhere:
        pairs = Device.all_to_all(n).pairs
    else:
        pairs = np.array(sorted(rows), np.int32).reshape(-1, 2)
    index = {pair: i for i, pair in enumerate(map(tuple, pairs.tolist()))}
    errors: dict[str, NDArray[np.float64]] = {}
    durations: dict[str, NDArray[np.float64]] = {}
    for gate, table in tables.items():
        if gate in wide or gate in free:
            continue
        two = any(len(q) == 2 for q in table)
        for figures, attribute in ((errors, "error"), (durations, "duration")):
            column = np.full(len(pairs) if two else n, np.nan)
            for qubits, properties in table.items():
                value = getattr(properties, attribute, None)
                if value is not None:
                    column[index[qubits] if two else qubits[0]] = value
            if not np.isnan(column).all():
                figures[gate] = column
    t1, t2 = np.full(n, np.nan), np.full(n, np.nan)
    for qubit, properties in enumerate(target.qubit_properties or ()):
        for times, attribute in ((t1, "t1"), (t2, "t2")):
            value = getattr(properties, attribute, None)
            times[qubit] = np.nan if value is None else value
    return Device(
        name=name,
        num_qubits=n,
        pairs=pairs,
        gates=tuple(sorted(g for g in tables if g in BY_NAME and g not in (*wide, *_NO_GATES))),
        errors=errors,
        durations=durations,
        t1=t1,
        t2=t2,
        dt=target.dt,
        timing=_timing(target),
        notes=_notes(name, errors, index),
    )


def _is_gate(target: Any, name: str) -> bool:  # noqa: ANN401  a Qiskit target
    """Whether an operation is one that qcomp knows, and has places; control flow has none."""
    if name not in BY_NAME or isinstance(target.operation_from_name(name), type):
        return False
    return bool(target[name])


def _timing(target: Any) -> Mapping[str, int]:  # noqa: ANN401  a Qiskit target
    return MappingProxyType({key: int(getattr(target, key)) for key in _TIMING})


def _notes(name: str, errors: Mapping[str, Any], index: Mapping[Any, int]) -> tuple[str, ...]:
    notes = [f"figures as the Qiskit target of '{name}' gives them"]
    for gate, column in errors.items():
        unusable = int((column >= 1).sum())
        if unusable:
            what = "pairs" if len(column) == len(index) else "qubits"
            notes.append(f"{gate} has the error rate 1 (not usable) on {unusable} {what}")
    return tuple(notes)


def to_qiskit_target(device: Device, basis: tuple[str, ...]) -> QiskitTarget:
    """Return a Qiskit target of a device.

    Args:
        device: The device.
        basis: Gates of it; two-qubit gates stand on every pair, in the directions of the device.

    Raises:
        UsageError: If a gate is not in the gate table or acts on more than two qubits.
    """
    from qiskit.circuit import Delay, Gate, Measure, Parameter, Reset
    from qiskit.circuit.library import get_standard_gate_name_mapping
    from qiskit.transpiler import InstructionProperties, QubitProperties, Target

    qubits = None
    if not (np.isnan(device.t1).all() and np.isnan(device.t2).all()):
        qubits = [
            QubitProperties(t1=_or_none(a), t2=_or_none(b))
            for a, b in zip(device.t1.tolist(), device.t2.tolist(), strict=True)
        ]
    timing = {key: device.timing[key] for key in _TIMING if key in device.timing}
    target = Target(
        description=device.name,
        num_qubits=device.num_qubits,
        dt=device.dt,
        qubit_properties=qubits,
        **timing,
    )
    singles: list[tuple[int, ...]] = [(q,) for q in range(device.num_qubits)]
    couples: list[tuple[int, ...]] = [tuple(pair) for pair in device.pairs.tolist()]
    standard = get_standard_gate_name_mapping()
    for name in basis:
        gate = BY_NAME.get(name)
        if gate is None or gate.num_qubits not in (1, 2):
            raise UsageError(f"'{name}' is no gate of one or two qubits")
        angles = [Parameter(f"{name}_{i}") for i in range(gate.num_angles)]
        made = standard.get(name)
        if made is None:
            made = Gate(name, gate.num_qubits, angles)
        places = singles if gate.num_qubits == 1 else couples
        target.add_instruction(made, _properties(device, name, places, InstructionProperties))
    target.add_instruction(
        Measure(), _properties(device, "measure", singles, InstructionProperties)
    )
    target.add_instruction(Reset(), _properties(device, "reset", singles, InstructionProperties))
    target.add_instruction(Delay(Parameter("t")), dict.fromkeys(singles))
    return target


def _properties(
    device: Device,
    name: str,
    places: list[tuple[int, ...]],
    properties: Any,  # noqa: ANN401  Qiskit's class
) -> dict[tuple[int, ...], Any]:
    errors = device.errors.get(name)
    times = device.durations.get(name)
    if errors is None and times is None:
        return dict.fromkeys(places)
    blank = [None] * len(places)
    return {
        place: properties(error=error, duration=time)
        for place, error, time in zip(
            places,
            blank if errors is None else map(_or_none, errors.tolist()),
            blank if times is None else map(_or_none, times.tolist()),
            strict=True,
        )
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
