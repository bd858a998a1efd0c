"""bind-to-slots: ONNX Runtime computes the angles, circuits take them as they are."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import qcomp
from qcomp.binding import SlottedCircuits
from qcomp.errors import PassError
from qcomp.execute import HybridSession, Session
from qcomp.ir.angle import Parameter, pi_fraction
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node
from qcomp.ir.slots import angle_difference, to_slots
from qcomp.passes.graph.bind_to_slots import BindToSlots
from qcomp.passmanager import Context
from tests.generators import straight_circuit
from tests.test_compile import ROWS, hybrid

READOUT = Readout("expval", (Observable.z(0), Observable.parse("X0*Z1")))


def layer() -> qcomp.Circuit:
    """Sums, multiples, opposites and constants of two data and two trained angles."""
    x, y, w, v = (Parameter(name) for name in "xywv")
    circuit = qcomp.Circuit(2, params=("x", "y", "w", "v"), name="layer")
    circuit.ry(x, 0).rz(0.5 * x - 2 * w + 0.3, 0).ry(y + w, 1).cx(0, 1)
    circuit.rz(-0.5 * x + 2 * w + pi_fraction(1, 2), 1).rx(3 * x, 0).rx(x + pi_fraction(1), 1)
    return circuit.rz(v, 0).h(1)


def program(readout: Readout = READOUT, rank: int = 2) -> Program:
    """Two nodes of one circuit: data and weights apart, and with other weights."""
    shapes = {0: [], 1: [1], 2: ["n", 1]}
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 1]))
    y = ir.Value(name="y", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shapes[rank]))
    nodes, weights = [], []
    for i, numbers in enumerate(([0.3, -1.2], [2.0, 0.7])):
        tensor = ir.tensor(np.array(numbers, np.float32), name=f"w{i}")
        weights.append(ir.Value(name=f"w{i}", const_value=tensor))
        nodes.append(make_circuit_node("layer", readout, [x, y, weights[-1]], name=f"n{i}"))
        nodes[-1].outputs[0].name = f"out{i}"
    outputs = [node.outputs[0] for node in nodes]
    graph = ir.Graph([x, y], outputs, nodes=nodes, initializers=weights,
                     opset_imports={"": 21, DOMAIN: 1}, name="g")  # fmt: skip
    return Program(ir.Model(graph, ir_version=10), {"layer": layer()})


def feeds(rank: int = 2) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    shape = {0: (), 1: (1,), 2: (5, 1)}[rank]
    return {
        "x": rng.normal(size=(5, 1)).astype(np.float32),
        "y": np.asarray(rng.normal(size=shape), np.float32),
    }


def same_outputs(source: Program, made: Program, given: dict[str, np.ndarray]) -> None:
    expected, got = HybridSession(source).run(given), HybridSession(made).run(given)
    for name, array in expected.items():
        assert got[name].shape == array.shape
        assert np.abs(got[name] - array).max() < 1e-12


def test_angles_that_are_multiples_of_one_another_share_a_slot() -> None:
    form = to_slots(layer())
    assert form is not None
    # x (also 3x and x + pi), x/2 - 2w + 0.3 (also its opposite), y + w, v.
    assert form.circuit.params == ("a0", "a1", "a2", "a3")
    assert form.matrix.T.tolist() == [[1, 0, 0, 0], [0.5, 0, -2, 0], [0, 1, 1, 0], [0, 0, 0, 1]]
    assert form.offset.tolist() == [0.0, 0.3, 0.0, 0.0]
    text = form.circuit.to_qasm3()
    for line in ("ry(a0) q[0]", "rz(a1) q[0]", "rx(3.0*a0) q[0]", "rx(a0 + pi) q[1]"):
        assert line in text
    assert "input float[64] a3;" in text


@pytest.mark.parametrize("seed", range(12))
def test_slots_give_the_angles_of_any_circuit_and_of_its_global_phase(seed: int) -> None:
    circuit = straight_circuit(seed)
    form = to_slots(circuit)
    if form is None:
        assert all((run.form < 0).all() for run in circuit.runs())
        assert not circuit.global_phase.terms
        return
    rows = np.random.default_rng(seed).normal(size=(3, 2))
    assert angle_difference(circuit, form, rows) < 1e-14
    row = rows[0] @ form.matrix + form.offset
    before, after = circuit.bind(rows[0]).global_phase, form.circuit.bind(row).global_phase
    turn = float(before) - float(after)
    assert abs(np.exp(1j * turn) - 1) < 1e-14
    again = to_slots(form.circuit)
    assert again is not None
    assert np.array_equal(again.matrix, np.eye(len(form.offset)))
    assert again.circuit.equals(form.circuit)


def test_a_circuit_that_no_parameter_reaches_keeps_its_form() -> None:
    assert to_slots(qcomp.Circuit(1, params=("x",)).h(0)) is None


def test_a_register_named_like_a_slot_gives_slots_another_name() -> None:
    from qcomp.ir.circuit import RegisterDecl

    circuit = qcomp.Circuit(1, params=("x",), qregs=(RegisterDecl("a0", 1, 0),)).rx(
        Parameter("x") + 0.1, 0
    )
    form = to_slots(circuit)
    assert form is not None
    assert form.circuit.params == ("angle0_0",)
    form.circuit.to_qasm3()


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("kind", ["expval", "probs", "state"])
def test_outputs_stay_the_same_for_any_readout_and_rank_of_the_inputs(kind: str, rank: int) -> None:
    source = program(READOUT if kind == "expval" else Readout(kind), rank)
    made = source.copy()
    context = Context()
    assert BindToSlots().run(made, context)
    same_outputs(source, made, feeds(rank))
    assert context.need(SlottedCircuits, "bind-to-slots").errors["layer"] < 1e-12
    assert not BindToSlots().run(made, context)


def test_constant_weights_are_folded_into_the_sum() -> None:
    made = program()
    BindToSlots().run(made, Context())
    assert [node.op_type for node in made.model.graph].count("MatMul") == 4
    offsets = [v for n, v in made.model.graph.initializers.items() if n.endswith("offset")]
    assert not any(name in made.model.graph.initializers for name in ("w0", "w1"))
    assert np.allclose(offsets[0].const_value.numpy(), [0, 0.3 - 0.6, 0.3, -1.2])


def test_a_map_that_changes_nothing_makes_no_operator() -> None:
    made = program()
    circuit = qcomp.Circuit(1, params=("x", "y", "w", "v"), name="layer")
    for name in "xywv":
        circuit.rx(Parameter(name), 0)
    node = made.circuit_nodes()[0]
    value = ir.Value(name="z", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 4]))
    new = make_circuit_node("layer", Readout("probs"), [value], name=node.name)
    head = ir.node("Neg", [new.outputs[0]])
    head.outputs[0].name = "y"
    graph = ir.Graph([value], [head.outputs[0]], nodes=[new, head],
                     opset_imports={"": 21, DOMAIN: 1}, name="g")  # fmt: skip
    single = Program(ir.Model(graph, ir_version=10), {"layer": circuit})
    assert BindToSlots().run(single, Context())
    assert [node.op_type for node in single.model.graph] == ["Circuit", "Neg"]
    assert single.only_circuit.params == ("a0", "a1", "a2", "a3")


def test_inputs_that_do_not_fit_the_circuit_are_an_error_with_the_node_named() -> None:
    source = program()
    source.circuits["layer"] = layer().with_params(("x", "y", "w", "v", "more"))
    with pytest.raises(PassError, match="'n0' have 4 values together"):
        BindToSlots().run(source, Context())


def test_a_compiled_hybrid_model_has_its_angles_in_the_graph(tmp_path: Path) -> None:
    source = hybrid()
    artifact = qcomp.compile(source, target="cpu-int8+ibm-heron", pipeline="canonicalise",
                             calibration={"x": ROWS}, out=tmp_path / "out")  # fmt: skip
    (stage,) = (s for s in artifact.manifest["stages"] if s["kind"] == "circuit")
    assert stage["parameter_form"] == "slots"
    assert stage["parameters"] == [f"a{i}" for i in range(4)]
    assert stage["constants"] == {}
    first = onnx.load(tmp_path / "out" / "stage0.onnx")
    assert [node.op_type for node in first.graph.node][-3:] == ["Cast", "MatMul", "Add"]
    session = Session(tmp_path / "out" / "stage0.onnx")
    slots = session.run({"x": ROWS})[stage["inputs"][0]]
    assert slots.dtype == np.float64
    assert slots.shape == (40, 4)
    expected = HybridSession(source).run({"x": ROWS})["head.y"]
    assert np.abs(artifact(ROWS) - expected).max() < 1e-6
    (line,) = (c for c in artifact.report["checks"] if "angles" in c["what"])
    assert line["error"] < 1e-12


def test_a_circuit_alone_keeps_its_own_parameters(tmp_path: Path) -> None:
    artifact = qcomp.compile(layer().measure_all(), target="ibm-heron", out=tmp_path / "out")
    (stage,) = artifact.manifest["stages"]
    assert stage["parameter_form"] == "affine"
    assert stage["parameters"] == ["x", "y", "w", "v"]


def test_bound_texts_are_the_circuits_that_the_artifact_runs(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from qcomp.cli.main import app

    artifact = qcomp.compile(hybrid(), target="cpu-dynamic-int8+portable", out=tmp_path / "out")
    np.savez(tmp_path / "x.npz", x=ROWS[:3])
    done = CliRunner().invoke(
        app,
        ["bind", str(tmp_path / "out"), "--input", str(tmp_path / "x.npz"), "-o",
         str(tmp_path / "bound"), "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (names,) = json.loads(done.stdout)["circuits"].values()
    readout = Readout("expval", (Observable.parse("Z0"), Observable.parse("0.5*X1*Z2 + Y0")))
    seen: list[np.ndarray] = []
    values = artifact.walk({"x": ROWS[:3]}, lambda place, circuit, asked, rows: seen.append(rows))
    assert seen[0].shape == (3, 4)
    assert values["x"] is not None
    from qcomp.simulate import run_readout

    rows = run_readout(artifact.circuits["layer"], readout, seen[0])
    for name, row in zip(names, rows, strict=True):
        text = (tmp_path / "bound" / name).read_text()
        bound = qcomp.Circuit.from_qasm(text)
        assert not bound.params
        assert np.abs(run_readout(bound, readout, np.zeros((1, 0))) - row).max() < 1e-12
