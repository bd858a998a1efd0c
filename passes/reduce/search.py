"""search: random regions reduced in random ways, kept where the circuit does not get dearer."""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcomp.budget import Ledger
from qcomp.cost import CostModel
from qcomp.errors import UsageError
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.reduce.moves import clean, draw_move
from qcomp.passes.reduce.regions import (
    FormTable,
    Region,
    as_circuit,
    from_circuit,
    grow,
    shuffled,
    wires_near,
)
from qcomp.passmanager import CircuitPass, Context, Guarantee, Task

__all__ = ["Search"]

_ROUNDING = 2.0**-50
"""What one rewrite adds at most for each angle that is not exact, in operator norm."""

_COPIED = 16
"""Operations copied that are as much work as one that is tried."""

_WHOLE = 0.2
"""Chance that a small run is tried as a whole."""

_MOST = (512, 2048)
"""Most operations of a region, and of the span that it is grown in."""


@dataclass(slots=True)
class _State:
    """A run on its way.

    Attributes:
        run: Its operations.
        phase: What has come out of them.
        cost: What they cost.
    """

    run: Run
    phase: Angle
    cost: float


@dataclass(slots=True)
class _Searcher:
    """The search on one run.

    Attributes:
        circuit: The circuit that the run is part of.
        table: The forms, and those that were added.
        model: What is made less.
        options: The pass.
        seed: Seed of everything random.
        allowance: Rounding that may still be spent, in operator norm.
        deadline: Wall time at which to stop.
        task: Where steps are shown.
        work: Operations that may still be tried.
        spent: Rounding that was spent.
    """

    circuit: Circuit
    table: FormTable
    model: CostModel
    options: Search
    seed: int
    allowance: float
    deadline: float
    task: Task
    work: int
    spent: float = 0.0

    def search(self, run: Run) -> _State:
        """Return the best that was found, the run itself where nothing was better."""
        best = _State(run, Angle(), self._cost(run))
        while self._improve(best):
            pass
        return best

    def _improve(self, best: _State) -> bool:
        """Search from the best state until it gets better; whether it did.

        The random numbers depend on the state alone: a search that starts from what this one ends
        with takes the same steps, and finds nothing either.
        """
        if len(best.run) < 2:
            return False
        self.work -= len(best.run) // _COPIED
        rng = np.random.default_rng([self.seed, self._digest(best.run)])
        now = _State(best.run, best.phase, best.cost)
        spent = self.spent
        for _ in range(self.options.steps):
            if self.work <= 0 or time.monotonic() >= self.deadline:
                break
            self._step(now, best.cost, rng)
            self.task.advance()
            if now.cost < best.cost - 1e-9 * max(1.0, best.cost):
                best.run, best.phase, best.cost = now.run, now.phase, now.cost
                return True
        # What led nowhere is thrown away, and its rounding with it.
        self.spent = spent
        return False

    def _step(self, now: _State, best: float, rng: np.random.Generator) -> None:
        """Try one move on one region and keep it, unless it makes the circuit dearer."""
        region = self._region(now.run, rng)
        if len(region.inside) < 2:
            return
        self.work -= len(region.inside)
        before = now.run.select(region.inside)
        local, forms = self.table.rows_of(before)
        if rng.random() < 0.5:
            local = shuffled(local, rng)
        part, wires = as_circuit(local, forms, self.circuit.params, rng)
        back = rng.random() < 0.5
        context = Context(
            seed=int(rng.integers(1 << 31)),
            ledger=Ledger(numeric_limit=self.allowance - self.spent),
        )
        after = part.inverse() if back else part
        after = clean(after, draw_move(rng, self.options.basis), self.options.basis, context)
        if back:
            after = after.inverse()
        made, phase = from_circuit(after, wires)
        # Exact angles stay exact; where others stand, each may have been rounded.
        rounded = max(np.count_nonzero(before.rem), np.count_nonzero(made.rem))
        rounding = context.ledger.numeric_spent + _ROUNDING * int(rounded)
        if self.spent + rounding > self.allowance:
            return
        made = self.table.adopted(made, after.forms)
        if self.model.is_local:
            cost = now.cost + self._cost(made) - self._cost(before)
            kept = self._accepts(cost - now.cost, now.cost - best, rng)
            run = _replaced(now.run, region, made) if kept else now.run
        else:
            run = _replaced(now.run, region, made)
            cost = self._cost(run)
            kept = self._accepts(cost - now.cost, now.cost - best, rng)
        if not kept:
            return
        now.run, now.cost = run, cost
        now.phase += phase
        self.spent += rounding

    def _accepts(self, rise: float, above: float, rng: np.random.Generator) -> bool:
        """Whether a step is kept: always when nothing rises, else by its temperature."""
        draw = rng.random()
        if rise <= 1e-9:
            return True
        heat = self.options.temperature
        return heat > 0 and draw < math.exp(-(rise + above) / heat)

    def _region(self, run: Run, rng: np.random.Generator) -> Region:
        most, span = _MOST
        draw = rng.random()
        start = int(rng.integers(len(run)))
        count = int(rng.integers(2, 7))
        size = int(rng.integers(8, most // 2))
        if draw < _WHOLE and len(run) <= most:
            return grow(run, 0, None, len(run), len(run))
        if draw < (1 + _WHOLE) / 2:
            start = max(0, min(start, len(run) - size))
            return grow(run, start, None, size, size)
        return grow(run, start, wires_near(run, start, count), size, span)

    def _cost(self, run: Run) -> float:
        return self.model.of(self.circuit.copy(body=(run,)))

    def _digest(self, run: Run) -> int:
        normal = run.normal()
        used, form = np.unique(normal.form, return_inverse=True)
        rows = [self.table.forms.row(int(i)) for i in used]
        parts = (normal.code, normal.qubit, normal.frac, normal.rem, form, normal.extra)
        return zlib.crc32(b"".join([*(part.tobytes() for part in parts), repr(rows).encode()]))


def _replaced(run: Run, region: Region, made: Run) -> Run:
    """Return the run with the region's operations replaced."""
    parts = [np.arange(region.start), region.outside, np.arange(region.stop, len(run))]
    first, *rest = [run.select(part) for part in parts]
    return Run.concat([first, made, *rest])


@dataclass(frozen=True)
class Search(CircuitPass):
    """Replace ``A R B`` by ``A R' B`` with ``R' = R`` at random, as long as ``cost`` does not rise.

    A step takes a region R (the whole run, a stretch of it, or what stands on 2 to 6 wires),
    puts its commuting gates in a random order, renumbers its qubits at random, turns it back to
    front or not, and runs one or two of the reductions on it: the sweeps, phase polynomials,
    two-qubit blocks, Cliffords, Pauli rotations and windows, with random weights and windows. What
    costs as much is kept too, and leads on. The best circuit is the answer. When ``steps`` steps
    in a row find nothing better, the search ends.

    Preconditions: none. Only unitary gates on one to three qubits move; every run of a circuit
    with control flow is searched alone. Gates on three and more qubits should be taken apart
    before, and the basis be the target's.

    Preserves: the unitary to float64 rounding, global phase included; the rounding of all steps is
    entered in the ledger. The cost never rises. The same seed, steps and work give the same
    circuit, and a search that ended by its steps finds nothing when it is run again; with
    ``seconds`` the clock decides, and neither holds.

    Cost: at most ``steps`` reductions of at most 512 gates after each improvement, ``work`` gates
    in all, and a copy of the run for each that is kept.

    Source: Xu, Molavi, Tannu, Albarghouthi 2024 (arXiv:2411.04104), GUOQ, algorithm 1.

    Attributes:
        steps: Steps without an improvement after which the search ends.
        work: Operations that are tried in all; 200,000 take about half a minute of one core.
        seconds: Wall seconds after which it ends at the latest; 0 for no such bound.
        cost: What is made less, a sum of weighted counts as ``qcomp.cost.CostModel`` takes it.
        basis: One-qubit gates to write, as ``fuse-one-qubit`` takes them.
        temperature: Rise of the cost that is let pass with chance 1/e; 0 lets none pass.
    """

    name: ClassVar[str] = "search"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    steps: int = 200
    work: int = 200_000
    seconds: float = 0.0
    cost: str = "gates+2*two_qubit+rotations"
    basis: str = "own"
    temperature: float = 0.0

    def __post_init__(self) -> None:
        """Check the options.

        Raises:
            UsageError: If a bound is negative, or the cost is none.
        """
        if self.steps < 1 or self.work < 1 or not self.seconds >= 0 or not self.temperature >= 0:
            raise UsageError(
                "'search' needs steps and work of 1 or more, seconds and temperature from 0 on"
            )
        CostModel.parse(self.cost)

    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the best circuit found; the same object when none was better."""
        model = CostModel.parse(self.cost)
        deadline = time.monotonic() + self.seconds if self.seconds else math.inf
        seed = int(context.rng(self.name).integers(1 << 31))
        spent, work = 0.0, self.work

        def rewrite(run: Run, forms: Forms) -> Leaf:
            nonlocal spent, work
            # A phase is taken out by whoever asked for this run's rewrite.
            phases = run.code == G.GPHASE
            allowance = context.ledger.numeric_limit - context.ledger.numeric_spent - spent
            searcher = _Searcher(
                circuit, FormTable(forms), model, self, seed, allowance / 2, deadline, task, work
            )
            start = run.select(~phases) if phases.any() else run
            found = searcher.search(start)
            spent += searcher.spent
            work = searcher.work
            if found.run is start:
                return run, forms, Phase()
            return self._leaf(run, found, phases, searcher.table, circuit)

        with context.progress.task(self.name, None) as task:
            circuit = rewrite_leaves(circuit, rewrite)
        if spent:
            context.ledger.spend_numeric(self.name, spent)
        return circuit

    def _leaf(
        self, run: Run, found: _State, phases: np.ndarray, table: FormTable, circuit: Circuit
    ) -> Leaf:
        column = {name: i for i, name in enumerate(circuit.params)}
        row = tuple((column[name], factor) for name, factor in found.phase.terms)
        phase = Phase(found.phase.frac, found.phase.rem, row)
        return Run.concat([found.run, run.select(phases)]), table.forms, phase
