"""Targets: what a machine can do, as data. One TOML file a target in ``qcomp/targets``."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from qcomp.errors import TargetError, UsageError, suggest
from qcomp.registry import load, table

if TYPE_CHECKING:
    from qcomp.device import Device
    from qcomp.integer_rules import IntegerRules

__all__ = [
    "EFFORTS",
    "Limit",
    "Native",
    "Target",
    "get_target",
    "parse_targets",
    "target_names",
    "target_of",
]

EFFORTS = ("fast", "default", "max")


@dataclass(frozen=True, slots=True)
class Limit:
    """What a machine demands of an angle of one of its gates.

    Attributes:
        gate: The gate.
        angle: Which of its angles.
        least: Least value, units of pi.
        most: Greatest value, units of pi.
        step: The angle is a multiple of this, units of pi; 0 for any.
    """

    gate: str
    angle: int
    least: float
    most: float
    step: float = 0.0


@dataclass(frozen=True, slots=True)
class Native:
    """How a machine's gates are meant.

    Attributes:
        one_qubit: Its one-qubit gates as ``fuse-one-qubit`` takes them, such as ``rz-sx-x``.
        virtual: Gates that are a change of frame: no pulse, no time, no error.
        fractional: Gates that the machine has in a mode of its own, which ``--fractional`` asks
            for; some have to be chosen when a job is submitted.
        limits: What it demands of angles.
        conventions: How the vendor defines and counts its gates, in words.
    """

    one_qubit: str = ""
    virtual: tuple[str, ...] = ()
    fractional: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    conventions: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A machine that programs are compiled for.

    Attributes:
        name: The name that ``-t`` takes.
        title: One line.
        description: What it is and when to choose it.
        kind: ``circuit`` (quantum machine, OpenQASM) or ``graph`` (classical accelerator, ONNX).
        backend: Name of the backend that writes for it.
        basis: Gates of a quantum machine; empty where every gate of the table is taken.
        profile: OpenQASM profile of the backend.
        pipelines: Effort -> pipeline text, without the mapping to a device.
        requires: Facts a graph pipeline cannot do without: ``calibration`` or nothing.
        fusions: Op types of the integer kernels that the backend counts on.
        integers: Which integers a graph target takes, and where; None for those of CPUs.
        native: How the gates are meant.
        machine: The device, or what a description of one holds; ``device`` is made of it.
        mapped: Whether circuits are mapped to the device's couplings.
        initial_layout: Where the user wants the circuit's qubits, the physical qubit of each; None
            leaves that to the mapping.
    """

    name: str
    title: str
    description: str
    kind: str
    backend: str
    basis: tuple[str, ...] = ()
    profile: str = "full"
    pipelines: Mapping[str, str] = field(default_factory=dict)
    requires: tuple[str, ...] = ()
    fusions: tuple[str, ...] = ()
    integers: IntegerRules | None = None
    native: Native = field(default_factory=Native)
    machine: Device | Mapping[str, Any] | None = field(default=None, compare=False, repr=False)
    mapped: bool = True
    initial_layout: tuple[int, ...] | None = field(default=None, compare=False)
    _cache: dict[str, Device] = field(default_factory=dict, init=False, repr=False, compare=False)

    def pipeline(self, effort: str = "default") -> str:
        """Return the pipeline text of an effort, with the mapping to the device where there is one.

        ``default`` stands in for an effort that is not given.

        Raises:
            UsageError: If the effort is unknown.
        """
        if effort not in EFFORTS:
            raise UsageError(f"there is no effort '{effort}'", hint=suggest(effort, EFFORTS))
        from qcomp.target_pipelines import mapped_pipeline

        text = self.pipelines.get(effort, self.pipelines["default"])
        return mapped_pipeline(self, effort, text) if self.kind == "circuit" else text

    @property
    def device(self) -> Device | None:
        """What circuits are mapped to; None where they stay on their own qubits.

        Raises:
            UsageError: If the target's description of it is no device.
        """
        return self.hardware if self.mapped else None

    @property
    def hardware(self) -> Device | None:
        """The machine or lattice, whether circuits are mapped to it or not.

        Raises:
            UsageError: If the target's description of it is no device.
        """
        if self.machine is None or not isinstance(self.machine, Mapping):
            return self.machine
        if "device" not in self._cache:
            from qcomp.device import Device

            self._cache["device"] = Device.from_json({"name": self.name, **self.machine})
        return self._cache["device"]

    def on(self, device: Device) -> Target:
        """Return the target narrowed to one machine or lattice.

        Raises:
            TargetError: If the machine does not have the target's gates.
        """
        if self.kind != "circuit":
            raise TargetError(f"'{self.name}' is no quantum machine, it takes no device")
        lacking = [name for name in self.basis if name not in device.gates]
        if device.gates and lacking:
            raise TargetError(
                f"the device '{device.name}' lacks gates of '{self.name}': {', '.join(lacking)}",
                why=f"it has {', '.join(device.gates)}",
                hint="leave out --fractional"
                if set(lacking) <= set(self.native.fractional)
                else _fitting(device.gates) or "describe the machine in JSON: -t machine.json",
            )
        return replace(self, machine=device, mapped=True)

    def with_fractional(self) -> Target:
        """Return the target with the gates of its fractional mode.

        Raises:
            UsageError: If it has no such mode.
        """
        if not self.native.fractional:
            known = [n for n in target_names() if get_target(n).native.fractional]
            raise UsageError(
                f"'{self.name}' has no fractional gates", hint=f"{', '.join(known)} have some"
            )
        more = tuple(name for name in self.native.fractional if name not in self.basis)
        return with_pipelines(replace(self, basis=(*self.basis, *more)))

    def with_layout(self, layout: Sequence[int]) -> Target:
        """Return the target with a place for each of the circuit's qubits.

        Raises:
            UsageError: If there is no device, or the places are not distinct qubits of it.
        """
        device = self.device
        if device is None:
            raise UsageError(
                f"circuits for '{self.name}' are not mapped, so their qubits cannot be placed",
                hint="leave out --no-map" if self.machine else "give --device or --coupling",
            )
        there = set(device.present.tolist())
        strange = [q for q in layout if q not in there]
        if strange:
            raise UsageError(
                f"the initial layout names the qubit {strange[0]}",
                why=f"'{device.name}' has {len(there)} qubits, {min(there)} to {max(there)}",
            )
        if len(set(layout)) != len(layout):
            raise UsageError("the initial layout puts two qubits in one place")
        return replace(self, initial_layout=tuple(layout))

    def without_mapping(self) -> Target:
        """Return the target for circuits that keep their own qubits."""
        return replace(self, mapped=False)


def with_pipelines(target: Target) -> Target:
    """Return the target with the pipelines that its gates ask for."""
    from qcomp.target_pipelines import target_pipelines

    return replace(target, pipelines=MappingProxyType(target_pipelines(target)))


def _fitting(gates: tuple[str, ...]) -> str:
    """Return a hint to the first target whose gates are among these."""
    for name in _own_names():
        target = get_target(name)
        if target.kind == "circuit" and target.machine and set(target.basis) <= set(gates):
            return f"-t {name}"
    return ""


@functools.cache
def _own_names() -> tuple[str, ...]:
    """Return the names of qcomp's own targets: those of the files."""
    folder = files("qcomp").joinpath("targets")
    found = (path.name for path in folder.iterdir())
    return tuple(sorted(n.removesuffix(".toml") for n in found if n.endswith(".toml")))


@functools.cache
def _own(name: str) -> Target:
    from qcomp.target_files import read_toml

    text = files("qcomp").joinpath("targets", f"{name}.toml").read_text(encoding="utf-8")
    return read_toml(text, name)


def target_names() -> tuple[str, ...]:
    """Return the names of all targets, the project's own first, then plugins'."""
    return (*_own_names(), *table("targets"))


def get_target(name: str) -> Target:
    """Return a target by its name, or the one that a JSON file describes.

    Raises:
        UsageError: If there is none; the message says the nearest names.
    """
    if name.endswith(".json"):
        from qcomp.target_files import read_target

        return read_target(Path(name))
    if name in _own_names():
        if name in table("targets"):
            raise UsageError(f"a plugin and qcomp itself both have a target '{name}'")
        return _own(name)
    if name in table("targets"):
        made = load("targets", name)
        target = made() if callable(made) else made
        assert isinstance(target, Target)
        return target
    raise UsageError(f"there is no target '{name}'", hint=suggest(name, target_names()))


def target_of(source: object) -> Target:
    """Return the target that an object stands for.

    Args:
        source: A target, its name, a path of a JSON file, a Qiskit ``BackendV2`` or ``Target``, or
            a device that says its gates.

    Raises:
        UsageError: If it is none of these.
    """
    if isinstance(source, Target):
        return source
    if isinstance(source, str | Path):
        return get_target(str(source))
    from qcomp.device import Device
    from qcomp.device_qiskit import is_qiskit_device
    from qcomp.target_choice import target_for

    if is_qiskit_device(source):
        return target_for(Device.from_qiskit(source))
    if isinstance(source, Device):
        return target_for(source)
    raise UsageError(
        f"an object of {type(source)} is no target",
        hint="give a name of 'qcomp targets', a JSON file, a Target, or a Qiskit backend or target",
    )


def parse_targets(source: object) -> tuple[Target | None, Target | None]:
    """Return the (graph, circuit) targets of text such as ``cpu-int8+ibm-heron``.

    Args:
        source: Names or JSON files joined by a plus, which a name may hold too (``clifford+t``);
            or what :func:`target_of` takes.

    Raises:
        UsageError: If a name is unknown or two targets are of one kind.
    """
    named = _names_in(source) if isinstance(source, str) else [source]
    graph: Target | None = None
    circuit: Target | None = None
    for item in named:
        target = target_of(item)
        if target.kind == "graph" and graph is None:
            graph = target
        elif target.kind == "circuit" and circuit is None:
            circuit = target
        else:
            raise UsageError(
                f"'{source}' names two {target.kind} targets",
                hint="join one classical and one quantum target, such as cpu-int8+ibm-heron",
            )
    return graph, circuit


def _names_in(text: str) -> list[str]:
    """Split at the pluses that are not part of a name or a path, the longest names first."""
    parts = text.split("+")
    known = target_names()
    found: list[str] = []
    at = 0
    while at < len(parts):
        for end in range(len(parts), at, -1):
            name = "+".join(parts[at:end]).strip()
            is_file = name.endswith(".json") and Path(name).exists()
            if name in known or is_file or end == at + 1:
                found.append(name)
                at = end
                break
    return found
