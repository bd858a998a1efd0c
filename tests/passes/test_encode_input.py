"""An input of a circuit becomes data by an encoding of choice."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

import qcomp
from qcomp.constructions.encodings import ENCODINGS, encoding
from qcomp.errors import PassError, UsageError
from qcomp.execute import HybridSession
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.program import DOMAIN, OPSET, Program, Readout, make_circuit_node
from qcomp.passes.lower.encode_input import EncodeInput
from qcomp.passmanager import Context
from qcomp.simulate import probabilities

WEIGHTS = np.array([0.3, -1.1, 0.7])
ROWS = np.random.default_rng(4).uniform(-1.5, 1.5, size=(5, 16))
PLAIN = [name for name in ENCODINGS if not encoding(name, 2).weights]


def ansatz(params: tuple[str, ...] = ()) -> Circuit:
    circuit = Circuit(3, params=(*params, "w0", "w1", "w2"), name="model")
    for q in range(3):
        circuit.ry(Parameter(f"w{q}"), q)
    return circuit.cx(0, 1).cx(1, 2)


def hybrid(features: int) -> Program:
    """A graph whose circuit reads ``x`` in parameters that no gate uses, and its weights."""
    circuit = ansatz(tuple(f"x{i}" for i in range(features)))
    x = ir.val("x", ir.DataType.FLOAT, ["batch", features])
    double = ir.node("Mul", [x, x], name="square")
    double.outputs[0].name = "h"
    double.outputs[0].type, double.outputs[0].shape = x.type, x.shape
    w = ir.val("w", const_value=ir.tensor(WEIGHTS, name="w"))
    y = ir.val("y", ir.DataType.DOUBLE, ["batch", 8])
    node = make_circuit_node("model", Readout("probs"), [double.outputs[0], w], "layer", y)
    graph = ir.Graph(
        [x], [y], nodes=[double, node], initializers=[w],
        opset_imports={"": OPSET, DOMAIN: 1}, name="g",
    )  # fmt: skip
    return Program(ir.Model(graph, ir_version=10), {"model": circuit})


def expected(method: str, rows: np.ndarray, **options: object) -> np.ndarray:
    found = encoding(method, 3, rows.shape[1], **options)
    bound = ansatz().bind(WEIGHTS.tolist())
    whole = found.circuit.compose(bound)
    return probabilities(whole, found.parameters(rows))


@pytest.mark.parametrize("method", PLAIN)
def test_a_graph_computes_the_angles_of_the_encoding_of_its_input(method: str) -> None:
    features = {"hamiltonian": 4, "amplitude": 8, "neural-amplitude": 8}.get(method, 3)
    program = hybrid(features)
    context = Context()
    assert EncodeInput(input="h", encoding=method).run(program, context)
    rows = ROWS[:, :features].astype(np.float32)
    squares = (rows * rows).astype(np.float64)
    got = HybridSession(program).run({"x": rows}, shots=0)["y"]
    assert np.abs(got - expected(method, squares)).max() < 1e-9
    assert "w0" in program.circuits["model"].params


def test_options_are_the_encodings_own_and_the_cost_is_said() -> None:
    program, context = hybrid(3), Context()
    step = EncodeInput(input="h", encoding="zz-feature-map", layers=1, entanglement="linear")
    step.run(program, context)
    (note,) = [w for w in context.warnings if "'h'" in w]
    assert "3 qubits, 4 two-qubit gates, depth" in note
    assert "no measurement" in note


def test_a_circuit_alone_gets_parameters_of_the_name_that_is_asked_for() -> None:
    program = Program.of_circuit(ansatz())
    EncodeInput(input="x", encoding="angle").run(program, Context())
    assert program.is_circuit
    circuit = program.only_circuit
    assert circuit.params == ("x0", "x1", "x2", "w0", "w1", "w2")
    rows = np.concatenate([ROWS[:, :3], np.tile(WEIGHTS, (5, 1))], axis=1)
    assert np.abs(probabilities(circuit, rows) - expected("angle", ROWS[:, :3])).max() < 1e-12


def test_a_circuit_alone_whose_angles_are_no_sums_gets_a_graph() -> None:
    program = Program.of_circuit(ansatz(("x[0]", "x[1]", "x[2]")))
    EncodeInput(input="x", encoding="iqp").run(program, Context())
    assert program.is_hybrid
    feeds = {"x": ROWS[:, :3], "params": np.tile(WEIGHTS, (5, 1))}
    (got,) = HybridSession(program).run(feeds, shots=0).values()
    assert np.abs(got - expected("iqp", ROWS[:, :3])).max() < 1e-9


def test_the_weights_of_an_encoding_are_parameters_of_a_circuit_alone() -> None:
    program = Program.of_circuit(ansatz())
    EncodeInput(input="g", encoding="covariant").run(program, Context())
    assert program.only_circuit.params[:7] == (*(f"g{i}" for i in range(6)), "g_v0")


def test_a_compile_takes_the_pass_in_its_pipeline() -> None:
    text = "encode-input{input=x,encoding=angle}"
    circuit = qcomp.optimize(Program.of_circuit(ansatz()), pipeline=text)
    assert circuit.only_circuit.params[0] == "x0"  # type: ignore[union-attr]


def test_a_hybrid_compile_takes_it_first_and_is_checked_against_the_encoded_source() -> None:
    rows = ROWS[:, :3].astype(np.float32)
    artifact = qcomp.compile(
        hybrid(3),
        target="cpu-int8+portable",
        calibration={"x": rows},
        pipeline="encode-input{input=h,encoding=zz},canonicalise",
    )
    got = artifact.run({"x": rows}, shots=0)["y"]
    assert np.abs(got - expected("zz", (rows * rows).astype(np.float64))).max() < 1e-6


def test_a_circuit_alone_compiles_with_it() -> None:
    artifact = qcomp.compile(
        ansatz(), target="portable", pipeline="encode-input{input=x,encoding=angle}"
    )
    rows = np.concatenate([ROWS[:, :3], np.tile(WEIGHTS, (5, 1))], axis=1)
    got = np.asarray(artifact(rows))
    assert np.abs(got - expected("angle", ROWS[:, :3])).max() < 1e-9


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (EncodeInput(input="hh"), "'h'"),
        (EncodeInput(input="h", encoding="angel"), "did you mean 'angle'"),
        (EncodeInput(input="h", encoding="zz", bits=2), "it takes layers, entanglement"),
        (EncodeInput(input="h", encoding="reupload"), "QuantumLayer(circuit, encoding='reupload')"),
    ],
)
def test_what_does_not_fit_is_said_with_the_next_step(step: EncodeInput, text: str) -> None:
    with pytest.raises((UsageError, PassError)) as error:
        step.run(hybrid(3), Context())
    assert text in str(error.value)


def test_too_many_features_name_the_encodings_that_take_them() -> None:
    with pytest.raises(UsageError) as error:
        EncodeInput(input="h", encoding="angle").run(hybrid(8), Context())
    assert "amplitude" in str(error.value)


def test_an_input_that_gates_use_is_left_to_its_encoding() -> None:
    program = Program.of_circuit(Circuit(1, params=("x0",)).rx(Parameter("x0"), 0))
    with pytest.raises(PassError, match="use 'x0' already"):
        EncodeInput(input="x").run(program, Context())
