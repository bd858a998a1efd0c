"""OpenQASM in and out: gates a second beside Qiskit's readers and writers, in one run.

    python benchmarks/io.py [--gates 1000000] [--small 20000] [--huge 10000000] [--json FILE]

Three texts: random Clifford+T on 20 qubits; a hardware-efficient ansatz on 100 qubits whose angles
have 17 digits; and rotations alone, an angle of 17 digits in every gate. Writing has goals in gates
a second too: 10 million without angles, 2 million with one in each. Every time is CPU time of one
process, the best of the repeats (machine code is compiled before the first). Qiskit's slow paths
(``qasm3.loads`` and the two ``dumps``) run on a sample of ``--small`` gates and are scaled by
gates; the table says so. Every reader's result is checked to have the gates of the text.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

READ_GOAL, WRITE_GOAL, RUST_GOAL = 10.0, 20.0, 3.0
WRITE_RATES = {"clifford+t": 10e6, "rotations": 2e6}
IMPORT_GOAL, HELP_GOAL, MEMORY_GOAL = 0.15, 0.4, 1000.0

_HEADS = {
    2: 'OPENQASM 2.0;\ninclude "qelib1.inc";\nqreg q[{}];\n',
    3: 'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[{}] q;\n',
}

_HELP = "from qcomp.cli.main import main; main()"
_MEMORY = """
import resource, sys
from qcomp.frontends.openqasm.scanner import scan, scan_file
scan('OPENQASM 2.0;include "qelib1.inc";qreg q[2];' + 'rz(0.12345678901234567) q[0];' * 30000)
def peak():
    lines = open('/proc/self/status').read().splitlines()
    return int(next(line for line in lines if line.startswith('VmHWM')).split()[1]) / 1024
before = peak()
circuit = scan_file(sys.argv[1])
print(len(circuit), before, peak())
"""


def clifford_t(gates: int, version: int = 2, qubits: int = 20) -> str:
    """Return a text of random h, s, t, sdg, tdg, x, z and cx gates."""
    rng = np.random.default_rng(1)
    names = ["h", "s", "t", "tdg", "cx", "x", "sdg", "z"]
    kind = rng.integers(0, len(names), gates).tolist()
    first = rng.integers(0, qubits, gates)
    second = ((first + rng.integers(1, qubits, gates)) % qubits).tolist()
    lines = [
        f"cx q[{a}],q[{b}];" if names[k] == "cx" else f"{names[k]} q[{a}];"
        for k, a, b in zip(kind, first.tolist(), second, strict=True)
    ]
    return _HEADS[version].format(qubits) + "\n".join(lines) + "\n"


def ansatz(gates: int, version: int = 2, qubits: int = 100) -> str:
    """Return layers of ry and rz with 17-digit angles on all qubits and a chain of cx."""
    rng = np.random.default_rng(2)
    lines: list[str] = []
    while len(lines) < gates:
        for name in ("ry", "rz"):
            angles = rng.uniform(-np.pi, np.pi, qubits).tolist()
            lines += [f"{name}({angle!r}) q[{q}];" for q, angle in enumerate(angles)]
        lines += [f"cx q[{q}],q[{q + 1}];" for q in range(qubits - 1)]
    return _HEADS[version].format(qubits) + "\n".join(lines[:gates]) + "\n"


def rotations(gates: int, version: int = 2, qubits: int = 100) -> str:
    """Return rx, ry and rz in turn on all qubits, every angle of 17 digits."""
    rng = np.random.default_rng(3)
    angles = rng.uniform(-np.pi, np.pi, gates).tolist()
    names = ("rx", "ry", "rz")
    lines = [f"{names[i % 3]}({angle!r}) q[{i % qubits}];" for i, angle in enumerate(angles)]
    return _HEADS[version].format(qubits) + "\n".join(lines) + "\n"


def cpu(work: Callable[[], object], repeats: int) -> float:
    """Return the least CPU seconds of some runs."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def measure(make: Callable[..., str], gates: int, small: int) -> dict[str, dict[str, float]]:
    """Return reader or writer -> its sample and its gates a CPU second."""
    from qiskit import qasm2, qasm3

    from qcomp.backends.openqasm3.writer import write_bytes
    from qcomp.frontends.openqasm.scanner import scan

    text, text3 = make(gates), make(small, 3)
    data = text.encode()
    circuit = scan(data)
    again = None if circuit is None else scan(write_bytes(circuit))
    if circuit is None or again is None or not again.equals(circuit) or len(circuit) != gates:
        raise SystemExit("qcomp does not read the text back as it was")
    peer = qasm2.loads(text)
    peer_small = qasm2.loads(make(small))
    if peer.size() != gates or qasm3.loads(text3).size() != small:
        raise SystemExit("Qiskit does not read the text as it is")

    jobs: dict[str, tuple[Callable[[], object], int, int]] = {
        "read: qcomp": (lambda: scan(data), gates, 5),
        "read: qiskit qasm2.loads": (lambda: qasm2.loads(text), gates, 2),
        "read: qiskit qasm3.loads": (lambda: qasm3.loads(text3), small, 1),
        "write: qcomp full": (lambda: write_bytes(circuit), gates, 5),
        "write: qcomp qasm2": (lambda: write_bytes(circuit, "qasm2"), gates, 5),
        "write: qcomp portable": (lambda: write_bytes(circuit, "portable"), gates, 3),
        "write: qcomp braket": (lambda: write_bytes(circuit, "braket"), gates, 3),
        "write: qiskit qasm2.dumps": (lambda: qasm2.dumps(peer_small), small, 2),
        "write: qiskit qasm3.dumps": (lambda: qasm3.dumps(peer_small), small, 2),
        "write: qiskit qasm3.dumps_experimental": (
            lambda: qasm3.dumps_experimental(peer),
            gates,
            2,
        ),
    }
    rates = {}
    for name, (work, sample, repeats) in jobs.items():
        rates[name] = {"gates": float(sample), "rate": sample / cpu(work, repeats)}
    return rates


def startup(command: list[str], repeats: int = 5) -> float:
    """Return the least wall seconds of a command."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        out = subprocess.run(command, check=True, capture_output=True).stdout
        if "--help" in command and b"compile" not in out:
            raise SystemExit("the help does not list the commands")
        best = min(best, time.perf_counter() - start)
    return best


def memory(gates: int, make: Callable[..., str]) -> tuple[float, float, float]:
    """Return megabytes: the text, the arrays' least, the peak over the ready interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "huge.qasm"
        head, _, body = make(100_000).partition("q[100];\n" if make is ansatz else "q[20];\n")
        with path.open("w") as file:
            file.write(head + ("q[100];\n" if make is ansatz else "q[20];\n"))
            for _ in range(gates // 100_000):
                file.write(body)
        out = subprocess.run(
            [sys.executable, "-c", _MEMORY, str(path)], check=True, capture_output=True, text=True
        )
        count, before, after = (float(part) for part in out.stdout.split())
        if count != gates // 100_000 * 100_000:
            raise SystemExit(f"{count} gates were read, not {gates}")
        angles = body.count("(") / 100_000 * count
        return path.stat().st_size / 1e6, (count * 17 + angles * 20) / 1e6, after - before


def report(results: dict[str, dict[str, dict[str, float]]]) -> tuple[list[str], bool]:
    """Return the table of ratios and whether every goal is met."""
    lines = ["| text | what | peer (gates measured) | ratio | goal |", "|---|---|---|---|---|"]
    met = True
    for text, rates in results.items():
        rate = {name: entry["rate"] for name, entry in rates.items()}
        for ours, peers, goal in (
            ("read: qcomp", ["read: qiskit qasm2.loads"], READ_GOAL),
            ("read: qcomp", ["read: qiskit qasm3.loads"], 0.0),
            (
                "write: qcomp full",
                ["write: qiskit qasm2.dumps", "write: qiskit qasm3.dumps"],
                WRITE_GOAL,
            ),
            ("write: qcomp full", ["write: qiskit qasm3.dumps_experimental"], RUST_GOAL),
        ):
            peer = max(peers, key=lambda name: rate[name])
            ratio = rate[ours] / rate[peer]
            met &= ratio >= goal
            sample = int(rates[peer]["gates"])
            lines.append(
                f"| {text} | {ours.partition(':')[0]} | {peer.partition(': ')[2]} ({sample}) "
                f"| {ratio:.1f} | {f'{goal:.0f}' if goal else 'shown'} |"
            )
    return lines, met


def main() -> int:
    """Run everything and print it; exit code 1 when a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gates", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=20_000)
    parser.add_argument("--huge", type=int, default=10_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()

    import importlib.metadata
    import warnings

    warnings.filterwarnings("ignore", message="This is an experimental version")
    makers = {"clifford+t": clifford_t, "ansatz": ansatz, "rotations": rotations}
    results = {name: measure(make, options.gates, options.small) for name, make in makers.items()}
    print(f"qiskit {importlib.metadata.version('qiskit')}, Python {sys.version.split()[0]}\n")
    for text, rates in results.items():
        for name, entry in rates.items():
            print(f"{text:12} {name:42} {entry['rate'] / 1e6:9.4f} M gates/s")
    lines, met = report(results)
    print("\n" + "\n".join(lines) + "\n")
    for text, goal in WRITE_RATES.items():
        rate = results[text]["write: qcomp full"]["rate"]
        met &= rate >= goal
        print(f"{text}: {rate / 1e6:.1f} M gates a second written (goal {goal / 1e6:.0f})")
    bare = startup([sys.executable, "-c", "pass"])
    imported = startup([sys.executable, "-c", "import qcomp"]) - bare
    helped = startup([sys.executable, "-c", _HELP, "--help"])
    print(f"import qcomp: {imported:.3f} s over the interpreter's {bare:.3f} (goal {IMPORT_GOAL})")
    print(f"qcomp --help: {helped:.3f} s (goal {HELP_GOAL})")
    met &= imported <= IMPORT_GOAL and helped <= HELP_GOAL
    sizes = {}
    del makers["rotations"]
    for name, make in makers.items():
        text, arrays, peak = sizes[name] = memory(options.huge, make)
        met &= peak <= MEMORY_GOAL
        print(f"{options.huge} gates of {name}: text {text:.0f} MB, arrays {arrays:.0f} MB, "
              f"peak over the interpreter {peak:.0f} MB (goal {MEMORY_GOAL:.0f})")  # fmt: skip
    if options.json:
        data = {"rates": results, "import_s": imported, "help_s": helped, "memory_mb": sizes}
        options.json.write_text(json.dumps(data, indent=1) + "\n")
    print("every goal is met" if met else "a goal is missed")
    return 0 if met else 1


if __name__ == "__main__":
    raise SystemExit(main())
