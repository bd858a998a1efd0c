"""One large state at a time: stages of operations on a part of the amplitudes that fits a cache.

A stage names at most ``LOCAL`` qubits, always with the lowest ones. The amplitudes that differ in
these qubits alone are copied into a small block, real and imaginary parts apart; every operation of
the stage whose targets are among them is applied there, and the block is put back. Controls and
diagonal operands may lie outside, where they are the same for the whole block. This is the circuit
partitioning of Häner and Steiger (arXiv:1704.01127, section 3.4), with local qubits by gathering.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qcomp.kernels import kernel
from qcomp.simulate.plan import MONO, Plan
from qcomp.simulate.tables import spread
from qcomp.simulate.tape import DENSE, DIAG, PAIR
from qcomp.simulate.values import values_of

__all__ = ["evolve_state"]

LOCAL = 14
"""Qubits of a block: 2^14 amplitudes are 256 KiB."""

LOWEST = 6
"""Qubits that every block has: runs of 2^6 amplitudes are copied at once."""

SHORT = 16
"""Amplitudes from which on a run of them is worth a vector loop."""

Reals = NDArray[np.float64]
States = NDArray[np.complex128]
Ints = NDArray[np.int64]


def _turn(x: Reals, y: Reals, u: Reals, v: Reals, c: States) -> None:
    """Apply a 2 x 2 matrix to the pairs x + iy, u + iv."""
    pr, qr, rr, sr = c[0].real, c[1].real, c[2].real, c[3].real
    pi, qi, ri, si = c[0].imag, c[1].imag, c[2].imag, c[3].imag
    for k in range(len(x)):
        a, b, d, e = x[k], y[k], u[k], v[k]
        x[k] = pr * a - pi * b + qr * d - qi * e
        y[k] = pr * b + pi * a + qr * e + qi * d
        u[k] = rr * a - ri * b + sr * d - si * e
        v[k] = rr * b + ri * a + sr * e + si * d


def _pairs(re: Reals, im: Reals, mask: int, target: int, c: States) -> None:
    """Apply a 2 x 2 matrix to the target where all bits of ``mask`` are 1."""
    stride = 1 << target
    low = mask & (stride - 1)
    if low == 0 and stride >= SHORT:
        for base in range(0, len(re), 2 * stride):
            if base & mask == mask:
                end = base + stride
                last = end + stride
                _turn(re[base:end], im[base:end], re[end:last], im[end:last], c)
        return
    x, y = re.reshape(-1, 2, stride), im.reshape(-1, 2, stride)
    for i in range(len(x)):
        for k in range(stride):
            if (2 * i * stride + k) & mask == mask:
                a, b = complex(x[i, 0, k], y[i, 0, k]), complex(x[i, 1, k], y[i, 1, k])
                a, b = c[0] * a + c[1] * b, c[2] * a + c[3] * b
                x[i, 0, k], y[i, 0, k] = a.real, a.imag
                x[i, 1, k], y[i, 1, k] = b.real, b.imag


def _swap(x: Reals, u: Reals, low: int) -> None:
    """Swap two vectors where all bits of ``low`` are 1 in the index."""
    for k in range(len(x)):
        a, b = x[k], u[k]
        taken = k & low == low
        x[k] = b if taken else a
        u[k] = a if taken else b


def _flips(x: Reals, mask: int, target: int) -> None:
    """Swap the pair of the target where all bits of ``mask`` are 1."""
    stride = 1 << target
    low = mask & (stride - 1)
    for base in range(0, len(x), 2 * stride):
        if base & mask == mask ^ low:
            end = base + stride
            if stride >= SHORT:
                _swap(x[base:end], x[end : end + stride], low)
            else:
                for k in range(stride):
                    if k & low == low:
                        a = x[base + k]
                        x[base + k] = x[end + k]
                        x[end + k] = a


def _phases(re: Reals, im: Reals, base: int, wide: Ints, start: int, count: int, c: States) -> None:
    """Multiply by the coefficient that the operands pick; those outside are complements."""
    run = len(re)
    for k in range(count):
        q = wide[start + k]
        if q >= 0:
            run = min(run, 1 << q)
    for i in range(0, len(re), run):
        index = 0
        for k in range(count):
            q = wide[start + k]
            bit = (i >> q) if q >= 0 else (base >> ~q)
            index |= (bit & 1) << k
        p, q = c[index].real, c[index].imag
        if p == 1.0 and q == 0.0:
            continue
        x, y = re[i : i + run], im[i : i + run]
        for k in range(run):
            a, b = x[k], y[k]
            x[k] = p * a - q * b
            y[k] = p * b + q * a


def _mixes(re: Reals, im: Reals, wide: Ints, start: int, count: int, c: States) -> None:
    """Apply a 2^k x 2^k matrix to k operands."""
    size = 1 << count
    mask = spread(size - 1, wide, start, count)
    work = np.empty(size, dtype=np.complex128)
    for base in range(len(re)):
        if base & mask == 0:
            for j in range(size):
                at = base | spread(j, wide, start, count)
                work[j] = complex(re[at], im[at])
            for r in range(size):
                total = 0j
                for j in range(size):
                    total += c[r * size + j] * work[j]
                at = base | spread(r, wide, start, count)
                re[at] = total.real
                im[at] = total.imag


def _operations(
    re: Reals,
    im: Reals,
    base: int,
    kind: NDArray[np.int8],
    near: Ints,
    far: Ints,
    second: Ints,
    at: Ints,
    wide: Ints,
    c: States,
) -> None:
    """Apply a stage's operations to one block, whose other qubits are the bits of ``base``."""
    for k in range(len(kind)):
        if kind[k] == 2:
            _phases(re, im, base, wide, near[k], second[k], c[at[k] :])
        elif kind[k] == 3:
            _mixes(re, im, wide, near[k], second[k], c[at[k] :])
        elif base & far[k] == far[k]:
            if kind[k] == 1:
                _pairs(re, im, near[k], second[k], c[at[k] :])
            else:
                _flips(re, near[k], second[k])
                _flips(im, near[k], second[k])


@kernel(calls=(spread, _turn, _pairs, _swap, _flips, _phases, _mixes, _operations), fastmath=True)
def run_stage(
    re: Reals,
    im: Reals,
    rest: Ints,
    outer: Ints,
    places: Ints,
    inner: Ints,
    kind: NDArray[np.int8],
    near: Ints,
    far: Ints,
    second: Ints,
    at: Ints,
    wide: Ints,
    c: States,
) -> None:
    """Apply a stage to a state.

    Args:
        re: Real parts, float64[2^n].
        im: Imaginary parts.
        rest: The qubits that are not local, ascending.
        outer: First amplitude of each run of a block, without the bits of ``rest``.
        places: Where its first amplitude stands in the block.
        inner: Where each amplitude of a run stands after the first one.
        kind: FLIP, PAIR, DIAG or DENSE of each operation.
        near: Control mask within the block, or first operand.
        far: Control mask outside it.
        second: Target within the block, or number of operands.
        at: First coefficient.
        wide: Operands within the block; those outside it are complements of qubits.
        c: Coefficients.
    """
    if len(rest) == 0:
        _operations(re, im, 0, kind, near, far, second, at, wide, c)
        return
    run = len(inner)
    x = np.empty(run * len(outer))
    y = np.empty(run * len(outer))
    for block in range(1 << len(rest)):
        base = spread(block, rest, 0, len(rest))
        for k in range(len(outer)):
            i, j = base + outer[k], places[k]
            a, b = re[i : i + run], im[i : i + run]
            for r in range(run):
                x[j + inner[r]] = a[r]
                y[j + inner[r]] = b[r]
        _operations(x, y, base, kind, near, far, second, at, wide, c)
        for k in range(len(outer)):
            i, j = base + outer[k], places[k]
            a, b = re[i : i + run], im[i : i + run]
            for r in range(run):
                a[r] = x[j + inner[r]]
                b[r] = y[j + inner[r]]


@kernel()
def product_state(factors: States, re: Reals, im: Reals) -> None:
    """Set the product of one-qubit states, complex128[n, 2]."""
    re[0], im[0] = 1.0, 0.0
    for q in range(len(factors)):
        size = 1 << q
        a, b = factors[q, 0].real, factors[q, 0].imag
        c, d = factors[q, 1].real, factors[q, 1].imag
        x, y, u, v = re[:size], im[:size], re[size : 2 * size], im[size : 2 * size]
        for k in range(size):
            p, r = x[k], y[k]
            u[k] = c * p - d * r
            v[k] = c * r + d * p
            x[k] = a * p - b * r
            y[k] = a * r + b * p


@dataclass(frozen=True, slots=True)
class _Step:
    kind: int
    first: int
    second: int
    at: int
    targets: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Stage:
    rest: Ints
    outer: Ints
    places: Ints
    inner: Ints
    kind: NDArray[np.int8]
    near: Ints
    far: Ints
    second: Ints
    at: Ints
    wide: Ints


_staged: OrderedDict[tuple[int, bool], tuple[Plan, list[_Stage]]] = OrderedDict()
_STAGED_KEPT = 32


def evolve_state(plan: Plan, row: Reals, state: States, *, grounded: bool = False) -> None:
    """Apply a plan in which nothing varies to one state, complex128[2^n], in place.

    Args:
        plan: The plan.
        row: The parameters, float64[1, P].
        state: The state.
        grounded: Start from |0...0> whatever the state is.
    """
    values = values_of(plan, row)
    re, im = np.empty(len(state)), np.empty(len(state))
    if grounded:
        factors = np.zeros((plan.num_qubits, 2), dtype=np.complex128)
        factors[:, 0] = 1
        for k in range(plan.prefix):
            factors[plan.second[k]] = values.fused[plan.fused[k], :, 0]
        product_state(factors, re, im)
    else:
        re[:], im[:] = state.real, state.imag
    coefficients = np.concatenate([values.constants, values.fused.reshape(-1)])
    for stage in _stages(plan, grounded):
        run_stage(
            re,
            im,
            stage.rest,
            stage.outer,
            stage.places,
            stage.inner,
            stage.kind,
            stage.near,
            stage.far,
            stage.second,
            stage.at,
            stage.wide,
            coefficients,
        )
    state.real[:] = re
    state.imag[:] = im


def _stages(plan: Plan, grounded: bool) -> list[_Stage]:
    """Return the stages of a plan, kept for the next call."""
    known = _staged.get((id(plan), grounded))
    if known is not None and known[0] is plan:
        return known[1]
    waiting = _steps(plan, plan.prefix if grounded else 0)
    stages = []
    while waiting:
        stage, waiting = _next_stage(plan, waiting)
        stages.append(stage)
    _staged[id(plan), grounded] = (plan, stages)
    if len(_staged) > _STAGED_KEPT:
        _staged.popitem(last=False)
    return stages


def _steps(plan: Plan, start: int) -> list[_Step]:
    """Return the operations one by one, fused matrices whole, monomial layers taken apart."""
    out = []
    for k in range(start, len(plan.kind)):
        kind, first, second = int(plan.kind[k]), int(plan.first[k]), int(plan.second[k])
        if kind == MONO:
            layer = int(plan.place[k])
            for s in range(int(plan.step_layer[layer]), int(plan.step_layer[layer + 1])):
                found = (int(plan.step_kind[s]), int(plan.step_first[s]), int(plan.step_second[s]))
                out.append(_step(plan, *found, int(plan.step_place[s])))
        elif plan.fused[k] >= 0:
            at = plan.widths[0] + 4 * int(plan.fused[k])
            out.append(_step(plan, PAIR, 0, second, at))
        else:
            out.append(_step(plan, kind, first, second, int(plan.place[k])))
    return out


def _step(plan: Plan, kind: int, first: int, second: int, at: int) -> _Step:
    if kind in (DIAG, DENSE):
        operands = tuple(plan.wide[first : first + second].tolist())
        mixed = operands if kind == DENSE else ()
        return _Step(kind, first, second, at, mixed, () if mixed else operands)
    controls = tuple(q for q in range(plan.num_qubits) if first >> q & 1)
    return _Step(kind, first, second, at, (second,), controls)


def _next_stage(plan: Plan, waiting: list[_Step]) -> tuple[_Stage, list[_Step]]:
    """Take what can be applied with few enough targets; return it and what is left, in order."""
    n = plan.num_qubits
    whole = n <= LOCAL
    targets: set[int] = set()
    blocked: set[int] = set()
    taken, left = [], []
    for number, step in enumerate(waiting):
        if len(blocked) == n:
            left += waiting[number:]
            break
        free = blocked.isdisjoint(step.targets) and blocked.isdisjoint(step.others)
        wanted = targets.union(step.targets)
        if free and (whole or _fits(wanted)):
            targets = wanted
            taken.append(step)
        else:
            left.append(step)
            blocked.update(step.targets, step.others)
    if whole:
        return _stage(plan, list(range(n)), taken), left
    low = set(range(LOWEST))
    for q in range(n):
        if len(low | targets) < LOCAL and q not in targets:
            low.add(q)
    # Qubits that nothing is done to come first: every operation then acts on long runs.
    return _stage(plan, sorted(low - targets) + sorted(targets), taken), left


def _fits(targets: set[int]) -> bool:
    """Whether a block has room for these targets, the lowest qubits and ``SHORT`` others."""
    idle = max(0, SHORT.bit_length() - 1 - sum(q not in targets for q in range(LOWEST)))
    return len(targets.union(range(LOWEST))) + idle <= LOCAL


def _stage(plan: Plan, local: list[int], steps: list[_Step]) -> _Stage:
    place = {qubit: k for k, qubit in enumerate(local)}
    near, far, second = [], [], []
    wide: list[int] = []
    for step in steps:
        if step.kind in (DIAG, DENSE):
            near.append(len(wide))
            far.append(0)
            second.append(step.second)
            operands = plan.wide[step.first : step.first + step.second].tolist()
            wide += [place.get(q, ~q) for q in operands]
            continue
        near.append(sum(1 << place[q] for q in step.others if q in place))
        far.append(sum(1 << q for q in step.others if q not in place))
        second.append(place[step.second])
    lowest = min(LOWEST, plan.num_qubits)
    high = [q for q in sorted(local) if q >= lowest]
    return _Stage(
        _ints([q for q in range(plan.num_qubits) if q not in place]),
        _bits([1 << q for q in high]),
        _bits([1 << place[q] for q in high]),
        _bits([1 << place[q] for q in range(lowest)]),
        np.array([step.kind for step in steps], dtype=np.int8),
        *(_ints(v) for v in (near, far, second, [step.at for step in steps], wide)),
    )


def _bits(weights: list[int]) -> Ints:
    """Return the sums of every choice of weights, int64[2^k]."""
    out = np.zeros(1, dtype=np.int64)
    for weight in weights:
        out = np.concatenate([out, out + weight])
    return out


def _ints(values: list[int]) -> Ints:
    return np.array(values, dtype=np.int64)
