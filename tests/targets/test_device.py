"""Devices: lattices against IBM's own, Qiskit and JSON both ways, questions about couplings."""

import json

import numpy as np
import pytest

from qcomp.device import Device, get_device
from qcomp.errors import TargetError, UsageError
from tests.timing import timed


@pytest.mark.parametrize(
    ("name", "lattice"),
    [
        ("fake_torino", Device.heavy_hex(7, 15, tail=True)),
        ("fake_fez", Device.heavy_hex(8, 16, shift=3)),
        ("fake_sherbrooke", Device.heavy_hex(7, 15, trim=True)),
        ("fake_nighthawk", Device.grid(12, 10)),
    ],
)
def test_the_formula_of_a_lattice_is_the_machines_coupling(name, lattice):
    pytest.importorskip("qiskit_ibm_runtime")
    machine = get_device(name)
    assert machine.num_qubits == lattice.num_qubits
    undirected = Device.from_pairs(machine.pairs, num_qubits=machine.num_qubits)
    np.testing.assert_array_equal(undirected.pairs, lattice.pairs)


def test_figures_of_a_backend_are_kept_as_arrays():
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    backend = provider.FakeTorino()
    device = Device.from_qiskit(backend)
    assert device.name == "fake_torino"
    assert set(device.gates) == {"cz", "id", "rz", "sx", "x"}
    assert device.dt == backend.target.dt
    assert device.timing["min_length"] == backend.target.min_length
    for row in (0, 7, 299):
        a, b = device.pairs[row].tolist()
        assert device.errors["cz"][row] == backend.target["cz"][(a, b)].error
        assert device.durations["cz"][row] == backend.target["cz"][(a, b)].duration
    assert device.errors["measure"][5] == backend.target["measure"][(5,)].error
    assert device.durations["reset"][5] == backend.target["reset"][(5,)].duration
    assert device.t1[3] == backend.target.qubit_properties[3].t1
    assert any("not usable" in note for note in device.notes)


def test_a_directed_coupling_allows_one_direction():
    pytest.importorskip("qiskit_ibm_runtime")
    device = get_device("FakeSherbrooke")
    assert not device.is_symmetric
    assert device.allows(1, 0)
    assert not device.allows(0, 1)
    np.testing.assert_array_equal(device.allows([1, 0, 0], [0, 1, 99]), [True, False, False])


def test_qiskits_target_comes_back_as_it_went():
    pytest.importorskip("qiskit_ibm_runtime")
    device = get_device("fake_torino")
    back = Device.from_qiskit(device.to_qiskit_target())
    np.testing.assert_array_equal(back.pairs, device.pairs)
    for gate in ("cz", "sx", "measure"):
        np.testing.assert_array_equal(back.errors[gate], device.errors[gate])
        np.testing.assert_array_equal(back.durations[gate], device.durations[gate])
    np.testing.assert_array_equal(back.t2, device.t2)
    assert (back.dt, back.timing) == (device.dt, device.timing)


def test_json_comes_back_as_it_went():
    device = Device.grid(2, 3)
    errors = np.linspace(0, 0.1, len(device.pairs))
    errors[3] = np.nan
    full = Device("mine", 6, device.pairs, ("cz", "rz"), {"cz": errors}, {"cz": errors * 1e-6})
    again = Device.from_json(json.loads(json.dumps(full.to_json())))
    assert again == full
    assert again != device
    assert np.isnan(again.errors["cz"][3])


def test_figures_follow_their_pairs_when_pairs_are_sorted():
    device = Device("d", 3, np.array([[2, 1], [0, 1]]), errors={"cz": np.array([0.2, 0.1])})
    assert device.pairs.tolist() == [[0, 1], [2, 1]]
    assert device.errors["cz"].tolist() == [0.1, 0.2]


def test_figures_in_json_are_in_the_order_of_the_pairs():
    data = {"num_qubits": 3, "pairs": [[2, 1], [0, 1]], "errors": {"cz": [0.2, 0.1]}}
    device = Device.from_json(data)
    assert device.pairs.tolist() == [[0, 1], [1, 0], [1, 2], [2, 1]]
    assert device.errors["cz"].tolist() == [0.1, 0.1, 0.2, 0.2]
    device = Device.from_json({**data, "directed": True})
    assert device.pairs.tolist() == [[0, 1], [2, 1]]
    assert device.errors["cz"].tolist() == [0.1, 0.2]
    both = {"num_qubits": 2, "pairs": [[1, 0], [0, 1]], "errors": {"cz": [0.2, 0.1]}}
    assert Device.from_json(both).errors["cz"].tolist() == [0.1, 0.2]


def test_distances_are_those_of_networkx():
    import networkx as nx

    for device in (Device.grid(5, 7), Device.heavy_hex(7, 15, trim=True), Device.ring(9)):
        graph = nx.Graph(device.pairs.tolist())
        expected = dict(nx.all_pairs_shortest_path_length(graph))
        got = device.distance()
        assert all(got[a, b] == d for a, row in expected.items() for b, d in row.items())
        plain = np.full_like(got, device.num_qubits)
        from qcomp.device import _breadth_first

        _breadth_first.python(*device.neighbours(), plain)
        np.testing.assert_array_equal(plain, got)


def test_numbers_may_have_gaps():
    device = Device.from_pairs([[1, 2], [2, 4]])
    assert device.num_qubits == 5
    assert device.present.tolist() == [1, 2, 4]
    assert device.is_connected


def test_parts_without_a_path_are_far_and_not_connected():
    device = Device.from_pairs([[0, 1], [2, 3]], num_qubits=5)
    assert not device.is_connected
    assert [part.tolist() for part in device.components()] == [[0, 1], [2, 3], [4]]
    assert device.distance()[0, 2] == 5
    assert device.distance()[0, 1] == 1


@pytest.mark.parametrize(
    ("name", "qubits", "pairs"),
    [
        ("line-20", 20, 38),
        ("ring-12", 12, 24),
        ("grid-10x10", 100, 360),
        ("heavy-hex-7", 115, 264),
        ("all-to-all-8", 8, 56),
        ("line-1", 1, 0),
    ],
)
def test_a_lattice_has_a_name(name, qubits, pairs):
    device = get_device(name)
    assert (device.name, device.num_qubits, len(device.pairs)) == (name, qubits, pairs)
    assert device.is_connected
    assert device.coupling_map().size() == qubits
    assert device.is_all_to_all == (name in ("all-to-all-8", "line-1"))


def test_missing_sites_leave_no_gaps_in_the_numbers():
    device = Device.grid(2, 3, missing=[1])
    assert device.num_qubits == 5
    assert device.allows(0, 2)
    assert not device.allows(0, 1)


@timed
def test_a_thousand_qubits_are_measured_quickly():
    import time

    device = Device.heavy_hex(20, 42)
    device.distance()
    again = Device.heavy_hex(20, 42)
    start = time.process_time()
    assert again.distance().max() < again.num_qubits
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fake_torin", "fake_torino"),
        ("heavy-hex-6", "odd distance"),
        ("grid-10", "rows and columns"),
        ("line-999999", "100000"),
        ("nowhere", "line-20"),
    ],
)
def test_an_unknown_device_names_the_nearest(name, words):
    with pytest.raises(UsageError) as caught:
        get_device(name)
    assert words in str(caught.value)


def test_a_machine_without_an_account_is_a_clear_error(monkeypatch, tmp_path):
    pytest.importorskip("qiskit_ibm_runtime")
    import qiskit_ibm_runtime

    class Refused:
        def __init__(self):
            raise ValueError("no account is saved")

    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", Refused)
    with pytest.raises(TargetError) as caught:
        get_device("ibm_fez")
    assert "no account is saved" in str(caught.value)
    assert "fake_fez" in str(caught.value)


def test_all_faults_of_a_description_are_named_at_once(tmp_path):
    path = tmp_path / "device.json"
    path.write_text(
        json.dumps(
            {
                "num_qubits": 3,
                "pairs": [[0, 1], [1, 1], [0, 7], "x", [0, 1]],
                "erors": {},
                "dt": -1,
            }
        )
    )
    with pytest.raises(UsageError) as caught:
        Device.from_json(path)
    text = str(caught.value)
    for words in ("'erors'", "with itself", "[0, 7]", "not a pair", "repeats"):
        assert words in text


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"errors": {"cz": 2}}, "0 to 1"),
        ({"errors": {"cz": [0.1]}}, "list of 2"),
        ({"durations": {"cz": -1}}, "at least 0"),
        ({"t1": [1, 2]}, "list of 3"),
        ({"timing": {"granularity": 0.5}}, "whole numbers"),
        ({"errors": {"czz": 0.1}}, "'czz'"),
        ({"gates": "cz"}, "list of texts"),
        ({"lattice": {"kind": "grid", "rows": 2}}, "lacks 'columns'"),
        ({"lattice": {"kind": "cube"}}, "'kind'"),
        ({"dt": 0}, "'dt'"),
    ],
)
def test_a_fault_is_named(change, words):
    base = {"num_qubits": 3, "pairs": [[0, 1], [1, 2]]}
    if "lattice" in change:
        base = {}
    with pytest.raises(UsageError) as caught:
        Device.from_json({**base, **change})
    assert words in str(caught.value)


def test_no_qiskit_object_is_no_device():
    with pytest.raises(UsageError):
        Device.from_qiskit("fake_torino")
