"""merge-quarter-turns: one pulse by an angle with parameters for two quarter turns."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.passes.map.merge_quarter_turns import MergeQuarterTurns
from qcomp.passes.map.push_virtual_z import PushVirtualZ
from qcomp.passmanager import Context
from tests.generators import random_angle
from tests.ir.dense import dense

A = Parameter("a")
QUARTER = pi_fraction(1, 2)


def merged(circuit: Circuit, into: str = "r") -> Circuit:
    return MergeQuarterTurns(into=into).run(circuit, Context())  # type: ignore[arg-type]


def names(circuit: Circuit) -> list[str]:
    return [name for name, _, _ in circuit.run.operations()]


def test_two_quarter_turns_are_one_pulse() -> None:
    circuit = Circuit(1, params=("a",)).append("r", (0,), (QUARTER, 0.3 + A))
    circuit.append("r", (0,), (QUARTER, 1.1 - A))
    after = merged(circuit)
    assert names(after) == ["r", "rz"]
    assert np.abs(dense(circuit, a=0.7) - dense(after, a=0.7)).max() < 1e-15


def test_a_rotation_written_with_sx_is_one_rx() -> None:
    circuit = Circuit(1, params=("a",)).sx(0).rz(2 * A + 0.1, 0).sx(0)
    after = merged(circuit, "rx")
    assert names(after) == ["rz", "rx", "rz"]
    assert np.abs(dense(circuit, a=0.7) - dense(after, a=0.7)).max() < 1e-15


def test_numbers_and_gates_between_keep_the_pulses() -> None:
    circuit = Circuit(2, params=("a",)).sx(0).rz(0.1, 0).sx(0).rz(A, 1).sx(1).cz(0, 1).sx(1)
    assert merged(circuit, "rx") is circuit
    assert merged(circuit) is circuit


@pytest.mark.parametrize("into", ["r", "rx"])
@pytest.mark.parametrize("seed", range(8))
def test_random_pulses_stay_equal(into: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = Circuit(2, params=("a", "b"))
    for _ in range(40):
        wire = int(rng.integers(2))
        kind = int(rng.integers(5))
        if kind < 2:
            circuit.append("r", (wire,), (QUARTER, random_angle(rng, ("a", "b"))))
        elif kind == 2:
            circuit.rz(random_angle(rng, ("a", "b")), wire)
        elif kind == 3:
            circuit.sx(wire)
        else:
            circuit.cz(0, 1)
    before = PushVirtualZ().run(circuit, Context()) if seed % 2 else circuit
    after = merged(before, into)
    values = {"a": 0.7, "b": -1.9}
    assert np.abs(dense(before, **values) - dense(after, **values)).max() < 1e-12
    assert merged(after, into) is after
