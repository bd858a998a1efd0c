"""How long large circuits take: text in to text out, and time per gate by size."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.program import Program
from qcomp.ir.run import Run
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import EFFORT_PIPELINES, for_basis

__all__ = ["ansatz", "clifford_t", "measure"]

SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
QUBITS = 100
LAYERS = 1_400


def clifford_t(size: int, seed: int = 7) -> Circuit:
    """Return so many random gates on 100 qubits: 40 % cx, 30 % h, 30 % t and tdg."""
    rng = np.random.default_rng(seed)
    kinds = [G.CX, G.H, G.T, G.TDG]
    code = rng.choice(kinds, size, p=[0.4, 0.3, 0.15, 0.15]).astype(np.uint8)
    qubit = np.full((size, 3), -1, dtype=np.int32)
    qubit[:, 0] = rng.integers(0, QUBITS, size)
    two = code == G.CX
    step = rng.integers(1, QUBITS, int(two.sum()))
    qubit[two, 1] = (qubit[two, 0] + step) % QUBITS
    circuit = Circuit(QUBITS)
    return circuit.copy(body=(Run.of(code, qubit),))


def ansatz(qubits: int = QUBITS, layers: int = LAYERS) -> Circuit:
    """Return layers of ry(theta), rz(theta) on every qubit and a chain of cx, each angle free."""
    one = np.arange(qubits)
    per = 3 * qubits - 1
    code = np.concatenate(
        [np.full(qubits, G.RY), np.full(qubits, G.RZ), np.full(qubits - 1, G.CX)]
    ).astype(np.uint8)
    qubit = np.full((per, 3), -1, dtype=np.int32)
    qubit[:qubits, 0] = qubit[qubits : 2 * qubits, 0] = one
    qubit[2 * qubits :, 0], qubit[2 * qubits :, 1] = one[:-1], one[1:]
    names = [f"p{i}" for i in range(2 * qubits * layers)]
    circuit = Circuit(qubits, params=names)
    forms, rows = circuit.forms.append([[(i, 1.0)] for i in range(len(names))])
    run = Run.of(np.tile(code, layers), np.tile(qubit, (layers, 1)), form=rows)
    return circuit.copy(body=(run,), forms=forms)


def optimise(circuit: Circuit, pipeline: str) -> tuple[Circuit, float]:
    """Return (output, CPU seconds)."""
    program = Program.of_circuit(circuit)
    start = time.process_time()
    Pipeline.parse(pipeline).run(program, Context())
    return program.only_circuit, time.process_time() - start


def text_to_text(text: str, pipeline: str) -> tuple[int, dict[str, float]]:
    """Return (gates left, CPU seconds of reading, of the pipeline, of writing)."""
    start = time.process_time()
    circuit = Circuit.from_qasm(text)
    read = time.process_time() - start
    output, reduced = optimise(circuit, pipeline)
    start = time.process_time()
    written = output.to_qasm3()
    write = time.process_time() - start
    assert len(written) > 0
    return len(output), {"read": read, "reduce": reduced, "write": write}


def rows(sizes: Sequence[int], pipeline: str) -> Iterator[dict[str, object]]:
    """Yield one row of figures a circuit; the first, cold run compiles and is not shown."""
    text_to_text(clifford_t(100_000).to_qasm3(), pipeline)
    for size in sizes:
        circuit = clifford_t(size)
        gates, seconds = text_to_text(circuit.to_qasm3(), pipeline)
        yield {"circuit": "Clifford+T", "gates": size, "left": gates, **seconds}
    circuit = ansatz()
    # In its own gates: a machine's basis would write each ry as five.
    gates, seconds = text_to_text(circuit.to_qasm3(), EFFORT_PIPELINES["fast"])
    yield {
        "circuit": f"ansatz, {LAYERS} layers, {circuit.num_params} parameters",
        "gates": len(circuit),
        "left": gates,
        **seconds,
    }


def measure(out: Path | None, family: tuple[tuple[str, ...], str], largest: int) -> str:
    """Print the table of the ``fast`` effort, write it as JSON if asked for, and return it.

    Args:
        out: Where the figures go as JSON, None for nowhere.
        family: Basis, and its one-qubit gates as ``fuse-one-qubit`` takes them.
        largest: Most gates of a circuit.
    """
    lines = [
        "| circuit | gates | left | read, CPU s | reduce | write | all | ns a gate |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    found = []
    for row in rows([size for size in SIZES if size <= largest], for_basis(*family, "fast")):
        found.append(row)
        parts = [float(str(row[key])) for key in ("read", "reduce", "write")]
        total = sum(parts)
        gates = int(str(row["gates"]))
        cells = [*(f"{part:.3f}" for part in parts), f"{total:.3f}", f"{1e9 * total / gates:.0f}"]
        lines.append(f"| {row['circuit']} | {gates} | {row['left']} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    return "\n".join(lines)
