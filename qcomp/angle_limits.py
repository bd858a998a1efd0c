"""``--max-error``, ``--max-observable-error``, ``--max-t``: how rotations may be approximated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from qcomp.angle_accuracies import AngleData
from qcomp.errors import SourceError, UsageError
from qcomp.ir.gates import gate
from qcomp.ir.observable import Observable
from qcomp.largest_drop import Drop
from qcomp.pipelines import for_basis

if TYPE_CHECKING:
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context
    from qcomp.target import Target

__all__ = ["AngleLimits", "JointPipeline", "circuit_pipeline"]


@dataclass(frozen=True)
class AngleLimits:
    """What a user allows, one of them, and what observables are judged on.

    Attributes:
        error: Operator norm of the whole change, up to a global phase.
        observable_error: Largest change of an observable over the rows of data.
        t: T gates.
        data: Observables and rows.
    """

    error: float | None = None
    observable_error: float | None = None
    t: int | None = None
    data: AngleData | None = None

    @staticmethod
    def of(
        error: object = None,
        observable_error: object = None,
        t: object = None,
        observables: Sequence[str] = (),
        states: object = None,
    ) -> AngleLimits | None:
        """Read what the user gave; None where nothing was.

        Args:
            error: A number, or its text.
            observable_error: The same; of the observables' own units, ``1%`` is 0.01.
            t: A whole number.
            observables: Texts such as ``Z0*Z1``.
            states: Initial states, an array [rows, 2^n] or a ``.npz`` file with one named
                ``states``.

        Raises:
            UsageError: If limits contradict one another, or one is no number.
        """
        given = {
            "--max-error": error,
            "--max-observable-error": observable_error,
            "--max-t": t,
        }
        named = [name for name, value in given.items() if value is not None]
        if len(named) > 1:
            raise UsageError(
                f"{' and '.join(named)} contradict one another",
                hint="give one limit; the others are then as small as that allows",
            )
        if not named:
            if observables or states is not None:
                raise UsageError(
                    "observables and states are for a limit on their error",
                    hint="give --max-observable-error 0.01 or --max-t 3000 besides",
                )
            return None
        data = None
        if observables or states is not None or observable_error is not None:
            if error is not None:
                raise UsageError(
                    "--max-error bounds the operator norm, whatever the states and observables",
                    hint="leave them out, or give --max-observable-error in its place",
                )
            for text in observables:
                Observable.parse(text)
            data = AngleData(tuple(observables), None if states is None else _states(states))
        return AngleLimits(
            None if error is None else _number("--max-error", error),
            None if observable_error is None else _number(named[0], observable_error),
            None if t is None else _count(t),
            data,
        )

    @property
    def step(self) -> str:
        """The pass that shares the limit out, as text."""
        if self.t is not None:
            return f"allocate-angles{{t={self.t}}}"
        if self.error is not None:
            return f"allocate-angles{{error={self.error!r}}}"
        return f"allocate-angles{{observable_error={self.observable_error!r}}}"


@dataclass(frozen=True, slots=True)
class JointPipeline:
    """Circuits are merged, and wait for a split of the budget that they share with the graph.

    Attributes:
        rest: The pipeline behind their synthesis.
    """

    rest: str


def circuit_pipeline(
    context: Context,
    target: Target,
    effort: str,
    given: str | None = None,
    program: Program | None = None,
) -> str:
    """Return the text of a target's pipeline, rotations synthesised where there is a limit.

    Rotations are merged over the target's Clifford gates and ``rz`` first, then shared the limit,
    synthesised, and the T gates reduced. Under a largest drop alone they are only merged, and a
    :class:`JointPipeline` says what is left to do (:mod:`qcomp.joint_budget`).

    Args:
        context: Its fact :class:`AngleLimits` says the limit.
        target: The machine.
        effort: Which of its pipelines.
        given: A text of the user's own in its place.
        program: What is compiled; where data goes into its circuits, rotations by parameters stay,
            and rows of them are recorded.

    Raises:
        UsageError: If the target has rotations of any angle, so that none are to be approximated.
    """
    limits = context.get(AngleLimits)
    basis = target.basis
    if limits is None and given is None and context.get(Drop) is not None and _is_discrete(target):
        before, rest = _around(context, target, effort, program)
        context.put(JointPipeline(rest))
        return before.removesuffix(",")
    if limits is None or target.kind != "circuit":
        return target.pipeline(effort) if given is None else given
    if given is not None:
        raise UsageError(
            "a limit on the error of rotations and a pipeline of one's own contradict one another",
            hint=f"write it there: {limits.step},synthesize-rotations",
        )
    turning = [name for name in basis if gate(name).num_angles]
    if not _is_discrete(target):
        raise UsageError(
            f"the target '{target.name}' makes rotations of any angle by {', '.join(turning)}"
            if turning
            else f"the target '{target.name}' has not all of h, s, t and cx",
            hint="limits on the error of rotations and on T gates are for -t clifford+t",
        )
    if limits.data is not None:
        context.put(limits.data)
    before, rest = _around(context, target, effort, program)
    return f"{before}{limits.step},synthesize-rotations,{rest}"


def _is_discrete(target: Target) -> bool:
    """Whether a machine has Clifford gates and T, and no rotations of any angle."""
    basis = target.basis
    turning = any(gate(name).num_angles for name in basis)
    return target.kind == "circuit" and not turning and {"h", "s", "t", "cx"} <= set(basis)


def _around(
    context: Context, target: Target, effort: str, program: Program | None
) -> tuple[str, str]:
    """Return what stands before the limit is shared out, and what behind the synthesis."""
    basis = target.basis
    before = for_basis(("h", "x", "rz", "cx"), "h-x-rz", effort)
    open_ = program is not None and _takes_data(program)
    own = f"to-basis{{gates=[{','.join(basis)}]{',symbols=true' * open_}}}"
    record = "record-parameters," * (open_ and context.calibration is not None)
    fuse = "fuse-one-qubit{basis=" + "-".join(n for n in basis if gate(n).num_qubits == 1) + "}"
    reduce = "" if effort == "fast" else f"reduce-t-count,{own},{fuse},"
    rest = f"{own},merge-rotations,cancel-inverses,{own},{fuse},{reduce}{own}"
    return f"{before},{record}", rest


def _takes_data(program: Program) -> bool:
    """Whether a circuit has inputs that are not constants."""
    return any(
        value is not None and not value.is_initializer() and value.const_value is None
        for node in program.all_circuit_nodes()
        for value in node.inputs
    )


def _number(name: str, value: object) -> float:
    """Read a number in (0, 2)."""
    text = str(value).strip()
    try:
        number = float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        number = float("nan")
    if not 0 < number < 2:
        raise UsageError(
            f"{name} is a number between 0 and 2, not '{value}'", hint=f"{name} 1e-3, for example"
        )
    return number


def _count(value: object) -> int:
    """Read a number of gates."""
    try:
        number = int(str(value))
    except ValueError:
        number = -1
    if number < 0:
        raise UsageError(f"--max-t is a whole number of gates, not '{value}'")
    return number


def _states(value: object) -> np.ndarray[tuple[int, ...], np.dtype[np.complex128]]:
    """Read initial states."""
    if isinstance(value, str | Path):
        try:
            with np.load(value, allow_pickle=False) as arrays:
                if "states" not in arrays:
                    raise SourceError(
                        f"'{value}' has no array 'states', only {', '.join(arrays) or 'nothing'}",
                        hint="save the initial states under that name, a row each",
                    )
                value = arrays["states"]
        except (OSError, ValueError, AttributeError) as error:
            raise SourceError(f"'{value}' is no .npz file of states", why=str(error)) from error
    states = np.atleast_2d(np.asarray(value, dtype=np.complex128))
    if not len(states):
        raise UsageError("there are no states: the array has no rows")
    return states
