"""Mapping to devices beside Qiskit O3 and pytket: two-qubit gates, depth, success, CPU seconds.

    python benchmarks/mapping.py DIR --peers qiskit,tket --json OUT [--noise] [--readme]

DIR holds ``circuits`` and ``peers_quantum.json``, which names the circuits. Every tool gets each
circuit as it was written, final measurements with it, and gives back a circuit in cz, rz, sx, x on
coupled pairs. Counted are all gates on two qubits of that circuit; a ratio is one of its
count to that of the input, taken apart into CX. Qiskit runs at O3 with three seeds, its best counts
and the CPU seconds of all three; qcomp runs once. CPU seconds are the process's, all threads.
``--noise`` simulates the circuits of at most 12 qubits with the calibration of FakeTorino in Aer
and compares with the exact distribution by Hellinger fidelity.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from circuit_counts import Entry, flattened, geometric_mean, read_entries
from circuit_tables import write_between

from qcomp import equivalence
from qcomp.device import Device, get_device
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import IS_UNITARY, NUM_QUBITS
from qcomp.ir.program import Program
from qcomp.mitigation.success import success_probability
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import probabilities
from qcomp.target import get_target

DEVICES = ("fake_torino", "grid-10x10", "line-50")
BASIS = ("cz", "rz", "sx", "x")
SEEDS = 3
NOISY_QUBITS = 12
SHOTS = 250
PROVEN = "mqt_", 12
"""The circuits of MQT Bench, by name, up to so many qubits are also shown by themselves."""

Answer = tuple[Circuit, float]


def say(text: str) -> None:
    """Say how far the run is."""
    print(text, file=sys.stderr, flush=True)


def public_entries(folder: Path) -> list[Entry]:
    """Return the circuits that all peers were measured on."""
    published = json.loads((folder / "peers_quantum.json").read_text())["mapping_fake_torino"]
    names = {row["name"] for row in published if "tket" in row}
    return [entry for entry in read_entries(folder / "circuits") if entry.name in names]


# --- tools ---------------------------------------------------------------------------------


def ours(device: Device, effort: str) -> Callable[[Circuit, str], Answer]:
    """Return what maps a circuit with qcomp."""
    target = get_target("ibm-heron").on(device)
    pipeline = Pipeline.parse(target.pipeline(effort))

    def run(circuit: Circuit, _: str) -> Answer:
        program = Program.of_circuit(circuit)
        start = time.process_time()
        pipeline.run(program, Context(target=target))
        return program.only_circuit, time.process_time() - start

    return run


def qiskit_o3(device: Device, _: str) -> Callable[[Circuit, str], Answer]:
    """Return what maps a circuit with Qiskit, the best of three seeds."""
    from qiskit.transpiler import generate_preset_pass_manager

    target = device.to_qiskit_target(BASIS)
    managers = [
        generate_preset_pass_manager(3, target=target, seed_transpiler=seed)
        for seed in range(SEEDS)
    ]

    def run(circuit: Circuit, _: str) -> Answer:
        source = circuit.to_qiskit()
        spent, best = 0.0, None
        for manager in managers:
            start = time.process_time()
            result = manager.run(source)
            spent += time.process_time() - start
            if best is None or result.num_nonlocal_gates() < best.num_nonlocal_gates():
                best = result
        return _with_layout(best, circuit.num_qubits), spent

    return run


def _with_layout(result: Any, qubits: int) -> Circuit:  # noqa: ANN401
    from qcomp.ir.layout import Layout

    circuit = Circuit.from_qiskit(result)
    if result.layout is not None:
        initial = result.layout.initial_index_layout(filter_ancillas=True)
        final = result.layout.final_index_layout(filter_ancillas=True)
        circuit.layout = Layout(tuple(initial[:qubits]), tuple(final[:qubits]), circuit.num_qubits)
    return circuit


def tket(device: Device, _: str) -> Callable[[Circuit, str], Answer]:
    """Return what maps a circuit with pytket: peephole, placement, routing, peephole."""
    from pytket import OpType
    from pytket.architecture import Architecture
    from pytket.passes import (
        AutoRebase,
        CliffordSimp,
        DecomposeBoxes,
        DefaultMappingPass,
        FullPeepholeOptimise,
        KAKDecomposition,
        SequencePass,
        SynthesiseTket,
    )
    from pytket.qasm import circuit_from_qasm_str, circuit_to_qasm_str

    a, b = device.pairs.T
    pairs = [(int(p), int(q)) for p, q in zip(a, b, strict=True) if p < q]
    sequence = SequencePass(
        [
            DecomposeBoxes(),
            FullPeepholeOptimise(),
            DefaultMappingPass(Architecture(pairs)),
            KAKDecomposition(allow_swaps=False),
            CliffordSimp(allow_swaps=False),
            SynthesiseTket(),
            AutoRebase({OpType.CZ, OpType.Rz, OpType.SX, OpType.X}),
        ]
    )

    def run(circuit: Circuit, text: str) -> Answer:
        source = circuit_from_qasm_str(text, maxwidth=200)
        start = time.process_time()
        sequence.apply(source)
        spent = time.process_time() - start
        body = circuit_to_qasm_str(source, header="qelib1", maxwidth=200)
        return Circuit.from_qasm(body), spent

    return run


TOOLS: dict[str, Callable[[Device, str], Callable[[Circuit, str], Answer]]] = {
    "qcomp": ours,
    "qiskit": qiskit_o3,
    "tket": tket,
}


# --- one circuit -----------------------------------------------------------------------------


def off_the_couplings(circuit: Circuit, device: Device) -> int:
    """Return how many two-qubit gates are on no coupled pair."""
    count = 0
    for run in circuit.runs():
        a, b = run.qubit[(NUM_QUBITS[run.code] == 2) & IS_UNITARY[run.code], :2].T
        count += int((~(device.allows(a, b) | device.allows(b, a))).sum())
    return count


def measured(
    output: Circuit, device: Device, seconds: float, before: Circuit | None
) -> dict[str, Any]:
    """Return the figures of one output, compared with its input where that is given."""
    stats = output.stats()
    row: dict[str, Any] = {
        "two_qubit": stats.two_qubit,
        "gates": stats.gates,
        "depth": stats.depth,
        "two_qubit_depth": stats.two_qubit_depth,
        "cpu_s": seconds,
    }
    if output.num_qubits == device.num_qubits:
        row["off_the_couplings"] = off_the_couplings(output, device)
        if device.errors:
            success = success_probability(output, device, virtual=("rz",))
            row["log10_success"] = math.log10(max(success.gates * success.readout, 1e-300))
    if before is not None:
        verdict = equivalence.check(before, output)
        row["verdict"] = {"equal": verdict.equal, "how": verdict.how, "error": verdict.error}
    return row


def on_device(
    entries: Sequence[Entry], name: str, tools: Sequence[str], effort: str
) -> tuple[list[dict[str, Any]], dict[tuple[str, str], Circuit]]:
    """Map every circuit to a device with every tool."""
    from circuit_peers import to_qasm2

    device = get_device(name)
    runners = {tool: TOOLS[tool](device, effort) for tool in tools}
    rows, outputs = [], {}
    first = Circuit(3).cx(0, 1).cx(1, 2).cx(0, 2)
    for runner in runners.values():  # what is imported at the first use is no part of the times
        runner(first, to_qasm2(first))
    for entry in entries:
        circuit = entry.read()
        flat = flattened(circuit)
        row: dict[str, Any] = {
            "device": name,
            "name": entry.name,
            "qubits": circuit.num_qubits,
            "input": flat.stats().two_qubit,
            "tools": {},
        }
        for tool, runner in runners.items():
            output, seconds = runner(circuit, to_qasm2(flat) if tool == "tket" else "")
            judged = circuit if tool == "qcomp" else None
            row["tools"][tool] = measured(output, device, seconds, judged)
            outputs[entry.name, tool] = output
        line = ", ".join(
            f"{tool} {figures['two_qubit']} ({figures['cpu_s']:.3f} s)"
            for tool, figures in row["tools"].items()
        )
        say(f"{name} {entry.name}: {row['input']}: {line}")
        rows.append(row)
    return rows, outputs


def warm_up(effort: str) -> float:
    """Compile the kernels, or load them from their cache; return the CPU seconds that it took."""
    rng = np.random.default_rng(1)
    start = time.process_time()
    runner = ours(Device.grid(4, 4), effort)
    for size in (40, 6000):
        circuit = Circuit(8)
        for _ in range(size):
            a, b = rng.permutation(8)[:2].tolist()
            kind = str(rng.choice(["h", "t", "cx", "cx", "x"]))
            circuit.append(kind, (a, b) if kind == "cx" else (a,), ())
        runner(circuit, "")
    return time.process_time() - start


# --- noise -------------------------------------------------------------------------------------


def hellinger(first: np.ndarray, second: np.ndarray) -> float:
    """Return the Hellinger fidelity of two distributions, 1 for equal ones."""
    return float(np.sqrt(first * second).sum() ** 2)


def noisy(
    entries: Sequence[Entry], outputs: dict[tuple[str, str], Circuit], tools: Sequence[str]
) -> list[dict[str, Any]]:
    """Simulate small circuits with FakeTorino's noise; every qubit is measured at the end."""
    from qiskit_aer import AerSimulator
    from qiskit_ibm_runtime.fake_provider import FakeTorino

    simulator = AerSimulator.from_backend(
        FakeTorino(), seed_simulator=1, max_parallel_threads=1, method="statevector"
    )
    rows = []
    for entry in entries:
        circuit = entry.read()
        if circuit.num_qubits > NOISY_QUBITS:
            continue
        exact = probabilities(unmeasured(circuit), None)[0]
        row: dict[str, Any] = {"name": entry.name, "qubits": circuit.num_qubits, "fidelity": {}}
        for tool in tools:
            output = outputs[entry.name, tool]
            if output.layout is None:
                continue
            ready = unmeasured(output)
            ready.num_clbits = circuit.num_qubits
            ready.cregs = Circuit(0, circuit.num_qubits).cregs
            for v, p in enumerate(output.layout.final):
                ready.measure(p, v)
            plain = ready.to_qiskit()
            counts = simulator.run(plain, shots=SHOTS).result().get_counts()
            seen = np.zeros(len(exact))
            for word, count in counts.items():
                seen[int(word.replace(" ", ""), 2)] = count / SHOTS
            row["fidelity"][tool] = hellinger(exact, seen)
        say(f"noise {entry.name}: {row['fidelity']}")
        rows.append(row)
    return rows


def unmeasured(circuit: Circuit) -> Circuit:
    """Return a circuit without its final measurements and classical bits."""
    from qcomp.simulate.control_flow import final_measurements

    new = circuit.copy(body=final_measurements(circuit)[0])
    new.cregs, new.num_clbits = (), 0
    return new


# --- tables ------------------------------------------------------------------------------------


def summary(rows: Sequence[dict[str, Any]], tools: Sequence[str]) -> list[str]:
    """Return a table of geometric means of all devices."""
    lines = ["| device | " + " | ".join(f"{t}: ratio, CPU s" for t in tools) + " | less than O3 |"]
    lines.append("|---" * (len(tools) + 2) + "|")
    for name in dict.fromkeys(row["device"] for row in rows):
        mine = [row for row in rows if row["device"] == name]
        ratio = {
            tool: geometric_mean([(r["tools"][tool]["two_qubit"], r["input"]) for r in mine])
            for tool in tools
        }
        spent = {tool: sum(r["tools"][tool]["cpu_s"] for r in mine) for tool in tools}
        less = f"{100 * (1 - ratio['qcomp'] / ratio['qiskit']):.1f} %" if "qiskit" in ratio else ""
        cells = " | ".join(f"{ratio[tool]:.3f}, {spent[tool]:.2f}" for tool in tools)
        lines.append(f"| {name} | {cells} | {less} |")
    return lines


def small_ones(rows: Sequence[dict[str, Any]], tools: Sequence[str]) -> list[str]:
    """Say the geometric means over small circuits of MQT Bench on the heavy-hexagon lattice."""
    prefix, most = PROVEN
    mine = [
        row
        for row in rows
        if row["device"] == "fake_torino"
        and row["name"].startswith(prefix)
        and row["qubits"] <= most
    ]
    if not mine:
        return []
    means = ", ".join(
        f"{tool} {geometric_mean([(r['tools'][tool]['two_qubit'], 1) for r in mine]):.1f} and "
        f"{geometric_mean([(r['tools'][tool]['depth'], 1) for r in mine]):.1f}"
        for tool in tools
    )
    return [
        "",
        f"The {len(mine)} circuits of MQT Bench of at most {most} qubits on fake_torino, geometric "
        f"means of two-qubit gates and of depth: {means}.",
    ]


def details(rows: Sequence[dict[str, Any]], tools: Sequence[str]) -> list[str]:
    """Return a table of every circuit on the first device."""
    shown = "two-qubit gates / their depth / log10 of success"
    lines = ["| circuit | qubits | input | " + " | ".join(f"{t}: {shown}" for t in tools) + " |"]
    lines.append("|---" * (len(tools) + 3) + "|")
    for row in rows:
        if row["device"] != rows[0]["device"]:
            continue
        cells = []
        for tool in tools:
            figures = row["tools"][tool]
            success = figures.get("log10_success")
            end = "" if success is None else f" / {success:.2f}"
            cells.append(f"{figures['two_qubit']} / {figures['two_qubit_depth']}{end}")
        lines.append(
            f"| {row['name']} | {row['qubits']} | {row['input']} | " + " | ".join(cells) + " |"
        )
    return lines


def report(data: dict[str, Any]) -> str:
    """Return the tables of a run."""
    rows, tools = data["circuits"], data["tools"]
    checks = [
        r["tools"]["qcomp"]["verdict"]["equal"] for r in rows if "verdict" in r["tools"]["qcomp"]
    ]
    off = sum(f.get("off_the_couplings", 0) for r in rows for f in r["tools"].values())
    lines = [
        f"{len({r['name'] for r in rows})} circuits; ratio: geometric mean of two-qubit gates "
        "after mapping to those of the input. Goal: at least 7 % below Qiskit O3's best of three "
        "seeds, in at most the CPU time of the three.",
        "",
        *summary(rows, tools),
        "",
        f"Gates on pairs that are not coupled: {off}. Outputs of qcomp compared with their inputs "
        f"through the layout: {checks.count(True)} equal, {checks.count(False)} not, "
        f"{checks.count(None)} undecided.",
        *small_ones(rows, tools),
    ]
    if data["skipped"]:
        lines += ["", f"Left out, as a peer takes too long: {data['skipped'].replace(',', ', ')}."]
    if data["noise"]:
        fidelity = {
            tool: np.mean([row["fidelity"][tool] for row in data["noise"]])
            for tool in data["noise"][0]["fidelity"]
        }
        means = ", ".join(f"{tool} {value:.4f}" for tool, value in fidelity.items())
        lines += [
            "",
            f"Mean Hellinger fidelity on FakeTorino's noise, {len(data['noise'])} circuits of at "
            f"most {NOISY_QUBITS} qubits, {SHOTS} shots: {means}.",
        ]
    return "\n".join([*lines, "", f"{rows[0]['device']}:", "", *details(rows, tools)])


def wrong(data: dict[str, Any]) -> list[str]:
    """Return what must not be: gates off the couplings, outputs that do not equal their inputs."""
    found = []
    for row in data["circuits"]:
        figures = row["tools"]["qcomp"]
        if figures["off_the_couplings"]:
            found.append(f"{row['name']} on {row['device']}: gates on pairs that are not coupled")
        if figures.get("verdict", {}).get("equal") is False:
            found.append(f"{row['name']} on {row['device']}: not equal to its input")
    return found


def finish(data: dict[str, Any], out: Path | None, readme: bool) -> None:
    """Write what is measured so far."""
    if out:
        out.write_text(json.dumps(data, indent=1) + "\n")
    if readme:
        write_between(Path(__file__).with_name("README.md"), "mapping", report(data))


def main() -> int:
    """Run the benchmark; the exit code is 1 when an output is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="folder with circuits and peers_quantum.json")
    parser.add_argument("--peers", default="qiskit", help="qiskit, tket, both, or empty")
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--effort", default="default")
    parser.add_argument("--only", default="", help="names of circuits")
    parser.add_argument("--skip", default="", help="DEVICE:CIRCUIT,... left out")
    parser.add_argument("--noise", action="store_true", help="simulate FakeTorino's noise")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--readme", action="store_true", help="write the tables into README.md")
    options = parser.parse_args()
    tools = ["qcomp", *(name for name in options.peers.split(",") if name)]
    entries = public_entries(options.folder)
    if options.only:
        entries = [entry for entry in entries if entry.name in options.only.split(",")]
    spent = warm_up(options.effort)
    say(f"kernels loaded or compiled in {spent:.1f} CPU s")
    data: dict[str, Any] = {"tools": tools, "warm_up_s": spent, "circuits": [], "noise": []}
    data["skipped"] = options.skip
    outputs: dict[tuple[str, str], Circuit] = {}
    for name in options.devices.split(","):
        left = [e for e in entries if f"{name}:{e.name}" not in options.skip.split(",")]
        rows, made = on_device(left, name, tools, options.effort)
        data["circuits"] += rows
        outputs = made if name == "fake_torino" else outputs
    finish(data, options.json, options.readme)
    if options.noise and outputs:
        data["noise"] = noisy(entries, outputs, [tool for tool in tools if tool != "tket"])
        finish(data, options.json, options.readme)
    print(report(data))
    problems = wrong(data)
    for line in problems:
        say(f"wrong: {line}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
