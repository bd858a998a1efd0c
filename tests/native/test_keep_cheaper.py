"""keep-cheaper tries steps and keeps the cheaper circuit."""

from __future__ import annotations

import pytest

from qcomp.errors import UsageError
from qcomp.ir.circuit import Circuit
from qcomp.passes.map.keep_cheaper import KeepCheaper
from qcomp.passmanager import Context, Pipeline

SWAP = Circuit(2).swap(0, 1)
TOFFOLI = Circuit(3).ccx(0, 1, 2).ccx(0, 1, 2)


def test_what_costs_as_much_or_more_is_not_kept() -> None:
    assert KeepCheaper(steps="to-basis{gates=[cx]}").run(SWAP, Context()) is SWAP


def test_what_costs_less_is_kept_and_its_rounding_entered() -> None:
    context = Context()
    circuit = Circuit(2).cx(0, 1).u(0.1, 0.2, 0.3, 0).cx(1, 0).cx(0, 1).cx(1, 0).cx(0, 1)
    steps = "consolidate-two-qubit{basis=u}"
    after = KeepCheaper(steps=steps).run(circuit, context)
    assert after.stats().two_qubit <= 3
    assert 0 < context.ledger.numeric_spent < 1e-12
    idle = Context()
    KeepCheaper(steps=steps).run(after, idle)
    assert idle.ledger.numeric_spent == 0


def test_the_cost_is_the_users() -> None:
    steps = "to-basis{gates=[cx,h,t,tdg]}"
    circuit = Circuit(3).ccx(0, 1, 2)
    assert KeepCheaper(steps=steps, cost="gates").run(circuit, Context()) is circuit
    assert KeepCheaper(steps=steps, cost="multi_qubit").run(circuit, Context()) is not circuit


@pytest.mark.parametrize("step", ["drop-dead-gates", "canonicalise", "no-such-pass"])
def test_steps_that_do_not_keep_the_unitary_are_errors(step: str) -> None:
    with pytest.raises(UsageError):
        KeepCheaper(steps=step).run(SWAP, Context())


def test_its_text_form_is_read_back() -> None:
    text = 'keep-cheaper{steps="to-basis{gates=[cx,u]},cancel-inverses",cost=gates}'
    assert str(Pipeline.parse(text)) == text
