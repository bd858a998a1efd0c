"""consolidate-two-qubit: what a block is, when it is replaced, what it becomes."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import G
from qcomp.ir.stats import Stats
from qcomp.passes.reduce import leaves
from qcomp.passes.synthesize.blocks import collect_blocks, kinds
from qcomp.passes.synthesize.two_qubit import ConsolidateTwoQubit
from qcomp.passmanager import Context
from tests.ir.dense import dense

BASES = ("own", "rz-sx-x", "h-x-rz", "u", "rz-ry")


def consolidated(circuit: Circuit, basis: str = "own", **options: float) -> Circuit:
    result = ConsolidateTwoQubit(basis, **options).run(circuit, Context())
    if not np.isin(circuit.run.code, [G.MEASURE, G.RESET]).any():
        values = dict.fromkeys(circuit.params, 0.7321)
        assert np.abs(dense(circuit, **values) - dense(result, **values)).max() < 1e-12
    return result


def two(circuit: Circuit) -> int:
    return circuit.stats().two_qubit


def blocks_of(circuit: Circuit) -> list[int]:
    block, _ = collect_blocks(circuit.run, kinds(circuit.run), circuit.num_qubits)
    return [int(b) for b in block]


def random_pair(rng: np.random.Generator, gates: int, names: tuple[str, ...]) -> Circuit:
    circuit = Circuit(2)
    for _ in range(gates):
        name = str(rng.choice(names))
        if name == "cx":
            circuit.cx(*rng.permutation(2).tolist())
        elif name in ("rz", "ry", "rx"):
            circuit.append(name, (int(rng.integers(2)),), (float(rng.uniform(-3, 3)),))
        else:
            circuit.append(name, (int(rng.integers(2)),))
    return circuit


@pytest.mark.parametrize("basis", BASES)
def test_any_block_takes_three_cx_and_fifteen_rotations_at_most(basis: str) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        circuit = random_pair(rng, 40, ("cx", "cx", "rz", "ry", "h"))
        stats = consolidated(circuit, basis).stats()
        assert stats.two_qubit <= 3
        assert stats.rotations <= 15


def test_gates_of_a_clifford_block_stay_clifford() -> None:
    rng = np.random.default_rng(2)
    for _ in range(60):
        result = consolidated(random_pair(rng, 30, ("cx", "h", "s", "sx", "x")))
        assert not result.run.rem.any()
        assert result.stats().rotations == 0
        assert two(result) <= 3


def test_block_of_clifford_and_t_gates_keeps_to_them() -> None:
    rng = np.random.default_rng(3)
    changed = 0
    for _ in range(150):
        circuit = random_pair(rng, 12, ("cx", "cx", "h", "t", "s"))
        result = consolidated(circuit)
        changed += result is not circuit
        assert not result.run.rem.any()
        assert not (result.run.frac % (1 << 58)).any()
    assert changed > 50


def test_heisenberg_step_is_three_cx_and_three_rotations() -> None:
    circuit = Circuit(2)
    for name in ("rxx", "ryy", "rzz"):
        circuit.append(name, (0, 1), (0.3,))
    stats = consolidated(circuit, "h-x-rz").stats()
    # Of itself it is three gates: only a basis of CX gates has anything to gain.
    assert stats.two_qubit == 3
    expanded = Circuit(2)
    for turn, back in (("h", "h"), ("sx", "sxdg"), ("id", "id")):
        for q in (0, 1):
            expanded.append(turn, (q,))
        expanded.cx(0, 1).rz(0.3, 1).cx(0, 1)
        for q in (0, 1):
            expanded.append(back, (q,))
    stats = consolidated(expanded, "h-x-rz").stats()
    assert (stats.two_qubit, stats.rotations) == (3, 3)


def test_controlled_rotation_is_two_cx_and_the_least_rotations() -> None:
    circuit = Circuit(2)
    for _ in range(3):
        circuit.h(1).cx(0, 1).rz(0.3, 1).cx(0, 1).h(1)
    stats = consolidated(circuit, "h-x-rz").stats()
    assert (stats.two_qubit, stats.rotations) == (2, 1)


def test_identity_vanishes() -> None:
    circuit = Circuit(2).cx(0, 1).h(0).swap(0, 1).h(1).swap(0, 1).cx(0, 1)
    # h on 0 passes the swap as h on 1, where it meets the other one.
    assert len(consolidated(circuit)) == 0


def test_single_gates_are_left_alone() -> None:
    circuit = Circuit(3).h(0).cx(0, 1).t(1).cx(1, 2).rz(0.3, 2).cx(2, 0)
    assert consolidated(circuit) is circuit


@pytest.mark.parametrize("basis", BASES)
def test_second_run_finds_nothing(basis: str) -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        circuit = Circuit(4)
        for _ in range(80):
            circuit.append(str(rng.choice(["h", "t", "sx"])), (int(rng.integers(4)),))
            circuit.rz(float(rng.uniform(-3, 3)), int(rng.integers(4)))
            circuit.cx(*rng.permutation(4)[:2].tolist())
        once = consolidated(circuit, basis)
        assert once is not circuit
        assert consolidated(once, basis) is once


def test_gates_of_a_pair_meet_past_gates_that_they_commute_with() -> None:
    circuit = Circuit(3).cx(0, 1).t(1).cx(0, 2).cx(0, 1)
    assert blocks_of(circuit) == [0, 0, 1, 0]
    circuit = Circuit(3).cx(0, 1).cx(2, 1).cx(0, 1)
    assert blocks_of(circuit) == [0, 1, 0]
    circuit = Circuit(3).cx(0, 1).cx(1, 2).cx(0, 1)
    assert blocks_of(circuit) == [0, 1, 2]


def test_gate_that_does_not_commute_goes_to_the_last_block_and_closes_the_others() -> None:
    circuit = Circuit(3).cx(0, 1).cx(0, 2).h(0).cx(0, 1).cx(0, 2)
    assert blocks_of(circuit) == [0, 1, 1, 2, 1]


def test_one_qubit_gates_before_a_block_are_part_of_it() -> None:
    circuit = Circuit(3).h(0).t(0).h(1).cx(0, 1).h(2)
    assert blocks_of(circuit) == [0, 0, 0, 0, -1]


@pytest.mark.parametrize(
    ("stop", "joined"),
    [
        (lambda c: c.rz(Parameter("a"), 0), True),
        (lambda c: c.rx(Parameter("a"), 0), False),
        (lambda c: c.rzz(Parameter("a"), 0, 2), True),
        (lambda c: c.ccx(0, 2, 3), True),
        (lambda c: c.ccx(2, 3, 0), False),
        (lambda c: c.barrier(0), False),
        (lambda c: c.measure(0, 0), False),
        (lambda c: c.reset(0), False),
        (lambda c: c.barrier(2), True),
        (lambda c: c.mcx((0, 2), 3), False),
    ],
)
def test_what_ends_a_block(stop: object, joined: bool) -> None:
    circuit = Circuit(4, 1, params=("a",)).cx(0, 1)
    assert callable(stop)
    stop(circuit)
    circuit.cx(0, 1)
    found = blocks_of(circuit)
    assert (found[0] == found[2]) is joined


def test_blocks_past_a_symbol_are_consolidated() -> None:
    a = Parameter("a")
    circuit = Circuit(2, params=("a",)).cx(0, 1).rz(a, 0).sx(1).cx(0, 1).rz(2 * a, 0).cx(0, 1)
    assert two(consolidated(circuit)) < 3


def test_many_blocks_on_random_circuits_stay_what_they_are() -> None:
    rng = np.random.default_rng(7)
    names = ("cx", "cz", "swap", "cp", "rzz", "rxx", "iswap", "ecr", "crx")
    saved = 0
    for _ in range(40):
        circuit = Circuit(4, params=("a",))
        for _ in range(60):
            kind = rng.random()
            if kind < 0.5:
                name = str(rng.choice(names))
                pair = rng.permutation(4)[:2].tolist()
                angle = float(rng.choice([0.3, np.pi / 2, np.pi / 4]))
                circuit.append(name, pair, (angle,) if name in ("cp", "rzz", "rxx", "crx") else ())
            elif kind < 0.6:
                circuit.rz(Parameter("a"), int(rng.integers(4)))
            elif kind < 0.65:
                circuit.ccx(*rng.permutation(4)[:3].tolist())
            else:
                name = str(rng.choice(["h", "t", "s", "sx", "rx"]))
                angles = (0.7,) if name == "rx" else ()
                circuit.append(name, (int(rng.integers(4)),), angles)
        result = consolidated(circuit)
        assert two(result) <= two(circuit)
        saved += two(circuit) - two(result)
    assert saved > 0


def cx_stats(circuit: Circuit, **options: float) -> Stats:
    return consolidated(circuit, "h-x-rz", **options).stats()


def test_prices_decide() -> None:
    # Three CX gates that are two with more one-qubit gates.
    circuit = Circuit(2).cx(0, 1).h(1).t(1).h(1).cx(1, 0).cx(0, 1).t(0)
    dear = cx_stats(circuit, two_qubit=1000.0)
    cheap = cx_stats(circuit, two_qubit=0.0, rotation=0.0)
    assert dear.two_qubit <= cheap.two_qubit
    assert cheap.gates <= circuit.stats().gates


def test_rounding_is_entered_in_the_ledger() -> None:
    context = Context()
    circuit = random_pair(np.random.default_rng(8), 40, ("cx", "rz", "ry"))
    ConsolidateTwoQubit().run(circuit, context)
    (entry,) = context.ledger.entries
    assert entry.spender == "consolidate-two-qubit"
    assert 0 < entry.spent < 1e-13


def test_spent_budget_is_kept_to() -> None:
    context = Context()
    context.ledger.numeric_limit = 0.0
    circuit = random_pair(np.random.default_rng(8), 40, ("cx", "rz", "ry"))
    assert ConsolidateTwoQubit().run(circuit, context) is circuit
    assert not context.ledger.entries


def test_unknown_gate_of_a_basis_is_refused() -> None:
    with pytest.raises(UsageError):
        ConsolidateTwoQubit("rz-cx").run(Circuit(2), Context())


def test_basis_that_cannot_write_a_block_leaves_it() -> None:
    circuit = Circuit(2).cx(0, 1).rz(0.3, 1).h(1).cx(0, 1).ry(0.2, 0).cx(1, 0).cx(0, 1)
    assert consolidated(circuit, "s-t") is circuit


def test_compiled_and_plain_kernels_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "LOADED_THRESHOLD", 1 << 60)
    rng = np.random.default_rng(9)
    circuit = Circuit(4, params=("a",))
    for _ in range(300):
        name = str(rng.choice(["h", "t", "cx", "cx", "cz", "rx", "ccx"]))
        size = {"cx": 2, "cz": 2, "ccx": 3}.get(name, 1)
        angles = (pi_fraction(1, 8),) if name == "rx" else ()
        circuit.append(name, rng.permutation(4)[:size].tolist(), angles)
    plain = consolidated(circuit)
    monkeypatch.setattr(leaves, "KERNEL_THRESHOLD", 0)
    assert consolidated(circuit).equals(plain)
