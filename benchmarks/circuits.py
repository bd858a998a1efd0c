"""Gate reduction beside other tools: counts, CPU seconds, and whether every output is right.

    python benchmarks/circuits.py [DIR] --peers qiskit,tket,pyzx --json OUT

DIR holds ``.qasm`` files and a ``manifest.json``. Final measurements come off first, every tool
gets the same circuit (taken apart into x, y, z, h, s, sdg, t, tdg, rx, ry, rz, cx), no tool may
permute the outputs or assume a state at the start. Counts: see ``circuit_counts.py``. ``--speed``
measures large circuits instead, text in to text out; ``--cold`` what the first circuits of a
process take.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import circuit_tables as tables
import numpy as np
from circuit_counts import FAMILIES, NAM, Counts, Entry, counts_of_output, flattened, read_entries
from circuit_peers import PEERS, Answer, Worker, to_qasm2

from qcomp import equivalence
from qcomp.deadline import Deadline
from qcomp.equivalence.circuits import check_circuits
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passmanager import Context, Pipeline
from qcomp.pipelines import for_basis

EFFORTS = ("fast", "default", "max")
WORK = 1 << 35
"""Amplitude updates that checking one output may take."""


def say(text: str) -> None:
    """Say how far the run is, apart from the tables."""
    print(text, file=sys.stderr, flush=True)


def optimised(
    circuit: Circuit, pipeline: str, repeats: int, given: float | None = None
) -> tuple[Circuit, float]:
    """Return (output, least CPU seconds) of a pipeline; quick ones run again.

    Args:
        circuit: What it runs on.
        pipeline: Its text.
        repeats: How often at most.
        given: CPU seconds that an anytime pipeline has; by default it counts its steps.
    """
    best, spent = float("inf"), 0.0
    for _ in range(repeats):
        program = Program.of_circuit(circuit)
        context = Context()
        if given is not None:
            context.deadline = Deadline(given, time.process_time)
        start = time.process_time()
        Pipeline.parse(pipeline).run(program, context)
        seconds = time.process_time() - start
        best, spent = min(best, seconds), spent + seconds
        if spent > 1.0:
            break
    return program.only_circuit, best


def warm_up(efforts: Iterable[str]) -> float:
    """Compile the kernels, or load them from their cache; return the CPU seconds that it took."""
    rng = np.random.default_rng(1)
    start = time.process_time()
    for effort in efforts:
        if effort == "max":
            continue
        for family in FAMILIES.values():
            circuit = Circuit(8)
            for _ in range(6000):
                a, b = rng.permutation(8)[:2].tolist()
                name = str(rng.choice(["h", "t", "cx", "cx", "x"]))
                circuit.append(name, (a, b) if name == "cx" else (a,), ())
            optimised(circuit, for_basis(family.gates, family.one_qubit, effort), 1)
    return time.process_time() - start


@dataclass(slots=True)
class Cache:
    """Answers of slow tools and checks, by what they were asked.

    Args:
        folder: Where they are kept; nowhere when None.
    """

    folder: Path | None

    def get(self, *key: str) -> dict[str, Any] | None:
        """Return what was kept under a key."""
        path = self._path(key)
        return json.loads(path.read_text()) if path is not None and path.is_file() else None

    def put(self, value: dict[str, Any], *key: str) -> None:
        """Keep an answer under a key."""
        path = self._path(key)
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(value))

    def _path(self, key: Sequence[str]) -> Path | None:
        if self.folder is None:
            return None
        return self.folder / (hashlib.sha256("\0".join(key).encode()).hexdigest()[:32] + ".json")


@dataclass(slots=True)
class Case:
    """One circuit in a run.

    Attributes:
        entry: Where it is from.
        circuit: What every tool gets.
        text: The same as OpenQASM 2 text.
        before: Counts of the denominator.
        results: Tool -> its counts, seconds and verdict, or its error.
    """

    entry: Entry
    circuit: Circuit
    text: str
    before: Counts
    results: dict[str, dict[str, Any]] = field(default_factory=dict)

    @staticmethod
    def of(entry: Entry) -> Case:
        """Read a circuit."""
        circuit = flattened(entry.read())
        return Case(entry, circuit, to_qasm2(circuit), Counts.of(entry.denominator()))

    def add(self, tool: str, output: Circuit, seconds: float, verdict: dict[str, Any]) -> None:
        """Add a tool's output."""
        counts, plain = counts_of_output(output, self.entry.family)
        self.results[tool] = {
            **counts.to_dict(),
            "gates_as_written": plain.gates,
            "cpu_s": seconds,
            "verdict": verdict,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the circuit's part of the results."""
        return {
            "name": self.entry.name,
            "family": self.entry.family.name,
            "qubits": self.entry.qubits,
            "input": self.before.to_dict(),
            "tools": self.results,
        }


@functools.cache
def _checkers() -> str:
    """Return a digest of the checkers' sources: what an older one said does not count."""
    folder = Path(equivalence.__file__).parent
    sources = sorted(folder.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


def checked(before: Circuit, after: Circuit, cache: Cache, qcec_seconds: float) -> dict[str, Any]:
    """Return whether an output is right, and the rung that knew."""
    key = ("check", _checkers(), before.to_qasm3(), after.to_qasm3(), str(qcec_seconds))
    known = cache.get(*key)
    if known is None:
        start = time.process_time()
        verdict = check_circuits(before, after, work=WORK, qcec_seconds=qcec_seconds)
        known = {
            "equal": verdict.equal,
            "rung": verdict.rung,
            "how": verdict.how,
            "error": None if np.isnan(verdict.error) else verdict.error,
            "cpu_s": time.process_time() - start,
        }
        cache.put(known, *key)
    return known


def run_ours(case: Case, effort: str, cache: Cache, options: Any) -> None:
    """Run an effort of ours on a circuit."""
    family = case.entry.family
    pipeline = for_basis(family.gates, family.one_qubit, effort)
    repeats, given = (1, options.seconds) if effort == "max" else (3, None)
    output, seconds = optimised(case.circuit, pipeline, repeats, given)
    verdict = (
        checked(case.circuit, output, cache, options.qcec_seconds)
        if options.check != "none"
        else {"equal": None, "rung": "", "how": "not asked"}
    )
    case.add(f"qcomp_{effort}", output, seconds, verdict)


def run_peer(worker: Worker, case: Case, cache: Cache, options: Any) -> None:
    """Run a peer on a circuit, unless its answer is known and need not be fresh."""
    peer, basis = worker.peer, case.entry.family.gates
    key = (peer.name, peer.version, ",".join(basis), str(options.limit), case.text)
    known = None if peer.group in options.fresh else cache.get(*key)
    if known is None:
        answers = [worker.run(case.text, basis)]
        while peer.group in options.fresh and len(answers) < 3 and answers[0].seconds < 0.3:
            answers.append(worker.run(case.text, basis))
        answer = min(answers, key=lambda one: one.seconds)
        known = {"text": answer.text, "seconds": answer.seconds, "error": answer.error}
        cache.put(known, *key)
    answer = Answer(known["text"], known["seconds"], known["error"])
    if answer.error:
        case.results[peer.name] = {"error": answer.error}
        say(f"{case.entry.name}: {peer.name}: {answer.error}")
        return
    output = Circuit.from_qasm(answer.text)
    verdict = (
        checked(case.circuit, output, cache, options.qcec_seconds)
        if options.check == "all"
        else {"equal": None, "rung": "", "how": "not asked"}
    )
    case.add(peer.name, output, answer.seconds, verdict)


def run_all(cases: list[Case], cache: Cache, options: Any) -> dict[str, str]:
    """Let every tool take its turn on each circuit; return the peers' versions.

    So a machine that is busy for a while is so for all of them.
    """
    peers = [peer for peer in PEERS if peer.group in options.peers]
    for peer in peers:
        if not peer.installed:
            say(f"{peer.name}: '{peer.package}' is not installed, left out")
    workers = [Worker(peer, options.limit) for peer in peers if peer.installed]
    with ExitStack() as stack:
        for worker in workers:
            stack.enter_context(worker)
        for number, case in enumerate(cases, 1):
            for effort in options.efforts:
                run_ours(case, effort, cache, options)
            for worker in workers:
                run_peer(worker, case, cache, options)
            line = tables.one_line(case.before, case.results)
            say(f"{number} of {len(cases)}, {case.entry.name}: {line}")
    return {worker.peer.name: worker.peer.version for worker in workers}


def run_cold(options: Any) -> int:
    """Measure every tool in fresh processes."""
    from circuit_cold import cold_table, measure

    peers = [peer for peer in PEERS if peer.group in options.peers and peer.installed]
    rows = measure([peer.name for peer in peers], say=say)
    table = cold_table(rows)
    print(table)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")
    if options.readme:
        tables.write_between(Path(__file__).with_name("README.md"), "cold", table)
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="DIR", help="circuits, manifest")
    parser.add_argument("--peers", default="", help="of qiskit, tket, pyzx, commas between")
    parser.add_argument("--efforts", default="fast,default", help="of fast, default, max")
    parser.add_argument("--seconds", type=float, help="CPU seconds a circuit for max")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where all figures go")
    parser.add_argument("--published", type=Path, help="file of figures that peers published")
    parser.add_argument("--only", default="", help="families or circuits, commas between")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds a circuit, a peer")
    parser.add_argument("--check", choices=("none", "ours", "all"), default="ours")
    parser.add_argument("--qcec-seconds", type=float, default=60.0, help="for MQT QCEC, 0: not")
    parser.add_argument("--cache", type=Path, help="folder for answers of peers and checks")
    parser.add_argument("--fresh", default="", help="of the peers, those not asked of the cache")
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md")
    parser.add_argument("--speed", action="store_true", help="large circuits, text to text")
    parser.add_argument("--cold", action="store_true", help="the first circuits of a process")
    parser.add_argument("--largest", type=int, default=10_000_000, help="most gates of --speed")
    options = parser.parse_args(arguments)
    if options.folder is None and not (options.speed or options.cold):
        parser.error("DIR is missing: a folder of .qasm files with a manifest.json")
    groups = {peer.group for peer in PEERS}
    options.peers = [name for name in options.peers.split(",") if name]
    options.fresh = [name for name in options.fresh.split(",") if name]
    options.efforts = [name for name in options.efforts.split(",") if name]
    for name in (*options.peers, *options.fresh):
        if name not in groups:
            parser.error(f"there is no peer '{name}': {', '.join(sorted(groups))}")
    for name in options.efforts:
        if name not in EFFORTS:
            parser.error(f"there is no effort '{name}': {', '.join(EFFORTS)}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 when an output is wrong."""
    options = parsed(arguments)
    if options.speed:
        from circuit_speed import measure

        table = measure(options.json, NAM, options.largest)
        if options.readme:
            tables.write_between(Path(__file__).with_name("README.md"), "speed", table)
        return 0
    if options.cold:
        return run_cold(options)
    wanted = {name for name in options.only.split(",") if name}
    entries = [
        entry
        for entry in read_entries(options.folder)
        if not wanted or wanted & {entry.name, entry.family.name}
    ]
    cases = [Case.of(entry) for entry in entries]
    cache = Cache(options.cache)
    cold = warm_up(options.efforts)
    versions = run_all(cases, cache, options)
    results = {
        "versions": versions,
        "kernels_cpu_s": cold,
        "families": tables.family_results([case.to_dict() for case in cases]),
        "circuits": [case.to_dict() for case in cases],
    }
    published = json.loads(options.published.read_text())["circuits"] if options.published else []
    report = tables.report(results, published)
    print(report)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    if options.readme:
        tables.write_between(Path(__file__).with_name("README.md"), "circuits", report)
    wrong = tables.wrong(results["circuits"])
    for line in wrong:
        say(f"WRONG: {line}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
