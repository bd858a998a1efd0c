"""The graph simulator against ONNX Runtime on every integer tensor of whole quantized graphs."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.quantize.integer_simulator import IntegerSimulator
from qcomp.passes.quantize.quantize_weights import QuantizeWeights
from qcomp.passmanager import Context


def integer_tensors(program):
    return tuple(
        node.outputs[0].name for node in program.model.graph if node.op_type == "QuantizeLinear"
    )


def test_every_integer_tensor_of_a_cnn_is_within_one_step(cnn, compiled, run, rng):
    data = {"x": rng.normal(size=(32, 3, 12, 12)).astype(np.float32)}
    compiled(cnn, "calibrate,quantize-static", data)
    names = integer_tensors(cnn)
    assert len(names) == 13
    ours = IntegerSimulator(cnn.model).run(data, watch=names)
    theirs = run(cnn, data, taps=names)
    for name in names:
        distance = np.abs(ours[name].astype(int) - theirs[name].astype(int))
        assert distance.max() <= 1, name
        assert (distance == 0).mean() > 0.99, name
    # One step of the pooled tensor moves a logit by about s_x s_w * 127.
    assert np.abs(ours["y"] - theirs["y"]).max() < 0.02


@pytest.mark.parametrize("pipeline", ["calibrate,quantize-static", "quantize-dynamic"])
def test_graph_outputs_of_an_mlp_equal_the_runtime(mlp, compiled, run, rng, pipeline):
    data = {"x": rng.normal(size=(50, 64)).astype(np.float32)}
    compiled(mlp, pipeline, data)
    ours, theirs = IntegerSimulator(mlp.model).run(data)["y"], run(mlp, data)["y"]
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", ["matmulnbits", "dequantize"])
def test_weight_only_graphs_equal_the_runtime(mlp, run, rng, form):
    data = {"x": rng.normal(size=(20, 64)).astype(np.float32)}
    QuantizeWeights(form=form, accuracy_level=0).run(mlp, Context())
    ours, theirs = IntegerSimulator(mlp.model).run(data)["y"], run(mlp, data)["y"]
    # The runtime chooses int8 activations for the standard form by itself.
    tolerance = 1e-5 if form == "matmulnbits" else 0.03
    np.testing.assert_allclose(ours, theirs, atol=tolerance)


def test_an_attention_graph_equals_the_runtime(attention, compiled, run, rng):
    mask = np.zeros((6, 1, 8), np.float32)
    mask[:, :, 6:] = -1e4
    data = {"x": rng.normal(size=(6, 8, 32)).astype(np.float32), "mask": mask}
    compiled(attention, "calibrate,quantize-static", data)
    ours, theirs = IntegerSimulator(attention.model).run(data)["y"], run(attention, data)["y"]
    assert np.abs(ours - theirs).max() < 0.05
    assert np.median(np.abs(ours - theirs)) < 1e-3


def test_a_relu_that_the_zero_point_does_not_cover_is_applied_by_itself(build):
    program = build(
        """
        g (float[n, 2] x) => (float[n, 2] y) {
            xq = QuantizeLinear(x, s, z)
            xd = DequantizeLinear(xq, s, z)
            wd = DequantizeLinear<axis=1>(w, ws, wz)
            p = MatMul(xd, wd)
            r = Relu(p)
            rq = QuantizeLinear(r, s, z)
            y = DequantizeLinear(rq, s, z)
        }""",
        {
            "s": np.float32(0.1),
            "z": np.uint8(128),
            "w": np.array([[10, 0], [0, -10]], np.int8),
            "ws": np.full(2, 0.1, np.float32),
            "wz": np.zeros(2, np.int8),
        },
    )
    out = IntegerSimulator(program.model).run({"x": np.array([[1.0, 1.0]], np.float32)})["y"]
    assert out.tolist() == [[pytest.approx(1.0), 0.0]]


def test_control_flow_is_refused(build):
    program = build(
        """
        g (float[2] x, bool c) => (float[2] y) {
            y = If (c) <
                then_branch = t () => (float[2] a) { a = Relu(x) },
                else_branch = e () => (float[2] b) { b = Neg(x) }
            >
        }""",
        {},
    )
    with pytest.raises(UsageError, match="control flow"):
        IntegerSimulator(program.model)
