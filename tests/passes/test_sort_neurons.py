"""sort-neurons: hidden neurons in order of spread, the function unchanged."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.graph.sort_neurons import SortedNeurons
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ChosenWeights
from tests.models import from_text, mlp
from tests.papers.low_bit import char_graph, char_windows

CLEAN = "canonicalise,fold-constants"


def sorted_by(model: onnx.ModelProto, pipeline="sort-neurons", data=None):
    program = Program(ir.from_proto(model))
    context = Context(calibration=None if data is None else lambda: iter([data]))
    Pipeline.parse(f"{CLEAN},{pipeline}").run(program, context)
    return program, context


def spreads(program: Program, name: str, axis: int) -> np.ndarray:
    return np.linalg.norm(program.model.graph.initializers[name].const_value.numpy(), axis=axis)


def test_hidden_neurons_stand_in_order_and_nothing_else_changes():
    model = mlp((12, 16, 10, 6))
    x = np.random.default_rng(0).standard_normal((32, 12)).astype(np.float32)
    program, context = sorted_by(model)
    real = HybridSession(Program(ir.from_proto(model))).run({"x": x})["y"]
    np.testing.assert_allclose(HybridSession(program).run({"x": x})["y"], real, atol=1e-5)
    found = context.need(SortedNeurons, "sort-neurons").weights
    assert found == {"w0", "w1"}  # the outputs of the last layer are the graph's
    axis = 1 if program.model.graph.initializers["w0"].shape[0] == 16 else 0
    for name in found:
        assert (np.diff(spreads(program, name, axis)) >= -1e-6).all()


def test_gate_and_up_of_a_decoder_move_together_and_its_stream_and_heads_stay():
    program, context = sorted_by(char_graph())
    found = context.need(SortedNeurons, "sort-neurons").weights
    assert found == {f"{block}.{part}" for block in range(2) for part in ("gate", "up")}
    feeds = {"ids": char_windows()[:4]}
    real = HybridSession(Program(ir.from_proto(char_graph()))).run(feeds)["logits"]
    np.testing.assert_allclose(HybridSession(program).run(feeds)["logits"], real, atol=2e-4)


def test_codebooks_of_sorted_neurons_need_no_number_a_neuron():
    _, context = sorted_by(char_graph(), "sort-neurons,jlcm{rounds=1}", {"ids": char_windows()})
    weights = context.need(ChosenWeights, "jlcm").weights
    without = {name for name, weight in weights.items() if weight.book is None}
    assert without == context.need(SortedNeurons, "sort-neurons").weights


@pytest.mark.parametrize(
    "line",
    [
        "y = MatMul (h, v) z = Identity (h)",  # an output of the graph
        "s = Softmax (h) y = MatMul (s, v) z = Identity (y)",  # a function of all neurons
        "y = MatMul (h, v) z = Mul (h, x)",  # meets what is not a layer's
        "y = MatMul (h, v) z = MatMul (h, v)",  # a weight that two layers read
    ],
)
def test_neurons_that_something_else_reads_stay(line):
    rng = np.random.default_rng(0)
    model = from_text(
        f"""<ir_version: 10, opset_import: ["" : 21]>
        layers (float[n, 8] x) => (float[n, 8] y, float[n, 8] z) {{
            h = MatMul (x, w)
            {line}
        }}""",
        w=rng.standard_normal((8, 8)).astype(np.float32),
        v=rng.standard_normal((8, 8)).astype(np.float32),
    )
    _, context = sorted_by(model)
    assert not context.need(SortedNeurons, "sort-neurons").weights


def test_an_excluded_layer_keeps_its_neurons():
    model = mlp((12, 16, 10, 6))
    names = [node.op_type for node in model.graph.node]
    assert names.count("Gemm") + names.count("MatMul") == 3
    _, context = sorted_by(model, 'select-nodes{exclude=["*"]},sort-neurons')
    assert not context.need(SortedNeurons, "sort-neurons").weights
