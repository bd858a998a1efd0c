"""search: random regions reduced in random ways, kept where the circuit does not get dearer."""

from __future__ import annotations

import math
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from qcomp.budget import Ledger
from qcomp.cost import CostModel
from qcomp.errors import TargetError, UsageError
from qcomp.ir.angle import Angle
from qcomp.ir.circuit import Circuit
from qcomp.ir.forms import Forms
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passes.reduce.leaves import Leaf, Phase, rewrite_leaves
from qcomp.passes.reduce.moves import clean, draw_move, wide_gates, written
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

if TYPE_CHECKING:
    from qcomp.deadline import Deadline

__all__ = ["Search"]

_ROUNDING = 2.0**-50
"""What one rewrite adds at most for each angle that is not exact, in operator norm."""

_COPIED = 16
"""Operations copied that are as much work as one that is tried."""

_STEP = 64
"""Operations tried that are as much work as what every step costs."""

_WHOLE = 0.2
"""Chance that a small run is tried as a whole."""

_MOST = (512, 2048)
"""Most operations of a region, and of the span that it is grown in."""


@dataclass(frozen=True, slots=True)
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


class _Clock:
    """When the search of one run stops.

    Args:
        deadline: When the whole pipeline stops, if at all.
        share: Part of the time left that is for this run.
        end: Wall time at which to stop at the latest.
        patient: Whether to go on until then.
    """

    def __init__(self, deadline: Deadline | None, share: float, end: float, patient: bool) -> None:
        self._deadline, self._end, self._patient = deadline, end, patient
        self._left = (1 - share) * deadline.left if deadline is not None else 0.0

    @property
    def is_over(self) -> bool:
        """Whether time is up."""
        late = self._deadline is not None and self._deadline.left <= self._left
        return late or time.monotonic() >= self._end

    @property
    def now(self) -> float:
        """Seconds on the deadline's clock, from some moment on."""
        return -self._deadline.left if self._deadline is not None else 0.0

    @property
    def goes_on(self) -> bool:
        """Whether there is a time that was given, and some of it is left for this search."""
        return self._patient and self._deadline is not None and not self.is_over


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
        wide: Gates on two and more qubits that may be written.
        clock: When to stop.
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
    wide: tuple[str, ...]
    clock: _Clock
    task: Task
    work: int
    spent: float = 0.0

    def search(self, run: Run) -> _State:
        """Return the best that was found, the run itself where nothing was better."""
        best = _State(run, Angle(), self._cost(run))
        tries = 0
        while len(run) > 1:
            better = self._improved(best, tries)
            if better is not None:
                best, tries = better, 0
            elif self.clock.goes_on and self.allowance > self.spent:
                tries += 1
            else:
                break
        return best

    def _improved(self, best: _State, tries: int) -> _State | None:
        """Search from the best state until it gets better; None when it does not.

        The random numbers depend on the state alone: a search that starts from what this one ends
        with takes the same steps, and finds nothing either.
        """
        self.work -= len(best.run) // _COPIED
        again = [tries] if tries else []
        rng = np.random.default_rng([self.seed, self._digest(best.run), *again])
        now = best
        spent = self.spent
        for _ in range(self.options.steps):
            if self.clock.is_over or (self.work <= 0 and not self.clock.goes_on):
                break
            since = self.clock.now
            now = self._stepped(now, best.cost, rng)
            self.task.advance(self.clock.now - since if self.clock.goes_on else 1)
            if now.cost < best.cost - 1e-9 * max(1.0, best.cost):
                return now
        # What led nowhere is thrown away, and its rounding with it.
        self.spent = spent
        return None

    def _stepped(self, now: _State, best: float, rng: np.random.Generator) -> _State:
        """Try one move on one region; return the state itself where that is not kept."""
        self.work -= _STEP
        region = self._region(now.run, rng)
        if len(region.inside) < 2:
            return now
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
        basis = self.options.basis
        try:
            after = clean(after, draw_move(rng, basis), basis, self.wide, context)
            after = written(after.inverse() if back else after, basis, self.wide, context)
        except TargetError:  # a basis without angles cannot write every gate that a move makes
            return now
        made, phase = from_circuit(after, wires)
        # Exact angles stay exact; where others stand, each may have been rounded.
        rounded = max(np.count_nonzero(before.rem), np.count_nonzero(made.rem))
        rounding = context.ledger.numeric_spent + _ROUNDING * int(rounded)
        if self.spent + rounding > self.allowance:
            return now
        made = self.table.adopted(made, after.forms)
        if self.model.is_local:
            cost = now.cost + self._cost(made) - self._cost(before)
            if not self._accepts(cost - now.cost, now.cost - best, rng):
                return now
            run = _replaced(now.run, region, made)
        else:
            run = _replaced(now.run, region, made)
            cost = self._cost(run)
            if not self._accepts(cost - now.cost, now.cost - best, rng):
                return now
        self.spent += rounding
        return _State(run, now.phase + phase, cost)

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
    ``seconds`` the clock decides, and neither holds. A ``patient`` search in a pipeline that was
    given a time (``Context.deadline``) goes on from the best with new random numbers until that
    time is up, whatever ``steps`` and ``work`` say.

    Cost: at most ``steps`` reductions of at most 512 gates after each improvement, ``work`` gates
    in all, and a copy of the run for each that is kept.

    Source: Xu, Molavi, Tannu, Albarghouthi 2024 (arXiv:2411.04104), GUOQ, algorithm 1.

    Attributes:
        steps: Steps without an improvement after which the search ends.
        work: Operations that are tried in all, 64 more for each step.
        seconds: Wall seconds after which it ends at the latest; 0 for no such bound.
        cost: What is made less, a sum of weighted counts as ``qcomp.cost.CostModel`` takes it.
        basis: One-qubit gates to write, as ``fuse-one-qubit`` takes them.
        temperature: Rise of the cost that is let pass with chance 1/e; 0 lets none pass.
        patient: Whether the search goes on as long as the pipeline was given time, if it was.
    """

    name: ClassVar[str] = "search"
    preserves: ClassVar[Guarantee] = Guarantee.NUMERIC

    steps: int = 200
    work: int = 200_000
    seconds: float = 0.0
    cost: str = "gates+2*two_qubit+rotations"
    basis: str = "own"
    temperature: float = 0.0
    patient: bool = False

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
        end = time.monotonic() + self.seconds if self.seconds else math.inf
        seed = int(context.rng(self.name).integers(1 << 31))
        wide = wide_gates(circuit, self.basis)
        spent, work = 0.0, self.work
        rest = circuit.stats().gates

        def rewrite(run: Run, forms: Forms) -> Leaf:
            nonlocal spent, work, rest
            share = len(run) / max(rest, len(run), 1)
            rest -= len(run)
            # A phase is taken out by whoever asked for this run's rewrite.
            phases = run.code == G.GPHASE
            allowance = context.ledger.numeric_limit - context.ledger.numeric_spent - spent
            searcher = _Searcher(
                circuit,
                FormTable(forms),
                model,
                self,
                seed,
                allowance / 2,
                wide,
                _Clock(context.deadline, share, end, self.patient),
                task,
                work,
            )
            start = run.select(~phases) if phases.any() else run
            found = searcher.search(start)
            spent += searcher.spent
            work = searcher.work
            if found.run is start:
                return run, forms, Phase()
            return self._leaf(run, found, phases, searcher.table, circuit)

        deadline = context.deadline if self.patient else None
        given = deadline.left if deadline is not None else None
        with context.progress.task(self.name, given) as task:
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
