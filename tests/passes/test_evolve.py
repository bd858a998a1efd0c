"""Hamiltonian evolution: commuting groups, product formulas, bounds, the pass and the frontend."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import qcomp
from qcomp.errors import PassError, SourceError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.observable import Observable
from qcomp.passes.synthesize.evolution.pauli_sums import (
    apply_sum,
    commutator,
    commuting_groups,
    pauli_sum,
)
from qcomp.passes.synthesize.evolution.trotter import evolution_error, evolve, stages
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import unitary

ISING = "Z0*Z1 + Z1*Z2 + Z2*Z3 + X0 + X1 + X2 + X3"
CHAIN = " + ".join(f"{p}{q}*{p}{q + 1}" for q in range(3) for p in "XYZ") + " + 0.5*Z0 - 0.3*Z2"
MIXED = "0.4*X0*Y1*Z2 - 0.7*Z0*Z2 + 0.3*Y0*Y1 + 0.2*X2 - 0.25"
HYDROGEN = (
    "-0.8105 + 0.1721*Z0 + 0.1721*Z2 - 0.2228*Z1 - 0.2228*Z3 + 0.1686*Z0*Z2 + 0.1205*Z0*Z1"
    " + 0.1659*Z0*Z3 + 0.1659*Z1*Z2 + 0.1743*Z1*Z3 + 0.1205*Z2*Z3 - 0.0453*X0*X1*Y2*Y3"
    " + 0.0453*X0*Y1*Y2*X3 + 0.0453*Y0*X1*X2*Y3 - 0.0453*Y0*Y1*X2*X3"
)


def dense(text: str) -> np.ndarray:
    h = Observable.parse(text)
    n = max(h.qubits) + 1
    return apply_sum(pauli_sum(h), np.eye(1 << n, dtype=complex))


def test_commutators_of_pauli_sums_are_those_of_their_matrices() -> None:
    a, b = dense(MIXED), dense("X0*X1 - 0.5*Y2 + Z0*Y1*X2")
    found = commutator(pauli_sum(Observable.parse(MIXED)), pauli_sum(Observable.parse(
        "X0*X1 - 0.5*Y2 + Z0*Y1*X2")))  # fmt: skip
    assert np.abs(apply_sum(found, np.eye(8, dtype=complex)) - (a @ b - b @ a)).max() < 1e-12


@pytest.mark.parametrize("grouping", ["general", "qubit-wise", "none"])
def test_members_of_a_group_commute_and_every_product_is_in_one(grouping: str) -> None:
    products = pauli_sum(Observable.parse(CHAIN))
    groups = commuting_groups(products, grouping)
    assert sorted(m for group in groups for m in group) == sorted(products)
    assert not any(commutator(group, group) for group in groups)
    assert len(groups) == {"general": 3, "qubit-wise": 3, "none": len(products)}[grouping]


@pytest.mark.parametrize("text", [ISING, CHAIN, MIXED])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_the_error_is_below_its_bound_and_falls_with_the_order(text: str, order: int) -> None:
    coarse, fine = (evolve(text, 0.4, steps=r, order=order) for r in (2, 4))
    errors = [evolution_error(e, text, 0.4) for e in (coarse, fine)]
    for made, error in zip((coarse, fine), errors, strict=True):
        assert made.error_bound is not None
        assert 0 < error <= made.error_bound
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.2)


def test_three_paulis_of_a_pair_take_three_cx() -> None:
    made = evolve("X0*X1 + 0.5*Y0*Y1 - 0.3*Z0*Z1", 0.9)
    assert made.circuit.stats().two_qubit == 3
    assert evolution_error(made, "X0*X1 + 0.5*Y0*Y1 - 0.3*Z0*Z1", 0.9) < 1e-12


def test_groups_that_commute_with_one_another_are_exact_in_one_step() -> None:
    made = evolve(HYDROGEN, 0.8, steps=50, order=4)
    assert made.error_bound == 0
    assert evolution_error(made, HYDROGEN, 0.8) < 1e-12
    assert made.circuit.stats().two_qubit <= 20


def test_a_symmetric_formula_has_the_costly_group_inside() -> None:
    made = evolve(ISING, 0.8, steps=4, order=2)
    assert made.circuit.stats().two_qubit == 4 * 2 * 3
    assert stages(2, 2) == [(0, 0.5), (1, 1.0), (0, 0.5)]
    assert sum(f for g, f in stages(3, 4) if g == 2) == pytest.approx(1)


def test_the_time_may_be_a_parameter() -> None:
    made = evolve(CHAIN, Parameter("t") * 2 + 0.1, steps=2)
    assert made.error_bound is None
    bound = made.circuit.bind({"t": 0.2})
    fixed = evolve(CHAIN, 0.5, steps=2).circuit
    assert np.abs(unitary(bound) - unitary(fixed)).max() < 1e-12


def test_the_pass_lowers_an_observable_and_says_its_error() -> None:
    program = qcomp.read(Observable.parse(ISING))
    context = Context()
    Pipeline.parse("evolve{time=0.3,steps=2,order=4}").run(program, context)
    exact = evolve(ISING, 0.3, steps=2, order=4)
    assert np.abs(unitary(program.only_circuit) - unitary(exact.circuit)).max() < 1e-12
    assert "commuting groups" in program.notes[-1]
    assert context.ledger.entries[-1].spent == exact.error_bound


def test_a_file_of_pauli_products_compiles_to_its_evolution(tmp_path: Path) -> None:
    path = tmp_path / "ising.pauli"
    path.write_text("Z0*Z1\n + 0.5*X0 + 0.5*X1\n")
    artifact = qcomp.compile(path, target="portable", time=0.7, steps=2)
    state = unitary(evolve("Z0*Z1 + 0.5*X0 + 0.5*X1", 0.7, steps=2).circuit)[:, 0]
    assert np.abs(np.asarray(artifact()).ravel() - np.abs(state) ** 2).max() < 1e-9


def test_what_cannot_be_evolved_is_said_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="order 3") as caught:
        evolve("Z0 + X0", 1.0, order=3)
    assert "1, 2 or 4" in str(caught.value)
    with pytest.raises(UsageError, match="number of steps"):
        evolve("Z0 + X0", 1.0, steps=0)
    with pytest.raises(UsageError, match="no grouping 'gneral'"):
        evolve("Z0 + X0", 1.0, grouping="gneral")
    with pytest.raises(UsageError, match="is 0"):
        evolve("0*Z0", 1.0)
    with pytest.raises(UsageError, match="acts on qubit 3"):
        evolve("Z3", 1.0, num_qubits=2)
    with pytest.raises(UsageError, match="finite"):
        evolve("Z0", float("nan"))
    with pytest.raises(UsageError, match="matrices are dense"):
        evolution_error(evolve("Z12", 1.0), "Z12", 1.0)
    path = tmp_path / "broken.pauli"
    path.write_text("Z0*Q1")
    with pytest.raises(SourceError, match="no sum of Pauli products"):
        qcomp.read(path)
    with pytest.raises(PassError, match="at most 24 qubits"):
        qcomp.compile(Observable.parse("Z40"), target="portable")
