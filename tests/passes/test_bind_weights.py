"""bind-weights: trained weights become numbers, data stays free, outputs stay the same."""

import numpy as np
import onnx_ir as ir

import qcomp
from qcomp.binding import BoundCircuits
from qcomp.execute import HybridSession
from qcomp.ir.observable import Observable
from qcomp.ir.program import DOMAIN, Program, Readout, make_circuit_node
from qcomp.passes.graph.bind_weights import BindWeights
from qcomp.passmanager import Context

ROWS = np.random.default_rng(1).normal(size=(5, 2)).astype(np.float32)
READOUT = Readout("expval", (Observable.z(0), Observable.z(1)))


def circuit() -> qcomp.Circuit:
    x, w = qcomp.Parameter("x"), qcomp.Parameter("w")
    made = qcomp.Circuit(2, params=("x", "y", "w", "v"), name="layer")
    return (
        made.ry(x, 0)
        .rz(w + 0.5, 0)
        .ry(qcomp.Parameter("y"), 1)
        .cx(0, 1)
        .rx(qcomp.Parameter("v") - w, 1)
    )


def program(*weights: np.ndarray) -> Program:
    """The data through as many layers of one circuit as there are weights, in a row."""
    value = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["n", 2]))
    graph_input, nodes, initializers = value, [], []
    for i, weight in enumerate(weights):
        initializers.append(ir.Value(name=f"w{i}", const_value=ir.tensor(weight, name=f"w{i}")))
        nodes.append(make_circuit_node("layer", READOUT, [value, initializers[-1]], name=f"n{i}"))
        value = nodes[-1].outputs[0]
        value.name, value.type = f"y{i}", ir.TensorType(ir.DataType.FLOAT)
        value.shape = ir.Shape(["n", 2])
    graph = ir.Graph([graph_input], [value], nodes=nodes, initializers=initializers,
                     opset_imports={"": 21, DOMAIN: 1}, name="g")  # fmt: skip
    return Program(ir.Model(graph, ir_version=10), {"layer": circuit()})


A, B = np.array([0.3, -1.2], np.float32), np.array([2.0, 0.7], np.float32)


def bind(source: Program) -> tuple[Program, Context]:
    bound, context = source.copy(), Context()
    assert BindWeights().run(bound, context)
    assert not BindWeights().run(bound, context)
    expected = HybridSession(source).run({"x": ROWS})
    got = HybridSession(bound).run({"x": ROWS})
    for name, array in expected.items():
        assert np.abs(got[name] - array).max() < 1e-6
    return bound, context


def test_data_parameters_stay_free_and_the_weights_leave_the_graph() -> None:
    bound, _ = bind(program(A))
    assert bound.circuits["layer"].params == ("x", "y")
    assert not bound.model.graph.initializers


def test_one_circuit_with_two_sets_of_weights_becomes_two_circuits() -> None:
    bound, context = bind(program(A, B))
    assert sorted(bound.circuits) == ["layer", "layer_2"]
    fact = context.need(BoundCircuits, "bind-weights")
    source = {"layer": circuit()}
    for name, made in bound.circuits.items():
        assert made.equals(fact.source_of(name, source))


def test_nodes_with_equal_weights_share_one_circuit() -> None:
    bound, _ = bind(program(A, A.copy()))
    assert list(bound.circuits) == ["layer"]


def test_the_source_program_is_left_as_it_was() -> None:
    source = program(A)
    bind(source)
    assert source.circuits["layer"].params == ("x", "y", "w", "v")
