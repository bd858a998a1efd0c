"""Product formulas: their stages, their circuits, and bounds of their errors by commutators."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from qcomp.errors import UsageError
from qcomp.ir.angle import Angle, AngleLike, Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.transform import operation_angles
from qcomp.passes.reduce.cancel_inverses import CancelInverses
from qcomp.passes.reduce.fuse_one_qubit import FuseOneQubit
from qcomp.passes.reduce.merge_rotations import MergeRotations
from qcomp.passes.synthesize.evolution.pauli_sums import (
    ORDERINGS,
    Masks,
    apply_sum,
    commutator,
    commuting_groups,
    mask_letters,
    norm_bound,
    pauli_sum,
)
from qcomp.passes.synthesize.pauli_networks import ResynthesizePauliNetworks
from qcomp.passmanager import Context
from qcomp.simulate import unitary

__all__ = ["ORDERS", "Evolution", "error_bound", "evolution_error", "evolve", "stages"]

ORDERS = (1, 2, 4)
MAX_STEPS = 100_000
_MOST_PRODUCTS = 200_000
"""Products of Paulis after which a bound goes on with norms in place of commutators."""

_DENSE = 10
"""Qubits up to which an error is measured."""

Stage = tuple[int, float]
"""(number of a group, fraction of the step)."""


@dataclass(frozen=True, slots=True, eq=False)
class Evolution:
    """A circuit for ``exp(-i H t)``.

    Attributes:
        circuit: The circuit, global phase included.
        groups: Terms in each commuting group, in the order in which they are applied.
        error_bound: Bound of the error in operator norm; 0 where the formula is exact, None where
            the time is a parameter.
        order: Order of the product formula.
        steps: Steps r.
    """

    circuit: Circuit
    groups: tuple[int, ...]
    error_bound: float | None
    order: int
    steps: int


def stages(count: int, order: int) -> list[Stage]:
    """Return the stages of one step, neighbours of one group merged.

    Order 1: ``prod_g exp(-i t H_g)``; order 2: half of each, and back; order 2 k from order
    2 k - 2: ``S(u t)^2 S((1 - 4 u) t) S(u t)^2`` with ``u = 1 / (4 - 4^(1/(2k-1)))`` (Suzuki 1991).

    Args:
        count: Groups.
        order: 1, 2 or 4.

    Raises:
        UsageError: If there is no formula of that order.
    """
    if order not in ORDERS:
        raise UsageError(
            f"there is no product formula of order {order} here", hint="order 1, 2 or 4"
        )
    if order == 1 or count == 1:
        return [(g, 1.0) for g in range(count)]
    second = [(g, 0.5) for g in (*range(count), *range(count - 1, -1, -1))]
    if order == 2:
        return _merged(second)
    u = 1 / (4 - 4 ** (1 / 3))
    return _merged([(g, a * f) for f in (u, u, 1 - 4 * u, u, u) for g, a in second])


def _merged(parts: Sequence[Stage]) -> list[Stage]:
    out: list[Stage] = []
    for group, fraction in parts:
        if out and out[-1][0] == group:
            out[-1] = group, out[-1][1] + fraction
        else:
            out.append((group, fraction))
    return out


def error_bound(
    groups: Sequence[Mapping[Masks, float]], time: float, steps: int, order: int
) -> float:
    """Return a bound of ``|S_p(t / r)^r - exp(-i H t)|`` in operator norm.

    For stages ``A_1 .. A_K`` of one step, each a group times its fraction::

        r (t/r)^(p+1) / (p+1)! sum_k sum_{|q|=p} p!/q! |ad_K^{q_K} .. ad_{k+1}^{q_{k+1}} A_k|

    with ``ad_j B = [A_j, B]`` (Childs, Su, Tran, Wiebe, Zhu 2019, arXiv:1912.08854, theorem 5 for
    anti-Hermitian operators, put into theorem 6's integral). Nested commutators are Pauli sums,
    bounded by the sum of their coefficients' magnitudes; when they get too many,
    ``|[A, B]| <= 2 |A| |B|`` goes on.
    """
    plan = stages(len(groups), order)
    norms = [norm_bound(group) for group in groups]
    weights: dict[tuple[int, ...], float] = {}
    for first, (group, fraction) in enumerate(plan):
        begun: dict[tuple[int, ...], float] = {(group,): abs(fraction)}
        for later, share in plan[first + 1 :]:
            grown = dict(begun)
            for word, weight in begun.items():
                for q in range(1, order + 2 - len(word)):
                    key = word + (later,) * q
                    grown[key] = grown.get(key, 0) + weight * abs(share) ** q / math.factorial(q)
            begun = grown
        for word, weight in begun.items():
            if len(word) == order + 1:
                weights[word] = weights.get(word, 0) + weight * math.factorial(order)
    sums: dict[tuple[int, ...], Mapping[Masks, complex] | float] = {}
    left = _MOST_PRODUCTS

    def nested(word: tuple[int, ...]) -> Mapping[Masks, complex] | float:
        nonlocal left
        if len(word) == 1:
            return groups[word[0]]
        if word not in sums:
            inner = nested(word[:-1])
            outer = groups[word[-1]]
            if isinstance(inner, float) or left < len(inner) * len(outer):
                size = inner if isinstance(inner, float) else norm_bound(inner)
                sums[word] = 2 * norms[word[-1]] * size
            else:
                left -= len(inner) * len(outer)
                sums[word] = commutator(outer, inner)
        return sums[word]

    total = 0.0
    for word in sorted(weights):
        value = nested(word)
        total += weights[word] * (value if isinstance(value, float) else norm_bound(value))
    return steps * abs(time / steps) ** (order + 1) / math.factorial(order + 1) * total


def _rotations(group: Mapping[Masks, float], num_qubits: int) -> Circuit:
    """Return ``prod exp(-i t c P)`` of one group, CX ladders around RZ, t a parameter."""
    circuit, time = Circuit(num_qubits), Parameter("t")
    left = dict(group)
    for x, z in sorted(group):
        if x and x == z and x.bit_count() == 2 and (x, 0) in group and (0, x) in group:
            a, b = (q for q, _ in mask_letters((x, 0)))
            _exchange(circuit, a, b, *(time * left.pop(m) for m in ((x, 0), (x, x), (0, x))))
    for masks, coef in sorted(left.items()):
        letters = mask_letters(masks)
        qubits = [q for q, _ in letters]
        if len(letters) == 1:
            circuit.append(f"r{letters[0][1].lower()}", qubits, [time * (2 * coef)])
            continue
        for q, letter in letters:
            _turn(circuit, q, letter, back=False)
        for a, b in pairwise(qubits):
            circuit.cx(a, b)
        circuit.rz(time * (2 * coef), qubits[-1])
        for a, b in list(pairwise(qubits))[::-1]:
            circuit.cx(a, b)
        for q, letter in letters:
            _turn(circuit, q, letter, back=True)
    return circuit


def _exchange(circuit: Circuit, a: int, b: int, xx: Angle, yy: Angle, zz: Angle) -> None:
    """Append ``exp(-i (xx X X + yy Y Y + zz Z Z))`` with three CX.

    Vatan and Williams 2004, quant-ph/0308006, figure 6.
    """
    quarter = pi_fraction(1, 2)
    circuit.rz(-quarter, b)
    circuit.cx(b, a)
    circuit.rz(quarter + 2 * zz, a)
    circuit.ry(-quarter - 2 * xx, b)
    circuit.cx(a, b)
    circuit.ry(quarter + 2 * yy, b)
    circuit.cx(b, a)
    circuit.rz(quarter, a)
    circuit.gphase(pi_fraction(1, 4))


def _turn(circuit: Circuit, qubit: int, letter: str, *, back: bool) -> None:
    if letter == "X":
        circuit.h(qubit)
    elif letter == "Y":
        circuit.append("sxdg" if back else "sx", [qubit])


def evolve(
    observable: Observable | str,
    time: AngleLike,
    *,
    steps: int = 1,
    order: int = 2,
    grouping: str = "general",
    num_qubits: int | None = None,
) -> Evolution:
    """Return a circuit for ``exp(-i H t)`` by a product formula over commuting groups.

    Terms that commute are put into groups, each applied exactly; the formula of order 1, 2 or 4
    (Suzuki) orders the groups. Each group is written once, with few CX between its Pauli rotations
    (resynthesize-pauli-networks, arXiv:2404.03280), for all its stages; stages of one group that
    meet between steps are one.

    Args:
        observable: H, an observable or its text such as ``"Z0*Z1 + 0.5*X0"``.
        time: t, a number, or a parameter: angles are affine in it.
        steps: Steps r.
        order: 1, 2 or 4.
        grouping: "general" (products that commute), "qubit-wise" (products that agree on every
            qubit that they share) or "none" (each term by itself).
        num_qubits: Qubits; as many as H acts on by default.

    Raises:
        UsageError: If a number makes no sense, or the observable has no term.
    """
    h = Observable.parse(observable) if isinstance(observable, str) else observable
    products = pauli_sum(h)
    if not products:
        raise UsageError("the observable is 0", hint="give a sum of Pauli products such as Z0*Z1")
    used = max(max((x | z).bit_length() for x, z in products), 1)
    n = used if num_qubits is None else num_qubits
    if n < used:
        raise UsageError(f"the observable acts on qubit {used - 1}, there are {n} qubits")
    if isinstance(steps, bool) or not isinstance(steps, int) or not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"the number of steps is 1 to {MAX_STEPS}, not {steps!r}")
    if not all(math.isfinite(coef) for coef in products.values()):
        raise UsageError("a coefficient of the observable is not finite")
    total = Angle.of(time)
    identity = products.pop((0, 0), 0.0)
    orderings = ORDERINGS if grouping == "general" else ("magnitude",)
    tried = [_arranged(commuting_groups(products, grouping, key), n) for key in orderings]
    plans = [_plan(groups, steps, order) for groups, _ in tried]
    costs = [
        (sum(written[g].stats().two_qubit for g, _ in plan), len(plan))
        for (_, written), plan in zip(tried, plans, strict=True)
    ]
    best = costs.index(min(costs))
    (groups, written), plan = tried[best], plans[best]
    made = {stage: _timed(written[stage[0]], total * stage[1]) for stage in set(plan)}
    circuit = _joined([made[stage] for stage in plan]) if plan else Circuit(n)
    circuit.name = "evolution"
    circuit.gphase(-(total * identity))
    sizes = tuple(len(group) for group in groups)
    bound = None if total.terms else error_bound(groups, float(total), steps, order)
    return Evolution(circuit, sizes, bound, order, steps)


def _arranged(
    groups: list[dict[Masks, float]], num_qubits: int
) -> tuple[list[dict[Masks, float]], list[Circuit]]:
    """Return groups and their circuits so that symmetric formulas take few CX.

    The last group occurs once a step, the first once a step and once more, the others twice.
    """
    tidy = (MergeRotations(), CancelInverses(), FuseOneQubit())
    written = []
    for group in groups:
        circuit = ResynthesizePauliNetworks(tries=4, slack=1).run(
            _rotations(group, num_qubits), Context()
        )
        for step in tidy:
            circuit = step.run(circuit, Context())
        written.append(circuit)
    costs = [circuit.stats().two_qubit for circuit in written]
    falling = sorted(range(len(groups)), key=lambda g: (-costs[g], g))
    order = [*falling[1:], *falling[:1]]
    return [groups[g] for g in order], [written[g] for g in order]


def _plan(groups: Sequence[Mapping[Masks, float]], steps: int, order: int) -> list[Stage]:
    """Return the stages of all steps with fractions of the whole time."""
    if all(
        not commutator(a, b) for i, a in enumerate(groups) for b in groups[:i]
    ):  # exact, whatever the steps
        return [(g, 1.0) for g in range(len(groups))]
    return _merged([(g, f / steps) for g, f in stages(len(groups), order)] * steps)


def _joined(parts: Sequence[Circuit]) -> Circuit:
    """Return circuits one after the other, by halves so that each is copied few times."""
    if len(parts) == 1:
        return parts[0].copy()
    middle = len(parts) // 2
    return _joined(parts[:middle]).compose(_joined(parts[middle:]))


def _timed(circuit: Circuit, time: Angle) -> Circuit:
    """Return a group's circuit, whose only parameter is the time, at some time."""
    new, run = Circuit(circuit.num_qubits), circuit.run
    for i, (name, qubits, _) in enumerate(run.operations()):
        angles = [
            Angle(angle.frac, angle.rem) + time * sum(coef for _, coef in angle.terms)
            for angle in operation_angles(circuit, run, i)
        ]
        new.append(name, qubits, angles)
    phase = circuit.global_phase
    new.global_phase = Angle(phase.frac, phase.rem) + time * sum(c for _, c in phase.terms)
    return new


def evolution_error(evolution: Evolution, observable: Observable | str, time: float) -> float:
    """Return ``|U - exp(-i H t)|`` in operator norm, phase included, from dense matrices.

    Cost: 8^n operations.

    Raises:
        UsageError: If there are more than 10 qubits.
    """
    n = evolution.circuit.num_qubits
    if n > _DENSE:
        raise UsageError(
            f"the error of {n} qubits is not measured, matrices are dense",
            hint=f"take at most {_DENSE} qubits, or the bound by commutators",
        )
    h = Observable.parse(observable) if isinstance(observable, str) else observable
    matrix = apply_sum(pauli_sum(h), np.eye(1 << n, dtype=np.complex128))
    values, vectors = np.linalg.eigh(matrix)
    exact = (vectors * np.exp(-1j * time * values)) @ vectors.conj().T
    return float(np.linalg.norm(unitary(evolution.circuit) - exact, 2))
