"""The kernel that writes a run as OpenQASM text: names and operands copied, angles printed."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from qcomp.decimals import (
    MAX_DOUBLE_TEXT,
    mul_high,
    print_double,
    print_integer,
    round_to_odd,
    shortest_digits,
)
from qcomp.ir.gates import NUM_ANGLES, NUM_QUBITS, G
from qcomp.kernels import kernel

__all__ = ["Angles", "Texts", "print_run"]

_MEASURE, _MCX = G.MEASURE, G.MCX
_MAX_ANGLE = 64 + MAX_DOUBLE_TEXT
_PI_BITS = 60


class Texts(NamedTuple):
    """Strings, each list as bytes and int32 starts with one more at the end.

    Attributes:
        gate, gate_at: Name of each gate code, with what stands before its first angle or operand.
        qubit, qubit_at: Each qubit.
        bit, bit_at: Each classical bit.
        param, param_at: Each parameter.
        indent: What every line starts with.
        longest: Longest of all these strings, in bytes.
    """

    gate: NDArray[np.uint8]
    gate_at: NDArray[np.int32]
    qubit: NDArray[np.uint8]
    qubit_at: NDArray[np.int32]
    bit: NDArray[np.uint8]
    bit_at: NDArray[np.int32]
    param: NDArray[np.uint8]
    param_at: NDArray[np.int32]
    indent: NDArray[np.uint8]
    longest: int


class Angles(NamedTuple):
    """The angles of a run.

    Attributes:
        frac, rem, form: As in a run.
        bits: The bits of ``rem``; uint64[m].
        indptr, col, coef: The circuit's forms.
        coef_bits: The bits of ``coef``; uint64[nonzeros].
    """

    frac: NDArray[np.int64]
    rem: NDArray[np.float64]
    bits: NDArray[np.uint64]
    form: NDArray[np.int32]
    indptr: NDArray[np.int64]
    col: NDArray[np.int32]
    coef: NDArray[np.float64]
    coef_bits: NDArray[np.uint64]


def copy_text(
    out: NDArray[np.uint8],
    at: int,
    source: NDArray[np.uint8],
    starts: NDArray[np.int32],
    index: int,
) -> int:
    """Copy string ``index`` to ``out[at:]`` and return the end."""
    for k in range(starts[index], starts[index + 1]):
        out[at] = source[k]
        at += 1
    return at


def print_pi(frac: int, out: NDArray[np.uint8], at: int) -> int:
    """Write natural units of pi / 2**60 as ``3*pi/8`` and return the end."""
    shift = 0
    while frac & 1 == 0 and shift < _PI_BITS:
        frac >>= 1
        shift += 1
    if frac != 1:
        at = print_integer(frac, out, at)
        out[at] = 42
        at += 1
    out[at] = 112
    out[at + 1] = 105
    at += 2
    if shift < _PI_BITS:
        out[at] = 47
        at = print_integer(1 << (_PI_BITS - shift), out, at + 1)
    return at


def print_sign(negative: bool, first: bool, out: NDArray[np.uint8], at: int) -> int:
    """Write the sign before a summand and return the end."""
    if first:
        if negative:
            out[at] = 45
            at += 1
        return at
    out[at] = 32
    out[at + 1] = 45 if negative else 43
    out[at + 2] = 32
    return at + 3


def print_angle(
    entry: int,
    angles: Angles,
    texts: Texts,
    out: NDArray[np.uint8],
    at: int,
    g_high: NDArray[np.uint64],
    g_low: NDArray[np.uint64],
) -> int:
    """Write an angle such as ``0.5*theta + pi/4`` and return the end."""
    first = True
    row = angles.form[entry]
    if row >= 0:
        for k in range(angles.indptr[row], angles.indptr[row + 1]):
            value = angles.coef[k]
            at = print_sign(value < 0, first, out, at)
            first = False
            if value != 1.0 and value != -1.0:
                at = print_double(angles.coef_bits[k], out, at, g_high, g_low)
                out[at] = 42
                at += 1
            at = copy_text(out, at, texts.param, texts.param_at, angles.col[k])
    frac = angles.frac[entry]
    if frac != 0:
        at = print_sign(frac < 0, first, out, at)
        first = False
        at = print_pi(abs(frac), out, at)
    if angles.rem[entry] != 0.0 or first:
        at = print_sign(angles.rem[entry] < 0, first, out, at)
        at = print_double(angles.bits[entry], out, at, g_high, g_low)
    return at


def room_for(
    op: int,
    code: NDArray[np.uint8],
    qubit: NDArray[np.int32],
    angle: NDArray[np.int32],
    angles: Angles,
    texts: Texts,
) -> int:
    """Return a bound on the bytes that an operation's line takes."""
    operands = qubit[op, 1] if NUM_QUBITS[code[op]] < 0 else 3
    room = 64 + texts.indent.size + (operands + 2) * (texts.longest + 2)
    for k in range(NUM_ANGLES[code[op]]):
        room += _MAX_ANGLE
        row = angles.form[angle[op] + k]
        if row >= 0:
            terms = angles.indptr[row + 1] - angles.indptr[row]
            room += terms * (MAX_DOUBLE_TEXT + 4 + texts.longest)
    return room


@kernel(
    calls=(
        mul_high,
        round_to_odd,
        shortest_digits,
        print_integer,
        print_double,
        copy_text,
        print_pi,
        print_sign,
        print_angle,
        room_for,
    ),
    bare=True,
)
def print_run(
    first: int,
    code: NDArray[np.uint8],
    qubit: NDArray[np.int32],
    extra: NDArray[np.int32],
    angle: NDArray[np.int32],
    angles: Angles,
    texts: Texts,
    arrow: bool,
    out: NDArray[np.uint8],
    g_high: NDArray[np.uint64],
    g_low: NDArray[np.uint64],
) -> tuple[int, int]:
    """Write operations from ``first`` on until ``out`` is full.

    Args:
        first: The first operation to write.
        code: Of the run, as the next three.
        qubit: See there.
        extra: See there.
        angle: See there.
        angles: Its angles.
        texts: The strings.
        arrow: Whether a measurement is ``measure q -> c`` rather than ``c = measure q``.
        out: Where to write.
        g_high: Upper halves of ``qcomp.decimals.print_tables``.
        g_low: Lower halves.

    Returns:
        (the next operation to write, bytes written).
    """
    at = 0
    for op in range(first, code.size):
        if at + room_for(op, code, qubit, angle, angles, texts) > out.size:
            return op, at
        kind = code[op]
        for k in range(texts.indent.size):
            out[at] = texts.indent[k]
            at += 1
        if kind == _MEASURE and not arrow:
            at = copy_text(out, at, texts.bit, texts.bit_at, qubit[op, 1])
            out[at] = 32
            out[at + 1] = 61
            out[at + 2] = 32
            at += 3
        at = copy_text(out, at, texts.gate, texts.gate_at, kind)
        if kind == _MCX:
            # The name is "ctrl(": the number of controls and the gate follow.
            at = print_integer(qubit[op, 1] - 1, out, at)
            for c in (41, 32, 64, 32, 120, 32):
                out[at] = c
                at += 1
        num_angles = NUM_ANGLES[kind]
        if num_angles > 0:
            for k in range(num_angles):
                if k > 0:
                    out[at] = 44
                    out[at + 1] = 32
                    at += 2
                at = print_angle(angle[op] + k, angles, texts, out, at, g_high, g_low)
            out[at] = 41
            at += 1
            if NUM_QUBITS[kind] != 0:
                out[at] = 32
                at += 1
        if NUM_QUBITS[kind] < 0:
            begin = qubit[op, 0]
            for k in range(begin, begin + qubit[op, 1]):
                if k > begin:
                    out[at] = 44
                    out[at + 1] = 32
                    at += 2
                at = copy_text(out, at, texts.qubit, texts.qubit_at, extra[k])
        else:
            for k in range(NUM_QUBITS[kind]):
                if k > 0:
                    out[at] = 44
                    out[at + 1] = 32
                    at += 2
                at = copy_text(out, at, texts.qubit, texts.qubit_at, qubit[op, k])
        if kind == _MEASURE and arrow:
            out[at] = 32
            out[at + 1] = 45
            out[at + 2] = 62
            out[at + 3] = 32
            at = copy_text(out, at + 4, texts.bit, texts.bit_at, qubit[op, 1])
        out[at] = 59
        out[at + 1] = 10
        at += 2
    return code.size, at
