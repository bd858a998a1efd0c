"""One scale for a whole weight, as some accelerators want it."""

import numpy as np
import pytest

from qcomp.errors import UsageError
from qcomp.passes.quantize.integer_simulator import IntegerSimulator
from qcomp.passes.quantize.quantize_static import QuantizeStatic
from qcomp.quantization import FusionReport, QuantizationError, sqnr


def scales_of_weights(program):
    nodes = [n for n in program.model.graph if n.op_type == "DequantizeLinear"]
    return [
        node.inputs[1].const_value.numpy()
        for node in nodes
        if node.inputs[0].is_initializer() and node.inputs[0].dtype.name in ("INT8", "INT32")
    ]


@pytest.mark.parametrize("bits", [8, 7])
def test_every_weight_has_one_scale_and_the_simulator_agrees(cnn, compiled, run, rng, bits):
    data = {"x": rng.normal(0, 1, (16, 3, 12, 12)).astype(np.float32)}
    wanted = run(cnn, data)["y"]
    quantize = f"calibrate,quantize-static{{weight_bits={bits},weight_scales=tensor}}"
    context = compiled(cnn, f"{quantize},quantization-error", data)
    scales = scales_of_weights(cnn)
    assert len(scales) >= 5
    assert all(scale.ndim == 0 for scale in scales)
    got = run(cnn, data)["y"]
    assert sqnr(wanted, got) > 20.0
    assert sqnr(got, IntegerSimulator(cnn.model).run(data)["y"]) > 35.0
    layers = context.need(QuantizationError, "quantization-error").layers
    assert min(layer.weight_sqnr for layer in layers if layer.weight_sqnr is not None) > 25.0


def test_the_runtime_still_makes_integer_kernels_of_them(mlp, compiled, rng, tmp_path):
    from qcomp.backends.onnx_int import OnnxIntBackend
    from qcomp.target import get_target

    data = {"x": rng.normal(0, 1, (16, 64)).astype(np.float32)}
    context = compiled(mlp, "calibrate,quantize-static{weight_scales=tensor}", data)
    context.calibration = lambda: iter([data])
    OnnxIntBackend().write(mlp, tmp_path / "m.onnx", get_target("cpu-int8"), context)
    assert context.need(FusionReport, "onnx_int").unfused == ()


def test_other_scales_are_refused():
    with pytest.raises(UsageError, match="weight_scales"):
        QuantizeStatic(weight_scales="row")
