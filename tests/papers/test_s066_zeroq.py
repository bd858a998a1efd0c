"""S066: Cai et al. 2020, "ZeroQ: A Novel Zero Shot Quantization Framework", arXiv:2001.00281.

The data-free calibration on the CNN of handwritten digits, whose file keeps its BatchNormalizations
(``tests/data/digits_cnn.onnx``): inputs are distilled that match their statistics, the INT8 graph
is calibrated on them, and no digit is read before it is judged. Mixed precision: the divergence of
the outputs if one layer at a time is rounded, on the same inputs, and the Pareto front of all bit
settings by dynamic programming.
"""

import itertools
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import qcomp
from qcomp.execute import Session
from qcomp.passes.allocate.solve import frontier
from qcomp.passmanager import Context, Pipeline
from qcomp.quantization import GeneratedData
from qcomp.sensitivity import AllocatedBits, Sensitivities

SOURCE = Path(__file__).parent.parent / "data" / "digits_cnn.onnx"


@pytest.fixture(scope="module")
def digits():
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    x = (x.reshape(-1, 1, 8, 8) / 16.0).astype(np.float32)
    return train_test_split(x, y, test_size=0.4, stratify=y, random_state=0)


@pytest.fixture(scope="module")
def compiled(digits):
    """Calibration -> INT8 artifact and CPU seconds."""
    pytest.importorskip("torch")
    found = {}
    for name, data in (("generated", "generated"), ("real", {"image": digits[0]})):
        start = time.process_time()
        artifact = qcomp.compile(SOURCE, target="cpu-int8", calibration=data)
        found[name] = artifact, time.process_time() - start
    return found


def logits(model, images):
    return model.run({"image": images})["logits"]


def accuracy(model, digits):
    return 100.0 * float((logits(model, digits[1]).argmax(1) == digits[3]).mean())


def decibels(model, digits):
    y = logits(Session(SOURCE), digits[1])
    return float(10 * np.log10((y**2).sum() / ((logits(model, digits[1]) - y) ** 2).sum()))


def test_zero_shot_int8_is_within_three_tenths_of_a_point_of_real_data(compiled, digits):
    free, real = (accuracy(compiled[name][0], digits) for name in ("generated", "real"))
    assert abs(real - free) <= 0.3
    assert free >= 99.0


def test_zero_shot_int8_is_within_three_decibels_of_real_data(compiled, digits):
    free, real = (decibels(compiled[name][0], digits) for name in ("generated", "real"))
    assert free >= real - 3.0


def test_the_report_says_that_the_data_were_distilled(compiled):
    report = dict(compiled["generated"][0].report)
    (said,) = [w for w in report["warnings"] if "generated samples" in w]
    assert "distilled to the statistics of 3 normalizations" in said


def test_everything_takes_at_most_thirty_cpu_seconds(compiled):
    assert compiled["generated"][1] <= 30.0


def test_the_statistics_come_from_the_model_alone(digits):
    """Inputs found for a model whose statistics lie differ: nothing else is looked at."""
    pytest.importorskip("torch")
    from qcomp.passmanager import Context, Pipeline

    found = []
    for shift in (0.0, 1.0):
        program = qcomp.read(SOURCE)
        for node in program.model.graph:
            if node.op_type == "BatchNormalization":
                mean = node.inputs[3].const_value.numpy() + np.float32(shift)
                node.inputs[3].const_value = ir.tensor(mean)
                break
        context = Context()
        Pipeline.parse("generate-data{method=distill,samples=32,steps=5}").run(program, context)
        assert context.get(GeneratedData).samples == 32
        found.append(np.concatenate([part["image"] for part in context.calibration()]))
    assert np.abs(found[0] - found[1]).mean() > 0.05


MIXED = (
    "generate-data,canonicalise,fold-constants,fuse-batch-norm,"
    "measure-sensitivity{bits=[2,3,4],form=static,convolutions=true,rows=32},"
    "allocate-bits{max-ratio=1.0,uniform=3,method=frontier}"
)
STATIC = "calibrate,quantize-static{weight-bits=3}"


@pytest.fixture(scope="module")
def mixed():
    """Programs in three bits and three on average, the facts, CPU seconds of the mixed one."""
    pytest.importorskip("torch")
    found = {}
    for name, text in (("uniform", MIXED.partition("measure")[0].rstrip(",")), ("mixed", MIXED)):
        program, context = qcomp.read(SOURCE), Context()
        start = time.process_time()
        Pipeline.parse(f"{text},{STATIC}").run(program, context)
        found[name] = program, context, time.process_time() - start
    return found


def test_three_bits_on_average_are_no_worse_than_three_bits_for_all(mixed, digits):
    allocated = mixed["mixed"][1].get(AllocatedBits)
    assert allocated.bytes <= allocated.uniform["3"][0]
    assert len({choice.bits for choice in allocated.chosen.values()}) > 1
    sizes = {
        name: sum(
            v.const_value.nbytes
            for v in program.model.graph.initializers.values()
            if v.const_value is not None
        )
        for name, (program, _, _) in mixed.items()
    }
    assert sizes["mixed"] <= sizes["uniform"] + 512
    uniform, shared = (Session(mixed[name][0].model) for name in ("uniform", "mixed"))
    assert accuracy(shared, digits) >= accuracy(uniform, digits)
    assert decibels(shared, digits) > decibels(uniform, digits)


def test_the_front_of_all_bit_settings_is_that_of_brute_force(mixed):
    tensors = mixed["mixed"][1].get(Sensitivities).tensors
    assert 4 <= len(tensors) <= 6
    items = [[(float(c.bytes), c.error) for c in t.choices] for t in tensors]
    front = frontier(items)
    points = sorted(
        (sum(c for c, _ in ways), sum(e for _, e in ways)) for ways in itertools.product(*items)
    )
    best = []
    for cost, error in points:
        if not best or error < best[-1][1]:
            best.append((cost, error))
    np.testing.assert_allclose(front.costs, [c for c, _ in best])
    np.testing.assert_allclose(front.errors, [e for _, e in best])


def test_mixed_precision_without_data_takes_at_most_thirty_cpu_seconds(mixed):
    assert mixed["mixed"][1].get(Sensitivities).data == "generated"
    assert mixed["mixed"][2] <= 30.0
