"""allocate-angles: one limit, shared among rotations by what each does to the output."""

import math
import re

import numpy as np
import pytest

from qcomp.angle_accuracies import AngleAccuracies, AngleBudgets, AngleData
from qcomp.errors import PassError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import Program
from qcomp.passes.allocate.angle_allocate import AllocateAngles
from qcomp.passes.allocate.angle_effects import Effects
from qcomp.passes.allocate.angle_fronts import (
    Allocations,
    closed_form,
    predicted_saving,
)
from qcomp.passes.synthesize.clifford_t.chains import chains_of, lowered
from qcomp.passes.synthesize.clifford_t.normal_form import multiply
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import expectations, unitary
from qcomp.simulate.from_states import expectations_from


def layered(qubits: int, layers: int, seed: int = 0) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(qubits)
    for _ in range(layers):
        for q in range(qubits):
            circuit.rz(float(rng.normal()), q)
            circuit.h(q)
        for q in range(qubits - 1):
            circuit.cx(q, q + 1)
    return circuit


def states(qubits: int, rows: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    out = rng.normal(size=(rows, 1 << qubits)) + 1j * rng.normal(size=(rows, 1 << qubits))
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def compiled(circuit: Circuit, text: str, data: AngleData | None = None) -> tuple[Circuit, Context]:
    program, context = Program.of_circuit(circuit.copy()), Context(verify_each=True)
    if data is not None:
        context.put(data)
    Pipeline.parse(f"allocate-angles{{{text}}},synthesize-rotations").run(program, context)
    return program.only_circuit, context


def test_the_closed_form_spends_the_same_at_every_rotation() -> None:
    weights = np.array([0.1, 1.0, 3.0])
    found = closed_form(weights, 0.3)
    assert weights * found == pytest.approx(0.1)
    uniform = 0.3 / weights.sum()
    saved = 3 * np.log2(1 / uniform) * 3 - 3 * np.log2(1 / found).sum()
    assert predicted_saving(weights) == pytest.approx(saved)
    independent = closed_form(weights, 0.1, independent=True)
    assert (((weights * independent) ** 2).sum()) == pytest.approx(0.1**2)


def test_slopes_are_those_of_errors_about_every_axis() -> None:
    circuit = layered(3, 2)
    circuit.crx(0.4, 0, 2)
    whole = Circuit(3).copy(body=(lowered(circuit.run, circuit.forms)[0],))
    chains = chains_of(whole.run)
    data = AngleData(("Z0", "X1*Z2"), states(3, 4))
    effects = Effects(whole, chains, data)
    exact = effects.values()
    assert exact == pytest.approx(
        expectations_from(circuit, data.states, None, data.observables), abs=1e-12
    )
    gradient, fisher = effects.gradients()
    step = 1e-6
    for number in (0, 3, len(chains) - 1):
        for axis in range(3):
            turn = np.zeros(4)
            turn[0], turn[1 + axis] = math.cos(step), math.sin(step)
            points = [chain.target for chain in chains]
            points[number] = multiply(turn, points[number])
            slope = (effects.values(points) - exact) / step
            assert gradient[number, axis] == pytest.approx(slope, abs=1e-4)
    assert np.all((fisher >= 0) & (fisher <= 4))


def test_errors_at_an_optimum_still_count() -> None:
    circuit = Circuit(1)
    circuit.rx(math.pi - 1e-3, 0)  # <Z> is least here: the plain derivative is next to 0
    whole = Circuit(1).copy(body=(lowered(circuit.run, circuit.forms)[0],))
    found = Effects(whole, chains_of(whole.run), AngleData()).sensitivities()
    assert found.first[0] < 0.01
    change = found.change(0, np.array([0.1, 5.0]))
    assert change[0] >= 2 * math.sin(0.05) ** 2
    assert change[1] == found.second[0]


def test_the_fisher_information_is_that_of_the_state() -> None:
    circuit = Circuit(2)
    circuit.rz(0.3, 0)
    circuit.cx(0, 1)
    _, fisher = Effects(circuit, chains_of(circuit.run), AngleData()).gradients()
    assert fisher[0] == pytest.approx([4, 4, 0], abs=1e-12)


def test_the_front_over_chains_is_exact() -> None:
    chains = chains_of(layered(2, 1).run)
    found = Allocations(chains, np.full(2, 0.05), lambda _, errors: errors, 0)
    fronts = [chain.front(0.4, 0.05 / 6, 0) for chain in chains]
    for index in range(len(found)):
        allocation = found[index]
        best = min(
            a.error + b.error
            for a in fronts[0]
            for b in fronts[1]
            if a.t_count + b.t_count <= allocation.t_count
        )
        assert allocation.norm == pytest.approx(best)


@pytest.mark.parametrize("limit", [0.5, 0.02])
def test_an_operator_norm_is_kept_with_fewer_t_than_equal_shares_take(limit: float) -> None:
    circuit = layered(3, 2)
    new, context = compiled(circuit, f"error={limit},direct_t=0")
    assert np.linalg.norm(unitary(circuit) - unitary(new), 2) <= limit
    assert context.ledger.promised_norm <= limit
    program = Program.of_circuit(circuit.copy())
    share = limit / 6
    Pipeline.parse(f"synthesize-rotations{{epsilon={share},direct_t=0}}").run(program, Context())
    assert new.stats().t_count < program.only_circuit.stats().t_count


def test_a_change_of_observables_is_kept_on_every_row() -> None:
    circuit = layered(3, 3)
    data = AngleData(("Z0", "Z1*Z2"), states(3, 20))
    new, context = compiled(circuit, "observable_error=0.03", data)
    before, after = (expectations_from(c, data.states, None, data.observables)
                     for c in (circuit, new))  # fmt: skip
    assert np.abs(before - after).max() <= 0.03
    budget = context.need(AngleBudgets, "allocate-angles").by_circuit[circuit.name]
    assert budget.reached == pytest.approx(np.abs(before - after).max(), abs=1e-9)
    tight, _ = compiled(circuit, "error=0.03")
    assert new.stats().t_count < tight.stats().t_count


def test_rotations_that_no_observable_sees_get_no_t() -> None:
    circuit = Circuit(2)
    circuit.ry(0.7, 0)
    circuit.ry(0.9, 1)
    data = AngleData(("Z0",))
    new, _ = compiled(circuit, "observable_error=0.01", data)
    on = [int(new.run.qubit[i, 0]) for i, (name, _, _) in enumerate(new.run.operations())
          if name in ("t", "tdg")]  # fmt: skip
    assert on
    assert set(on) == {0}
    assert expectations(new, None, ["Z0"]) == pytest.approx(math.cos(0.7), abs=0.01)


def test_t_gates_are_kept_within_their_number() -> None:
    circuit = layered(3, 2)
    circuit.t(0)
    errors = []
    for most in (1, 30, 90):
        new, context = compiled(circuit, f"t={most}")
        assert new.stats().t_count <= most
        errors.append(context.ledger.promised_norm)
    assert errors[0] > errors[1] > errors[2]


def test_measured_circuits_are_followed_to_their_end() -> None:
    circuit = Circuit.from_qasm(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nbit[2] c;\nry(0.3) q[0];\n'
        "cx q[0], q[1];\nry(0.4) q[1];\nc = measure q;\n"
    )
    new, context = compiled(circuit, "observable_error=0.05")
    assert new.stats().t_count
    assert context.get(AngleAccuracies) is not None


def test_observables_behind_control_flow_are_refused() -> None:
    circuit = Circuit.from_qasm(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\nqubit[2] q;\nbit[1] c;\nh q[0];\n'
        "c[0] = measure q[0];\nif (c[0]) { rx(0.3) q[1]; }\n"
    )
    with pytest.raises(PassError, match="control flow"):
        compiled(circuit, "observable_error=0.05")
    assert compiled(circuit, "error=0.05")[0].stats().t_count


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"error": 0.1, "t": 3}, "contradict"),
        ({"error": 0.1, "observable_error": 0.1}, "contradict"),
        ({"error": 5.0}, "between 0 and 2"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options: dict[str, float], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        AllocateAngles(**options)  # type: ignore[arg-type]


def test_a_limit_is_asked_for() -> None:
    with pytest.raises(UsageError, match="no limit"):
        AllocateAngles().run(layered(1, 1), Context())


def test_limits_that_cannot_be_met_say_what_can() -> None:
    circuit = layered(2, 1)
    with pytest.raises(PassError, match="cannot be met") as error:
        compiled(circuit, "error=1e-14")
    assert "allow" in error.value.hint
    circuit.t(0)
    with pytest.raises(PassError, match="cannot be met") as error:
        compiled(circuit, "t=0")
    assert "allow 1" in error.value.hint
    assert re.search(r"the front \(operator norm\): 1 T at \S+, \d+ T at ", error.value.hint)


def test_states_that_do_not_fit_are_refused() -> None:
    circuit = layered(2, 1)
    for wrong in (np.ones((3, 8)), np.ones((3, 4))):
        with pytest.raises(UsageError, match="states"):
            compiled(circuit, "observable_error=0.05", AngleData((), wrong))
