"""The other tools: how each is called, in a process of its own that can be stopped.

Every tool gets the same OpenQASM 2 text, without measurements, and gives one back. The clock runs
from the tool's own circuit to its own circuit: imports, reading and writing are apart. Output
permutations are undone by gates that count.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, NUM_ANGLES

__all__ = ["PEERS", "Answer", "Peer", "Worker", "to_qasm2"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a tool made of a circuit.

    Attributes:
        text: OpenQASM 2 text of its output; empty where it failed.
        seconds: CPU seconds of the optimisation.
        error: Why there is no output; empty where there is one.
    """

    text: str
    seconds: float
    error: str = ""


def to_qasm2(circuit: Circuit) -> str:
    """Return OpenQASM 2 text of a flattened circuit without parameters."""
    run = circuit.run
    value = run.frac * (np.pi / (1 << 60)) + run.rem
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{circuit.num_qubits}];"]
    for i, code in enumerate(run.code.tolist()):
        if not NUM_ANGLES[code] and GATES[code].num_qubits == 0:
            continue
        first = int(run.angle[i])
        # Not every reader takes exponents.
        angles = ",".join(
            np.format_float_positional(v, unique=True, trim="0")
            for v in value[first : first + int(NUM_ANGLES[code])]
        )
        head = f"{GATES[code].name}({angles})" if NUM_ANGLES[code] else GATES[code].name
        lines.append(f"{head} {','.join(f'q[{q}]' for q in run.operands(i))};")
    return "\n".join(lines) + "\n"


def _qiskit(text: str, basis: Sequence[str]) -> Answer:
    from qiskit import qasm2, transpile

    source = qasm2.loads(text)
    start = time.process_time()
    out = transpile(source, basis_gates=list(basis), optimization_level=3, seed_transpiler=0)
    seconds = time.process_time() - start
    if out.layout is not None:
        where = out.layout.final_index_layout()
        # Bring each qubit home by swaps, which the count then holds against the tool.
        for qubit in range(len(where)):
            while where[qubit] != qubit:
                other = where[qubit]
                out.swap(qubit, other)
                where = [qubit if at == other else other if at == qubit else at for at in where]
    return Answer(qasm2.dumps(out), seconds)


def _tket(text: str, name: str) -> Answer:
    from pytket.circuit import OpType
    from pytket.passes import (
        AutoRebase,
        DecomposeBoxes,
        FullPeepholeOptimise,
        GreedyPauliSimp,
    )
    from pytket.qasm import circuit_from_qasm_str, circuit_to_qasm_str

    circuit = circuit_from_qasm_str(text, maxwidth=1 << 20)
    start = time.process_time()
    if name == "GreedyPauliSimp":
        GreedyPauliSimp().apply(circuit)
    else:
        FullPeepholeOptimise(allow_swaps=False).apply(circuit)
    DecomposeBoxes().apply(circuit)
    circuit.replace_implicit_wire_swaps()
    AutoRebase({OpType.CX, OpType.U3}).apply(circuit)
    seconds = time.process_time() - start
    return Answer(circuit_to_qasm_str(circuit, maxwidth=1 << 20), seconds)


def _pyzx(text: str) -> Answer:
    import pyzx

    circuit = pyzx.Circuit.from_qasm(text)
    start = time.process_time()
    graph = circuit.to_graph()
    graph = pyzx.simplify.teleport_reduce(graph)
    out = pyzx.Circuit.from_graph(graph).to_basic_gates()
    out = pyzx.optimize.basic_optimization(out).to_basic_gates()
    seconds = time.process_time() - start
    return Answer(out.to_qasm(), seconds)


@dataclass(frozen=True, slots=True)
class Peer:
    """A tool in one setting.

    Attributes:
        name: Its key in the results.
        group: What ``--peers`` calls it.
        package: The package that must be installed.
        title: What is run.
        published: Its key in a file of published figures.
    """

    name: str
    group: str
    package: str
    title: str
    published: str = ""

    @property
    def installed(self) -> bool:
        """Whether the tool can be imported."""
        return importlib.util.find_spec(self.package) is not None

    @property
    def version(self) -> str:
        """The installed version."""
        return importlib.metadata.version(self.package)

    def run(self, text: str, basis: Sequence[str]) -> Answer:
        """Optimise a circuit in this process.

        Args:
            text: OpenQASM 2 text.
            basis: The gates that the output is counted in.
        """
        if self.group == "qiskit":
            return _qiskit(text, basis)
        if self.group == "tket":
            return _tket(text, self.title)
        return _pyzx(text)


PEERS = (
    Peer("qiskit_o3", "qiskit", "qiskit", "preset O3 into the family's basis", "qiskit_o3_ibm"),
    Peer("tket_gps", "tket", "pytket", "GreedyPauliSimp", "tket_gps"),
    Peer("tket_fp", "tket", "pytket", "FullPeepholeOptimise", "tket_fp"),
    Peer("pyzx_tele", "pyzx", "pyzx", "teleport_reduce, basic_optimization", "pyzx_tele"),
)
"""The tools that a run can hold ours against."""


def _serve(pipe: Connection, peer: Peer) -> None:
    """Answer requests until the pipe closes; the first answer says that the tool is loaded."""
    bell = 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[2];\nh q[0];\ncx q[0],q[1];\nt q[1];\n'
    try:
        peer.run(bell, ("h", "x", "rz", "cx"))
        pipe.send("ready")
        while True:
            text, basis = pipe.recv()
            try:
                pipe.send(peer.run(text, basis))
            except Exception as error:  # noqa: BLE001  whatever a peer raises is its answer
                pipe.send(Answer("", 0.0, f"{type(error).__name__}: {error}"))
    except EOFError:
        return


class Worker:
    """A peer in a process of its own, started again after a circuit that took too long.

    Args:
        peer: The tool.
        limit: Wall seconds that one circuit may take.

    Attributes:
        peer: The tool.
    """

    def __init__(self, peer: Peer, limit: float) -> None:
        self.peer, self._limit = peer, limit
        self._process: multiprocessing.process.BaseProcess | None = None
        self._pipe: Connection | None = None

    def __enter__(self) -> Worker:
        """Return the worker; its process starts with the first circuit."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process."""
        self._stop()

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.peer), daemon=True)
        self._process.start()
        theirs.close()
        if self._pipe.recv() != "ready":
            raise RuntimeError(f"{self.peer.name} did not start")
        return self._pipe

    def _stop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()
        if self._process is not None:
            self._process.terminate()
            self._process.join()
        self._pipe = self._process = None

    def run(self, text: str, basis: Sequence[str]) -> Answer:
        """Optimise a circuit within the limit; an answer without text says why there is none."""
        pipe = self._pipe or self._start()
        try:
            pipe.send((text, tuple(basis)))
            if pipe.poll(self._limit):
                answer = pipe.recv()
                assert isinstance(answer, Answer)
                return answer
        except (EOFError, BrokenPipeError):
            self._stop()
            return Answer("", 0.0, "the tool's process ended")
        self._stop()
        return Answer("", self._limit, f"no answer in {self._limit:g} s")


Progress = Callable[[str], None]
