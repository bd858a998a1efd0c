"""Devices: which qubits are coupled, how good and how slow each gate is there, as arrays.

A :class:`Device` is one machine, or a lattice without figures. It comes from a formula
(``Device.grid(10, 10)``), from Qiskit, from JSON, or by a name (:func:`get_device`). What is not
known is ``nan`` or absent, never a guess.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.errors import UsageError, suggest
from qcomp.kernels import kernel

if TYPE_CHECKING:
    from qiskit.transpiler import CouplingMap
    from qiskit.transpiler import Target as QiskitTarget

__all__ = ["MOST_PAIRS", "MOST_QUBITS", "Device", "get_device", "num_operands", "table_name"]

MOST_QUBITS = 100_000
"""Most qubits of a device."""

MOST_PAIRS = 4_000_000
"""Most coupled pairs of a device."""

Floats = NDArray[np.float64]


@kernel()
def _breadth_first(offsets: NDArray[Any], targets: NDArray[Any], out: NDArray[Any]) -> None:
    """Fill ``out[a, b]`` with the steps from a to b; what cannot be reached keeps its value."""
    n = len(offsets) - 1
    queue = np.empty(n, np.int32)
    for start in range(n):
        row = out[start]
        row[start] = 0
        queue[0] = start
        head, tail = 0, 1
        while head < tail:
            here = queue[head]
            head += 1
            for k in range(offsets[here], offsets[here + 1]):
                there = targets[k]
                if there != start and row[there] == n:
                    row[there] = row[here] + 1
                    queue[tail] = there
                    tail += 1


@dataclass(frozen=True, slots=True, eq=False)
class Device:
    """One machine's qubits.

    Attributes:
        name: Its name.
        num_qubits: One more than the largest number of a qubit. Qubits have the numbers that the
            machine's owner gives them, from 0 or 1, maybe with gaps: see ``present``.
        pairs: int32[E, 2], the (first, second) operands that two-qubit gates take, sorted; both
            directions stand here where a gate may be applied either way.
        gates: Names of the native gates where they are known, else empty.
        errors: Gate -> error rate: [n] for one-qubit gates and ``measure``, [E] for two-qubit
            gates, in the order of ``pairs``. ``nan`` and missing names are unknown.
        durations: Gate -> seconds, the same shapes; ``measure`` and ``reset`` too.
        t1: Relaxation times, float64[n] seconds.
        t2: Coherence times, float64[n] seconds.
        dt: Seconds of one sample, or None.
        timing: The timing grid in samples: ``granularity``, ``min_length``, ``pulse_alignment``,
            ``acquire_alignment``; what is missing is unknown.
        notes: Where the figures come from, and which are nominal.
    """

    name: str
    num_qubits: int
    pairs: NDArray[np.int32]
    gates: tuple[str, ...] = ()
    errors: Mapping[str, Floats] = field(default_factory=dict)
    durations: Mapping[str, Floats] = field(default_factory=dict)
    t1: Floats = field(default_factory=lambda: np.empty(0))
    t2: Floats = field(default_factory=lambda: np.empty(0))
    dt: float | None = None
    timing: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _cache: dict[str, Any] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        """Bring arrays into their form; pairs are sorted and the figures with them.

        Raises:
            UsageError: If qubits, pairs or figures do not fit together.
        """
        n = self.num_qubits
        if not 0 <= n <= MOST_QUBITS:
            raise UsageError(f"a device has 0 to {MOST_QUBITS} qubits, not {n}")
        pairs = np.ascontiguousarray(np.asarray(self.pairs, np.int32).reshape(-1, 2))
        if len(pairs) > MOST_PAIRS:
            raise UsageError(f"a device has at most {MOST_PAIRS} coupled pairs, not {len(pairs)}")
        if pairs.size and (
            pairs.min() < 0 or pairs.max() >= n or (pairs[:, 0] == pairs[:, 1]).any()
        ):
            raise UsageError(
                f"the pairs of the device '{self.name}' must name two different qubits of its {n}"
            )
        keys = pairs[:, 0].astype(np.int64) * n + pairs[:, 1]
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        if (keys[1:] == keys[:-1]).any():
            raise UsageError(f"the device '{self.name}' names a pair twice")
        pairs = pairs[order]
        pairs.flags.writeable = False
        put = functools.partial(object.__setattr__, self)
        put("pairs", pairs)
        put("gates", tuple(dict.fromkeys(map(table_name, self.gates))))
        self._cache["keys"] = keys
        for name in ("errors", "durations"):
            given = getattr(self, name)
            figures = {table_name(g): self._figures(g, v, order) for g, v in given.items()}
            put(name, MappingProxyType(figures))
        for name in ("t1", "t2"):
            times = np.asarray(getattr(self, name), np.float64)
            put(name, self._one_each(name, times if times.size else np.full(n, np.nan)))

    def _figures(self, gate: str, values: ArrayLike, order: NDArray[np.int64]) -> Floats:
        array = np.asarray(values, np.float64)
        if array.ndim == 1 and len(array) == len(order) and num_operands(gate) == 2:
            array = array[order]
            array.flags.writeable = False
            return array
        return self._one_each(gate, array)

    def _one_each(self, what: str, values: Floats) -> Floats:
        if values.shape != (self.num_qubits,):
            raise UsageError(
                f"the device '{self.name}' has {list(values.shape)} figures for '{what}'",
                why=f"it has {self.num_qubits} qubits and {len(self.pairs)} pairs",
            )
        values = values.copy()
        values.flags.writeable = False
        return values

    def __eq__(self, other: object) -> bool:
        """Whether two devices say the same, unknown figures counting as equal."""
        return isinstance(other, Device) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        """Return a hash of the name and the lattice."""
        return hash((self.name, self.num_qubits, self.pairs.tobytes()))

    # --- lattices --------------------------------------------------------------------------

    @classmethod
    def from_pairs(
        cls,
        pairs: ArrayLike,
        *,
        num_qubits: int | None = None,
        name: str = "coupling",
        directed: bool = False,
    ) -> Device:
        """Return a device without figures.

        Args:
            pairs: int[E, 2], coupled pairs; repetitions are dropped.
            num_qubits: How many qubits; one more than the largest number by default.
            name: Its name.
            directed: Whether gates may be applied only in the direction given.
        """
        array = np.asarray(pairs, np.int64).reshape(-1, 2)
        n = int(array.max(initial=-1)) + 1 if num_qubits is None else num_qubits
        if not directed:
            array = np.concatenate([array, array[:, ::-1]])
        return cls(name, n, np.unique(array, axis=0).astype(np.int32))

    @classmethod
    def line(cls, n: int) -> Device:
        """Return n qubits in a line."""
        a = np.arange(max(_size(n) - 1, 0))
        return cls.from_pairs(np.stack([a, a + 1], 1), num_qubits=n, name=f"line-{n}")

    @classmethod
    def ring(cls, n: int) -> Device:
        """Return n qubits in a ring."""
        a = np.arange(_size(n))
        pairs = np.stack([a, (a + 1) % n], 1) if n > 2 else np.stack([a, a + 1], 1)[: n - 1]
        return cls.from_pairs(pairs, num_qubits=n, name=f"ring-{n}")

    @classmethod
    def grid(cls, rows: int, columns: int, missing: Sequence[int] = ()) -> Device:
        """Return a square lattice, numbered row by row.

        Args:
            rows: Rows.
            columns: Columns.
            missing: Sites without a qubit, numbered as in the full lattice; the qubits that are
                there are numbered without gaps.
        """
        sites = np.arange(_size(rows * columns)).reshape(rows, columns)
        across = np.stack([sites[:, :-1].ravel(), sites[:, 1:].ravel()], 1)
        down = np.stack([sites[:-1].ravel(), sites[1:].ravel()], 1)
        name = f"grid-{rows}x{columns}"
        return cls._without(np.concatenate([across, down]), rows * columns, missing, name)

    @classmethod
    def _without(cls, pairs: NDArray[Any], sites: int, missing: Sequence[int], name: str) -> Device:
        there = np.ones(sites, np.bool_)
        there[list(missing)] = False
        number = np.cumsum(there) - 1
        kept = number[pairs[there[pairs].all(axis=1)]]
        return cls.from_pairs(kept, num_qubits=int(there.sum()), name=name)

    @classmethod
    def heavy_hex(
        cls,
        rows: int,
        columns: int | None = None,
        *,
        shift: int = 0,
        trim: bool = False,
        tail: bool = False,
    ) -> Device:
        """Return a heavy-hexagon lattice, numbered as IBM does.

        Rows of qubits in a line; between two rows a bridge qubit at every fourth column, two
        columns further on in every other gap. ``heavy_hex(7, 15, tail=True)`` is ``ibm_torino``
        (133), ``heavy_hex(8, 16, shift=3)`` are the Herons of 156 and ``heavy_hex(7, 15,
        trim=True)`` the Eagles of 127 qubits.

        Args:
            rows: Rows; without ``columns`` the distance, odd, of the heavy-hexagon code
                (Chamberland et al., arXiv:1907.09528), numbered as Qiskit's
                ``CouplingMap.from_heavy_hex``.
            columns: Qubits a row.
            shift: Column of the first bridge.
            trim: Whether the first row lacks its last qubit and the last row its first.
            tail: Whether bridges hang below the last row.
        """
        if columns is None:
            return cls._heavy_hex_code(rows)
        _size(rows * columns)
        trimmed = [columns - 1, (rows - 1) * columns] if trim else []
        number = np.full((rows, columns), -1)
        count = 0
        bridges: list[tuple[int, int, int]] = []
        for row in range(rows):
            sites = [c for c in range(columns) if row * columns + c not in trimmed]
            number[row, sites] = np.arange(count, count + len(sites))
            count += len(sites)
            if row + 1 < rows or tail:
                for c in range((shift + 2 * (row % 2)) % 4, columns, 4):
                    bridges.append((count, row, c))
                    count += 1
        left, right = number[:, :-1].ravel(), number[:, 1:].ravel()
        pairs = [np.stack([left, right], 1)]
        for bridge, row, c in bridges:
            ends = [number[r, c] for r in (row, row + 1) if r < rows]
            pairs.append(np.array([[bridge, end] for end in ends]))
        edges = np.concatenate(pairs)
        edges = edges[(edges >= 0).all(axis=1)]
        return cls.from_pairs(edges, num_qubits=count, name=f"heavy-hex-{rows}x{columns}")

    @classmethod
    def _heavy_hex_code(cls, distance: int) -> Device:
        if distance < 1 or distance % 2 == 0:
            raise UsageError(
                f"a heavy-hexagon code has an odd distance, not {distance}",
                hint="take heavy-hex-7, or rows and columns: heavy-hex-7x15",
            )
        _size(5 * distance * distance // 2)
        from qiskit.transpiler import CouplingMap

        edges = CouplingMap.from_heavy_hex(distance).get_edges()
        size = (5 * distance * distance - 2 * distance - 1) // 2
        return cls.from_pairs(list(edges), num_qubits=size, name=f"heavy-hex-{distance}")

    @classmethod
    def all_to_all(cls, n: int) -> Device:
        """Return n qubits, each coupled with each."""
        if n * (n - 1) > MOST_PAIRS:
            raise UsageError(f"{n} qubits all coupled have more than {MOST_PAIRS} pairs")
        a, b = np.divmod(np.arange(_size(n) * n), max(n, 1))
        pairs = np.stack([a, b], 1)[a != b]
        return cls.from_pairs(pairs, num_qubits=n, name=f"all-to-all-{n}", directed=True)

    # --- questions -------------------------------------------------------------------------

    @property
    def is_symmetric(self) -> bool:
        """Whether every pair may be used in both directions."""
        a, b = self.pairs[:, 0], self.pairs[:, 1]
        return bool(np.all(self.allows(b, a)))

    @property
    def is_all_to_all(self) -> bool:
        """Whether each qubit that exists is coupled with each."""
        n = len(self.present)
        return len(self.pairs) == n * (n - 1)

    @property
    def present(self) -> NDArray[np.int32]:
        """The qubits that exist: machines leave gaps in their numbers, where nothing is coupled.

        They are those in ``pairs``, and all of a device without pairs.
        """
        if not len(self.pairs):
            return np.arange(self.num_qubits, dtype=np.int32)
        return np.unique(self.pairs)

    @property
    def is_connected(self) -> bool:
        """Whether a path leads from each qubit that exists to each, directions aside."""
        if not len(self.pairs):
            return self.num_qubits <= 1
        return len(self.components()[0]) == len(self.present)

    def components(self) -> list[NDArray[np.int32]]:
        """Return the connected parts, the largest first, directions aside."""
        if "components" not in self._cache:
            offsets, targets = self.neighbours()
            label = np.full(self.num_qubits, -1, np.int32)
            parts: list[NDArray[np.int32]] = []
            for start in range(self.num_qubits):
                if label[start] >= 0:
                    continue
                label[start] = len(parts)
                part = [start]
                for here in part:
                    for there in targets[offsets[here] : offsets[here + 1]].tolist():
                        if label[there] < 0:
                            label[there] = len(parts)
                            part.append(there)
                parts.append(np.sort(np.array(part, np.int32)))
            self._cache["components"] = sorted(parts, key=len, reverse=True)
        found: list[NDArray[np.int32]] = self._cache["components"]
        return found

    def neighbours(self) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Return (offsets[n + 1], targets): the qubits coupled with q, directions aside.

        They are ``targets[offsets[q] : offsets[q + 1]]``, in ascending order.
        """
        if "neighbours" not in self._cache:
            both = np.concatenate([self.pairs, self.pairs[:, ::-1]]).astype(np.int64)
            keys = np.unique(both[:, 0] * self.num_qubits + both[:, 1])
            a, b = np.divmod(keys, max(self.num_qubits, 1))
            offsets = np.searchsorted(a, np.arange(self.num_qubits + 1)).astype(np.int32)
            self._cache["neighbours"] = (offsets, b.astype(np.int32))
        found: tuple[NDArray[np.int32], NDArray[np.int32]] = self._cache["neighbours"]
        return found

    def distance(self) -> NDArray[np.int32]:
        """Return int32[n, n], the steps between two qubits, directions aside.

        Qubits without a path between them have the distance ``num_qubits``, longer than any path.
        Cost: n times a breadth-first search, n (n + E).
        """
        if "distance" not in self._cache:
            n = self.num_qubits
            offsets, targets = self.neighbours()
            out = np.full((n, n), n, np.int32)
            _breadth_first.at(n * len(targets))(offsets, targets, out)
            out.flags.writeable = False
            self._cache["distance"] = out
        found: NDArray[np.int32] = self._cache["distance"]
        return found

    def pair_index(self, a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
        """Return the row of ``pairs`` that each (a, b) has; -1 where there is none."""
        keys: NDArray[np.int64] = self._cache["keys"]
        wanted = np.asarray(a, np.int64) * self.num_qubits + np.asarray(b, np.int64)
        if not len(keys):
            return np.full(wanted.shape, -1, np.int64)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[at] == wanted, at, -1)

    def allows(self, a: ArrayLike, b: ArrayLike) -> Any:  # noqa: ANN401  bool or an array of them
        """Whether a two-qubit gate may have a as first and b as second operand; arrays too."""
        found = self.pair_index(a, b) >= 0
        return bool(found) if np.ndim(found) == 0 else found

    def error(self, gate: str) -> Floats:
        """Return the error rates of a gate, ``nan`` where unknown; shaped as in ``errors``."""
        return self._known(self.errors, gate)

    def duration(self, gate: str) -> Floats:
        """Return the seconds of a gate, ``nan`` where unknown; shaped as in ``durations``."""
        return self._known(self.durations, gate)

    def _known(self, figures: Mapping[str, Floats], gate: str) -> Floats:
        if table_name(gate) in figures:
            return figures[table_name(gate)]
        return np.full(len(self.pairs) if num_operands(gate) == 2 else self.num_qubits, np.nan)

    # --- other forms -----------------------------------------------------------------------

    def coupling_map(self) -> CouplingMap:
        """Return Qiskit's coupling map."""
        from qiskit.transpiler import CouplingMap

        coupling = CouplingMap(self.pairs.tolist())
        for qubit in range(coupling.size(), self.num_qubits):
            coupling.add_physical_qubit(qubit)
        return coupling

    def to_qiskit_target(self, basis: Sequence[str] = ()) -> QiskitTarget:
        """Return a Qiskit target with the error rates and durations that are known.

        Args:
            basis: Gates, the device's own by default; two-qubit gates stand on every pair.
        """
        from qcomp.device_qiskit import to_qiskit_target

        return to_qiskit_target(self, tuple(basis) or self.gates)

    @classmethod
    def from_qiskit(cls, source: object) -> Device:
        """Return the device of a Qiskit ``BackendV2`` or ``Target``.

        Raises:
            UsageError: If it is neither, or has no coupling to read.
        """
        from qcomp.device_qiskit import from_qiskit

        return from_qiskit(source)

    @classmethod
    def from_json(cls, source: str | Path | Mapping[str, Any]) -> Device:
        """Read a device from a JSON file or from what such a file holds; see docs/targets.md.

        Raises:
            UsageError: If it is no device; the message names all that is wrong.
        """
        from qcomp.device_json import from_json

        return from_json(source)

    def to_json(self) -> dict[str, Any]:
        """Return the device as JSON has it: lists and numbers, ``None`` for what is unknown."""
        from qcomp.device_json import to_json

        return to_json(self)


def _size(qubits: int) -> int:
    """Return a number of qubits that a lattice may have.

    Raises:
        UsageError: If it is negative or too large.
    """
    if not 0 <= qubits <= MOST_QUBITS:
        raise UsageError(f"a lattice has 0 to {MOST_QUBITS} qubits, not {qubits}")
    return qubits


def table_name(gate: str) -> str:
    """Return the gate table's name of a gate, which has others too: ``prx`` is ``r``.

    Raises:
        UsageError: If the table has no such gate.
    """
    from qcomp.ir.gates import BY_NAME

    if gate not in BY_NAME:
        raise UsageError(f"there is no gate '{gate}'", hint=suggest(gate, BY_NAME))
    return BY_NAME[gate].name


def num_operands(gate: str) -> int:
    """Return how many qubits a gate acts on.

    Raises:
        UsageError: If the table has no such gate.
    """
    from qcomp.ir.gates import BY_NAME

    return BY_NAME[table_name(gate)].num_qubits


def get_device(name: str) -> Device:
    """Return a device by its name.

    Args:
        name: A lattice (``line-20``, ``ring-12``, ``grid-10x10``, ``heavy-hex-7``,
            ``heavy-hex-7x15``, ``all-to-all-8``), a fake backend of ``qiskit_ibm_runtime`` such as
            ``fake_torino``, or an IBM machine such as ``ibm_fez`` that the account saved by IBM's
            own client can see.

    Raises:
        UsageError: If there is none; the message says the nearest names.
    """
    from qcomp.device_names import find_device

    return find_device(name)
