"""Mapped circuits of any width are decided: ancillas that start in |0> are cut out."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp import equivalence
from qcomp.device import Device
from qcomp.equivalence import mapped as mapped_module
from qcomp.equivalence.mapped import _without_ancillas, restored
from qcomp.equivalence.pauli_form import AncillasDiffer, pauli_form
from qcomp.ir.angle import Angle, Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.gates import GATES, NUM_ANGLES
from qcomp.ir.layout import Layout, relabel
from qcomp.ir.program import Program
from qcomp.passes.map.map_to_device import MapToDevice
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import unitary
from qcomp.target import get_target
from tests.equivalence.test_mutants import Operation, mutant

MUTANTS = 200
INPUTS = 4
REDUCE = (
    "to-basis{gates=[cx],max_qubits=1},merge-rotations,cancel-inverses,fuse-one-qubit,"
    "consolidate-two-qubit"
)


def plain(num_qubits: int, gates: int, seed: int, params: tuple[str, ...] = ()) -> Circuit:
    rng = np.random.default_rng(seed)
    circuit = Circuit(num_qubits, params=params)
    for _ in range(gates):
        a, b = rng.permutation(num_qubits)[:2].tolist()
        match int(rng.integers(5)):
            case 0:
                circuit.h(a)
            case 1:
                circuit.t(a)
            case 2 if params:
                circuit.ry(Parameter(str(rng.choice(params))), a)
            case 2:
                circuit.ry(float(rng.uniform(0.2, 1.2)), a)
            case _:
                circuit.cx(a, b)
    return circuit


def on_a_machine(circuit: Circuit, device: Device, places: tuple[int, ...] = ()) -> Circuit:
    """Return the circuit mapped, blocks and swaps written anew."""
    context = Context(target=get_target("all-to-all").on(device))
    program = Program.of_circuit(MapToDevice(layout=places, effort="fast").run(circuit, context))
    Pipeline.parse(REDUCE).run(program, context)
    return program.only_circuit


def operations(circuit: Circuit) -> list[Operation]:
    run = circuit.run
    out: list[Operation] = []
    for i, code in enumerate(run.code.tolist()):
        first = int(run.angle[i])
        angles = tuple(
            Angle(int(run.frac[first + k]), float(run.rem[first + k]))
            for k in range(int(NUM_ANGLES[code]))
        )
        out.append((GATES[code].name, run.operands(i), angles))
    return out


def made(parts: list[Operation], num_qubits: int) -> Circuit:
    circuit = Circuit(num_qubits)
    for name, qubits, angles in parts:
        circuit.append(name, qubits, angles)
    return circuit


def really_equal(a: Circuit, b: Circuit) -> bool:
    """Whether B does to |psi>|0> what A does to |psi>, by whole matrices."""
    size = 1 << INPUTS
    want = np.zeros((1 << b.num_qubits, size), dtype=complex)
    want[:size] = unitary(a, None)
    found = unitary(b, None)[:, :size]
    return bool(abs(abs(np.vdot(want, found)) - size) < 1e-9)


def test_no_mutant_of_a_mapped_circuit_is_called_equal_and_no_equal_one_is_called_wrong() -> None:
    before = plain(INPUTS, 30, 1)
    after = restored(on_a_machine(before, Device.line(7), (0, 2, 4, 6)))
    width = after.num_qubits
    assert width >= INPUTS + 2
    wide = relabel(before, range(INPUTS), width)
    verdict = _without_ancillas(wide, after, INPUTS, 0)
    assert verdict is not None
    assert verdict.equal is True
    assert really_equal(before, after)
    rng = np.random.default_rng(2027)
    parts = operations(after)
    seen = {True: 0, False: 0, None: 0}
    for _ in range(MUTANTS):
        other = made(mutant(parts, rng, width), width)
        found = _without_ancillas(wide, other, INPUTS, 0)
        truth = really_equal(before, other)
        equal = None if found is None else found.equal
        assert equal in (None, truth)
        seen[equal] += 1
    assert seen[False] >= MUTANTS // 2, seen


@pytest.mark.parametrize("params", [(), ("a", "b")])
def test_a_mapped_circuit_of_sixty_wires_is_decided(params: tuple[str, ...]) -> None:
    before = plain(40, 120, 5, params)
    after = on_a_machine(
        before, Device.grid(8, 8), tuple(range(0, 64, 2))[:32] + tuple(range(1, 17, 2))
    )
    assert restored(after).num_qubits > 40
    verdict = equivalence.check(before, after)
    assert verdict.equal is True, verdict
    assert "ancillas in |0>" in verdict.how
    wrong = after.copy()
    wrong.cz(*np.flatnonzero(np.isin(np.arange(64), after.layout.final))[:2].tolist())
    assert equivalence.check(before, wrong).equal is not True
    swapped = after.copy()
    assert after.layout is not None
    final = list(after.layout.final)
    final[0], final[1] = final[1], final[0]
    swapped.layout = Layout(after.layout.initial, tuple(final), 64)
    assert equivalence.check(before, swapped).equal is False


def test_an_ancilla_that_does_not_come_back_to_zero_is_found_at_any_width() -> None:
    before, after = Circuit(30), Circuit(31)
    for circuit in (before, after):
        for q in range(29):
            circuit.h(q).t(q).cx(q, q + 1)
    layout = Layout(tuple(range(30)), tuple(range(30)), 31)
    for spoil in (Circuit(31).x(30), Circuit(31).cx(3, 30), Circuit(31).h(30)):
        wrong = after.compose(spoil)
        wrong.layout = layout
        assert equivalence.check(before, wrong).equal is False
    harmless = after.compose(Circuit(31).cz(3, 30).rz(0.3, 30).cx(30, 5).crz(0.7, 30, 2))
    harmless.layout = layout
    assert equivalence.check(before, harmless).equal is True


def test_a_rotation_that_turns_an_ancilla_is_not_cut_out() -> None:
    circuit = Circuit(2).rx(0.3, 1).rz(0.4, 1).rzz(0.2, 0, 1)
    assert pauli_form(circuit, inputs=1) is None
    cancelled = Circuit(2).rx(0.3, 1).rx(-0.3, 1).rzz(0.2, 0, 1)
    form = pauli_form(cancelled, inputs=1)
    assert form is not None
    assert form.rotations() == [((0, 1), Angle.of(0.2))]
    with pytest.raises(AncillasDiffer):
        pauli_form(Circuit(2).x(1), inputs=1)


def test_wide_mapped_circuits_that_measure_are_compared_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mapped_module, "MATRIX_QUBITS", 3)
    before, after = Circuit(2, 2), Circuit(4, 2)
    before.h(0).t(0).cx(0, 1).measure(0, 0).measure(1, 1)
    after.h(0).t(0).cx(0, 2).cx(2, 0).cx(2, 1).cx(2, 3).cx(3, 2).measure(3, 0).measure(1, 1)
    after.layout = Layout((0, 1), (3, 1), 4)
    for only_bits in (False, True):
        verdict = equivalence.check(before, after, only_bits=only_bits)
        assert verdict.equal is True, verdict
        assert verdict.rung == "pauli-form"
    after.layout = Layout((0, 1), (2, 1), 4)
    assert equivalence.check(before, after).equal is not True
