"""Gates a second of the linear circuit passes, beside Qiskit's pass for the same work, in one run.

    python benchmarks/reduce.py [--sizes 10000,100000,1000000] [--qubits 100] [--json OUT]

Random Clifford+T circuits, CPU seconds of one core, kernels compiled beforehand. Only the ratio to
the peer means anything on another machine. Qiskit is given circuits of at most 10^5 gates.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.run import Run
from qcomp.passmanager import CircuitPass, Context
from qcomp.pipeline_text import parse_steps

PASSES = (
    "merge-rotations",
    "cancel-inverses",
    "fuse-one-qubit{basis=rz-sx-x}",
    "to-basis{gates=[cz,rz,sx,x]}",
)
PEERS = {
    "cancel-inverses": ("CommutativeCancellation", {}),
    "fuse-one-qubit{basis=rz-sx-x}": ("Optimize1qGatesDecomposition", {"basis": ["rz", "sx", "x"]}),
}
PEER_GATES = 100_000


def clifford_t(gates: int, qubits: int, seed: int = 0) -> Circuit:
    """A random circuit, 45 % CX, 30 % T, the rest H, S and X."""
    rng = np.random.default_rng(seed)
    kinds = [G.H, G.T, G.TDG, G.S, G.CX, G.X]
    code = rng.choice(kinds, p=[0.15, 0.2, 0.1, 0.05, 0.45, 0.05], size=gates).astype(np.uint8)
    qubit = np.full((gates, 3), -1, dtype=np.int32)
    qubit[:, 0] = rng.integers(0, qubits, gates)
    two = code == G.CX
    qubit[two, 1] = (qubit[two, 0] + rng.integers(1, qubits, int(two.sum()))) % qubits
    circuit = Circuit(qubits)
    circuit.append_item(Run.of(code, qubit))
    return circuit


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds of the faster of two runs."""
    best = float("inf")
    for _ in range(2):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def peer_seconds(name: str, circuit: Circuit) -> float:
    """CPU seconds of Qiskit's pass for the same work, reading the circuit apart."""
    from qiskit.transpiler import PassManager, passes

    pass_name, options = PEERS[name]
    manager = PassManager([getattr(passes, pass_name)(**options)])
    theirs = circuit.to_qiskit()
    return seconds(lambda: manager.run(theirs))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", default="10000,100000,1000000")
    parser.add_argument("--qubits", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'pass':34} {'gates':>9} {'after':>9} {'s':>8} {'Mgates/s':>9} {'over peer':>10}")
    for text in PASSES:
        instance = parse_steps(text)[0].instance
        assert isinstance(instance, CircuitPass)
        instance.run(clifford_t(5000, 10), Context())
        for size in (int(word) for word in options.sizes.split(",")):
            circuit = clifford_t(size, options.qubits)
            after = len(instance.run(circuit, Context()))
            spent = seconds(lambda c=circuit, p=instance: p.run(c, Context()))
            row = {"pass": text, "gates": size, "after": after, "cpu_s": spent}
            if text in PEERS and size <= PEER_GATES:
                row["peer"] = PEERS[text][0]
                row["peer_cpu_s"] = peer_seconds(text, circuit)
            ratio = f"{row['peer_cpu_s'] / spent:9.0f}x" if "peer" in row else ""
            rate = size / spent / 1e6
            print(f"{text:34} {size:9} {after:9} {spent:8.3f} {rate:9.2f} {ratio:>10}")
            rows.append(row)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
