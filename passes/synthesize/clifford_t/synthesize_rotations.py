"""synthesize-rotations: rotations by any angle become Clifford gates and T."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.angle_accuracies import AngleAccuracies, AngleAccuracy, RowAccuracies, RowKey
from qcomp.budget import OPERATOR_NORM
from qcomp.errors import PassError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.run import Run
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.synthesize.clifford_t.chains import Chain, by_rows, chains_of, lowered, write
from qcomp.passes.synthesize.clifford_t.mixing import mixture
from qcomp.passes.synthesize.clifford_t.rotations import FINEST, Point
from qcomp.passes.synthesize.clifford_t.row_words import row_key
from qcomp.passmanager import CircuitPass, Context, Guarantee

__all__ = ["SynthesizeRotations"]


@dataclass(frozen=True)
class SynthesizeRotations(CircuitPass):
    """``||RZ(a) - exp(i p) W|| <= eps`` with W a word of Clifford gates and the fewest T found.

    Each rotation has an accuracy of its own: what ``allocate-angles`` gave it, else ``epsilon``.
    Multiples of pi/4 are exact and stay; angles that are equal up to a multiple of pi/2 and a sign
    are synthesised once. Where a wire has several rotations with only one-qubit gates between them,
    the whole is also looked for at once, within the sum of their accuracies: a unitary of no
    special kind takes about ``3 log2(1/eps) - 5`` T gates, three rotations ``9 log2(1/eps)``.

    Rotations by parameters stay as ``rz``, each with an accuracy: the word is found when a row of
    data is bound (:mod:`qcomp.passes.synthesize.clifford_t.row_words`).

    Preconditions: none. Other gates with such angles or parameters are written by rotations about Z
    first.

    Preserves: the unitary up to the sum of the accuracies in operator norm, global phase included
    (p is a multiple of pi/8, kept exactly). The ledger has that sum and what was measured: the sum
    over what was synthesised of the distance between both unitaries on one qubit.

    Cost: one synthesis for each different angle, some milliseconds; about 0.05 CPU seconds for each
    chain that is searched at once, doubling with each T of ``direct_t``.

    Source: Ross, Selinger 2014 (arXiv:1403.2975) by ``qiskit.synthesis.gridsynth_rz``; Matsumoto,
    Amano 2008 (arXiv:0806.3834) for words with few T; Hao, Xu, Tannu 2025 (arXiv:2503.15843) for
    synthesis without rotations about Z.

    Attributes:
        epsilon: Operator norm of each rotation where nothing was allocated.
        direct_t: Chains are looked for at once among unitaries with at most so many T; 0: never.
        mix: Whether each rotation's word is drawn by the seed from some whose mean is nearer, see
            :mod:`qcomp.passes.synthesize.clifford_t.mixing`. The circuit is then one of many: it is
            to be compiled with many seeds, and expectation values averaged over them; their error
            is the ledger's line for the mean, about epsilon^2 a rotation. No chain is written at
            once.
    """

    name: ClassVar[str] = "synthesize-rotations"
    preserves: ClassVar[Guarantee] = Guarantee.WITHIN

    epsilon: float = 1e-3
    direct_t: int = 26
    mix: bool = False

    def __post_init__(self) -> None:
        """Check the options."""
        if not FINEST <= self.epsilon < 2:
            raise UsageError(
                f"{self.name}: epsilon is an operator norm in [{FINEST:.0e}, 2), "
                f"not {self.epsilon:g}"
            )
        if not 0 <= self.direct_t <= 30:
            raise UsageError(f"{self.name}: direct_t is 0 to 30, not {self.direct_t}")

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the circuit in Clifford gates, T and gates with parameters."""
        allocated = context.get(AngleAccuracies)
        wanted = None if allocated is None else allocated.of(circuit)
        promised: list[float] = []
        spent: list[float] = []
        of_rows: list[float] = []
        mean: list[float] = []
        rng = context.rng(self.name)

        def drawn(chain: Chain, epsilon: float) -> Point:
            found = [mixture(*angle, epsilon / len(chain.angles)) for angle in chain.angles]
            mean.append(sum(one.error for one in found))
            return chain.joined(
                [one.points[int(rng.choice(len(one.points), p=one.chances))] for one in found]
            )

        rows = context.get(RowAccuracies) or RowAccuracies()
        given_rows = rows.by_circuit.get(circuit.name, {})
        by_key: dict[RowKey, float] = {}

        def one(run: Run, forms: Forms) -> Leaf:
            run, forms, phase = lowered(run, forms)
            for i in np.flatnonzero(by_rows(run)):
                key = row_key(run, int(i), forms, circuit.params)
                if given_rows and key not in given_rows:
                    raise _other(circuit)
                by_key[key] = given_rows.get(key, self.epsilon)
                of_rows.append(by_key[key])
            chains = chains_of(run)
            if not chains:
                return run, forms, phase
            points = []
            for chain in chains:
                given = AngleAccuracy(self.epsilon * len(chain.angles))
                if wanted is not None:
                    if len(promised) >= len(wanted):
                        raise _other(circuit)
                    given = wanted[len(promised)]
                point = None if given.gates is None else chain.written(given.gates)
                if point is not None and point.error > given.error:
                    raise _other(circuit)
                if self.mix:
                    point = drawn(chain, given.error)
                points.append(point or chain.within(given.error, self.direct_t))
                promised.append(given.error)
                spent.append(points[-1].error)
            run, more = write(run, chains, points)
            return run, forms, Phase(phase.frac + more.frac, phase.rem + more.rem, phase.row)

        result = rewrite_leaves(circuit, one)
        if wanted is not None and len(promised) != len(wanted):
            raise _other(circuit)
        if by_key:
            context.put(rows.with_circuit(circuit.name, by_key))
        if promised or of_rows:
            later = sum(of_rows)
            context.ledger.spend(
                self.name, sum(promised) + later, sum(spent) + later, OPERATOR_NORM
            )
        if mean:
            total = sum(mean)
            context.ledger.spend(self.name, total, total, "trace distance of the mean over seeds")
        return result


def _other(circuit: Circuit) -> PassError:
    return PassError(
        f"the accuracies of '{circuit.name}' were allocated to other rotations than it has now",
        hint="run 'allocate-angles' right before 'synthesize-rotations'",
    )
