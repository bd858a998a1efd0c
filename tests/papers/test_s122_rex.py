"""S122: Yvinec et al. 2022, "REx: Data-Free Residual Quantization Error Expansion".

The digits MLP with a scale a row and two bits, signed, without data: each order of the expansion
divides the largest error by three, and two orders come back to float. The branches of the ONNX
graph sum to the product with the expanded weight.
"""

import json

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from qcomp.execute import HybridSession
from qcomp.ir.program import Program
from qcomp.passes.quantize.quantize_residual import residual_terms
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import ResidualTerms

PREPARE = "canonicalise,fold-constants"


@pytest.fixture(scope="module")
def digits(shared):
    folder = shared / "bench" / "models"
    floating = json.loads((folder / "digits_mlp.json").read_text())["fp32_eval"]
    return onnx.load(folder / "digits_mlp.onnx"), dict(np.load(folder / "digits_mlp.npz")), floating


def expanded(source, options):
    program = Program(ir.from_proto(source))
    context = Context()
    Pipeline.parse(f"{PREPARE},quantize-residual{{{options}}}").run(program, context)
    return program, context.need(ResidualTerms, "quantize-residual").errors


def logits(program, data):
    return HybridSession(program).run({"input": data["eval_x"]})["logits"]


def accuracy(program, data):
    return 100.0 * float((logits(program, data).argmax(1) == data["eval_y"]).mean())


def test_three_orders_of_two_bits_come_back_to_float(digits):
    source, data, floating = digits
    found = [accuracy(expanded(source, f"bits=2,order={k}")[0], data) for k in (1, 2, 3)]
    assert found[0] < 92.0  # one term of two bits loses more than five points
    assert found[1] >= 96.3
    assert found[2] >= 97.5
    assert found[2] >= 100.0 * floating - 0.2


@pytest.mark.parametrize(("bits", "factor"), [(2, 3.0), (3, 7.0), (4, 15.0)])
def test_the_largest_error_falls_by_the_number_of_steps_with_each_order(digits, bits, factor):
    _, errors = expanded(digits[0], f"bits={bits},order=3")
    assert len(errors) == 3
    for by_order in errors.values():
        ratios = np.array([1.0, *by_order])
        assert (ratios[1:] <= ratios[:-1] / factor * (1 + 1e-4)).all()


def test_the_branches_sum_to_the_product_with_the_expanded_weight(digits):
    source, data, _ = digits
    program, _ = expanded(source, "bits=2,order=3")
    weights = {t.name: onnx.numpy_helper.to_array(t) for t in source.graph.initializer}
    x = data["eval_x"].astype(np.float64)
    for name in ("0", "2", "4"):
        terms = residual_terms(weights[f"{name}.weight"], 0, 2, 3, 1.0)
        W = sum(t.levels.astype(np.float64) * t.scale[:, None] for t in terms)
        x = x @ W.T + weights[f"{name}.bias"]
        x = x if name == "4" else np.maximum(x, 0.0)
    got = logits(program, data)
    assert np.abs(got - x).max() <= 1e-5 * np.abs(x).max()


def test_half_of_the_rows_keep_most_of_what_all_of_them_gain(digits):
    source, data, _ = digits
    full, half = (accuracy(expanded(source, f"bits=2,order=3,keep={k}")[0], data) for k in (1, 0.5))
    assert half >= 94.0
    assert full >= half - 0.5


def test_an_integer_only_machine_comes_to_float_accuracy_with_four_bits(digits):
    """Static INT8 kernels on 4-bit terms: the terms are found again on their grid."""
    source, data, floating = digits
    program = Program(ir.from_proto(source))
    context = Context(calibration=lambda: iter([{"input": data["calib_x"]}]))
    text = "quantize-residual{bits=4,order=2,store=float},calibrate,quantize-static{weight_bits=4}"
    Pipeline.parse(f"{PREPARE},{text}").run(program, context)
    assert accuracy(program, data) >= 100.0 * floating - 0.2
    stored = [n.inputs[0].dtype.name for n in program.model.graph if n.op_type == "Cast"]
    assert stored == ["INT4"] * 6
