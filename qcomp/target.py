"""Targets: what a machine can do, as data. One TOML file a target in ``qcomp/targets``."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.resources import files
from types import MappingProxyType

from qcomp.device import Device
from qcomp.errors import TargetError, UsageError, suggest
from qcomp.registry import load, table

__all__ = ["EFFORTS", "Target", "get_target", "parse_targets", "target_names"]

EFFORTS = ("fast", "default", "max")


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
        pipelines: Effort -> pipeline text.
        requires: Facts a graph pipeline cannot do without: ``calibration`` or nothing.
        fusions: Op types of the integer kernels that the backend counts on.
        device: The machine, or the lattice of the family; None where any qubits may meet.
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
    device: Device | None = field(default=None, compare=False)

    def on(self, device: Device) -> Target:
        """Return the target narrowed to one machine or lattice."""
        return replace(self, device=device)

    def pipeline(self, effort: str = "default") -> str:
        """Return the pipeline text of an effort; ``default`` stands in for one that is not given.

        Raises:
            UsageError: If the effort is unknown.
        """
        if effort not in EFFORTS:
            raise UsageError(f"there is no effort '{effort}'", hint=suggest(effort, EFFORTS))
        return self.pipelines.get(effort, self.pipelines["default"])


def _from_toml(text: str, name: str) -> Target:
    data = tomllib.loads(text)
    try:
        return Target(
            name=data["name"],
            title=data["title"],
            description=" ".join(data["description"].split()),
            kind=data["kind"],
            backend=data["backend"],
            basis=tuple(data.get("basis", ())),
            profile=data.get("profile", "full"),
            pipelines=MappingProxyType(
                {effort: " ".join(text.split()) for effort, text in data["pipelines"].items()}
            ),
            requires=tuple(data.get("requires", ())),
            fusions=tuple(data.get("fusions", ())),
        )
    except KeyError as error:
        raise TargetError(f"the target file '{name}' lacks the entry {error}") from error


@functools.cache
def _own() -> Mapping[str, Target]:
    folder = files("qcomp").joinpath("targets")
    found = sorted((p for p in folder.iterdir() if p.name.endswith(".toml")), key=lambda p: p.name)
    targets = [_from_toml(path.read_text(encoding="utf-8"), path.name) for path in found]
    return MappingProxyType({target.name: target for target in targets})


def target_names() -> tuple[str, ...]:
    """Return the names of all targets, the project's own first, then plugins'."""
    return (*_own(), *table("targets"))


def get_target(name: str) -> Target:
    """Return a target by its name.

    Raises:
        UsageError: If there is none; the message says the nearest names.
    """
    own = _own()
    if name in own:
        if name in table("targets"):
            raise UsageError(f"a plugin and qcomp itself both have a target '{name}'")
        return own[name]
    if name in table("targets"):
        made = load("targets", name)
        target = made() if callable(made) else made
        assert isinstance(target, Target)
        return target
    raise UsageError(f"there is no target '{name}'", hint=suggest(name, target_names()))


def parse_targets(text: str) -> tuple[Target | None, Target | None]:
    """Return the (graph, circuit) targets of text such as ``cpu-int8+ibm-heron``.

    Raises:
        UsageError: If a name is unknown or two targets are of one kind.
    """
    graph: Target | None = None
    circuit: Target | None = None
    for name in text.split("+"):
        target = get_target(name.strip())
        if target.kind == "graph" and graph is None:
            graph = target
        elif target.kind == "circuit" and circuit is None:
            circuit = target
        else:
            raise UsageError(
                f"'{text}' names two {target.kind} targets",
                hint="join one classical and one quantum target, such as cpu-int8+ibm-heron",
            )
    return graph, circuit
