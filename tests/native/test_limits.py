"""to-basis writes every circuit in the gates of each machine, within their limits."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp.errors import TargetError, UsageError
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import BY_NAME, GATES
from qcomp.passes.map.limits import beyond
from qcomp.passes.map.to_basis import ToBasis
from qcomp.passmanager import Context
from tests.generators import CIRCUITS
from tests.ir.dense import dense

BASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "ibm-fractional": (("cz", "rz", "sx", "x", "rx", "rzz"), ("rzz",)),
    "ibm-rzz": (("rz", "sx", "x", "rzz"), ("rzz",)),
    "eagle": (("ecr", "rz", "sx", "x"), ()),
    "ionq-aria": (("gpi", "gpi2", "ms"), ("ms",)),
    "ionq-forte": (("gpi", "gpi2", "zz"), ()),
    "rigetti-iswap": (("rx", "rz", "iswap"), ("rx",)),
    "rigetti-cz": (("rx", "rz", "cz"), ("rx",)),
    "iqm": (("prx", "cz"), ()),
    "quantinuum": (("U1q", "rz", "ZZPhase"), ()),
    "quantinuum-zz": (("U1q", "rz", "ZZMax"), ()),
    "xy": (("rx", "rz", "xy"), ("rx",)),
    "sqrt-iswap": (("rz", "sx", "siswap"), ()),
    "nam": (("h", "x", "rz", "cx"), ()),
}
"""Machine -> (gates, limited ones)."""


def within(circuit: Circuit, gates: tuple[str, ...], limits: tuple[str, ...]) -> None:
    """Fail unless the circuit has only these gates, at angles that they take."""
    allowed = {BY_NAME[name].name for name in gates} | {"measure", "reset", "barrier", "gphase"}
    for run in circuit.runs():
        assert {GATES[code].name for code in run.code} <= allowed
        assert not beyond(run, frozenset(limits)).any()
        for name, slot in (("rzz", 0), ("ms", 2)):
            if name in limits:
                entry = run.angle[run.code == BY_NAME[name].code] + slot
                angle = run.frac[entry] * (np.pi / (1 << 60)) + run.rem[entry]
                assert (angle >= -1e-12).all()
                assert (angle <= np.pi / 2 + 1e-12).all()
        if "rx" in limits:
            entry = run.angle[run.code == BY_NAME["rx"].code]
            assert set(run.frac[entry].tolist()) <= {1 << 59, -(1 << 59), 1 << 60}


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("kind", CIRCUITS)
def test_every_circuit_has_only_native_gates_within_their_limits(basis: str, kind: str) -> None:
    gates, limits = BASES[basis]
    step = ToBasis(gates=gates, limits=limits)
    for seed in range(4):
        before = CIRCUITS[kind](seed)
        after = step.run(before, Context())
        within(after, gates, limits)
        assert step.run(after, Context()) is after
        if kind == "straight":
            values = {"a": 0.7, "b": -1.9}
            assert np.abs(dense(before, **values) - dense(after, **values)).max() < 1e-9


@pytest.mark.parametrize("name", ["rzz", "ms", "rx"])
def test_numbers_fold_into_the_limits_with_their_phase(name: str) -> None:
    gates = {"rzz": ("rzz", "x", "rz"), "ms": ("ms", "gpi", "rz"), "rx": ("rx", "rz")}[name]
    row = BY_NAME[name]
    for eighths in range(-16, 17):
        for shift in (0.0, 0.3) if name != "rx" else (0.0,):
            if name == "rx" and eighths % 4:
                continue
            before = Circuit(2)
            angle = pi_fraction(eighths, 8) + shift
            before.append(name, range(row.num_qubits), (*(0.4, 0.9)[: row.num_angles - 1], angle))
            after = ToBasis(gates=gates, limits=(name,)).run(before, Context())
            within(after, gates, (name,))
            assert np.abs(dense(before) - dense(after)).max() < 1e-12
            assert sum(op[0] == name for op in after.run.operations()) <= 1


def test_one_interaction_stays_one_and_symbols_stay_symbols() -> None:
    circuit = Circuit(2, params=("a",)).rzz(Parameter("a") + 1, 0, 1)
    for basis, count in (("ionq-forte", 1), ("quantinuum", 1), ("rigetti-iswap", 2), ("xy", 2)):
        gates, limits = BASES[basis]
        after = ToBasis(gates=gates, limits=limits).run(circuit, Context())
        assert after.stats().two_qubit == count, basis
        assert after.params == ("a",)


def test_a_cx_takes_the_fewest_gates_that_rules_know() -> None:
    circuit = Circuit(2).cx(0, 1)
    for basis, (gates, limits) in BASES.items():
        after = ToBasis(gates=gates, limits=limits).run(circuit, Context())
        most = 2 if basis in ("rigetti-iswap", "xy", "sqrt-iswap") else 1
        assert after.stats().two_qubit == most, basis


def test_a_swap_is_three_iswaps_at_most() -> None:
    circuit = Circuit(2).swap(0, 1)
    after = ToBasis(gates=("rx", "rz", "iswap"), limits=("rx",)).run(circuit, Context())
    assert after.stats().two_qubit == 3


def test_a_limit_that_is_not_known_is_an_error() -> None:
    with pytest.raises(UsageError, match="no limits of 'cz'"):
        ToBasis(gates=("cz", "rz", "sx"), limits=("cz",)).run(Circuit(1), Context())


def test_other_angles_in_clifford_and_t_are_an_error_that_says_so() -> None:
    circuit = Circuit(1).rz(0.3, 0)
    with pytest.raises(TargetError, match="multiples of pi/4 only") as caught:
        ToBasis(gates=("h", "s", "t", "cx")).run(circuit, Context())
    assert "--max-error" in (caught.value.hint or "")
