"""Equality by MQT QCEC: decision diagrams and the ZX calculus, where it is installed.

Source: Burgholzer, Wille 2021 (arXiv:2004.08420); Peham, Burgholzer, Wille 2022 (arXiv:2208.12820).
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Iterable

import numpy as np

from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, NUM_ANGLES, G
from qcomp.ir.transform import expand, operation_angles

__all__ = ["ask_qcec", "qcec_installed"]

_KNOWN = (
    *("x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "rx", "ry", "rz", "p"),
    *("cx", "cz", "cy", "swap", "cp", "ccx"),
)
"""Gates that are handed over as they are; the others are taken apart."""

_YES = ("equivalent", "equivalent_up_to_global_phase")


@functools.cache
def qcec_installed() -> bool:
    """Whether the extra ``verify`` is installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("mqt", "mqt.qcec"))


def ask_qcec(a: Circuit, b: Circuit, seconds: float, seed: int = 0) -> bool | None:
    """Return whether two circuits are the same up to global phase, None if it could not say.

    Random stimuli alone are no proof: an answer that rests on them is None.

    Args:
        a: Straight-line and unitary, without parameters.
        b: The same, over the same qubits.
        seconds: Wall seconds that it may take.
        seed: Seed of its stimuli.
    """
    from mqt.core import load
    from mqt.qcec import verify

    result = verify(
        load(_text(a)),
        load(_text(b)),
        timeout=seconds,
        nthreads=2,
        seed=seed,
        run_construction_checker=False,
        elide_permutations=False,
        reconstruct_swaps=False,
        trace_threshold=1e-13,
    )
    answer = str(result.equivalence).rsplit(".", 1)[-1]
    if answer in _YES:
        return True
    return False if answer == "not_equivalent" else None


def _text(circuit: Circuit) -> str:
    """Return OpenQASM 2 text: no gate changed but those that are taken apart."""
    lines = ["OPENQASM 2.0;", 'include "qelib1.inc";', f"qreg q[{circuit.num_qubits}];"]
    run = circuit.run
    value = run.frac * (np.pi / (1 << 60)) + run.rem
    # A qubit that only one circuit touches would be taken for one that starts in |0>.
    lines += [f"h q[{q}];" for q in range(circuit.num_qubits)]
    for i, code in enumerate(run.code.tolist()):
        if code in (G.GPHASE, G.BARRIER):
            continue
        qubits = run.operands(i)
        if GATES[code].name in _KNOWN:
            first = int(run.angle[i])
            lines.append(
                _line(GATES[code].name, value[first : first + int(NUM_ANGLES[code])], qubits)
            )
            continue
        todo = [(GATES[code], qubits, operation_angles(circuit, run, i))]
        while todo:
            row, operands, angles = todo.pop()
            if row.kind == "phase":
                continue
            if row.name in _KNOWN:
                lines.append(_line(row.name, [float(angle) for angle in angles], operands))
            elif row.name == "u":
                theta, phi, lam = angles
                for name, angle in (("rz", lam), ("ry", theta), ("rz", phi)):
                    lines.append(_line(name, [float(angle)], operands))
            else:
                todo.extend(reversed(expand(row, operands, angles)))
    lines += [f"h q[{q}];" for q in range(circuit.num_qubits)]
    return "\n".join(lines) + "\n"


def _line(name: str, angles: Iterable[float], qubits: tuple[int, ...]) -> str:
    values = ",".join(repr(float(angle)) for angle in angles)
    head = f"{name}({values})" if values else name
    return f"{head} {','.join(f'q[{q}]' for q in qubits)};"
