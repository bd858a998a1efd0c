"""Random programs for tests: circuits over the whole gate table, small ONNX graphs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from qcomp.ir.angle import Angle, Parameter, pi_fraction
from qcomp.ir.blocks import Duration
from qcomp.ir.circuit import Circuit
from qcomp.ir.classical import Binary, Bit, ClassicalVar, Lit
from qcomp.ir.gates import BY_NAME, GATES
from qcomp.ir.program import Program
from tests import models

CLIFFORD_T = ("h", "cx", "t", "tdg", "s", "sdg", "z", "x")
DIAGONAL = ("cz", "rz", "p", "x", "rzz", "cp", "crz", "cs", "csdg", "ccz", "cx", "y", "swap")
ROTATIONS = ("rz", "rx", "ry", "cx", "h", "sx", "u", "r")
POOLS: tuple[Sequence[str] | None, ...] = (None, CLIFFORD_T, DIAGONAL, ROTATIONS)
"""Sets of gates that make rewrites likely; None is the whole table."""

UNITARY = tuple(row.name for row in GATES if row.is_unitary and row.name != "gphase")


def random_angle(rng: np.random.Generator, params: Sequence[str]) -> Angle:
    """An exact fraction of pi, a float, or an affine form: all of which meet their opposites."""
    kind = rng.random()
    if kind < 0.5 or (not params and kind > 0.75):
        return pi_fraction(int(rng.integers(-8, 9)), 4)
    if kind < 0.75:
        return Angle.of(float(rng.choice([0.3, -0.3, 0.125, 1.7])))
    form = Parameter(str(rng.choice(list(params)))) * float(rng.choice([1.0, -1.0, 0.5, 2.0]))
    if rng.random() < 0.3:
        form = form + Parameter(str(rng.choice(list(params))))
    return form + pi_fraction(1, 2) if rng.random() < 0.3 else form


def append_random(circuit: Circuit, rng: np.random.Generator, pool: Sequence[str] | None) -> None:
    """Append one gate of the pool that fits."""
    n = circuit.num_qubits
    names = [name for name in (pool or UNITARY) if BY_NAME[name].num_qubits <= n]
    row = BY_NAME[str(rng.choice(names))]
    size = row.num_qubits if row.num_qubits >= 0 else int(rng.integers(1, n + 1))
    qubits = rng.permutation(n)[:size].tolist()
    circuit.append(row.name, qubits, [random_angle(rng, ("a", "b")) for _ in range(row.num_angles)])


def straight_circuit(seed: int, size: int = 40) -> Circuit:
    """Unitary gates over the whole table, or a pool of gates that often meet; 1 to 4 qubits."""
    rng = np.random.default_rng(seed)
    circuit = Circuit(int(rng.integers(1, 5)), params=("a", "b"), name=f"straight{seed}")
    for _ in range(int(rng.integers(1, size))):
        append_random(circuit, rng, POOLS[seed % len(POOLS)])
    circuit.gphase(random_angle(rng, ("a", "b")))
    return circuit


def measured_circuit(seed: int) -> Circuit:
    """Gates with measurements, resets, barriers and global phases among them."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 4))
    circuit = Circuit(n, n, params=("a", "b"), name=f"measured{seed}")
    _append_mixed(circuit, rng, 20, POOLS[seed % len(POOLS)])
    if rng.random() < 0.5:
        for q in range(n):
            circuit.measure(q, q)
    return circuit


def _append_mixed(
    circuit: Circuit, rng: np.random.Generator, size: int, pool: Sequence[str] | None
) -> None:
    n = circuit.num_qubits
    for _ in range(size):
        kind = rng.random()
        q = int(rng.integers(n))
        if kind < 0.08:
            circuit.measure(q, int(rng.integers(circuit.num_clbits)))
        elif kind < 0.11:
            circuit.reset(q)
        elif kind < 0.15:
            circuit.barrier(*rng.permutation(n)[: int(rng.integers(1, n + 1))].tolist())
        elif kind < 0.18:
            circuit.gphase(random_angle(rng, ("a", "b")))
        else:
            append_random(circuit, rng, pool)


def branching_circuit(seed: int) -> Circuit:
    """Gates inside if, else, for, switch, boxes and delays, conditions on measured bits."""
    rng = np.random.default_rng(seed)
    pool = POOLS[seed % len(POOLS)]
    circuit = Circuit(3, 2, params=("a", "b"), name=f"branching{seed}")
    part = lambda: _append_mixed(circuit, rng, int(rng.integers(1, 6)), pool)  # noqa: E731
    part()
    circuit.measure(0, 0)
    with circuit.if_(Bit(0)):
        part()
        circuit.gphase(random_angle(rng, ()))
        with circuit.if_(Binary("==", Bit(1), Lit(True))):
            part()
    with circuit.else_():
        part()
    with circuit.for_(ClassicalVar("i", "int", 32), (0, 1)):
        part()
    cases: list[tuple[object, ...]] = []
    with circuit.capture(cases):
        part()
    with circuit.capture(cases):
        part()
    circuit.switch(Bit(1), [((0,), cases[0])], cases[1])
    with circuit.box(Duration(100.0, "ns")):
        part()
    circuit.delay(Duration(1.0, "us"), 1)
    part()
    return circuit


CIRCUITS: dict[str, Callable[[int], Circuit]] = {
    "straight": straight_circuit,
    "measured": measured_circuit,
    "branching": branching_circuit,
}
"""Kind of circuit -> its generator, which takes a seed."""


def random_mlp(seed: int) -> Program:
    """Two or three layers of random widths."""
    rng = np.random.default_rng(seed)
    widths = [int(w) * 8 for w in rng.integers(1, 6, size=int(rng.integers(3, 5)))]
    return Program(ir.from_proto(models.mlp(widths, seed)))


GRAPHS: dict[str, Callable[[int], Program]] = {
    "mlp": random_mlp,
    "cnn": lambda seed: Program(ir.from_proto(models.small_cnn(seed))),
    "if": lambda seed: Program(ir.from_proto(models.with_if(seed))),
    "loop": lambda seed: Program(ir.from_proto(models.with_loop(2 + seed % 3))),
    "scan": lambda seed: Program(ir.from_proto(models.with_scan())),
    "function": lambda seed: Program(ir.from_proto(models.with_function())),
    "hybrid": lambda seed: models.hybrid(1 + seed % 2, seed),
}
"""Kind of graph -> its generator, which takes a seed."""
