"""S088: Yu et al. 2025, "QUASAR" (arXiv:2510.00967): the layered verifier as a judge of circuits.

200 candidates are made of random reference circuits on 2 to 8 qubits: some do not parse, some do
something else, some are the same in other words. Qiskit's parser and its ``Operator`` say what is
true. The judge may disagree on one of 200, may never call wrong things equal, and has 50 ms of CPU
time for each.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest

import qcomp
from qcomp.equivalence.layered import WEIGHTS

CANDIDATES = 200
SECONDS = 0.05
POOL = ("h", "x", "s", "t", "tdg", "sx", "rx", "ry", "rz", "cx", "cx", "cz", "cp", "swap", "ccx")
ARITY = {"cx": 2, "cz": 2, "cp": 2, "swap": 2, "ccx": 3}
TURNS = ("rx", "ry", "rz", "cp")

Gate = tuple[str, float | None, tuple[int, ...]]


@dataclass(frozen=True)
class Case:
    """A candidate, and what Qiskit says of it: None where it does not parse."""

    candidate: str
    reference: str
    equal: bool | None


def random_gate(rng: np.random.Generator, qubits: int) -> Gate:
    name = str(rng.choice([g for g in POOL if ARITY.get(g, 1) <= qubits]))
    angle = float(rng.uniform(-3, 3)) if name in TURNS else None
    return name, angle, tuple(rng.permutation(qubits)[: ARITY.get(name, 1)].tolist())


def text_of(gates: list[Gate], qubits: int) -> str:
    lines = ["OPENQASM 3.0;", 'include "stdgates.inc";', f"qubit[{qubits}] q;"]
    for name, angle, wires in gates:
        head = name if angle is None else f"{name}({angle!r})"
        lines.append(f"{head} {', '.join(f'q[{q}]' for q in wires)};")
    return "\n".join(lines) + "\n"


def broken(text: str, rng: np.random.Generator) -> str:
    lines = text.splitlines()
    at = int(rng.integers(3, len(lines)))
    line = lines[at]
    lines[at] = [
        line.rstrip(";"),
        "blur" + line,
        line.replace("[", "(", 1),
        line.replace("q[", "q[9", 1),
        line.replace("q[", "r[", 1),
        line.replace(";", ", q[0], q[0], q[0], q[0];"),
        "cx q[0], q[0];",
        line.partition(" ")[0] + ";",
        "rz() q[0];",
        "if (" + line,
    ][int(rng.integers(10))]
    return "\n".join(lines) + "\n"


def wrong(gates: list[Gate], qubits: int, rng: np.random.Generator) -> list[Gate]:
    out = list(gates)
    at = int(rng.integers(len(out)))
    name, angle, wires = out[at]
    kind = int(rng.integers(5))
    if kind == 0:
        del out[at]
    elif kind == 1:
        out.insert(at, random_gate(rng, qubits))
    elif kind == 2 and angle is not None:
        out[at] = name, angle + float(rng.choice([-1, 1]) * 10 ** rng.uniform(-4, 0)), wires
    elif kind == 3 and len(wires) > 1:
        out[at] = name, angle, wires[::-1]
    else:
        out[at] = random_gate(rng, qubits)
    return out


def reworded(gates: list[Gate], qubits: int, rng: np.random.Generator) -> list[Gate]:
    """The same unitary up to global phase: definitions, inverse pairs, gates that trade places."""
    out: list[Gate] = []
    for name, angle, wires in gates:
        if rng.random() < 0.2:
            pair = random_gate(rng, qubits)
            if pair[0] in ("h", "x", "cx", "cz", "swap", "ccx"):
                out += [pair, pair]
        if rng.random() < 0.6:
            out += definition(name, angle, wires)
        else:
            out.append((name, angle, wires))
    for _ in range(3 * len(out)):
        at = int(rng.integers(len(out) - 1))
        if not set(out[at][2]) & set(out[at + 1][2]):
            out[at], out[at + 1] = out[at + 1], out[at]
    return out


def definition(name: str, angle: float | None, wires: tuple[int, ...]) -> list[Gate]:
    a, b = wires[0], wires[-1]
    quarter = np.pi / 2
    table: dict[str, list[Gate]] = {
        "h": [("rz", quarter, (a,)), ("rx", quarter, (a,)), ("rz", quarter, (a,))],
        "x": [("h", None, (a,)), ("s", None, (a,)), ("s", None, (a,)), ("h", None, (a,))],
        "s": [("t", None, (a,)), ("t", None, (a,))],
        "t": [("rz", np.pi / 4, (a,))],
        "sx": [("rx", quarter, (a,))],
        "cz": [("h", None, (b,)), ("cx", None, (a, b)), ("h", None, (b,))],
        "cx": [("h", None, (b,)), ("cz", None, (b, a)), ("h", None, (b,))],
        "swap": [("cx", None, (a, b)), ("cx", None, (b, a)), ("cx", None, (a, b))],
    }
    if angle is not None:
        half = angle / 2
        if name == "cp":
            return [
                ("rz", half, (a,)), ("rz", half, (b,)), ("cx", None, (a, b)),
                ("rz", -half, (b,)), ("cx", None, (a, b)),
            ]  # fmt: skip
        if name == "rx":
            return [("h", None, (a,)), ("rz", angle, (a,)), ("h", None, (a,))]
        return [(name, angle - 0.4, wires), (name, 0.4, wires)]
    return table.get(name, [(name, angle, wires)])


def truth(candidate: str, reference: str) -> bool | None:
    from qiskit import qasm3
    from qiskit.quantum_info import Operator

    try:
        circuit = qasm3.loads(candidate)
    except Exception:  # noqa: BLE001  whatever Qiskit's parser says no with
        return None
    return bool(Operator(circuit).equiv(Operator(qasm3.loads(reference))))


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    pytest.importorskip("qiskit_qasm3_import", reason="Qiskit reads OpenQASM 3 with it")
    rng = np.random.default_rng(88)
    out = []
    for i in range(CANDIDATES):
        qubits = 2 + i % 7
        gates = [random_gate(rng, qubits) for _ in range(int(rng.integers(10, 41)))]
        reference = text_of(gates, qubits)
        kind = int(rng.integers(3))
        if kind == 0:
            candidate = broken(reference, rng)
        elif kind == 1:
            candidate = text_of(wrong(gates, qubits, rng), qubits)
        else:
            candidate = text_of(reworded(gates, qubits, rng), qubits)
        out.append(Case(candidate, reference, truth(candidate, reference)))
    return out


@pytest.fixture(scope="module")
def judged(cases: list[Case]) -> list[tuple[Case, qcomp.Judgement, float]]:
    """Each case with its judgement and the least CPU seconds of that, kernels and imports warm."""
    qcomp.judge(cases[2].candidate, cases[2].reference)
    out = []
    for case in cases:
        seconds = float("inf")
        for _ in range(4):
            start = time.process_time()
            judgement = qcomp.judge(case.candidate, case.reference)
            seconds = min(seconds, time.process_time() - start)
            if seconds <= SECONDS:
                break
        out.append((case, judgement, seconds))
    return out


def test_candidates_of_all_three_kinds_are_there(cases: list[Case]) -> None:
    kinds = [case.equal for case in cases]
    assert min(kinds.count(kind) for kind in (None, True, False)) >= 40


def test_the_judge_agrees_with_qiskit_and_never_calls_wrong_things_equal(judged) -> None:
    agreed = sum(
        (not answer.valid if case.equal is None else answer.valid and answer.equal is case.equal)
        for case, answer, _ in judged
    )
    assert agreed >= 0.995 * CANDIDATES
    assert not [case for case, answer, _ in judged if answer.equal and not case.equal]


def test_each_judgement_takes_at_most_50_ms_of_cpu_time(judged) -> None:
    assert max(seconds for _, _, seconds in judged) <= SECONDS


def test_scores_rank_broken_below_wrong_below_equal(judged) -> None:
    scores = {
        kind: [a.score for c, a, _ in judged if c.equal is kind] for kind in (None, False, True)
    }
    assert max(scores[None]) == 0
    assert 0.2 <= min(scores[False])
    assert max(scores[False]) <= 0.6 + 1e-12
    assert 0.8 <= min(scores[True])
    assert max(scores[True]) <= 1


def test_weights_add_up_to_one() -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
