"""Cold figures of the circuit benchmark: what a tool's first circuits take in a fresh process.

    python benchmarks/circuit_cold.py TOOL EFFORT_OR_DASH GATES

runs one tool in this process and prints JSON: CPU seconds of its imports, of its first circuit, and
of the same circuit once more. ``measure`` does so for every tool, ours without compiled kernels
first and then with those that the first process left in its cache.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

__all__ = ["cold_table", "measure"]

GATES = (500, 5000)
"""Sizes of the circuits; kernels are compiled for the larger one only."""

LIMIT = 60.0
"""Wall seconds that a peer's process may take."""

QUBITS = 12
BASIS = ("h", "x", "rz", "cx")

MODULES = {
    "qiskit_o3": ("qiskit", "qiskit.qasm2"),
    "tket_gps": ("pytket", "pytket.passes", "pytket.qasm"),
    "tket_fp": ("pytket", "pytket.passes", "pytket.qasm"),
    "pyzx_tele": ("pyzx",),
}
OURS = ("qcomp.pipelines", "qcomp.passmanager", "qcomp.ir.circuit", "qcomp.ir.program")


def text_of(gates: int) -> str:
    """Return a random Clifford+T circuit as OpenQASM 2 text."""
    rng = np.random.default_rng(gates)
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{QUBITS}];"]
    for _ in range(gates):
        a, b = rng.permutation(QUBITS)[:2].tolist()
        name = str(rng.choice(["h", "t", "s", "x", "cx", "cx"]))
        lines.append(f"cx q[{a}],q[{b}];" if name == "cx" else f"{name} q[{a}];")
    return "\n".join(lines) + "\n"


def timed(tool: str, effort: str, gates: int) -> dict[str, float]:
    """Return CPU seconds of a tool's imports, of its first circuit, and of the same once more.

    Args:
        tool: ``qcomp`` or a peer's name.
        effort: Of qcomp, else nothing.
        gates: Gates of the circuit.
    """
    text = text_of(gates)
    start = time.process_time()
    for module in OURS if tool == "qcomp" else MODULES[tool]:
        importlib.import_module(module)
    imports = time.process_time() - start
    if tool == "qcomp":
        spent = [ours(text, effort) for _ in range(2)]
    else:
        from circuit_peers import PEERS

        peer = next(peer for peer in PEERS if peer.name == tool)
        spent = [peer.run(text, BASIS).seconds for _ in range(2)]
    return {"import": imports, "first": spent[0], "again": spent[1]}


def ours(text: str, effort: str) -> float:
    """Return the CPU seconds of an effort of ours, from circuit to circuit."""
    from qcomp.ir.circuit import Circuit
    from qcomp.ir.program import Program
    from qcomp.passmanager import Context, Pipeline
    from qcomp.pipelines import for_basis

    program = Program.of_circuit(Circuit.from_qasm(text))
    start = time.process_time()
    Pipeline.parse(for_basis(BASIS, "h-x-rz", effort)).run(program, Context())
    return time.process_time() - start


def measure(
    peers: Sequence[str], gates: Iterable[int] = GATES, say: Callable[[str], None] = str
) -> list[dict[str, object]]:
    """Run every tool on every size, each in a process of its own; return a row each.

    Args:
        peers: Names of the peers, as ``circuit_peers.PEERS`` has them.
        gates: Sizes of the circuits.
        say: Is told each row as it comes.
    """
    rows: list[dict[str, object]] = []

    def add(tool: str, size: int, kernels: str, found: Mapping[str, float]) -> None:
        rows.append({"tool": tool, "gates": size, "kernels": kernels, **found})
        say(str(rows[-1]))

    for size in gates:
        for effort in ("fast", "default"):
            with tempfile.TemporaryDirectory() as folder:
                for kernels in ("none", "in the cache"):
                    found = _asked("qcomp", effort, size, {"NUMBA_CACHE_DIR": folder})
                    add(f"qcomp_{effort}", size, kernels, found)
        for peer in peers:
            try:
                add(peer, size, "-", _asked(peer, "-", size, {}, LIMIT))
            except subprocess.TimeoutExpired:
                add(peer, size, "-", {})
    return rows


def _asked(
    tool: str, effort: str, gates: int, more: Mapping[str, str], limit: float | None = None
) -> dict[str, float]:
    command = [sys.executable, __file__, tool, effort, str(gates)]
    environment = {**os.environ, **more}
    out = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=limit
    )
    found = json.loads(out.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def cold_table(rows: Iterable[Mapping[str, object]]) -> str:
    """Return the rows in Markdown."""
    lines = [
        "| gates | tool | compiled kernels | imports, CPU s | first circuit | the same again |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (row["gates"], row["tool"], row["kernels"])
        times = (f"{row[key]:.3f}" if key in row else "-" for key in ("import", "first", "again"))
        lines.append(f"| {' | '.join(map(str, (*cells, *times)))} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    print(json.dumps(timed(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
