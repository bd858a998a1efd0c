"""fuse-one-qubit: runs of one-qubit gates become the fewest gates of a basis."""

from __future__ import annotations

import cmath
import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES, NUM_ANGLES, G
from qcomp.ir.run import Run
from qcomp.kernels import kernel
from qcomp.passes.reduce.cancel_inverses import cancel_run
from qcomp.passes.reduce.euler import UNWRITABLE, Basis, Spelling, distinct, spelled
from qcomp.passes.reduce.leaves import Leaf, Phase, call, rewrite_leaves
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["FuseOneQubit"]

_IS_SINGLE = np.array([g.num_qubits == 1 and g.is_unitary for g in GATES])
_ROUNDS = 64
"""Rounds at most, each but the last with fewer gates; a symbol with a new neighbour needs two."""

_NAMED = ("x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg", "rz")
_TURNING = ("rx", "ry", "u")
_ANY = np.ones(len(GATES), dtype=np.int8)
_HAS_TURNING = np.isin(np.arange(len(GATES)), [G.P, G.RX, G.RY, G.U, G.R, G.GPI, G.GPI2]).astype(
    np.int8
)
_BARRIER, _MCX, _MEASURE = G.BARRIER, G.MCX, G.MEASURE
_P, _RX, _RY, _RZ, _U, _R = G.P, G.RX, G.RY, G.RZ, G.U, G.R
_GPI, _GPI2 = G.GPI, G.GPI2
_ROOT = math.sqrt(0.5)


@functools.cache
def _fixed_matrices() -> NDArray[np.complex128]:
    """Matrices of the one-qubit gates without angles, complex128[codes, 2, 2], else identity."""
    table = np.tile(np.eye(2, dtype=complex), (len(GATES), 1, 1))
    for row in GATES:
        if _IS_SINGLE[row.code] and row.num_angles == 0:
            table[row.code] = row.matrix()
    return table


@kernel()
def _collect(
    n: int,
    code: Any,
    qubit: Any,
    extra: Any,
    angle: Any,
    value: Any,
    free: Any,
    single: Any,
    fixed: Any,
    foreign: Any,
    open_at: Any,
    chain: Any,
    count: Any,
    strange: Any,
    m00: Any,
    m01: Any,
    m10: Any,
    m11: Any,
) -> int:
    """Multiply out the maximal runs of one-qubit gates with known angles.

    open_at: int[wires], the open chain, -1 none. chain: int[n], that of each gate, -1 none. count,
    strange: int[chains], its gates, and those outside the basis. m00 .. m11: complex128[chains].
    """
    chains = 0
    for i in range(n):
        c = code[i]
        if c == _BARRIER or c == _MCX:
            for k in range(qubit[3 * i], qubit[3 * i] + qubit[3 * i + 1]):
                open_at[extra[k]] = -1
            continue
        if c == _MEASURE:
            open_at[qubit[3 * i]] = -1
            continue
        if single[c] == 0 or free[i] == 1:
            for k in range(3):
                w = qubit[3 * i + k]
                if w >= 0:
                    open_at[w] = -1
            continue
        w = qubit[3 * i]
        g = open_at[w]
        if g < 0:
            g = chains
            chains += 1
            open_at[w] = g
            m00[g] = 1.0
            m11[g] = 1.0
        chain[i] = g
        count[g] += 1
        strange[g] += foreign[c]
        a = angle[i]
        if a < 0:
            x00 = fixed[4 * c]
            x01 = fixed[4 * c + 1]
            x10 = fixed[4 * c + 2]
            x11 = fixed[4 * c + 3]
        elif c == _P:
            x00 = 1.0 + 0.0j
            x01 = 0.0j
            x10 = 0.0j
            x11 = cmath.exp(1j * value[a])
        elif c == _RZ:
            x00 = cmath.exp(-0.5j * value[a])
            x01 = 0.0j
            x10 = 0.0j
            x11 = cmath.exp(0.5j * value[a])
        elif c == _GPI:
            x00 = 0.0j
            x01 = cmath.exp(-1j * value[a])
            x10 = cmath.exp(1j * value[a])
            x11 = 0.0j
        elif c == _GPI2:
            x00 = _ROOT + 0.0j
            x01 = -1j * _ROOT * cmath.exp(-1j * value[a])
            x10 = -1j * _ROOT * cmath.exp(1j * value[a])
            x11 = _ROOT + 0.0j
        else:
            cosine = math.cos(value[a] / 2)
            sine = math.sin(value[a] / 2)
            if c == _RX:
                x00 = cosine + 0.0j
                x01 = -1j * sine
                x10 = -1j * sine
                x11 = cosine + 0.0j
            elif c == _RY:
                x00 = cosine + 0.0j
                x01 = -sine + 0.0j
                x10 = sine + 0.0j
                x11 = cosine + 0.0j
            elif c == _U:
                x00 = cosine + 0.0j
                x01 = -cmath.exp(1j * value[a + 2]) * sine
                x10 = cmath.exp(1j * value[a + 1]) * sine
                x11 = cmath.exp(1j * (value[a + 1] + value[a + 2])) * cosine
            else:
                x00 = cosine + 0.0j
                x01 = -1j * cmath.exp(-1j * value[a + 1]) * sine
                x10 = -1j * cmath.exp(1j * value[a + 1]) * sine
                x11 = cosine + 0.0j
        y00 = x00 * m00[g] + x01 * m10[g]
        y01 = x00 * m01[g] + x01 * m11[g]
        y10 = x10 * m00[g] + x11 * m10[g]
        y11 = x10 * m01[g] + x11 * m11[g]
        m00[g] = y00
        m01[g] = y01
        m10[g] = y10
        m11[g] = y11
    return chains


def fuse_run(
    run: Run,
    forms: Forms,
    num_qubits: int,
    basis: Basis,
    having: NDArray[np.int8] | None = None,
) -> Leaf:
    """Fuse the one-qubit chains of one run; the same run comes back when none got better.

    Args:
        run: The run.
        forms: The circuit's forms.
        num_qubits: Wires of the circuit.
        basis: What to write.
        having: 1 for the gates, by code, of which a chain must have one and then get shorter; None
            for every chain, and those with gates outside the basis if they do not grow.
    """
    n = len(run)
    value = run.frac * (np.pi / (1 << 60)) + run.rem
    free = _free(run)
    room = int(np.count_nonzero(_IS_SINGLE[run.code] & ~free))
    if not room:
        return run, forms, Phase()
    chain = np.full(n, -1, dtype=np.int32)
    count, strange = np.zeros(room, dtype=np.int32), np.zeros(room, dtype=np.int32)
    parts = tuple(np.zeros(room, dtype=np.complex128) for _ in range(4))
    chains = call(
        _collect,
        n,
        (
            n,
            run.code,
            run.qubit.ravel(),
            run.extra,
            run.angle,
            value,
            free.astype(np.int8),
            _IS_SINGLE.astype(np.int8),
            _fixed_matrices().ravel(),
            basis.foreign if having is None else having,
        ),
        (np.full(num_qubits, -1, dtype=np.int32), chain, count, strange, *parts),
    )
    count, strange = count[:chains], strange[:chains]
    asked = (count > 1) & (strange > 0) if having is not None else (count > 1) | (strange > 0)
    index = np.flatnonzero(asked)
    if not len(index):
        return run, forms, Phase()
    matrix = np.stack(parts, axis=-1)[index].reshape(-1, 2, 2)
    first, which = distinct(matrix)
    matrix = matrix[first]
    words = basis.choose(matrix)
    length = words.length[which]
    better = length < count[index]
    if having is None:
        better |= (length == count[index]) & (strange[index] > 0)
    better &= length < UNWRITABLE  # a chain may be longer than that number
    if not better.any():
        return run, forms, Phase()
    spelling = spelled(words, matrix).take(which[better])
    return _replace(run, forms, chain, index[better], spelling)


def _free(run: Run) -> NDArray[np.bool_]:
    """Which operations have a symbolic angle, bool[n]."""
    out = np.zeros(len(run), dtype=bool)
    counts = NUM_ANGLES[run.code]
    for k in range(int(counts.max(initial=0))):
        has = counts > k
        out[has] |= run.form[run.angle[has] + k] >= 0
    return out


def _replace(
    run: Run, forms: Forms, chain: NDArray[np.int32], chosen: NDArray[np.intp], new: Spelling
) -> Leaf:
    """Put the new gates of each chosen chain where its first gate stood."""
    n = len(run)
    member = np.isin(chain, chosen.astype(np.int32)) & (chain >= 0)
    where = np.flatnonzero(member)
    _, first = np.unique(chain[where], return_index=True)
    first = where[first]  # of chosen chains, which are in ascending order
    row, slot = np.nonzero(new.code >= 0)
    code = new.code[row, slot]
    counts = NUM_ANGLES[code].astype(np.int64)
    begin = np.cumsum(counts) - counts
    angle_row, angle_slot = np.repeat(row, counts), np.repeat(slot, counts)
    angle_k = np.arange(int(counts.sum())) - np.repeat(begin, counts)
    qubit = np.full((len(code), 3), -1, dtype=np.int32)
    qubit[:, 0] = run.qubit[first[row], 0]
    added = Run.of(
        code.astype(np.uint8),
        qubit,
        new.frac[angle_row, angle_slot, angle_k],
        new.rem[angle_row, angle_slot, angle_k],
    )
    joined = Run.concat([run, added])
    order = np.concatenate([np.flatnonzero(~member), n + np.arange(len(code))])
    place = np.concatenate([np.flatnonzero(~member), first[row]])
    order = order[np.argsort(place, kind="stable")]
    phase_frac = int(new.phase_frac.sum(dtype=np.int64) & ((1 << 62) - 1))
    return joined.select(order), forms, Phase(phase_frac, float(new.phase_rem.sum()))


@dataclass(frozen=True)
class FuseOneQubit(CircuitPass):
    """Write chains of one-qubit gates with the fewest gates of a basis.

    ``U_k ... U_1 = exp(i alpha) G_m ... G_1`` on one wire, ``G`` from the basis, m least.

    With ``U = exp(i alpha) u(theta, phi, lambda)`` each spelling of the basis is an identity, such
    as ``u = rz(phi + pi) sx rz(theta + pi) sx rz(lambda)`` up to phase, and ``u(pi/2, phi, lambda)
    = rz(phi + pi/2) sx rz(lambda - pi/2)``; the shortest for the angles at hand is taken. A chain
    is replaced where that makes it shorter, or where it had gates outside the basis and does not
    grow.

    Options: ``basis``, names of one-qubit gates joined by dashes: ``u``, ``rz-sx-x``, ``rz-h``,
    ``h-x-rz``, ``rz-ry``, ``rz-rx``, ``p-h``, machines' own ``rz-r`` (IQM, Quantinuum) and
    ``rz-gpi-gpi2`` (IonQ), or without turns about Z ``r`` and ``gpi-gpi2``, and any others that can
    write every one-qubit gate, or not: a chain that the basis cannot write stays as it is. ``own``
    keeps to the words of the chain: Clifford+T and rz everywhere, rx, ry and u only where the chain
    had one of them, p, r or a machine's turn.

    Preconditions: none. A gate with a symbolic angle ends a chain; neighbours about one axis,
    symbols included, are added up first, as in cancel-inverses. A two-qubit gate, measurement,
    reset or barrier ends the chains of its wires.

    Preserves: the unitary to float64 rounding, global phase included; angles within 1e-13 of a
    multiple of pi/4096 become exact.

    Cost: linear.

    Source: Euler angles; the U-to-ZSX identity is that of McKay, Wood, Sheldon, Chow, Gambetta 2017
    (arXiv:1612.00858), equation 9.
    """

    name: ClassVar[str] = "fuse-one-qubit"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    basis: str = "own"

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit with chains fused; the same object when none got better.

        Raises:
            UsageError: If the basis names something that is no one-qubit gate.
        """
        bases: list[tuple[Basis, NDArray[np.int8] | None]]
        if self.basis == "own":
            bases = [
                (Basis.parse("-".join((*_NAMED, *_TURNING))), _HAS_TURNING),
                (Basis.parse("-".join(_NAMED)), _ANY),
            ]
        else:
            bases = [(Basis.parse(self.basis), None)]
        rng = context.rng(self.name)
        qubits = circuit.num_qubits
        for _ in range(_ROUNDS):
            before = circuit
            circuit = rewrite_leaves(
                circuit, lambda run, forms: cancel_run(run, forms, qubits, rng, single=True)
            )
            for basis, having in bases:
                circuit = _fused(circuit, basis, having)
            if circuit is before:
                break
        return circuit


def _fused(circuit: Circuit, basis: Basis, having: NDArray[np.int8] | None) -> Circuit:
    return rewrite_leaves(
        circuit, lambda run, forms: fuse_run(run, forms, circuit.num_qubits, basis, having)
    )
