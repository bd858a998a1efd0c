"""What the parts of ``lowering.py`` share: a row, and how all tools' circuits are counted.

All circuits are counted in CX and one-qubit gates. Ours: as the lowering wrote it, gates on three
and more qubits replaced by ``to-basis`` and chains of one-qubit gates one gate each. Peers': what
the tool makes, put into CX and U by Qiskit's ``transpile`` at its own default level
(``optimization_level=2``), which PennyLane's circuits get, too, as OpenQASM 2; so no peer is judged
by less than Qiskit's default makes of it. The clock, in CPU seconds, has the tool's own work alone
for ours and PennyLane, and ``transpile`` with it for Qiskit, whose synthesis happens there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np

from qcomp.ir.circuit import Circuit

if TYPE_CHECKING:
    from pennylane.operation import Operator
    from qiskit import QuantumCircuit

__all__ = [
    "GOAL",
    "OURS",
    "PYTHONS",
    "Row",
    "TooLong",
    "ask",
    "limited",
    "our_row",
    "pennylane_row",
    "qiskit_row",
    "refused",
]

OURS = "qcomp"
"""The tool whose rows are held against the others; 'qcomp METHOD' is shown, not judged."""

GOAL = "goal"
"""A row of this tool is a count that is to be reached; it is held against ours like a peer."""

SECONDS = {"limit": 120.0}
"""CPU seconds after which a peer's circuit is given up."""

PYTHONS: dict[str, str] = {}
"""Peers in environments of their own: name -> interpreter (``--python bqskit=PYTHON``)."""


@dataclass(frozen=True, slots=True)
class Row:
    """One circuit of one tool.

    Attributes:
        construction: What was lowered, such as "random unitary".
        n: Qubits of what is lowered (ancillas apart).
        tool: :data:`OURS`, a peer, :data:`GOAL`, or ours by another method.
        gates: Gates; None where the tool gave no circuit, and ``note`` says why.
        two_qubit: CX gates.
        depth: Longest chain of gates.
        cpu_s: CPU seconds.
        note: What a reader must know: ancillas, fidelity, an error.
    """

    construction: str
    n: int
    tool: str
    gates: int | None
    two_qubit: int | None
    depth: int | None
    cpu_s: float
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the row for JSON."""
        return asdict(self)


class TooLong(Exception):
    """A peer took more CPU seconds than it may."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`TooLong` in what runs inside after so many CPU seconds of this process."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise TooLong

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def refused(construction: str, n: int, tool: str, why: str, cpu_s: float = 0.0) -> Row:
    """Return the row of a tool that gave no circuit."""
    return Row(construction, n, tool, None, None, None, cpu_s, why)


def our_row(
    construction: str, n: int, make: Callable[[], Circuit], *, tool: str = OURS, note: str = ""
) -> Row:
    """Return the row of a circuit of ours; the clock runs while it is made."""
    start = time.process_time()
    circuit = make()
    seconds = time.process_time() - start
    stats = in_cx(circuit).stats()
    return Row(construction, n, tool, stats.gates, stats.two_qubit, stats.depth, seconds, note)


def in_cx(circuit: Circuit) -> Circuit:
    """Return a circuit in CX and one-qubit gates, no two of which follow each other on a wire."""
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context, Pipeline

    program = Program.of_circuit(circuit)
    Pipeline.parse("to-basis{gates=[cx,u]},fuse-one-qubit").run(program, Context())
    return program.only_circuit


def qiskit_row(
    construction: str,
    n: int,
    make: Callable[[], QuantumCircuit],
    *,
    tool: str = "qiskit",
    note: str = "",
) -> Row:
    """Return the row of a circuit of Qiskit; the clock has ``make`` and ``transpile``."""
    import qiskit  # noqa: F401  imports are no work

    start = time.process_time()
    try:
        with limited(SECONDS["limit"]):
            counts = _transpiled(make())
    except TooLong:
        return refused(construction, n, tool, "too long", time.process_time() - start)
    except Exception as error:  # a peer may refuse in any way
        return refused(construction, n, tool, _one_line(error), time.process_time() - start)
    return Row(construction, n, tool, *counts, time.process_time() - start, note)


def pennylane_row(
    construction: str,
    n: int,
    make: Callable[[], Sequence[Operator]],
    *,
    tool: str = "pennylane",
    note: str = "",
) -> Row:
    """Return the row of operators of PennyLane, which decomposes them; ``transpile`` counts."""
    import pennylane  # noqa: F401  imports are no work
    import qiskit  # noqa: F401

    start = time.process_time()
    try:
        with limited(SECONDS["limit"]):
            text = _decomposed(make())
            seconds = time.process_time() - start
            from qiskit import qasm2

            found = qasm2.loads(text, custom_instructions=qasm2.LEGACY_CUSTOM_INSTRUCTIONS)
            counts = _transpiled(found)
    except TooLong:
        return refused(construction, n, tool, "too long", time.process_time() - start)
    except Exception as error:  # a peer may refuse in any way
        return refused(construction, n, tool, _one_line(error), time.process_time() - start)
    return Row(construction, n, tool, *counts, seconds, note)


def _one_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0][:120] if text else ''}"


def _transpiled(circuit: QuantumCircuit) -> tuple[int, int, int]:
    """Return gates, CX gates and depth in CX and U at Qiskit's default level."""
    from qiskit import transpile

    done = transpile(circuit, basis_gates=["cx", "u"], optimization_level=2, seed_transpiler=0)
    ops = done.count_ops()
    unknown = set(ops) - {"cx", "u"}
    if unknown:
        raise ValueError(f"not in CX and U: {sorted(unknown)}")
    return int(ops.get("cx", 0) + ops.get("u", 0)), int(ops.get("cx", 0)), int(done.depth())


def _decomposed(operators: Sequence[Operator]) -> str:
    """Return operators as OpenQASM 2 of rotations and CX gates by PennyLane's decompositions."""
    import pennylane as qml

    known = {"CNOT", "RX", "RY", "RZ", "PhaseShift", "Hadamard", "PauliX", "PauliY", "PauliZ",
             "S", "T", "Adjoint(S)", "Adjoint(T)", "SX", "Adjoint(SX)", "GlobalPhase"}  # fmt: skip
    script = qml.tape.QuantumScript(list(operators))
    (done,), _ = qml.transforms.decompose(script, gate_set=known)
    plain = [op for op in done.operations if op.name != "GlobalPhase"]
    wires = qml.wires.Wires.all_wires([op.wires for op in operators], sort=True)
    return str(qml.to_openqasm(qml.tape.QuantumScript(plain), wires=wires, measure_all=False))


def ask(tool: str, script: str, request: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
    """Run a script of this folder in a peer's environment; return its last line's JSON.

    Args:
        tool: Key of :data:`PYTHONS`.
        script: File name in this folder; it is called with the request as JSON and a ``.npz`` file.
        request: What it is asked.
        arrays: What stands in the file.

    Returns:
        Its answer, or {"error": why}.
    """
    import tempfile

    limit = SECONDS["limit"]
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.npz"
        np.savez(data, **arrays)
        path = Path(__file__).with_name(script)
        env = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        try:
            done = subprocess.run(
                [PYTHONS[tool], str(path), json.dumps(request | {"limit": limit}), str(data)],
                capture_output=True, text=True, env=env, cwd=folder,
                timeout=20 * limit + 60, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return {"error": "too long"}
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        return {"error": (done.stderr.strip().splitlines() or ["no answer"])[-1][:120]}
    answer = json.loads(lines[-1])
    assert isinstance(answer, dict)
    return answer
