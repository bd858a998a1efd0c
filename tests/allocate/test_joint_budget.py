"""``--max-drop`` of a hybrid model for Clifford gates and T: bytes and T gates under one number."""

import re

import numpy as np
import onnx_ir as ir
import pytest

import qcomp
from qcomp import joint_budget
from qcomp.errors import PassError, UsageError
from qcomp.ir.angle import Parameter
from qcomp.ir.circuit import Circuit
from qcomp.ir.observable import Observable
from qcomp.ir.program import Program, Readout, make_circuit_node


def model() -> Program:
    """Thirty-two numbers, a layer, two angles, a circuit, a layer, three scores."""
    rng = np.random.default_rng(0)

    def constant(name: str, *shape: int) -> ir.Value:
        array = rng.normal(size=shape).astype(np.float32) / shape[0] ** 0.5
        value = ir.Value(name=name, const_value=ir.tensor(array, name=name))
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
        return value

    weights = [constant("hidden", 32, 32), constant("angles", 32, 2), constant("scores", 2, 3)]
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["batch", 32]))
    first = ir.Node("", "MatMul", [x, weights[0]], name="first")
    bent = ir.Node("", "Tanh", [first.outputs[0]], name="bent")
    second = ir.Node("", "MatMul", [bent.outputs[0], weights[1]], name="second")
    circuit = Circuit(2, name="turns")
    circuit.ry(Parameter("a"), 0).rx(Parameter("b"), 1).ry(0.7, 1).cx(0, 1).rx(0.4, 0)
    readout = Readout("expval", (Observable.parse("Z0"), Observable.parse("Z1")))
    run = make_circuit_node("turns", readout, [second.outputs[0]], name="run")
    cast = ir.Node(
        "", "Cast", [run.outputs[0]], [ir.AttrInt64("to", int(ir.DataType.FLOAT))], name="cast"
    )
    last = ir.Node("", "MatMul", [cast.outputs[0], weights[2]], name="last")
    out = last.outputs[0]
    out.name, out.type, out.shape = "y", x.type, ir.Shape(["batch", 3])
    graph = ir.Graph(
        [x], [out], nodes=[first, bent, second, run, cast, last], initializers=weights,
        opset_imports={"": 21, "ai.qcomp": 1}, name="model",
    )  # fmt: skip
    return Program(ir.Model(graph, ir_version=10), {"turns": circuit})


@pytest.fixture(scope="module")
def given() -> dict[str, object]:
    from qcomp.execute import HybridSession

    program = model()
    x = np.random.default_rng(1).normal(size=(64, 32)).astype(np.float32)
    y = HybridSession(program).run({"x": x})["y"]
    sure = np.sort(y, axis=1)
    keep = sure[:, 2] - sure[:, 1] > 0.05
    x, y = x[keep], y[keep].argmax(axis=1)
    return {"source": program, "calibration": {"x": x}, "labels": {"x": x, "y": y}}


@pytest.fixture
def judges(monkeypatch: pytest.MonkeyPatch) -> list[joint_budget.Splits]:
    """The judges of splits that compiles made."""
    made: list[joint_budget.Splits] = []

    class Kept(joint_budget.Splits):
        def __init__(self, *args: object) -> None:
            super().__init__(*args)  # type: ignore[arg-type]
            made.append(self)

    monkeypatch.setattr(joint_budget, "Splits", Kept)
    monkeypatch.setattr(joint_budget, "_BYTES", 4)
    monkeypatch.setattr(joint_budget, "_ROUNDS", 1)
    return made


def test_one_drop_is_shared_by_bytes_and_t_gates_and_no_random_split_is_better(
    given: dict[str, object], judges: list[joint_budget.Splits]
) -> None:
    artifact = qcomp.compile(
        **given,
        target="cpu-mixed+clifford+t",
        max_drop="4%",
        effort="fast",  # type: ignore[arg-type]
    )
    (judge,) = judges
    best = judge.search()  # what was measured is known
    assert judge.meets(best)
    (line,) = [x for x in artifact.report["budget"] if x["spender"] == "--max-drop"]
    assert line["promised"] == pytest.approx(judge.allowed)
    assert line["spent"] == pytest.approx(max(best.drop, 0.0))
    assert f"{best.bytes:,} bytes" in line["measure"]
    assert "T gates a sample" in line["measure"]
    (accuracy,) = artifact.report["accuracy"]
    assert accuracy["source"] - accuracy["compiled"] <= judge.allowed + 1e-12
    (accuracies,) = artifact.accuracies.values()
    assert len(accuracies) == 2
    rng = np.random.default_rng(2)
    for _ in range(10):
        tensors = round(float(np.exp(rng.uniform(*np.log([judge.made.least, judge.made.most])))))
        other = judge.measure(tensors, float(np.exp(rng.uniform(np.log(0.02), np.log(2.0)))))
        if judge.meets(other):
            assert other.cost >= best.cost / 1.03
            assert not (other.bytes <= best.bytes and other.t < best.t)


def test_a_drop_that_no_split_meets_says_the_nearest(given: dict[str, object]) -> None:
    from qcomp.execute import HybridSession

    exact = HybridSession(model()).run(given["calibration"])["y"]  # type: ignore[arg-type]

    def nearness(outputs: np.ndarray, labels: np.ndarray) -> float:
        """A figure that every change of an output lowers."""
        return -float(np.abs(outputs - exact).max())

    with pytest.raises(PassError, match="cannot be met") as error:
        qcomp.compile(
            **given,
            target="cpu-mixed+clifford+t",
            max_drop=1e-9,
            effort="fast",
            metric=nearness,  # type: ignore[arg-type]
        )
    assert "T gates a sample" in error.value.why
    assert re.match(r"allow \S+; the front: [\d,]+ bytes and \d+ T at ", error.value.hint)


def test_one_drop_is_for_graphs_that_share_bits_out(given: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="shares bits out") as error:
        qcomp.compile(
            **given,
            target="cpu-dynamic-int8+clifford+t",
            max_drop="4%",
            effort="fast",  # type: ignore[arg-type]
        )
    assert "cpu-mixed+clifford+t" in error.value.hint
