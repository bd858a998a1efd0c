"""Layouts: kept by every transformation, undone by checks, runs and Qiskit."""

from __future__ import annotations

import numpy as np
import pytest

from qcomp import equivalence
from qcomp.errors import PassError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.layout import Layout, active_wires, unmapped
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout
from qcomp.ir.verify import verify
from qcomp.passmanager import Context, Pipeline
from qcomp.simulate import run_readout

SWEEP = (
    "to-basis{max_qubits=2},merge-rotations,cancel-inverses,fuse-one-qubit,consolidate-two-qubit"
)


def plain() -> Circuit:
    circuit = Circuit(3, params=["a"])
    circuit.h(0).cx(0, 1).rx(Parameter("a"), 1).cx(1, 2).t(2).cx(0, 2)
    return circuit


def mapped() -> Circuit:
    """Return the same circuit on a line of 6: qubits 0, 1, 2 start on wires 4, 3, 1."""
    circuit = Circuit(6, params=["a"])
    circuit.h(4).cx(4, 3).rx(Parameter("a"), 3)
    circuit.swap(3, 2)  # qubit 1 on wire 2, an ancilla on 3
    circuit.cx(2, 1).t(1)
    circuit.swap(4, 3).swap(1, 2)  # qubit 0 on wire 3, qubit 2 on wire 2, qubit 1 on wire 1
    circuit.cx(3, 2)
    circuit.layout = Layout((4, 3, 1), (3, 1, 2), 6)
    return circuit


def test_a_mapped_circuit_equals_the_one_before_with_its_layout_undone() -> None:
    verdict = equivalence.check(plain(), mapped())
    assert verdict.equal is True
    assert "layouts undone" in verdict.how


def test_a_wrong_final_layout_is_found() -> None:
    wrong = mapped()
    wrong.layout = Layout((4, 3, 1), (3, 2, 1), 6)
    assert equivalence.check(plain(), wrong).equal is False


def test_layouts_of_other_sizes_differ_at_sight() -> None:
    assert equivalence.check(Circuit(2), mapped()).equal is False


def test_measurements_at_the_end_follow_their_qubits() -> None:
    a, b = Circuit(2, 2), Circuit(4, 2)
    a.h(0).cx(0, 1).measure(0, 0).measure(1, 1)
    b.h(3).swap(3, 2).cx(2, 1).swap(1, 0).measure(2, 0).measure(0, 1)
    b.layout = Layout((3, 1), (2, 0), 4)
    assert equivalence.check(a, b).equal is True
    assert equivalence.check(a, b, only_bits=True).equal is True
    b.layout = Layout((3, 1), (0, 2), 4)
    assert equivalence.check(a, b).equal is not True


def test_what_only_holds_with_ancillas_at_zero_is_accepted() -> None:
    """Two CX gates swap a qubit with an ancilla in |0>."""
    a, b = Circuit(1), Circuit(2)
    a.h(0).t(0)
    b.h(0).t(0).cx(0, 1).cx(1, 0)
    b.layout = Layout((0,), (1,), 2)
    assert equivalence.check(a, b).equal is True


def test_a_wide_circuit_that_needs_its_ancillas_at_zero_is_the_same() -> None:
    """Too wide for states; the unitaries differ."""
    a, b = Circuit(26), Circuit(27)
    for circuit in (a, b):
        for q in range(25):
            circuit.h(q).t(q).cx(q, q + 1)
    b.cx(0, 26).cx(26, 0)
    b.layout = Layout(tuple(range(26)), (26, *range(1, 26)), 27)
    verdict = equivalence.check(a, b)
    assert verdict.equal is True
    assert "ancillas in |0>" in verdict.how


@pytest.mark.parametrize("kind", ["expval", "probs", "state", "samples"])
def test_readouts_of_a_mapped_circuit_are_those_before_mapping(kind: str) -> None:
    observables = (Observable.parse("Z0*Z2 + 0.5*X1"), Observable.parse("Y0*X1"))
    readout = Readout(kind, observables if kind == "expval" else (), 0)  # type: ignore[arg-type]
    shots = 300 if kind == "samples" else 0
    rows = np.array([[0.3], [1.1]])
    first = np.asarray(run_readout(plain(), readout, rows, shots=shots))
    second = np.asarray(run_readout(mapped(), readout, rows, shots=shots))
    assert first.shape == second.shape
    if kind == "samples":
        assert np.abs(first.mean(axis=1) - second.mean(axis=1)).max() < 0.15
    else:
        assert np.abs(first - second).max() < 1e-12


def test_only_wires_in_use_are_simulated() -> None:
    wide = Circuit(133)
    wide.h(100).cx(100, 101).barrier(*range(133))
    wide.layout = Layout((100, 101), (100, 101), 133)
    assert active_wires(wide).sum() == 2
    assert unmapped(wide).num_qubits == 2
    values = run_readout(wide, Readout("probs"), None)
    assert np.allclose(values, [[0.5, 0, 0, 0.5]])


def test_every_transformation_keeps_the_layout() -> None:
    circuit = mapped()
    layout = circuit.layout
    assert circuit.copy().layout is layout
    assert circuit.bind([0.5]).layout == layout
    assert circuit.with_params(["a", "b"]).layout == layout
    assert circuit.inverse().layout == Layout((3, 1, 2), (4, 3, 1), 6)
    assert circuit.inverse().inverse().layout == layout
    assert circuit.control().layout == Layout((0, 5, 4, 2), (0, 4, 2, 3), 7)
    assert circuit.compose(Circuit(6)).layout == layout
    assert not circuit.equals(_without_layout(circuit))


def _without_layout(circuit: Circuit) -> Circuit:
    new = circuit.copy()
    new.layout = None
    return new


def test_reductions_keep_the_layout_and_the_meaning() -> None:
    program = Program.of_circuit(mapped())
    Pipeline.parse(SWEEP).run(program, Context(verify_each=True))
    after = program.only_circuit
    assert after.layout == mapped().layout
    assert equivalence.check(plain(), after).equal is True


def test_qiskit_gets_a_real_transpile_layout() -> None:
    quantum_info = pytest.importorskip("qiskit.quantum_info")
    circuit = mapped().bind([0.7])
    result = circuit.to_qiskit()
    assert result.layout.initial_index_layout(filter_ancillas=True) == [4, 3, 1]
    assert result.layout.final_index_layout(filter_ancillas=True) == [3, 1, 2]
    wide = Circuit(6).compose(plain().bind([0.7]), [0, 1, 2])
    whole = quantum_info.Operator.from_circuit(result)
    assert whole.equiv(quantum_info.Operator(wide.to_qiskit()))


def test_a_layout_goes_to_json_and_back() -> None:
    layout = Layout((4, 3, 1), (3, 1, 2), 6, ((2, 4),))
    again = Layout.from_dict(layout.to_dict())
    assert again == layout
    assert again.moved == layout.moved
    assert layout.ancillas == (0, 2, 5)
    assert sorted(layout.permutation()) == list(range(6))


def test_mapping_twice_composes_the_layouts() -> None:
    first = Layout((1, 0), (0, 1), 3)
    second = Layout((4, 2, 3), (4, 3, 2), 5)
    assert first.then(second) == Layout((2, 4), (4, 3), 5)


def test_observables_move_to_where_their_qubits_end() -> None:
    layout = Layout((4, 3, 1), (3, 1, 2), 6)
    assert layout.observable(Observable.parse("0.5*Z0*X1 - Y2")) == Observable.parse(
        "0.5*X1*Z3 - Y2"
    )


@pytest.mark.parametrize(("initial", "final"), [((0, 0), (0, 1)), ((0, 5), (0, 1)), ((0, 1), (0,))])
def test_impossible_layouts_are_refused(initial: tuple[int, ...], final: tuple[int, ...]) -> None:
    with pytest.raises(UsageError):
        Layout(initial, final, 3)


def test_the_verifier_finds_a_layout_of_another_machine() -> None:
    circuit = Circuit(3)
    circuit.layout = Layout((0,), (0,), 4)
    with pytest.raises(PassError, match="layout"):
        verify(circuit)
