"""The names that the scanner knows, as arrays for its kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from qcomp.frontends.openqasm.scan_text import Column, Kinds, SymbolTable
from qcomp.ir.gates import BY_NAME, GATES, stdgates_names
from qcomp.qasm_words import RESERVED

__all__ = ["QELIB1", "Symbols"]

_T = TypeVar("_T", bound=np.generic)

_CODE_MASK = 0xFFFFFFFFFF
"""Codes of names, by which they are found, have 40 bits; as in ``find_word``."""

_FEW, _LONG = 32, 64
"""Names in a row from which on they are declared by arrays, and bytes of the longest at most."""

_QELIB1 = (
    "cx id u p x y z h s sdg t tdg rx ry rz sx sxdg cz cy swap ch ccx cswap crx cry crz cu1 cp csx "
    "cu rxx rzz"
).split()
"""The gates of OpenQASM 2's ``qelib1.inc`` that mean exactly a gate of the table."""


_BRAKET = {
    "i": "id", "si": "sdg", "ti": "tdg", "v": "sx", "vi": "sxdg", "phaseshift": "p", "prx": "r",
    "cnot": "cx", "cv": "csx", "cphaseshift": "cp", "xx": "rxx", "yy": "ryy", "zz": "rzz",
    "ccnot": "ccx",
    **{name: name for name in "x y z h s t rx ry rz cy cz swap iswap ecr cswap gpi gpi2 ms "
       "xy".split()},
}  # fmt: skip
"""Amazon Braket's gates, which need no include, that mean exactly a gate of the table."""


QELIB1: tuple[str, ...] = (*_QELIB1, *"u0 u1 u2 u3 cu1 cu3 c3x c4x c3sqrtx rccx rc3x".split())
"""Every name that ``qelib1.inc`` takes."""


class Symbols:
    """A growing open-addressing table of names.

    Attributes:
        table: The arrays the kernel reads; replaced when the table grows.
    """

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}
        self._used = 0
        self._codes = np.zeros(128, dtype=np.int64)
        self.table = SymbolTable(
            slots=np.full(256, -1, dtype=np.int32),
            symbols=np.zeros((128, 6), dtype=np.int32),
            names=np.zeros(1024, dtype=np.uint8),
            seen=np.zeros(0, dtype=np.int64),
        )

    def __contains__(self, name: bytes) -> bool:
        """Return whether the name means something already."""
        return name in self._index

    def add(self, name: bytes, kind: int, value: int = 0, size: int = -1) -> bool:
        """Give a name its meaning; False when it has one already."""
        if name in self._index:
            return False
        symbol = len(self._index)
        self._reserve(symbol, len(name))
        table = self.table
        start = self._used
        table.names[start : start + len(name)] = np.frombuffer(name, dtype=np.uint8)
        self._used += len(name)
        table.symbols[symbol] = (start, len(name), kind, value, size, -1)
        self._index[name] = symbol
        code = 0
        for byte in name:
            code = (code * 31 + byte) & _CODE_MASK
        self._codes[symbol] = code
        mask = len(table.slots) - 1
        slot = code & mask
        while table.slots[slot] >= 0:
            slot = (slot + 1) & mask
        table.slots[slot] = symbol
        return True

    def declare(self, name: bytes, kind: int, value: int, size: int = -1) -> bool:
        """Give a name that the program declares its meaning; False when the name is not free."""
        text = name.decode("utf-8", "replace")
        if not text.isidentifier() or text in RESERVED:
            return False
        return self.add(name, kind, value, size)

    def declare_all(self, names: Sequence[bytes], kind: int, value: int) -> bool:
        """Declare names in a row, with values that count up; False when one of them is not free.

        Args:
            names: Words as the language spells names, in any number.
            kind: What they mean, of ``Kinds``.
            value: The first one's value.
        """
        longest = max(map(len, names), default=0)
        joined = b" ".join(names)
        if len(names) < _FEW or longest > _LONG or not joined.isascii():
            return all(self.declare(name, kind, value + k) for k, name in enumerate(names))
        first, count = len(self._index), len(names)
        added = dict(zip(names, range(first, first + count), strict=True))
        if len(added) < count or not self._index.keys().isdisjoint(added):
            return False
        if not RESERVED.isdisjoint(joined.decode().split()):
            return False
        length = np.fromiter(map(len, names), dtype=np.int64, count=count)
        total = int(length.sum())
        self._reserve(first + count - 1, total)
        self._index |= added
        start = self._used + np.cumsum(length) - length
        own = slice(first, first + count)
        table = self.table
        table.names[self._used : self._used + total] = np.frombuffer(b"".join(names), np.uint8)
        rows = table.symbols[own]
        rows[:, Column.START], rows[:, Column.LENGTH] = start, length
        rows[:, Column.KIND], rows[:, Column.SIZE], rows[:, Column.ROW] = kind, -1, -1
        rows[:, Column.VALUE] = np.arange(value, value + count)
        self._used += total
        code = np.zeros(count, dtype=np.int64)
        for k in range(longest):
            at = np.flatnonzero(length > k)
            code[at] = (code[at] * 31 + table.names[start[at] + k]) & _CODE_MASK
        self._codes[own] = code
        self._place(first, first + count)
        return True

    def add_qubits(self, total: int) -> None:
        """Make room for the marks of that many qubits."""
        if total > len(self.table.seen):
            self.table = self.table._replace(seen=_grown(self.table.seen, total))

    def add_builtins(self, version: int) -> bool:
        """Add what the language knows without an include."""
        names = {b"measure": (Kinds.MEASURE, 0), b"pi": (Kinds.PI, 0)}
        for name in ("reset", "barrier", "U", *(("CX",) if version == 2 else ("gphase",))):
            names[name.encode()] = (Kinds.GATE, BY_NAME[name].code)
        if version == 3:
            names["π".encode()] = (Kinds.PI, 0)
            names[b"ctrl"] = (Kinds.CTRL, 0)
        return all(self.add(name, kind, value) for name, (kind, value) in names.items())

    def add_library(self, version: int) -> bool:
        """Add the gates of ``stdgates.inc`` or ``qelib1.inc``; False when a name is taken."""
        names = [*_QELIB1, "u1", "cu1"] if version == 2 else sorted(stdgates_names())
        done = all(
            self.add(name.encode(), Kinds.GATE, BY_NAME[name].code)
            for name in dict.fromkeys(names)
            if name in BY_NAME
        )
        done = done and self.add(b"u3", Kinds.GATE, BY_NAME["u"].code)
        done = done and self.add(b"u2", Kinds.U2)
        if version == 2:
            mcx = BY_NAME["mcx"].code
            done = done and self.add(b"cu3", Kinds.CU3)
            done = done and self.add(b"c3x", Kinds.GATE, mcx, 4)
            done = done and self.add(b"c4x", Kinds.GATE, mcx, 5)
        return done

    def add_braket(self) -> None:
        """Add the gates that Amazon Braket knows without an include."""
        for name, meant in _BRAKET.items():
            self.add(name.encode(), Kinds.GATE, BY_NAME[meant].code)

    def add_quantinuum(self) -> bool:
        """Add Quantinuum's native gates, of ``hqslib1.inc``."""
        return all(
            self.add(name.encode(), Kinds.GATE, BY_NAME[meant].code)
            for name, meant in (("U1q", "r"), ("Rz", "rz"), ("RZZ", "rzz"), ("ZZ", "zzmax"))
        )

    def add_gate(self, name: str) -> bool:
        """Add a gate of the table that the program defines; False when the name is taken."""
        return self.declare(name.encode(), Kinds.GATE, BY_NAME[name].code)

    def gate_names(self) -> list[str]:
        """Return the gates of the table that the program can call."""
        return [row.name for row in GATES if row.name.encode() in self._index]

    def _reserve(self, symbol: int, length: int) -> None:
        """Make room for a symbol and those before it, whose names take so many bytes more."""
        table = self.table
        if self._used + length > len(table.names):
            table = table._replace(names=_grown(table.names, self._used + length))
        if symbol >= len(table.symbols):
            table = table._replace(symbols=_grown(table.symbols, symbol + 1))
            self._codes = _grown(self._codes, symbol + 1)
        slots = len(table.slots)
        while 2 * symbol >= slots:
            slots *= 4
        if slots > len(table.slots):
            table = table._replace(slots=np.full(slots, -1, dtype=np.int32))
            self.table = table
            self._place(0, len(self._index))
        self.table = table

    def _place(self, first: int, last: int) -> None:
        """Put symbols into their slots: each at its code, or where there is room next to it."""
        slots = self.table.slots
        mask = len(slots) - 1
        waiting = np.arange(first, last, dtype=np.int32)
        slot = self._codes[first:last] & mask
        while len(waiting):
            free = slots[slot] < 0
            # Of several that want one slot the last stays in it.
            slots[slot[free]] = waiting[free]
            others = slots[slot] != waiting
            waiting, slot = waiting[others], (slot[others] + 1) & mask


def _grown(array: NDArray[_T], least: int) -> NDArray[_T]:
    bigger = np.zeros((max(least, 2 * len(array)), *array.shape[1:]), dtype=array.dtype)
    bigger[: len(array)] = array
    return bigger
