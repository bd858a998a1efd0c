"""One compiled circuit, many rows of data: the text is made once, only angles are filled in.

The text of a circuit with parameters is written with a mark for each angle that depends on them.
For a batch of rows all those angles are one product of matrices, and a kernel copies the text
between the marks and prints the numbers.

Cost: for each row its text, copied, and one shortest-decimal print for each angle with a parameter.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qcomp.backends.openqasm3.ionq_json import ionq_job
from qcomp.backends.openqasm3.prepare import check_limit, within_a_turn
from qcomp.backends.openqasm3.profiles import get_profile
from qcomp.backends.openqasm3.runs import MARK, Field
from qcomp.backends.openqasm3.writer import Writer
from qcomp.decimals import (
    MAX_DOUBLE_TEXT,
    mul_high,
    print_double,
    print_integer,
    print_tables,
    round_to_odd,
    shortest_digits,
)
from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES
from qcomp.kernels import KERNEL_THRESHOLD, kernel

__all__ = ["TextTemplate", "write_batch"]

_MAX_BUFFER = 1 << 26
_MAX_FIELD = MAX_DOUBLE_TEXT + 1


@kernel(
    calls=(mul_high, round_to_odd, shortest_digits, print_integer, print_double),
    bare=True,
)
def fill_rows(
    text: NDArray[np.uint8],
    start: NDArray[np.int64],
    bits: NDArray[np.uint64],
    out: NDArray[np.uint8],
    end: NDArray[np.int64],
    g_high: NDArray[np.uint64],
    g_low: NDArray[np.uint64],
) -> None:
    """Write the text once for each row of angles.

    Args:
        text: The parts of the text between the angles, one after the other.
        start: Where each part begins, int64[fields + 2], the last one the text's end.
        bits: The bits of each angle, uint64[rows, fields].
        out: Where to write; long enough.
        end: Takes the end of each row's text, int64[rows].
        g_high: Upper halves of ``qcomp.decimals.print_tables``.
        g_low: Lower halves.
    """
    at = 0
    fields = bits.shape[1]
    for row in range(bits.shape[0]):
        for k in range(fields + 1):
            for i in range(start[k], start[k + 1]):
                out[at] = text[i]
                at += 1
            if k < fields:
                if bits[row, k] > np.uint64(0x8000000000000000):
                    out[at] = 45
                    at += 1
                at = print_double(bits[row, k], out, at, g_high, g_low)
        end[row] = at


class TextTemplate:
    """The text of a circuit with a gap for every angle that depends on its parameters.

    Args:
        circuit: A circuit with parameters.
        profile: A name of ``PROFILES``; parameters may be what it does not take, as they are bound.

    Raises:
        TargetError: If the profile cannot say what the circuit holds.
    """

    def __init__(self, circuit: Circuit, profile: str = "full") -> None:
        self.profile = get_profile(profile)
        self.circuit = circuit
        self._json = self.profile.version == "json"
        if self._json:
            return
        parts: list[bytes] = []
        writer = Writer(circuit, self.profile, parts.append, bound=True)
        fields: list[Field] = []
        writer.printer.marked = fields
        writer.write()
        self._pieces = b"".join(parts).split(MARK.encode())
        self._fields = fields
        self._constant = np.array([f.constant for f in fields], dtype=np.float64)
        self._forms, self._form = Forms().append([f.terms for f in fields])
        self._text = np.frombuffer(b"".join(self._pieces) or b"\0", dtype=np.uint8)
        self._start = np.zeros(len(self._pieces) + 1, dtype=np.int64)
        np.cumsum([len(piece) for piece in self._pieces], out=self._start[1:])

    def angles(self, rows: ArrayLike) -> NDArray[np.float64]:
        """Return the angles that are filled in, in the order of the text, float64[B, fields].

        Raises:
            UsageError: If the rows have the wrong length or are not finite.
            TargetError: If an angle is none that the profile's machine takes.
        """
        values = self.circuit.parameter_rows(rows)
        if not np.isfinite(values).all():
            row, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise UsageError(
                f"the value of '{self.circuit.params[column]}' in row {row} is not finite"
            )
        angles = self._constant + self._forms.evaluate(self._form, values)
        if self.profile.limits:
            angles = within_a_turn(angles)
        for name, limits in self.profile.limits.items():
            for limit in limits:
                meant = [
                    k
                    for k, f in enumerate(self._fields)
                    if f.gate >= 0 and GATES[f.gate].name == name and f.place == limit.index
                ]
                check_limit(angles[:, meant].reshape(-1), limit, name, self.profile)
        # A zero has no sign in the text.
        angles[angles == 0.0] = 0.0
        return np.ascontiguousarray(angles)

    def fill(self, rows: ArrayLike) -> list[bytes]:
        """Return the text of each row of parameters.

        Args:
            rows: float64[B, P], parameters in the circuit's order; float64[P] for one row.

        Raises:
            UsageError: If the rows have the wrong length or are not finite.
            TargetError: If an angle is none that the profile's machine takes.
        """
        if self._json:
            values = self.circuit.parameter_rows(rows)
            return [ionq_job(self.circuit.bind(row), self.profile) for row in values]
        angles = self.angles(rows)
        if angles.size < KERNEL_THRESHOLD and not fill_rows.loaded:
            return [self._filled(row) for row in angles.tolist()]
        return self._compiled(angles, fill_rows.compiled())

    def _filled(self, angles: list[float]) -> bytes:
        parts = [self._pieces[0]]
        for value, piece in zip(angles, self._pieces[1:], strict=True):
            parts += (repr(value).encode(), piece)
        return b"".join(parts)

    def _compiled(self, angles: NDArray[np.float64], run: Callable[..., None]) -> list[bytes]:
        bits = angles.view(np.uint64)
        longest = len(self._text) + _MAX_FIELD * angles.shape[1]
        step = max(1, _MAX_BUFFER // longest)
        out = np.empty(longest * min(step, len(bits)), dtype=np.uint8)
        end = np.zeros(min(step, len(bits)), dtype=np.int64)
        high, low = print_tables()
        texts: list[bytes] = []
        for first in range(0, len(bits), step):
            part = bits[first : first + step]
            run(self._text, self._start, part, out, end, high, low)
            ends = [0, *end[: len(part)].tolist()]
            texts += [out[a:b].tobytes() for a, b in itertools.pairwise(ends)]
        return texts


def write_batch(circuit: Circuit, rows: ArrayLike, profile: str = "full") -> list[str]:
    """Return the text of a circuit for each row of its parameters; see :class:`TextTemplate`."""
    return [text.decode() for text in TextTemplate(circuit, profile).fill(rows)]
