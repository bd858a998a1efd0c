"""The choice of a target: names, files and live machines, narrowed by what the user asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from qcomp.device import Device, get_device
from qcomp.device_json import all_faults, read_json
from qcomp.device_qiskit import is_qiskit_device
from qcomp.errors import TargetError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME
from qcomp.target import Limit, Native, Target, parse_targets, with_pipelines

__all__ = ["check_fit", "choose_targets", "coupling_of", "device_of", "target_for"]

_IBM = {"cz", "ecr", "rz", "sx", "x", "rx", "rzz"}
_DIRECTED = ("ecr",)
"""Gates that a machine has in one direction on each pair."""


def choose_targets(
    target: object,
    *,
    device: object = None,
    coupling: object = None,
    initial_layout: Sequence[int] | None = None,
    mapping: bool = True,
    fractional: bool = False,
) -> tuple[Target | None, Target | None]:
    """Return the (graph, circuit) targets that a user asks for.

    Args:
        target: What :func:`~qcomp.target.parse_targets` takes; None for the target that has the
            gates of ``device``.
        device: A device's name, a JSON file, a :class:`~qcomp.device.Device`, or a Qiskit backend
            or target: the machine that circuits are mapped to.
        coupling: Coupled pairs, or a file with them, in place of a device.
        initial_layout: The physical qubit of each qubit of the circuit.
        mapping: Whether circuits are mapped to the machine.
        fractional: Whether the gates of the machine's fractional mode are used.

    Raises:
        UsageError: If a name is unknown, a file cannot be read, or the choices do not go together.
        TargetError: If the device does not have the target's gates, or is not connected.
    """
    if device is not None and coupling is not None:
        raise UsageError("a device and a coupling were given", hint="give one of them")
    chosen = None if device is None else device_of(device)
    if target is None:
        if chosen is None:
            raise UsageError("there is no target", hint="give -t, see 'qcomp targets'")
        target, chosen = target_for(chosen), None
    graph, circuit = parse_targets(target)
    asked = device is not None or coupling is not None or initial_layout is not None
    if circuit is None:
        if asked or fractional:
            raise UsageError(
                "devices and fractional gates are for quantum targets, none was named",
                hint="join one, such as cpu-int8+ibm-heron",
            )
        return graph, None
    if coupling is not None:
        chosen = coupling_of(coupling, directed=any(name in _DIRECTED for name in circuit.basis))
    if fractional:
        circuit = circuit.with_fractional()
    if chosen is not None:
        circuit = circuit.on(chosen)
    if not mapping:
        circuit = circuit.without_mapping()
    if initial_layout is not None:
        circuit = circuit.with_layout(initial_layout)
    return graph, circuit


def device_of(source: object) -> Device:
    """Return the device that an object stands for.

    Raises:
        UsageError: If it is none: an unknown name, a file at fault, another object.
    """
    if isinstance(source, Device):
        return source
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith(".json")):
        return Device.from_json(source)
    if isinstance(source, str):
        return get_device(source)
    if is_qiskit_device(source):
        return Device.from_qiskit(source)
    raise UsageError(
        f"an object of {type(source)} is no device",
        hint="give a name such as fake_torino, a JSON file, a Device, or a Qiskit backend",
    )


def target_for(device: Device) -> Target:
    """Return the target of a device that says its gates: couplings and figures are the device's.

    Raises:
        TargetError: If it has no gates that circuits can be written in.
    """
    basis = tuple(name for name in device.gates if name != "id")
    single = [name for name in basis if BY_NAME[name].num_qubits == 1]
    if not single or len(single) == len(basis):
        raise TargetError(
            f"the device '{device.name}' lacks one- or two-qubit gates",
            why="of the gates that qcomp knows it has: " + (", ".join(basis) or "none"),
            hint="name a target: -t ibm-heron --device ...",
        )
    is_ibm = set(basis) <= _IBM
    target = Target(
        name=device.name,
        title="made of the device",
        description=" ".join(device.notes),
        kind="circuit",
        backend="openqasm3",
        basis=basis,
        profile="ibm" if is_ibm else "full",
        native=Native(
            one_qubit="-".join(single),
            virtual=("rz",) if is_ibm else (),
            limits=(Limit("rzz", 0, 0.0, 0.5),) if is_ibm and "rzz" in basis else (),
        ),
        machine=device,
    )
    return with_pipelines(target)


def coupling_of(source: object, *, directed: bool = False) -> Device:
    """Return the device of coupled pairs.

    Args:
        source: Pairs, a Qiskit ``CouplingMap``, or a file: a JSON list of pairs, a device in JSON,
            or text with a pair a line.
        directed: Whether a pair may be used only as it stands.

    Raises:
        UsageError: If the file cannot be read or is no list of pairs; all faults are named.
        TargetError: If the pairs do not connect all their qubits.
    """
    name = "coupling"
    if isinstance(source, str | Path):
        name = Path(source).name
        data = _read_pairs(Path(source))
    elif isinstance(source, Device):
        data = source
    elif hasattr(source, "get_edges"):
        data = [list(edge) for edge in source.get_edges()]
    elif isinstance(source, Iterable):
        data = [list(pair) for pair in source]
    else:
        raise UsageError(f"an object of {type(source)} is no coupling")
    if isinstance(data, list):
        data = _device(data, name, directed)
    if not data.is_connected:
        parts = [part for part in data.components() if len(part) > 1]
        raise TargetError(
            f"the coupling '{data.name}' is not connected",
            why=f"it falls into {len(parts)} parts, "
            + " and ".join(_some(part.tolist()) for part in parts[:3]),
            hint="add the pairs between them, or give one part",
        )
    return data


def _some(qubits: list[int]) -> str:
    return "{" + ", ".join(map(str, qubits[:6])) + (", ..." if len(qubits) > 6 else "") + "}"


def _device(pairs: list[Any], name: str, directed: bool) -> Device:
    """Return the device of a list of pairs, repeated ones dropped.

    Raises:
        UsageError: If one is no pair of qubits; all faults are named.
    """
    faults = []
    for i, pair in enumerate(pairs):
        if not (
            isinstance(pair, list)
            and len(pair) == 2
            and all(isinstance(q, int) and not isinstance(q, bool) and 0 <= q for q in pair)
            and pair[0] != pair[1]
        ):
            faults.append(f"entry {i} is {json.dumps(pair, default=str)[:40]}")
    if not pairs:
        faults.append("it is empty")
    if faults:
        raise all_faults(f"'{name}' is no list of pairs of qubits", faults)
    return Device.from_pairs(pairs, name=name, directed=directed)


def _read_pairs(path: Path) -> Any:  # noqa: ANN401  a list of entries to be checked, or a device
    """Return a file's pairs, or its device."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not text", hint="give pairs of qubits") from error
    if text.lstrip()[:1] in ("[", "{"):
        data = read_json(path)
        return Device.from_json({"name": path.name, **data}) if isinstance(data, dict) else data
    pairs, faults = [], []
    for number, line in enumerate(text.splitlines(), 1):
        words = re.split(r"[\s,;:-]+", line.partition("#")[0].strip())
        if words == [""]:
            continue
        if len(words) == 2 and all(word.isdecimal() and len(word) < 10 for word in words):
            pairs.append([int(word) for word in words])
        else:
            faults.append(f"line {number}: {line.strip()[:40]}")
    if faults:
        raise all_faults(f"'{path}' is no list of pairs of qubits", faults)
    return pairs


def check_fit(target: Target, circuits: Iterable[tuple[str, Circuit]]) -> None:
    """Check that circuits fit on a machine.

    Raises:
        TargetError: If one has more qubits than the machine.
        UsageError: If the initial layout is for another number of qubits.
    """
    hardware = target.hardware
    for name, circuit in circuits:
        if hardware is not None and circuit.num_qubits > len(hardware.present):
            raise TargetError(
                f"the circuit '{name}' has {circuit.num_qubits} qubits, "
                f"'{hardware.name}' has {len(hardware.present)}",
                hint="take a larger device, or drop qubits that are not used",
            )
        layout = target.initial_layout
        if layout is not None and len(layout) != circuit.num_qubits:
            raise UsageError(
                f"the initial layout places {len(layout)} qubits, "
                f"the circuit '{name}' has {circuit.num_qubits}"
            )
