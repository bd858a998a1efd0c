"""collect-rzz finds interactions between CX gates."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.kernels import KERNEL_THRESHOLD
from qcomp.passes.map.collect_rzz import CollectRzz
from qcomp.passmanager import Context
from tests.generators import append_random
from tests.ir.dense import dense

A = Parameter("a")


def collected(circuit: Circuit) -> Circuit:
    return CollectRzz().run(circuit, Context())


def names(circuit: Circuit) -> list[str]:
    return [name for name, _, _ in circuit.run.operations()]


def test_a_symbolic_turn_between_cx_gates_is_one_interaction() -> None:
    circuit = Circuit(2, params=("a",)).cx(0, 1).rz(2 * A, 1).p(0.3, 1).t(0).cx(0, 1)
    after = collected(circuit)
    assert sorted(names(after)) == ["rzz", "rzz", "t"]
    assert np.abs(dense(circuit, a=0.7) - dense(after, a=0.7)).max() < 1e-14


def test_a_control_that_turns_otherwise_keeps_the_gates() -> None:
    circuit = Circuit(2).cx(0, 1).rz(0.3, 1).h(0).cx(0, 1)
    assert collected(circuit) is circuit
    circuit = Circuit(2, 1).cx(0, 1).rz(0.3, 1).barrier(0, 1).cx(0, 1)
    assert collected(circuit) is circuit


def test_symbols_stay_between_cx_gates_where_they_are_asked_to() -> None:
    circuit = Circuit(3, params=("a",)).cx(0, 1).rz(A, 1).cx(0, 1).cx(1, 2).rz(0.3, 2).cx(1, 2)
    after = CollectRzz(symbols=False).run(circuit, Context())
    assert names(after) == ["cx", "rz", "cx", "rzz"]


def test_interactions_inside_others_are_found_round_by_round() -> None:
    circuit = Circuit(3).cx(0, 1).cx(1, 2).rz(0.3, 2).cx(1, 2).rz(0.1, 1).cx(0, 1)
    after = collected(circuit)
    assert names(after).count("rzz") == 1
    assert np.abs(dense(circuit) - dense(after)).max() < 1e-14
    circuit = Circuit(3).cx(1, 2).cx(0, 1).rz(0.3, 1).cx(0, 1).rz(0.1, 2).cx(1, 2)
    after = collected(circuit)
    assert names(after).count("rzz") == 2
    assert np.abs(dense(circuit) - dense(after)).max() < 1e-14


@pytest.mark.parametrize("seed", range(20))
def test_random_circuits_stay_equal(seed: int) -> None:
    rng = np.random.default_rng(seed)
    circuit = Circuit(3, params=("a", "b"))
    for _ in range(60):
        append_random(circuit, rng, ("cx", "rz", "t", "p", "cz", "cx", "rz", "h", "x", "cx"))
    after = collected(circuit)
    values = {"a": 0.7, "b": -1.9}
    assert np.abs(dense(circuit, **values) - dense(after, **values)).max() < 1e-12
    assert collected(after) is after


def test_the_compiled_kernel_finds_what_the_plain_one_finds() -> None:
    one = Circuit(2).cx(0, 1).rz(0.3, 1).cx(0, 1).h(0).h(1)
    many = one
    for _ in range(10):
        many = many.compose(many)
    assert len(many) > KERNEL_THRESHOLD
    assert names(collected(many)) == names(collected(one)) * 1024
