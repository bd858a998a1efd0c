"""Devices as JSON: reading with all faults named at once, and writing."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qcomp.device import MOST_PAIRS, MOST_QUBITS, Device, num_operands
from qcomp.errors import UsageError, suggest
from qcomp.ir.gates import BY_NAME

__all__ = ["FIELDS", "LATTICES", "from_json", "read_json", "to_json"]

FIELDS = (
    "name",
    "num_qubits",
    "pairs",
    "directed",
    "lattice",
    "gates",
    "errors",
    "durations",
    "t1",
    "t2",
    "dt",
    "timing",
    "notes",
)
"""The entries that a device has in JSON and in TOML."""

LATTICES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "line": (("n",), ()),
    "ring": (("n",), ()),
    "all_to_all": (("n",), ()),
    "grid": (("rows", "columns"), ("missing",)),
    "heavy_hex": (("rows",), ("columns", "shift", "trim", "tail")),
}
"""Lattice -> what it needs and what it may have, the arguments of the methods of that name."""

_MOST_SHOWN = 20


def read_json(path: str | Path) -> Any:  # noqa: ANN401  whatever the file holds
    """Return what a JSON file holds.

    Raises:
        UsageError: If there is no such file or it is no JSON.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read", why=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"'{path}' is not text", hint="give a JSON file") from error
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        line = getattr(error, "lineno", 0)
        raise UsageError(
            f"'{path}' is no JSON", where=f"line {line}" if line else "", why=str(error)
        ) from error


def from_json(source: str | Path | Mapping[str, Any]) -> Device:
    """Return the device of a file or of its content.

    Raises:
        UsageError: If it is no device; the message names all that is wrong.
    """
    data, where = source, "the device"
    if isinstance(source, str | Path):
        data, where = read_json(source), f"'{source}'"
    faults: list[str] = []
    device = _device(data, faults)
    if device is None or faults:
        raise all_faults(f"{where} does not describe a device", faults)
    return device


def all_faults(what: str, faults: list[str]) -> UsageError:
    """Return the error that names all faults, a line each."""
    shown = faults[:_MOST_SHOWN]
    if len(faults) > len(shown):
        shown.append(f"... and {len(faults) - len(shown)} more")
    return UsageError(what, why="\n    ".join(shown), hint="see docs/targets.md for the format")


def check_keys(data: Mapping[str, Any], known: tuple[str, ...], what: str) -> list[str]:
    """Return a fault for each entry that is not known."""
    return [
        f"{what} has an entry '{key}' that is not known; {suggest(str(key), known)}"
        for key in data
        if key not in known
    ]


def _device(data: object, faults: list[str]) -> Device | None:
    if not isinstance(data, Mapping):
        faults.append("it must be an object with the entries " + ", ".join(FIELDS))
        return None
    faults += check_keys(data, FIELDS, "the device")
    base = _lattice(data, faults)
    if base is None:
        return None
    n, pairs = base.num_qubits, base.pairs
    given = data.get("pairs")
    order = pairs if given is None else np.array(given, np.int64).reshape(-1, 2)
    figures = {
        name: _figures(name, data.get(name, {}), base, order, faults)
        for name in ("errors", "durations")
    }
    times = {name: _column(name, data.get(name), n, faults, least=0.0) for name in ("t1", "t2")}
    dt = data.get("dt")
    if dt is not None and not (_is_number(dt) and dt > 0):
        faults.append("'dt' must be a positive number of seconds, or null")
        dt = None
    timing = data.get("timing", {})
    if not isinstance(timing, Mapping) or not all(
        isinstance(v, int) and not isinstance(v, bool) and v > 0 for v in timing.values()
    ):
        faults.append("'timing' must map names to positive whole numbers of samples")
        timing = {}
    name = data.get("name", base.name)
    if not isinstance(name, str) or not name:
        faults.append("'name' must be text")
    texts = {key: _texts(key, data.get(key, ()), faults) for key in ("gates", "notes")}
    faults += [
        f"'gates' names '{g}', no gate; {suggest(g, BY_NAME)}"
        for g in texts["gates"]
        if g not in BY_NAME
    ]
    if faults:
        return None
    return Device(
        name=str(name),
        num_qubits=n,
        pairs=pairs,
        gates=texts["gates"],
        errors=figures["errors"],
        durations=figures["durations"],
        t1=times["t1"],
        t2=times["t2"],
        dt=dt,
        timing=dict(timing),
        notes=texts["notes"],
    )


def _lattice(data: Mapping[str, Any], faults: list[str]) -> Device | None:
    """Return the qubits and pairs, without figures."""
    n: Any = data.get("num_qubits")
    if "lattice" in data:
        if "pairs" in data:
            faults.append("give either 'lattice' or 'pairs'")
        device = _formula(data["lattice"], faults)
        if device is not None and n is not None and n != device.num_qubits:
            faults.append(f"'num_qubits' is {n}, the lattice has {device.num_qubits} qubits")
        return device
    if not _is_count(n) or n > MOST_QUBITS:
        faults.append(f"'num_qubits' must be a whole number of 1 to {MOST_QUBITS}")
        n = None
    directed = data.get("directed", False)
    if not isinstance(directed, bool):
        faults.append("'directed' must be true or false")
    pairs = data.get("pairs")
    if not isinstance(pairs, list | np.ndarray):
        faults.append("'pairs' must be a list of pairs of qubits, or give a 'lattice'")
        return None
    if len(pairs) > MOST_PAIRS:
        faults.append(f"'pairs' has more than {MOST_PAIRS} entries")
        return None
    seen: set[tuple[int, int]] = set()
    for i, pair in enumerate(pairs):
        if not (isinstance(pair, list | tuple | np.ndarray) and len(pair) == 2):
            faults.append(f"'pairs' entry {i} is {str(pair)[:40]}, not a pair of qubits")
        elif not all(_is_count(q, 0) and (n is None or q < n) for q in pair):
            faults.append(f"'pairs' entry {i} is {list(pair)}; qubits are 0 to {(n or 1) - 1}")
        elif pair[0] == pair[1]:
            faults.append(f"'pairs' entry {i} couples qubit {pair[0]} with itself")
        elif (pair[0], pair[1]) in seen:
            faults.append(f"'pairs' entry {i} repeats {list(pair)}")
        else:
            seen.add((pair[0], pair[1]))
    if faults or n is None:
        return None
    return Device.from_pairs(sorted(seen), num_qubits=n, name="device", directed=directed)


def _formula(lattice: object, faults: list[str]) -> Device | None:
    kind = lattice.get("kind") if isinstance(lattice, Mapping) else None
    if not isinstance(lattice, Mapping) or kind not in LATTICES:
        faults.append("'lattice' must have a 'kind': " + ", ".join(LATTICES))
        return None
    needs, may = LATTICES[str(kind)]
    found = check_keys(lattice, ("kind", *needs, *may), f"the lattice '{kind}'")
    found += [f"the lattice '{kind}' lacks '{key}'" for key in needs if key not in lattice]
    for key, value in lattice.items():
        if key in ("kind", "trim", "tail"):
            continue
        if key == "missing":
            sites = lattice.get("rows", 0), lattice.get("columns", 0)
            if not isinstance(value, list) or not all(
                _is_count(v, 0) and all(map(_is_count, sites)) and v < sites[0] * sites[1]
                for v in value
            ):
                found.append("'missing' must be a list of sites of the lattice")
        elif key in (*needs, *may) and not _is_count(value, 0 if key == "shift" else 1):
            found.append(f"the lattice's '{key}' must be a whole number")
    for key in ("trim", "tail"):
        if not isinstance(lattice.get(key, False), bool):
            found.append(f"the lattice's '{key}' must be true or false")
    faults += found
    if found:
        return None
    try:
        made = getattr(Device, str(kind))(**{k: v for k, v in lattice.items() if k != "kind"})
    except UsageError as error:
        faults.append(error.what)
        return None
    assert isinstance(made, Device)
    return made


def _figures(
    what: str, given: object, base: Device, order: NDArray[Any], faults: list[str]
) -> dict[str, NDArray[np.float64]]:
    """Return gate -> figures; one number stands for all qubits or pairs.

    Args:
        what: ``errors`` or ``durations``.
        given: What the file has.
        base: The device without figures.
        order: int[k, 2], the pairs in the order that lists have; each stands for its reverse too,
            where that is a pair of its own that is not listed.
        faults: Takes what is wrong.
    """
    if not isinstance(given, Mapping):
        faults.append(f"'{what}' must map gates to a number or a list of numbers")
        return {}
    most = 1.0 if what == "errors" else math.inf
    found = {}
    known = [name for name, row in BY_NAME.items() if row.num_qubits in (1, 2)]
    for gate, values in given.items():
        if gate not in known:
            faults.append(f"'{what}' names '{gate}', no gate of one or two qubits; "
                          f"{suggest(str(gate), known)}")  # fmt: skip
            continue
        is_pair = num_operands(str(gate)) == 2
        size = len(order) if is_pair else base.num_qubits
        column = _column(f"{what}.{gate}", values, size, faults, least=0.0, most=most)
        if is_pair:
            listed, column = column, np.full(len(base.pairs), np.nan)
            for a, b in ((1, 0), (0, 1)):
                row = base.pair_index(order[:, a], order[:, b])
                column[row[row >= 0]] = listed[row >= 0]
        found[str(gate)] = column
    return found


def _column(
    what: str, values: object, size: int, faults: list[str], least: float, most: float = math.inf
) -> Any:  # noqa: ANN401  an array, or None where it is at fault
    if values is None:
        return np.full(size, np.nan)
    if _is_number(values):
        values = [values] * size
    if not isinstance(values, list | np.ndarray) or len(values) != size:
        faults.append(f"'{what}' must be a number or a list of {size}")
        return np.full(size, np.nan)
    column = np.full(size, np.nan)
    for i, value in enumerate(values):
        if value is None:
            continue
        if not _is_number(value) or not least <= value <= most:
            words = f"of {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
            faults.append(f"'{what}' entry {i} must be a number {words}, or null")
            return column
        column[i] = value
    return column


def _texts(key: str, values: object, faults: list[str]) -> tuple[str, ...]:
    if isinstance(values, list | tuple) and all(isinstance(v, str) for v in values):
        return tuple(values)
    faults.append(f"'{key}' must be a list of texts")
    return ()


def _is_number(value: object) -> bool:
    return (
        isinstance(value, int | float | np.floating)
        and not isinstance(value, bool)
        and math.isfinite(value)
    )


def _is_count(value: Any, least: int = 1) -> bool:  # noqa: ANN401  any value of JSON
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    return whole and bool(value >= least)


def to_json(device: Device) -> dict[str, Any]:
    """Return a device as JSON has it."""
    return {
        "name": device.name,
        "num_qubits": device.num_qubits,
        "directed": True,
        "pairs": device.pairs.tolist(),
        "gates": list(device.gates),
        "errors": {gate: _list(v) for gate, v in device.errors.items()},
        "durations": {gate: _list(v) for gate, v in device.durations.items()},
        "t1": _list(device.t1),
        "t2": _list(device.t2),
        "dt": device.dt,
        "timing": dict(device.timing),
        "notes": list(device.notes),
    }


def _list(values: Any) -> list[float | None]:  # noqa: ANN401  float64 array
    return [None if math.isnan(value) else value for value in values.tolist()]
