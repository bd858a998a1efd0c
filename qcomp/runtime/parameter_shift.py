"""Gradients by the parameter-shift rule, on anything that evaluates a circuit.

Seen as a function of one angle of one gate, an expectation value is a trigonometric polynomial. Its
frequencies are differences of the frequencies of the gate's matrix: 1 for rotations, 1/2 and 1 for
controlled ones. For the frequencies ``w, 2 w .. R w`` the derivative is (Wierichs, Izaac, Wang,
Lin, "General parameter-shift rules for quantum gradients", 2022, arXiv:2107.12390, equation 10)

    f'(x) = sum_m (-1)^(m-1) w / (4 R sin^2(s_m / 2)) f(x + s_m / w),   s_m = (2 m - 1) pi / (2 R),

m from 1 to 2 R. R = 1 is the rule of two shifts by pi/2 (Mitarai et al., arXiv:1803.00745).
A parameter may stand in several angles and with a factor: every angle is shifted on its own, and
the circuit's affine forms take the derivatives to the parameters.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import GATES
from qcomp.ir.run import Run
from qcomp.simulate.exact import unitary_runs

__all__ = ["Shifts", "shift_gradients", "shifts_of"]

Rows = NDArray[np.float64]
Evaluate = Callable[[Circuit, Rows], NDArray[np.generic]]

_known: weakref.WeakKeyDictionary[Circuit, Shifts] = weakref.WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class Shifts:
    """A circuit whose angles are parameters of their own, and how each is shifted.

    Attributes:
        circuit: The same gates; parameter s is what the parameters add to varying angle s.
        matrix: Angle s is ``matrix[s] . params``, float64[S, P].
        slot: Which angle each shifted evaluation moves, int64[E].
        shift: By how much, float64[E].
        weight: Its factor in the derivative, float64[E].
    """

    circuit: Circuit
    matrix: Rows
    slot: NDArray[np.int64]
    shift: Rows
    weight: Rows


def shift_gradients(
    circuit: Circuit,
    params: Rows,
    cotangent: Rows,
    evaluate: Evaluate,
    needed: NDArray[np.bool_] | None = None,
) -> Rows:
    """Return the gradient of ``sum_k cotangent[b, k] f_k(params[b])``, f what is evaluated.

    All shifted rows go to ``evaluate`` in one call: B times E of them, E the evaluations of the
    angles that are needed, 2 for each rotation.

    Args:
        circuit: A circuit that is unitary up to measurements at its end.
        params: float64[B, P].
        cotangent: float64[B, K].
        evaluate: Gives the expectation values or probabilities of a circuit for rows of its
            parameters, [rows, K].
        needed: Parameters whose derivative is wanted, bool[P]; all when None. Others get 0.

    Returns:
        float64[B, P].

    Raises:
        UsageError: If the circuit is not unitary.
    """
    shifts = shifts_of(circuit)
    wanted = np.ones(len(circuit.params), dtype=np.bool_) if needed is None else needed
    use = np.flatnonzero((shifts.matrix[:, wanted] != 0).any(axis=1)[shifts.slot])
    out = np.zeros((len(params), len(circuit.params)))
    if not len(use) or not len(params):
        return out
    angles = params @ shifts.matrix.T
    rows = np.repeat(angles[:, None, :], len(use), axis=1)
    rows[:, np.arange(len(use)), shifts.slot[use]] += shifts.shift[use]
    values = np.asarray(evaluate(shifts.circuit, rows.reshape(-1, angles.shape[1])), np.float64)
    by_shift = (values.reshape(len(params), len(use), -1) @ cotangent[:, :, None])[:, :, 0]
    by_angle = np.zeros((len(shifts.matrix), len(params)))
    np.add.at(by_angle, shifts.slot[use], (by_shift * shifts.weight[use]).T)
    out[:, wanted] = by_angle.T @ shifts.matrix[:, wanted]
    return out


def shifts_of(circuit: Circuit) -> Shifts:
    """Return the shifted evaluations of a circuit, kept as long as the circuit is.

    Raises:
        UsageError: If the circuit is not unitary up to measurements at its end.
    """
    found = _known.get(circuit)
    if found is None:
        found = _known[circuit] = _shifts(circuit)
    return found


def _shifts(circuit: Circuit) -> Shifts:
    unitary_runs(circuit, "the parameter-shift rule")
    rows: list[NDArray[np.int32]] = []
    rules: list[tuple[tuple[float, float], ...]] = []

    def own(run: Run) -> Run:
        entries = np.flatnonzero(run.form >= 0)
        if not len(entries):
            return run
        form = np.full(len(run.form), -1, dtype=np.int32)
        form[entries] = len(rules) + np.arange(len(entries), dtype=np.int32)
        rows.append(run.form[entries])
        rules.extend(_rule_of_entry(run, entries))
        return replace(run, form=form)

    slots = circuit.map_runs(own)
    count = len(rules)
    identity = Forms(
        np.arange(count + 1, dtype=np.int64), np.arange(count, dtype=np.int32), np.ones(count)
    )
    slots = slots.copy(forms=identity)
    slots.params = tuple(f"angle{s}" for s in range(count))
    slots.global_phase = Angle()  # may depend on the parameters, and is never seen
    where = np.concatenate(rows) if rows else np.zeros(0, dtype=np.int32)
    flat = [(s, *term) for s, rule in enumerate(rules) for term in rule]
    return Shifts(
        slots,
        circuit.forms.dense(where, len(circuit.params)),
        np.array([s for s, _, _ in flat], dtype=np.int64),
        np.array([shift for _, shift, _ in flat]),
        np.array([weight for _, _, weight in flat]),
    )


def _rule_of_entry(run: Run, entries: NDArray[np.intp]) -> list[tuple[tuple[float, float], ...]]:
    """Return the rule of each angle entry, by the gate that owns it."""
    owner = np.flatnonzero(run.angle >= 0)
    first = run.angle[owner]
    order = np.argsort(first)
    at = np.searchsorted(first[order], entries, side="right") - 1
    gate = owner[order][at]
    which = entries - run.angle[gate]
    return [_rule(int(code), int(k)) for code, k in zip(run.code[gate], which, strict=True)]


@functools.cache
def _rule(code: int, angle: int) -> tuple[tuple[float, float], ...]:
    """Return (shift, weight) pairs for an angle of a gate."""
    frequencies = _frequencies(code, angle)
    if not frequencies:
        return ()  # a phase of the whole state
    step = frequencies[0]
    for other in frequencies:
        while other > 1e-9:
            step, other = other, step % other
    count = round(frequencies[-1] / step)
    terms = []
    for m in range(1, 2 * count + 1):
        shift = (2 * m - 1) * np.pi / (2 * count)
        weight = (-1.0) ** (m - 1) * step / (4 * count * np.sin(shift / 2) ** 2)
        terms.append((shift / step, weight))
    return tuple(terms)


def _frequencies(code: int, angle: int) -> tuple[float, ...]:
    """Return the frequencies of expectation values in an angle of a gate, ascending, above 0.

    The matrix is sampled over 8 pi, so that multiples of 1/4 up to 4 are told apart.
    """
    gate = GATES[code]
    samples = 32
    probe = np.repeat((0.37 + 0.51 * np.arange(gate.num_angles))[:, None], samples, axis=1)
    probe[angle] = 8 * np.pi * np.arange(samples) / samples
    size = np.abs(np.fft.fft(gate.matrix(*probe), axis=0)).max(axis=(1, 2)) / samples
    present = np.fft.fftfreq(samples, 1 / samples)[size > 1e-9] / 4
    apart = np.abs(present[:, None] - present[None, :])
    return tuple(np.unique(apart[apart > 1e-9]).tolist())
