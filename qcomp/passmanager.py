"""Passes, their contract, and pipelines of them.

A pass is a frozen dataclass whose fields are its options; the same declaration is its text form:
``quantize-weights{bits=4,method=rtn}`` builds the class registered as ``quantize-weights`` with
``bits=4, method="rtn"``.
"""

from __future__ import annotations

import dataclasses
import time
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from qcomp.budget import Ledger
from qcomp.errors import PassError, QcompError, UsageError
from qcomp.ir.program import Program
from qcomp.ir.verify import verify

if TYPE_CHECKING:
    from qcomp.cost import CostModel
    from qcomp.deadline import Deadline
    from qcomp.ir.circuit import Circuit
    from qcomp.pipeline_text import Step
    from qcomp.target import Target

__all__ = [
    "CircuitPass",
    "Context",
    "GraphPass",
    "Guarantee",
    "Pass",
    "PassRecord",
    "Pipeline",
    "Progress",
    "Task",
]

T = TypeVar("T")
Batches = Callable[[], Iterator[Mapping[str, NDArray[np.generic]]]]


class Guarantee(Enum):
    """What a pass preserves.

    EXACT: the meaning, symbolically. NUMERIC: the meaning up to float64 rounding, entered in the
    ledger. WITHIN: the meaning within a share of the error budget, entered in the ledger.
    """

    EXACT = "exact"
    NUMERIC = "numeric"
    WITHIN = "within"


class Task(Protocol):
    """A piece of long work that shows how far it is."""

    def advance(self, steps: float = 1) -> None:
        """Say that so many steps are done."""


class Progress(Protocol):
    """Where long work shows how far it is; the command line draws bars."""

    def task(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        """Open a task of ``total`` steps, None when the number is not known."""


class _Silent:
    def advance(self, steps: float = 1) -> None:
        """Show nothing."""

    def task(self, description: str, total: float | None) -> AbstractContextManager[Task]:
        """Open a task that shows nothing."""
        return nullcontext(self)


@dataclass(slots=True)
class Context:
    """What a pass may use besides the program.

    Attributes:
        seed: Seed of everything random.
        target: The machine that is compiled for, if any.
        calibration: Function that starts a new round over the calibration batches, each a mapping
            from input name to array, samples first; None without calibration data.
        ledger: The error budget's ledger.
        progress: Where long work shows how far it is.
        verify_each: Whether every pass's promise is checked.
        workers: Processes or threads that a pass may use.
        deadline: When work that gets better with time ends; None for steps that are counted.
        warnings: What the user should know, one sentence each.
    """

    seed: int = 0
    target: Target | None = None
    calibration: Batches | None = None
    ledger: Ledger = field(default_factory=Ledger)
    progress: Progress = field(default_factory=_Silent)
    verify_each: bool = False
    workers: int = 1
    deadline: Deadline | None = None
    warnings: list[str] = field(default_factory=list)
    _facts: dict[type, object] = field(default_factory=dict)

    def rng(self, name: str) -> np.random.Generator:
        """Return the generator of one consumer: the same for the same seed and name."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def put(self, fact: object) -> None:
        """Keep an analysis result, one of each type; a later one replaces it."""
        self._facts[type(fact)] = fact

    def get(self, kind: type[T]) -> T | None:
        """Return the analysis result of that type, None if no pass has made it."""
        return cast("T | None", self._facts.get(kind))

    def branch(self) -> Context:
        """Return a context that goes on from here by itself: another way to compile the same."""
        ledger = replace(self.ledger, entries=list(self.ledger.entries))
        warnings = list(self.warnings)
        return replace(self, ledger=ledger, warnings=warnings, _facts=dict(self._facts))

    def need(self, kind: type[T], made_by: str) -> T:
        """Return the analysis result of that type.

        Raises:
            PassError: If no pass has made it; names the one that does.
        """
        fact = self.get(kind)
        if fact is None:
            raise PassError(
                f"there is no {kind.__name__} yet", hint=f"run '{made_by}' before this pass"
            )
        return fact

    def warn(self, text: str) -> None:
        """Tell the user something once."""
        if text not in self.warnings:
            self.warnings.append(text)


@dataclass(frozen=True)
class Pass(ABC):
    """What all passes share: a name, a promise, options as fields."""

    name: ClassVar[str]
    preserves: ClassVar[Guarantee]
    only_bits: ClassVar[bool] = False
    """Whether a circuit pass promises the joint distribution of the classical bits and no more.

    Such a pass leaves circuits alone whose nodes read something else than their bits.
    """
    from_zero: ClassVar[bool] = False
    """Whether a circuit pass takes every qubit to start in |0>, and promises nothing else."""

    def __str__(self) -> str:
        """Return the pass's text form with the options that differ from their defaults."""
        from qcomp.pipeline_text import print_pass

        return print_pass(self)


class CircuitPass(Pass):
    """A pass over one circuit; the manager applies it to every circuit of a program."""

    @abstractmethod
    def run(self, circuit: Circuit, context: Context) -> Circuit:
        """Return the changed circuit, or the same object when nothing changed."""


class GraphPass(Pass):
    """A pass over a whole program, changed in place."""

    error_share: ClassVar[float] = 1.0
    """The noise over signal that a pass which approximates asks for; it is held to it in checked
    mode. One: not more noise than signal."""

    @abstractmethod
    def run(self, program: Program, context: Context) -> bool:
        """Change the program; return whether anything changed."""


@dataclass(frozen=True, slots=True)
class PassRecord:
    """What one pass did.

    Attributes:
        name: The pass with its options.
        seconds: CPU seconds.
        changed: Whether the program changed.
        before: Counts before: of all circuits together, and of the graph.
        after: Counts after.
        check: How the pass's promise was checked; empty when it was not.
    """

    name: str
    seconds: float
    changed: bool
    before: Mapping[str, int]
    after: Mapping[str, int]
    check: str = ""


Observer = Callable[[PassRecord, Program], None]


class Pipeline:
    """Passes in order, with bounded repetition and choice.

    The text form is ``pass,pass{option=value},repeat{times=4}(pass,pass)``: the group in
    parentheses runs until nothing changes, at most ``times`` times. ``best{cost=gates}(
    way(pass,pass),way(pass))`` runs each way on the circuits as they are and keeps what costs
    least, the first of equals. When the context's deadline is over, groups end after what they have
    begun.
    """

    def __init__(self, steps: tuple[Step, ...]) -> None:
        self.steps = steps

    @staticmethod
    def parse(text: str) -> Pipeline:
        """Return the pipeline of a text.

        Raises:
            UsageError: If the text is no pipeline, a pass or an option is unknown (the nearest name
                is said), or a value does not fit its option's type.
        """
        from qcomp.pipeline_text import parse_steps

        return Pipeline(parse_steps(text))

    def __str__(self) -> str:
        """Return the text form; parsing it gives an equal pipeline."""
        return ",".join(str(step) for step in self.steps)

    def run(
        self, program: Program, context: Context, observer: Observer | None = None
    ) -> list[PassRecord]:
        """Run every pass on the program, which is changed in place.

        Args:
            program: The program.
            context: What the passes may use.
            observer: Called after each pass with its record and the program.

        Raises:
            PassError: If a pass fails, or in checked mode breaks its promise.
        """
        records: list[PassRecord] = []
        with context.progress.task("passes", len(self.steps) or None) as task:
            for step in self.steps:
                self._run_step(step, program, context, records, observer)
                task.advance()
        return records

    def _run_step(
        self,
        step: Step,
        program: Program,
        context: Context,
        records: list[PassRecord],
        observer: Observer | None,
    ) -> bool:
        if step.instance is not None:
            record = run_pass(step.instance, program, context, records)
            records.append(record)
            if observer is not None:
                observer(record, program)
            return record.changed
        if step.model is not None:
            return self._run_best(step, step.model, program, context, records, observer)
        changed = False
        for _ in range(step.times):
            again = [self._run_step(s, program, context, records, observer) for s in step.group]
            if not any(again):
                break
            changed = True
            if context.deadline is not None and context.deadline.is_over:
                break
        return changed

    def _run_best(
        self,
        step: Step,
        model: CostModel,
        program: Program,
        context: Context,
        records: list[PassRecord],
        observer: Observer | None,
    ) -> bool:
        """Run each way from the same start; what the others did is neither kept nor entered."""
        start, before = dict(program.circuits), counts(program)
        entries = list(context.ledger.entries)
        best: tuple[float, int] | None = None
        kept = dict(start), entries, [False]
        tried: list[list[PassRecord]] = []
        for number, way in enumerate(step.group):
            if best is not None and context.deadline is not None and context.deadline.is_over:
                break
            program.circuits.clear()
            program.circuits.update(start)
            context.ledger.entries = list(entries)
            own: list[PassRecord] = []
            changed = [self._run_step(s, program, context, own, observer) for s in way.group]
            cost = sum(model.of(circuit) for circuit in program.circuits.values())
            tried.append(own)
            if best is None or cost < best[0] - 1e-9 * max(1.0, best[0]):
                best = cost, number
                kept = dict(program.circuits), context.ledger.entries, changed
        program.circuits.clear()
        program.circuits.update(kept[0])
        context.ledger.entries = kept[1]
        for number, own in enumerate(tried):
            if best is None or number != best[1]:
                records += [
                    replace(record, changed=False, before=before, after=before) for record in own
                ]
        if best is not None:
            records += tried[best[1]]
        return any(kept[2])


def run_pass(
    instance: Pass, program: Program, context: Context, records: list[PassRecord] | None = None
) -> PassRecord:
    """Run one pass on a program and say what it did."""
    before = records[-1].after if records else counts(program)
    start = time.process_time()
    try:
        if isinstance(instance, CircuitPass):
            changed, check = _run_on_circuits(instance, program, context)
        elif isinstance(instance, GraphPass):
            changed, check = _run_on_graph(instance, program, context)
        else:
            raise PassError(f"'{instance.name}' is neither a circuit pass nor a graph pass")
    except QcompError as error:
        if not error.where:
            error.where = f"pass '{instance}'"
        raise
    seconds = time.process_time() - start
    after = counts(program) if changed else before
    return PassRecord(str(instance), seconds, changed, before, after, check)


def _run_on_circuits(instance: CircuitPass, program: Program, context: Context) -> tuple[bool, str]:
    changed = False
    checks: list[str] = []
    for name, circuit in list(program.circuits.items()):
        if instance.only_bits and not program.reads_only_bits(name):
            continue
        entered = len(context.ledger.entries)
        result = instance.run(circuit, context)
        if result is circuit:
            continue
        added = result.num_qubits > circuit.num_qubits and result.layout is circuit.layout
        if added and not program.reads_only_expectations(name):
            raise PassError(
                f"'{instance.name}' adds qubits to '{name}', whose nodes would read them too",
                hint="run it on the circuit alone, or read expectation values",
            )
        changed = True
        program.circuits[name] = result
        if context.verify_each:
            verify(result, after=instance.name)
            checks.append(_check_circuit(instance, circuit, result, context, entered))
    return changed, "; ".join(dict.fromkeys(checks))


def _check_circuit(
    instance: CircuitPass, before: Circuit, after: Circuit, context: Context, entered: int
) -> str:
    if instance.preserves is Guarantee.WITHIN:
        from qcomp.equivalence.distance import check_within

        return check_within(instance.name, before, after, context.ledger.entries[entered:])
    if after.num_qubits > before.num_qubits and after.layout is before.layout:
        return _check_with_ancillas(instance, before, after, context)
    from qcomp.equivalence import check

    verdict = check(
        before,
        after,
        seed=context.seed,
        only_bits=instance.only_bits,
        from_zero=instance.from_zero,
    )
    if verdict.equal is False:
        raise PassError(
            f"'{instance.name}' changed what the circuit '{before.name}' does",
            why=f"{verdict.how}: error {verdict.error:.3g}",
            hint="this is a fault of the pass; leave it out and report it",
        )
    return verdict.how


def _check_with_ancillas(
    instance: CircuitPass, before: Circuit, after: Circuit, context: Context
) -> str:
    from qcomp.equivalence.ancillas import check_with_ancillas

    verdict = check_with_ancillas(before, after, context.seed)
    if verdict.equal is False:
        raise PassError(
            f"'{instance.name}' changed what '{before.name}' does on its own qubits",
            why=f"{verdict.how}: error {verdict.error:.3g}",
            hint="this is a fault of the pass; leave it out and report it",
        )
    return verdict.how


def _run_on_graph(instance: GraphPass, program: Program, context: Context) -> tuple[bool, str]:
    if not context.verify_each:
        return instance.run(program, context), ""
    before = Program(program.model.clone(), program.circuits, program.source)
    changed = instance.run(program, context)
    if not changed:
        return False, ""
    if instance.preserves is Guarantee.WITHIN:
        from qcomp.equivalence.spending import check_share

        return True, check_share(instance, before, program, context)
    from qcomp.equivalence import check

    verdict = check(before, program, seed=context.seed)
    if verdict.equal is False:
        raise PassError(
            f"'{instance.name}' changed what the graph computes",
            why=f"{verdict.how}: error {verdict.error:.3g}",
            hint="this is a fault of the pass; leave it out and report it",
        )
    return True, verdict.how


def counts(program: Program) -> dict[str, int]:
    """Return the counts a report shows: nodes and weight bytes of the graph, gates of circuits."""
    graph = program.model.graph
    result = {
        "nodes": len(graph),
        "weight_bytes": sum(
            value.const_value.nbytes
            for value in graph.initializers.values()
            if value.const_value is not None
        ),
    }
    for circuit in program.circuits.values():
        for key, value in circuit.stats().to_dict().items():
            result[key] = result.get(key, 0) + value
    return result


def option_fields(kind: type[Pass]) -> dict[str, dataclasses.Field[object]]:
    """Return a pass's options, name -> dataclass field."""
    if not dataclasses.is_dataclass(kind):
        raise UsageError(f"the pass class {kind.__name__} is no dataclass")
    return {f.name: f for f in dataclasses.fields(kind)}
