"""What -t, --device, --coupling, --initial-layout, --no-map and --fractional choose."""

import json

import pytest

import qcomp
from qcomp.device import Device
from qcomp.errors import TargetError, UsageError
from qcomp.ir.circuit import Circuit
from qcomp.target_choice import choose_targets, coupling_of, device_of


def bell(n: int = 2) -> Circuit:
    circuit = Circuit(n, n).h(0)
    for i in range(1, n):
        circuit = circuit.cx(i - 1, i)
    for i in range(n):
        circuit = circuit.measure(i, i)
    return circuit


@pytest.mark.parametrize(
    "text",
    [
        "[[0, 1], [1, 2]]",
        "0 1\n1 2\n",
        "# a line\n0,1\n\n1-2  # end\n",
        '{"num_qubits": 3, "pairs": [[0, 1], [1, 2]]}',
    ],
)
def test_a_coupling_is_read_from_json_or_text(tmp_path, text):
    path = tmp_path / "pairs"
    path.write_text(text)
    device = coupling_of(path)
    assert device.pairs.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert device.name == "pairs"


def test_a_coupling_may_be_pairs_or_qiskits():
    from qiskit.transpiler import CouplingMap

    assert coupling_of([(0, 1), (1, 2)]) == coupling_of(CouplingMap.from_line(3))
    assert coupling_of(Device.line(3)) == Device.line(3)


def test_directions_of_a_coupling_count_for_gates_that_have_one():
    for target, count in (("ibm-heron", 4), ("ibm-eagle", 2)):
        _, circuit = choose_targets(target, coupling=[(0, 1), (2, 1)])
        assert circuit is not None
        assert circuit.device is not None
        assert len(circuit.device.pairs) == count


def test_a_coupling_that_is_not_connected_is_refused():
    with pytest.raises(TargetError) as caught:
        coupling_of([(0, 1), (2, 3)])
    assert "2 parts, {0, 1} and {2, 3}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0 1\n1 b\n2 2 2\n", ("line 2", "line 3")),
        ("[[0, 1], [1], [2, 2], [0, -1]]", ("entry 1", "entry 2", "entry 3")),
        ("", ("empty",)),
        ("[[0, 1], ", ("no JSON",)),
    ],
)
def test_faults_of_a_coupling_are_named(tmp_path, text, words):
    path = tmp_path / "pairs.txt"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        coupling_of(path)
    for word in words:
        assert word in str(caught.value)


def test_a_device_is_a_name_a_file_or_an_object(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(json.dumps(Device.line(3).to_json()))
    assert device_of(str(path)) == device_of("line-3") == Device.line(3)
    with pytest.raises(UsageError):
        device_of(3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "line-3", "coupling": [(0, 1)]}, "one of them"),
        ({"target": "cpu-int8", "device": "line-3"}, "quantum"),
        ({"target": None}, "no target"),
        ({"device": "line-3", "initial_layout": (0, 7)}, "qubit 7"),
        ({"device": "line-3", "initial_layout": (1, 1)}, "two qubits in one place"),
        ({"initial_layout": (0, 1), "mapping": False}, "--no-map"),
        ({"target": "nam", "initial_layout": (0, 1)}, "--device"),
        ({"target": "nam", "fractional": True}, "fractional"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(options, words):
    target = options.pop("target", "ibm-heron")
    with pytest.raises(UsageError) as caught:
        choose_targets(target, **options)
    assert words in str(caught.value)


def test_a_device_that_says_its_gates_needs_no_target():
    pytest.importorskip("qiskit_ibm_runtime")
    _, circuit = choose_targets(None, device="fake_torino")
    assert circuit is not None
    assert set(circuit.basis) == {"cz", "rz", "sx", "x"}
    with pytest.raises(TargetError, match="lacks"):
        choose_targets(None, device="line-3")


def test_a_device_without_fractional_gates_says_so():
    pytest.importorskip("qiskit_ibm_runtime")
    with pytest.raises(TargetError) as caught:
        choose_targets("ibm-heron", device="fake_torino", fractional=True)
    assert "rzz" in str(caught.value)
    assert "leave out --fractional" in str(caught.value)


def test_a_circuit_wider_than_the_device_is_refused():
    for options in ({"target": "ibm-heron", "device": "line-3"}, {"target": "ibm-eagle"}):
        with pytest.raises(TargetError, match="128 qubits"):
            qcomp.compile(Circuit(128).h(0), **options)
    with pytest.raises(UsageError, match="places 3 qubits"):
        qcomp.compile(bell(), target="ibm-heron", device="line-5", initial_layout=(0, 1, 2))


def test_a_gate_that_the_target_cannot_make_is_refused():
    with pytest.raises(TargetError, match="rz"):
        qcomp.compile(Circuit(1).rz(0.3, 0), target="clifford+t")
