"""Numeric synthesis: templates from random starts, grown CX by CX, and shortened.

A random unitary is met by a template of the fewest CX gates that parameters allow, from one or a
few random starts (:mod:`qcomp.passes.synthesize.unitary.templates`). A unitary with structure needs
fewer: a template is grown one CX gate at a time, keeping what comes nearest (as QSearch does: Davis
et al. 2020, arXiv:1912.12454), and CX gates of circuits that are exact are left out one by one,
the rest fitted anew from where it is (as Rakyta, Zimboras 2022, arXiv:2203.04426). All starts are
drawn from a seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qcomp.passes.reduce.euler import euler_angles
from qcomp.passes.synthesize.unitary.sketch import Matrix, Sketch
from qcomp.passes.synthesize.unitary.templates import Fit, Template, fit
from qcomp.passes.synthesize.weyl import rotation

__all__ = ["bound", "fit_cycle", "grow", "numeric_leaf", "search", "shorten", "template_of"]

_CYCLES = {
    2: ((0, 1),),
    3: ((0, 1), (1, 2), (2, 0)),
    4: ((0, 1), (2, 3), (1, 2), (3, 0), (0, 2), (1, 3)),
    5: (
        *((0, 1), (2, 3), (4, 0), (1, 2), (3, 4)),
        *((0, 2), (1, 3), (2, 4), (3, 0), (4, 1)),
    ),
}
"""The order in which a template of no structure goes through the pairs."""

_STARTS = {2: 4, 3: 8, 4: 3, 5: 1}
"""Random starts before a CX gate is added, by qubits."""

_LEAF = {3: (13, 6), 4: (59, 2)}
"""CX gates of a leaf up to a diagonal, one or two above what parameters allow, and starts."""

_BEAM = 6
_GROWN = {2: 3, 3: 8, 4: 9}
"""CX gates up to which templates are grown."""

_H: Matrix = np.array([[1, 1], [1, -1]], dtype=complex) / np.sqrt(2)

Reals = NDArray[np.float64]


def bound(num_qubits: int) -> int:
    """Return the fewest CX gates that almost all unitaries need: ``ceil((4^n - 3 n - 1) / 4)``.

    Source: Shende, Markov, Bullock 2004, quant-ph/0308033, proposition III.1.
    """
    return -((3 * num_qubits + 1 - 4**num_qubits) // 4)


def _cycle(num_qubits: int, count: int) -> Template:
    order = _CYCLES[num_qubits]
    return Template(num_qubits, tuple(order[k % len(order)] for k in range(count)))


def _start(template: Template, rng: np.random.Generator) -> Reals:
    return rng.uniform(-np.pi, np.pi, template.num_angles)


def fit_cycle(
    matrix: Matrix, count: int, starts: int, rng: np.random.Generator, *, diagonal: bool = False
) -> Fit | None:
    """Fit the template without structure of so many CX gates; None where no start succeeds."""
    template = _cycle(len(matrix).bit_length() - 1, count)
    for _ in range(starts):
        found = fit(template, matrix, _start(template, rng), diagonal=diagonal)
        if found.exact:
            return found
    return None


def numeric_leaf(matrix: Matrix, rng: np.random.Generator) -> Fit | None:
    """Fit a leaf on three or four qubits up to a diagonal on its left; None where that fails.

    Args:
        matrix: complex128[2^k, 2^k], k = 3 or 4.
        rng: Where the starts come from.
    """
    qubits = len(matrix).bit_length() - 1
    first, starts = _LEAF[qubits]
    for count in (0, *(first + k for k in range(4))):
        tries = 1 if count == 0 else starts
        if (found := fit_cycle(matrix, count, tries, rng, diagonal=True)) is not None:
            return found
    return None


def search(matrix: Matrix, known: list[Sketch], seed: int = 0) -> Sketch | None:
    """Return the circuit with the fewest CX gates that is found; None where none is.

    Args:
        matrix: complex128[2^n, 2^n], 2 <= n <= 5.
        known: Exact circuits of it, to begin with.
        seed: Seed of the starts.
    """
    n = len(matrix).bit_length() - 1
    rng = np.random.default_rng([seed, n])
    best: Fit | None = None
    most = bound(n)
    short = min((sketch.cx_count for sketch in known), default=1 << 60)
    if short > most:
        for count in range(most, min(short, most + 4 * n)):
            if (best := fit_cycle(matrix, count, _STARTS[n], rng)) is not None:
                break
    if best is not None:
        short = len(best.template.pairs)
    if n <= 4 and (short < most or _has_structure(matrix, short, rng)):
        if (grown := grow(matrix, min(short - 1, _GROWN[n]), rng)) is not None:
            return grown.sketch()
        starts = [template_of(sketch) for sketch in known if sketch.cx_count <= short + 3 * n]
        fits = [fit(template, matrix, angles) for template, angles in starts]
        fits = [f for f in fits if f.exact]
        if best is not None:
            fits.append(best)
        if half := _halved(matrix, short, rng):
            fits.append(half)
        for found in sorted(fits, key=lambda f: len(f.template.pairs))[:2]:
            shorter = shorten(found, matrix, rng)
            if best is None or len(shorter.template.pairs) < len(best.template.pairs):
                best = shorter
    return None if best is None else best.sketch()


def _has_structure(matrix: Matrix, short: int, rng: np.random.Generator) -> bool:
    """Whether a template with fewer CX gates than a random unitary needs meets this one."""
    n = len(matrix).bit_length() - 1
    return fit_cycle(matrix, min(short, bound(n)) - 2, 2, rng) is not None


def _halved(matrix: Matrix, most: int, rng: np.random.Generator) -> Fit | None:
    """Return the shortest template without structure that bisection finds."""
    low, high, best = 0, most, None
    while high - low > 1:
        count = (low + high) // 2
        if (found := fit_cycle(matrix, count, 2, rng)) is not None:
            best, high = found, count
        else:
            low = count
    return best


def grow(
    matrix: Matrix, most: int, rng: np.random.Generator, *, diagonal: bool = False
) -> Fit | None:
    """Return a fit with the fewest CX gates that a beam search over their places meets, if any.

    Args:
        matrix: complex128[2^n, 2^n].
        most: Most CX gates.
        rng: Where starts come from.
        diagonal: Whether it is wanted only up to a diagonal on its left.
    """
    n = len(matrix).bit_length() - 1
    beam = [Template(n, ())]
    edges = [(a, b) for a in range(n) for b in range(a + 1, n)]
    for count in range(most + 1):
        fits: list[Fit] = []
        for template in beam:
            found = _best_of(template, matrix, rng, diagonal)
            if found.exact:
                return found
            fits.append(found)
        if count == most:
            break
        fits.sort(key=lambda f: f.error)
        longer = [
            Template(n, (*f.template.pairs, edge))
            for f in fits[:_BEAM]
            for edge in edges
            if f.template.pairs[-3:] != (edge,) * 3
        ]
        beam = list(dict.fromkeys(longer))
    return None


def _best_of(template: Template, matrix: Matrix, rng: np.random.Generator, diagonal: bool) -> Fit:
    best: Fit | None = None
    for _ in range(2 if template.pairs else 1):
        found = fit(
            template, matrix, _start(template, rng), diagonal=diagonal, steps=60, patience=8
        )
        if best is None or found.error < best.error:
            best = found
        if best.exact:
            break
    assert best is not None
    return best


def shorten(found: Fit, matrix: Matrix, rng: np.random.Generator, *, diagonal: bool = False) -> Fit:
    """Leave out CX gates one by one while the rest, fitted anew, still meets the unitary.

    Args:
        found: An exact fit.
        matrix: Its unitary.
        rng: Order in which gates are tried.
        diagonal: Whether it is wanted only up to a diagonal on its left.
    """
    tried = 0
    while found.template.pairs and tried < len(found.template.pairs):
        tried = 0
        for number in rng.permutation(len(found.template.pairs)).tolist():
            template, angles = found.template.without(number, found.angles)
            less = fit(template, matrix, angles, diagonal=diagonal, steps=60, patience=8)
            if less.exact:
                found = less
                break
            tried += 1
    return found


def template_of(sketch: Sketch) -> tuple[Template, Reals]:
    """Return a circuit as a template and its angles.

    Rotations about Z pass a control and rotations about X a target; read backwards, each one-qubit
    gate keeps two angles and gives the third to the gate before the CX gate.
    """
    n = sketch.num_qubits
    template = Template(n, tuple(sketch.pairs))
    # Gates n + 2 k and n + 2 k + 1 stand after CX gate k on its control and target.
    unit = np.tile(np.eye(2, dtype=complex), (n + 2 * len(template.pairs), 1, 1))
    here, before, at = list(range(n)), [], n
    for wire, target, matrix in sketch.operations():
        if target < 0:
            unit[here[wire]] = matrix @ unit[here[wire]]
            continue
        before.append((here[wire], here[target]))
        here[wire], here[target] = at, at + 1
        at += 2
    angles = np.zeros(template.num_angles)
    for k in range(len(before) - 1, -1, -1):
        on_control, on_target = unit[n + 2 * k], _H @ unit[n + 2 * k + 1] @ _H
        place = 3 * n + 4 * k
        theta, phi, lam = (float(v[0]) for v in euler_angles(on_control[None]))
        angles[place : place + 2] = theta, phi
        unit[before[k][0]] = rotation("z", lam) @ unit[before[k][0]]
        theta, phi, lam = (float(v[0]) for v in euler_angles(on_target[None]))
        angles[place + 2 : place + 4] = -theta, phi
        unit[before[k][1]] = rotation("x", lam) @ unit[before[k][1]]
    for q in range(n):
        theta, phi, lam = (float(v[0]) for v in euler_angles(unit[q][None]))
        angles[3 * q : 3 * q + 3] = lam, theta, phi
    return template, angles
