"""Targets as data: their files, their figures, their pipelines, targets of JSON and of Qiskit."""

import json
import re
from math import pi
from pathlib import Path

import numpy as np
import pytest

from qcomp.device import Device, get_device
from qcomp.errors import TargetError, UsageError
from qcomp.ir.gates import BY_NAME
from qcomp.passmanager import Pipeline
from qcomp.registry import load, table
from qcomp.target import EFFORTS, get_target, parse_targets, target_names, target_of
from qcomp.target_files import pipeline_lines, read_target
from qcomp.target_pipelines import target_pipelines

OWN = [name for name in target_names() if name not in table("targets")]
QUANTUM = [name for name in OWN if get_target(name).kind == "circuit"]
FILES = Path(__file__).parent.parent.parent / "qcomp" / "targets"


@pytest.mark.parametrize("name", OWN)
def test_a_target_is_what_its_file_is_named(name):
    target = get_target(name)
    assert target.name == name
    assert target.title
    assert target.description
    for effort in EFFORTS:
        Pipeline.parse(target.pipeline(effort))


@pytest.mark.parametrize("name", QUANTUM)
def test_a_file_holds_the_pipelines_that_its_gates_ask_for(name, update_golden):
    target = get_target(name)
    made = target_pipelines(target)
    if update_golden:
        path = FILES / f"{name}.toml"
        head = path.read_text(encoding="utf-8").partition("[pipelines]\n")[0]
        parts = [f'{e} = """\n' + "\n".join(pipeline_lines(t)) + '\n"""\n' for e, t in made.items()]
        path.write_text(head + "[pipelines]\n" + "".join(parts), encoding="utf-8")
        return
    assert target.pipelines == made


@pytest.mark.parametrize("name", QUANTUM)
def test_gates_profile_and_device_of_a_target_exist(name):
    target = get_target(name)
    assert all(BY_NAME[gate].num_qubits in (1, 2) for gate in target.basis)
    assert target.profile in load("services", "qasm-profiles")
    device = target.hardware
    if device is None:
        return
    assert device.is_connected
    assert device.notes
    known = {*target.basis, *target.native.fractional, "measure", "reset"}
    assert set(device.errors) | set(device.durations) <= known


@pytest.mark.parametrize("name", QUANTUM)
def test_limits_of_a_target_are_those_of_its_profile(name):
    target = get_target(name)
    profile = load("services", "qasm-profiles")[target.profile]
    for limit in target.native.limits:
        (its,) = [x for x in profile.limits[limit.gate] if x.index == limit.angle]
        assert (limit.least * pi, limit.most * pi) == pytest.approx((its.low, its.high))
        assert limit.step * pi == pytest.approx(its.step)


@pytest.mark.parametrize(
    ("name", "machine"),
    [
        ("ibm-heron", "fake_fez"),
        ("ibm-nighthawk", "fake_miami"),
        ("ibm-eagle", "fake_sherbrooke"),
    ],
)
def test_figures_are_the_medians_of_their_source(name, machine):
    pytest.importorskip("qiskit_ibm_runtime")
    family, real = get_target(name).hardware, get_device(machine)
    assert family is not None
    for figures, source in (
        (family.errors, real.errors),
        (family.durations, real.durations),
        ({"t1": family.t1, "t2": family.t2}, {"t1": real.t1, "t2": real.t2}),
    ):
        for gate, values in figures.items():
            assert np.unique(values).size == 1
            assert values[0] == pytest.approx(np.nanmedian(source[gate]), rel=1e-3, abs=1e-12)
    assert family.dt == real.dt
    assert dict(family.timing) == dict(real.timing)
    np.testing.assert_array_equal(family.pairs, real.pairs)


def test_names_with_a_plus_stand_alone_and_joined():
    assert [t and t.name for t in parse_targets("clifford+t")] == [None, "clifford+t"]
    assert [t and t.name for t in parse_targets("cpu-int8+clifford+t")] == [
        "cpu-int8",
        "clifford+t",
    ]
    assert [t and t.name for t in parse_targets("clifford+t+cpu-int8")] == [
        "cpu-int8",
        "clifford+t",
    ]
    for text in ("clifford+t+nam", "clifford+", "cpu-int8+clifford"):
        with pytest.raises(UsageError):
            parse_targets(text)


MACHINE = {
    "basis": ["cz", "rz", "sx", "x"],
    "device": {"num_qubits": 3, "pairs": [[0, 1], [1, 2]], "errors": {"cz": 0.01}},
}


def written(tmp_path: Path, data: object) -> str:
    path = tmp_path / "machine.json"
    path.write_text(json.dumps(data))
    return str(path)


def test_a_target_in_json_is_as_good_as_a_named_one(tmp_path):
    target = get_target(written(tmp_path, MACHINE))
    assert target.name == "machine"
    assert target.profile == "full"
    assert target.native.one_qubit == "rz-sx-x"
    assert target.device is not None
    assert target.device.errors["cz"].tolist() == [0.01] * 4
    assert target.pipelines == target_pipelines(get_target("ibm-heron"))
    graph, circuit = parse_targets("cpu-int8+" + written(tmp_path, MACHINE))
    assert graph is not None
    assert circuit is not None
    assert circuit.name == "machine"


def test_the_examples_of_the_documentation_are_accepted(tmp_path):
    text = (FILES.parent.parent / "docs" / "targets.md").read_text(encoding="utf-8")
    device, target = (json.loads(b) for b in re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    made = Device.from_json(device)
    assert made.errors["cz"].tolist()[:4] == [0.004, 0.004, 0.006, 0.006]
    assert get_target(written(tmp_path, target)).device is not None


def test_vendors_names_of_gates_are_those_of_the_table(tmp_path):
    data = {
        "basis": ["prx", "zz"],
        "native": {"limits": [{"gate": "zz", "least": 0, "most": 0.5}]},
        "device": {"num_qubits": 2, "pairs": [[0, 1]], "gates": ["prx"], "errors": {"zz": 0.1}},
    }
    target = get_target(written(tmp_path, data))
    assert target.basis == ("r", "rzz")
    assert target.native.limits[0].gate == "rzz"
    assert target.device is not None
    assert target.device.gates == ("r",)
    assert target.device.error("rzz").tolist() == target.device.error("zz").tolist() == [0.1, 0.1]


def test_the_device_of_a_target_in_json_may_be_a_name(tmp_path):
    target = get_target(written(tmp_path, {**MACHINE, "device": "grid-2x3", "profile": "ibm"}))
    assert target.device == Device.grid(2, 3)
    assert target.profile == "ibm"


def test_all_faults_of_a_target_are_named_at_once(tmp_path):
    data = {
        "basis": ["cz", "rzy"],
        "profil": "ibm",
        "profile": "imb",
        "kind": "circle",
        "native": {"limits": [{"gate": "cz"}], "one_qubit": "rz-sy"},
        "device": {"num_qubits": 2, "pairs": [[0, 5]]},
        "pipelines": {"fast": "x"},
    }
    with pytest.raises(UsageError) as caught:
        read_target(Path(written(tmp_path, data)))
    text = str(caught.value)
    for words in ("'rzy'", "'profil'", "'imb'", "'circle'", "limits' entry 0", "'sy'", "[0, 5]",
                  "'default' among them"):  # fmt: skip
        assert words in text


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "object"),
        ({}, "'basis'"),
        ({"basis": "cz"}, "list of texts"),
        ({"basis": ["ccx"]}, "'ccx'"),
        ({"basis": ["cz", "rz"], "device": "fake_nothing"}, "fake_nothing"),
        ({"basis": ["cz", "rz"], "device": 3}, "'device'"),
        ({"basis": ["cz", "rz"], "native": 3}, "'native'"),
    ],
)
def test_a_fault_of_a_target_is_named(tmp_path, data, words):
    with pytest.raises(UsageError) as caught:
        get_target(written(tmp_path, data))
    assert words in str(caught.value)


def test_files_that_are_no_json_are_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        get_target("nowhere.json")
    path = tmp_path / "bad.json"
    path.write_text('{"basis": [')
    with pytest.raises(UsageError, match="no JSON"):
        get_target(str(path))
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not text"):
        get_target(str(path))


def test_a_qiskit_backend_is_a_target():
    provider = pytest.importorskip("qiskit_ibm_runtime.fake_provider")
    for source in (provider.FakeTorino(), provider.FakeTorino().target):
        target = target_of(source)
        assert set(target.basis) == {"cz", "rz", "sx", "x"}
        assert target.profile == "ibm"
        assert target.device is not None
        assert target.device.num_qubits == 133
    fractional = target_of(provider.FakeFractionalBackend())
    assert {"rx", "rzz"} <= set(fractional.basis)


def test_a_qiskit_target_without_couplings_takes_any_pair():
    from qiskit.circuit import Parameter
    from qiskit.circuit.library import CXGate, RZGate, SXGate
    from qiskit.transpiler import Target

    target = Target(num_qubits=4)
    for gate in (CXGate(), RZGate(Parameter("a")), SXGate()):
        target.add_instruction(gate)
    made = target_of(target)
    assert made.device is not None
    assert made.device.is_all_to_all
    assert made.profile == "full"


def test_objects_that_are_no_target_are_refused():
    with pytest.raises(UsageError, match="no target"):
        target_of(3)
    with pytest.raises(TargetError, match="lacks"):
        target_of(Device.line(3))


def test_a_device_without_the_targets_gates_is_refused_with_the_one_that_fits():
    pytest.importorskip("qiskit_ibm_runtime")
    with pytest.raises(TargetError) as caught:
        get_target("ibm-heron").on(get_device("fake_sherbrooke"))
    assert "cz" in str(caught.value)
    assert "-t ibm-eagle" in str(caught.value)


def test_fractional_gates_are_an_option_of_those_that_have_them():
    target = get_target("ibm-heron").with_fractional()
    assert target.basis == ("cz", "rz", "sx", "x", "rx", "rzz")
    with pytest.raises(UsageError, match="fractional"):
        get_target("nam").with_fractional()
