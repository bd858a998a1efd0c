"""Circuits with measurement, reset and classical control, followed branch by branch.

The tree of blocks is lowered once to a list of instructions with jumps. A *branch* is a batch of
states that share their classical memory and their place in that list. A measurement splits it in
two:

* exact: both outcomes are followed, states unnormalised, so that the squared norm of a state is
  the probability of its branch. Branches below ``DROPPED`` are left out.
* shots: each row's shots are divided by a binomial draw; outcomes without shots are not followed.
  This samples trajectories exactly, and costs one evolution for all shots that agree so far.

Measurements after which neither the qubit nor the bit is used again split nothing: the leaf
names them, and its reader takes their distribution from the final state.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qcomp.errors import UsageError
from qcomp.ir.blocks import Block, Box, Delay, Range
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import (
    Bit,
    ClassicalVar,
    Expr,
    Memory,
    Register,
    VarRef,
    evaluate,
    wrap_to,
)
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.simulate.engine import check_memory, evolve, ground_states
from qcomp.simulate.lowering import (
    Apply,
    Halt,
    Instruction,
    Jump,
    JumpTable,
    JumpUnless,
    LoopNext,
    LoopStart,
    Lowering,
    Measure,
    Reset,
    Store,
)

__all__ = ["Leaf", "final_measurements", "is_unitary", "leaves"]

DROPPED = 1e-15
"""Probability up to which an exact branch is left out."""

MAX_BRANCHES = 1 << 16
"""Leaves that one exact run may have."""

MAX_STEPS = 1 << 17
"""Instructions that one way through the circuit may execute."""

States = NDArray[np.complex128]
Wires = tuple[tuple[int, int], ...]


@dataclass(slots=True)
class _Branch:
    at: int
    rows: NDArray[np.intp]
    states: States
    shots: NDArray[np.int64] | None
    memory: Memory
    loops: dict[int, tuple[tuple[int, ...], int]]
    steps: int = 0


@dataclass(frozen=True, slots=True)
class Leaf:
    """One way through the circuit, for the rows that take it.

    Attributes:
        rows: Rows of parameters, intp[r].
        states: Final states, complex128[r, 2^n]: in an exact run the squared norm of a state is
            the probability of this leaf, with shots it is 1.
        shots: Shots of each row that end here, int64[r]; None in an exact run.
        bits: The classical bits, but for those in ``final``.
        final: (qubit, bit) of the measurements still to be read from the states.
    """

    rows: NDArray[np.intp]
    states: States
    shots: NDArray[np.int64] | None
    bits: tuple[int, ...]
    final: Wires


def final_measurements(circuit: Circuit) -> tuple[Block, Wires]:
    """Split off the measurements at the end that nothing later depends on.

    Returns:
        The body without them, and their (qubit, bit) pairs in program order.
    """
    body = list(circuit.body)
    touched: set[int] = set()
    written: set[int] = set()
    final: list[tuple[int, int]] = []
    for at in range(len(body) - 1, -1, -1):
        item = body[at]
        if isinstance(item, Delay):
            continue
        if not isinstance(item, Run):
            break
        keep = np.ones(len(item), dtype=np.bool_)
        measures = np.flatnonzero(item.code == G.MEASURE)
        first = int(measures[0]) if len(measures) else len(item)
        for i in range(len(item) - 1, first - 1, -1):
            code = int(item.code[i])
            if code == G.BARRIER:
                continue
            if code == G.MEASURE:
                qubit, clbit = int(item.qubit[i, 0]), int(item.qubit[i, 1])
                if qubit not in touched and clbit not in written:
                    keep[i] = False
                    final.append((qubit, clbit))
                else:
                    touched.add(qubit)
                written.add(clbit)
            else:
                touched.update(item.operands(i))
        if not keep.all():
            body[at] = item.select(keep)
        if at == 0 or len(touched) == circuit.num_qubits:
            break
        touched.update(_qubits_before(item, first))
    return tuple(body), tuple(reversed(final))


def _qubits_before(run: Run, stop: int) -> list[int]:
    """Return the qubits that the operations before ``stop``, no measurements, act on."""
    code, qubit = run.code[:stop], run.qubit[:stop]
    wide = run.is_wide[:stop]
    found = [q for i in np.flatnonzero(wide & (code != G.BARRIER)) for q in run.operands(int(i))]
    narrow = np.unique(qubit[~wide])
    return [*found, *narrow[narrow >= 0].tolist()]


def _unitary_body(body: Block) -> bool:
    """Whether a body has no measurement, no reset and no classical control."""
    for item in body:
        if isinstance(item, Box):
            if not _unitary_body(item.body):
                return False
        elif isinstance(item, Run):
            if ((item.code == G.MEASURE) | (item.code == G.RESET)).any():
                return False
        elif not isinstance(item, Delay):
            return False
    return True


def is_unitary(circuit: Circuit) -> bool:
    """Whether the circuit is unitary up to measurements at its end."""
    return _unitary_body(final_measurements(circuit)[0])


def leaves(
    circuit: Circuit,
    params: NDArray[np.float64],
    shots: int = 0,
    rng: np.random.Generator | None = None,
) -> Iterator[Leaf]:
    """Yield the ways through the circuit.

    Args:
        circuit: Any circuit.
        params: float64[B, P].
        shots: Shots of each row; 0 follows every branch.
        rng: Where draws come from; needed with shots.

    Raises:
        UsageError: If the states do not fit, or the branches or steps pass their bounds.
    """
    check_memory(circuit.num_qubits, len(params))
    body, final = final_measurements(circuit)
    lowering = Lowering()
    lowering.block(body)
    registers = {register.name: (register.start, register.size) for register in circuit.cregs}
    memory = Memory(
        [0] * circuit.num_clbits,
        registers,
        {
            variable.name: wrap_to(0, variable.type, variable.width)
            for variable in circuit.variables
        },
    )
    start = _Branch(
        at=0,
        rows=np.arange(len(params)),
        states=ground_states(circuit.num_qubits, len(params)),
        shots=np.full(len(params), shots, dtype=np.int64) if shots else None,
        memory=memory,
        loops={},
    )
    widths = {variable.name: variable for variable in circuit.variables}
    machine = _Machine(circuit, params, lowering.code, widths, rng)
    for branch in machine.follow(start):
        yield Leaf(branch.rows, branch.states, branch.shots, tuple(branch.memory.bits), final)


class _Machine:
    """Runs the instructions, depth first."""

    def __init__(
        self,
        circuit: Circuit,
        params: NDArray[np.float64],
        code: list[Instruction],
        variables: dict[str, ClassicalVar],
        rng: np.random.Generator | None,
    ) -> None:
        self._circuit = circuit
        self._params = params
        self._code = code
        self._variables = variables
        self._rng = rng

    def follow(self, start: _Branch) -> Iterator[_Branch]:
        """Yield every branch at its end."""
        waiting = [start]
        found = 0
        while waiting:
            branch = waiting.pop()
            if not self._advance(branch):
                outcomes = self._split(branch)
                check_memory(
                    self._circuit.num_qubits, len(branch.rows), len(waiting) + len(outcomes)
                )
                waiting.extend(reversed(outcomes))
                continue
            found += 1
            if branch.shots is None and found > MAX_BRANCHES:
                raise UsageError(
                    f"circuit '{self._circuit.name}' has over {MAX_BRANCHES} branches",
                    why="every mid-circuit measurement may double them",
                    hint="run it with shots",
                )
            yield branch

    def _advance(self, branch: _Branch) -> bool:
        """Run a branch up to its end (True) or to a measurement or reset (False)."""
        while branch.at < len(self._code):
            instruction = self._code[branch.at]
            if isinstance(instruction, Halt):
                return True
            branch.steps += 1
            if branch.steps > MAX_STEPS:
                raise UsageError(
                    f"circuit '{self._circuit.name}' ran over {MAX_STEPS} steps",
                    why="a loop in it does not end",
                )
            if isinstance(instruction, Measure | Reset):
                return False
            branch.at += 1
            self._step(branch, instruction)
        return True

    def _step(self, branch: _Branch, instruction: Instruction) -> None:
        memory = branch.memory
        match instruction:
            case Apply(run):
                params = self._params[branch.rows]
                first = branch.steps == 1
                branch.states = evolve(self._circuit, run, params, branch.states, grounded=first)
            case Jump(target):
                branch.at = target
            case JumpUnless(condition, target):
                if not evaluate(condition, memory):
                    branch.at = target
            case JumpTable(subject, targets, default):
                branch.at = targets.get(int(evaluate(subject, memory)), default)
            case Store(target, value):
                self._store(memory, target, value)
            case LoopStart(slot, values):
                branch.loops[slot] = (_loop_values(values, memory), 0)
            case LoopNext(slot, variable, target):
                values, position = branch.loops[slot]
                if position == len(values):
                    branch.at = target
                else:
                    branch.loops[slot] = (values, position + 1)
                    memory.variables[variable.name] = wrap_to(
                        values[position], variable.type, variable.width
                    )

    def _store(self, memory: Memory, target: Bit | Register | VarRef, value: Expr) -> None:
        result = evaluate(value, memory)
        match target:
            case Bit(index):
                memory.bits[index] = int(bool(result))
            case Register(name):
                start, size = memory.registers[name]
                for i in range(size):
                    memory.bits[start + i] = (int(result) >> i) & 1
            case VarRef(name):
                variable = self._variables.get(name)
                if variable is not None:
                    result = wrap_to(result, variable.type, variable.width)
                memory.variables[name] = result

    def _split(self, branch: _Branch) -> list[_Branch]:
        """Return the branches after the measurement or reset that the branch stands at."""
        instruction = self._code[branch.at]
        assert isinstance(instruction, Measure | Reset)
        branch.at += 1
        qubit = instruction.qubit
        stride = 1 << qubit
        view = branch.states.reshape(len(branch.rows), -1, 2, stride)
        chance = np.sum(view.real**2 + view.imag**2, axis=(1, 3))
        out = []
        for outcome, (keep, shots) in enumerate(self._outcomes(branch, chance)):
            if not keep.any():
                continue
            states = np.zeros((int(keep.sum()), *view.shape[1:]), dtype=np.complex128)
            place = 0 if isinstance(instruction, Reset) else outcome
            part = view[keep, :, outcome]
            if shots is not None:
                part = part / np.sqrt(chance[keep, outcome])[:, None, None]
            states[:, :, place] = part
            memory = branch.memory.copy()
            if isinstance(instruction, Measure):
                memory.bits[instruction.clbit] = outcome
            out.append(
                replace(
                    branch,
                    rows=branch.rows[keep],
                    states=states.reshape(len(states), -1),
                    shots=None if shots is None else shots[keep],
                    memory=memory,
                    loops=dict(branch.loops),
                )
            )
        return out

    def _outcomes(
        self, branch: _Branch, chance: NDArray[np.float64]
    ) -> list[tuple[NDArray[np.bool_], NDArray[np.int64] | None]]:
        """Return per outcome which rows go on, and with how many shots."""
        if branch.shots is None:
            return [
                (np.full(len(branch.rows), bool((chance[:, k] > DROPPED).any())), None)
                for k in (0, 1)
            ]
        assert self._rng is not None
        ones = self._rng.binomial(branch.shots, np.clip(chance[:, 1] / chance.sum(axis=1), 0, 1))
        zeros = branch.shots - ones
        return [(zeros > 0, zeros), (ones > 0, ones)]


def _loop_values(values: Range | tuple[int, ...], memory: Memory) -> tuple[int, ...]:
    """Return the values that a for loop takes, ranges inclusive as in OpenQASM 3."""
    if not isinstance(values, Range):
        return values
    start, stop, step = (int(evaluate(e, memory)) for e in (values.start, values.stop, values.step))
    if step == 0:
        raise UsageError("the step of a for loop is 0")
    count = (stop - start) // step + 1
    if count > MAX_STEPS:
        raise UsageError(f"a for loop has {count} rounds, over the limit of {MAX_STEPS}")
    return tuple(range(start, stop + (1 if step > 0 else -1), step))
