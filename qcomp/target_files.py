"""Targets from files: the project's own TOML and a user's JSON, with all faults named at once."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from qcomp.device_json import all_faults, check_keys, read_json
from qcomp.errors import QcompError, TargetError, UsageError, suggest
from qcomp.integer_rules import read_integers
from qcomp.target import EFFORTS, Limit, Native, Target, with_pipelines

__all__ = ["pipeline_lines", "read_target", "read_toml", "target_from"]

_FIELDS = (
    "name",
    "title",
    "description",
    "kind",
    "backend",
    "basis",
    "profile",
    "native",
    "device",
    "pipelines",
    "requires",
    "fusions",
    "integers",
)
_NATIVE = ("one_qubit", "virtual", "fractional", "limits", "conventions")
_LIMIT = ("gate", "angle", "least", "most", "step")


def read_toml(text: str, name: str) -> Target:
    """Return the target of one of the project's own files.

    Raises:
        TargetError: If the file is at fault.
    """
    try:
        return target_from(tomllib.loads(text), f"the target file '{name}.toml'", own=True)
    except (tomllib.TOMLDecodeError, UsageError) as error:
        raise TargetError(f"the target file '{name}.toml' is at fault", why=str(error)) from error


def read_target(path: Path) -> Target:
    """Return the target that a JSON file describes; see docs/targets.md.

    Raises:
        UsageError: If the file is no target; the message names all that is wrong.
    """
    data = read_json(path)
    if isinstance(data, Mapping):
        data = {"name": path.stem, "title": f"described in {path.name}", **data}
    return target_from(data, f"'{path}'")


def target_from(data: object, where: str, *, own: bool = False) -> Target:
    """Return the target of a description.

    Args:
        data: What the file holds.
        where: The file, for messages.
        own: Whether it is one of the project's files: its device is made when it is asked for, and
            the tests see to it that the profile exists.

    Raises:
        UsageError: If it is none; the message names all that is wrong.
    """
    faults: list[str] = []
    if not isinstance(data, Mapping):
        raise all_faults(f"{where} is no target", ["it must be an object with 'basis'"])
    faults += check_keys(data, _FIELDS, "the target")
    kind = data.get("kind", "circuit")
    if kind not in ("circuit", "graph"):
        faults.append(f"'kind' is '{kind}', it must be circuit or graph")
    words = {
        key: _text(data, key, default, faults)
        for key, default in (
            ("name", None),
            ("title", ""),
            ("description", ""),
            ("backend", "openqasm3"),
            ("profile", "full"),
        )
    }
    lists = {key: _texts(data, key, faults) for key in ("basis", "requires", "fusions")}
    if kind != "graph":
        if "basis" not in data:
            faults.append("it lacks 'basis', the list of the machine's gates")
        _check_gates(lists["basis"], "basis", faults)
        lists["basis"] = _canonical(lists["basis"])
    native = _native(data.get("native", {}), lists["basis"], faults)
    machine = data.get("device") if own else _machine(data.get("device"), faults)
    pipelines = _pipelines(data.get("pipelines"), faults)
    if not own:
        _check_profile(words["profile"], faults)
    if kind == "graph" and "pipelines" not in data:
        faults.append("it lacks 'pipelines'")
    integers = None
    if "integers" in data:
        integers, wrong = read_integers(data["integers"])
        faults += wrong
    if faults:
        raise all_faults(f"{where} does not describe a target", faults)
    target = Target(
        name=words["name"],
        title=words["title"],
        description=words["description"],
        kind=str(kind),
        backend=words["backend"],
        basis=lists["basis"],
        profile=words["profile"],
        pipelines=pipelines,
        requires=lists["requires"],
        fusions=lists["fusions"],
        integers=integers,
        native=native,
        machine=machine,
    )
    return target if pipelines else with_pipelines(target)


def _text(data: Mapping[str, Any], key: str, default: str | None, faults: list[str]) -> str:
    value = data.get(key, default)
    if not isinstance(value, str) or (default is None and not value):
        faults.append(f"'{key}' must be text")
        return ""
    return " ".join(value.split())


def _texts(data: Mapping[str, Any], key: str, faults: list[str]) -> tuple[str, ...]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        faults.append(f"'{key}' must be a list of texts")
        return ()
    return tuple(value)


def _check_gates(names: tuple[str, ...], key: str, faults: list[str]) -> None:
    from qcomp.ir.gates import BY_NAME

    known = [name for name, row in BY_NAME.items() if row.is_unitary and row.num_qubits in (1, 2)]
    for name in names:
        if name not in known:
            faults.append(f"'{key}' names '{name}', no gate of one or two qubits; "
                          f"{suggest(name, known)}")  # fmt: skip


def _canonical(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the gate table's names: it knows ``prx`` as ``r``."""
    from qcomp.ir.gates import BY_NAME

    found = (BY_NAME[name].name if name in BY_NAME else name for name in names)
    return tuple(dict.fromkeys(found))


def _native(data: object, basis: tuple[str, ...], faults: list[str]) -> Native:
    if not isinstance(data, Mapping):
        faults.append("'native' must be an object")
        return Native()
    faults += check_keys(data, _NATIVE, "'native'")
    virtual, fractional = (
        _canonical(_texts(data, key, faults)) for key in ("virtual", "fractional")
    )
    _check_gates((*virtual, *fractional), "native", faults)
    single = tuple(filter(None, _text(data, "one_qubit", "", faults).split("-")))
    _check_gates(single, "native.one_qubit", faults)
    one_qubit = "-".join(_canonical(single)) or _one_qubit(basis)
    limits = data.get("limits", [])
    found = [
        _limit(entry, (*basis, *fractional))
        for entry in (limits if isinstance(limits, list) else [None])
    ]
    faults += [
        f"'native.limits' entry {i} must have gate (one of the target's), least and most in units "
        "of pi, maybe angle and step"
        for i, limit in enumerate(found)
        if limit is None
    ]
    conventions = _text(data, "conventions", "", faults)
    return Native(one_qubit, virtual, fractional, tuple(filter(None, found)), conventions)


def _limit(entry: object, gates: tuple[str, ...]) -> Limit | None:
    """Return the limit that an entry describes, None where it is none."""
    if not isinstance(entry, Mapping) or set(entry) - set(_LIMIT):
        return None
    gate = _canonical((str(entry.get("gate")),))[0]
    if not {"gate", "least", "most"} <= set(entry) or gate not in gates:
        return None
    numbers = [entry.get(key, 0) for key in _LIMIT[1:]]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers):
        return None
    return Limit(gate, int(numbers[0]), *map(float, numbers[1:]))


def _one_qubit(basis: tuple[str, ...]) -> str:
    from qcomp.ir.gates import BY_NAME

    single = [name for name in basis if name in BY_NAME and BY_NAME[name].num_qubits == 1]
    return "-".join(name for name in single if name != "id")


def _machine(data: object, faults: list[str]) -> Any:  # noqa: ANN401  a device or a description
    if data is None:
        return None
    from qcomp.device import Device, get_device

    try:
        if isinstance(data, str):
            return get_device(data)
        if not isinstance(data, Mapping):
            faults.append("'device' must be an object, or the name of a device")
            return None
        return Device.from_json({"name": "device", **data})
    except QcompError as error:
        faults.append(f"'device': {error}")
    return None


def _pipelines(data: object, faults: list[str]) -> Mapping[str, str]:
    if data is None:
        return MappingProxyType({})
    if (
        not isinstance(data, Mapping)
        or "default" not in data
        or not all(isinstance(text, str) for text in data.values())
    ):
        faults.append("'pipelines' must map efforts to texts, 'default' among them")
        return MappingProxyType({})
    faults += check_keys(data, EFFORTS, "'pipelines'")
    return MappingProxyType({effort: "".join(text.split()) for effort, text in data.items()})


def _check_profile(name: str, faults: list[str]) -> None:
    from qcomp.registry import load

    known = load("services", "qasm-profiles")
    if name not in known:
        faults.append(f"'profile' is '{name}'; {suggest(name, known)}")


def pipeline_lines(text: str) -> list[str]:
    """Return a pipeline's text in lines as the files have it: one step a line."""
    lines, depth, start = [], 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "{(") - (letter in "})")
        if letter == "," and depth == 0:
            lines.append(text[start : at + 1].strip())
            start = at + 1
    return [*lines, text[start:].strip()]
